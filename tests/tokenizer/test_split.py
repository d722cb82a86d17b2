"""Starts found by arrays against the regular expressions they replace: every known pattern, strings made to confuse."""

import random

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from minigpt.tokenizer import split, unicode_classes
from minigpt.tokenizer.patterns import KNOWN, TIKTOKEN_CL100K
from minigpt.tokenizer.split import pre_tokens, rules_of

# Everything a rule asks about, and its neighbours: contractions with the long s, every kind of white space, marks,
# digits and letters of one to four bytes, a combining mark, a separator that `str.isspace` calls a space.
CHARACTERS = [
    *"abstvermdlSTVE'''  \n\r\t19230.,;(!/_-\0",
    "\u017f", "é", "\u0301", "\u00a0", "\u2028", "\u0085", "\u3000", "中", "😀", "\U00010940", "\u0660", "½",
    "\x1c", "\x0b", *"ABRDʰあ❤é", "\ufe0f", "\u0302", "\u200d", "ǅ",
]  # fmt: skip


def expected(text: str, pattern: str) -> list[bytes]:
    return [word.encode() for word in regex.findall(pattern, text)]


def found(texts: list[str], pattern: str) -> list[list[bytes]]:
    words, counts = pre_tokens(texts, rules_of(pattern))
    assert counts.sum() == len(words.lengths)
    flat = iter(words.each())
    return [[next(flat) for _ in range(count)] for count in counts]


def confusing(rng: random.Random, longest: int) -> str:
    """Few different characters at a time, or the rare combinations would never meet."""
    letters = rng.sample(CHARACTERS, rng.randint(1, 8))
    return "".join(rng.choices(letters, k=rng.randint(0, longest)))


@pytest.mark.parametrize("pattern", KNOWN)
@pytest.mark.parametrize("count", [3_000, pytest.param(300_000, marks=pytest.mark.slow)])
def test_arrays_cut_as_the_regular_expression_does(pattern, count):
    """The specification is the pattern; 400 texts at a time, so that what one holds must not reach the next."""
    rng = random.Random(count)
    for _ in range(count // 400 + 1):
        texts = [confusing(rng, 14) for _ in range(400)]
        assert found(texts, pattern) == [expected(text, pattern) for text in texts]


@pytest.mark.parametrize("pattern", KNOWN)
@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_is_cut_the_same(pattern, texts):
    """Hypothesis knows strange characters of its own."""
    assert found(texts, pattern) == [expected(text, pattern) for text in texts]


@pytest.mark.parametrize("pattern", KNOWN)
def test_every_character_is_classed_as_the_table_says(pattern):
    """All 1,112,064 of them, each between two letters and between two spaces. Needs a `regex` of the same Unicode."""
    if not unicode_classes.is_installed():
        pytest.skip("the installed regex has another Unicode than the pinned table")
    everything = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    for i in range(0, len(everything), 1 << 16):
        text = "".join(f"a{character}a {character} " for character in everything[i : i + (1 << 16)])
        words, _ = pre_tokens([text], rules_of(pattern))
        places = np.cumsum([0, *map(len, expected(text, pattern))])[:-1]
        assert np.array_equal(words.starts, places)


def test_white_space_at_the_end_is_one_pre_token_for_tiktoken():
    r"""Its pattern begins with `\s++$` where others first look for line ends: of no text can the end be cut off."""
    assert found(["a \n  ", "a;\n \n ", " \n"], TIKTOKEN_CL100K) == [
        [b"a", b" \n  "], [b"a", b";\n", b" \n "], [b" \n"],
    ]  # fmt: skip


def test_texts_of_one_batch_do_not_see_each_other():
    """Empty ones neither; and a zero in a text is not the one between two."""
    texts = ["don", "'t", "", "", " a", "\0\0", "12", "345", ""]
    for pattern in KNOWN:
        assert found(texts, pattern) == [expected(text, pattern) for text in texts]


def test_a_pattern_that_is_not_known_has_no_rules():
    """A guess would give other ids than the pattern."""
    assert rules_of(r"\w+|\W+") is None
    assert set(split.RULES) == set(KNOWN)
