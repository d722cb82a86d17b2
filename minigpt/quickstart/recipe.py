"""The stages of the recipe: what each does, and the one figure that it is judged by.

Each is a function from the settings to its row of the table. What it makes has a place of its own, by which the stage
is known to be finished; the training stages are runs like any other, with checkpoints on the way.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from minigpt.alignment.config import PairsConfig
from minigpt.completion import preview
from minigpt.compress.command import compress_run
from minigpt.compress.config import CompressConfig
from minigpt.compress.folder import is_compressed
from minigpt.corpus.config import CorpusConfig
from minigpt.model.gpt import parameter_count
from minigpt.model.pretrained import read_config
from minigpt.presets import dpo, quick, sft
from minigpt.quickstart.config import QuickstartConfig
from minigpt.quickstart.exam import examine
from minigpt.runtime.checkpoint import write_json
from minigpt.runtime.console import say
from minigpt.runtime.logbook import last_scores
from minigpt.training.config import RunConfig, TrainConfig
from minigpt.training.pretrain import init_shape, prepare_data
from minigpt.training.run import machine, train
from minigpt.training.run_folder import DATA, discard
from minigpt.training.stage import Metrics

# Of the chosen answers' own loss, which keeps them likely. 120 steps with 0.5 win 80 %, and cost 8 of a hundred right
# answers in the exam, which asks for more than pairs do; with 2 they win 76 % and cost 2.
CHOSEN_WEIGHT = 2.0


class Row(NamedTuple):
    did: str     # what was done, in numbers
    figure: str  # how good it is


class Stage(NamedTuple):
    makes: str  # the file or folder, within --out-dir, that is there when the stage is finished
    do: Callable[[QuickstartConfig], Row]


# --- the training stages, as runs of the presets ------------------------------------------------------------------


def pretrain_run(wish: QuickstartConfig) -> RunConfig:
    run = quick()
    return replace(
        run,
        out_dir=f"{wish.out_dir}/pretrain",
        machine=wish.machine,
        corpus=CorpusConfig(data=wish.data),
        model=wish.model,
        train=_steps(run.train, wish.pretrain_steps),
    )


def sft_run(wish: QuickstartConfig) -> RunConfig:
    return _going_on(wish, sft(), "pretrain", wish.sft_steps, data="course,styles", examples=wish.examples)


def dpo_run(wish: QuickstartConfig) -> RunConfig:
    run = dpo()
    pairs = PairsConfig(examples=wish.dpo_steps * run.batches.batch_size)  # each once
    return _going_on(wish, run, "sft", wish.dpo_steps, pairs=pairs, chosen_weight=CHOSEN_WEIGHT)


def _going_on(wish: QuickstartConfig, run: RunConfig, from_stage: str, steps: int, **stage: object) -> RunConfig:
    """A preset that begins with what an earlier stage has made; `stage`: what differs in its own settings."""
    base = f"{wish.out_dir}/{from_stage}"
    return replace(
        run,
        out_dir=f"{wish.out_dir}/{run.kind}",
        init=base,
        machine=wish.machine,
        model=init_shape(base),
        train=_steps(run.train, steps),
        stage=replace(run.stage, **stage),
    )


def _steps(train: TrainConfig, steps: int) -> TrainConfig:
    """A look, a checkpoint and a sample after each third."""
    third = -(-steps // 3)
    return replace(train, max_steps=steps, eval_every=third, save_every=third, sample_every=third)


def trained(run: RunConfig) -> Metrics:
    """Train a run to its end, or find it finished; its last scores. Raises: as `train`."""
    with machine(run.machine) as (group, dtype):
        if (done := train(run, group, dtype, preview)) is not None:
            say("\n".join(done.prepared.outcome(last_scores(Path(run.out_dir)))))
    return last_scores(Path(run.out_dir))


# --- the stages ---------------------------------------------------------------------------------------------------


def read_corpus(wish: QuickstartConfig) -> Row:
    """Text, cleaned and split; a tokenizer that is learned from it; both as ids on the disk."""
    run = pretrain_run(wish)
    with machine(run.machine) as (group, _):
        data = prepare_data(run, group)
    xz = data.compressed.get("xz -9e")
    return Row(f"{len(data.train):,} tokens of text, a vocabulary of {data.tokenizer.n_vocab:,}",
               f"xz -9e: {xz:.3f} bits per byte" if xz else "no comparison: the text is too long")  # fmt: skip


def pretrain(wish: QuickstartConfig) -> Row:
    """From nothing to text that looks like Python's own."""
    run = pretrain_run(wish)
    found, size = trained(run), parameter_count(read_config(Path(run.out_dir)))
    return Row(f"{size:,} parameters, {wish.pretrain_steps:,} steps", f"{found['bits_per_byte']:.3f} bits per byte")


