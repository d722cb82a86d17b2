"""Which side is a problem on? Decided by a keyed hash of what it asks, never by its place in a file.

A score is worth something only if the answer cannot have been remembered. So each problem has a key, the same for all
its wordings ("12 + 7" and "7 + 12" are one sum), and the key alone decides whether it may be trained on. Pieces of
problems (a name, a pair of neighbouring letters) are held out in the same way.
"""

import hashlib
import random
from collections.abc import Sequence
from functools import cache
from typing import Final, Literal, TypeVar

Side = Literal["train", "test", "compositional", "longer"]
SIDES: Final[tuple[Side, ...]] = ("train", "test", "compositional", "longer")

TEST_SHARE = 0.2  # of all keys; so much, because a test that is hard to draw is slow to draw
HELD = 8          # one word in so many, and one neighbour of each piece in so many, is never trained
SPLIT_KEY = b"minigpt lessons 1"  # another key is another split: scores would no longer compare

Item = TypeVar("Item")


def draw(*parts: str | int) -> float:
    """A number in [0, 1) that only the parts decide: on every machine, in every process, for ever."""
    text = "\0".join(map(str, parts)).encode()
    digest = hashlib.blake2b(text, key=SPLIT_KEY, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def is_test(key: str) -> bool:
    """May this problem only be asked, never taught?"""
    return draw("problem", key) < TEST_SHARE


@cache
def pieces_of(family: str, pieces: tuple[str, ...], after: str = "", *, held_out: bool) -> tuple[str, ...]:
    """The pieces that this family never shows in training (behind `after`, if given), or the others.

    One in HELD is held out, one at least: those of the lowest draw, so that no hash can leave a family without any.
    They may be trained in other families: a word must have been seen somewhere to be read.
    """
    ranked = sorted(pieces, key=lambda piece: draw("piece", family, after, piece))
    held = set(ranked[: max(1, len(ranked) // HELD)])
    return tuple(piece for piece in pieces if (piece in held) == held_out)


class Hand:
    """What one problem is made from: chance, and only the pieces that its side may see.

    All chance comes from `Random.random()`, the one method that Python promises never to change.
    """

    def __init__(self, family: str, side: Side, seed: int) -> None:
        self.family, self.held_out = family, side == "compositional"
        self._random = random.Random(seed).random

    def below(self, n: int) -> int:
        """One of 0 .. n - 1."""
        return int(self._random() * n)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[Item], n: int) -> list[Item]:
        """n different items, in a random order."""
        assert n <= len(items), f"{self.family}: {n} different items of {len(items)}"
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(n)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items, in a random order."""
        return self.some(items, len(items))

    def words(self, words: tuple[str, ...], n: int) -> list[str]:
        """n different words: trained ones, or for a compositional problem held-out ones."""
        return self.some(pieces_of(self.family, words, held_out=self.held_out), n)

    def string(self, alphabet: tuple[str, ...], n: int) -> list[str]:
        """n pieces in a row. No two neighbours are a held-out pair; in a compositional problem, one pair is at least.

        A single piece has no neighbours: it is the same on all sides.
        """
        planted = 1 + self.below(n - 1) if self.held_out and n > 1 else 0  # where the held-out pair ends
        pieces = [self.pick(alphabet)]
        while len(pieces) < n:
            held_out = len(pieces) == planted
            pieces.append(self.pick(pieces_of(self.family, alphabet, pieces[-1], held_out=held_out)))
        return pieces

    def wording(self, openings: Sequence[str], asks: Sequence[str]) -> str:
        """An opening and a question. The next question in the list is the one an opening was never trained with.

        So every opening and every question is known, and a compositional problem asks for a new pair of them.
        """
        opening = self.below(len(openings))
        new = (opening + 1) % len(asks)
        ask = new if self.held_out else (new + 1 + self.below(len(asks) - 1)) % len(asks)
        return openings[opening] + asks[ask]
