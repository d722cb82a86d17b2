"""What is right without understanding? Two answers that stand beside every score.

A model that has only learnt which answers are frequent does as well as the answer prior; one that has only learnt its
examples by heart does about as well as the nearest neighbour.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from minigpt.lessons.family import Problem
from minigpt.lessons.split import TEST_SHARE, Side
from minigpt.lessons.tasks import is_right, problems


class Baselines(NamedTuple):
    """How often each is right, and how many different problems there seem to be."""

    prior: float      # always the most frequent training answer
    nearest: float    # the answer to the most similar training prompt
    different: float  # see `different_problems`


def baselines(family: str, side: Side, seed: int, *, taught: int = 2000, asked: int = 200) -> Baselines:
    """The baselines of one family: `taught` training problems, `asked` questions from another side."""
    known = list(islice(problems(family, "train", seed), taught))
    questions = list(islice(problems(family, side, seed), max(asked, taught)))
    different = different_problems(questions) / TEST_SHARE
    questions = questions[:asked]
    return Baselines(answer_prior(known, questions), nearest_neighbour(known, questions), different)


def answer_prior(known: Sequence[Problem], questions: Sequence[Problem]) -> float:
    """Share of questions to which the most frequent known answer is right."""
    [(answer, _)] = Counter(problem.answer for problem in known).most_common(1)
    return share_right(questions, [answer] * len(questions))


def nearest_neighbour(known: Sequence[Problem], questions: Sequence[Problem]) -> float:
    """Share of questions to which the answer of the most similar known prompt is right (of equals, the first)."""
    numbers: dict[str, int] = {}
    rows = [numbered(problem.prompt, numbers) for problem in known]
    table, lengths = as_columns(rows), np.array([len(row) for row in rows])                 # (L, N), (N,)
    answers = []
    for question in questions:
        distance = edit_distances(numbered(question.prompt, numbers), table, lengths)       # (N,)
        answers.append(known[int(distance.argmin())].answer)
    return share_right(questions, answers)


def share_right(questions: Sequence[Problem], answers: Sequence[str]) -> float:
    return sum(is_right(one, answer) for one, answer in zip(questions, answers, strict=True)) / len(questions)


def different_problems(drawn: Sequence[Problem]) -> float:
    """An estimate of how many different problems there are, from how many of n drawn ones are equal in pairs.

        n (n - 1) / 2  /  pairs of equal keys

    This is the size of a space of equally probable problems with as many repeats; infinite if there were none.
    """
    n = len(drawn)
    equal = sum(times * (times - 1) // 2 for times in Counter(problem.key for problem in drawn).values())
    return n * (n - 1) / 2 / equal if equal else float("inf")


def numbered(prompt: str, numbers: dict[str, int]) -> list[int]:
    """A prompt as numbers, one for each word or mark: one edit changes a word, however long."""
    return [numbers.setdefault(word, len(numbers)) for word in re.findall(r"\w+|[^\w\s]", prompt)]


def as_columns(rows: list[list[int]]) -> np.ndarray:
    """Rows of unequal length as the columns of one array (L, N), filled up with -1, which equals no word.

    A column each, because numpy's running minimum then goes over all rows at once.
    """
    table = np.full((max(map(len, rows)), len(rows)), -1, dtype=np.int16)
    for n, row in enumerate(rows):
        table[: len(row), n] = row
    return table


def edit_distances(question: list[int], table: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Levenshtein's distance between one prompt q and each of N known ones r, all at once.

        D[i, j] = min(D[i-1, j] + 1, D[i-1, j-1] + (q_i ≠ r_j), D[i, j-1] + 1)

    The last term looks back along the line that is being made. With E for the minimum of the other two it is
    D[i, j] = j + min over k <= j of (E[k] - k): one running minimum. So D - j is what is kept.

    Shapes: table (L, N) of `as_columns`, lengths (N,); returns (N,).
    """
    L, N = table.shape
    assert max(L, len(question)) < 128, f"prompts of {max(L, len(question))} words: D - j needs more than 8 bits"
    above = np.zeros((L + 1, N), dtype=np.int8)                                             # D[0, j] - j
    here = np.empty_like(above)
    for i, word in enumerate(question, 1):
        here[0] = i
        same = (table == word).view(np.int8)                                                # (L, N)
        np.minimum(above[1:] + np.int8(1), above[:-1] - same, out=here[1:])
        np.minimum.accumulate(here, axis=0, out=above)                                      # (L + 1, N)
    return above[lengths, np.arange(N)] + lengths
