"""The settings of the whole recipe; all others are those of the presets."""

from dataclasses import dataclass, field

from minigpt.model.config import GPTConfig
from minigpt.presets import quick
from minigpt.runtime.config import MachineConfig


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    out_dir: str = "out/quickstart"  # a folder for the runs of all stages
    data: str = "python"  # text to learn from at first: file, folder, URL; python is what every Python carries
    pretrain_steps: int = 600  # steps that learn to continue text
    sft_steps: int = 1000  # steps that learn to answer
    dpo_steps: int = 120  # steps that learn which answers are liked
    examples: int = 60_000  # conversations to learn from; the lessons about Python have fewer: then all
    questions: int = 500  # held-out questions of each kind in the exam
    chat: bool = True  # talk at the end, if somebody sits at the terminal
    overwrite: bool = False  # discard what --out-dir holds of an earlier quickstart, and begin again
    model: GPTConfig = field(default_factory=lambda: quick().model)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        for name in ("pretrain_steps", "sft_steps", "dpo_steps", "examples", "questions"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 1")
