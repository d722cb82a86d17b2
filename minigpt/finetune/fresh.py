"""Batches of problems that nobody has seen before, without end.

The problem at each place of the list is a function of its number (see the room `lessons`), so there is nothing to store
and nothing to shuffle, and a run that is resumed needs one number to see what it would have seen.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

import numpy as np
import torch

from minigpt.chat.conversation import Message
from minigpt.chat.template import Rendered, Template
from minigpt.finetune.examples import Examples
from minigpt.finetune.rows import AnswerBatch, Row, best_fit, tensors
from minigpt.lessons.family import Problem


class FreshRows:
    """An endless iterator of batches; process `rank` of `world` gets rows rank, rank + world, ... of each.

    A batch takes problems in their order, packed best-fit, until the next one fits into no row: it begins the next
    batch. As with `Rows`, the loss of a step is the mean over all its targets, wherever they stand.

    Raises: ValueError if the processes cannot share a batch evenly; for a problem longer than a row.
    """

    def __init__(
        self,
        problems: Callable[[int], Iterator[Problem]],  # from the so-manyth on
        template: Template,
        *,
        batch_size: int,
        context_length: int,
        accumulate: int,
        shared: tuple[int, int] = (0, 1),  # rank, world
    ) -> None:
        self.rank, self.world = shared
        if batch_size % self.world:
            raise ValueError(f"batch_size={batch_size} cannot be shared by {self.world} processes; use a multiple")
        self.problems, self.template = problems, template
        self.batch_size, self.context_length, self.accumulate = batch_size, context_length, accumulate
        self.batch = 0  # batches handed out
        self.place = 0  # the problem that the step of the next batch begins with
        self.step: list[tuple[Examples, list[Row]]] = []  # its micro-batches

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnswerBatch:
        micro = self.batch % self.accumulate
        if not self.step:
            self._plan()
        examples, rows = self.step[micro]
        parts = tensors(examples, rows[self.rank :: self.world], self.context_length)
        self.batch += 1
        if micro == self.accumulate - 1:
            self.place, self.step = self.next_place, []
        return AnswerBatch(*parts, self.per_batch)

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch, "problem": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch, self.place, self.step = state["batch"], state["problem"], []

    def _plan(self) -> None:
        """Draw all micro-batches of the next step, and count their targets."""
        self.next_place = self.place
        for _ in range(self.accumulate):
            examples, rows = self._packed(self.next_place)
            self.step.append((examples, rows))
            self.next_place += len(examples)
        total = sum(examples.targets for examples, _ in self.step)
        self.per_batch = torch.tensor(total / (self.accumulate * self.world), dtype=torch.float32)

    def _packed(self, place: int) -> tuple[Examples, list[Row]]:
        """The problems from this place on that fit into a batch, and its rows; some may stay empty."""
        drawn: list[Rendered] = []
        room = self.batch_size * self.context_length
        for problem in self.problems(place):
            drawn.append(rendered(problem, self.template))
            if (length := len(drawn[-1].ids) - 1) > self.context_length:
                raise ValueError(f"a problem of {problem.family} takes {length} tokens, more than the context of "
                                 f"{self.context_length}")  # fmt: skip
            room -= length
            if room < 0:
                break
        lengths, n = [len(one.ids) - 1 for one in drawn], len(drawn) - 1
        while len(rows := best_fit(lengths, range(n), self.context_length)) > self.batch_size:
            n -= 1
        return as_examples(drawn[:n]), rows + [[] for _ in range(self.batch_size - len(rows))]


def rendered(problem: Problem, template: Template) -> Rendered:
    """A problem as a conversation of two turns."""
    return template.render([*user_turn(problem), {"role": "assistant", "content": problem.answer}])


def user_turn(problem: Problem) -> list[Message]:
    """What a problem asks."""
    return [{"role": "user", "content": problem.prompt}]


def as_examples(conversations: Iterable[Rendered]) -> Examples:
    """End to end, as they lie in a file."""
    ids, target = zip(*conversations, strict=True)
    return Examples(
        np.array([token for one in ids for token in one], np.int32),
        np.array([said for one in target for said in one], bool),
        np.cumsum([0, *map(len, ids)], dtype=np.int64),
    )
