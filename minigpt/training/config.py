"""How long and how often; and all settings of one run in one place."""

from dataclasses import dataclass
from typing import Literal

from minigpt.batches.config import BatchConfig
from minigpt.corpus.config import CorpusConfig
from minigpt.model.config import GPTConfig
from minigpt.optim.config import OptimConfig
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer.config import TokenizerConfig


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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run. A preset is a function that returns one."""

    out_dir: str  # the run's own folder
    init: str | None = None  # begin from a folder with config.json and model.safetensors, or from hf:NAME
    resume: Literal["auto", "never"] = "auto"  # auto: continue what --out-dir holds; never: want a new folder
    overwrite: bool = False  # discard the run that --out-dir holds and begin again
    machine: MachineConfig
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    batches: BatchConfig
    model: GPTConfig
    optim: OptimConfig
    train: TrainConfig
