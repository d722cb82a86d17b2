"""One file of tokens: its bytes, and how damage shows."""

import hashlib
import struct
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.batches.shard_file import HEADER_BYTES, ShardWriter, read_shard

OURS, OTHERS = "ab" * 32, "cd" * 32


def write(path, documents=((1, 2, 3), (), (65535,)), dtype=np.uint16):
    writer = ShardWriter(path, OURS, dtype, number=7)
    for ids in documents:
        writer.write(np.array(ids, dtype))
    writer.close()
    return path


def test_golden_bytes(tmp_path):
    """The format, spelled out once by hand. If this changes, VERSION must."""
    data = write(tmp_path / "a.bin").read_bytes()
    tokens = bytes.fromhex("0100 0200 0300 ffff")  # 8 bytes, so no padding
    starts = struct.pack("<3Q", 0, 3, 3)
    fields = b"minigpt\0" + struct.pack("<IIQQQQ", 1, 2, 7, 4, 3, 65535) + bytes.fromhex(OURS)
    digest = hashlib.sha256(tokens + starts + fields).digest()
    assert data == fields + digest + bytes(16) + tokens + starts
    assert HEADER_BYTES == 128


DOCUMENTS = st.lists(st.lists(st.integers(0, 65535), max_size=5), max_size=5)


@settings(deadline=None, max_examples=50)
@given(DOCUMENTS, st.sampled_from([np.uint16, np.uint32]))
def test_what_was_written_is_read(tmp_path_factory, documents, dtype):
    """Any documents, also empty ones and none, in both widths."""
    path = write(tmp_path_factory.mktemp("shard") / "a.bin", documents, dtype)
    shard = read_shard(path, OURS)
    assert shard.tokens.dtype == dtype
    tokens = [*chain(*documents)]
    assert shard.tokens.tolist() == tokens
    assert shard.document_starts.tolist() == [sum(map(len, documents[:n])) for n in range(len(documents))]
    assert shard.max_token == max(tokens, default=0)


def test_a_document_in_pieces_starts_once(tmp_path):
    """A book is written a megabyte at a time, yet has one border."""
    writer = ShardWriter(tmp_path / "a.bin", OURS, np.uint16)
    writer.write(np.array([1, 2]))
    writer.write(np.array([3]), starts_document=False)
    writer.write(np.array([4]))
    writer.close()
    assert read_shard(tmp_path / "a.bin", OURS).document_starts.tolist() == [0, 3]


def test_the_tokens_stay_on_the_disk(tmp_path):
    """Several processes share one copy in the system's cache; none holds its own."""
    assert isinstance(read_shard(write(tmp_path / "a.bin"), OURS).tokens, np.memmap)


def test_every_flipped_bit_is_noticed(tmp_path):
    """In the header, the ids, the starts: only the zeros kept for later versions mean nothing."""
    path = write(tmp_path / "a.bin")
    data = path.read_bytes()
    for place in [*range(112), *range(HEADER_BYTES, len(data))]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.bin .*Delete its folder and run again"):
            read_shard(path, OURS)


def test_every_truncation_is_noticed(tmp_path):
    """An interrupted copy; also one byte too many."""
    path = write(tmp_path / "a.bin")
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        complaint = "truncated" if size >= HEADER_BYTES else "not a shard of tokens"
        with pytest.raises(ValueError, match=complaint):
            read_shard(path, OURS)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match=f"{len(data) + 1} bytes instead of {len(data)} bytes"):
        read_shard(path, OURS)


def test_another_version_is_named(tmp_path):
    """An older minigpt must not read what it does not know."""
    path = write(tmp_path / "a.bin")
    data = bytearray(path.read_bytes())
    data[8] = 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="has format version 2; this code reads version 1"):
        read_shard(path, OURS)


def test_another_tokenizer_is_named(tmp_path):
    """Ids of another vocabulary are numbers in range: nothing else would notice, and all would be noise."""
    path = write(tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"another tokenizer \(abababababab…, this run has cdcdcdcdcdcd…\)"):
        read_shard(path, OTHERS)


def test_an_unfinished_shard_is_no_shard(tmp_path):
    """Until the header is in place, a killed writer leaves a file of zeros at its head."""
    writer = ShardWriter(tmp_path / "a.bin", OURS, np.uint16)
    writer.write(np.arange(5000))
    writer.abandon()
    with pytest.raises(ValueError, match="not a shard of tokens"):
        read_shard(tmp_path / "a.bin", OURS)


def test_an_id_too_large_for_its_width_is_our_own_mistake(tmp_path):
    """Numpy would wrap 65536 to 0 without a word."""
    writer = ShardWriter(tmp_path / "a.bin", OURS, np.uint16)
    writer.write(np.array([65536], np.uint32))
    with pytest.raises(AssertionError, match="id 65536 does not fit in uint16"):
        writer.close()
    writer.abandon()
