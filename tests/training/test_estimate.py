"""Will it fit into memory?"""

from dataclasses import replace

import pytest
import torch
from counted_bytes import counted_bytes

from minigpt import presets
from minigpt.batches.loader import Batch
from minigpt.model.gpt import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.training.estimate import memory_estimate, standing
from minigpt.training.pretrain import next_token
from minigpt.training.stage import Prepared, Stage


@pytest.fixture
def prepared():
    """`quick`, cut short, without its data."""

    def make(**optim):
        run = presets.quick()
        run = replace(run, model=replace(run.model, n_layer=2), optim=replace(run.optim, **optim))
        gpt = GPT(run.model)
        stage = Stage(gpt, None, next_token, None, None)
        return run, Prepared(stage, gpt, gpt, Tokenizer.bytes_only(), [], "", None, lambda scores: [], "")

    return make


def a_batch(run, rows):
    ids = torch.randint(0, run.model.vocab_size, (rows, run.model.context_length))  # (B, T)
    return Batch(ids, ids, None)


@pytest.mark.parametrize(("optimizer", "slack"), [("adamw", 0.0), ("muon", 0.1)])
def test_what_stands_in_memory_is_what_a_step_holds(prepared, optimizer, slack):
    """Weights, gradients and moments. Muon's share of the matrices differs from shape to shape."""
    run, made = prepared(optimizer=optimizer)
    counted, _ = counted_bytes(made, run, a_batch(run, 1))
    assert standing(made, run.optim, torch.float32) == pytest.approx(counted, rel=slack)


def test_frozen_weights_have_neither_gradient_nor_moments(prepared):
    """Whether they stand beside the model that learns, or within it."""
    run, made = prepared(optimizer="adamw")
    made.gpt.blocks[0].requires_grad_(False)
    made = made._replace(frozen=(GPT(run.model).requires_grad_(False),))
    counted, _ = counted_bytes(made, run, a_batch(run, 1))
    assert standing(made, run.optim, torch.float32) == counted


def test_the_estimate_is_within_a_third_of_what_was_counted(prepared):
    """With all that autograd keeps; half of it for each of two processes."""
    run, made = prepared(optimizer="adamw")
    counted = sum(counted_bytes(made, run, a_batch(run, run.batches.batch_size)))
    estimate = memory_estimate(made, run, torch.float32, world=1)
    assert estimate == pytest.approx(counted, rel=1 / 3)
    standing_bytes = standing(made, run.optim, torch.float32)
    assert memory_estimate(made, run, torch.float32, world=2) - standing_bytes == (estimate - standing_bytes) / 2
