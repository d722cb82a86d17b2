"""What stands beside the scores of a run: the same training without information, and examples to copy.

    FOLDER-shuffled   labels, or the verifier's rewards, handed out by chance
    FOLDER-constant   1 for every answer
    FOLDER-chosen     no pairs: the chosen answers alone, copied in as many steps
    FOLDER-sft        no rewards: one right answer to each problem, copied for as long as the run took

What rises under the first two, too, was not learnt from labels or rewards. The others are what these compete with
wherever right answers are at hand. Each is made by a command, which is told as long as its folder is missing, or holds
another run. Whoever types them in their order reads the scores of all behind the last.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from minigpt.alignment.config import RolloutConfig
from minigpt.runtime.checkpoint import newest_whole, read_json
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.logbook import last_scores, read_events
from minigpt.training.config import RunConfig
from minigpt.training.loop import read_state
from minigpt.training.recorded import comparable, flat, read_record
from minigpt.training.run_folder import RUN
from minigpt.training.stage import Metrics
from minigpt.training.summary import this_line


class Control(NamedTuple):
    """The same run, but for some settings."""

    name: str  # what its folder ends with
    about: str
    settings: dict[str, Any]


SHUFFLED_LABELS = Control("shuffled", "labels drawn by a coin", {"labels": "shuffled"})
SHUFFLED_REWARDS = Control("shuffled", "rewards shuffled", {"reward": "shuffled"})
CONSTANT_REWARDS = Control("constant", "rewards constant", {"reward": "constant"})

SFT_ROWS = 8      # of a whole context, in a step of the examples' training
SAME_TIME = 0.2   # share by which two times may differ and still be called the same


def chosen_alone(chosen_weight: float) -> Control:
    """Without a loss of the margin there are no labels to smooth, and something must be left to learn from."""
    return Control("chosen", "chosen answers copied, nothing compared",
                   {"loss": "none", "label_smoothing": 0.0, "chosen_weight": chosen_weight or 1.0})  # fmt: skip


def told_controls(
    run: RunConfig, controls: Sequence[Control], own: Control | None, gain: Callable[[Metrics], str]
) -> list[str]:
    """A line for each training beside this one: its last scores, or the command that makes it.

    own: the control that this run is. gain: scores in words.
    """
    lines, root, replaced = [], _root(run, own), own.settings if own else {}
    # what this run has in common with what it controls, or with its controls; the values that it replaced are not known
    same = {name: value for name, value in comparable(read_record(run.out_dir)).items() if name not in replaced}
    if own is not None:
        lines.append(f"  this is a control: {own.about}")
        if root != str(Path(run.out_dir)) and (final := _scores(Path(root), same)):
            lines.append(f"  what it controls, {root}: {gain(final)}")
    for control in (control for control in controls if control != own):
        folder = Path(f"{root}-{control.name}")
        if final := _scores(folder, same | control.settings):
            lines.append(f"  control: {control.about}: {gain(final)}")
        elif replaced.keys() <= control.settings.keys():
            lines += _not_yet(control.about, _line(control, folder), folder, same | control.settings)
        else:
            lines.append(f"  control: {control.about}: not run yet; the line stands behind the scores of {root}")
    return lines


def _line(control: Control, folder: Path) -> str:
    flags = {f"--{name.replace('_', '-')}": str(value) for name, value in control.settings.items()}
    words = [word for flag, value in flags.items() for word in (flag, value)]
    return f"{this_line('--out-dir', *flags)} {shlex.join([*words, '--out-dir', str(folder)])}"


def told_reward_controls(
    run: RunConfig, config: RolloutConfig, before: Metrics, solved: Callable[[Path], Metrics]
) -> list[str]:
    """The same for rewards, and for examples in their place.

    solved: the pass rates of the model in a folder, on the problems of this run.
    """
    controls = (SHUFFLED_REWARDS, CONSTANT_REWARDS)
    own = next((control for control in controls if control.settings["reward"] == config.reward), None)
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
    wanted = {"kind": "sft", "init": run.init, "data": config.problems, "replay": 0.0, "batch_size": SFT_ROWS}
    if _scores(folder, wanted) is None:
        return _not_yet("copied examples (SFT on gold), for about the same time",
                        _examples_command(run, config, folder, steps), folder, wanted)  # fmt: skip
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


def _settings(folder: Path) -> dict[str, Any]:
    """Of the run in a folder, by their names; {} where there is none."""
    return dict(flat(read_json(folder / RUN))) if (folder / RUN).exists() else {}


def _scores(folder: Path, wanted: dict[str, Any]) -> Metrics | None:
    """The last scores of a run that has these settings and has finished: if it was made longer, those are of before."""
    found, final = _settings(folder), last_scores(folder)
    finished = final is not None and final["step"] == found.get("max_steps")
    return final if finished and wanted.items() <= found.items() else None


def _not_yet(about: str, line: str, folder: Path, wanted: dict[str, Any]) -> list[str]:
    """The line that makes a control, also where another run is in its way."""
    found = _settings(folder)
    if found and not wanted.items() <= found.items():
        return [f"  control: {about}: {folder} holds that of another run:", f"    {line} --overwrite"]
    return [f"  control: {about}: not run yet:", f"    {line}"]


def _seconds(folder: Path) -> float:
    return read_state(newest_whole(folder))["progress"]["seconds"]


def _tokens_per_second(folder: Path) -> float:
    """Of the middle step, less the time in which it waited for its batch: answers are written then."""
    steps = [(event["tokens"] / event["step"], event) for event in read_events(folder) if "waited" in event]
    return median(tokens / (tokens / event["tok_per_s"] - event["waited"]) for tokens, event in steps)
