"""Cutting text: the two patterns by example, nothing lost, and long texts cut as short ones."""

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import naive, patterns
from minigpt.tokenizer.patterns import (
    CL100K,
    GPT2,
    KNOWN,
    O200K,
    PATTERNS,
    Splitter,
    portable,
    repair_surrogates,
    resolve,
)

PARTS = ["a", " b", "'S", "12345", ".", " ", "  ", "\n", "\r\n", "\t", "é", "\u2028"]
STRANGE = ["/", "\x1c", "\u0301", "'", "s", "\r", "A", "漢", "😀", "\u00a0", "\x0b"]  # \x1c: a space to Python alone
LINES = st.lists(st.sampled_from(PARTS), max_size=30)


def cut(text: str, pattern: str) -> list[str]:
    splitter = Splitter(pattern)
    return [word for piece in splitter.pieces(text) for word in splitter.split(piece)]


def test_gpt2_cuts_as_its_paper_describes():
    """A word owns the space before it; the last space of a run belongs to the word after it."""
    assert cut("I'll say   2048 times: HE'S!", GPT2) == [
        "I", "'ll", " say", "  ", " 2048", " times", ":", " HE", "'", "S", "!",
    ]  # fmt: skip


def test_cl100k_keeps_code_together_and_numbers_apart():
    """GPT-4's rule: any case of contractions, one mark before a word, three digits, line ends with
    punctuation."""
    assert cut("HE'S 2048\n\n    self.x(y);\n", CL100K) == [
        "HE", "'S", " ", "204", "8", "\n\n", "   ", " self", ".x", "(y", ");\n",
    ]  # fmt: skip


def test_o200k_ends_words_where_a_capital_begins_another():
    """GPT-4o's rule: contractions stay with their word, once; letters without case go with either half."""
    assert cut("HTTPServer.getName don't x's's\n", O200K) == [
        "HTTPServer", ".get", "Name", " don't", " x's", "'s", "\n",
    ]  # fmt: skip
    assert cut("使用API接口 ❤\ufe0fb // x\n/y", O200K) == ["使用API接口", " ❤\ufe0f", "b", " //", " x", "\n", "/y"]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text() | LINES.map("".join))
def test_a_cut_text_is_still_the_text(pattern, text):
    """Both patterns end in alternatives that take whatever is left, so encoding loses nothing."""
    assert naive.split(text, PATTERNS[pattern]) == cut(text, PATTERNS[pattern])
    assert "".join(cut(text, PATTERNS[pattern])) == text


@pytest.mark.parametrize("pattern", KNOWN)
@given(text=st.lists(st.sampled_from([*PARTS, *STRANGE]), max_size=12).map("".join))
@settings(max_examples=500)
def test_cutting_in_pieces_changes_nothing(pattern, text):
    """A gigabyte is split piece by piece, to bound memory; ids must not depend on where the pieces meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "PIECE", 1)
        assert cut(text, pattern) == naive.split(text, pattern)


def test_a_long_text_does_come_in_pieces():
    """Otherwise the test above would test nothing."""
    for pattern in KNOWN:
        for line in ("x\n", "x y", "x\r\n", "x\n\n", "\tx\n", "漢。\r\n\r\n", "x\ty", "x \n\n"):
            pieces = list(Splitter(pattern).pieces(line * patterns.PIECE))
            assert max(map(len, pieces)) <= patterns.PIECE + 2 * len(line) and "".join(pieces) == line * patterns.PIECE


@pytest.mark.parametrize("pattern", [r"\w+", "(a)b", "(a)(b)", "a|", r"(?=b)", "[0-9]"])
@given(text=st.text(alphabet="ab1 ", max_size=12))
@example(text="ab")
def test_what_a_foreign_pattern_leaves_out_is_kept(pattern, text):
    """A pattern of the user's own may match only words; the rest of the text must not vanish. Groups do no
    harm."""
    words = cut(text, pattern)
    assert "".join(words) == text and "" not in words
    assert {match.group() for match in regex.finditer(pattern, text)} - {""} <= set(words)


def test_a_misspelt_name_is_not_taken_for_an_expression():
    with pytest.raises(ValueError, match=r"unknown split pattern 'cl100': choose one of gpt2, cl100k, o200k, or"):
        resolve("cl100")
    with pytest.raises(ValueError, match="not a regular expression: "):
        resolve(r"(\w+")
    assert resolve("gpt2") == GPT2 and resolve(r"\w+|\W") == r"\w+|\W"


@pytest.mark.parametrize("pattern", [r"\p{N}{1,3}+", r"[1-3]{2}+|a{1,2}+a", r"\D{2,}+|\d{1,2}+5|."])
@given(text=st.text(alphabet="125a ", max_size=12))
def test_a_portable_pattern_cuts_the_same(pattern, text):
    """Oniguruma would read {1,3}+ as a repeated group, so such counts are written as atomic groups."""
    assert "}+" not in portable(pattern)
    assert regex.findall(portable(pattern), text) == regex.findall(pattern, text)


def test_surrogates_are_joined_or_replaced():
    """UTF-8 cannot hold them. tiktoken does the same; Python's own `encode` would raise deep inside a data
    job."""
    assert repair_surrogates("\ud83d\ude00") == "😀"
    assert repair_surrogates("a\ud83db") == "a\ufffdb"
    assert cut("a\ud83d b", GPT2) == ["a", "\ufffd", " b"]
