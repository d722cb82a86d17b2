"""What does a policy answer now, and is it better than what its reference answered?

Both are asked the same held-out questions. How far the policy has gone for it is measured where it goes, along its own
answers, exactly: over the whole vocabulary at each of their tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import nn

from minigpt.alignment.kl import exact_kl
from minigpt.alignment.logprobs import completion_batch
from minigpt.alignment.measures import interval, wins
from minigpt.batches.loader import IGNORED
from minigpt.chat.answers import Said, written
from minigpt.chat.conversation import Message
from minigpt.chat.template import Template
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.request import Request
from minigpt.finetune.grade import scores
from minigpt.lessons.tasks import FAMILIES
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT
from minigpt.runtime.seeding import stream_seed
from minigpt.training.stage import Metrics

Conversation = Sequence[Message]
Rule = Callable[[Sequence[Conversation], Sequence["Said"]], list[float]]  # scores of answers; larger is better


def answers(
    gpt: GPT, template: Template, questions: Sequence[Conversation], sampling: SamplingConfig, seed: int
) -> list[Said]:
    """What the model says to each, none beyond its context; the same seed gives the same answers.

    Raises: ValueError for a question that leaves no room for an answer.
    """
    prompts = [template.prompt(question) for question in questions]
    longest, context_length = max(map(len, prompts), default=0), gpt.config.context_length
    if longest + 1 >= context_length:
        raise ValueError(f"a question of {longest} tokens leaves no room for an answer: the model sees "
                         f"{context_length}")  # fmt: skip
    requests = [Request(prompt=prompt, seed=stream_seed(seed, place), stop_ids=(template.end,),
                        sampling=_within(sampling, context_length - len(prompt) - 1))
                for place, prompt in enumerate(prompts)]  # fmt: skip
    return written(gpt, template, requests, EngineConfig(max_batch=32))


def _within(sampling: SamplingConfig, room: int) -> SamplingConfig:
    return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))


@torch.no_grad()
def kl_per_token(policy: GPT, reference: nn.Module, said: Sequence[Said], end: int, batch_size: int = 16) -> float:
    """The exact KL(policy, reference) at the tokens of the policy's own answers: their mean, in nats."""
    total, tokens, device = 0.0, 0, policy.token_embedding.weight.device
    with evaluating(policy):
        for first in range(0, len(said), batch_size):
            some = said[first : first + batch_size]
            batch = completion_batch([one.prompt for one in some], [one.completion(end) for one in some])
            ids, real = batch.ids.to(device), (batch.targets != IGNORED).to(device)
            total += float(exact_kl(policy(ids), reference(ids))[real].double().sum())
            tokens += int(real.sum())
    return total / tokens


def exact_match(gpt: GPT, template: Template, each: int, seed: int) -> float:
    """The share of the lessons' problems that a model solves, `each` of every family; nan for none."""
    if not each:
        return math.nan
    return fmean(score.share for score in scores(gpt, template, list(FAMILIES), "test", asked=each, seed=seed).values())


class Comparison:
    """Compares a policy's answers with those of its reference, by any number of rules."""

    def __init__(
        self,
        reference: GPT,
        template: Template,
        questions: list[Conversation],
        rules: dict[str, Rule],
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self.reference, self.template, self.questions, self.rules = reference, template, questions, rules
        self.sampling, self.seed = sampling, seed
        said = answers(reference, template, questions, sampling, seed)
        self.before = {name: rule(questions, said) for name, rule in rules.items()}

    def scores(self, policy: GPT, limit: int | None = None) -> Metrics:
        """Win rates (a tie is half a win), mean scores, divergence and length, on the first `limit` questions."""
        questions = self.questions[:limit]
        said = answers(policy, self.template, questions, self.sampling, self.seed)
        found = {
            "kl_per_token": kl_per_token(policy, self.reference, said, self.template.end),
            "answer_tokens": sum(len(one.tokens) for one in said) / len(said),
            "ended": sum(one.ended for one in said) / len(said),
        }
        for name, rule in self.rules.items():
            before, now = self.before[name][: len(questions)], rule(questions, said)
            won = wins(torch.tensor(now) - torch.tensor(before))
            found |= {f"{name}_win_rate": won.mean().item(), f"{name}_interval": interval(won),
                      f"{name}_before": fmean(before), f"{name}_now": fmean(now)}  # fmt: skip
        return found
