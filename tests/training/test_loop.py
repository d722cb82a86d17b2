"""`fit`, on a stage so small that every case takes milliseconds: fit a line to points."""

import math
import os
import signal
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minigpt import presets
from minigpt.batches.loader import Batch
from minigpt.batches.prefetch import Prefetch
from minigpt.optim.groups import build_optimizer
from minigpt.runtime import checkpoint as files
from minigpt.runtime.distributed import Group
from minigpt.runtime.logbook import read_events
from minigpt.runtime.precision import LossScaler
from minigpt.training import loop
from minigpt.training.config import TrainConfig
from minigpt.training.loop import Stopped, fit
from minigpt.training.stage import Loss, Stage

ALONE = Group(0, 1, torch.device("cpu"))


class Points:
    """An endless, resumable stream: batch n is a function of n."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(self.position))  # (B, T)
        return Batch(x, x @ torch.tensor([1.0, -2.0, 3.0]), None)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]

    def close(self):
        pass


def squared_error(model, batch, dropout=0.1):
    noisy = nn.functional.dropout(batch.ids, dropout)  # draws from the global stream, as a model's dropout does
    value = (model(noisy).squeeze(-1) - batch.targets).square().mean()
    return Loss(value, {"loss": value.detach()})


def no_scores(model, limit):
    return {"loss": 0.0, "perplexity": 1.0, "bits_per_byte": 0.0, "all": float(limit is None)}


def make(folder, objective=squared_error, resume_from=None, **train):
    """(stage, optimizer, run) of a fresh line, or of the one in a checkpoint."""
    run = presets.quick()
    run = replace(run, out_dir=str(folder), optim=replace(run.optim, lr=0.05, warmup_steps=2),
                  train=TrainConfig(**{"max_steps": 20, "eval_every": 10, "save_every": 5, "sample_every": 0, **train}))
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    if resume_from:
        model.load_state_dict(files.load_tensors(resume_from / "model.safetensors"))
    stage = Stage(model, Points(), objective, no_scores,
                  lambda aside: files.save_tensors(aside / "model.safetensors", model.state_dict()))
    return stage, build_optimizer(model, run.optim), run


def train(folder, objective=squared_error, resume_from=None, scaler=None, **settings):
    stage, optimizer, run = make(folder, objective, resume_from, **settings)
    folder.mkdir(exist_ok=True)
    scaler = scaler or LossScaler(enabled=False)
    return fit(stage, optimizer, run, ALONE, scaler=scaler, resume_from=resume_from), stage.model


def fails_at(step, action, objective=squared_error):
    """An objective that does something else at one call (counted from 1)."""
    calls = [0]

    def wrapped(model, batch):
        calls[0] += 1
        loss = objective(model, batch)
        return action(loss) if calls[0] == step else loss

    return wrapped


def weights(folder):
    return files.file_digest(folder / "model.safetensors")


def test_it_learns(tmp_path):
    """The line 1, -2, 3 is found; every step is in the logbook once, in order."""
    progress, model = train(tmp_path / "a", partial(squared_error, dropout=0.0), max_steps=300, accumulate=2)
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, -2.0, 3.0]]), atol=0.1, rtol=0)
    events = [event for event in read_events(tmp_path / "a") if event["split"] == "train"]
    assert [event["step"] for event in events] == list(range(1, 301))
    assert progress.tokens == 300 * 2 * 8 * 3


@pytest.mark.parametrize("stop_at", [1, 7, 10, 19])
def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path, stop_at):
    """Ctrl+C after any step, then the same line again: the same final weights, and the same log."""
    train(tmp_path / "whole")

    def ctrl_c(loss):
        os.kill(os.getpid(), signal.SIGINT)
        return loss

    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "cut", fails_at(stop_at, ctrl_c))
    assert stopped.value.status == 130
    newest = files.newest_whole(tmp_path / "cut")
    assert files.step_of(newest) == stop_at
    train(tmp_path / "cut", resume_from=newest)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    losses = [[e["loss"] for e in read_events(tmp_path / name) if e["split"] == "train"] for name in ("cut", "whole")]
    assert losses[0] == losses[1]


def test_a_crash_between_two_checkpoints_loses_only_what_can_be_done_again(tmp_path):
    """An exception stands for kill -9 here: nothing is saved on the way out."""
    train(tmp_path / "whole")

    def crash(loss):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", fails_at(13, crash))
    newest = files.newest_whole(tmp_path / "cut")
    assert files.step_of(newest) == 10
    train(tmp_path / "cut", resume_from=newest)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_sigterm_saves_too_and_says_143(tmp_path):
    """What a cluster sends before it takes the machine away."""

    def terminate(loss):
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "a", fails_at(3, terminate))
    assert stopped.value.status == 143
    assert files.step_of(files.newest_whole(tmp_path / "a")) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_moves_nothing(tmp_path, bad):
    """One bad batch must not turn every weight into NaN; it is counted, and training goes on."""
    before = []

    def spoil(loss):
        before.append(stage.model.weight.detach().clone())
        return Loss(loss.value * bad, {"loss": loss.metrics["loss"] * bad})

    stage, optimizer, run = make(tmp_path, fails_at(5, spoil))
    next_step = fails_at(6, lambda loss: (before.append(stage.model.weight.detach().clone()), loss)[1], stage.objective)
    progress = fit(stage._replace(objective=next_step), optimizer, run, ALONE, scaler=LossScaler(enabled=False))
    assert torch.equal(before[0], before[1])
    assert progress.skipped == 1 and progress.bad_in_a_row == 0
    assert torch.isfinite(stage.model.weight).all()


def test_training_that_has_diverged_stops_with_advice(tmp_path):
    """Hours of NaN help nobody; the checkpoint from before is named."""

    def always_bad(model, batch):
        loss = squared_error(model, batch)
        return Loss(loss.value * math.nan, {"loss": math.nan})

    with pytest.raises(ValueError, match=r"not finite for 4 steps in a row, up to step 4 .* --lr"):
        train(tmp_path / "a", always_bad, max_bad_steps=4)


def test_a_float16_overflow_shrinks_the_scale_and_is_no_divergence(tmp_path):
    """The scaler looks for the largest scale that does not overflow: overflows are how it finds it."""
    scaler = LossScaler(enabled=True)
    scale = float(scaler.scale(torch.tensor(1.0)))

    def overflow(loss):
        return Loss(loss.value * math.inf, loss.metrics)

    progress, model = train(tmp_path / "a", fails_at(2, overflow), scaler=scaler)
    assert torch.isfinite(model.weight).all()
    assert float(scaler.scale(torch.tensor(1.0))) < scale
    assert progress.bad_in_a_row == 0


def test_the_last_look_takes_all_held_out_text(tmp_path):
    """Between steps a short look is enough; the figure that is quoted is the whole one."""
    train(tmp_path / "a")
    looks = [(event["step"], event["split"], event["all"]) for event in read_events(tmp_path / "a") if "all" in event]
    assert looks == [(10, "val", 0.0), (20, "final", 1.0)]


def test_each_second_counts_once_and_is_charged_to_what_took_it(tmp_path, monkeypatch):
    """A step of 1 second, a look of 10, a sample of 100, a checkpoint of 1000: 24 tokens a second, also after a look.

    What is saved with a checkpoint is the time until then.
    """
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(loop, "time", clock)

    def slowly(seconds, result=None):
        clock.now += seconds
        return result

    stage, optimizer, run = make(tmp_path, max_steps=4, eval_every=2, save_every=2, sample_every=2)
    inner = stage.save
    stage = stage._replace(objective=lambda model, batch: slowly(1, squared_error(model, batch)),
                           evaluate=lambda model, limit: slowly(10, {"loss": 0.0}),
                           save=lambda folder: slowly(1000, inner(folder)))  # fmt: skip
    progress = fit(stage, optimizer, run, ALONE, scaler=LossScaler(enabled=False), sample=lambda: slowly(100, ""))
    assert [event["tok_per_s"] for event in read_events(tmp_path) if event["split"] == "train"] == [24.0] * 4
    assert progress.seconds == 4 * 1 + 2 * (10 + 100 + 1000)
    assert loop.read_state(tmp_path / "checkpoint-4")["progress"]["seconds"] == progress.seconds - 1000


def test_the_wait_for_batches_is_logged(tmp_path, monkeypatch):
    """Whoever waits half of the time does not need a faster model, but faster batches."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(loop, "time", clock)

    class SlowPoints(Points):
        def __next__(self):
            clock.now += 3
            return super().__next__()

    stage, optimizer, run = make(tmp_path, max_steps=2, accumulate=2)
    fit(stage._replace(batches=SlowPoints()), optimizer, run, ALONE, scaler=LossScaler(enabled=False))
    events = [event for event in read_events(tmp_path) if event["split"] == "train"]
    assert [(event["waited"], event["tok_per_s"]) for event in events] == [(6.0, 8.0), (6.0, 8.0)]


