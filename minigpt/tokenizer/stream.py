"""Decode while tokens arrive. A token may end inside a character, so its last bytes may have to wait."""

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Turns ids into text one at a time: the pushes and the flush together equal `decode` of all ids.

    >>> from minigpt.tokenizer import Tokenizer
    >>> decoder = Tokenizer.bytes_only().stream_decoder()
    >>> [decoder.push(byte) for byte in "né".encode()]  # é is two bytes
    ['n', '', 'é']
    >>> decoder.flush()
    ''
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        return self._utf8.decode(self._token_bytes(token))

    def flush(self) -> str:
        """The end: an unfinished character becomes U+FFFD. The decoder can then start on another text."""
        return self._utf8.decode(b"", final=True)
