"""A stream over several shards: written all or nothing, read as one array."""

import errno
from itertools import chain

import numpy as np
import pytest
from batches.fakes import stream_of
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.batches.shard_file import ShardWriter
from minigpt.batches.shards import StreamWriter, open_shards, write_shards

OURS = "ab" * 32
HOW = {"vocab_size": 1000, "fingerprint": OURS}


def arrays(*documents):
    return [np.array(ids, np.uint16) for ids in documents]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 999), max_size=9), max_size=6), st.integers(1, 10))
def test_how_a_stream_is_sharded_cannot_be_seen(tmp_path_factory, documents, shard_tokens):
    """Documents may lie across shards; tokens, borders and windows are those of one long array."""
    folder = tmp_path_factory.mktemp("stream")
    paths = write_shards(arrays(*documents), folder, "train", **HOW, shard_tokens=shard_tokens)
    stream = open_shards(folder, "train", OURS, 1000)
    whole = [*chain(*documents)]
    assert len(stream) == len(whole) and len(paths) == max(1, -(-len(whole) // shard_tokens))
    assert stream.document_starts.tolist() == [sum(map(len, documents[:n])) for n in range(len(documents))]
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 2):
            assert stream[start:stop].tolist() == whole[start:stop]
    assert stream[:].tolist() == whole


def test_rows_are_windows_with_zeros_past_the_end():
    """The last window of an evaluation is rarely full."""
    rows = stream_of(10, shards=3).rows(np.array([1, 8, 10, 15]), 4)
    assert rows.tolist() == [[1, 2, 3, 4], [8, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert rows.dtype == np.int64


def test_the_same_tokens_give_the_same_bytes(tmp_path):
    """No date, no path, no chance: two runs, or two machines, can compare their data by digest."""
    for folder in ("a", "b"):
        write_shards(arrays([1, 2], [3]), tmp_path / folder, "train", **HOW, shard_tokens=2)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_width_follows_the_vocabulary(tmp_path):
    """Two bytes a token as long as they suffice: half the disk."""
    for vocab_size, width in ((65536, 2), (65537, 4)):
        write_shards(arrays([1]), tmp_path, "train", vocab_size=vocab_size, fingerprint=OURS)
        assert open_shards(tmp_path, "train", OURS)[:].dtype.itemsize == width


def test_a_new_stream_replaces_the_old_one_wholly(tmp_path):
    """A left-over shard of a longer stream would be trained on."""
    write_shards(arrays(range(10)), tmp_path, "train", **HOW, shard_tokens=2)
    write_shards(arrays([7]), tmp_path, "val", **HOW)
    write_shards(arrays([1, 2, 3]), tmp_path, "train", **HOW, shard_tokens=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "train-00000-of-00002.bin", "train-00001-of-00002.bin", "val-00000-of-00001.bin",
    ]  # fmt: skip
    assert open_shards(tmp_path, "train", OURS)[:].tolist() == [1, 2, 3]


@pytest.mark.parametrize("when", ["writing", "closing"])
def test_a_full_disk_leaves_the_old_stream_and_nothing_else(tmp_path, monkeypatch, when):
    """The error keeps its number, for the command line to explain, and gains the place."""
    write_shards(arrays([1, 2, 3]), tmp_path, "train", **HOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "_append" if when == "writing" else "close", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_shards(arrays([4], [5, 6]), tmp_path, "train", **HOW, shard_tokens=2)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_source_leaves_nothing(tmp_path):
    """Ctrl+C in the middle of tokenizing: no half stream that a next run would take for a whole one."""

    def documents():
        yield np.arange(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(documents(), tmp_path, "train", **HOW, shard_tokens=2)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_two_renames_is_noticed(tmp_path):
    """A stream without one of its shards is no stream."""
    paths = write_shards(arrays(range(9)), tmp_path, "train", **HOW, shard_tokens=3)
    paths[1].unlink()
    with pytest.raises(ValueError, match=r"holds 2 of the 3 shards of train\. Delete its folder"):
        open_shards(tmp_path, "train", OURS)


def test_shards_in_the_wrong_order_are_noticed(tmp_path):
    """Each knows its own number."""
    first, second = write_shards(arrays(range(6)), tmp_path, "train", **HOW, shard_tokens=3)
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    with pytest.raises(ValueError, match="shards of train"):
        open_shards(tmp_path, "train", OURS)


def test_no_shards_are_a_missing_file(tmp_path):
    """Not an empty stream."""
    with pytest.raises(FileNotFoundError, match=r"has no shards called train-\*\.bin"):
        open_shards(tmp_path, "train", OURS)


def test_ids_beyond_the_vocabulary_are_refused_at_once(tmp_path):
    """Later they would be an index error in the middle of a step, or on a GPU a crash without a name."""
    write_shards(arrays([5, 999]), tmp_path, "train", **HOW)
    assert len(open_shards(tmp_path, "train", OURS, 1000)) == 2
    with pytest.raises(ValueError, match="holds token id 999, but the vocabulary ends at 998"):
        open_shards(tmp_path, "train", OURS, 999)


def test_a_long_document_is_split_without_a_copy_of_itself(tmp_path):
    """The border at the end of a full shard belongs to the next one."""
    with StreamWriter(tmp_path, "train", **HOW, shard_tokens=4) as writer:
        writer.write(np.arange(4))
        writer.write(np.arange(9))
        writer.write(np.arange(3), starts_document=False)
    stream = open_shards(tmp_path, "train", OURS)
    assert [len(part) for part in stream.parts] == [4, 4, 4, 4]
    assert stream.document_starts.tolist() == [0, 4]
    assert writer.paths == sorted(tmp_path.iterdir())
