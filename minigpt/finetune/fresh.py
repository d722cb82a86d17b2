"""Batches of problems that nobody has seen before, without end.

The problem at each place of the list is a function of its number (see the room `lessons`), so there is nothing to store
and nothing to shuffle, and a run that is resumed needs one number to see what it would have seen.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from torch import Tensor

from minigpt.chat.conversation import Message
from minigpt.chat.template import Rendered, Template
from minigpt.finetune.examples import Examples
from minigpt.finetune.rows import Row, Steps, best_fit, tensors
from minigpt.lessons.family import Problem


class FreshRows(Steps):
    """Problems in their order, packed best-fit, until the next one fits into no row: it begins the next batch.

    Raises: ValueError for a problem longer than a row, as well.
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
        super().__init__(batch_size=batch_size, context_length=context_length, accumulate=accumulate, shared=shared)
        self.problems, self.template = problems, template
        self.place = 0  # the number of a problem

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch, "problem": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.place = state["problem"]

    def planned(self, first: int) -> tuple[list[tuple[Examples, list[Row]]], int, int]:
        """Of each micro-batch its problems, and the rows they lie in."""
        place, step = self.place, []
        for _ in range(self.accumulate):
            step.append(self._packed(place))
            place += len(step[-1][0])
        return step, sum(examples.targets for examples, _ in step), place

    def own_rows(self, micro: tuple[Examples, list[Row]]) -> tuple[Tensor, Tensor, Tensor]:
        examples, rows = micro
        return tensors(examples, rows[self.rank :: self.world], self.context_length)

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


def prompt_of(problem: Problem, template: Template) -> list[int]:
    """The ids of what a problem asks."""
    return template.prompt(user_turn(problem))


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
