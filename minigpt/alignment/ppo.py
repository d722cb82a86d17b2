"""Proximal policy optimisation: a critic says what was to be expected, token by token.

    r_t = [t is the last] · reward - β · (log π_old - log π_ref)          a penalty for each nat of distance
    A   = GAE of r and the critic's values V, whitened;    R = A + V before whitening
    L   = Σ w (-min(ratio · A, clip(ratio) · A) + c · max((V - R)², (clip(V) - R)²) / 2)

β is adapted after each round, so that an answer is as far from the model that training began with as --kl-target says.

The critic is a second model: a copy of the first with one number for a head, which begins at 0. A head on the policy's
own body would be half the work. But early values are wrong, and their gradients would reach the body: the policy would
lose what it knows to a critic that knows nothing yet. It also lets the critic learn from the start, when the policy
should hardly move.

Sources: Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; Ziegler et al. 2019, "Fine-Tuning Language
         Models from Human Preferences"; Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO".
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.alignment.advantages import gae, token_rewards, whitened
from minigpt.alignment.config import PPOConfig
from minigpt.alignment.grpo import named, watched
from minigpt.alignment.judges import verified
from minigpt.alignment.kl import adapted_coefficient, k1
from minigpt.alignment.logprobs import token_logprobs
from minigpt.alignment.policy_losses import clipped_policy_loss, clipped_value_loss, is_clipped, weighted_sum
from minigpt.alignment.policy_stage import FIGURES, Policy, figures
from minigpt.alignment.reward_model import with_scalar_head
from minigpt.alignment.rollouts import Experience, Rollouts
from minigpt.finetune.sft import save_chat_model
from minigpt.model.gpt import GPT
from minigpt.runtime.checkpoint import load_tensors, save_tensors
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.training.config import RunConfig
from minigpt.training.stage import Loss, Prepared, Stage

CRITIC = ("critic", "critic.safetensors")  # folder and file in a checkpoint
EXTRA = ("kl_per_answer", "kl_coefficient")  # figures of a round, beside FIGURES


class PolicyAndCritic(nn.Module):
    """Two models side by side, so that one optimizer moves them."""

    def __init__(self, policy: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V), and what is still to be expected at each place: values (B, T)."""
        return self.policy(ids), self.critic(ids)[..., 0].float()


def new_critic(gpt: GPT) -> GPT:
    """A copy of the model whose head gives 0 everywhere: it expects nothing before it has seen a reward."""
    critic = with_scalar_head(gpt)
    nn.init.zeros_(critic.lm_head.weight)
    return critic


def critic_objective(config: PPOConfig) -> Callable[[nn.Module, Experience], Loss]:
    """The loss of some answers, as a function of both models and batch."""

    def objective(model: nn.Module, batch: Experience) -> Loss:
        logits, values = model(batch.ids)                                                  # (B, T, V), (B, T)
        temperature = config.rollouts.temperature
        logprobs = token_logprobs(logits, batch.targets, temperature=temperature)          # (B, T)
        clip = {"clip_low": config.clip, "clip_high": config.clip}
        policy_losses = clipped_policy_loss(logprobs, batch.old_logprobs, batch.advantages, **clip)
        value_losses = clipped_value_loss(values, batch.old_values, batch.returns, clip=config.value_clip)
        value_loss = weighted_sum(value_losses, batch.weights)                             # ()
        value = weighted_sum(policy_losses, batch.weights) + config.value_coefficient * value_loss
        clipped = is_clipped(logprobs, batch.old_logprobs, batch.advantages, **clip)
        metrics = watched(logits, logprobs, batch, clipped, temperature)
        return Loss(value, {"loss": value.detach(), "value_loss": value_loss.detach(), **metrics,
                            **named(batch, (*FIGURES, *EXTRA))})  # fmt: skip

    return objective


class Episodes:
    """Rounds of answers, each token with its advantage and what the critic should have expected."""

    def __init__(self, policy: Policy, critic: nn.Module, config: PPOConfig) -> None:
        self.policy, self.critic, self.config = policy, critic, config
        self.state: dict[str, float] = {"drawn": 0, "kl_coefficient": config.kl_start}

    def __call__(self) -> Experience:
        answers = self.policy.answers(self.state, self.config.rollouts.prompts)
        rewards = self.policy.judge(answers)                                               # (B,)
        written = self.policy.experience(answers)
        mask, coefficient = written.mask, self.state["kl_coefficient"]
        distance = k1(written.old_logprobs, written.ref_logprobs)                          # (B, T)
        per_token = token_rewards(rewards.to(distance), distance, mask, coefficient=coefficient)
        values = self._values(written.ids).to(distance)                                    # (B, T)
        advantages = gae(per_token, values, mask, gamma=self.config.gamma, lam=self.config.lam)
        per_answer = float((distance * mask).sum() / len(answers))
        self.state["kl_coefficient"] = adapted_coefficient(
            coefficient, per_answer, target=self.config.kl_target, gain=self.config.kl_gain
        )
        about = [*figures(answers, rewards, verified(answers)), per_answer, coefficient]
        return written._replace(
            advantages=whitened(advantages, mask),
            old_values=values,
            returns=(advantages + values).masked_fill(~mask, 0.0),
            figures=torch.tensor(about, device=distance.device).repeat(len(answers), 1),
        )

    @torch.no_grad()
    def _values(self, ids: Tensor) -> Tensor:
        rows = self.policy.run.batches.batch_size
        return torch.cat([self.critic(part)[..., 0].float() for part in ids.split(rows)])  # (B, T)


def open_stage(
    run: RunConfig, config: PPOConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """All that train.py needs. Raises: as `Policy` and `Rollouts`."""
    policy = Policy(run, config.rollouts, group, dtype, checkpoint)
    critic = new_critic(policy.reference).requires_grad_(True).train()
    if checkpoint:
        critic.load_state_dict(load_tensors(checkpoint.joinpath(*CRITIC), group.device))
    runs = compile_model(mixed_precision(critic, dtype), run.machine, group.device)
    # every token counts the same: an advantage is one token's, not one answer's
    rollouts = Rollouts(Episodes(policy, runs, config), config.rollouts, aggregation="dapo",
                        batch_size=run.batches.batch_size, accumulate=run.train.accumulate, seed=run.machine.seed,
                        checkpoint=checkpoint)  # fmt: skip

    def save(folder: Path) -> None:
        save_chat_model(policy.gpt, policy.tokenizer, folder)
        (folder / CRITIC[0]).mkdir()
        save_tensors(folder.joinpath(*CRITIC), critic.state_dict())
        rollouts.save(folder)

    stage = Stage(PolicyAndCritic(policy.model, runs), rollouts, critic_objective(config), policy.look, save)
    return policy.prepared(stage, PolicyAndCritic(policy.gpt, critic))
