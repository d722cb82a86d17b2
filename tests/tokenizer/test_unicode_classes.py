"""What a letter is, pinned."""

import re

import numpy as np
import pytest
import regex

from minigpt.tokenizer import unicode_classes
from minigpt.tokenizer.unicode_classes import code_points, installed, is_installed, spelled_out, table_of


def test_the_table_is_of_the_unicode_it_names():
    """Sidetic letters came with 17.0; U+3097 has never been assigned."""
    assert unicode_classes.version() == "17.0"
    letters = table_of({"L": 1}, 0)
    assert letters[0x10940] and letters[ord("é")] and not letters[0x3097] and not letters[ord("1")]
    assert [chr(a) for a, _ in code_points("s")][1:3] == [" ", "\x85"]


def test_the_table_is_that_of_the_regex_that_it_names(monkeypatch):
    """Or whoever installs that version would get other ids than the table promises."""
    if regex.__version__ != unicode_classes.SAME_AS:
        pytest.skip(f"regex {regex.__version__} is installed")
    monkeypatch.setattr(unicode_classes, "SAME_AS", "none")
    is_installed.cache_clear()
    assert is_installed()
    is_installed.cache_clear()
    assert next(installed()) == "Unicode 17.0"


@pytest.mark.parametrize("pattern", [r"\p{L}+", r"[^\s\p{L}\p{N}]+", r"\S+|\s", r"\P{N}", r"[\p{Lu}\p{M}_]", r"\\\d\."])
def test_a_pattern_spelled_out_matches_the_same(pattern):
    """In Python's own engine, which knows no such classes."""
    text = "".join(map(chr, [*range(0x3000), *range(0xA000, 0xA100), *range(0x10000, 0x10A00)]))
    if not is_installed():
        pytest.skip("the installed regex has another Unicode than the pinned table")
    assert re.findall(spelled_out(pattern), text) == regex.findall(pattern, text)


def test_a_class_that_is_not_pinned_is_refused():
    """It could only be answered by whatever is installed."""
    with pytest.raises(ValueError, match=r"\\p\{Han\} is not pinned: there are L, N"):
        spelled_out(r"\p{Han}+")
    with pytest.raises(ValueError, match=r"\\S inside of"):
        spelled_out(r"[\S]")


def test_the_last_code_point_bounds_what_is_spelled():
    assert spelled_out(r"\p{N}", last=0x7F) == r"[\U00000030-\U00000039]"
    assert np.count_nonzero(table_of({"N": 1}, 0)) > 2000
