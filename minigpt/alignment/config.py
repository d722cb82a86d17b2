"""The settings of the stages of this room."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from minigpt.batches.config import RowConfig
from minigpt.lessons.preferences import check_noise
from minigpt.training.config import RunConfig

if TYPE_CHECKING:
    import torch

    from minigpt.runtime.distributed import Group
    from minigpt.training.stage import Prepared

# --- pairs: reward and dpo ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PairBatchConfig(RowConfig):
    batch_size: int = 16  # pairs per micro-step, over all processes


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    data: str = "lessons"  # a file of pairs (JSONL); or lessons, the project's own
    val_data: str | None = None  # a file of pairs to judge by; none holds out a share of the data
    examples: int = 4_000  # pairs to take from the project's own lessons, which are endless
    noise: float = 0.1  # share of those that are labelled the wrong way round, as people's are
    labels: Literal["given", "shuffled"] = "given"  # shuffled: the control, in which labels say nothing

    def __post_init__(self) -> None:
        for flag, value in (("--data", self.data), ("--val-data", self.val_data)):
            if value is not None and not value.strip():
                raise ValueError(f"{flag} is empty; give a file of pairs or lessons")
        if self.examples < 1:
            raise ValueError(f"--examples {self.examples}: needs at least 1")
        check_noise(self.noise)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """A reward model, from pairs."""

    name: ClassVar[str] = "reward"

    pairs: PairsConfig = field(default_factory=PairsConfig)
    centering: float = 0.0  # pulls rewards to 0, whose mean pairs leave open; 0.01 is usual, and makes it too modest
    label_noise: float = 0.0  # share of labels to take for wrong: 0.1 lets the model be surer than its labels are

    def __post_init__(self) -> None:
        if self.centering < 0:
            raise ValueError(f"--centering {self.centering}: needs at least 0; 0.01 is usual")
        if not 0 <= self.label_noise < 0.5:
            raise ValueError(f"--label-noise {self.label_noise}: is a share, at least 0 and below 0.5")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """A model with one number for a head, which learns which of two answers is better."""
        from minigpt.alignment import reward

        return reward.open_stage(run, self, group, dtype, checkpoint)


@dataclass(frozen=True, kw_only=True)
class DPOConfig:
    """Direct preference optimisation, and its relatives."""

    name: ClassVar[str] = "dpo"

    pairs: PairsConfig = field(default_factory=PairsConfig)
    loss: Literal["sigmoid", "ipo", "hinge", "conservative", "robust", "none"] = "sigmoid"  # of margins; none: 0
    beta: float = 0.2  # how dear it is to leave the reference: smaller goes further
    chosen_weight: float = 1.0  # of the chosen answer's own loss, which keeps it likely; 0: DPO as it was published
    label_smoothing: float = 0.0  # share of labels that conservative and robust take for wrong
    prompts: int = 100  # held-out questions to answer, beside the reference's own answers
    answer_tokens: int = 64  # longest of these answers
    temperature: float = 1.0  # how boldly they are drawn, with the same chance on both sides; 0: the likeliest token
    judge: str | None = None  # a reward model's folder, to judge them by; the lessons have their own rule beside it
    problems: int = 0  # problems of each family of the lessons to solve before and after; 0: none

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"--beta {self.beta}: needs a number above 0; 0.1 is usual")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"--label-smoothing {self.label_smoothing}: is a share, at least 0 and below 0.5")
        if bool(self.label_smoothing) != (self.loss in ("conservative", "robust")):
            raise ValueError(f"--loss {self.loss} with --label-smoothing {self.label_smoothing}: conservative and "
                             "robust need one above 0, the others have none")  # fmt: skip
        if self.chosen_weight < 0 or (self.loss == "none" and not self.chosen_weight):
            raise ValueError(f"--chosen-weight {self.chosen_weight}: needs at least 0, and more with --loss none")
        if self.prompts < 1 or self.problems < 0:
            raise ValueError(f"--prompts {self.prompts} needs at least 1, --problems {self.problems} at least 0")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """The policy itself learns from pairs which answers to prefer."""
        from minigpt.alignment import dpo

        return dpo.open_stage(run, self, group, dtype, checkpoint)


# --- answers of its own: grpo and ppo -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AnswerRowConfig(RowConfig):
    batch_size: int = 128  # answers per micro-step


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    problems: str = "constraint"  # some of: expression,brackets,digits,letters, and the families of lessons
    reward: str = "verifier"  # verifier; shuffled or constant, which are its controls; or a reward model's folder
    prompts: int = 32  # problems in a round of answers
    group: int = 8  # answers to each
    inner_epochs: int = 2  # times that a round's answers are learnt from, before new ones are written
    temperature: float = 1.0  # of answers, and of all their probabilities
    max_new_tokens: int = 48  # longest answer; one that is cut off there earns nothing
    test_problems: int = 200  # held-out problems to solve, 8 times each and once greedily

    def __post_init__(self) -> None:
        for name in ("prompts", "group", "inner_epochs", "max_new_tokens", "test_problems"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 1")
        if not self.temperature >= 1e-4:
            raise ValueError(f"--temperature {self.temperature}: answers must be drawn, so above 0; 1 is usual")
        if not self.reward.strip() or not self.problems.strip():
            raise ValueError("--reward and --problems must not be empty: verifier, and constraint, will do")

    @property
    def answers(self) -> int:
        """In a round."""
        return self.prompts * self.group


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """Groups of answers to the same problem, each compared with the others."""

    name: ClassVar[str] = "grpo"

    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    advantages: Literal["group", "centred"] = "group"  # centred: Dr. GRPO's, not divided by the group's deviation
    aggregation: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"  # how tokens are averaged
    clip_low: float = 0.2  # how much less likely a token may become in one round, as a share
    clip_high: float = 0.28  # how much likelier; DAPO's is above the other, so that rare tokens can rise
    kl: Literal["k3", "ratio_weighted_k3"] = "k3"  # how the distance from the start model is estimated
    kl_coefficient: float = 0.01  # what a nat of it costs
    redraws: int = 2  # times that problems without signal are replaced in a round; 0: they stay

    def __post_init__(self) -> None:
        if self.rollouts.group < 2:
            raise ValueError("--group 1: an answer alone cannot be compared with others; 8 is usual")
        for name in ("clip_low", "clip_high", "kl_coefficient", "redraws"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 0")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """Answers of this very model, and which of a group were better."""
        from minigpt.alignment import grpo

        return grpo.open_stage(run, self, group, dtype, checkpoint)


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Answers compared with what a critic expected."""

    name: ClassVar[str] = "ppo"

    rollouts: RolloutConfig = field(default_factory=lambda: RolloutConfig(prompts=256, group=1))
    gamma: float = 1.0  # what a reward one token later is worth
    lam: float = 0.95  # how far to trust rewards over the critic: 1 altogether, 0 for one token
    clip: float = 0.2  # how far a token's probability may move in one round, as a share
    value_clip: float = 0.2  # how far the critic's prediction may move in one round
    value_coefficient: float = 0.5  # weight of the critic's loss
    kl_start: float = 0.05  # what a nat of distance costs at first; it is adapted
    kl_target: float = 2.0  # nats per answer to end at
    kl_gain: float = 0.5  # how fast it is adapted: 0.5 by 10 % in a round at most

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} {getattr(self, name)}: must be from 0 to 1")
        for name in ("clip", "value_clip", "kl_start", "kl_target"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs a number above 0")
        for name in ("value_coefficient", "kl_gain"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 0")

    def prepare(self, run: RunConfig, group: "Group", dtype: "torch.dtype", checkpoint: Path | None) -> "Prepared":
        """Answers of this very model, a critic, and a distance that is kept."""
        from minigpt.alignment import ppo

        return ppo.open_stage(run, self, group, dtype, checkpoint)
