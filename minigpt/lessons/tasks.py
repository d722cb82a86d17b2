"""Fourteen families of problems whose answers a rule can judge, endless and the same for everybody.

A problem is a function of (family, side, seed, index): there is no state to save, and the millionth problem of a
training run is made without the ones before it.

    train            what may be learnt from
    test             other problems of the same kind: their keys fall on the other side of the hash
    compositional    test keys, held-out words or neighbours, and wordings in a new combination
    longer           test keys, longer than anything in train
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from minigpt import config
from minigpt.lessons.families_context import CONTEXT
from minigpt.lessons.families_number import NUMBER
from minigpt.lessons.families_text import TEXT
from minigpt.lessons.family import Family, Problem
from minigpt.lessons.split import SIDES, Hand, Side, draw, is_test

FAMILIES: Final[dict[str, Family]] = {**TEXT, **NUMBER, **CONTEXT}
MOST_TURNS = max(family.turns for family in FAMILIES.values())
ROUND: Final = tuple(name for turn in range(MOST_TURNS) for name in FAMILIES if turn < FAMILIES[name].turns)


def families_of(spec: str) -> list[str]:
    """all, or names with commas between. Raises: ValueError for an unknown one, with the nearest."""
    names = list(FAMILIES) if spec == "all" else [name.strip() for name in spec.split(",")]
    for name in names:
        if name not in FAMILIES:
            raise config.unknown("family", name, FAMILIES)
    return names


def sizes_of(family: Family, side: Side, level: float) -> range:
    """The sizes that may be drawn; a training level below 1 leaves out the largest."""
    if side == "longer":
        return family.longer
    if side == "train":
        largest = family.sizes.start + round(level * (len(family.sizes) - 1))
        return range(family.sizes.start, largest + 1)
    return range(max(family.sizes.start, family.taught_only + 1), family.sizes.stop)


def problem_at(family: str, side: Side, seed: int, index: int, level: float = 1.0, size: int | None = None) -> Problem:
    """The problem at one place of one endless list.

    level: 0 gives the smallest problems only, 1 all sizes; long ones come more often. Only training has levels.
    size: of this size alone.
    Raises: ValueError for an unknown family or side, a level outside [0, 1], a size that this side does not have.
    """
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r}; there are {', '.join(FAMILIES)}")
    if side not in SIDES:
        raise ValueError(f"there is no side {side!r}; there are {', '.join(SIDES)}")
    if not 0 <= level <= 1:
        raise ValueError(f"level {level} must be between 0 (short problems only) and 1 (all)")
    hand = Hand(family, side, int(draw("seed", family, side, seed, index) * 2**53))
    sizes = sizes_of(FAMILIES[family], side, level if size is None else 1.0)
    if size not in (None, *sizes):
        raise ValueError(f"{family} has no problems of size {size} on side {side}: choose one of {list(sizes)}")
    drawn = max(hand.pick(sizes), hand.pick(sizes))  # the larger of two: long problems are harder, and more numerous
    while True:  # until the key is on this side: one of 1.25 for training, one of 5 else
        problem = FAMILIES[family].make(hand, drawn if size is None else size)
        if is_test(problem.key) != (side == "train"):
            return problem


def problems(family: str, side: Side, seed: int, level: float = 1.0, size: int | None = None) -> Iterator[Problem]:
    """Problems of one family, without end. Raises: ValueError as `problem_at`, at the first of them."""
    return (problem_at(family, side, seed, index, level, size) for index in count())


def lessons(
    seed: int, growing: int = 0, start: int = 0, families: Sequence[str] = tuple(FAMILIES), size: int | None = None
) -> Iterator[Problem]:
    """Training problems of some families in turn, from the start-th on; hard families have more turns in a round.

    growing: within so many problems the level rises from 0 to 1: to add five digits, first learn to add one.
    """
    turns = [name for name in ROUND if name in families]
    for index in count(start):
        level = min(1.0, index / growing) if growing else 1.0
        yield problem_at(turns[index % len(turns)], "train", seed, index, level, size)


def is_right(problem: Problem, text: str) -> bool:
    """Is this text a right answer? To the letter: neither spaces nor a full stop too many."""
    return FAMILIES[problem.family].is_right(problem, text)


def grade(problem: Problem, text: str, ended: bool) -> bool:
    """Is it a right answer that ended by itself? One cut off at the token limit is wrong, whatever it says so far."""
    return ended and is_right(problem, text)
