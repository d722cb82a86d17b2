"""Answers of the policy of this moment, and how often each is learnt from.

    round:   the engine writes answers -> a judge rewards them -> advantages
             inner_epochs times all of them, in an order by chance, cut into steps, and these into micro-batches

The engine reads the weights when it is made, so each round makes one. It computes in another order than the trainer,
whose own log-probabilities are therefore the old ones of the ratio: in the first step of a round it is 1, not nearly 1.

A round may be cut by a checkpoint; the weights that wrote it are gone then. So it is saved with the checkpoint, and a
resumed run learns from the same answers to the last bit. All else is a function of the numbers in the state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from minigpt.alignment.config import RolloutConfig
from minigpt.alignment.judges import Answered
from minigpt.alignment.logprobs import token_logprobs
from minigpt.alignment.policy_losses import AGGREGATIONS
from minigpt.alignment.problems import Problem
from minigpt.batches.loader import IGNORED, Batch
from minigpt.chat.answers import written
from minigpt.chat.template import Template
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.request import Request
from minigpt.finetune.fresh import prompt_of
from minigpt.model.gpt import GPT
from minigpt.runtime.checkpoint import load_tensors, save_tensors
from minigpt.runtime.seeding import generator, stream_seed

FOLDER, FILE = "rollouts", "round.safetensors"  # in a checkpoint
COMPANY = 64  # answers written together


class Experience(NamedTuple):
    """B answers, ready to be learnt from. Each part has a row for each answer."""

    ids: Tensor             # (B, T) int64
    targets: Tensor         # (B, T) int64, -100 where there is no token of an answer
    document: None
    old_logprobs: Tensor    # (B, T) of the policy that wrote them, at the temperature they were drawn at
    ref_logprobs: Tensor    # (B, T) of the model that training began with
    advantages: Tensor      # (B, 1) or (B, T)
    old_values: Tensor | None  # (B, T) what the critic expected; None without a critic
    returns: Tensor | None  # (B, T) what it should have
    figures: Tensor         # (B, F) about the round, the same in each row: to be logged
    weights: Tensor | None = None  # (B, T) of each token's loss; they belong to a step, not to a round

    @property
    def mask(self) -> Tensor:
        return self.targets != IGNORED  # (B, T)


# --- writing ------------------------------------------------------------------------------------------------------


def write_answers(
    gpt: GPT, template: Template, asked: Sequence[tuple[int, Problem]], sampling: SamplingConfig, group: int, seed: int
) -> list[Answered]:
    """`group` answers to each (index, problem), those of a problem side by side; a function of weights and seed.

    Raises: ValueError for a problem whose longest answer would leave the context.
    """
    prompts = [prompt_of(problem, template) for _, problem in asked]
    longest = room_for(prompts, sampling, gpt.config.context_length)
    page = EngineConfig().page
    room = EngineConfig(max_batch=COMPANY, cache_tokens=COMPANY * page * (longest // page + 1))
    requests = [Request(prompt=prompt, sampling=sampling, stop_ids=(template.end,),
                        seed=stream_seed(seed, index, member))
                for (index, _), prompt in zip(asked, prompts, strict=True) for member in range(group)]  # fmt: skip
    questions = [question for question in asked for _ in range(group)]
    return [Answered(*question, one.prompt, one.completion(template.end), one.ended, one.text)
            for question, one in zip(questions, written(gpt, template, requests, room), strict=True)]  # fmt: skip


def room_for(prompts: Sequence[list[int]], sampling: SamplingConfig, context_length: int) -> int:
    """Tokens of the longest prompt with the longest answer. Raises: ValueError if that would leave the context."""
    longest = max(map(len, prompts)) + sampling.max_new_tokens
    if longest > context_length:
        raise ValueError(f"a problem with an answer of {sampling.max_new_tokens} tokens takes {longest}, and the model "
                         f"sees {context_length}: choose a smaller --max-new-tokens")  # fmt: skip
    return longest


@torch.no_grad()
def trainer_logprobs(model: nn.Module, batch: Batch, *, temperature: float, rows: int) -> Tensor:
    """Log-probability of each token of the answers, computed as the objective does, `rows` answers at a time. (B, T)

    The models are moved to no other mode: whoever has dropout, has it here, too. (The stages refuse it.)
    """
    parts = zip(batch.ids.split(rows), batch.targets.split(rows), strict=True)
    return torch.cat([token_logprobs(model(ids), targets, temperature=temperature) for ids, targets in parts])


# --- learning from them -------------------------------------------------------------------------------------------


class Source(Protocol):
    """Where rounds come from: `state` is all that the next one depends on, beside weights and settings."""

    state: dict[str, float]

    def __call__(self) -> Experience: ...


def step_weights(mask: Tensor, aggregation: str, max_new_tokens: int, accumulate: int) -> Tensor:
    """The weight of each token's loss, made for all answers of a step: (B, T).

    `fit` divides the loss of each micro-batch by their number; that is taken back, so that the gradients add up to
    that of the whole step. "bnpo" alone is a mean over each micro-batch, and then over these.
    """
    weigh = AGGREGATIONS[aggregation]
    if aggregation == "bnpo":
        return torch.cat([weigh(part, max_new_tokens) for part in mask.chunk(accumulate)])
    return weigh(mask, max_new_tokens) * accumulate


class Rollouts:
    """An endless iterator of micro-batches: a round of fresh answers, each learnt from `inner_epochs` times.

    Raises: ValueError if a round's answers cannot be cut evenly into steps of accumulate · batch_size.
    """

    def __init__(
        self,
        source: Source,
        config: RolloutConfig,
        *,
        aggregation: str,
        batch_size: int,
        accumulate: int,
        seed: int,
        checkpoint: Path | None = None,  # holds the round that it has cut
    ) -> None:
        per_step = batch_size * accumulate
        if config.answers % per_step:
            raise ValueError(
                f"a round has {config.prompts} · {config.group} = {config.answers} answers, and a step learns from "
                f"{batch_size} · {accumulate} = {per_step}: choose a --batch-size by which they can be divided"
            )
        self.source, self.config, self.aggregation = source, config, aggregation
        self.batch_size, self.accumulate, self.seed, self.checkpoint = batch_size, accumulate, seed, checkpoint
        self.per_epoch = config.answers // batch_size               # micro-batches
        self.per_round = config.inner_epochs * self.per_epoch
        self.batch = 0                                              # handed out so far
        self.round: Experience | None = None
        self.step: list[Experience] = []                            # micro-batches left of this step

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Experience:
        if self.batch % self.per_round == 0 and not self.step:
            self.round = self.source()
        if not self.step:
            self.step = self._step()
        self.batch += 1
        return self.step.pop(0)

    def _step(self) -> list[Experience]:
        """The micro-batches of the next step."""
        number, place = divmod(self.batch, self.per_round)
        epoch, place = divmod(place, self.per_epoch)
        order = torch.randperm(self.config.answers, generator=generator(self.seed, number, epoch))
        rows = order[place * self.batch_size :][: self.batch_size * self.accumulate]
        whole = chosen(self.round, rows)
        weights = step_weights(whole.mask, self.aggregation, self.config.max_new_tokens, self.accumulate)
        whole = whole._replace(weights=weights.to(whole.old_logprobs))
        return [chosen(whole, part) for part in torch.arange(len(rows)).split(self.batch_size)]

    @property
    def is_cut(self) -> bool:
        """Whether a round is on its way, of which a step has been taken."""
        return self.batch % self.per_round != 0

    def save(self, folder: Path) -> None:
        """Write a cut round into a checkpoint."""
        if self.is_cut:
            (folder / FOLDER).mkdir()
            parts = {name: part for name, part in self.round._asdict().items() if part is not None}
            save_tensors(folder / FOLDER / FILE, parts)

    def state_dict(self) -> dict[str, float]:
        return {"batch": self.batch, **self.source.state}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.batch, self.step = state["batch"], []
        self.source.state.update({name: state[name] for name in self.source.state})
        if self.is_cut:
            saved = load_tensors(self.checkpoint / FOLDER / FILE)
            self.round = Experience(**{name: saved.get(name) for name in Experience._fields})

    def close(self) -> None:
        """Nothing is written ahead: the weights of the next round are not there yet."""


def chosen(experience: Experience, rows: Tensor) -> Experience:
    """Some of the answers. Shapes: rows (N,) of int64."""
    return Experience(*(part if part is None else part[rows] for part in experience))
