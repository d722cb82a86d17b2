"""A reward model learns from pairs which of two answers is better: Bradley-Terry.

    P(chosen beats rejected) = σ(r_chosen - r_rejected)      L = -ln P + centering · (r_chosen + r_rejected)²

Some pairs are labelled the wrong way round. A model that learns from them is never surer than its labels are; told
what share is wrong (ε, --label-noise), it learns the probability of the truth instead of the label's:

    P(label) = (1 - ε) σ(d) + ε σ(-d),    d = r_chosen - r_rejected

Beside its scores stand those of two judges that read nothing: one that always takes the shorter answer, and one that
gives every answer the same. With --labels shuffled a coin labels the pairs, and all that is left must be chance.
Sources: Ouyang et al. 2022, "InstructGPT", equation 1; Natarajan et al. 2013, "Learning with Noisy Labels", on ε.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.alignment.config import RewardConfig
from minigpt.alignment.controls import SHUFFLED_LABELS, told_controls
from minigpt.alignment.logprobs import right_padded
from minigpt.alignment.measures import calibration_error, correlation, interval, share, wins
from minigpt.alignment.preference_batches import (
    PairBatches,
    Sides,
    TokenPair,
    check_chats,
    in_order,
    open_pairs,
    rules_can_judge,
)
from minigpt.alignment.preference_losses import reward_loss
from minigpt.alignment.reward_model import load_reward_model, rewards, save_reward_model, with_scalar_head
from minigpt.batches.prefetch import Prefetch
from minigpt.lessons.preferences import score as gold_score
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained, read_config
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.stage import Loss, Metrics, Prepared, Stage, to_device


class AnswerRows(NamedTuple):
    """The chosen answers of B pairs, each behind its question, and below them the rejected ones."""

    ids: Tensor   # (2B, T) int64, padded on the right
    real: Tensor  # (2B, T) bool: no padding


def answer_rows(pairs: list[TokenPair]) -> AnswerRows:
    return AnswerRows(*right_padded([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]))


def noisy_reward_loss(chosen: Tensor, rejected: Tensor, *, label_noise: float, centering: float) -> Tensor:
    """Bradley-Terry for labels of which a share ε is wrong; without any, `reward_loss`.

        -ln((1 - ε) σ(d) + ε σ(-d)) + centering · (r_c + r_r)²,   d = r_c - r_r

    Shapes: rewards (B,) and (B,); returns (B,).
    """
    if not label_noise:
        return reward_loss(chosen, rejected, centering=centering)
    margin = chosen - rejected
    true, false = F.logsigmoid(margin) + math.log1p(-label_noise), F.logsigmoid(-margin) + math.log(label_noise)
    return -torch.logaddexp(true, false) + centering * (chosen + rejected).square()


# --- how good are its judgements? ---------------------------------------------------------------------------------


@torch.no_grad()
def judged(model: nn.Module, pairs: list[TokenPair], batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rewards of all chosen answers, and of all rejected ones. Returns (n,), (n,)."""
    both = []
    with evaluating(model):
        for chosen in in_order(len(pairs), batch_size):
            batch = to_device(answer_rows([pairs[i] for i in chosen]), device)
            both.append(rewards(model, *batch).cpu().view(2, -1))                          # (2, B)
    return torch.cat(both, dim=1).unbind()


def scores(chosen: Tensor, rejected: Tensor, pairs: list[TokenPair], settings: RewardConfig) -> Metrics:
    """What held-out pairs say about a reward model. Shapes: rewards (n,) and (n,).

    Where a label is known to be wrong, accuracy and calibration are asked of the truth, and of the labels beside it: a
    model that is as sure as noisy labels are is calibrated on these, and too modest about the truth.
    """
    margin = chosen - rejected                                                             # (n,)
    flipped = torch.tensor([pair.flipped for pair in pairs])                               # (n,)
    truth = 1 - 2 * flipped.long()                                                         # (n,): 1 or -1
    lengths = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in pairs])     # (n, 2)
    loss = noisy_reward_loss(chosen, rejected, label_noise=settings.label_noise, centering=settings.centering)
    rules = [pair.rule for pair in pairs]
    by_rule = {rule: torch.tensor([each == rule for each in rules]) for rule in dict.fromkeys(rules) if rule}  # (n,)
    return {
        "loss": float(loss.mean()),
        "accuracy": share(truth * margin),
        "interval": interval(wins(truth * margin)),
        **{f"accuracy: {rule}": share((truth * margin)[own]) for rule, own in by_rule.items()},
        "calibration_error": calibration_error(margin.sigmoid(), ~flipped),
        "accuracy_on_labels": share(margin),
        "calibration_error_on_labels": calibration_error(margin.sigmoid(), torch.ones_like(flipped)),
        "shorter_is_better": share(truth * (lengths[:, 1] - lengths[:, 0])),
        "length_correlation": correlation(torch.cat([chosen, rejected]), lengths.T.flatten()),
        "mean_reward": float(torch.cat([chosen, rejected]).mean()),
    }


