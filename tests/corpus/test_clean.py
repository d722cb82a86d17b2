"""One spelling for what looks the same, and the rules that drop a document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.clean import Measure, drop_empty, drop_held_out, drop_repeats, measure, normalise
from minigpt.corpus.document import Document


def cleaned(*texts: str) -> list[str]:
    return [piece.text for piece in normalise(Document(text, "x") for text in texts)]


def measured(*texts: str) -> list[Measure]:
    return list(measure(Document(text, f"document {number}") for number, text in enumerate(texts)))


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),  # Windows, old Mac and Unix line ends
        ("cafe\u0301", "caf\u00e9"),                   # e and an accent are one letter
        ("\u1112\u1161\u11ab", "\ud55c"),              # three Korean jamo are one syllable
        ("\u212b", "\u00c5"),                          # the unit angstrom is the letter A with a ring
        ("ﬁ ½ x²", "ﬁ ½ x²"),                          # NFC keeps what NFKC would flatten
        ("\ufefftext", "text"),                        # a byte-order mark is no text
        ("te\ufeffxt", "te\ufeffxt"),                  # but inside a text it is a character
        ("a  b\t\n\n\n", "a  b\t\n\n\n"),              # spaces are left alone: code needs them
    ],
)
def test_golden_spellings(raw, clean):
    """Worked by hand from the Unicode standard, annex 15."""
    assert cleaned(raw) == [clean]


@given(st.text(alphabet="a\r\n e\u0301\u1112\u1161\u11ab\ufeff"))
def test_cleaning_twice_changes_nothing(text):
    """What is clean stays as it is, so that a cleaned corpus can be read again; a second mark is content."""
    once = cleaned(text.lstrip("\ufeff"))
    assert cleaned(*once) == once


def test_only_the_first_piece_loses_its_mark():
    """A mark at the start of a later piece stands in the middle of the document."""
    pieces = [Document("\ufeffa\n", "x", ends=False), Document("\ufeffb", "x"), Document("\ufeffc", "y")]
    assert [piece.text for piece in normalise(pieces)] == ["a\n", "\ufeffb", "c"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_a_document_measures_the_same_in_pieces_or_whole(texts):
    """Where a long file happens to be cut must not decide what equals what."""
    pieces = [Document(text, "x", ends=number == len(texts) - 1) for number, text in enumerate(texts)]
    whole = [Document("".join(texts), "x")]
    assert list(measure(pieces)) == list(measure(whole))


def test_sizes_are_in_characters_and_in_utf8_bytes():
    """Bits per byte divides by bytes; a report for people counts characters."""
    (one,) = measured("née 漢")
    assert (one.characters, one.bytes, one.rule) == (5, 8, "")


def test_equal_digests_mean_equal_texts():
    """One byte, or a border between documents, makes another text."""
    digests = [one.digest for one in measured("ab", "a", "b", "ab ", "ab")]
    assert digests[0] == digests[4] and len(set(digests)) == 4


def test_half_a_surrogate_pair_is_not_text():
    """JSON can spell it; no file can hold it."""
    assert [one.rule for one in measured("fine", "\ud83d", "fine")] == ["", "not-utf-8", ""]


def test_blank_documents_are_dropped():
    """A document of spaces would only teach that texts end at once."""
    assert [one.rule for one in drop_empty(measured("", " \n\t\u3000", "x"))] == ["empty", "empty", ""]
    pieces = [Document(" ", "x", ends=False), Document("y", "x", ends=False), Document(" ", "x")]
    assert [one.rule for one in drop_empty(measure(pieces))] == [""]


def test_the_first_of_equal_documents_stays():
    """Repeated text is learned by heart instead of understood (Lee et al. 2022)."""
    rules = [one.rule for one in drop_repeats(measured("a", "b", "a", "c", "a", "b"))]
    assert rules == ["", "", "duplicate", "", "duplicate", "duplicate"]


def test_held_out_texts_leave_the_training_side():
    """A text that was trained on cannot judge the training."""
    (held_out,) = measured("secret")
    rules = [one.rule for one in drop_held_out(measured("a", "secret"), {held_out.digest})]
    assert rules == ["", "in-val"]


def test_a_document_falls_to_one_rule_only():
    """Otherwise the counts would not add up to the documents."""
    held_out = {measured(" ")[0].digest}
    judged = drop_held_out(drop_repeats(drop_empty(measured(" ", " "))), held_out)
    assert [one.rule for one in judged] == ["empty", "empty"]
