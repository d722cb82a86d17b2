"""How JSON is written, as grammars: strings, numbers within bounds, lists, objects, any value.

Compact, with at most one space after a comma or a colon: {"a": [1, 2]} or {"a":[1,2]}. Models write both; more
space would let one fill its whole budget with nothing. For the same reason numbers have limits: 18 digits, so
that an integer fits into 64 bits; after the point 15, and 2 in the exponent, so that none is too large for a
double.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.grammar.characters import ANY, in_json, spans
from minigpt.grammar.nodes import Node, Repeat, Rule, byte_set, either, optional, sequence

INTEGER_DIGITS = 18
WHOLE_DIGITS, FRACTION_DIGITS = 9, 6  # of a number within bounds: together the 15 that a double keeps apart

SPACE = optional(b" ")
COMMA, COLON = sequence(b",", SPACE), sequence(b":", SPACE)
CHARACTER = in_json(ANY)
DIGIT, NONZERO, SIGN = byte_set(b"0123456789"), byte_set(b"123456789"), byte_set(b"+-")
BOOLEAN = either(b"true", b"false")


def quoted(inside: Node) -> Node:
    return sequence(b'"', inside, b'"')


def string(least: int = 0, most: int | None = None) -> Node:
    """Any string of so many characters."""
    return quoted(Repeat(CHARACTER, least, most))


def listed(part: Node, least: int, most: int | None) -> Node:
    """part, part, ...: at least `least`, at most `most`."""
    if most == 0:
        return b""
    more = Repeat(sequence(COMMA, part), max(least - 1, 0), None if most is None else most - 1)
    return sequence(part, more) if least else optional(sequence(part, more))


def array(item: Node, least: int = 0, most: int | None = None) -> Node:
    return sequence(b"[", listed(item, least, most), b"]")


def any_members(value: Node) -> Node:
    """An object with whatever names. Nothing hinders a name from coming twice, which JSON permits."""
    return sequence(b"{", listed(sequence(string(), COLON, value), 0, None), b"}")


def members(properties: list[tuple[str, Node, bool]]) -> Node:
    """An object with these (name, value, must it be there?), in this order."""
    written = [sequence(json.dumps(name, ensure_ascii=False).encode(), COLON, value) for name, value, _ in properties]
    required = [must for *_, must in properties]
    later = [sequence(COMMA, one) if must else optional(sequence(COMMA, one))
             for one, must in zip(written, required, strict=True)]  # fmt: skip
    firsts = required.index(True) + 1 if any(required) else len(written)
    options = [sequence(written[i], *later[i + 1 :]) for i in range(firsts)]
    if not any(required):
        options.append(b"")
    return sequence(b"{", either(*options), b"}")


def literal(value: object) -> Node:
    """Exactly this value, as `json.loads` gives it. Raises: ValueError for what JSON cannot write, as NaN."""
    if isinstance(value, dict):
        return members([(name, literal(inner), True) for name, inner in value.items()])
    if isinstance(value, list):
        inner = [part for one in value for part in (COMMA, literal(one))][1:]
        return sequence(b"[", *inner, b"]")
    return sequence(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())


def any_value() -> Node:
    """Any JSON value."""
    value = Rule("any value")
    value.body = either(any_members(value), array(value), string(), number(Bounds()), BOOLEAN, b"null")
    return value


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """From `low` to `high`, both whole numbers or None; open: the bound itself does not belong to it."""

    low: int | None = None
    high: int | None = None
    low_open: bool = False
    high_open: bool = False

    @property
    def empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def halves(self) -> Iterator[tuple[bytes, "Bounds"]]:
        """(b"", the part from 0 up) and (b"-", the part below 0 with its sign taken off), where not empty."""
        if self.low is None or self.low < 0:
            nonnegative = Bounds(low=0, high=self.high, high_open=self.high_open)
        else:
            nonnegative = self
        mirrored = Bounds(low=None if self.high is None else -self.high, low_open=self.high_open,
                          high=None if self.low is None else -self.low, high_open=self.low_open)  # fmt: skip
        if mirrored.low is None or mirrored.low <= 0:
            mirrored = Bounds(low=0, low_open=True, high=mirrored.high, high_open=mirrored.high_open)
        yield from ((sign, half) for sign, half in ((b"", nonnegative), (b"-", mirrored)) if not half.empty)


def integer(bounds: Bounds) -> Node | None:
    """A whole number within bounds, without fraction or exponent; None if there is none."""
    options = []
    for sign, half in bounds.halves():
        low, high = half.low + half.low_open, None if half.high is None else half.high - half.high_open
        if high is None or low <= high:
            options.append(sequence(sign, naturals(low, high, INTEGER_DIGITS)))
    return either(*options) if options else None


def number(bounds: Bounds) -> Node | None:
    """A number within bounds; without any it may have an exponent. None if there is none."""
    if bounds == Bounds():
        exponent = sequence(byte_set(b"eE"), optional(SIGN), Repeat(DIGIT, 1, 2))
        fraction = sequence(b".", Repeat(DIGIT, 1, WHOLE_DIGITS + FRACTION_DIGITS))
        return sequence(optional(b"-"), naturals(0, None, INTEGER_DIGITS), optional(fraction), optional(exponent))
    options = [sequence(sign, one) for sign, half in bounds.halves() for one in _decimals(half)]
    return either(*options) if options else None


def _decimals(bounds: Bounds) -> Iterator[Node]:
    """Decimal numbers between bounds that are not negative: by their whole part."""
    low, high = bounds.low, bounds.high
    fraction = sequence(b".", Repeat(DIGIT, 1, FRACTION_DIGITS))
    positive = sequence(b".", Repeat(DIGIT, 0, FRACTION_DIGITS - 1), NONZERO)  # more than 0
    if low != high:
        yield sequence(naturals(low, low, WHOLE_DIGITS), positive if bounds.low_open else optional(fraction))
        if high is None or low + 1 < high:
            yield sequence(naturals(low + 1, high and high - 1, WHOLE_DIGITS), optional(fraction))
    if high is not None and not bounds.high_open:
        yield sequence(naturals(high, high, WHOLE_DIGITS), optional(b".0"))


def naturals(low: int, high: int | None, digits: int) -> Node:
    """low, low + 1, ..., high, in decimal without leading zeros; without `high` up to so many digits."""
    last = 10 ** len(str(low)) - 1 if high is None else high
    options = []
    for length in range(len(str(low)), len(str(last)) + 1):
        first, final = max(low, 10 ** (length - 1) if length > 1 else 0), min(last, 10**length - 1)
        for pairs in spans(str(first).encode(), str(final).encode(), ord("0"), ord("9")):
            options.append(sequence(*(byte_set(range(a, b + 1)) for a, b in pairs)))
    if high is None and len(str(low)) < digits:
        options.append(sequence(NONZERO, Repeat(DIGIT, len(str(low)), digits - 1)))
    return either(*options)
