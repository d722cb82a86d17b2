"""Personal data that can be told by its form: e-mail addresses, bank accounts, payment cards, IP addresses, phones.

Each is found in two steps: a quick look for something that could begin it (an @, a row of digits, two colons), then a
strict rule for what surrounds it: check digits, lengths of the country, a known plan of phone numbers, and words that
say otherwise ("version 1.2.3.4"). What is found is replaced by its kind: <email>, <iban>, <card>, <ip>, <phone>.
Names, addresses and birthdays have no form; they need a model, not a rule.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minigpt.corpus.account_numbers import find_cards, find_ibans
from minigpt.corpus.addresses import find_emails, find_ips
from minigpt.corpus.document import Document
from minigpt.corpus.phone_numbers import find_phones
from minigpt.corpus.report import CleanReport, size

# Strictest first: what one of them takes, the next cannot take again.
FINDERS = (("email", find_emails), ("iban", find_ibans), ("card", find_cards), ("ip", find_ips), ("phone", find_phones))


class Finding(NamedTuple):
    start: int
    end: int
    kind: str


def find_personal(text: str) -> list[Finding]:
    """Every piece of personal data, in order; none overlaps another."""
    found: list[Finding] = []
    taken = bytearray()  # a byte for each character, as soon as there is something to find
    for kind, find in FINDERS:
        for start, end in find(text):
            taken = taken or bytearray(len(text))
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                found.append(Finding(start, end, kind))
    return sorted(found)


def masked(text: str, found: list[Finding]) -> str:
    """The text with <kind> in place of each finding."""
    parts, at = [], 0
    for start, end, kind in found:
        parts += [text[at:start], f"<{kind}>"]
        at = end
    return "".join(parts) + text[at:]


def mask_personal(chunks: Iterable[Document], report: CleanReport) -> Iterator[Document]:
    """Mask every chunk, and count. Examples are shown masked: a report must not spread what it hides."""
    for chunk in chunks:
        found = find_personal(chunk.text)
        if not found:
            yield chunk
            continue
        text, moved = masked(chunk.text, found), 0
        for start, end, kind in found:
            report.change(kind, chunk.name, size(chunk.text[start:end]), text, start + moved)
            moved += len(kind) + 2 - (end - start)
        yield chunk._replace(text=text, changed=True)
