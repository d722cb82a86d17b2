"""`fit`: the only training loop in the house."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import nn
from tqdm import tqdm

from minigpt.optim.clip import clip_
from minigpt.optim.groups import Optimizer
from minigpt.optim.schedule import lr_at
from minigpt.runtime import checkpoint as files
from minigpt.runtime.console import say
from minigpt.runtime.device import environment, peak_memory
from minigpt.runtime.distributed import Group
from minigpt.runtime.interrupt import Interrupt
from minigpt.runtime.logbook import Logbook
from minigpt.runtime.precision import LossScaler
from minigpt.runtime.seeding import seed_step
from minigpt.training.config import RunConfig
from minigpt.training.stage import Metrics, Stage, to_device

SCORES = {"loss": "held-out loss {:.4f}", "perplexity": "perplexity {:.2f}", "bits_per_byte": "{:.3f} bits per byte"}


@dataclass
class Progress:
    """How far a run has come. Together with the weights, the optimizer and the loader it is all that a run is."""

    step: int = 0          # steps taken
    tokens: int = 0        # tokens seen, over all processes
    skipped: int = 0       # steps without an update, because the loss or the gradient was not finite
    bad_in_a_row: int = 0  # how many of those came last, one after the other
    seconds: float = 0.0   # spent in this loop

    def count(self, tokens: int, good: bool) -> None:
        """One more step. A float16 overflow that a smaller loss scale can cure is no bad sign (`good`)."""
        self.step += 1
        self.tokens += tokens
        self.skipped += not good
        self.bad_in_a_row = 0 if good else self.bad_in_a_row + 1


class Stopped(Exception):
    """A signal asked the run to stop, and everything is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.status = 128 + signal  # the shell's convention: 130 for Ctrl+C, 143 for SIGTERM


def fit(
    stage: Stage,
    optimizer: Optimizer,
    run: RunConfig,
    group: Group,
    *,
    scaler: LossScaler,
    resume_from: Path | None = None,
    sample: Callable[[], str] | None = None,
) -> Progress:
    """Train `stage.model` until `run.train.max_steps`; save, evaluate and sample on the way.

    The same settings give the same weights, to the last bit on a CPU, however often the run was stopped or killed in
    between: data order, randomness and learning rate are functions of the step, and the rest is in the checkpoint.
    Raises: Stopped after a signal, with everything saved; ValueError when training has diverged.
    """
    config, folder = run.train, Path(run.out_dir)
    progress = load_state(resume_from, stage, optimizer, scaler, group.device) if resume_from else Progress()
    log = Logbook(folder, after_step=progress.step, enabled=group.is_main)
    model = group.wrap(stage.model)
    bar = _Bar(config.max_steps, progress, hidden=not group.is_main)
    with Interrupt() as interrupt, bar, closing(stage.batches):
        while progress.step < config.max_steps:
            seed_step(run.machine.seed, progress.step, group.rank)
            lr = lr_at(progress.step, run.optim, config.max_steps)
            optimizer.set_lr(lr)
            tokens, metrics, waited = _accumulate_gradients(model, stage, config.accumulate, scaler, group)
            grad_norm, updated = _update(optimizer, scaler, run.optim.clip_norm, metrics["loss"])
            progress.count(tokens * group.world, updated or scaler.may_shrink)
            speed = bar.advance(progress, metrics["loss"])
            log.record(progress.step, "train", **metrics, lr=lr, grad_norm=grad_norm, tokens=progress.tokens,
                       tok_per_s=speed, waited=waited)  # fmt: skip

            if progress.bad_in_a_row >= config.max_bad_steps:
                raise ValueError(_diverged(progress, folder, lr))
            last, stop = progress.step == config.max_steps, group.most(interrupt.signal)
            if last or progress.step % config.eval_every == 0:
                scores = stage.evaluate(stage.model, None if last else config.eval_batches)
                log.record(progress.step, "final" if last else "val", **scores, **peak_memory(group.device))
                bar.write(_score_line(progress.step, metrics["loss"], scores))
            if sample and config.sample_every and progress.step % config.sample_every == 0 and group.is_main:
                bar.write(_framed(sample()))
            if group.is_main and (last or stop or progress.step % config.save_every == 0):
                bar.charge(progress)  # what was saved knows the time of the look before it
                save_state(folder, stage, optimizer, scaler, progress, group.device)
            bar.charge(progress)
            if stop and not last:
                raise Stopped(stop)
    return progress


def _update(optimizer: Optimizer, scaler: LossScaler, clip_norm: float, loss: float) -> tuple[float, bool]:
    """One optimizer step from the gradients that are there, unless they or the loss are not finite."""
    overflow = scaler.unscale_(optimizer.parameters())
    grad_norm = float(clip_(optimizer.parameters(), clip_norm))
    finite = math.isfinite(grad_norm) and math.isfinite(loss)
    if finite:
        optimizer.step()
    scaler.update(overflow)
    optimizer.zero_grad()
    return grad_norm, finite


