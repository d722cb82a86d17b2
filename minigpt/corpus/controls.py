"""Characters that no reader sees: left over from terminals, old code pages, copy and paste, or put there to deceive.

What is invisible but needed stays: joiners inside Persian, Hindi or an emoji, direction marks beside Arabic and
Hebrew, the zero-width spaces by which Thai and Khmer show where a line may break, the tags of Scotland's flag.
"""

import re
from collections.abc import Iterable, Iterator

from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport, size

ESCAPE = r"\x1b\[[0-9;?]*[ -/]*[@-~]"  # what a terminal takes for colours: all of it goes, not the \x1b alone
BREAKS = r"[\x0b\x0c\u2028\u2029]"     # vertical tab, form feed, Unicode's own line and paragraph ends
C1 = r"[\x80-\x9f]"                    # text of Windows code page 1252 read as Latin-1; browsers map it back, too
ALWAYS_JUNK = (
    r"[\x00-\x08\x0e-\x1f\x7f"         # C0 but tab and line ends
    r"\xad\ufeff\u2060-\u2064"         # soft hyphen, byte-order marks, word joiner, invisible operators
    r"\u202a-\u202e\u2066-\u206f"      # embeddings and overrides of direction: Boucher 2021, "Trojan Source"
    r"\u180e\ufff9-\ufffb\ufffe\uffff]"
)
STRANGERS = (
    r"(?<![\u0590-\u1fff\u2070-\ud7ff\uf900-\ufefe\U00010000-\U000dffff])[\u200c\u200d]"  # joiners in Latin or nowhere
    r"|(?<![\u0e00-\u109f\u1780-\u17ff])\u200b"                                           # outside Thai ... Khmer
    r"|(?<![\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe])[\u200e\u200f\u061c](?![\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe])"
    r"|(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]+"                    # tags: hidden ASCII
)
SUSPECT = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\uffff\U000e0000-\U000e007f]"
)
JUNK = re.compile(f"{ESCAPE}|{BREAKS}|{C1}|{ALWAYS_JUNK}|{STRANGERS}")
FLOOD = re.compile("\ufffd{2,}")  # one U+FFFD marks a loss; a row of them says no more

KEPT_ASCII = bytes(code for code in range(128) if chr(code).isprintable() or chr(code) in "\t\n\r")
BOM = "\ufeff"


def remove_controls(pieces: Iterable[Document], report: CleanReport) -> Iterator[Document]:
    """Take the junk out of every piece, and count it. Twice is once."""
    first_piece = True
    for piece in pieces:
        # the mark that opens a file is no flaw of its text, and `normalise` drops it
        text = piece.text.removeprefix(BOM) if first_piece else piece.text
        first_piece = piece.ends
        if not is_suspect(text):
            yield piece._replace(text=text)
            continue
        clean, found = without_controls(text)
        if found:
            at = JUNK.search(text) or FLOOD.search(text)
            begin = at.start() if at else 0  # a flood may begin only as the controls in it go
            report.change("controls", piece.name, size(text) - size(clean), text, begin)
        yield piece._replace(text=clean)


def is_suspect(text: str) -> bool:
    """A look that costs a nanosecond a character where the text is ASCII, a few elsewhere."""
    if text.isascii():
        return bool(text.encode("ascii").translate(None, KEPT_ASCII))
    return SUSPECT.search(text) is not None


def without_controls(text: str) -> tuple[str, int]:
    """(the text, how many places changed)"""
    text, found = JUNK.subn(replacement, text)
    text, floods = FLOOD.subn("\ufffd", text)
    return text, found + floods


def replacement(match: re.Match[str]) -> str:
    """Line ends of other systems become ours; Latin-1's empty places what Windows has there; junk nothing."""
    character = match[0]
    if character in "\x0b\x0c\u2028\u2029":
        return "\n"
    if "\x80" <= character <= "\x9f":
        return character.encode("latin-1").decode("cp1252", "ignore")
    return ""
