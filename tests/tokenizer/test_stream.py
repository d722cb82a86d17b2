"""Decoding token by token equals decoding at once, wherever characters are cut."""

from hypothesis import given
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.stream import StreamDecoder

BYTES = Tokenizer.bytes_only()


@given(text=st.text())
def test_pushed_text_equals_decoded_text(tokenizer, text):
    """A token of a real vocabulary may hold half an emoji, and none may be lost (vllm-mlx issue 109)."""
    ids = tokenizer.encode_ordinary(text)
    decoder = tokenizer.stream_decoder()
    assert "".join(map(decoder.push, ids)) + decoder.flush() == text


HALVES = st.sampled_from([b"\xf0\x9f", b"\x98\x80", b"\xe2\x82", b"\xc0", b"a"])


@given(chunks=st.lists(st.binary(max_size=4)) | st.lists(HALVES))
def test_any_bytes_in_any_chunks_give_the_same_text(chunks):
    """Models emit broken UTF-8. Each broken stretch becomes U+FFFD, as often as `bytes.decode` would have
    it."""
    decoder = StreamDecoder(chunks.__getitem__)
    pushed = "".join(decoder.push(i) for i in range(len(chunks))) + decoder.flush()
    assert pushed == b"".join(chunks).decode("utf-8", errors="replace")


def test_a_character_appears_with_its_last_byte_and_not_before():
    decoder = BYTES.stream_decoder()
    assert [decoder.push(byte) for byte in "a😀".encode()] == ["a", "", "", "", "😀"]


def test_a_flushed_decoder_starts_afresh():
    """Half a character of one answer must not leak into the next."""
    decoder = BYTES.stream_decoder()
    assert decoder.push(0xF0) == "" and decoder.flush() == "\ufffd"
    assert decoder.push(ord("a")) == "a" and decoder.flush() == ""
