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
@pytest.mark.parametrize("ids", [[5, 1000], [-1], [5, 2**40], ["5"], [1.5], [5, None]])
def test_an_unknown_id_is_named_by_both(tokenizer, monkeypatch, few, ids):
    """A gather would wrap -1 around, and round 1.5."""
    monkeypatch.setattr(decode, "FEW", few)
    with pytest.raises(ValueError, match=r"no token has the id (1000|-1|1099511627776)|ids must be integers, not "):
        tokenizer.decode_bytes(ids)


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
