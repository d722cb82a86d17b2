"""Several conversations in a row, and batches of such rows."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_gpt import VOCAB, made_gpt

from minigpt.batches.loader import IGNORED, Loader
from minigpt.batches.shards import open_shards, write_shards
from minigpt.finetune.examples import Examples
from minigpt.finetune.rows import Rows, best_fit, held_out_batches, tensors
from minigpt.finetune.sft import answer_tokens

T = 12


def made(n: int = 30, seed: int = 0) -> Examples:
    """Conversations of 3 to 13 tokens; the last third of each is the answer. The first token says which it is."""
    chance = np.random.default_rng(seed)
    lengths = chance.integers(3, T + 2, n)
    ids = [np.concatenate([[d % VOCAB], chance.integers(0, VOCAB, length - 1)]) for d, length in enumerate(lengths)]
    target = [np.arange(length) >= length - max(1, length // 3) for length in lengths]
    return Examples(np.concatenate(ids).astype(np.int32), np.concatenate(target), np.cumsum([0, *lengths]))


def rows(examples=None, **changes) -> Rows:
    settings = {"batch_size": 4, "context_length": T, "accumulate": 1, "seed": 7} | changes
    return Rows(examples or made(), **settings)


@pytest.fixture
def text(tmp_path):
    fingerprint = "0" * 64
    write_shards([np.arange(500) % VOCAB], tmp_path, "train", vocab_size=VOCAB, fingerprint=fingerprint)
    return Loader(open_shards(tmp_path, "train", fingerprint), batch_size=1, context_length=T, seed=7)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- packing ------------------------------------------------------------------------------------------------------


def test_each_goes_where_it_fits_best():
    """By hand, into rows of 8: 5 and 6 need a row each; 2 fills up the 6, so that 3 fills up the 5."""
    assert best_fit([5, 6, 2, 3], range(4), 8) == [[0, 3], [1, 2]]


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 30))
def test_nothing_is_lost_and_nothing_overflows(lengths, capacity):
    """Every item once; and two rows are never so empty that they could have been one."""
    packed = best_fit(lengths, range(len(lengths)), capacity)
    assert sorted(item for row in packed for item in row) == list(range(len(lengths)))
    filled = sorted(sum(lengths[item] for item in row) for row in packed)
    assert all(size <= capacity for size in filled)
    assert len(filled) < 2 or filled[0] + filled[1] > capacity


def test_a_row_by_hand():
    """The picture at the head of the file: targets one to the right, only the assistant's, never across a border."""
    examples = Examples(np.array([1, 2, 9, 3, 4, 9, 1, 5, 3, 9], np.int32),
                        np.array([0, 0, 0, 0, 1, 1, 0, 0, 0, 1], bool), np.array([0, 6, 10]))  # fmt: skip
    ids, targets, document = tensors(examples, [[0, 1]], 10)
    N = IGNORED
    assert ids.tolist() == [[1, 2, 9, 3, 4, 1, 5, 3, 0, 0]]
    assert targets.tolist() == [[N, N, N, 4, 9, N, N, 9, N, N]]
    assert document.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 2, 2]]


@pytest.mark.parametrize("position", ["rope", "alibi", "none"])
def test_a_conversation_costs_in_a_row_what_it_costs_alone(position):
    """If one saw the other, its answers would be learned with words that nobody said to it."""
    examples, gpt = made(), made_gpt(position=position, context_length=T)
    for row in best_fit(examples.lengths.tolist(), range(len(examples)), T):
        ids, targets, document = tensors(examples, [row], T)
        together = gpt(ids, targets, document=document).sum()
        alone = sum(gpt(i, t).sum() for i, t, _ in (tensors(examples, [[d]], T) for d in row))
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


# --- batches ------------------------------------------------------------------------------------------------------


def conversations_of(batch) -> list[int]:
    """The first token of each conversation in a batch, which is its number."""
    begins = torch.ones_like(batch.ids, dtype=torch.bool)
    begins[:, 1:] = batch.document[:, 1:] != batch.document[:, :-1]
    learned = torch.zeros_like(begins)
    for b, document in enumerate(batch.document):
        for d in document.unique():
            learned[b] |= (document == d) & (batch.targets[b][document == d] != IGNORED).any()
    return batch.ids[begins & learned].tolist()


