"""What there is to be rewarded for: the puzzles and the tasks of the room `lessons`, by their names."""

from types import ModuleType

from minigpt import config
from minigpt.lessons import puzzles, tasks
from minigpt.lessons.family import Problem
from minigpt.lessons.puzzles import Side


def families(spec: str) -> list[str]:
    """Names with commas between. Raises: ValueError for an unknown one, with the nearest."""
    names, known = [name.strip() for name in spec.split(",")], [*puzzles.PUZZLES, *tasks.FAMILIES]
    for name in names:
        if name not in known:
            raise config.unknown("family of problems", name, known)
    return names


def problem_at(family: str, side: Side, seed: int, index: int) -> Problem:
    """The problem at one place of one endless list."""
    return _home(family).problem_at(family, side, seed, index)


def is_right(problem: Problem, text: str) -> bool:
    """Is this text a right answer? To the letter."""
    return _home(problem.family).is_right(problem, text)


def _home(family: str) -> ModuleType:
    return puzzles if family in puzzles.PUZZLES else tasks
