r"""What is a letter, a number, white space? Pinned: an upgrade of a library must never change ids.

Split patterns ask for `\p{L}`, `\p{N}` and `\s`. Every engine answers from the Unicode tables that it was built
with, and those grow each year: two engines of 2026 disagree about 17,480 characters. So the answer is kept here, in
unicode_classes.txt, and every tokenizer is saved with its version.

    python -m minigpt.tokenizer.unicode_classes    prints the table of the installed `regex`, to compare or renew
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".txt")
PROPERTIES = {"L": ("Lu", "Lt", "Ll", "Lm", "Lo"), "N": ("N",), "M": ("M",), "s": ("s",)}  # \p{L} is five categories
CATEGORIES = tuple(category for group in PROPERTIES.values() for category in group)
CHARACTERS = 0x110000
SAME_AS = "2026.11.15"  # a version of `regex` that is known to agree, so that nobody need compare
Ranges = list[tuple[int, int]]  # first and last code point of each


@cache
def pinned() -> tuple[str, dict[str, Ranges]]:
    """(the version of Unicode, category -> its code points)."""
    lines = FILE.read_text(encoding="ascii").splitlines()
    ranges = {}
    for line in lines[1:]:
        category, _, spelled = line.partition(" ")
        ends = (entry.partition("-") for entry in spelled.split())
        ranges[category] = [(int(first, 16), int(last or first, 16)) for first, _, last in ends]
    return lines[0].removeprefix("Unicode "), ranges


def version() -> str:
    """Of the pinned table, as it is saved with every tokenizer."""
    return pinned()[0]


def code_points(name: str) -> Ranges:
    r"""Those of a category ("Lu"), or of a whole property ("L", or "s" for `\s`), in order."""
    _, ranges = pinned()
    return sorted(entry for category in PROPERTIES.get(name, (name,)) for entry in ranges[category])


def table_of(values: dict[str, int], other: int) -> np.ndarray:
    """values[category], or `other`, for every code point: (0x110000,) uint8. Categories may be named by property."""
    table = np.full(CHARACTERS, other, np.uint8)
    for name, value in values.items():
        for first, last in code_points(name):
            table[first : last + 1] = value
    return table


def bracketed(name: str, last: int = CHARACTERS) -> str:
    r"""The code points up to `last` as the inside of a regular expression's [...]: "\U00000041-\U0000005a..."."""
    return "".join(
        f"\\U{a:08x}" if a == b else f"\\U{a:08x}-\\U{min(b, last):08x}" for a, b in code_points(name) if a <= last
    )


def spelled_out(pattern: str, last: int = CHARACTERS) -> str:
    r"""The pattern with `\p{L}` and its like, and `\s`, written as the pinned code points up to `last`.

    Raises: ValueError for a property that the table does not have.
    """
    spelled = []
    inside = False  # of [...], where a class may not open another
    for unit in re.findall(r"\\[pP]\{\w+\}|\\.|.", pattern, re.DOTALL):
        name, negated = ("s", unit == r"\S") if unit in (r"\s", r"\S") else (unit[3:-1], unit[:2] == r"\P")
        if unit in (r"\s", r"\S") or unit[:2] in (r"\p", r"\P"):
            if name not in PROPERTIES and name not in CATEGORIES:
                raise ValueError(f"{unit} is not pinned: there are {', '.join((*PROPERTIES, *CATEGORIES))}")
            if negated and inside:
                raise ValueError(f"{unit} inside of [...] cannot be spelled out")
            inner = bracketed(name, last)
            spelled.append(inner if inside else f"[^{inner}]" if negated else f"[{inner}]")
            continue
        inside = unit == "[" or (inside and unit != "]")
        spelled.append(unit)
    return "".join(spelled)


def installed() -> Iterator[str]:
    """The lines of unicode_classes.txt as the installed `regex` would write them."""
    import regex

    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, CHARACTERS)]))
    unassigned = regex.fullmatch(r"\p{Cn}", "\U00010940")  # Sidetic came with Unicode 17
    yield f"Unicode {'before 17.0' if unassigned else '17.0'}"
    for category in CATEGORIES:
        expression = r"\s+" if category == "s" else rf"\p{{{category}}}+"
        runs = (match.group() for match in regex.finditer(expression, everything))
        yield " ".join([category, *(_spelled(ord(run[0]), ord(run[-1])) for run in runs)])


@cache
def is_installed() -> bool:
    """Whether the installed `regex` classes every character as the pinned table does."""
    import regex

    if regex.__version__ == SAME_AS:
        return True
    return list(installed())[1:] == FILE.read_text(encoding="ascii").splitlines()[1:]


def _spelled(first: int, last: int) -> str:
    return f"{first:X}" if first == last else f"{first:X}-{last:X}"


if __name__ == "__main__":
    print("\n".join(installed()))
