"""Direct preference optimisation: the policy learns from pairs, and no reward model stands between.

    L = mean of loss(β · margin),   margin = (ln π - ln π_ref)(chosen) - (ln π - ln π_ref)(rejected)

with `preference_losses` for what a margin costs. The reference is the base model as it was: it never learns and never
drops out, so the policy begins at distance 0 from it. What it thinks of the pairs does not change, so that is computed
once and kept beside the run.

A margin also grows where the chosen answer becomes less likely and the rejected one even less; where the policy would
never have said either, it does, and what the policy then says is neither. So the chosen answer's own loss is added,
weighted, which keeps it likely (Pang et al. 2024, "Iterative Reasoning Preference Optimization", section 2). It helps
more to begin with a model that has such answers among its own, as the paper does: fine-tune on them first.

So what is asked of the result is not only whether it ranks held-out pairs, but what it says to held-out questions,
beside the reference's own answers, drawn with the same chance.
Source: Rafailov et al. 2023, "Direct Preference Optimization".
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from minigpt.alignment.comparison import Comparison, Rule, exact_match
from minigpt.alignment.config import DPOConfig
from minigpt.alignment.controls import SHUFFLED_LABELS, chosen_alone, told_controls
from minigpt.alignment.logprobs import frozen, model_logprobs, right_padded, summed
from minigpt.alignment.measures import share
from minigpt.alignment.preference_batches import (
    PairBatches,
    Sides,
    TokenPair,
    check_chats,
    in_order,
    open_pairs,
    rules_can_judge,
)
from minigpt.alignment.preference_losses import (
    conservative_dpo_loss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    preference_margin,
    robust_dpo_loss,
)
from minigpt.alignment.reward_model import load_reward_model, score_rows
from minigpt.batches.loader import IGNORED, Batch
from minigpt.batches.prefetch import Prefetch
from minigpt.chat.template import Template
from minigpt.engine.config import SamplingConfig
from minigpt.finetune.lora import base_digest
from minigpt.finetune.sft import QUESTION, load_chat_model, save_chat_model
from minigpt.lessons.preferences import is_correct
from minigpt.lessons.preferences import score as gold_score
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT
from minigpt.runtime.checkpoint import load_tensors, read_json, save_tensors
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.runtime.whole import replacing
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.run_folder import DATA, RECEIPT
from minigpt.training.stage import Loss, Metrics, Prepared, Stage, to_device

REFERENCE = "reference.safetensors"
LOSSES: dict[str, Callable[[Tensor, DPOConfig], Tensor]] = {
    "sigmoid": lambda margin, to: dpo_loss(margin, beta=to.beta),
    "ipo": lambda margin, to: ipo_loss(margin, beta=to.beta),
    "hinge": lambda margin, to: hinge_loss(margin, beta=to.beta),
    "conservative": lambda margin, to: conservative_dpo_loss(
        margin, beta=to.beta, label_smoothing=to.label_smoothing),
    "robust": lambda margin, to: robust_dpo_loss(margin, beta=to.beta, label_smoothing=to.label_smoothing),
    "none": lambda margin, to: torch.zeros_like(margin),
}  # fmt: skip


class DPOBatch(NamedTuple):
    """The chosen answers of B pairs, each behind its question, and below them the rejected ones."""

    ids: Tensor        # (2B, T) int64, padded on the right
    targets: Tensor    # (2B, T) int64: what the assistant says, else IGNORED
    reference: Tensor  # (2B,) float32: the reference's log-probability of each answer


def dpo_batch(pairs: list[TokenPair], reference: Tensor) -> DPOBatch:
    """Shapes: reference (B, 2), of chosen and rejected."""
    rows, _ = right_padded([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)])
    said, _ = right_padded([*(pair.said_chosen for pair in pairs), *(pair.said_rejected for pair in pairs)])
    targets = rows.masked_fill(said == 0, IGNORED)                               # (2B, T + 1)
    return DPOBatch(rows[:, :-1].contiguous(), targets[:, 1:].contiguous(), reference.T.flatten())


def compared(model: nn.Module, batch: DPOBatch, *, per_token: bool) -> tuple[Tensor, Tensor]:
    """(margins, losses of the chosen answers), (B,) each.

    By how much more than its reference the model prefers the chosen answer, in nats, or nats per token; and the mean
    loss of that answer's tokens.
    """
    mask = batch.targets != IGNORED                                              # (2B, T)
    answer = summed(model_logprobs(model, Batch(batch.ids, batch.targets, None)), mask)  # (2B,)
    size = mask.sum(-1) if per_token else torch.ones_like(answer)                # (2B,)
    (chosen, rejected), (ref_chosen, ref_rejected) = (answer / size).chunk(2), (batch.reference / size).chunk(2)
    margin = preference_margin(chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected)
    return margin, -(answer / mask.sum(-1)).chunk(2)[0]


def pair_losses(margin: Tensor, chosen: Tensor, settings: DPOConfig) -> Tensor:
    """What is descended, and what held-out pairs are judged by: the margin's cost, and the chosen answer's own loss.

    Shapes: margins (B,), losses of the chosen answers (B,); returns (B,).
    """
    return LOSSES[settings.loss](margin, settings) + settings.chosen_weight * chosen


# --- the reference ------------------------------------------------------------------------------------------------


@torch.no_grad()
def answer_logprobs(model: nn.Module, pairs: list[TokenPair], batch_size: int, device: torch.device) -> Tensor:
    """What a model thinks of both answers of each pair: (n, 2)."""
    found = torch.zeros(len(pairs), 2)
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].chosen))  # rows of a batch are then hardly padded
    for places in in_order(len(pairs), batch_size):
        chosen = [order[place] for place in places]
        batch = to_device(dpo_batch([pairs[i] for i in chosen], torch.zeros(len(chosen), 2)), device)
        logprobs = model_logprobs(model, Batch(batch.ids, batch.targets, None))  # (2B, T)
        found[chosen] = summed(logprobs, batch.targets != IGNORED).float().cpu().view(2, -1).T
    return found


def open_reference(
    reference: nn.Module, weights: str, sides: Sides, run: RunConfig, group: Group, *, begun: bool
) -> tuple[Tensor, Tensor]:
    """The reference's log-probabilities of both sides' pairs, (n, 2) each: computed once, then read.

    Raises: ValueError if a run that has `begun` would go on with another base model, whose digest is `weights`.
    """
    file = Path(run.out_dir) / DATA / REFERENCE

    def compute_once() -> None:
        made_of = read_json(file.with_name(RECEIPT))["pairs"] + " " + weights
        if file.exists():
            with safe_open(file, framework="pt") as opened:
                was = opened.metadata()
            if was == {"made_of": made_of}:
                return
            if begun:
                raise ValueError(f"{run.init} is not the model that {run.out_dir} began with; put that one back, "
                                 "choose another --out-dir, or --overwrite")  # fmt: skip
        found = {name: answer_logprobs(reference, side, run.batches.batch_size, group.device)
                 for name, side in zip(Sides._fields, sides, strict=True)}  # fmt: skip
        with replacing(file) as aside:
            save_tensors(aside, found, metadata={"made_of": made_of})

    group.main_decides(compute_once)
    found = load_tensors(file)
    return found["train"], found["val"]


# --- the stage ----------------------------------------------------------------------------------------------------


def open_stage(
    run: RunConfig, settings: DPOConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """All that train.py needs: policy, reference, pairs, judge, stage.

    Raises: ValueError without --init, for a base without the tokens of a chat; what pairs and reference raise.
    """
    base = check_chats(run.init)
    original, tokenizer = load_chat_model(base, run, tell=False)
    reference = frozen(original).to(group.device)
    gpt = (original if checkpoint is None else load_chat_model(checkpoint, run, tell=False)[0]).to(group.device)
    sides, template = open_pairs(run, settings.pairs, tokenizer, group), Template(tokenizer)
    known = open_reference(mixed_precision(reference, dtype), base_digest(reference), sides, run, group,
                           begun=checkpoint is not None)  # fmt: skip
    control = ", their labels drawn by a coin" if settings.pairs.labels == "shuffled" else ""
    judge = None if settings.judge is None else load_judge(Path(settings.judge), tokenizer, group.device)
    comparison = open_comparison(run, settings, reference, sides.val, template, judge)
    return Prepared(
        stage=prepare(run, settings, gpt, tokenizer, (sides, known), comparison, group, dtype),
        trained=gpt,
        gpt=gpt,
        tokenizer=tokenizer,
        prompt=template.prompt([{"role": "user", "content": QUESTION}]),
        material=f"{len(sides.train):,} pairs ({settings.pairs.data}){control}, {len(sides.val):,} held out",
        epoch_tokens=None,
        outcome=outcome,
        try_it=f"python -m minigpt chat {run.out_dir}",
        rows="pairs",
        rows_each=2,
        frozen=(reference,) if judge is None else (reference, judge),
        beside=partial(beside, run, settings),
    )


def open_comparison(
    run: RunConfig,
    settings: DPOConfig,
    reference: GPT,
    held_out: list[TokenPair],
    template: Template,
    judge: GPT | None,
) -> Comparison:
    """The held-out questions, each once, and what is known to judge answers to them; `judge`: a reward model."""
    rules: dict[str, Rule] = {}
    if rules_can_judge(settings.pairs):
        rules = {"gold": _by(gold_score), "right": _by(is_correct)}
    if judge is not None:
        rules["reward"] = lambda questions, said: score_rows(
            judge, [[*one.prompt, *one.tokens, template.end] for one in said])  # fmt: skip
    different = {str(pair.messages.prompt): pair.messages.prompt for pair in held_out}
    questions = list(different.values())[: settings.prompts]
    sampling = SamplingConfig(temperature=settings.temperature, max_new_tokens=settings.answer_tokens)
    return Comparison(reference, template, questions, rules, sampling, run.machine.seed)


def _by(judge: Callable[[str, str], float]) -> Rule:
    return lambda questions, said: [float(judge(question[-1]["content"], one.text))
                                    for question, one in zip(questions, said, strict=True)]  # fmt: skip


def load_judge(folder: Path, tokenizer: Tokenizer, device: torch.device) -> GPT:
    """The reward model of --judge. Raises: ValueError for what is none, and for one of another tokenizer."""
    if Tokenizer.load(folder).fingerprint != tokenizer.fingerprint:
        raise ValueError(f"--judge {folder} reads other tokens than the model: train it from the same base")
    return load_reward_model(folder).to(device)


def prepare(
    run: RunConfig,
    settings: DPOConfig,
    gpt: GPT,
    tokenizer: Tokenizer,
    data: tuple[Sides, tuple[Tensor, Tensor]],
    comparison: Comparison,
    group: Group,
    dtype: torch.dtype,
) -> Stage:
    """DPO as a stage, judged by held-out pairs and by its own answers. `data`: pairs, and what the reference thinks."""
    (train, val), (ref_train, ref_val) = data
    seed, batch_size = run.machine.seed, run.batches.batch_size
    solved_before = exact_match(comparison.reference, comparison.template, settings.problems, seed)
    batches = PairBatches(len(train), lambda places: dpo_batch([train[i] for i in places], ref_train[places]),
                          batch_size=batch_size, seed=seed, rank=group.rank, world=group.world)  # fmt: skip

    def objective(model: nn.Module, batch: DPOBatch) -> Loss:
        margin, chosen = compared(model, batch, per_token=settings.loss == "ipo")  # (B,), (B,)
        loss = pair_losses(margin, chosen, settings).mean()                                       # ()
        return Loss(loss, {"loss": loss.detach(), "accuracy": share(margin), "margin": margin.detach().mean(),
                           "chosen_loss": chosen.detach().mean()})  # fmt: skip

    @torch.no_grad()
    def look(model: nn.Module, limit: int | None) -> Metrics:
        asked = val if limit is None else val[: limit * batch_size]
        with evaluating(model):
            margin, chosen = torch.cat([
                torch.stack(compared(
                    model, to_device(dpo_batch([val[i] for i in places], ref_val[places]), group.device),
                    per_token=settings.loss == "ipo")).cpu()                     # (2, B)
                for places in in_order(len(asked), batch_size)
            ], dim=1)  # fmt: skip
        truth = torch.tensor([-1.0 if pair.flipped else 1.0 for pair in asked])  # (n,)
        found = {"loss": float(pair_losses(margin, chosen, settings).mean()), "accuracy": share(truth * margin)}
        found |= comparison.scores(gpt, None if limit is None else limit * batch_size)
        if limit is None and settings.problems:
            now = exact_match(gpt, comparison.template, settings.problems, seed)
            found |= {"solved_before": solved_before, "solved": now}
        return found

    model = compile_model(mixed_precision(gpt, dtype), run.machine, group.device)
    return Stage(model, Prefetch(batches), objective, look, lambda folder: save_chat_model(gpt, tokenizer, folder))


def outcome(found: Metrics) -> list[str]:
    """The last scores in words; beside each its value before, or that of chance."""
    lines = [f"held-out pairs: {found['accuracy']:.1%} ranked right (by chance 50.0%), loss {found['loss']:.4f}"]
    for rule, name in (("gold", "the lessons' own rule"), ("reward", "the reward model")):
        if f"{rule}_win_rate" in found:
            lines.append(f"its answers against the base model's, by {name}: {_won(found, rule)} (the same ones 50.0%), "
                         f"mean {found[f'{rule}_before']:.2f} -> {found[f'{rule}_now']:.2f}")  # fmt: skip
    if "right_now" in found:
        lines.append(f"  right answers: {found['right_before']:.1%} before, {found['right_now']:.1%} now")
    lines.append(f"  {found['kl_per_token']:.3f} nats per token from the base model; {found['answer_tokens']:.1f} "
                 f"tokens an answer, {found['ended']:.0%} ended by themselves")  # fmt: skip
    if "solved" in found:
        lines.append(f"  problems solved: {found['solved_before']:.1%} before, {found['solved']:.1%} now")
    return lines


def beside(run: RunConfig, settings: DPOConfig) -> list[str]:
    """The controls: labels that say nothing, and chosen answers alone."""
    chosen = chosen_alone(settings.chosen_weight)
    own = chosen if settings.loss == "none" else SHUFFLED_LABELS if settings.pairs.labels == "shuffled" else None
    return told_controls(run, (SHUFFLED_LABELS, chosen), own, _in_short)


def _won(found: Metrics, rule: str) -> str:
    return f"{found[f'{rule}_win_rate']:.1%} ± {found[f'{rule}_interval']:.1%} win"


def _in_short(found: Metrics) -> str:
    told = [f"{found['accuracy']:.1%} ranked right", *(_won(found, rule) for rule in ("gold", "reward")
                                                       if f"{rule}_win_rate" in found)]  # fmt: skip
    if "right_now" in found:
        told.append(f"{found['right_now']:.1%} right")
    return ", ".join([*told, f"{found['kl_per_token']:.3f} nats per token"])
