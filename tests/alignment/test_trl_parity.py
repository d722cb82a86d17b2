"""The same losses and gradients as TRL 1.16 on the same tensors: from goldens, and live where it is installed."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alignment.make_goldens import (
    END,
    GOLDENS,
    MAX_NEW_TOKENS,
    PAIRS,
    PREFERENCES,
    SHAPE,
    fill,
    goldens,
    inputs,
    plain,
    written,
)
from torch import Tensor

from minigpt.alignment.advantages import centred_advantages, group_advantages
from minigpt.alignment.kl import k3, ratio_weighted_k3
from minigpt.alignment.logprobs import averaged, completion_batch, entropy, model_logprobs, summed, token_logprobs
from minigpt.alignment.policy_losses import AGGREGATIONS, clipped_policy_loss, weighted_sum
from minigpt.alignment.preference_losses import (
    conservative_dpo_loss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    preference_margin,
    reward_loss,
    robust_dpo_loss,
)
from minigpt.batches.loader import IGNORED
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.hf_names import place

RECORDED = json.loads(GOLDENS.read_text(encoding="utf-8"))
OURS = {"sigmoid": dpo_loss, "hinge": hinge_loss, "ipo": ipo_loss, "robust": robust_dpo_loss,
        "aot_unpaired": conservative_dpo_loss}  # one pair at a time, TRL's aot_unpaired is conservative DPO
GIVEN = inputs()
MOST = 1e-6  # relative to the largest number


def strayed(ours: Tensor, theirs: Any) -> float:
    """The largest difference, relative to the largest number of theirs."""
    truth = torch.tensor(theirs, dtype=torch.float64)
    return ((ours.detach().double() - truth).abs().max() / truth.abs().max()).item()


def assert_like_trl(loss: Callable[[Tensor], Tensor], at: Tensor, golden: dict[str, Any], dtype: torch.dtype) -> None:
    point = at.to(dtype).requires_grad_()
    value = loss(point)
    assert strayed(value, golden["loss"]) <= MOST
    assert strayed(torch.autograd.grad(value, point)[0], golden["gradient"]) <= MOST


def in_dtype(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in given.items()}


def test_the_goldens_were_made_from_these_inputs():
    """The inputs are drawn by the same function on both sides; a changed one would compare other things."""
    assert RECORDED["given"] == plain(GIVEN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", PREFERENCES)
def test_preference_losses(kind, dtype):
    """IPO is where they differ if anywhere: TRL takes means over tokens, the paper's formula does not say so."""
    given = in_dtype(GIVEN["pairs"], dtype)
    mask = given["mask"]
    chosen_length, rejected_length = mask.sum(-1).chunk(2) if kind == "ipo" else (1, 1)

    def loss(logprobs: Tensor) -> Tensor:
        chosen, rejected = (averaged if kind == "ipo" else summed)(logprobs, mask).chunk(2)
        margin = preference_margin(chosen=chosen, rejected=rejected, ref_chosen=given["ref_chosen"] / chosen_length,
                                   ref_rejected=given["ref_rejected"] / rejected_length)  # fmt: skip
        return OURS[kind](margin, **PREFERENCES[kind]).mean()

    assert_like_trl(loss, given["logprobs"], RECORDED["dpo"][kind], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("centering", [0.0, 0.01])
def test_reward_loss(centering, dtype):
    """Bradley-Terry, alone and with the rewards' mean pulled to 0."""
    rewards = torch.cat([GIVEN["rewards"]["chosen"], GIVEN["rewards"]["rejected"]])
    golden = RECORDED["reward"][str(centering)]
    assert_like_trl(lambda r: reward_loss(*r.chunk(2), centering=centering).mean(), rewards, golden, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", ["none", "k3", "ratio_weighted_k3"])
@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_grpo_losses(kind, penalty, dtype):
    """TRL's default is the k3 term times the importance ratio: a textbook GRPO differs from it in the fourth digit."""
    given = in_dtype(GIVEN["answers"], dtype)
    weights = AGGREGATIONS[kind](given["mask"].to(dtype), MAX_NEW_TOKENS)

    def loss(logprobs: Tensor) -> Tensor:
        losses = clipped_policy_loss(logprobs, given["old"], given["advantages"][:, None], clip_high=0.28)
        if penalty == "k3":
            losses = losses + 0.04 * k3(logprobs, given["ref"])
        if penalty == "ratio_weighted_k3":
            losses = losses + 0.04 * ratio_weighted_k3(logprobs, given["old"], given["ref"])
        return weighted_sum(losses, weights)

    assert_like_trl(loss, given["logprobs"], RECORDED["grpo"][f"{kind} {penalty}"], dtype)


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_grpo_accumulated_over_micro_batches(kind):
    """Weights of the whole step are cut with its answers; "bnpo" alone makes them anew for each micro-batch."""
    given, mask = GIVEN["answers"], GIVEN["answers"]["mask"].double()
    whole = AGGREGATIONS[kind](mask, MAX_NEW_TOKENS)
    halves = torch.cat([AGGREGATIONS[kind](half, MAX_NEW_TOKENS) / 2 for half in mask.chunk(2)])

    def loss(logprobs: Tensor) -> Tensor:
        losses = clipped_policy_loss(logprobs, given["old"], given["advantages"][:, None], clip_high=0.28)
        return weighted_sum(losses, halves if kind == "bnpo" else whole)

    assert_like_trl(loss, given["logprobs"], RECORDED["grpo"][f"{kind} accumulated"], torch.float64)


@pytest.mark.parametrize(("scaled", "ours"), [("group", group_advantages), ("none", centred_advantages)])
def test_advantages_of_groups(scaled, ours):
    """Of one step of TRL's trainer; its second group has equal rewards."""
    rewards = torch.tensor(GIVEN["group_rewards"]).view(3, 4)
    assert strayed(ours(rewards).flatten(), RECORDED["advantages"][scaled]) <= MOST


def test_log_probabilities_and_entropy_at_a_temperature():
    """Both are of softmax(logits / temperature), and so are their gradients."""
    given, golden = GIVEN["tokens"], RECORDED["tokens"]
    logits = given["logits"].clone().requires_grad_()
    logprobs = token_logprobs(logits, given["targets"], temperature=given["temperature"])
    undecided = entropy(logits, temperature=given["temperature"])
    assert strayed(logprobs, golden["logprobs"]) <= MOST
    assert strayed(undecided, golden["entropy"]) <= MOST
    (logprobs.sum() + undecided.sum()).backward()
    assert strayed(logits.grad, golden["gradient"]) <= MOST


# --- all the way from tokens --------------------------------------------------------------------------------------


def same_llama(phase: int) -> GPT:
    """TRL's side runs transformers' Llama with these weights."""
    model = GPT(GPTConfig(
        vocab_size=SHAPE["vocab_size"], context_length=SHAPE["max_position_embeddings"], n_embd=SHAPE["hidden_size"],
        n_layer=SHAPE["num_hidden_layers"], n_head=SHAPE["num_attention_heads"], mlp_width=SHAPE["intermediate_size"],
        n_kv_head=SHAPE["num_key_value_heads"], qk_norm=False, tied=False,
    )).eval()  # fmt: skip
    fill(((place(name, "llama").key, parameter) for name, parameter in model.named_parameters()), phase)
    return model


def test_dpo_from_tokens():
    """TRL tokenizes, appends the end token (its padding, too), pads, shifts and masks: so must we."""
    prompts, chosen, rejected = ([written(text) for text in side] for side in zip(*PAIRS, strict=True))
    batch = completion_batch(prompts * 2, [[*answer, END] for answer in chosen + rejected])
    with torch.no_grad():
        policy, reference = (summed(model_logprobs(same_llama(phase), batch), batch.targets != IGNORED).chunk(2)
                             for phase in (0, 1))  # fmt: skip
    margin = preference_margin(chosen=policy[0], rejected=policy[1], ref_chosen=reference[0], ref_rejected=reference[1])
    assert strayed(dpo_loss(margin, beta=0.1).mean(), RECORDED["dpo"]["from_tokens"]) <= MOST


def test_a_policy_from_tokens():
    """TRL pads prompts on the left and gives positions for it; here nothing is padded on the left."""
    batch = completion_batch([written(p) for p, _, _ in PAIRS], [[*written(c), END] for _, c, _ in PAIRS])
    with torch.no_grad():
        logprobs = model_logprobs(same_llama(0), batch, temperature=0.8)
    for row, targets, golden in zip(logprobs, batch.targets, RECORDED["policy_from_tokens"], strict=True):
        assert strayed(row[targets != IGNORED], golden) <= MOST


def test_the_goldens_are_what_trl_gives_now():
    """Where TRL is installed, its trainers are asked again."""
    trl = pytest.importorskip("trl", reason="TRL is not installed; run with: pip install trl==1.16.0 datasets")
    pytest.importorskip("datasets", reason="TRL needs datasets; run with: pip install datasets")
    live = goldens()

    def compare(now: Any, then: Any, where: str) -> None:
        if isinstance(then, dict):
            assert now.keys() == then.keys(), where
            for key in then:
                compare(now[key], then[key], f"{where} {key}")
        elif isinstance(then, list):
            assert len(now) == len(then), where
            for n, t in zip(now, then, strict=True):
                compare(n, t, where)
        elif isinstance(then, float):
            assert math.isclose(now, then, rel_tol=MOST, abs_tol=MOST), f"TRL {trl.__version__}:{where}"

    compare(live, RECORDED | {"trl": live["trl"]}, "")
