"""What can be chosen for a chat."""

from dataclasses import dataclass, field

from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.runtime.config import MachineConfig


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    system: str | None = None  # what the assistant is told before the first turn
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(max_batch=1))
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if self.system is not None and not self.system.strip():
            raise ValueError("--system is empty: leave it out")
