"""Ids -> bytes by one gather, as by a loop; and the characters that a token covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer, decode


@given(ids=st.lists(st.integers(0, 999), max_size=200))
def test_a_gather_is_a_loop(tokenizer, ids):
    """Lists, arrays of any integers and iterators; the special token stands last."""
    expected = b"".join(tokenizer.token_bytes(i) for i in ids)
    assert tokenizer.decode_bytes(ids) == tokenizer.decode_bytes(iter(ids)) == expected
    for dtype in (np.uint16, np.int64):
        assert tokenizer.decode_bytes(np.array(ids, dtype)) == expected
    assert tokenizer.decode_batch([ids, []]) == [expected.decode(errors="replace"), ""]


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("ids", [[5, 1000], [-1], [5, -1], [-999], [5, 2**40], ["5"], [1.5], [5, None], [5, 1.0]])
def test_an_unknown_id_is_named_by_both(tokenizer, monkeypatch, few, ids):
    """A gather would wrap -1 around, and round 1.5."""
    monkeypatch.setattr(decode, "FEW", few)
    with pytest.raises(ValueError, match=r"no token has the id (1000|-1|-999|1099511627776):|ids must be integers, "):
        tokenizer.decode_bytes(ids)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize(("ids", "message"), [
    ([1.0, 2.0], "ids must be integers, not float"),
    ([[1, 2], [3, 4]], "ids must be integers, not list: decode_batch takes several rows"),
    (np.array([[1, 2], [3, 4]]), r"one row of ids, not an array of shape \(2, 2\): decode_batch takes several"),
    (np.array(5), r"one row of ids, not an array of shape \(\)"),
    (np.array([1.0]), r"ids must be integers, not float64: pass ids.astype\(int\)"),
    (np.array([True]), "ids must be integers, not bool"),
    (np.array([-1], np.int16), "no token has the id -1"),
    (np.array([2**64 - 1], np.uint64), "no token has the id 18446744073709551615"),
    ("text", "decode takes ids, and this is text already"),
])  # fmt: skip
def test_what_is_no_row_of_integers_is_refused_in_one_sentence(tokenizer, monkeypatch, few, ids, message):
    """The commonest mistakes: a batch, logits, and text that was to be encoded. However many ids."""
    monkeypatch.setattr(decode, "FEW", few)
    for call in (tokenizer.decode, tokenizer.decode_with_offsets):
        with pytest.raises(ValueError, match=f"{message}"):
            call(ids)


def test_an_integer_is_what_python_calls_one(tokenizer, monkeypatch):
    """True is 1, as for tiktoken and for list indices; 1.0 is 1 to a dict only, and no id."""
    for few in (0, 1000):
        monkeypatch.setattr(decode, "FEW", few)
        assert tokenizer.decode_bytes([True, 98]) == tokenizer.decode_bytes([np.uint16(1), np.int64(98)]) == b"\1b"
        assert tokenizer.decode_bytes(np.array([98], np.uint64)) == b"b" and tokenizer.decode(np.array([])) == ""
    with pytest.raises(ValueError, match="ids must be integers, not float"):
        tokenizer.token_bytes(1.0)


@pytest.mark.parametrize("few", [0, 1000])
def test_a_gap_between_ids_is_no_token(monkeypatch, few):
    """cl100k_base has none at 100256: nothing else must be taken for it."""
    monkeypatch.setattr(decode, "FEW", few)
    gapped = decode.Decoder({0: b"a", 2: b"bc", 3: b""})
    assert gapped.bytes_of([2, 3, 0]) == gapped.bytes_of(np.array([2, 3, 0])) == b"bca"
    for ids in ([1], [0, 1], np.array([0, 1])):
        with pytest.raises(ValueError, match="no token has the id 1"):
            gapped.bytes_of(ids)


@given(text=st.text() | st.text(alphabet="aé中😀 \n"))
def test_offsets_say_which_characters_a_token_covers(tokenizer, text):
    """Tokens that share a character both cover it; otherwise the pieces are the text."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode_ordinary(text)
    for i, (start, end) in zip(ids, offsets, strict=True):
        assert tokenizer.token_bytes(i) in text[start:end].encode() and start < end
        assert len(text[start:end].encode()) - len(tokenizer.token_bytes(i)) <= 6  # less than two characters too many
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
    if ids:
        assert offsets[0][0] == 0 and offsets[-1][1] == len(text)
    assert tokenizer.decode_with_offsets(ids) == (text, offsets)
    assert tokenizer.count(text) == len(ids)


def test_offsets_of_half_a_character():
    """Two tokens of one letter, each with half of it."""
    assert Tokenizer.bytes_only().encode_with_offsets("né") == ([110, 195, 169], [(0, 1), (1, 2), (1, 2)])
    with pytest.raises(UnicodeDecodeError):
        Tokenizer.bytes_only().decode_with_offsets([195])
