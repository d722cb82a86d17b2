"""What grpo and ppo have in common: a model to begin with, a copy of it that stays, problems, a judge, and a look."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from minigpt.alignment.config import RolloutConfig
from minigpt.alignment.controls import told_reward_controls
from minigpt.alignment.judges import Answered, open_judge
from minigpt.alignment.logprobs import completion_batch, frozen
from minigpt.alignment.pass_rates import TRIES, pass_rates, told
from minigpt.alignment.problems import Problem, families, problem_at
from minigpt.alignment.rollouts import Experience, room_for, trainer_logprobs, write_answers
from minigpt.chat.template import Template
from minigpt.engine.config import SamplingConfig
from minigpt.finetune.fresh import prompt_of
from minigpt.finetune.sft import load_chat_model
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.training.config import RunConfig
from minigpt.training.pretrain import init_folder
from minigpt.training.stage import Metrics, Prepared, Stage, to_device

LOOKED_AT = 500  # training problems, for whether they fit into the context: a run should not find out on its way
FIGURES = ("reward", "pass_rate", "truncated", "answer_tokens")  # of all answers of a round


class Policy:
    """The model that learns, and all that its answers need.

    Raises: ValueError without --init, with --dropout, and for several processes; what problems, judge and model raise.
    """

    def __init__(
        self, run: RunConfig, config: RolloutConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
    ) -> None:
        _check(run, group)
        base = init_folder(run.init)
        gpt, self.tokenizer = load_chat_model(checkpoint or base, run, tell=group.is_main)
        began = load_chat_model(base, run, tell=False)[0] if checkpoint else gpt
        self.run, self.config, self.device, self.seed = run, config, group.device, run.machine.seed
        self.gpt, self.reference = gpt.to(group.device), frozen(began).to(group.device)
        self.model, self.reference_model = (  # as they compute in training; the engine reads the plain ones
            compile_model(mixed_precision(model, dtype), run.machine, group.device)
            for model in (self.gpt, self.reference)
        )
        self.template, self.names = Template(self.tokenizer), families(config.problems)
        self.judge = open_judge(config.reward, self.seed, self.template, self.device)
        self.sampling = SamplingConfig(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
        self.test = [(index, self.problem("test", index)) for index in range(config.test_problems)]
        seen = [problem for _, problem in self.test] + [self.problem("train", index) for index in range(LOOKED_AT)]
        room_for([prompt_of(problem, self.template) for problem in seen], self.sampling, gpt.config.context_length)

    def problem(self, side: str, index: int) -> Problem:
        """The families take turns."""
        return problem_at(self.names[index % len(self.names)], side, self.seed, index)

    def answers(self, state: dict[str, float], count: int) -> list[Answered]:
        """A group of answers to each of the next `count` training problems; `state["drawn"]` knows where they begin."""
        first = int(state["drawn"])
        state["drawn"] = first + count
        asked = [(index, self.problem("train", index)) for index in range(first, first + count)]
        return write_answers(self.gpt, self.template, asked, self.sampling, self.config.group, self.seed)

    def experience(self, answers: Sequence[Answered]) -> Experience:
        """The answers as rows, with what policy and reference found them to be worth; advantages are still 0."""
        batch = to_device(completion_batch([a.prompt for a in answers], [a.tokens for a in answers]), self.device)
        logprobs = partial(trainer_logprobs, batch=batch, temperature=self.config.temperature,
                           rows=self.run.batches.batch_size)  # fmt: skip
        old, reference = logprobs(self.model), logprobs(self.reference_model)              # (B, T) twice
        none = torch.zeros(len(answers), 1, device=self.device)
        return Experience(batch.ids, batch.targets, None, old, reference, none, None, None, none)

    def look(self, model: nn.Module, limit: int | None) -> Metrics:
        """Held-out problems, of which a batch of answers takes an eighth of its size."""
        most = len(self.test) if limit is None else max(1, limit * self.run.batches.batch_size // TRIES)
        return pass_rates(self.gpt, self.template, self.test[:most], self.sampling, self.seed)

    @cached_property
    def before(self) -> Metrics:
        """What the model scored that training began with: computed, not remembered, so a resumed run knows it, too."""
        return pass_rates(self.reference, self.template, self.test, self.sampling, self.seed)

    def outcome(self, scores: Metrics) -> list[str]:
        """The scores, and those of before."""
        return told(scores, self.before)

    def beside(self) -> list[str]:
        """The controls."""
        return told_reward_controls(self.run, self.config, self.before, self._solved)

    def _solved(self, folder: Path) -> Metrics:
        """What another model makes of the held-out problems."""
        gpt = load_chat_model(folder, self.run, tell=False)[0].to(self.device)
        return pass_rates(gpt, self.template, self.test, self.sampling, self.seed)

    def prepared(self, stage: Stage, trained: nn.Module) -> Prepared:
        return Prepared(
            stage=stage,
            trained=trained,
            gpt=self.gpt,
            tokenizer=self.tokenizer,
            prompt=prompt_of(self.test[0][1], self.template),
            material=f"problems without end ({', '.join(self.names)}), {self.config.prompts} a round with "
            f"{self.config.group} answers each, judged by: {self.config.reward}; {len(self.test)} held out",
            epoch_tokens=None,
            outcome=self.outcome,
            try_it=f"python -m minigpt chat {self.run.out_dir}",
            rows="answers",
            frozen=(self.reference, *self.judge.models),
            beside=self.beside,
        )


def figures(answers: Sequence[Answered], rewards: torch.Tensor, passed: torch.Tensor) -> list[float]:
    """FIGURES, over all answers that were written, also those that nothing is learnt from."""
    n = len(answers)
    return [rewards.mean().item(), passed.mean().item(), 1 - sum(answer.ended for answer in answers) / n,
            sum(len(answer.tokens) for answer in answers) / n]  # fmt: skip


def _check(run: RunConfig, group: Group) -> None:
    if run.init is None:
        raise ValueError("reinforcement begins with a model that answers: name its folder with --init")
    if run.model.dropout:
        raise ValueError(f"--dropout {run.model.dropout}: two passes over an answer would drop other things, and the "
                         "ratio of its probabilities compare them; use 0")  # fmt: skip
    if group.world > 1:
        raise ValueError(f"{group.world} processes: answers are written by one; start train.py without torchrun")
