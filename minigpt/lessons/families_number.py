"""Numbers: sort digits, add, compare. Digits stand apart, so that each is a token whatever the tokenizer merged."""

from minigpt.lessons.family import Family, Problem, problem
from minigpt.lessons.split import Hand
from minigpt.lessons.words import DIGITS

SORT = ("Sort: {x}", "Smallest first: {x}", "In rising order: {x}")
ADD = ("Add, last digit first: {a} + {b}", "Last digit first: {a} + {b}", "The sum, last digit first: {a} + {b}")
COMPARE = ("Compare: {x}", "From small to large: {x}", "Which is less, which more: {x}")


def number(hand: Hand, size: int) -> list[str]:
    """`size` digits, the first of which is no zero."""
    while (digits := hand.string(DIGITS, size))[0] == "0":
        pass
    return digits


def sort_digits(hand: Hand, size: int) -> Problem:
    """4 1 9 3 -> 1 3 4 9. The key is the answer: no other order of the same digits may be trained on."""
    digits = hand.string(DIGITS, size)
    answer = " ".join(sorted(digits))
    return problem(hand, SORT, answer, answer, x=" ".join(digits))


def add(hand: Hand, size: int) -> Problem:
    """8 3 + 7 4 -> 5 8, which is 38 + 47 = 85, each from its end.

    So a carry is known before the digit that needs it, and digits of one rank stand equally far apart.
    Source: Lee et al. 2023, "Teaching Arithmetic to Small Transformers": plain sums of this size are not learnt; Zhou
    et al. 2024, "Transformers Can Achieve Length Generalization But Not Robustly", for the terms.
    """
    a, b = number(hand, size), number(hand, size)
    total = int("".join(a)) + int("".join(b))
    key = " + ".join("".join(term) for term in sorted((a, b)))
    a, b = (" ".join(reversed(term)) for term in (a, b))
    return problem(hand, ADD, " ".join(reversed(str(total))), key, a=a, b=b)


NUMBERS = 3  # to compare: of two, every second guess would be right


def compare(hand: Hand, size: int) -> Problem:
    """4 8 2, 5 1 7, 9 1 -> 9 1 < 4 8 2 < 5 1 7. Some have a digit less: how a number begins does not decide alone."""
    numbers = [number(hand, size - (hand.below(4) == 0)) for _ in range(NUMBERS)]
    if len({*map(tuple, numbers)}) < NUMBERS:
        return compare(hand, size)
    rising = sorted(numbers, key=lambda digits: int("".join(digits)))
    key = " ".join("".join(digits) for digits in rising)
    answer = " < ".join(" ".join(digits) for digits in rising)
    return problem(hand, COMPARE, answer, key, x=", ".join(" ".join(digits) for digits in numbers))


NUMBER = {
    "sort digits": Family(sort_digits, range(4, 11), range(11, 14), turns=1),
    "addition": Family(add, range(1, 6), range(6, 8), taught_only=2, turns=4),
    "comparison": Family(compare, range(2, 5), range(5, 7), turns=3),
}
