"""tiktoken: equal ids for its encodings and its rank files, in both directions."""

import base64

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer, tiktoken_file
from minigpt.tokenizer.patterns import CL100K, GPT2
from minigpt.tokenizer.vocabulary import Vocabulary

tiktoken = pytest.importorskip("tiktoken")

# Engines know different versions of Unicode; characters that this Python does not know yet are left out.
TRICKY = "aAsS'tT l123 \t\r\n.;(){é漢ſ\u2028\u00a0\u0085"
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"])) | st.text(TRICKY)

POSSESSIVE = (  # cl100k_base as tiktoken itself spells it
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def encoding(tokenizer: Tokenizer, pattern: str) -> "tiktoken.Encoding":
    ranks = {token: i for i, token in tokenizer.vocabulary.tokens.items()}
    special = tokenizer.special_tokens
    return tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@given(text=TEXT)
@settings(deadline=None)
def test_tiktoken_gives_equal_ids_for_our_tokens(tokenizer, text):
    """A merge list of ours read as ranks is the same tokenizer."""
    assert encoding(tokenizer, tokenizer.pattern).encode_ordinary(text) == tokenizer.encode_ordinary(text)


@given(text=TEXT)
@settings(deadline=None)
def test_an_encoding_taken_over_gives_equal_ids(tokenizer, text):
    """Also with possessive quantifiers in the pattern."""
    theirs = encoding(tokenizer, POSSESSIVE)
    ours = Tokenizer.from_tiktoken(theirs)
    assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)
    assert ours.special_tokens == theirs._special_tokens
    assert (ours.n_vocab, ours.eot_token) == (theirs.n_vocab, theirs.eot_token)


@given(
    tokens=st.lists(st.text("ab", min_size=2, max_size=6), max_size=12, unique=True),
    text=st.text("ab ", max_size=40) | st.text("ab", min_size=100, max_size=300),
)
@example(tokens=["aba"], text="aba abab")  # no merge leads to it, yet the whole word is taken
@settings(deadline=None)
def test_ranks_that_no_training_would_give_are_obeyed_exactly(tokens, text):
    """tiktoken merges any two neighbours that form a token, and takes a whole word that is one. Words of
    more than 100 bytes go through its own heap."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {t.encode(): 256 + i for i, t in enumerate(tokens)}
    theirs = tiktoken.Encoding("test", pat_str=CL100K, mergeable_ranks=ranks, special_tokens={})
    assert Tokenizer.from_tiktoken(theirs).encode(text) == theirs.encode(text)


@given(text=st.lists(st.sampled_from(["a", "é", "\ud83d", "\ude00", " "]), max_size=6).map("".join))
def test_surrogates_are_treated_alike(tokenizer, text):
    assert tokenizer.encode(text) == encoding(tokenizer, tokenizer.pattern).encode(text)


def test_a_rank_file_is_what_tiktoken_reads(tokenizer, tmp_path):
    """Golden line: base64, space, rank."""
    load = pytest.importorskip("tiktoken.load")
    tokenizer.to_tiktoken(tmp_path / "deep" / "ours.tiktoken")
    path = tmp_path / "deep" / "ours.tiktoken"
    assert path.read_bytes().startswith(b"AA== 0\nAQ== 1\n")
    expected = {token: i for i, token in tokenizer.vocabulary.tokens.items()}
    assert load.load_tiktoken_bpe(str(path)) == expected


def test_a_rank_file_comes_back(tokenizer, tmp_path, texts):
    """It has no pattern and no special tokens, so those are given, or <|endoftext|> is put after the last
    rank."""
    path = tmp_path / "ours.tiktoken"
    tokenizer.to_tiktoken(path)
    again = Tokenizer.from_tiktoken(path, pattern=tokenizer.pattern)
    assert again.encode_ordinary(texts[-1]) == tokenizer.encode_ordinary(texts[-1])
    assert again.special_tokens == tokenizer.special_tokens == {"<|endoftext|>": 999}
    named = Tokenizer.from_tiktoken(path, pattern="gpt2", special_tokens={"<|fim|>": 1005})
    assert (named.n_vocab, named.eot_token) == (1006, None)


@pytest.mark.parametrize("where", ["ours.tiktoken", ""])
def test_a_rank_file_whose_pattern_nobody_says_is_refused(tmp_path, where):
    """GPT-4's was assumed once: GPT-2's ranks would give other ids than GPT-2, in silence."""
    Tokenizer.bytes_only().to_tiktoken(tmp_path / "ours.tiktoken")
    with pytest.raises(ValueError, match=r"ours.tiktoken holds ranks, and neither .* pattern=.*cl100k_base.tiktoken"):
        Tokenizer.load(tmp_path / where)
    with pytest.raises(ValueError, match="ours.tiktoken holds ranks"):
        Tokenizer.from_tiktoken(tmp_path / "ours.tiktoken")
    with pytest.raises(ValueError, match="unknown split pattern 'cl100'"):
        Tokenizer.from_tiktoken(tmp_path / "ours.tiktoken", pattern="cl100")


def test_a_published_rank_file_is_known_by_its_name(tmp_path, monkeypatch):
    """With the special tokens that tiktoken gives it; a wish goes before; one that broke off is refused."""
    path = tmp_path / "r50k_base.tiktoken"
    path.write_bytes(lines())
    with pytest.raises(ValueError, match="r50k_base has 50,256 ranks, and this file 256"):
        Tokenizer.load(path)
    assert Tokenizer.from_tiktoken(path, pattern="cl100k").pattern == CL100K
    known = tiktoken_file.PUBLISHED["r50k_base"]
    monkeypatch.setitem(tiktoken_file.PUBLISHED, "r50k_base", known._replace(ranks=256))
    opened = Tokenizer.load(tmp_path)
    assert (opened.pattern, opened.special_tokens, opened.eot_token) == (GPT2, {"<|endoftext|>": 50_256}, 50_256)
    assert Tokenizer.from_tiktoken(path, special_tokens={}).special_tokens == {}


@pytest.mark.parametrize("name", sorted(tiktoken_file.PUBLISHED))
def test_what_is_known_of_published_files_is_what_tiktoken_says(name, monkeypatch):
    """Its own definitions, without their downloads."""
    openai = pytest.importorskip("tiktoken_ext.openai_public")
    for download in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(openai, download, lambda *_, **__: {})
    theirs, ours = getattr(openai, name)(), tiktoken_file.PUBLISHED[name]
    assert theirs["special_tokens"] == ours.special
    assert theirs.get("explicit_n_vocab", ours.ranks + 1) == ours.ranks + 1  # <|endoftext|> is the other one
    text = "I'll SAY 2048's, don't\n\n  x = y;\n/ getName API  \n\t z   \n "
    assert regex.findall(theirs["pat_str"], text) == regex.findall(ours.pattern, text)


def test_what_was_taken_over_can_be_saved_and_loaded(tokenizer, tmp_path):
    """tokenizer.json holds every cut of every token as a merge then, as Llama 3's does."""
    hf = pytest.importorskip("tokenizers")
    ours = Tokenizer.from_tiktoken(encoding(tokenizer, POSSESSIVE))
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint
    text = "return 12345678 tokens;\n\n  He'll"
    assert hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == ours.encode(text)
    ours.to_tiktoken(tmp_path / "a.tiktoken")
    tokenizer.to_tiktoken(tmp_path / "b.tiktoken")
    assert (tmp_path / "a.tiktoken").read_bytes() == (tmp_path / "b.tiktoken").read_bytes()


