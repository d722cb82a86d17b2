"""What `python -m minigpt tokenizer explain` shows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer, naive
from minigpt.tokenizer.explain import COLOURS, explain, pieces, steps, visible
from minigpt.tokenizer.merge import merge_short, rank_table


@pytest.fixture(scope="module")
def small():
    return Tokenizer.train(["low lower lowest"] * 9, vocab_size=260)


def test_the_cuts_the_merges_and_the_ids_are_shown(small):
    """Three paragraphs: nothing of it is a guess, all comes from the tokenizer."""
    lines = explain(small, "low lower", colour=False).split("\n")
    assert lines[:2] == ["cut by the cl100k pattern into 2 pre-tokens, which no merge crosses:", "  low|␣lower"]
    assert lines[4:7] == ["            l|o|w", "         0  lo|w", "         1  low"]
    ids = small.encode("low lower")
    assert lines[-3] == f"{len(ids)} tokens for 9 bytes, {9 / len(ids):.2f} bytes per token:"
    assert lines[-1] == "  " + " ".join(map(str, ids)) and lines[-2].replace("|", "").strip() == "low␣lower"


@given(word=st.text(alphabet="lowers ", min_size=1))
def test_the_last_step_is_what_encoding_gives(small, word):
    """Each step is a merge of the twin, in its order."""
    ranks, made = rank_table(small.vocabulary.merges)
    ids = list(word.encode())
    seen = list(steps(ids, ranks, made))
    assert (seen[-1][1] if seen else ids) == merge_short(list(ids), ranks, made)
    for (rank, after), before in zip(seen, [ids, *(after for _, after in seen)], strict=False):
        left, right, new = small.vocabulary.merges[rank]
        assert len(after) == len(before) - 1 and after.count(new) == before.count(new) + 1
        assert (left, right) in pairwise(before)
    assert naive.decode(ids, []) == word


def test_colours_tell_neighbours_apart(small):
    """In a terminal; the text without them is the same."""
    plain, coloured = (explain(small, "lower low", colour=colour) for colour in (False, True))
    assert "\x1b" not in plain and all(f"\x1b[{code}m" in pieces(["a"] * 5, True) for code in COLOURS)
    assert "\x1b[44mlow" in coloured and "|" not in coloured


def test_what_cannot_be_seen_is_shown():
    """Half a letter, controls and white space would leave the reader guessing."""
    assert visible(b" a\n\t") == "␣a⏎⇥" and visible(b"\xc3") == "<c3>" and visible(b"\0") == "<00>"
    assert visible("\u200b".encode()) == "<e2><80><8b>" and visible("é中".encode()) == "é中"


def test_nothing_is_explained_as_nothing(small):
    """No division by zero tokens."""
    assert "0 tokens for 0 bytes." in explain(small, "", colour=False)
