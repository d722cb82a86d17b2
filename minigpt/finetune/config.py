"""The settings of the two stages of this room."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from minigpt.training.config import RunConfig, StageConfig

if TYPE_CHECKING:
    import torch

    from minigpt.runtime.distributed import Group
    from minigpt.training.stage import Prepared


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Supervised fine-tuning."""

    name: ClassVar[str] = "sft"

    data: str = "lessons"  # a file of conversations (JSONL); or lessons, the project's own; or some: course,copy
    val_data: str | None = None  # a file of conversations to judge by; none holds out a share of the data
    examples: int = 20_000  # conversations to take from the project's own lessons, which are endless
    replay: float = 0.1  # share of rows with text that the base model learned from, so that it is not forgotten

    def __post_init__(self) -> None:
        for flag, value in (("--data", self.data), ("--val-data", self.val_data)):
            if value is not None and not value.strip():
                raise ValueError(f"{flag} is empty; give a file of conversations or lessons")
        if self.examples < 1:
            raise ValueError(f"--examples {self.examples}: needs at least 1")
        if not 0 <= self.replay < 1:
            raise ValueError(f"--replay {self.replay}: is a share of the rows, at least 0 and less than 1")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """Conversations, and only the assistant's words count."""
        from minigpt.finetune import sft

        return sft.open_stage(run, self, group, dtype, checkpoint)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters around the model of another stage, whose batches and loss stay what they are."""

    name: ClassVar[str] = "lora"

    lora_rank: int = 8  # columns of the one matrix and rows of the other: their product is what is added
    lora_alpha: float = 16.0  # the sum is scaled by alpha / rank, so that another rank needs no other lr
    lora_dropout: float = 0.0  # share of an adapter's inputs zeroed in training
    lora_layers: Literal["all", "attention", "mlp"] = "all"  # which matrices of the blocks get an adapter
    of: StageConfig = SFTConfig()

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise ValueError(f"--lora-rank {self.lora_rank}: needs at least 1")
        if self.lora_alpha <= 0:
            raise ValueError(f"--lora-alpha {self.lora_alpha}: needs a number above 0; twice the rank is usual")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"--lora-dropout {self.lora_dropout}: is a share, at least 0 and less than 1")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """The inner stage, its model with adapters."""
        from minigpt.finetune import lora

        return lora.open_stage(run, self, group, dtype, checkpoint)


@dataclass(frozen=True, kw_only=True)
class TasksConfig:
    """A model from nothing, for the families of problems alone."""

    name: ClassVar[str] = "tasks"

    families: str = "all"  # which problems; or some: copy,two hops
    size: int | None = None  # problems of this size alone (digits of a sum, facts that are told); none: all sizes
    growing: int = 0  # problems until the longest may come: to add five digits, first learn to add one

    def __post_init__(self) -> None:
        if self.growing < 0:
            raise ValueError(f"--growing {self.growing}: is a number of problems; 0 begins with all sizes")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """Endless problems, and only the answers count."""
        from minigpt.finetune import from_nothing

        return from_nothing.open_stage(run, self, group, dtype, checkpoint)


@dataclass(frozen=True, kw_only=True)
class GradeConfig:
    """How carefully a run is examined."""

    families: str = "all"  # which problems; or some: copy,two hops
    size: int | None = None  # problems of this size alone; none: all, and longer ones
    asked: int = 2000  # problems of each family and side
    baseline_asked: int = 200  # of these, answered without understanding: that is slow
    seed: int = 1  # which problems

    def __post_init__(self) -> None:
        for name in ("asked", "baseline_asked"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 1")
