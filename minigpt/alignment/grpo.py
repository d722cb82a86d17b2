"""Group relative policy optimisation: of several answers to one problem, the better ones become likelier.

    A = (r - mean of the group) / its standard deviation
    L = Σ w (-min(ratio · A, clip(ratio) · A) + β · KL(π, π_ref))         over the tokens of all answers of a step

No critic says what was to be expected: the other answers to the same problem do. A group whose answers are all right,
or all wrong, says nothing; its problem is replaced by another (dynamic sampling), up to `redraws` times a round. What
is still missing then is filled with such groups, so a round has as many answers as any other.

Sources: Shao et al. 2024, "DeepSeekMath"; Yu et al. 2025, "DAPO"; Liu et al. 2025, "Understanding R1-Zero-Like
         Training" (Dr. GRPO).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.alignment.advantages import centred_advantages, group_advantages, informative
from minigpt.alignment.config import GRPOConfig
from minigpt.alignment.judges import Answered, verified
from minigpt.alignment.kl import k3, ratio_weighted_k3
from minigpt.alignment.logprobs import entropy, token_logprobs
from minigpt.alignment.policy_losses import clipped_policy_loss, is_clipped, weighted_sum
from minigpt.alignment.policy_stage import FIGURES, Policy, figures
from minigpt.alignment.rollouts import Experience, Rollouts
from minigpt.finetune.sft import save_chat_model
from minigpt.runtime.distributed import Group
from minigpt.training.config import RunConfig
from minigpt.training.stage import Loss, Metrics, Prepared, Stage

ADVANTAGES = {"group": group_advantages, "centred": centred_advantages}
WITHOUT_SIGNAL = "without_signal"  # share of all groups that were tried


def group_objective(config: GRPOConfig) -> Callable[[nn.Module, Experience], Loss]:
    """The loss of some answers, as a function of model and batch."""

    def objective(model: nn.Module, batch: Experience) -> Loss:
        logits, temperature = model(batch.ids), config.rollouts.temperature                # (B, T, V)
        logprobs = token_logprobs(logits, batch.targets, temperature=temperature)          # (B, T)
        clip = {"clip_low": config.clip_low, "clip_high": config.clip_high}
        losses = clipped_policy_loss(logprobs, batch.old_logprobs, batch.advantages, **clip)
        if config.kl == "k3":
            kl = k3(logprobs, batch.ref_logprobs)                                          # (B, T)
        else:
            kl = ratio_weighted_k3(logprobs, batch.old_logprobs, batch.ref_logprobs)
        value = weighted_sum(losses + config.kl_coefficient * kl, batch.weights)           # ()
        clipped = is_clipped(logprobs, batch.old_logprobs, batch.advantages, **clip)
        metrics = watched(logits, logprobs, batch, clipped, temperature)
        return Loss(value, {"loss": value.detach(), **metrics, **named(batch, (*FIGURES, WITHOUT_SIGNAL))})

    return objective


@torch.no_grad()
def watched(logits: Tensor, logprobs: Tensor, batch: Experience, clipped: Tensor, temperature: float) -> Metrics:
    """What is worth logging of each step, as means over the tokens of the answers: KL and entropy in nats."""
    mask = batch.mask                                                                      # (B, T)
    return {
        "kl": k3(logprobs, batch.ref_logprobs)[mask].mean(),
        "entropy": entropy(logits[mask], temperature=temperature).mean(),
        "clipped": clipped[mask].float().mean(),
    }


def named(batch: Experience, names: tuple[str, ...]) -> Metrics:
    """The figures of a round, by their names."""
    return dict(zip(names, batch.figures[0], strict=True))


class Groups:
    """Rounds of groups of answers, with their advantages."""

    def __init__(self, policy: Policy, config: GRPOConfig) -> None:
        self.policy, self.config = policy, config
        self.state: dict[str, float] = {"drawn": 0}

    def __call__(self) -> Experience:
        """Write, judge and compare, until there are enough groups with signal or redraws are used up."""
        wanted, size = self.config.rollouts.prompts, self.config.rollouts.group
        telling: list[tuple[list[Answered], Tensor]] = []
        silent: list[tuple[list[Answered], Tensor]] = []
        for _ in range(1 + self.config.redraws):
            if len(telling) < wanted:
                answers = self.policy.answers(self.state, wanted - len(telling))
                rewards = self.policy.judge(answers).view(-1, size)                        # (P, G)
                for place, says in enumerate(informative(rewards).tolist()):
                    group = (answers[place * size : (place + 1) * size], rewards[place])
                    (telling if says else silent).append(group)
        tried = [*telling, *silent]
        kept = tried[:wanted]
        rewards = torch.stack([rewards for _, rewards in kept])                            # (P, G)
        experience = self.policy.experience([answer for answers, _ in kept for answer in answers])
        advantages = ADVANTAGES[self.config.advantages](rewards).view(-1, 1)               # (B, 1)
        about = [*_figures(tried), len(silent) / len(tried)]
        return experience._replace(
            advantages=advantages.to(experience.old_logprobs),
            figures=torch.tensor(about, device=advantages.device).repeat(len(advantages), 1),
        )


def _figures(groups: list[tuple[list[Answered], Tensor]]) -> list[float]:
    answers = [answer for group, _ in groups for answer in group]
    return figures(answers, torch.cat([rewards for _, rewards in groups]), verified(answers))


def open_stage(
    run: RunConfig, config: GRPOConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """All that train.py needs. Raises: as `Policy` and `Rollouts`."""
    policy = Policy(run, config.rollouts, group, dtype, checkpoint)
    rollouts = Rollouts(Groups(policy, config), config.rollouts, aggregation=config.aggregation,
                        batch_size=run.batches.batch_size, accumulate=run.train.accumulate, seed=run.machine.seed,
                        checkpoint=checkpoint)  # fmt: skip

    def save(folder: Path) -> None:
        save_chat_model(policy.gpt, policy.tokenizer, folder)
        rollouts.save(folder)

    stage = Stage(policy.model, rollouts, group_objective(config), policy.look, save)
    return policy.prepared(stage, policy.gpt)
