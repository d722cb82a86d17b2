"""Sets of characters, and how their characters are written in bytes.

A set is a sorted tuple of ranges (first, last) of code points that neither touch nor overlap.
"""

import json
from collections.abc import Iterable

from minigpt.grammar.nodes import NOTHING, Node, byte_set, either, sequence

Characters = tuple[tuple[int, int], ...]

ANY: Characters = ((0, 0xD7FF), (0xE000, 0x10FFFF))  # no surrogates: UTF-8 cannot write them
DIGITS: Characters = ((0x30, 0x39),)
WORD: Characters = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Characters = ((0x09, 0x0D), (0x20, 0x20))
ESCAPED: Characters = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C))  # may not stand in a JSON string as they are

LAST_OF_LENGTH = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)  # the last code point that UTF-8 writes in 1, 2, 3, 4 bytes


def union(ranges: Iterable[tuple[int, int]]) -> Characters:
    """Sort, and join what touches."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def intersection(these: Characters, those: Characters) -> Characters:
    pairs = [(max(a, c), min(b, d)) for a, b in these for c, d in those]
    return union((first, last) for first, last in pairs if first <= last)


def complement(characters: Characters) -> Characters:
    """All others."""
    edges = [-1, *(edge for pair in characters for edge in pair), 0x110000]
    gaps = [(a + 1, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if a + 1 < b]
    return intersection(tuple(gaps), ANY)


def utf8(characters: Characters) -> Node:
    """One of the characters as UTF-8: a few sequences of byte ranges, however many characters.

    Source: Thompson's construction in the grep of Plan 9; Cox 2010, "Regular Expression Matching in the Wild".
    """
    written = []
    for first, last in intersection(characters, ANY):
        low = first
        for edge in LAST_OF_LENGTH:
            if low <= min(last, edge):
                written += spans(chr(low).encode(), chr(min(last, edge)).encode())
                low = edge + 1
    single = [byte for (pair, *more) in written if not more for byte in range(pair[0], pair[1] + 1)]
    options: list[Node] = [byte_set(single)] if single else []
    options += [sequence(*(byte_set(range(a, b + 1)) for a, b in pairs)) for pairs in written if len(pairs) > 1]
    return either(*options) if options else NOTHING


def spans(first: bytes, last: bytes, lowest: int = 0x80, highest: int = 0xBF) -> list[list[tuple[int, int]]]:
    """All byte strings from `first` to `last`, of one length, as products of byte ranges.

    Bytes after the first run from `lowest` to `highest`: in UTF-8 as here, in decimal numbers from 0 to 9.

    >>> spans(b"12", b"29", ord("0"), ord("9"))  # 12 to 19, 20 to 29
    [[(49, 49), (50, 57)], [(50, 50), (48, 57)]]
    """
    if len(first) == 1:
        return [[(first[0], last[0])]]
    least, most = bytes([lowest]) * (len(first) - 1), bytes([highest]) * (len(first) - 1)
    if first[0] == last[0] or (first[1:] == least and last[1:] == most):
        return [[(first[0], last[0]), *rest] for rest in spans(first[1:], last[1:], lowest, highest)]
    found, tail, low, high = [], [], first[0], last[0]
    if first[1:] != least:
        found += spans(first, first[:1] + most, lowest, highest)
        low += 1
    if last[1:] != most:
        tail += spans(last[:1] + least, last, lowest, highest)
        high -= 1
    if low <= high:
        found += spans(bytes([low]) + least, bytes([high]) + most, lowest, highest)
    return found + tail


def in_json(characters: Characters) -> Node:
    """One of the characters as it stands inside a JSON string: each in one way, that of `json.dumps`.

    So é is never \\u00e9: one character has one form, and lengths and patterns can count characters.
    """
    plain = intersection(characters, complement(ESCAPED))
    options = [utf8(plain)] if plain else []
    tails: dict[str, list[int]] = {}  # beginning of an escape: its possible last bytes
    for first, last in intersection(characters, ESCAPED):
        for code in range(first, last + 1):
            escape = json.dumps(chr(code))[1:-1]
            tails.setdefault(escape[:-1], []).append(ord(escape[-1]))
    options += [sequence(beginning.encode(), byte_set(bytes_)) for beginning, bytes_ in tails.items()]
    return either(*options) if options else NOTHING
