"""Puzzles: which exist, on which side, and what counts as right."""

from itertools import islice

import pytest

from minigpt.lessons.family import Problem
from minigpt.lessons.puzzles import PUZZLES, is_right, problem_at, problems, value
from minigpt.lessons.split import is_test

EVERY_FAMILY = pytest.mark.parametrize("family", PUZZLES)


@EVERY_FAMILY
def test_puzzles_have_right_answers_and_sides(family):
    """The one that made the problem is right; no problem is both taught and asked; the longer ones are longer."""
    sides = {side: list(islice(problems(family, side, 1), 200)) for side in ("train", "test", "longer")}
    for found in sides.values():
        assert all(is_right(problem, problem.answer) for problem in found)
        assert not any(is_right(problem, problem.answer + " ") for problem in found)
    keys = {side: {problem.key for problem in found} for side, found in sides.items()}
    assert not keys["train"] & (keys["test"] | keys["longer"])
    assert all(map(is_test, keys["test"] | keys["longer"])) and not any(map(is_test, keys["train"]))
    longest = {side: [len(problem.answer) for problem in found] for side, found in sides.items()}
    assert max(longest["train"]) < min(longest["longer"])


def test_an_expression_is_judged_by_its_value():
    """Other orders are as right; another value, a digit too many or twice is not. None asked for is below 0."""
    asked = Problem("expression", "Make 18 of 3 4 6", "3*4+6", "expression: 18 3 4 6")
    right = [text for text in ("6+4*3", "4*3+6", "3*4+6", "3+4*6", "3*4+6+0", "6*3", "6*3+4-4", "", "6+4*3=18", "6+4x3")
             if is_right(asked, text)]  # fmt: skip
    assert right == ["6+4*3", "4*3+6", "3*4+6"]
    totals = {int(problem.key.split()[1]) for problem in islice(problems("expression", "train", 1), 400)}
    assert 0 <= min(totals) <= max(totals) <= 99
    assert [value(text) for text in ("3+4*6", "9-2-3", "2*3*4-5*2", "7")] == [27, 4, 14, 7]


def test_brackets_are_judged_by_pairs_depth_and_ends():
    """Unbalanced ones may have the right numbers, too."""
    asked = Problem("brackets", "Brackets: 3 pairs, 2 deep, 2 ends", "(())()", "brackets: 3 2 2")
    right = [text for text in ("(())()", "()(())", "(()())", "((()))", "()()()", "())(()", "(())", "(( ))()")
             if is_right(asked, text)]  # fmt: skip
    assert right == ["(())()", "()(())", "(()())"]


def test_digits_are_judged_by_number_sum_and_the_unwanted_one():
    """A digit that is no ASCII digit would be one for `int`."""
    asked = Problem("digits", "3 digits, sum 12, no 5", "930", "digits: 3 12 5")
    right = [text for text in ("930", "093", "444", "345", "93", "9300", "9 3", "٩٣٠", "")
             if is_right(asked, text)]  # fmt: skip
    assert right == ["930", "093", "444"]


def test_letters_are_judged_by_ends_and_members():
    """An end may not stand for the one that must be among them, for all four letters differ."""
    asked = Problem("letters", "5 letters, k to t, with m, not e", "kamot", "letters: 5 k t m e")
    right = [text for text in ("kmart", "kttmt", "kemot", "kaaat", "kmat", "kmarta", "Kmart", "tmark", "k mt")
             if is_right(asked, text)]  # fmt: skip
    assert right == ["kmart", "kttmt"]


def test_any_puzzle_can_be_made_without_the_ones_before_it():
    """A round of answers begins anywhere in the list."""
    assert problem_at("letters", "train", 5, 20) == list(islice(problems("letters", "train", 5), 21))[20]
    assert problem_at("letters", "train", 5, 20) != problem_at("letters", "train", 6, 20)
