"""Bytes as visible letters: how GPT-2's files, and all that follow them, write tokens that need not be UTF-8.

Printable Latin-1 characters stand for themselves. The other 68 bytes (controls, space, the soft hyphen ...)
take the letters from U+0100 upward, so a space is written "Ġ" and a line end "Ċ".

Source: openai/gpt-2, encoder.py, `bytes_to_unicode`.
"""

from typing import Final

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

LETTER_OF: Final = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(256 + i) for i, byte in enumerate(_OTHERS)},
}
BYTE_OF: Final = {letter: byte for byte, letter in LETTER_OF.items()}


def to_letters(token: bytes) -> str:
    """b" the" -> "Ġthe"."""
    return "".join([LETTER_OF[byte] for byte in token])


def to_bytes(letters: str) -> bytes:
    """ "Ġthe" -> b" the". Raises: ValueError if a character stands for no byte."""
    try:
        return bytes([BYTE_OF[letter] for letter in letters])
    except KeyError as error:
        raise ValueError(f"no byte is written {error.args[0]!r}, as in the token {letters!r}") from None