def _accumulate_gradients(
    model: nn.Module, stage: Stage, accumulate: int, scaler: LossScaler, group: Group
) -> tuple[int, Metrics, float]:
    """Backward over the micro-batches of one step.

    Returns the tokens seen here, the group's mean metrics, and the seconds that the batches were waited for: they may
    have to be read first, or written by the model itself.
    """
    tokens, total, waited = 0, {}, 0.0
    for micro in range(accumulate):
        asked = time.monotonic()
        batch = to_device(next(stage.batches), group.device)
        waited += time.monotonic() - asked
        with group.sync_only_if(micro == accumulate - 1, model):
            loss = stage.objective(model, batch)
            scaler.scale(loss.value / accumulate).backward()
        tokens += batch.ids.numel()
        for name, value in loss.metrics.items():
            total[name] = total.get(name, 0.0) + value / accumulate
    return tokens, {name: group.mean(float(value)) for name, value in total.items()}, waited


# --- what a checkpoint holds beside the weights -------------------------------------------------------------------


def save_state(
    folder: Path, stage: Stage, optimizer: Optimizer, scaler: LossScaler, progress: Progress, device: torch.device
) -> None:
    """Write `checkpoint-<step>/` whole or not at all, then show its weights at the top of the run folder."""

    def write(aside: Path) -> None:
        stage.save(aside)
        (aside / "state").mkdir()
        files.save_tensors(aside / "state" / "optimizer.safetensors", optimizer.state_dict())
        files.write_json(aside / "state" / "trainer.json", {
            "progress": asdict(progress), "loader": stage.batches.state_dict(), "scaler": scaler.state_dict(),
            "environment": environment(device),
        })  # fmt: skip

    files.publish(files.save_checkpoint(folder, progress.step, write), folder)


def load_state(
    checkpoint: Path, stage: Stage, optimizer: Optimizer, scaler: LossScaler, device: torch.device
) -> Progress:
    """Bring optimizer, loader and scaler to where `checkpoint` left them. (The weights came with the model.)"""
    state = read_state(checkpoint)
    optimizer.load_state_dict(files.load_tensors(checkpoint / "state" / "optimizer.safetensors", device))
    stage.batches.load_state_dict(state["loader"])
    scaler.load_state_dict(state["scaler"])
    for name, now in environment(device).items():
        if state["environment"].get(name) != now:
            say(f"note: {name} was {state['environment'].get(name)}, is {now}: the run goes on, but not bit for bit")
    return Progress(**state["progress"])


def read_state(checkpoint: Path) -> dict:
    """state/trainer.json: progress, loader, scaler, environment."""
    return files.read_json(checkpoint / "state" / "trainer.json")


# --- what the person sees -----------------------------------------------------------------------------------------


class _Bar:
    """What moves on the terminal while a model trains: steps, loss, tokens per second, time left."""

    def __init__(self, max_steps: int, progress: Progress, hidden: bool) -> None:
        patience = 0.5 if sys.stderr.isatty() else 10.0  # seconds between two lines; a log file wants fewer
        self.bar = tqdm(total=max_steps, initial=progress.step, unit="step", dynamic_ncols=True, smoothing=0.1,
                        disable=hidden, mininterval=patience)  # fmt: skip
        self.clock, self.loss, self.speed = time.monotonic(), math.nan, math.nan

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()

    def advance(self, progress: Progress, loss: float) -> float:
        """One step on; returns tokens per second of that step. The bar shows means over the last ten or so."""
        speed = progress.tokens / progress.step / self.charge(progress)
        self.loss, self.speed = _smooth(self.loss, loss), _smooth(self.speed, speed)
        self.bar.set_postfix_str(f"loss {self.loss:.3f}, {self.speed:,.0f} tok/s", refresh=False)
        self.bar.update()
        return speed

    def charge(self, progress: Progress) -> float:
        """The seconds since the last call, which are added to the run's."""
        now = time.monotonic()
        elapsed, self.clock = now - self.clock, now
        progress.seconds += elapsed
        return elapsed

    def write(self, text: str) -> None:
        """A line above the bar, from the one process that shows one."""
        if not self.bar.disable:
            self.bar.write(text, file=sys.stderr)


def _smooth(mean: float, value: float) -> float:
    """A running mean over about ten values; begins with the first, and begins again after a NaN."""
    return value if math.isnan(mean) else mean + (value - mean) / 10


def _score_line(step: int, train_loss: float, scores: Metrics) -> str:
    """All scores of a stage, those that every stage may have in their usual words."""
    words = [SCORES.get(name, f"{name.replace('_', ' ')} {{:.4g}}").format(value) for name, value in scores.items()]
    return ", ".join([f"step {step}: train loss {train_loss:.3f}", *words])


def _framed(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())


def _diverged(progress: Progress, folder: Path, lr: float) -> str:
    kept = [files.step_of(path) for path in files.checkpoints(folder)]
    return (
        f"training has diverged: loss or gradient was not finite for {progress.bad_in_a_row} steps in a row, up to "
        f"step {progress.step} at lr {lr:.2g}. The newest checkpoint is of step {max(kept, default=0)}. A smaller "
        f"--lr, a longer --warmup-steps or --dtype float32 usually helps, in a new --out-dir or with --overwrite."
    )
