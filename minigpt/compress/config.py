"""What is thrown away, and how carefully."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SHORT = {
    "--int8": "--weights=int8",
    "--int4": "--weights=int4",
    "--int3": "--weights=int3",
    "--gptq": "--rounding=gptq",
}


def in_full(argv: Sequence[str]) -> list[str]:
    """A command line without what may be written for short. Raises: ValueError for two widths at once."""
    widths = sorted({flag for flag in argv if SHORT.get(flag, flag).startswith("--weights")})
    if len(widths) > 1:
        raise ValueError(f"{' and '.join(widths)}: weights have one width. Choose one of them")
    return [SHORT.get(flag, flag) for flag in argv]


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    weights: Literal["float32", "int8", "int4", "int3"] = "float32"  # of matrices; --int8, --int4, --int3 for short
    rounding: Literal["nearest", "gptq"] = "nearest"  # gptq: later columns make up for earlier ones; --gptq for short
    prune: float = 0.0  # share of the blocks' weights (or of heads and channels) that goes
    how: Literal["structured", "magnitude", "wanda", "2:4"] = "structured"  # what goes: see compress/prune.py
    recover: int = 0  # steps of training after pruning
    teacher: Literal["original", "none"] = "original"  # recovery also learns from the unpruned model; none: only text
    calibration: int = 128  # windows of training text that gptq, wanda and structured look at
    data: str | None = None  # text to judge by, calibrate and recover with; none: the run's own
    out_dir: str | None = None  # the new folder; none: beside the run, under its name and what was done
    device: str = "auto"  # where recovery computes: auto, cpu, cuda; all else computes on the CPU
    threads: int | None = None  # CPU threads; none: one per physical core
    speed_tokens: int = 64  # tokens written in each round of measuring speed; 0: not measured

    def __post_init__(self) -> None:
        if not 0 <= self.prune < 1:
            raise ValueError(f"--prune {self.prune} is a share: choose 0 (nothing) to less than 1; 0.3 is usual")
        if self.how == "2:4" and self.prune != 0.5:
            raise ValueError("--how 2:4 takes two of four weights: it needs --prune 0.5")
        if self.rounding == "gptq" and self.weights == "float32":
            raise ValueError("--gptq is a way to round: it needs --int8, --int4 or --int3")
        if self.rounding == "gptq" and self.prune and self.how != "structured":
            raise ValueError(f"--gptq moves weights that --how {self.how} has set to zero: choose one of them")
        if self.recover and not self.prune:
            raise ValueError("--recover wins back what pruning has cost: it needs --prune SHARE")
        for name, least in (("recover", 0), ("calibration", 1), ("speed_tokens", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least {least}")

    @property
    def label(self) -> str:
        """What was done, for the name of a folder: `structured-0.3-int4-gptq`."""
        pruned = [f"{self.how.replace(':', 'of')}-{self.prune:g}"] if self.prune else []
        rounded = [self.weights] if self.weights != "float32" else []
        return "-".join(pruned + rounded + ["gptq"] * (self.rounding == "gptq"))
