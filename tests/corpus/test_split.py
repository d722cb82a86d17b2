"""Which side a document is on, and why it stays there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.clean import drop_repeats, measure
from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport
from minigpt.corpus.split import DROPPED, TRAIN, VAL, after, before, put_all, select, split_by_hash

TEXTS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60)


def documents(texts, key="") -> list[Document]:
    return [Document(text, f"document {number}", key=key) for number, text in enumerate(texts)]


def split(pieces: list[Document]) -> tuple[bytearray, CleanReport]:
    report = CleanReport()
    return split_by_hash(measure(pieces), report), report


def side_of(pieces: list[Document], sides: bytearray, side: int) -> list[Document]:
    return list(select(pieces, sides, side))


@given(TEXTS)
def test_no_text_is_on_both_sides(texts):
    """Not even when it stands in the corpus several times and nothing is cleaned."""
    pieces = documents(texts)
    sides, report = split(pieces)
    train, val = ({one.text for one in side_of(pieces, sides, side)} for side in (TRAIN, VAL))
    assert train | val == set(texts)
    assert not train & val
    assert report.train.documents + report.val.documents == len(texts)


def test_about_one_in_twenty_is_held_out():
    """20,000 fair draws stay within four standard deviations (31 documents) of 5 %."""
    sides, _ = split(documents(str(number) for number in range(20_000)))
    assert abs(sides.count(VAL) - 1000) < 4 * 31


@given(TEXTS, TEXTS)
def test_new_documents_move_none_of_the_old_ones(old, new):
    """A corpus that grows keeps its held-out side, so that losses of last week can still be compared."""
    old, new = [f"old {text}" for text in old], [f"new {text}" for text in new]
    base = [str(number) for number in range(100)]  # enough that neither side is empty
    few, _ = split(documents(base + old))
    many, _ = split(documents(base + new + old))
    assert few == many[:100] + many[100 + len(new) :]


def test_documents_of_one_key_stay_together():
    """Texts that quote each other must not face each other across the split."""
    for key in ("heapq", "random", "x", "y"):
        sides, _ = split(documents([str(number) for number in range(50)], key=key) + documents(["a"]))
        assert len(set(sides[:50])) == 1 and sides[50] != sides[0]


def test_golden_sides():
    """Written down once: if these change, every held-out loss measured so far is of another text."""
    sides, _ = split(documents([str(number) for number in range(60)]))
    assert [number for number, side in enumerate(sides) if side == VAL] == [18, 22, 31, 38, 58]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_neither_side_of_a_few_documents_is_empty(count):
    """Five documents all draw the same side three times in four; the report follows when one changes over."""
    for first in range(200):
        pieces = documents(str(first * 10 + number) for number in range(count))
        sides, report = split(pieces)
        for side, kept in ((TRAIN, report.train), (VAL, report.val)):
            chosen = side_of(pieces, sides, side)
            assert kept.documents == len(chosen) >= 1
            assert kept.characters == sum(len(one.text) for one in chosen)


def test_a_lone_document_is_trained_on():
    """Also if it draws the held-out side; `open_corpus` then cuts it in two."""
    for number in range(100):
        sides, report = split(documents([str(number)]))
        assert sides == bytes([TRAIN]) and report.train.documents == 1 and not report.val.documents


def test_dropped_documents_are_on_no_side_and_in_the_report():
    """Each with its rule and the first example."""
    pieces = documents(["a", "b", "a", "a"])
    report = CleanReport()
    sides = split_by_hash(drop_repeats(measure(pieces)), report)
    assert list(sides[2:]) == [DROPPED, DROPPED]
    assert (report.dropped["duplicate"].documents, report.dropped["duplicate"].example) == (2, "document 2")
    chosen = [one.name for side in (TRAIN, VAL) for one in side_of(pieces, sides, side)]
    assert sorted(chosen) == ["document 0", "document 1"]


def test_all_pieces_of_a_document_go_to_its_side():
    """The side is decided once the whole is known, and holds from its first piece."""
    pieces = []
    for number in range(100):
        pieces += [Document(f"{number}a", "x", ends=False), Document(f"{number}b", "x")]
    whole, _ = split(documents(f"{number}a{number}b" for number in range(100)))
    sides, _ = split(pieces)
    assert sides == whole
    assert len(side_of(pieces, sides, VAL)) == 2 * sides.count(VAL)


def test_put_all_leaves_out_only_what_a_rule_drops():
    """--val-data holds out everything it names."""
    report = CleanReport()
    judged = drop_repeats(measure(documents(["a", "b", "a"])))
    assert list(put_all(judged, VAL, report)) == [VAL, VAL, DROPPED]
    assert report.val.documents == 2 and report.dropped["duplicate"].documents == 1


@pytest.mark.parametrize("now", [["a"], ["a", "b", "c"]])
def test_data_that_changes_while_it_is_read_is_noticed(now):
    """With a document more or less, the sides would belong to other documents: a silent leak."""
    sides, _ = split(documents(["a", "b"]))
    with pytest.raises(ValueError, match=f"had 2 documents when it was split and has {len(now)} now"):
        side_of(documents(now), sides, TRAIN)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6), st.data())
def test_a_cut_document_loses_nothing(texts, data):
    """Wherever the pieces happen to end, both parts are what slicing the whole text gives."""
    pieces = [Document(text, "x", ends=number == len(texts) - 1) for number, text in enumerate(texts)]
    whole = "".join(texts)
    cut = data.draw(st.integers(1, len(whole) - 1)) if len(whole) > 1 else 1
    first, last = list(before(pieces, cut)), list(after(pieces, cut))
    assert "".join(piece.text for piece in first) == whole[:cut]
    assert "".join(piece.text for piece in last) == whole[cut:]
    for part in (first, last):
        assert all(piece.text and piece.ends == (piece is part[-1]) for piece in part)
