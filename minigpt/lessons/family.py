"""What is a family of problems? A way to make one of a wanted size, and a rule that says which answers are right."""

from collections.abc import Callable
from typing import NamedTuple

from minigpt.lessons.split import Hand

OPENINGS = ("", "Please help. ", "One more. ")  # before a question; every family has as many questions


class Problem(NamedTuple):
    """One question with its answer: a user's turn and the assistant's."""

    family: str
    prompt: str
    answer: str  # the right one, or one of many
    key: str     # the same for all wordings of one problem: it decides the side


def same_text(problem: Problem, text: str) -> bool:
    """One right answer, to the letter."""
    return text == problem.answer


class Family(NamedTuple):
    """Problems of one kind. `make` gets the pieces it may use and a size, and knows nothing of sides."""

    make: Callable[[Hand, int], Problem]
    sizes: range          # that are trained; what is counted (letters, facts, digits) is the family's own
    longer: range         # that never are
    taught_only: int = 0  # sizes up to here are not asked: there are too few such problems to hold some out
    turns: int = 2        # in a round of lessons: what is hard has more of them
    is_right: Callable[[Problem, str], bool] = same_text


def problem(hand: Hand, asks: tuple[str, ...], answer: str, key: str, **slots: object) -> Problem:
    """One of the wordings that this side may use, filled in."""
    prompt = hand.wording(OPENINGS, asks).format(**slots)
    return Problem(hand.family, prompt, answer, f"{hand.family}: {key}")
