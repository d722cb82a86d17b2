"""tokenizer.json: equal ids in Hugging Face's libraries, in both directions, and clear words about damaged
files."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.byte_alphabet import to_letters

hf = pytest.importorskip("tokenizers")

# Engines know different versions of Unicode; characters that this Python does not know yet are left out.
TRICKY = "aAsS'tT l123 \t\r\n.;(){é漢ſ\u2028\u00a0\u0085"
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"])) | st.text(TRICKY)
TEXT = TEXT.filter(lambda text: "<|endoftext|>" not in text)  # special there, as a test below says


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def opened(folder):
    return hf.Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(text=TEXT)
@settings(deadline=None)
def test_hugging_face_gives_equal_ids(tokenizer, opened, text):
    """So a model trained here can be served by anything that reads the ecosystem's formats."""
    ids = tokenizer.encode_ordinary(text)
    assert opened.encode(text).ids == ids
    assert opened.decode(ids) == text


def test_real_text_has_equal_ids(tokenizer, opened, texts):
    for text in texts:
        assert opened.encode(text).ids == tokenizer.encode(text)


@given(text=TEXT)
@settings(deadline=None)
def test_plain_bytes_open_there_too(tmp_path_factory, text):
    """A byte-level tokenizer has no merges and no special token."""
    folder = tmp_path_factory.getbasetemp() / "plain"
    if not folder.exists():
        Tokenizer.bytes_only().save(folder)
    assert hf.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids == list(text.encode())


def test_special_tokens_are_special_there(tokenizer, opened):
    """Hugging Face recognises them in any text; here that must be asked for."""
    text = "one<|endoftext|>two"
    assert opened.encode(text).ids == tokenizer.encode(text, allowed_special="all")
    assert opened.decode([tokenizer.eot_token]) == ""  # skipped as special, unlike a plain added token


@pytest.mark.parametrize("model_type", [None, "gpt2", "llama", "qwen3"])
def test_transformers_opens_the_folder(tokenizer, folder, tmp_path, model_type):
    """Also beside a model: its type must not bring in another split pattern."""
    transformers = pytest.importorskip("transformers")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x):\n    return 'HE'S' + 12345 , naïve  \n"
    ids = tokenizer.encode(text)
    assert opened(text)["input_ids"] == ids
    assert opened.decode(ids) == text
    assert (len(opened), opened.eos_token_id) == (tokenizer.n_vocab, tokenizer.eot_token)


def test_a_saved_tokenizer_comes_back_the_same(tokenizer, folder, tmp_path):
    again = Tokenizer.load(folder)
    assert again.fingerprint == tokenizer.fingerprint == Tokenizer.load(folder / "tokenizer.json").fingerprint
    assert again.vocabulary == tokenizer.vocabulary and again.eot_token == tokenizer.eot_token
    again.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_pattern_of_the_users_own_is_kept(tmp_path):
    """minbpe once forgot it on loading, and gave other ids than before saving."""
    tokenizer = Tokenizer.train(["hug hug pug"], 262, pattern=".+")
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("hug hug") == tokenizer.encode("hug hug")
    theirs = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("hug hug").ids == tokenizer.encode("hug hug")


# Files from elsewhere


def rewritten(folder, path, change) -> Tokenizer:
    """The tokenizer of `folder`, as another program would have written it."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    path.joinpath("tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return Tokenizer.load(path)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer"])
@given(text=TEXT)
@settings(deadline=None)
def test_files_written_by_transformers_give_equal_ids(tmp_path_factory, texts, name, text):
    """GPT-2 has a bare ByteLevel; Qwen brings text into normal form C and splits single digits."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.getbasetemp() / name
    if not folder.exists():
        ours = Tokenizer.train(texts, 600, pattern="gpt2")
        ours.save_gpt2(folder)
        lines = (folder / "merges.txt").read_text("utf-8").split("\n")[1:-1]
        merges = [tuple(line.split(" ")) for line in lines]
        vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
        getattr(transformers, name)(vocab=vocab, merges=merges).save_pretrained(folder)
    theirs = hf.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for probe in (text, "e\u0301 1234 don't"):  # e + accent: normal form C makes one letter of them
        assert Tokenizer.load(folder).encode_ordinary(probe) == theirs.encode(probe).ids


@given(st.permutations(["ab", "abc", "bc", "ca", "cab", "bca", "abab", "cc"]), st.text("abc", max_size=20))
@settings(deadline=None, max_examples=50)
def test_merges_in_an_order_of_their_own_are_obeyed(tmp_path_factory, merges, word):
    """The order of merges decides, whatever ids they make: here "abc" may be made before or after "ab"."""
    tokens = ["a", "b", "c", *sorted(merges)]
    tokens += [letter for letter in _alphabet() if letter not in "abc"]
    ids = {token: i for i, token in enumerate(tokens)}
    pairs = [(made[:cut], made[cut:]) for made in merges for cut in range(1, len(made))]
    pairs = [(left, right) for left, right in pairs if left in ids and right in ids]
    theirs = hf.Tokenizer(hf.models.BPE(ids, pairs))
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    path = tmp_path_factory.getbasetemp() / "order.json"
    theirs.save(str(path))
    assert Tokenizer.load(path).encode(word) == theirs.encode(word).ids


def _alphabet() -> list[str]:
    return sorted(hf.pre_tokenizers.ByteLevel.alphabet())


