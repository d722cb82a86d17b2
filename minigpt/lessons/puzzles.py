"""Puzzles: problems that a rule can judge and nobody has to solve, for each has many right answers.

Where one answer is right, to copy it teaches more than to be told "wrong" again and again. Rewards are worth their
price where many are: a model that has learnt from examples writes like all of them at once, with a chance for a slip at
each token, and finds out by itself which of its ways is safest.

    expression   Make 18 of 3 4 6                     3*4+6, 6+4*3, ...     each digit once, with + - *
    brackets     Brackets: 6 pairs, 3 deep, 2 ends    ((()))((())), ...    an end is a pair with nothing inside
    digits       4 digits, sum 17, no 3               9800, 4418, ...
    letters      5 letters, k to t, with m, not e     kmart, kttmt, ...

    python train.py sft --data letters          a model that can do it now and then, as rewards need one
    python train.py grpo --problems letters     begins with it

As in `tasks`, a puzzle is a function of (family, side, seed, index), and a hash of what it asks decides the side. There
is one wording for each family, so no side is compositional.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final, Literal

from minigpt.lessons import tasks
from minigpt.lessons.family import Family, Problem
from minigpt.lessons.split import Hand, draw, is_test
from minigpt.lessons.words import LETTERS

Side = Literal["train", "test", "longer"]

OPERATIONS = "+-*"
LARGEST = 99  # an expression's value: two digits to read, none below 0


def expression(hand: Hand, size: int) -> Problem:
    """Digits and what some expression makes of them: so there is one that does."""
    while True:
        digits = [1 + hand.below(9) for _ in range(size)]
        answer = str(digits[0]) + "".join(hand.pick(OPERATIONS) + str(digit) for digit in digits[1:])
        if 0 <= (total := value(answer)) <= LARGEST:
            asked = " ".join(map(str, sorted(digits)))
            return Problem("expression", f"Make {total} of {asked}", answer, f"expression: {total} {asked}")


def value(text: str) -> int:
    """3+4*6 -> 27: products first, then from left to right. Digits stand at even places, operations between."""
    total, sign, product = 0, 1, int(text[0])
    for operation, digit in zip(text[1::2], text[2::2], strict=True):
        if operation == "*":
            product *= int(digit)
        else:
            total += sign * product
            sign, product = (1 if operation == "+" else -1), int(digit)
    return total + sign * product


def makes_the_total(asked: Problem, text: str) -> bool:
    """Each digit once, an operation between two, and the value that was asked for."""
    total, *digits = asked.key.split(": ")[1].split()
    return (
        len(text) == 2 * len(digits) - 1
        and sorted(text[::2]) == digits
        and all(operation in OPERATIONS for operation in text[1::2])
        and value(text) == int(total)
    )


def brackets(hand: Hand, size: int) -> Problem:
    """A balanced word by chance, and what can be counted in it."""
    answer, depth, left = "", 0, size  # left: to be opened
    while left or depth:
        opens = depth == 0 or (left > 0 and hand.below(2) == 0)
        answer += "(" if opens else ")"
        depth, left = (depth + 1, left - 1) if opens else (depth - 1, left)
    deepest, ends = depth_of(answer), answer.count("()")
    return Problem("brackets", f"Brackets: {size} pairs, {deepest} deep, {ends} ends", answer,
                   f"brackets: {size} {deepest} {ends}")  # fmt: skip


def depth_of(text: str) -> int | None:
    """How deep brackets lie in each other; None where they do not balance, or something else stands between."""
    depth = deepest = 0
    for character in text:
        if character not in "()":
            return None
        depth += 1 if character == "(" else -1
        deepest = max(deepest, depth)
        if depth < 0:
            return None
    return deepest if depth == 0 else None


def is_as_counted(asked: Problem, text: str) -> bool:
    """So many pairs, so deep, so many with nothing inside."""
    pairs, deepest, ends = map(int, asked.key.split(": ")[1].split())
    return depth_of(text) == deepest and len(text) == 2 * pairs and text.count("()") == ends


def digits(hand: Hand, size: int) -> Problem:
    """Some digits, their sum, and one that is not among them."""
    unwanted = hand.below(10)
    chosen = [hand.pick([digit for digit in range(10) if digit != unwanted]) for _ in range(size)]
    return Problem("digits", f"{size} digits, sum {sum(chosen)}, no {unwanted}", "".join(map(str, chosen)),
                   f"digits: {size} {sum(chosen)} {unwanted}")  # fmt: skip


def has_the_sum(asked: Problem, text: str) -> bool:
    """So many digits, which add up, without the unwanted one."""
    size, total, unwanted = asked.key.split(": ")[1].split()
    return (
        len(text) == int(size)
        and all(character in "0123456789" for character in text)
        and sum(map(int, text)) == int(total)
        and unwanted not in text
    )


def letters(hand: Hand, size: int) -> Problem:
    """The first and the last letter, one in between, and one that is nowhere."""
    first, last, wanted, unwanted = hand.some(LETTERS, 4)
    allowed = [letter for letter in LETTERS if letter != unwanted]
    middle = hand.shuffled([wanted, *(hand.pick(allowed) for _ in range(size - 3))])
    return Problem("letters", f"{size} letters, {first} to {last}, with {wanted}, not {unwanted}",
                   "".join([first, *middle, last]), f"letters: {size} {first} {last} {wanted} {unwanted}")  # fmt: skip


def are_as_wanted(asked: Problem, text: str) -> bool:
    """So many small letters, these at the ends, one among them, and one not."""
    size, first, last, wanted, unwanted = asked.key.split(": ")[1].split()
    return (
        len(text) == int(size)
        and all(character in LETTERS for character in text)
        and (text[0], text[-1]) == (first, last)
        and wanted in text
        and unwanted not in text
    )


PUZZLES: Final[dict[str, Family]] = {
    "expression": Family(expression, range(3, 5), range(5, 6), is_right=makes_the_total),
    "brackets": Family(brackets, range(4, 13), range(13, 17), is_right=is_as_counted),
    "digits": Family(digits, range(3, 6), range(6, 8), is_right=has_the_sum),
    "letters": Family(letters, range(5, 9), range(9, 11), is_right=are_as_wanted),
}


def problem_at(family: str, side: Side, seed: int, index: int) -> Problem:
    """The puzzle at one place of one endless list. Raises: KeyError for an unknown family."""
    hand = Hand(family, side, int(draw("seed", family, side, seed, index) * 2**53))
    while True:  # until the key is on this side: of a small size, none may be
        problem = PUZZLES[family].make(hand, hand.pick(tasks.sizes_of(PUZZLES[family], side, level=1.0)))
        if is_test(problem.key) != (side == "train"):
            return problem


def problems(family: str, side: Side, seed: int) -> Iterator[Problem]:
    """Puzzles of one family, without end."""
    return (problem_at(family, side, seed, index) for index in count())


def is_right(problem: Problem, text: str) -> bool:
    """Is this text a right answer? To the letter."""
    return PUZZLES[problem.family].is_right(problem, text)
