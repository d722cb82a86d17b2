"""Who says what an answer is worth? A verifier, a reward model, or, for control, somebody who does not look.

    verifier     1 for a right answer that ended by itself, else 0
    FOLDER       the reward model there; an answer that did not end is worth as little as the worst that did
    shuffled     the verifier's rewards, handed out to the answers of a round by chance: nothing can be learnt from them
    constant     1 for every answer: no answer is better than another

What rises under one of the two controls, too, was not learnt from the rewards.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minigpt.alignment.advantages import ended_or
from minigpt.alignment.problems import is_right
from minigpt.alignment.reward_model import load_reward_model, score
from minigpt.chat.template import Template
from minigpt.lessons.family import Problem
from minigpt.runtime.seeding import generator
from minigpt.tokenizer import Tokenizer


class Answered(NamedTuple):
    """A problem with one answer to it."""

    index: int         # of the problem in its list
    problem: Problem
    prompt: list[int]
    tokens: list[int]  # the answer's, and the end token if it came
    ended: bool        # it came; else the answer was cut off
    text: str


class Judge(NamedTuple):
    """Who rewards answers."""

    rewards: Callable[[Sequence[Answered]], Tensor]  # answers -> (B,)
    models: tuple[nn.Module, ...] = ()               # whom it asks: they take memory as long as training lasts

    def __call__(self, answers: Sequence[Answered]) -> Tensor:
        return self.rewards(answers)


def verified(answers: Sequence[Answered]) -> Tensor:
    """1 for a right answer that ended by itself, else 0. Returns (B,)."""
    right = torch.tensor([is_right(answer.problem, answer.text) for answer in answers]).float()
    return ended_or(right, torch.tensor([answer.ended for answer in answers]), otherwise=0.0)


def open_judge(reward: str, seed: int, template: Template, device: torch.device) -> Judge:
    """The one that is named, or the reward model in the folder of that name, which judges on `device`.

    Raises: FileNotFoundError for a folder that is none; ValueError for a reward model of another tokenizer.
    """
    if reward == "verifier":
        return Judge(verified)
    if reward == "constant":
        return Judge(lambda answers: torch.ones(len(answers)))
    if reward == "shuffled":
        return Judge(partial(_shuffled, seed))
    return _model_judge(Path(reward), template, device)


def _shuffled(seed: int, answers: Sequence[Answered]) -> Tensor:
    """Chance is a function of the first problem: a resumed run shuffles alike."""
    return verified(answers)[torch.randperm(len(answers), generator=generator(seed, answers[0].index))]


def _model_judge(folder: Path, template: Template, device: torch.device) -> Judge:
    if not folder.exists():
        raise FileNotFoundError(f"--reward {folder}: there is no such folder; give that of a reward model, or verifier")
    if Tokenizer.load(folder).fingerprint != template.tokenizer.fingerprint:
        raise ValueError(f"--reward {folder}: its tokenizer is another one than that of the model it is to judge")
    model = load_reward_model(folder).to(device).eval().requires_grad_(False)

    def judge(answers: Sequence[Answered]) -> Tensor:
        ended = torch.tensor([answer.ended and bool(answer.text.strip()) for answer in answers])
        told = [[{"role": "user", "content": answer.problem.prompt},
                 {"role": "assistant", "content": answer.text if ok else "."}]
                for answer, ok in zip(answers, ended.tolist(), strict=True)]  # fmt: skip
        scores = torch.tensor(score(model, template, told))
        return ended_or(scores, ended, otherwise=float(scores[ended].min()) if ended.any() else 0.0)

    return Judge(judge, (model,))