def test_plain_bytes_have_no_special_token(tmp_path):
    """256 means plain bytes, in a rank file too."""
    Tokenizer.bytes_only().to_tiktoken(tmp_path / "bytes.tiktoken")
    assert Tokenizer.from_tiktoken(tmp_path / "bytes.tiktoken", pattern="gpt2").n_vocab == 256


def test_merges_in_another_order_than_ids_are_no_ranks(tmp_path):
    """tiktoken would merge in the order of ids, and silently give other ids."""
    tokens = {**Tokenizer.bytes_only().vocabulary.tokens, 256: b"ab", 257: b"bc"}
    backwards = Vocabulary(tokens=tokens, merges=[(98, 99, 257), (97, 98, 256)], special={}, pattern=CL100K)
    with pytest.raises(ValueError, match="in the order of ids, and this tokenizer in another"):
        Tokenizer(backwards).to_tiktoken(tmp_path / "no.tiktoken")
    assert not (tmp_path / "no.tiktoken").exists()


def lines(extra: bytes = b"") -> bytes:
    """A rank file of the 256 bytes, and then something else."""
    return b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)) + extra


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "256 bytes have no token"),
        (lines()[:1000], "line 124 is no base64 token followed by a rank"),
        (lines(b"YWI= 97\n"), "line 257 is no base64 token followed by a rank of its own"),
        (lines(b"YWI=\n"), "line 257 is no base64 token"),
        (lines(b"YWI 256\n"), "Incorrect padding"),
        (lines(b"Y!I= 256\n"), "Only base64 data is allowed|base64"),
        (lines(b"YQ== 256\n"), "1 tokens stand in the vocabulary twice"),
        (b"version https://git-lfs.github.com/spec/v1\n", "line 1 is no base64 token"),
    ],
)
def test_a_damaged_rank_file_is_refused(tmp_path, content, complaint):
    """A download that broke off, or a page that says 404: one line that names the file."""
    (tmp_path / "bad.tiktoken").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad.tiktoken cannot be used .*: .*({complaint})"):
        Tokenizer.from_tiktoken(tmp_path / "bad.tiktoken", pattern="gpt2")
