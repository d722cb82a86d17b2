"""What a run recorded, and the band in which our own recorded runs lay.

    python -m minigpt.training.recorded RUN RUN RUN > minigpt/training/bands/NAME.json

makes such a band from finished runs that differ in nothing but their seeds and machines.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.batches.config import BatchConfig
from minigpt.corpus.config import CorpusConfig
from minigpt.model.config import GPTConfig
from minigpt.optim.config import OptimConfig
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.console import one_line_errors
from minigpt.runtime.logbook import FILE, read_events
from minigpt.tokenizer.config import TokenizerConfig
from minigpt.training.config import TrainConfig

BANDS = Path(__file__).parent / "bands"
FREE = {"out_dir", "seed", "threads", "device", "resume", "overwrite", "workers"}  # may differ where runs are compared
LOOK = {
    "above": "look for spikes in the gradient norm, for skipped steps, and at whether the text is the same",
    "below": "look at whether the held-out text is the same, and whether it also stands in the training text",
}

Event = dict[str, Any]


class Record(NamedTuple):
    """A run folder, read: what was asked for and what happened."""

    folder: Path
    settings: dict[str, Any]      # run.json: nested, group by group
    train: list[Event]            # one per step
    held_out: list[Event]         # one per look at held-out text; the last of a finished run is a "final"
    compressed: dict[str, float]  # the held-out text by general compressors, and its "bytes"; {}: not known

    @property
    def finished(self) -> bool:
        """A run that was made longer has a "final" in its middle, too."""
        return bool(self.held_out) and self.held_out[-1]["step"] == self.settings["train"]["max_steps"]


class Band(NamedTuple):
    """How the held-out loss went in several runs of the same settings."""

    settings: dict[str, Any]                # flat, without those in FREE
    seeds: list[int]                        # one per run
    held_out_bytes: int | None              # of the text they were judged by
    losses: list[tuple[int, float, float]]  # step, lowest, highest

    @property
    def name(self) -> str:
        return f"the band of our {len(self.seeds)} recorded runs"


def read_record(folder: str | Path) -> Record:
    """Read a run folder.

    Raises: ValueError naming what is missing and what would work.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        runs = sorted(path.parent.as_posix() for path in folder.glob("*/run.json"))
        hint = f"it holds runs, though: {', '.join(runs)}" if runs else "give a run's folder, like out/quick"
        raise ValueError(f"{folder} is no run: there is no run.json in it; {hint}")
    settings = _read_json(folder / "run.json")
    events = read_events(folder) if (folder / FILE).exists() else []
    train = [event for event in events if event["split"] == "train"]
    if not train:
        raise ValueError(f"{folder / FILE} holds no step yet; start the run, or resume it, with train.py")
    prepared = folder / "data" / "prepared.json"
    compressed = _read_json(prepared).get("compressed", {}) if prepared.exists() else {}
    held_out = [event for event in events if event["split"] in ("val", "final")]
    return Record(folder, settings, train, held_out, compressed)


def flat(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings; their names are unique across a run."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value)
        else:
            yield name, value


def comparable(record: Record) -> dict[str, Any]:
    """The settings that must be equal for two runs to be compared."""
    return {name: value for name, value in flat(record.settings) if name not in FREE}


def held_out_losses(record: Record) -> dict[int, float]:
    """Held-out loss by step, where it was finite."""
    return {event["step"]: event["loss"] for event in record.held_out if event.get("loss") is not None}


# --- a run beside a band ------------------------------------------------------------------------------------


def find_band(record: Record, folder: Path = BANDS) -> Band | None:
    """The band of the runs that had this run's settings, if we recorded such runs.

    Settings that came later than the band had their defaults then: each is made so as to change nothing.
    """
    wanted = comparable(record)
    bands = (Band(**_read_json(file)) for file in sorted(folder.glob("*.json")))
    later = {name: value for name, value in _defaults() if name in wanted}
    return next((band for band in bands if later | band.settings == wanted), None)


def _defaults() -> Iterator[tuple[str, Any]]:
    yield "kind", "pretrain"
    for group in (CorpusConfig, TokenizerConfig, BatchConfig, GPTConfig, OptimConfig, TrainConfig, MachineConfig):
        yield from ((field.name, field.default) for field in fields(group) if field.default is not MISSING)


def verdict(band: Band, record: Record) -> str | None:
    """In words: where this run's newest held-out loss lies, and what to look at; None before the first.

    Lowest and highest of three runs are no hard limits: every second healthy run ends outside, though only
    one in eight by more than their distance (simulated, for normally distributed losses). So only beyond that
    distance is a run said to be off.
    """
    losses = held_out_losses(record)
    shared = [point for point in band.losses if point[0] in losses]
    if not shared:
        return None
    if record.held_out[-1]["loss"] is None:
        return f"At step {record.held_out[-1]['step']:,} the held-out loss was not finite: {LOOK['above']}."
    step, low, high = shared[-1]
    off = max(low - losses[step], losses[step] - high)
    side = "above" if losses[step] > high else "below"
    if off <= 0:
        words = f"inside {band.name}"
    elif off <= high - low:
        words = f"just {side} {band.name}, by {off:.3f} nats: no more than they differ among themselves"
    else:
        words = f"{side} {band.name}, by {off:.3f} nats: {LOOK[side]}"
    return f"At step {step:,} this run lies {words}.{_other_text(band, record)}"


def _other_text(band: Band, record: Record) -> str:
    """Losses on different texts differ; its size tells that a text is another one."""
    here, there = record.compressed.get("bytes"), band.held_out_bytes
    if here is None or there is None or here == there:
        return ""
    why = ", as with another version of Python" if band.settings["data"] == "python" else ""
    return f" But its held-out text is another one ({here:,} bytes, theirs {there:,}){why}: expect a shift."


# --- a band from runs ---------------------------------------------------------------------------------------


def make_band(records: Sequence[Record]) -> Band:
    """Lowest and highest held-out loss at each step at which all runs looked.

    Raises: ValueError where the runs are too few, not finished, not different or not comparable.
    """
    if len(records) < 2:
        raise ValueError("a band needs at least two finished runs, better three: give their folders")
    first, *others = records
    settings = comparable(first)
    for record in others:
        theirs = comparable(record)
        names = sorted(settings.keys() | theirs)
        differing = [name for name in names if settings.get(name) != theirs.get(name)]
        if differing:
            raise ValueError(
                f"{record.folder} and {first.folder} differ in {', '.join(differing)}; give runs that differ "
                f"in nothing but {', '.join(sorted(FREE))}"
            )
    seeds = [record.settings["machine"]["seed"] for record in records]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"two of the runs have the same seed ({seeds}); give runs that differ in --seed")
    for record in records:
        if not record.finished:
            raise ValueError(f"{record.folder} has not finished; resume it with train.py first")
    losses = [held_out_losses(record) for record in records]
    steps = sorted(set.intersection(*map(set, losses)))
    points = [(step, min(run[step] for run in losses), max(run[step] for run in losses)) for step in steps]
    return Band(settings, seeds, first.compressed.get("bytes"), points)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


if __name__ == "__main__":
    with one_line_errors():
        print(json.dumps(make_band([read_record(folder) for folder in sys.argv[1:]])._asdict(), indent=1))
