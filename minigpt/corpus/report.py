"""What was kept, what was dropped, and why: the receipt that comes with a corpus."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minigpt.corpus.document import Document

RULES = {  # those that drop a document
    "other-kind": "a kind of file that is not read",
    "run": "the folder of a training run: its records are no text",
    "not-utf-8": "bytes that are not UTF-8 text",
    "binary": "NUL bytes, which text does not have",
    "generated": "written by a program, as its first lines say",
    "contained": "a help topic that a longer one holds",
    "no-import": "a compiled module that does not load here",
    "empty": "no text but spaces",
    "garbled": "bytes that were lost before: U+FFFD",
    "mojibake": "UTF-8 read as another encoding: Ã© for é",
    "minified": "endless lines of symbols: minified scripts, data",
    "dump": "base64, keys or other long runs without a space",
    "symbols": "mostly punctuation and symbols",
    "digits": "mostly digits",
    "lorem-ipsum": "a typesetter's filler",
    "repeated-lines": "lines that stood in it before",
    "repeated-words": "phrases that stood in it before",
    "menu": "short lines without a sentence",
    "too-short": "too few words to teach anything",
    "duplicate": "the same text as an earlier document",
    "in-val": "the same text as a held-out document",
    "in-eval": "13 words in a row from the evaluation texts",
    "near-duplicate": "nearly the text of an earlier document",
}
CHANGES = {  # those that change one
    "controls": "characters that no reader sees",
    "boilerplate": "lines that many documents share",
    "email": "e-mail addresses, masked",
    "iban": "bank accounts, masked",
    "card": "payment cards, masked",
    "ip": "public IP addresses, masked",
    "phone": "phone numbers, masked",
}
EXAMPLES = 2  # of each rule
SHOWN = 60    # characters of an example


def excerpt(text: str, at: int = 0) -> str:
    """A few characters of a text around a place, on one line, with everything that is no plain print escaped."""
    begin = max(0, at - SHOWN // 3)
    part = text[begin : begin + SHOWN]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in part)
    return ("..." if begin else "") + shown + ("..." if begin + SHOWN < len(text) else "")


def size(text: str) -> int:
    """Bytes of UTF-8; half a surrogate pair, which has none, counts as one."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


@dataclass
class Kept:
    """The size of one side of the split."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0

    def add(self, characters: int, size: int) -> None:
        self.documents += 1
        self.characters += characters
        self.bytes += size

    def remove(self, characters: int, size: int) -> None:
        self.documents -= 1
        self.characters -= characters
        self.bytes -= size

    @classmethod
    def of(cls, pieces: Iterable[Document]) -> "Kept":
        """The size of a stream, read to its end."""
        kept = cls()
        for piece in pieces:
            kept.documents += piece.ends
            kept.characters += len(piece.text)
            kept.bytes += len(piece.text.encode("utf-8"))
        return kept


@dataclass
class Applied:
    """How often a rule applied, to how many bytes, and where first."""

    documents: int = 0
    bytes: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)  # (name, excerpt)
    last: str = ""

    @property
    def example(self) -> str:
        return self.examples[0][0]

    def add(self, name: str, size: int, text: str, at: int = 0) -> None:
        self.documents, self.bytes, self.last = self.documents + 1, self.bytes + size, name
        if len(self.examples) < EXAMPLES:
            self.examples.append((name, excerpt(text, at)))

    def include(self, later: "Applied") -> None:
        """Add changes that were counted elsewhere, in documents after these; neighbours of one name are one."""
        again = self.documents > 0 and self.last == later.example
        self.documents += later.documents - again
        self.bytes, self.last = self.bytes + later.bytes, later.last
        self.examples = (self.examples + later.examples[again:])[:EXAMPLES]


@dataclass
class CleanReport:
    """Counts of a corpus: both sides as they are kept, and each rule that dropped or changed something.

    A document that falls to several rules counts under the first of them, in the order of `RULES`.
    """

    train: Kept = field(default_factory=Kept)
    val: Kept = field(default_factory=Kept)
    dropped: dict[str, Applied] = field(default_factory=dict)  # by rule id
    changed: dict[str, Applied] = field(default_factory=dict)

    def drop(self, rule: str, name: str, size: int = 0, text: str = "") -> None:
        assert rule in RULES, f"no rule is called {rule!r}"
        self.dropped.setdefault(rule, Applied()).add(name, size, text)

    def change(self, rule: str, name: str, size: int, text: str, at: int = 0) -> None:
        """`size`: the bytes taken out, or masked, at text[at]. Several places of one document make one document."""
        assert rule in CHANGES, f"no rule is called {rule!r}"
        applied = self.changed.setdefault(rule, Applied())
        if applied.documents and name == applied.last:
            applied.bytes += size
        else:
            applied.add(name, size, text, at)

    def include(self, later: "CleanReport") -> None:
        """Add what was changed in documents that come after these: as if this report had counted it."""
        for rule, applied in later.changed.items():
            self.changed.setdefault(rule, Applied()).include(applied)

    @property
    def read(self) -> Kept:
        """All that was read: what shares are shares of."""
        sides, gone = (self.train, self.val), self.dropped.values()
        return Kept(sum(one.documents for one in (*sides, *gone)), 0, sum(one.bytes for one in (*sides, *gone)))

    def __str__(self) -> str:
        """An aligned table of three blocks: what is kept, what is not, and what was changed in the first."""
        lines = [f"{'':<16}{'documents':>10}{'characters':>15}{'bytes':>15}"]
        for side, kept in (("train", self.train), ("held out", self.val)):
            lines.append(f"{side:<16}{kept.documents:>10,}{kept.characters:>15,}{kept.bytes:>15,}")
        for title, rules, applied in (("dropped", RULES, self.dropped), ("changed", CHANGES, self.changed)):
            if applied:
                lines.append(f"{title:<16}{'documents':>10}{'share':>15}{'bytes':>15}{'share':>9}")
            for rule in rules:
                if rule in applied:
                    lines += self._rows(rule, rules[rule], applied[rule])
        return "\n".join(lines)

    def _rows(self, rule: str, meaning: str, applied: Applied) -> list[str]:
        documents, size = (
            part / whole if whole else 0.0
            for part, whole in ((applied.documents, self.read.documents), (applied.bytes, self.read.bytes))
        )
        row = f"{rule:<16}{applied.documents:>10,}{documents:>15.2%}{applied.bytes:>15,}{size:>9.2%}  {meaning}"
        return [row, *(f"{'':<8}{name}" + (f": {shown}" if shown else "") for name, shown in applied.examples)]
