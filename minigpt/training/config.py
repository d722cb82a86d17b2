"""How long and how often; and all settings of one run in one place."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from minigpt.batches.config import BatchConfig, RowConfig
from minigpt.corpus.config import CorpusConfig
from minigpt.model.config import GPTConfig
from minigpt.optim.config import OptimConfig
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer.config import TokenizerConfig

if TYPE_CHECKING:
    import torch

    from minigpt.runtime.distributed import Group
    from minigpt.training.stage import Prepared


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    max_steps: int = 1000  # optimizer steps in the whole run; may grow when a run is resumed
    accumulate: int = 1  # micro-batches whose gradients make one step
    eval_every: int = 250  # steps between two looks at held-out text
    eval_batches: int = 40  # batches in such a look; the last one takes the whole held-out text
    save_every: int = 250  # steps between two checkpoints
    sample_every: int = 500  # steps between two samples on the terminal; 0: none
    max_bad_steps: int = 10  # stop after so many steps in a row whose loss or gradient is not finite

    def __post_init__(self) -> None:
        for name in ("max_steps", "accumulate", "eval_every", "eval_batches", "save_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 1")
        if self.sample_every < 0:
            raise ValueError(f"--sample-every {self.sample_every}: choose 0 (never) or a number of steps")


class StageConfig(Protocol):
    """What a preset puts at `run.stage`: the settings of one kind of training, and the way to its code.

    A frozen dataclass beside that code, in a file without torch: `prepare` imports the code when it is called. So the
    rooms behind this one bring stages of their own, and neither this room nor train.py has to know them.
    """

    name: ClassVar[str]

    def prepare(
        self, run: "RunConfig", group: "Group", dtype: "torch.dtype", checkpoint: Path | None
    ) -> "Prepared":
        """The stage for this run: begun anew, or (with a checkpoint) with the weights that lie there."""
        ...


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """The first stage has no settings of its own: those of the run are its."""

    name: ClassVar[str] = "pretrain"

    def prepare(self, run: "RunConfig", group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """Next-token prediction on packed text."""
        from minigpt.training import pretrain

        return pretrain.open_stage(run, group, dtype, checkpoint)


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """In the place of settings that come with the base model: nothing to choose, so no flag.

    So it is with corpus and tokenizer in all stages but the first.
    """


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run. A preset is a function that returns one."""

    kind: str = "pretrain"  # the kind of training; the preset chooses it
    out_dir: str  # the run's own folder
    init: str | None = None  # begin from a folder with config.json and model.safetensors, or from hf:NAME
    resume: Literal["auto", "never"] = "auto"  # auto: continue what --out-dir holds; never: want a new folder
    overwrite: bool = False  # discard the run that --out-dir holds and begin again
    machine: MachineConfig
    corpus: CorpusConfig | Inherited
    tokenizer: TokenizerConfig | Inherited
    batches: BatchConfig | RowConfig
    model: GPTConfig
    optim: OptimConfig
    train: TrainConfig
    stage: StageConfig = PretrainConfig()

    def __post_init__(self) -> None:
        if self.kind != self.stage.name:
            raise ValueError(f"--kind {self.kind}: this preset is of kind {self.stage.name}; choose another preset")
