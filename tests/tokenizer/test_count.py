"""Counting by arrays, in several processes and with interruptions, against a Counter over the regular expression."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import count, naive
from minigpt.tokenizer.count import Batch, WordCounter, batches, count_words
from minigpt.tokenizer.patterns import CL100K, GPT2, Splitter, repair_surrogates
from minigpt.tokenizer.word_counts import CountsFile, SavedCounts, WordCounts

UNKNOWN = r"\w+|\W+"
TEXTS = st.lists(st.text(alphabet="aab c'\n\u00a0é7", max_size=40) | st.text(max_size=20), max_size=8)


def plainly(texts: Sequence[str], pattern: str) -> list[tuple[bytes, int]]:
    """The twin: one word after the other, in order of first appearance, as a dict keeps it."""
    words = (word.encode() for text in texts for word in naive.split(repair_surrogates(text), pattern))
    return list(Counter(words).items())


def listed(counts: WordCounts) -> list[tuple[bytes, int]]:
    return list(counts.as_dict().items())


@given(texts=TEXTS, pattern=st.sampled_from([GPT2, CL100K, UNKNOWN]))
@settings(max_examples=200, deadline=None)
def test_words_are_counted_in_the_order_in_which_they_come(texts, pattern):
    """The order decides ties under "first_seen", so it is part of the result."""
    assert listed(count_words(texts, pattern)) == plainly(texts, pattern)


@pytest.mark.parametrize("pattern", [GPT2, CL100K, UNKNOWN])
def test_batches_of_any_size_count_the_same(texts, pattern, monkeypatch):
    """Short texts are put together and long ones cut; neither may join, split or lose a word."""
    many = [texts[-1], texts[0][:4000], "", "\ud83d\ude00 and \ud83d alone", "x\0y\0", *("short one", "short two") * 9]
    for piece, size in ((1, 1), (10, 30), (200, 50), (1 << 18, 1 << 18)):
        monkeypatch.setattr("minigpt.tokenizer.patterns.PIECE", piece)
        monkeypatch.setattr(count, "PIECE", size)
        assert listed(count_words(many, pattern)) == plainly(many, pattern)


@pytest.mark.parametrize("pattern", [CL100K, UNKNOWN])
def test_several_processes_count_as_one_does(texts, pattern, monkeypatch):
    """Counts and order: the number of processes must never show in a tokenizer."""
    many = [text for text in texts for _ in range(3)]
    monkeypatch.setattr(count, "SHARE", 5000)  # a dozen shares
    assert listed(count_words(many, pattern, num_proc=2)) == plainly(many, pattern)


def test_texts_are_not_read_ahead_of_the_processes(monkeypatch):
    """A pool that is handed everything at once would hold the whole corpus in memory."""
    monkeypatch.setattr(count, "SHARE", 100)
    read: list[str] = []

    def texts() -> Iterator[str]:
        for _ in range(100):
            read.append("word " * 25)
            yield read[-1]

    next(count._counted(texts(), CL100K, 2, WordCounter()))
    assert len(read) <= 6


def test_a_batch_says_where_counting_can_be_resumed():
    """Only at the end of a text: half a text cannot be passed over."""
    splitter = Splitter(UNKNOWN)  # does not cut long texts
    assert list(batches(["ab", "cdef", "", "g"], splitter, 4)) == [
        Batch(["ab", "cdef"], 2, True), Batch(["g"], 2, True)
    ]  # fmt: skip


def test_a_long_text_is_cut_and_no_batch_is_empty(monkeypatch):
    """Its last batch ends with it; an empty one would be sent to a process for nothing."""
    monkeypatch.setattr("minigpt.tokenizer.patterns.PIECE", 3)
    found = list(batches(["a b c d e f g", "h"], Splitter(CL100K), 4))
    assert "".join(piece for batch in found for piece in batch.pieces) == "a b c d e f gh"
    assert [(batch.ended, batch.whole) for batch in found[-2:]] == [(1, True), (1, True)] and len(found) > 2
    assert all(batch.pieces for batch in found) and not any(batch.whole for batch in found[:-2])
    assert list(batches([], Splitter(CL100K), 4)) == []


class KilledError(Exception):
    pass


def dying(texts: Sequence[str], after: int) -> Iterator[str]:
    yield from texts[:after]
    raise KilledError


@pytest.mark.parametrize("num_proc", [1, 2])
def test_counting_that_was_killed_goes_on_where_it_was(texts, num_proc, tmp_path, monkeypatch):
    """The result is the same, and the texts that had been counted are not split again."""
    many = [text for text in texts for _ in range(3)]
    state = tmp_path / "counts"
    monkeypatch.setattr(count, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(count, "PIECE", 3000)
    monkeypatch.setattr(count, "SHARE", 3000)
    with pytest.raises(KilledError):
        count_words(dying(many, 15), CL100K, num_proc=num_proc, checkpoint=state)
    saved = CountsFile(state, CL100K).read()
    assert 0 < saved.texts <= 15
    assert not saved.complete
    assert listed(saved.words) == plainly(many[: saved.texts], CL100K)
    resumed = count_words(many, CL100K, num_proc=num_proc, checkpoint=state)
    assert listed(resumed) == plainly(many, CL100K)


def test_counting_killed_right_after_any_save_goes_on(texts, tmp_path, monkeypatch):
    """In the middle of a long text nothing may be saved: passing over its text would lose the rest of it."""
    monkeypatch.setattr(count, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(count, "PIECE", 500)
    monkeypatch.setattr("minigpt.tokenizer.patterns.PIECE", 500)
    some = [texts[0][:4000], texts[-1], texts[1][:2500]]
    write, written = CountsFile.write, []

    def killed_after(last: int, file: CountsFile, saved: SavedCounts) -> None:
        write(file, saved)
        written.append(saved.texts)
        if len(written) == last:
            raise KilledError

    for last in (1, 2, 3):
        state = tmp_path / str(last)
        written.clear()
        monkeypatch.setattr(CountsFile, "write", lambda *job, last=last: killed_after(last, *job))
        with pytest.raises(KilledError):
            count_words(some, CL100K, checkpoint=state)
        monkeypatch.setattr(CountsFile, "write", write)
        assert listed(count_words(some, CL100K, checkpoint=state)) == plainly(some, CL100K)


def test_a_finished_count_is_not_repeated(tmp_path):
    """Learning can then be tried again, for another size, without the texts."""
    first = count_words(["some text"], CL100K, checkpoint=tmp_path / "counts")
    for texts in ([], ["some text"]):
        assert listed(count_words(texts, CL100K, checkpoint=tmp_path / "counts")) == listed(first)


def test_other_texts_than_those_counted_are_noticed(tmp_path, monkeypatch):
    """Fewer texts than the state has counted cannot be the same ones."""
    monkeypatch.setattr(count, "SAVE_EVERY", 0.0)
    with pytest.raises(KilledError):
        monkeypatch.setattr(count, "PIECE", 4)
        count_words(dying(["some text"] * 5, 5), CL100K, checkpoint=tmp_path / "counts")
    with pytest.raises(ValueError, match="counted 5 texts, and only 2 were given: delete it first"):
        count_words(["some text"] * 2, CL100K, checkpoint=tmp_path / "counts")


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("after", [3, 5])
def test_texts_that_were_edited_are_noticed(tmp_path, monkeypatch, num_proc, after):
    """As many texts as before, and one has changed: by what is counted after them, or by what was finished."""
    monkeypatch.setattr(count, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(count, "PIECE", 4)
    monkeypatch.setattr(count, "SHARE", 4)
    some, state = [f"some \ud800 text {n}" for n in range(5)], tmp_path / "counts"
    if after == 5:
        count_words(some, CL100K, num_proc=num_proc, checkpoint=state)
    else:
        with pytest.raises(KilledError):
            count_words(dying(some, after), CL100K, num_proc=num_proc, checkpoint=state)
    for other in (["any" + some[0][4:], *some[1:]], [*some, "more"][-5:]):
        with pytest.raises(ValueError, match=r"counted \d texts, and these are not the same: delete it first"):
            count_words(other, CL100K, checkpoint=state)
    assert listed(count_words(some, CL100K, checkpoint=state)) == plainly(some, CL100K)
    for other in ([*some, "more"], some[:4]):
        with pytest.raises(ValueError, match="counted 5 texts, and "):
            count_words(other, CL100K, checkpoint=state)


def test_counts_given_directly_add_up_beyond_32_bits():
    """Merging the counts of many processes is an addition of large numbers."""
    counter = WordCounter()
    for _ in range(3):
        counter.add_counts(WordCounts.of({b"ab": 2**33 + 1, b"a word that is longer than the lanes of the table": 5}))
    assert counter.total().counts.tolist() == [3 * (2**33 + 1), 15]
    assert counter.total().counts.dtype == np.int64


def test_memory_does_not_grow_with_the_text():
    """Texts are read once and forgotten, so a corpus larger than memory can be counted."""
    page = "".join(f"line {i} of the page\n" for i in range(2000))  # 40 kB
    peaks = []
    for pages in (50, 250):
        tracemalloc.start()
        count_words((page + str(n % 10) for n in range(pages)), CL100K)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], f"{peaks} bytes for 50 and 250 pages of {len(page)} bytes"
