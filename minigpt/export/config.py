"""What to export, and how exactly."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    to: Literal["hf", "gguf"] = "hf"  # hf: a folder for transformers and vLLM; gguf: a file for llama.cpp
    out: str | None = None  # where it goes; none: out/export/, under the run's name
    dtype: Literal["f32", "f16", "bf16", "q8_0"] = "f32"  # of the weights: exact, half the size twice, a quarter (gguf)
    check: bool = True  # hf: open the folder with transformers, if installed, and compare logits and ids

    def __post_init__(self) -> None:
        if self.to == "hf" and self.dtype == "q8_0":
            raise ValueError("--dtype q8_0 is a type of GGUF files: with --to hf choose f32, f16 or bf16")
