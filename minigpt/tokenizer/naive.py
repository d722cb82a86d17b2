"""Byte-pair encoding in its plainest form: the specification of this room.

Training repeats one step: count every pair of neighbouring tokens, give the most frequent pair a new id,
and replace it everywhere. Encoding replays those replacements in the order in which they were learned.
Nothing here is fast (each step reads the whole text again); `train.py` and `encode.py` must give the same
integers, and tests hold them to it.

Source: Gage 1994, "A New Algorithm for Data Compression"; Sennrich et al. 2016, "Neural Machine Translation
        of Rare Words with Subword Units"; on bytes: Radford et al. 2019, "Language Models are Unsupervised
        Multitask Learners", section 2.2.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import regex

Pair = tuple[int, int]


def train(texts: Iterable[str], n_merges: int, pattern: str, min_frequency: int = 1) -> list[Pair]:
    """The pairs to merge, most frequent first; pair i becomes token 256 + i.

    Among equally frequent pairs the one with the smaller ids wins (left first, then right), so that the
    result depends on the text alone. Fewer than `n_merges` come back when no pair occurs `min_frequency`
    times any more.
    """
    words = [list(word.encode()) for text in texts for word in split(text, pattern)]
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in pairwise(word))
        best = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]), default=None)
        if best is None or counts[best] < min_frequency:
            break
        words = [merge(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


def encode(text: str, merges: Sequence[Pair], pattern: str) -> list[int]:
    """Token ids of `text`: each pre-token starts as its bytes, then every merge is replayed in order."""
    ids: list[int] = []
    for word in split(text, pattern):
        tokens = list(word.encode())
        for new, pair in enumerate(merges, start=256):
            tokens = merge(tokens, pair, new)
        ids += tokens
    return ids


def decode(ids: Iterable[int], merges: Sequence[Pair]) -> str:
    """The text of `ids`; bytes that are not valid UTF-8 become U+FFFD."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return b"".join(tokens[i] for i in ids).decode("utf-8", errors="replace")


def merge(word: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace every `pair` by `new`, from the left: (1, 1, 1) with pair (1, 1) becomes (new, 1)."""
    merged: list[int] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def split(text: str, pattern: str) -> list[str]:
    """Cut text into pre-tokens; merges never cross a cut. `patterns.py` says what the patterns mean."""
    return [match.group() for match in regex.finditer(pattern, text)]
