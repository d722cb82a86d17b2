"""The machine's settings."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    seed: int = 1  # decides the initial weights, the order of the data and dropout
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"  # of activations; weights stay float32
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on a CUDA device only
    threads: int | None = None  # CPU threads for torch; none: one per physical core it may use

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads {self.threads}: at least one thread is needed, or none for torch's choice")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed {self.seed}: choose a number from 0 to {2**31 - 1}")
