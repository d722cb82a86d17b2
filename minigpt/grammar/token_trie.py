"""The vocabulary as a tree: tokens that begin alike share the way down, so each beginning is looked at once."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from minigpt.grammar.nodes import ByteSet, Leaf

REMEMBERED = 1 << 16  # texts whose fewest tokens are kept


class TokenTrie:
    """All tokens of a vocabulary that spell something, level by level. Made once, shared by all constraints.

    `vocabulary[i]` are the bytes of token i. An entry that is None or empty (a special token) is never allowed,
    and neither is one of `stop_ids`, of which any ends the text.

        levels[d]   (parents, bytes) of the nodes that stand for d + 1 bytes; nodes are numbered in this order,
                    the root is node 0
        node_of     (V,) the node at which each token ends; 0 for those that are never allowed

    Raises: ValueError if a stop id lies outside the vocabulary, or there is none.
    """

    def __init__(self, vocabulary: Sequence[bytes | None], stop_ids: Collection[int]) -> None:
        self.stop_ids = sorted(set(stop_ids))
        if not self.stop_ids:
            raise ValueError("a constraint needs a stop token: where a text may end but need not, it is the one choice")
        if not 0 <= self.stop_ids[0] <= self.stop_ids[-1] < len(vocabulary):
            raise ValueError(f"stop ids {self.stop_ids} are not all in the vocabulary of {len(vocabulary)} tokens")
        special = set(self.stop_ids)
        self.tokens = [b"" if token is None or i in special else bytes(token) for i, token in enumerate(vocabulary)]
        self.spellings = set(self.tokens) - {b""}
        self.longest = max(map(len, self.spellings), default=0)
        self.single = sum(1 << token[0] for token in self.spellings if len(token) == 1)  # bytes that are tokens
        self.levels, self.node_of = _grown(self.tokens)
        self.size = 1 + sum(len(parents) for parents, _ in self.levels)
        self._fewest: dict[bytes, float] = {b"": 0}

    def fewest_tokens(self, leaf: Leaf) -> float:
        """With how many tokens of its own a leaf of a grammar can be written, at least; inf if it cannot."""
        if isinstance(leaf, ByteSet):
            return 1 if leaf.mask & self.single else math.inf
        if leaf not in self._fewest:
            if len(self._fewest) > REMEMBERED:
                self._fewest = {b"": 0}
            for begin in reversed(range(len(leaf))):  # every end of the text is asked for as it is being written
                ends = range(begin + 1, min(begin + self.longest, len(leaf)) + 1)
                counts = [self._fewest[leaf[end:]] for end in ends if leaf[begin:end] in self.spellings]
                self._fewest[leaf[begin:]] = 1 + min(counts, default=math.inf)
        return self._fewest[leaf]


def _grown(tokens: list[bytes]) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """(levels, node_of), with one np.unique for each level."""
    lengths = np.array([len(token) for token in tokens], np.int64)
    starts = lengths.cumsum() - lengths
    spelled = np.frombuffer(b"".join(tokens), np.uint8)
    node_of, levels, size = np.zeros(len(tokens), np.int64), [], 1
    for depth in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > depth)
        edges = node_of[longer] << 8 | spelled[starts[longer] + depth]
        unique, place = np.unique(edges, return_inverse=True)
        levels.append((unique >> 8, unique & 255))
        node_of[longer] = size + place
        size += len(unique)
    return levels, node_of
