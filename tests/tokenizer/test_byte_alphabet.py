"""The letters in which files write bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.tokenizer.byte_alphabet import BYTE_OF, LETTER_OF, to_bytes, to_letters


def test_every_byte_has_a_letter_of_its_own():
    assert len(BYTE_OF) == len(LETTER_OF) == 256
    assert all(letter.isprintable() and not letter.isspace() for letter in BYTE_OF)


def test_the_letters_are_those_of_gpt2():
    """Golden: 68 bytes have no printable letter, so theirs run from Ā (byte 0) to Ń (byte 173), by way of Ċ
    for the line end (10), Ġ for the space (32) and ġ for delete (127). Source: openai/gpt-2, encoder.py."""
    assert to_letters(b" the") == "Ġthe"
    assert to_letters(b"\n\x00\x7f\xad") == "ĊĀġŃ"


@given(st.binary())
def test_letters_come_back_as_bytes(token):
    assert to_bytes(to_letters(token)) == token


def test_other_letters_are_no_bytes():
    with pytest.raises(ValueError, match="no byte is written '漢', as in the token 'a漢'"):
        to_bytes("a漢")
