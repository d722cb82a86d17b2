"""What to show of the lessons, and how carefully to measure what they ask for."""

from dataclasses import dataclass

from minigpt.lessons.split import SIDES, Side


@dataclass(frozen=True, kw_only=True)
class TasksTableConfig:
    side: Side = "test"  # which problems to show and to ask
    asked: int = 200  # questions per family, for the baselines
    taught: int = 2000  # training problems per family that the baselines know
    seed: int = 0  # which problems: the same seed, the same ones, on every machine

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"--side {self.side}: there are {', '.join(SIDES)}")
        for name in ("asked", "taught"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: needs at least 1")