def gold_scores(pairs: list[TokenPair]) -> Tensor:
    """The lessons' own rule for all chosen answers, then for all rejected ones: (2n,)."""
    return torch.tensor([gold_score(pair.messages.prompt[-1]["content"], answer[-1]["content"])
                         for side in (1, 2) for pair in pairs for answer in (pair.messages[side],)])  # fmt: skip


# --- the stage ----------------------------------------------------------------------------------------------------


def open_stage(
    run: RunConfig, settings: RewardConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """All that train.py needs: a base model with another head, pairs, stage.

    Raises: ValueError without --init, for a base without the tokens of a chat, for samples, which a model without
            logits cannot give; and what the pairs raise.
    """
    base = check_chats(run.init)
    if run.train.sample_every:
        raise ValueError(f"--sample-every {run.train.sample_every}: a reward model judges and writes nothing; use 0")
    tokenizer = Tokenizer.load(checkpoint or base)
    sides = open_pairs(run, settings.pairs, tokenizer, group)
    shape = replace(read_config(base), dropout=run.model.dropout, context_length=run.model.context_length)
    model = load_reward_model(checkpoint, shape) if checkpoint else with_scalar_head(load_pretrained(base, shape))
    model = model.to(group.device)
    control = ", their labels drawn by a coin" if settings.pairs.labels == "shuffled" else ""
    return Prepared(
        stage=prepare(run, settings, model, tokenizer, sides, group, dtype),
        trained=model,
        gpt=model,
        tokenizer=tokenizer,
        prompt=[],
        material=f"{len(sides.train):,} pairs ({settings.pairs.data}){control}, {len(sides.val):,} held out",
        epoch_tokens=None,
        outcome=outcome,
        try_it=f"python train.py dpo --init {run.init} --judge {run.out_dir}",
        rows="pairs",
        rows_each=2,
        beside=partial(beside, run, settings),
    )


def outcome(found: Metrics) -> list[str]:
    """The last scores in words, and beside them those of judges that read nothing."""
    gold = f", with the lessons' own rule {found['gold_correlation']:+.2f}" if "gold_correlation" in found else ""
    rules = {name.removeprefix("accuracy: "): value for name, value in found.items() if name.startswith("accuracy: ")}
    by_rule = ["  where they differ in one rule: " + ", ".join(f"{rule} {value:.1%}" for rule, value in rules.items())]
    return [
        f"held-out pairs: {found['accuracy']:.1%} ± {found['interval']:.1%} right, "
        f"calibration error {found['calibration_error']:.3f}"
        f" (against the labels, wrong ones among them: {found['accuracy_on_labels']:.1%} and "
        f"{found['calibration_error_on_labels']:.3f})",
        *(by_rule if rules else []),
        f"  controls: the shorter answer {found['shorter_is_better']:.1%}, the same reward for all 50.0%",
        f"  the reward's correlation with the length is {found['length_correlation']:+.2f}{gold}",
    ]


def beside(run: RunConfig, settings: RewardConfig) -> list[str]:
    """The control: labels that say nothing."""
    own = SHUFFLED_LABELS if settings.pairs.labels == "shuffled" else None
    return told_controls(run, (SHUFFLED_LABELS,), own,
                         lambda found: f"{found['accuracy']:.1%} ± {found['interval']:.1%} right")  # fmt: skip


def prepare(
    run: RunConfig,
    settings: RewardConfig,
    model: GPT,
    tokenizer: Tokenizer,
    sides: Sides,
    group: Group,
    dtype: torch.dtype,
) -> Stage:
    """Bradley-Terry as a stage, judged by held-out pairs."""
    loss_settings = {"label_noise": settings.label_noise, "centering": settings.centering}
    batches = PairBatches(len(sides.train), lambda places: answer_rows([sides.train[i] for i in places]),
                          batch_size=run.batches.batch_size, seed=run.machine.seed, rank=group.rank, world=group.world)
    gold = gold_scores(sides.val) if rules_can_judge(settings.pairs) else None  # (2n,)

    def objective(model: nn.Module, batch: AnswerRows) -> Loss:
        chosen, rejected = rewards(model, batch.ids, batch.real).chunk(2)                  # (B,), (B,)
        loss = noisy_reward_loss(chosen, rejected, **loss_settings).mean()                 # ()
        return Loss(loss, {"loss": loss.detach(), "accuracy": share(chosen - rejected)})

    def look(model: nn.Module, limit: int | None) -> Metrics:
        asked = sides.val if limit is None else sides.val[: limit * run.batches.batch_size]
        chosen, rejected = judged(model, asked, run.batches.batch_size, group.device)      # (n,), (n,)
        found = scores(chosen, rejected, asked, settings)
        if gold is not None and limit is None:
            found["gold_correlation"] = correlation(torch.cat([chosen, rejected]), gold)
        return found

    runnable = compile_model(mixed_precision(model, dtype), run.machine, group.device)
    save = partial(save_reward_model, model, tokenizer)
    return Stage(runnable, Prefetch(batches), objective, look, save)