def test_llama_3_style_is_read(folder, tmp_path):
    """Merges as pairs, whole words taken whole, and the end of text named by tokenizer_config.json."""

    def as_llama(content: dict) -> None:
        content["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
        content["model"]["ignore_merges"] = True
        content["added_tokens"][0]["content"] = "<|end_of_text|>"
        content["post_processor"] = {"type": "ByteLevel"}

    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|end_of_text|>"}}))
    tokenizer = rewritten(folder, tmp_path, as_llama)
    assert tokenizer.eot_token == tokenizer.special_tokens["<|end_of_text|>"] == 999
    assert tokenizer.vocabulary.whole_words
    assert tokenizer.encode("return self") == Tokenizer.load(folder).encode("return self")


@pytest.mark.parametrize("config", [{}, {"eos_token": "<|im_end|>"}])
def test_the_end_of_a_text_is_not_the_end_of_a_turn(folder, tmp_path, config):
    """Qwen's chat models name <|im_end|> as eos_token, which ends a message; documents end as ever."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    token = {"id": 1000, "content": "<|im_end|>"}
    tokenizer = rewritten(folder, tmp_path, lambda c: c["added_tokens"].append(token))
    assert (tokenizer.n_vocab, tokenizer.eot_token) == (1001, 999)


def test_special_tokens_may_stand_in_the_vocabulary_too(folder, tmp_path):
    """As in GPT-2's own file."""
    tokenizer = rewritten(folder, tmp_path, lambda c: c["model"]["vocab"].update({"<|endoftext|>": 999}))
    assert tokenizer.fingerprint == Tokenizer.load(folder).fingerprint


REFUSED = {
    "WordPiece": lambda c: c["model"].update(type="WordPiece"),
    "'byte_fallback', which": lambda c: c["model"].update(byte_fallback=True),
    "'end_of_word_suffix', which": lambda c: c["model"].update(end_of_word_suffix="</w>"),
    "the key 'model' is missing": lambda c: c.pop("model"),
    "the key 'merges' is missing": lambda c: c["model"].pop("merges"),
    "the key 'content' is missing": lambda c: c["added_tokens"][0].pop("content"),
    "'vocab' should be of type dict, but is list": lambda c: c["model"].update(vocab=[]),
    "the id of 'a' should be of type int, but is str": lambda c: c["model"]["vocab"].update(a="97"),
    "an added token should be of type dict": lambda c: c.update(added_tokens=["<|endoftext|>"]),
    "sets 'lstrip', which changes": lambda c: c["added_tokens"][0].update(lstrip=True),
    "'   ' is not special": lambda c: c["added_tokens"].append({"id": 1000, "content": "   ", "special": False}),
    "names 'zzzz', which is not in the vocabulary": lambda c: c["model"]["merges"].append("zzzz a"),
    "'a b c' is no merge": lambda c: c["model"]["merges"].append("a b c"),
    "42 is no merge": lambda c: c["model"]["merges"].append(42),
    "1 bytes have no token": lambda c: c["model"]["vocab"].pop(to_letters(b"\x7f")),
    "no byte is written '漢'": lambda c: c["model"]["vocab"].update(漢=2000),
    "two tokens have the same id": lambda c: c["model"]["vocab"].update({"Ġzzz": 97}),
    "pre_tokenizer is neither": lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
    "one Split followed by": lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
    "'add_prefix_space', which": lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}),
    "not a regular expression": lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="("),
    "repeats a count": lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="a{1,3}+"),
    "normalizer is neither": lambda c: c.update(normalizer={"type": "Lowercase"}),
}


@pytest.mark.parametrize("complaint", REFUSED)
def test_files_that_would_give_other_ids_are_refused(folder, tmp_path, complaint):
    """One line that names the file and the reason; a tokenizer that is nearly right ruins a model
    silently."""
    with pytest.raises(ValueError, match=complaint) as refusal:
        rewritten(folder, tmp_path, REFUSED[complaint])
    assert str(tmp_path / "tokenizer.json") in str(refusal.value) and "\n" not in str(refusal.value)


# Damage


@pytest.mark.parametrize("keep", [0, 1, 1000, -3])
def test_a_truncated_file_is_refused(folder, tmp_path, keep):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"tokenizer.json cannot be used .*: .*fetch it again"):
        Tokenizer.load(tmp_path)


def test_a_flipped_bit_is_noticed(folder, tmp_path):
    """One letter of a token changed: still good JSON, but other ids. The fingerprint knows."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b'"normalizer": null', b'"normalizer": {"type": "NFC"}'))
    with pytest.raises(ValueError, match=r"its fingerprint is .* so one of the two was changed"):
        Tokenizer.load(tmp_path)
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(ValueError, match="can't decode byte 0xff"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"minigpt": {"format": 2}}', "it has format 2, and this minigpt reads format 1"),
        ('{"minigpt": {"format": 1, "unicode": "99.0"}}', "of Unicode 99.0, and this minigpt has those of 17.0"),
        ('{"minigpt": {"fingerprint": ""}}', "the key 'format' is missing"),
        ('{"minigpt": 1}', "'minigpt' should be of type dict"),
        ('["minigpt"]', "the file should be of type dict, but is list"),
        ('{"minigpt', "Unterminated string"),
    ],
)
def test_a_damaged_config_is_refused(folder, tmp_path, content, complaint):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=f"tokenizer_config.json cannot be used .*: .*{complaint}"):
        Tokenizer.load(tmp_path)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*: expected tokenizer.json, vocab"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*missing: expected a folder, "):
        Tokenizer.load(tmp_path / "missing")
    (tmp_path / "spiece.model").write_bytes(b"\x0a")
    with pytest.raises(ValueError, match=r"spiece.model is no tokenizer file that can be read"):
        Tokenizer.load(tmp_path / "spiece.model")
