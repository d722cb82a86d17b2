"""The receipt that comes with a corpus."""

import pytest

from minigpt.corpus.document import Document
from minigpt.corpus.report import RULES, CleanReport, Kept


def test_the_report_reads_as_a_table():
    """What `python -m minigpt corpus` shows: numbers under headings, each rule with its first example."""
    report = CleanReport()
    report.train.add(1_234_567, 1_240_000)
    report.val.add(890, 900)
    report.drop("duplicate", "b.txt")
    report.drop("empty", "a.txt")
    report.drop("duplicate", "c.txt")
    assert str(report).split("\n") == [
        "               documents      characters           bytes",
        "train                  1       1,234,567       1,240,000",
        "held out               1             890             900",
        f"empty                  1  {RULES['empty']}; first: a.txt",
        f"duplicate              2  {RULES['duplicate']}; first: b.txt",
    ]


def test_a_rule_must_have_a_meaning():
    """An id that RULES does not explain would be a riddle in the report."""
    with pytest.raises(AssertionError, match="no rule is called 'typo'"):
        CleanReport().drop("typo", "a.txt")


def test_a_stream_is_counted_in_documents_not_in_pieces():
    """A book of a thousand pieces is one document."""
    pieces = [Document("né", "x", ends=False), Document("e", "x"), Document("漢", "y")]
    assert Kept.of(pieces) == Kept(documents=2, characters=4, bytes=7)
