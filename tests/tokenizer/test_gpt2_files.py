"""vocab.json and merges.txt: equal ids in the libraries that read them, and clear words about damaged
ones."""

import json

import pytest

from minigpt.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def gpt2(texts) -> Tokenizer:
    return Tokenizer.train(texts, 600, pattern="gpt2")


@pytest.fixture
def folder(gpt2, tmp_path):
    gpt2.save_gpt2(tmp_path)
    return tmp_path


def test_the_files_come_back_the_same(gpt2, folder):
    """By folder, by either file, and by both."""
    for again in (
        Tokenizer.load(folder),
        Tokenizer.load(folder / "vocab.json"),
        Tokenizer.load(folder / "merges.txt"),
        Tokenizer.from_gpt2(folder / "vocab.json", folder / "merges.txt"),
    ):
        assert again.fingerprint == gpt2.fingerprint and again.eot_token == 599


def test_the_files_look_like_gpt2s(folder):
    """Golden: the header, one merge a line with a visible space, the special token last in the vocabulary."""
    merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    assert merges[0] == "#version: 0.2" and merges[1] == "Ġ Ġ" and merges[-1] == ""
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert list(vocab.items())[-1] == ("<|endoftext|>", 599)


def test_hugging_face_reads_them_with_equal_ids(gpt2, folder, texts):
    hf = pytest.importorskip("tokenizers")
    theirs = hf.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    for text in texts:
        assert theirs.encode(text).ids == gpt2.encode(text)


def test_a_merge_of_number_signs_is_no_comment(folder):
    """Only the first line is one; "# #" is a merge in GPT-2's own file."""
    tokenizer = Tokenizer.train(["## ##"], 258, pattern="gpt2")
    tokenizer.save_gpt2(folder)
    assert Tokenizer.load(folder).encode("##") == tokenizer.encode("##") == [256]


def test_windows_line_ends_do_no_harm(gpt2, folder):
    """git may have changed them on checkout."""
    path = folder / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.load(folder).fingerprint == gpt2.fingerprint


@pytest.mark.parametrize(
    ("tokenizer", "complaint"),
    [
        (Tokenizer.train(["hug pug hugs"], 260), "readers assume GPT-2's rule, and this"),
        (Tokenizer.train(["hug"], 258, pattern="gpt2", special_tokens=["END"]), r"\['END'\] have none"),
    ],
)
def test_what_the_files_cannot_say_is_not_written(tokenizer, complaint, tmp_path):
    """They have no place for a pattern, so another one would be lost and ids would change."""
    with pytest.raises(ValueError, match=complaint):
        tokenizer.save_gpt2(tmp_path)
    assert not list(tmp_path.iterdir())


def spoil(path, change) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_a_cut_off_merges_file_is_refused(folder):
    """Its missing merges would make ordinary tokens look special."""
    spoil(folder / "merges.txt", lambda text: text[: text.index("\n", len(text) // 2) + 1])
    with pytest.raises(ValueError, match=r"merges.txt cannot be used .*: no merge makes '.*', which"):
        Tokenizer.load(folder)


def test_merges_of_unknown_tokens_are_refused(folder):
    spoil(folder / "merges.txt", lambda text: text + "zz q\n")
    with pytest.raises(ValueError, match="the merge 'zz q' names 'zz', which is not in the vocabulary"):
        Tokenizer.load(folder)
    spoil(folder / "merges.txt", lambda text: text.replace("zz q", "zzq"))
    with pytest.raises(ValueError, match="the merge 'zzq' names 'zzq', which is not"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[:-9], "Expecting|Unterminated"),
        (lambda text: text.replace('"a": 97', '"a": 98'), "two tokens have the same id"),
        (lambda text: text.replace('"a": 97', '"a": "97"'), "the id of 'a' should be of type int"),
        (lambda text: "[]", "the file should be of type dict, but is list"),
    ],
)
def test_a_damaged_vocabulary_is_refused(folder, change, complaint):
    spoil(folder / "vocab.json", change)
    with pytest.raises(ValueError, match=rf"vocab.json cannot be used .*: .*({complaint})"):
        Tokenizer.load(folder)


def test_a_missing_half_is_named(folder):
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        Tokenizer.load(folder)