def fine_tune(wish: QuickstartConfig) -> Row:
    """From text that goes on to somebody who answers."""
    run = sft_run(wish)
    found = trained(run)
    forgotten = found["bits_per_byte"] - last_scores(Path(run.init))["bits_per_byte"]
    return Row(f"{wish.sft_steps:,} steps on conversations",
               f"perplexity of answers {found['perplexity']:.2f}; text {forgotten:+.3f} bits per byte")  # fmt: skip


def prefer(wish: QuickstartConfig) -> Row:
    """From answers to those that are liked better."""
    found = trained(dpo_run(wish))
    return Row(f"{wish.dpo_steps:,} steps on pairs",
               f"{found['accuracy']:.1%} ranked right (50.0%), {found['gold_win_rate']:.1%} win against before (50.0%)")


def evaluate(wish: QuickstartConfig) -> Row:
    """Held-out questions, judged by rule; all marks go to exam.json."""
    folder = Path(wish.out_dir)
    marks = examine(folder / "dpo", wish.questions, wish.machine)
    say("\n".join(f"  {mark}" for mark in marks))
    write_json(folder / "exam.json", [{"subject": mark.subject, **mark.score._asdict(), "interval": mark.score.interval,
                                       "prior": mark.prior.share} for mark in marks])  # fmt: skip
    python, outside = marks[0].score, marks[2].score
    return Row(f"{sum(mark.score.n for mark in marks):,} held-out questions",
               f"Python {python.share:.1%} right, outside {outside.share:.1%} refused")  # fmt: skip


def shrink(wish: QuickstartConfig) -> Row:
    """A byte for a weight, and integers to compute with."""
    target = Path(wish.out_dir) / "int8"
    if is_compressed(target):  # whole, but killed before it was written down
        shutil.rmtree(target)
    made = compress_run(f"{wish.out_dir}/dpo", CompressConfig(
        weights="int8", out_dir=str(target), threads=wish.machine.threads))  # fmt: skip
    worse = made.after.bits_per_byte - made.before.bits_per_byte
    return Row(f"{made.before.bytes / 1e6:.1f} MB become {made.after.bytes / 1e6:.1f} MB",
               f"{worse:+.4f} bits per byte, {made.after.alone:,.0f} tokens per second")  # fmt: skip


STAGES: dict[str, Stage] = {
    "corpus": Stage(f"pretrain/{DATA}", read_corpus),
    "pretrain": Stage("pretrain/model.safetensors", pretrain),
    "sft": Stage("sft/model.safetensors", fine_tune),
    "dpo": Stage("dpo/model.safetensors", prefer),
    "exam": Stage("exam.json", evaluate),
    "int8": Stage("int8", shrink),
}


def discard_all(folder: Path) -> None:
    """What the stages have made; other files stay."""
    for name in ("pretrain", "sft", "dpo"):
        discard(folder / name)
    (folder / "exam.json").unlink(missing_ok=True)
    if is_compressed(folder / "int8"):
        shutil.rmtree(folder / "int8")
