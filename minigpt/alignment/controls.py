"""What stands beside the scores of a run: the same training without information, and examples to copy.

    FOLDER-shuffled   labels, or the verifier's rewards, handed out by chance
    FOLDER-constant   1 for every answer
    FOLDER-chosen     no pairs: the chosen answers alone, copied in as many steps
    FOLDER-sft        no rewards: one right answer to each problem, copied for as long as the run took

What rises under the first two, too, was not learnt from labels or rewards. The others are what these compete with
wherever right answers are at hand. Each is made by a command, which is told as long as its folder is missing. Whoever
types them in their order reads the scores of all behind the last.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import NamedTuple

from minigpt.alignment.config import RolloutConfig
from minigpt.runtime.checkpoint import newest_whole
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.logbook import last_scores, read_events
from minigpt.training.config import RunConfig
from minigpt.training.loop import read_state
from minigpt.training.stage import Metrics
from minigpt.training.summary import this_line


class Control(NamedTuple):
    """The same run with one other setting."""

    name: str  # what its folder ends with
    about: str
    flag: str
    value: str


SHUFFLED_LABELS = Control("shuffled", "labels drawn by a coin", "--labels", "shuffled")
CHOSEN_ALONE = Control("chosen", "chosen answers copied, nothing compared", "--loss", "none")
SHUFFLED_REWARDS = Control("shuffled", "rewards shuffled", "--reward", "shuffled")
CONSTANT_REWARDS = Control("constant", "rewards constant", "--reward", "constant")

SFT_ROWS = 8      # of a whole context, in a step of the examples' training
SAME_TIME = 0.2   # share by which two times may differ and still be called the same


def told_controls(
    run: RunConfig, controls: Sequence[Control], own: Control | None, gain: Callable[[Metrics], str]
) -> list[str]:
    """A line for each training beside this one: its last scores, or the command that makes it.

    own: the control that this run is. gain: scores in words.
    """
    lines, root = [], _root(run, own)
    if own is not None:
        lines.append(f"  this is a control: {own.about}")
        if root != str(Path(run.out_dir)) and (final := last_scores(Path(root))):
            lines.append(f"  what it controls, {root}: {gain(final)}")
    for control in (control for control in controls if control != own):
        folder = Path(f"{root}-{control.name}")
        if final := last_scores(folder):
            lines.append(f"  control: {control.about}: {gain(final)}")
        else:
            same = this_line("--out-dir", control.flag, *([own.flag] if own else []))
            lines += [f"  control: {control.about}: not run yet:",
                      f"    {same} {control.flag} {control.value} --out-dir {shlex.quote(str(folder))}"]
    return lines


def told_reward_controls(
    run: RunConfig, config: RolloutConfig, before: Metrics, solved: Callable[[Path], Metrics]
) -> list[str]:
    """The same for rewards, and for examples in their place.

    solved: the pass rates of the model in a folder, on the problems of this run.
    """
    controls = (SHUFFLED_REWARDS, CONSTANT_REWARDS)
    own = next((control for control in controls if control.value == config.reward), None)
    return [*_told_examples(run, config, Path(f"{_root(run, own)}-sft"), before, solved),
            *told_controls(run, controls, own, lambda final: _gain(final, before))]  # fmt: skip


def _root(run: RunConfig, own: Control | None) -> str:
    """The folder of what is controlled."""
    folder = str(Path(run.out_dir))
    return folder.removesuffix(f"-{own.name}") if own else folder


def _told_examples(
    run: RunConfig, config: RolloutConfig, folder: Path, before: Metrics, solved: Callable[[Path], Metrics]
) -> list[str]:
    """The same for examples. How fast they are learnt from is guessed at first, and known when they have been."""
    seconds = _seconds(Path(run.out_dir))
    steps = max(1, round(seconds * _tokens_per_second(Path(run.out_dir)) / (SFT_ROWS * run.model.context_length)))
    if last_scores(folder) is None:
        return ["  control: copied examples (SFT on gold), for about the same time: not run yet:",
                f"    {_examples_command(run, config, folder, steps)}"]  # fmt: skip
    took, checkpoint = _seconds(folder), newest_whole(folder)
    lines = [f"  control: copied examples (SFT on gold) for {took / 60:.1f} minutes, this run {seconds / 60:.1f}: "
             f"{_gain(solved(checkpoint), before)}"]  # fmt: skip
    if abs(took / seconds - 1) > SAME_TIME:
        steps = max(1, round(read_state(checkpoint)["progress"]["step"] * seconds / took))
        lines += ["    for the same time:", f"    {_examples_command(run, config, folder, steps)} --overwrite"]
    return lines


def _examples_command(run: RunConfig, config: RolloutConfig, folder: Path, steps: int) -> str:
    machine = [word for one in fields(MachineConfig) if (value := getattr(run.machine, one.name)) != one.default
               for word in (f"--{one.name}", str(value))]  # fmt: skip
    return shlex.join(["python", "train.py", "sft", "--init", run.init, "--data", config.problems, "--replay", "0",
                       "--batch-size", str(SFT_ROWS), "--max-steps", str(steps), "--out-dir", str(folder),
                       *machine])  # fmt: skip


def _gain(scores: Metrics, before: Metrics) -> str:
    return (f"pass@1 {scores['pass@1']:.3f} ± {scores['interval']:.3f} "
            f"({scores['pass@1'] - before['pass@1']:+.3f})")  # fmt: skip


def _seconds(folder: Path) -> float:
    return read_state(newest_whole(folder))["progress"]["seconds"]


def _tokens_per_second(folder: Path) -> float:
    """Of the middle step, less the time in which it waited for its batch: answers are written then."""
    steps = [(event["tokens"] / event["step"], event) for event in read_events(folder) if "waited" in event]
    return median(tokens / (tokens / event["tok_per_s"] - event["waited"]) for tokens, event in steps)
