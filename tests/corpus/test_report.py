"""The receipt that comes with a corpus."""

import pytest

from minigpt.corpus.document import Document
from minigpt.corpus.report import CHANGES, RULES, CleanReport, Kept, excerpt


def test_the_report_reads_as_a_table():
    """What `python -m minigpt corpus` shows: numbers under headings, each rule with its share and first examples."""
    report = CleanReport()
    report.train.add(1_234_567, 1_240_000)
    report.val.add(890, 900)
    report.drop("duplicate", "b.txt", 100, "again\0 and\nagain")
    report.drop("empty", "a.txt")
    report.drop("duplicate", "c.txt", 9_000, "x" * 80)
    report.drop("duplicate", "d.txt", 0, "the third is only counted")
    report.change("controls", "a.txt", 2, "bell\a")
    report.change("controls", "a.txt", 3, "another one of the same document")
    assert str(report).split("\n") == [
        "                 documents     characters          bytes",
        "train                    1      1,234,567      1,240,000",
        "held out                 1            890            900",
        "dropped          documents          share          bytes    share",
        f"empty                    1         16.67%              0    0.00%  {RULES['empty']}",
        "        a.txt",
        f"duplicate                3         50.00%          9,100    0.73%  {RULES['duplicate']}",
        "        b.txt: again\\x00 and\\nagain",
        f"        c.txt: {'x' * 60}...",
        "changed          documents          share          bytes    share",
        f"controls                 1         16.67%              5    0.00%  {CHANGES['controls']}",
        "        a.txt: bell\\x07",
    ]


def test_an_example_shows_the_place_and_hides_nothing():
    """From the middle of a long text, with what is invisible escaped: a terminal must not obey it."""
    shown = excerpt("a" * 100 + "\x1b[2J\u202e" + "b" * 100, at=100)
    assert shown == "..." + "a" * 20 + "\\x1b[2J\\u202e" + "b" * 35 + "..."
    assert excerpt("short") == "short"


def test_a_rule_must_have_a_meaning():
    """An id that RULES does not explain would be a riddle in the report."""
    with pytest.raises(AssertionError, match="no rule is called 'typo'"):
        CleanReport().drop("typo", "a.txt")


def test_a_stream_is_counted_in_documents_not_in_pieces():
    """A book of a thousand pieces is one document."""
    pieces = [Document("né", "x", ends=False), Document("e", "x"), Document("漢", "y")]
    assert Kept.of(pieces) == Kept(documents=2, characters=4, bytes=7)
