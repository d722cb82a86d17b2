"""Documents to one stream, and the borders between them."""

import tracemalloc

import numpy as np
import pytest
from batches.fakes import Letters, stream_of
from hypothesis import given
from hypothesis import strategies as st

from minigpt.batches import packing
from minigpt.batches.packing import document_ids, pack, tokenize_corpus
from minigpt.batches.shards import open_shards
from minigpt.corpus.document import Document
from minigpt.runtime import workers

PIECES = [Document("ab", "1"), Document("c", "2", ends=False), Document("d", "2"), Document("", "3")]


class NoEnd(Letters):
    n_vocab = 256
    eot_token = None


def test_the_end_of_text_follows_documents_not_pieces():
    """Inside a book it would teach the model to stop after every megabyte."""
    packed = [(ids.tolist(), starts) for ids, starts in pack(PIECES, Letters())]
    assert packed == [([97, 98, 256], True), ([99], True), ([100, 256], False), ([256], True)]
    assert all(ids.dtype == np.uint16 for ids, _ in pack(PIECES, Letters()))


def test_plain_bytes_have_no_end_of_text():
    """With 256 tokens there is none to spare; borders are kept all the same."""
    packed = [(ids.tolist(), starts) for ids, starts in pack(PIECES, NoEnd())]
    assert packed == [([97, 98], True), ([99], True), ([100], False), ([], True)]


def test_a_corpus_becomes_a_stream(tmp_path, capsys):
    """Text to tokens on disk, with borders where documents begin; silent unless asked."""
    paths = tokenize_corpus(PIECES, Letters(), tmp_path, "train", shard_tokens=3)
    stream = open_shards(tmp_path, "train", Letters.fingerprint, Letters.n_vocab)
    assert stream[:].tolist() == [97, 98, 256, 99, 100, 256, 256]
    assert stream.document_starts.tolist() == [0, 3, 6]
    assert len(paths) == 3
    assert capsys.readouterr().err == ""
    tokenize_corpus(PIECES, Letters(), tmp_path, "val", progress=True, characters=4)
    assert "tokenize val: 100%" in capsys.readouterr().err


def test_the_number_of_processes_changes_no_byte(tmp_path, monkeypatch):
    """Groups come back in order, whoever was first; documents that end a group, or a process, end nowhere else."""
    monkeypatch.setattr(packing, "TOGETHER", 300)
    monkeypatch.setattr(packing, "WORTH_IT", 100)
    pieces = [Document("ab " * (7 * i % 50), str(i), ends=i % 5 != 3) for i in range(200)]
    streams = []
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        tokenize_corpus(pieces, Letters(), folder, "train", shard_tokens=4000, characters=10_000, processes=processes)
        streams.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert streams[0] == streams[1] and len(streams[0]) > 2


@pytest.mark.parametrize(("stop_after", "processes"), [(0, 1), (1, 1), (5, 1), (17, 1), (40, 1), (59, 1), (40, 2)])
def test_an_interrupted_stream_goes_on_behind_its_full_shards(tmp_path, monkeypatch, stop_after, processes):
    """Wherever Ctrl+C came, in the end the bytes are those of a stream in peace; what was full is not written again."""
    monkeypatch.setattr(packing, "TOGETHER", 20)
    pieces = [Document("ab" * (i % 7), str(i), ends=i % 3 != 1) for i in range(60)]

    def until(stop: int):
        yield from pieces[:stop]
        raise KeyboardInterrupt

    how = {"shard_tokens": 10, "processes": processes, "resume": True}
    tokenize_corpus(pieces, Letters(), tmp_path / "peace", "train", **how)
    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(until(stop_after), Letters(), tmp_path / "stopped", "train", **how)
    left = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped").iterdir()}
    assert all(name.startswith(".") for name in left) and (len(left) > 2 or stop_after < 40)
    damaged = sorted((tmp_path / "stopped").iterdir())[2:3]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])  # by the power cut that came with it
    tokenize_corpus(pieces, Letters(), tmp_path / "stopped", "train", **how)
    for path in (tmp_path / "peace").iterdir():
        other = tmp_path / "stopped" / path.name
        assert other.read_bytes() == path.read_bytes()
        if left and path.name.startswith("train-00000"):
            assert other.stat().st_mtime_ns == left[".train-00000.tmp"]
    assert len(list((tmp_path / "stopped").iterdir())) == len(list((tmp_path / "peace").iterdir()))


def test_an_error_in_a_worker_ends_the_work(tmp_path, monkeypatch):
    """And leaves no process and no file behind."""
    monkeypatch.setattr(packing, "TOGETHER", 1)
    with pytest.raises(UnicodeEncodeError):
        tokenize_corpus([Document("\ud800", "half a pair")] * 9, Letters(), tmp_path, "train", processes=2)
    assert not list(tmp_path.iterdir())


def test_a_small_corpus_starts_no_process(tmp_path, monkeypatch):
    """Starting one takes as long as encoding a few million characters."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)  # whoever calls it fails
    tokenize_corpus(PIECES, Letters(), tmp_path, "train", characters=4, processes=8)


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Neither text nor tokens are collected: a corpus larger than memory passes through."""

    def peak(pieces: int) -> int:
        text = "x" * 100_000
        tracemalloc.start()
        stream = (Document(text, "book", ends=False) for _ in range(pieces))
        tokenize_corpus(stream, Letters(), tmp_path, f"n{pieces}", shard_tokens=1_500_000)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(180) < 1.1 * peak(60)  # 36 and 12 MB of tokens
    assert peak(120) < 12 << 20


@given(st.sets(st.integers(0, 30)), st.integers(0, 30), st.integers(1, 12), st.integers(1, 4))
def test_documents_are_numbered_like_a_slow_count(borders, start, length, shards):
    """Twin: walk the window and add one at each border. The number means nothing, only its change does."""
    starts = np.array([start, start // 2])
    stream = stream_of(31, tuple(sorted(borders)), shards)
    expected = []
    for first in starts:
        number = 0
        row = [0]
        for place in range(first + 1, first + length):
            number += place in borders
            row.append(number)
        expected.append(row)
    numbers = document_ids(stream.document_starts, starts, length)
    assert numbers.tolist() == expected
    assert numbers.dtype == np.int64


def test_an_empty_document_between_two_others_makes_one_border():
    """Two documents that start at one place are two numbers apart; attention asks only what is equal."""
    numbers = document_ids(np.array([0, 2, 2, 4]), np.array([0]), 5)
    assert numbers.tolist() == [[0, 0, 2, 2, 3]]


def test_a_tokenizer_without_a_proper_fingerprint_is_our_own_mistake(tmp_path):
    """Shards of two such tokenizers could not be told apart."""

    class Nameless(Letters):
        fingerprint = "abcd"

    with pytest.raises(AssertionError, match="SHA-256 in hex"):
        tokenize_corpus(PIECES, Nameless(), tmp_path, "train")