def test_every_epoch_has_every_conversation_once_and_in_another_order():
    """A conversation that is always packed with the same others is a smaller set of data."""
    loader = rows(batch_size=1)
    epochs = []
    for epoch in range(3):
        seen = []
        while loader.place[0] == epoch:
            seen += conversations_of(next(loader))
        epochs.append(seen)
    assert [sorted(seen) for seen in epochs] == [list(range(30))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_no_row_is_without_a_target(text):
    """The mean over none is NaN."""
    for batch in islice(rows(text=text, replay=0.25), 50):
        assert (batch.targets != IGNORED).any(dim=1).all()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_go_on_where_they_were_left(text, accumulate):
    """At any batch, also in the middle of a step: the same rows, the same windows of text, the same divisor."""
    settings = {"text": text, "replay": 0.3, "accumulate": accumulate}
    whole = list(islice(rows(**settings), 40))
    for stop in (1, 2, 7, 20, 33):
        first = rows(**settings)
        for _ in range(stop):
            next(first)
        state = first.state_dict()
        for _ in range(2):
            next(first)  # who reads ahead goes back: the plan of a later step must be forgotten
        for again in (rows(**settings), first):
            again.load_state_dict(state)
            assert all(map(same, islice(again, 7), whole[stop:]))


def test_processes_share_the_rows_of_one(text):
    """Two processes see together what one would see, and divide by the same number."""
    settings = {"text": text, "replay": 0.25, "accumulate": 2}
    alone, pair = rows(**settings), [rows(**settings, shared=(rank, 2)) for rank in (0, 1)]
    for _ in range(20):
        whole, parts = next(alone), [next(part) for part in pair]
        for rank, part in enumerate(parts):
            assert torch.equal(part.ids, whole.ids[rank::2]) and torch.equal(part.targets, whole.targets[rank::2])
            torch.testing.assert_close(2 * part.n_targets, whole.n_targets)
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared by 3"):
        rows(shared=(0, 3))


@pytest.mark.parametrize(("batch_size", "replay", "of_100"), [(8, 0.1, 80), (4, 0.25, 100), (1, 0.5, 50), (8, 0.0, 0)])
def test_so_many_rows_are_replayed(text, batch_size, replay, of_100):
    """A share of all rows, also where it is less than one row of a batch; text is learned whole."""
    batches = list(islice(rows(batch_size=batch_size, text=text, replay=replay), 100))
    whole = [(batch.targets != IGNORED).all(dim=1) & (batch.document == 0).all(dim=1) for batch in batches]
    assert int(sum(row.sum() for row in whole)) == of_100
    windows = torch.cat([batch.ids[row] for batch, row in zip(batches, whole, strict=True)])
    assert of_100 == 0 or (windows[:, 1:] == (windows[:, :-1] + 1) % VOCAB).all()


# --- the divisor --------------------------------------------------------------------------------------------------


def gradient_of_a_step(accumulate: int, world: int) -> torch.Tensor:
    """Of the same 8 rows, in micro-batches, as `fit` and DDP add them up."""
    gpt = made_gpt(context_length=T)
    for rank in range(world):
        loader = rows(batch_size=8 // accumulate, accumulate=accumulate, shared=(rank, world))
        for batch in islice(loader, accumulate):
            (answer_tokens(gpt, batch).value / accumulate / world).backward()
    return gpt.blocks[0].mlp.up_proj.weight.grad


@pytest.mark.parametrize(("accumulate", "world"), [(2, 1), (8, 1), (1, 2), (2, 4)])
def test_a_step_in_parts_is_the_whole_step(accumulate, world):
    """Micro-batches hold unequal numbers of targets: the mean of their means is another gradient, by some percent."""
    whole = gradient_of_a_step(1, 1)
    # the divisor is float32, as all that travels in a batch
    torch.testing.assert_close(gradient_of_a_step(accumulate, world), whole, rtol=1e-6, atol=1e-9)


def test_the_loss_is_the_mean_over_all_targets_of_the_step():
    """Beside torch's own cross-entropy on the same logits."""
    gpt, batch = made_gpt(context_length=T), next(rows(batch_size=8))
    logits = gpt(batch.ids, document=batch.document)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
    loss = answer_tokens(gpt, batch)
    torch.testing.assert_close(loss.value.double(), expected, rtol=1e-6, atol=0)
    assert loss.metrics["loss"] == loss.value


def test_held_out_conversations_are_asked_once_in_order():
    """The figure that is quoted is over all of them."""
    batches = list(held_out_batches(made(), 4, T))
    assert sorted(d for batch in batches for d in conversations_of(batch)) == list(range(30))
    assert all(len(batch.ids) == 4 for batch in batches[:-1])
