"""What a person reads before a run, after it, and when it stopped on the way."""

import shlex
import sys
from pathlib import Path

import torch

from minigpt.model.pretrained import export_problem
from minigpt.runtime import device
from minigpt.runtime.distributed import Group, launcher
from minigpt.runtime.logbook import last_scores
from minigpt.training.config import RunConfig
from minigpt.training.estimate import memory_estimate
from minigpt.training.loop import Progress, read_state
from minigpt.training.stage import Prepared

GB = 1e9


def before(run: RunConfig, prepared: Prepared, dtype: torch.dtype, group: Group) -> str:
    """What will be trained on what, where, and whether it will fit."""
    config = prepared.gpt.config
    parameters = list(prepared.trained.parameters())
    n_params, n_trained = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    n_rows = run.batches.batch_size * run.train.accumulate
    per_step = n_rows * config.context_length
    step = f"{n_rows:,} {prepared.rows}" if prepared.rows else f"{per_step:,} tokens"
    total = per_step * run.train.max_steps
    passes = f", {total / prepared.epoch_tokens:.1f} times the data" if prepared.epoch_tokens else ""
    lines = [
        f"model     {n_params:,} parameters: {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"vocabulary {config.vocab_size:,}, context {config.context_length}",
        f"data      {prepared.material}",
        f"run       {run.train.max_steps:,} steps of {step}{passes}, into {run.out_dir}",
        f"machine   {group.device}, {dtype}, {group.world} process{'es' * (group.world > 1)}, "
        f"{device.set_threads(None)} threads",
        _memory(memory_estimate(prepared, run, dtype, group.world), device.free_memory(group.device)),
    ]
    if n_trained < n_params:
        lines.insert(1, f"trained   {n_trained:,} parameters of these, {n_trained / n_params:.2%}")
    if problem := export_problem(config):
        lines.append(f"export    this shape cannot be opened by transformers: {problem}")
    return "\n".join(lines)


def _memory(needed: int, free: int | None) -> str:
    line = f"memory    about {needed / GB:.1f} GB will be needed"
    if free is None:
        return line
    line += f", {free / GB:.1f} GB are free"
    if needed > free:
        line += ": this may not fit. A smaller --batch-size, --context-length or --n-embd would"
    return line


def after(run: RunConfig, progress: Progress, prepared: Prepared) -> str:
    """The last scores, in the stage's own words, and what to type next."""
    longer = f"{this_line('--max-steps')} --max-steps {2 * run.train.max_steps}"
    lines = [
        "",
        f"done: {progress.step:,} steps, {progress.tokens:,} tokens, {progress.seconds / 60:.1f} minutes"
        + (f", {progress.skipped} steps skipped (not finite)" if progress.skipped else ""),
        *prepared.outcome(last_scores(Path(run.out_dir))),
        *prepared.beside(),
        "",
        "next:",
        f"  {prepared.try_it}",
        f"  {longer}     to train on",
        f"  python -m minigpt report {run.out_dir}     to see the curves",
    ]
    return "\n".join(lines)


def is_finished(run: RunConfig, checkpoint: Path | None) -> bool:
    return checkpoint is not None and read_state(checkpoint)["progress"]["step"] >= run.train.max_steps


def already_finished(run: RunConfig) -> str:
    return (
        f"{run.out_dir} has finished its {run.train.max_steps:,} steps. To train on: --max-steps "
        f"{2 * run.train.max_steps}; to begin again: --overwrite; to let it write: python sample.py --run {run.out_dir}"
    )


def how_to_resume(run: RunConfig) -> str:
    return f"saved in {run.out_dir}. The same line goes on from here: {this_line()}"


def this_line(*without: str, program: str = "train.py") -> str:
    """The line that started this run, as it goes on with it: less what would begin again, and less these flags."""
    dropped, kept, skipping = {"--overwrite", "--resume", *without}, [], False
    for argument in sys.argv[1:]:
        flag = argument.startswith("--")
        skipping = argument.partition("=")[0].replace("_", "-") in dropped if flag else skipping
        if not skipping:
            kept.append(argument)
    return " ".join([launcher(), program, *map(shlex.quote, kept)])