def test_batches_are_not_read_ahead_once_it_has_ended(tmp_path):
    """Stages follow one another in one process: a thread that stays keeps the batches of each, and its files open."""
    before = set(threading.enumerate())
    stage, optimizer, run = make(tmp_path, objective=fails_at(3, lambda loss: 1 / 0), max_steps=9)
    with pytest.raises(ZeroDivisionError):
        fit(stage._replace(batches=Prefetch(stage.batches)), optimizer, run, ALONE, scaler=LossScaler(enabled=False))
    assert set(threading.enumerate()) <= before


def test_a_stage_may_have_scores_of_its_own(tmp_path, capsys):
    """A reward model has an accuracy and no perplexity; each score is shown, and goes to the logbook."""
    stage, optimizer, run = make(tmp_path, max_steps=2)
    stage = stage._replace(evaluate=lambda model, limit: {"accuracy": 0.75, "kl_per_token": 0.01})
    fit(stage, optimizer, run, ALONE, scaler=LossScaler(enabled=False))
    assert "accuracy 0.75, kl per token 0.01" in capsys.readouterr().err
    assert read_events(tmp_path)[-1]["accuracy"] == 0.75


def test_another_machine_is_said(tmp_path, capsys):
    """Bit for bit holds on the same machine, threads and torch only: a difference must not pass in silence."""
    train(tmp_path / "a", max_steps=5)
    state = files.read_json(tmp_path / "a" / "checkpoint-5" / "state" / "trainer.json")
    state["environment"]["threads"] = "64"
    files.write_json(tmp_path / "a" / "checkpoint-5" / "state" / "trainer.json", state)
    train(tmp_path / "a", resume_from=tmp_path / "a" / "checkpoint-5", max_steps=6)
    assert "threads was 64, is" in capsys.readouterr().err
