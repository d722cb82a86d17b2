"""Endless batches of problems that nobody has seen before."""

from itertools import count, islice

import pytest
import torch

from minigpt.batches.loader import IGNORED
from minigpt.chat.template import Template, with_chat_tokens
from minigpt.finetune.fresh import FreshRows, rendered
from minigpt.finetune.rows import best_fit
from minigpt.lessons.family import Problem
from minigpt.tokenizer import Tokenizer

T = 24
TEMPLATE = Template(with_chat_tokens(Tokenizer.bytes_only()))


def problem(n: int) -> Problem:
    """A question of n's digits, and an answer of one to seven letters: no two are equal."""
    return Problem("made", str(n), "a" * (1 + n % 7), f"made: {n}")


def rows(problems=problem, **changes) -> FreshRows:
    settings = {"batch_size": 4, "context_length": T, "accumulate": 1} | changes
    return FreshRows(lambda start: map(problems, count(start)), TEMPLATE, **settings)


def asked(batch) -> list[str]:
    """The questions in a batch, in the order of its rows."""
    texts = [TEMPLATE.tokenizer.decode([i for i in row if i < 256]) for row in batch.ids.tolist()]
    return [word for text in texts for word in text.replace("a", " ").replace("\0", "").split()]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_each_problem_comes_once_and_none_is_left_out():
    """What does not fit begins the next batch: over some batches, the problems are the first so many."""
    loader = rows(lambda n: problem(10 + n))
    seen = [int(question) - 10 for batch in islice(loader, 9) for question in asked(batch)]
    assert sorted(seen) == list(range(loader.place)) and len(seen) > 50


def test_a_batch_takes_as_many_as_fit():
    """One more would need another row; else much of the time would be spent on padding."""
    loader, begins = rows(), 0
    for batch in islice(loader, 9):
        lengths = [len(rendered(problem(n), TEMPLATE).ids) - 1 for n in range(begins, loader.place + 1)]
        taken, one_more = (len(best_fit(lengths, range(n), T)) for n in (len(lengths) - 1, len(lengths)))
        assert taken <= 4 < one_more
        assert batch.ids.shape == (4, T)
        begins = loader.place


def test_only_answers_and_their_ends_are_targets():
    batch = next(rows())
    said = batch.targets[batch.targets != IGNORED].tolist()
    assert set(said) == {ord("a"), TEMPLATE.end}
    assert said.count(TEMPLATE.end) == len(asked(batch))


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_a_resumed_run_sees_what_it_would_have_seen(at):
    """Also where it stops between two micro-batches of a step."""
    loader, again = rows(accumulate=3), rows(accumulate=3)
    for _ in range(at):
        next(loader)
    again.load_state_dict(loader.state_dict())
    for one, other in islice(zip(loader, again, strict=False), 7):
        assert same(one, other)


def test_a_step_is_the_mean_over_all_its_targets():
    """Of unequal micro-batches, the mean of means would weigh the targets of the emptier one more."""
    loader = rows(accumulate=2)
    first, second = next(loader), next(loader)
    targets = [int((batch.targets != IGNORED).sum()) for batch in (first, second)]
    assert targets[0] != targets[1]
    assert float(first.n_targets) == float(second.n_targets) == sum(targets) / 2


def test_processes_share_a_batch():
    """Together they have the rows of one process, and each divides by its share of the targets."""
    whole, parts = next(rows()), [next(rows(shared=(rank, 2))) for rank in range(2)]
    assert torch.equal(torch.stack([part.ids for part in parts], 1).flatten(0, 1), whole.ids)
    assert float(parts[0].n_targets) == float(whole.n_targets) / 2
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared by 3"):
        rows(shared=(0, 3))


def test_a_problem_longer_than_a_row_is_refused():
    """Cut off, it would teach an answer without its end."""
    with pytest.raises(ValueError, match=f"made takes .* than the context of {T}"):
        next(rows(lambda n: Problem("made", "?" * T, "a", "")))


def test_a_problem_is_two_turns():
    ids, mask = rendered(problem(3), TEMPLATE)
    assert TEMPLATE.tokenizer.decode([i for i, said in zip(ids, mask, strict=True) if said]) == "aaaa<|end|>"
