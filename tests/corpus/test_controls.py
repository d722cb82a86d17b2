"""Characters that no reader sees: which go, which are needed, and that they are counted."""

import pytest
from corpus.samples import GOOD
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.chunks import recut
from minigpt.corpus.clean import normalise
from minigpt.corpus.controls import remove_controls
from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport


def cleaned(*pieces: str, report: CleanReport | None = None) -> str:
    documents = [Document(text, "x", ends=n == len(pieces) - 1) for n, text in enumerate(pieces)]
    chunks = remove_controls(recut(documents, 50), report or CleanReport())
    return "".join(piece.text for piece in normalise(chunks))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\0b\x07c\x7f", "abc"),                                    # C0
        ("tab\tand\nline\r\nstay", "tab\tand\nline\nstay"),
        ("\x1b[1;31mERROR\x1b[0m: disk full", "ERROR: disk full"),  # a terminal's colours
        ("page one\x0cpage two", "page one\npage two"),              # form feed
        ("one\u2028two\u2029three", "one\ntwo\nthree"),
        ("\x93quoted\x94 \x96 it\x92s", "“quoted” – it’s"),          # Windows-1252 read as Latin-1
        ("a\x81b", "ab"),                                            # ... which has nothing there
        ("\ufeffone\ufefftwo", "onetwo"),                            # byte-order marks
        ("con\xadser\xadva\xadtion", "conservation"),                # soft hyphens
        ("zero\u200bwidth\u200c\u200djoin", "zerowidthjoin"),
        ("access_level != '\u202e\u2066// admin\u2069\u2066'", "access_level != '// admin'"),  # Trojan Source
        ("hidden\U000e0068\U000e0069 text", "hidden text"),          # tags: ASCII that nobody sees
        ("lost \ufffd\ufffd\ufffd\ufffd here, \ufffd there", "lost \ufffd here, \ufffd there"),
        ("a\u200fb", "ab"),                                          # a mark of direction among Latin letters
    ],
)
def test_junk_goes(raw, clean):
    """Each would be a rare token that teaches nothing, or hides something."""
    assert cleaned(raw) == clean


@pytest.mark.parametrize("text", [
    *GOOD.values(),
    "नहीं क\u094d\u200dष और क\u094d\u200cष",    # joiners decide how Hindi is written
    "می\u200cروم", "👩\u200d🚀 and 🏳️\u200d🌈", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "ភាសា\u200bខ្មែរ", "\u05d0\u200f!", "שלום\u200e",
])  # fmt: skip
def test_what_is_invisible_but_needed_stays(text):
    """Without its joiners Persian is misspelled and a family falls apart into four people."""
    assert cleaned(text) == text


NASTY = st.text(alphabet="a \n\r\0\x07\x1b[3m\x0c\x85\x93\xad\u0301\u0645\u200b\u200c\u200d\u200e\u200f"
                         "\u202e\u2028\u2066\ufeff\ufffd\uffff\U000e0067\U0001f3f4👩क\u0e01")  # fmt: skip


@given(NASTY)
def test_cleaning_twice_changes_nothing(text):
    """What is clean stays as it is, so that a cleaned corpus can be read again."""
    once = cleaned(text)
    assert cleaned(once) == once


@given(st.lists(NASTY, min_size=1, max_size=5))
def test_pieces_are_cleaned_as_the_whole(pieces):
    """A joiner at the border of two pieces still has its neighbour."""
    assert cleaned(*pieces) == cleaned("".join(pieces))


def test_what_goes_is_counted_and_shown():
    """With an example in which the character can be seen."""
    report = CleanReport()
    cleaned("fine", report=report)
    assert report.changed == {}
    cleaned("ring the\x07 bell and ring\x07 again", report=report)
    assert (report.changed["controls"].documents, report.changed["controls"].bytes) == (1, 2)
    assert report.changed["controls"].examples == [("x", "ring the\\x07 bell and ring\\x07 again")]
