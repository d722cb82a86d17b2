"""What was kept, what was dropped, and why: the receipt that comes with a corpus."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minigpt.corpus.document import Document

RULES = {
    "other-kind": "a kind of file that is not read",
    "not-utf-8": "bytes that are not UTF-8 text",
    "binary": "NUL bytes, which text does not have",
    "generated": "written by a program, as its first lines say",
    "contained": "a help topic that a longer one holds",
    "no-import": "a compiled module that does not load here",
    "empty": "no text but spaces",
    "duplicate": "the same text as an earlier document",
    "in-val": "the same text as a held-out document",
}


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
class Dropped:
    """How often a rule applied, and where first."""

    documents: int
    example: str


@dataclass
class CleanReport:
    """Counts of a corpus: both sides as they are kept, and each rule that dropped something.

    A document that falls to several rules counts under the first of them, in the order of `RULES`.
    """

    train: Kept = field(default_factory=Kept)
    val: Kept = field(default_factory=Kept)
    dropped: dict[str, Dropped] = field(default_factory=dict)  # by rule id

    def drop(self, rule: str, name: str) -> None:
        assert rule in RULES, f"no rule is called {rule!r}"
        if rule in self.dropped:
            self.dropped[rule].documents += 1
        else:
            self.dropped[rule] = Dropped(1, name)

    def __str__(self) -> str:
        """An aligned table of two blocks: what is kept, then what is not."""
        lines = [f"{'':<12}{'documents':>12}{'characters':>16}{'bytes':>16}"]
        for side, kept in (("train", self.train), ("held out", self.val)):
            lines.append(f"{side:<12}{kept.documents:>12,}{kept.characters:>16,}{kept.bytes:>16,}")
        for rule in RULES:
            if rule in self.dropped:
                dropped = self.dropped[rule]
                lines.append(f"{rule:<12}{dropped.documents:>12,}  {RULES[rule]}; first: {dropped.example}")
        return "\n".join(lines)
