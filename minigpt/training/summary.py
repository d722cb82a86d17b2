"""What a person reads before a run, after it, and when it stopped on the way."""

import shlex
import sys
from pathlib import Path

from minigpt.model.gpt import GPT
from minigpt.model.pretrained import export_problem
from minigpt.runtime import device
from minigpt.runtime.distributed import Group
from minigpt.runtime.logbook import read_events
from minigpt.training.config import RunConfig
from minigpt.training.estimate import memory_estimate
from minigpt.training.loop import Progress, read_state
from minigpt.training.pretrain import Data

GB = 1e9


def before(run: RunConfig, gpt: GPT, data: Data, dtype: str, group: Group) -> str:
    """What will be trained on what, where, and whether it will fit."""
    config = gpt.config
    n_params = sum(parameter.numel() for parameter in gpt.parameters())
    per_step = run.batches.batch_size * run.train.accumulate * config.context_length
    total = per_step * run.train.max_steps
    lines = [
        f"model     {n_params:,} parameters: {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"vocabulary {config.vocab_size:,}, context {config.context_length}",
        f"data      {len(data.train):,} tokens to learn from, {len(data.val):,} held out ({run.corpus.data})",
        f"run       {run.train.max_steps:,} steps of {per_step:,} tokens, "
        f"{total / len(data.train):.1f} times the data, into {run.out_dir}",
        f"machine   {group.device}, {dtype}, {group.world} process{'es' * (group.world > 1)}, "
        f"{device.set_threads(None)} threads",
        _memory(memory_estimate(gpt, run, dtype, group.world), device.free_memory(group.device)),
    ]
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


def after(run: RunConfig, progress: Progress, data: Data) -> str:
    """The last scores, beside what general compressors need for the same text, and what to type next."""
    final = [event for event in read_events(Path(run.out_dir)) if event["split"] == "final"][-1]
    rivals = "".join(f"    {name} {bits:.3f}" for name, bits in data.compressed.items() if name != "bytes")
    longer = f"python train.py{_arguments('--overwrite', '--max-steps')} --max-steps {2 * run.train.max_steps}"
    lines = [
        "",
        f"done: {progress.step:,} steps, {progress.tokens:,} tokens, {progress.seconds / 60:.1f} minutes"
        + (f", {progress.skipped} steps skipped (not finite)" if progress.skipped else ""),
        f"held-out text: loss {final['loss']:.4f} nats per token, perplexity {final['perplexity']:.2f}",
        f"  bits per byte    this model {final['bits_per_byte']:.3f}{rivals}",
        "",
        "next:",
        f"  python sample.py --run {run.out_dir} --prompt \"def \"",
        f"  {longer}     to train on",
        f"  python -m minigpt report {run.out_dir}     to see the curves",
    ]  # fmt: skip
    return "\n".join(lines)


def is_finished(run: RunConfig, checkpoint: Path | None) -> bool:
    return checkpoint is not None and read_state(checkpoint)["progress"]["step"] >= run.train.max_steps


def already_finished(run: RunConfig) -> str:
    return (
        f"{run.out_dir} has finished its {run.train.max_steps:,} steps. To train on: --max-steps "
        f"{2 * run.train.max_steps}; to begin again: --overwrite; to let it write: python sample.py --run {run.out_dir}"
    )


def how_to_resume(run: RunConfig) -> str:
    return f"saved in {run.out_dir}. The same line goes on from here: python train.py{_arguments('--overwrite')}"


def _arguments(*without: str) -> str:
    """This process's own command line, less what must not be repeated."""
    kept, skipping = [], False
    for argument in sys.argv[1:]:
        flag = argument.startswith("--")
        skipping = argument.partition("=")[0].replace("_", "-") in without if flag else skipping
        if not skipping:
            kept.append(argument)
    return "".join(f" {shlex.quote(argument)}" for argument in kept)
