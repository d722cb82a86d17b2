"""Log-probabilities: of the right token, of the right model, at the right temperature, and of nothing else."""

import math

import pytest
import torch
from small_gpt import VARIANTS, VOCAB, asked, finished, made_gpt
from torch import nn

from minigpt.alignment.kl import exact_kl
from minigpt.alignment.logprobs import (
    averaged,
    completion_batch,
    entropy,
    frozen,
    log_distribution,
    model_logprobs,
    right_padded,
    summed,
    token_logprobs,
)
from minigpt.batches.loader import IGNORED
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.sampling import filtered

END = 0  # and what rows are padded with
PROMPTS = [[5, 6], [7], [8, 9, 10]]
COMPLETIONS = [[11, 12, 13, END], [14, END], [15, 16, 17]]


def test_the_prompts_last_token_predicts_the_answers_first():
    """Shifted by one, every number would be of another token, and still look like a log-probability."""
    batch = completion_batch([[1, 2]], [[3, 4]])
    assert batch.ids.tolist() == [[1, 2, 3]]
    assert batch.targets.tolist() == [[IGNORED, 3, 4]]


def test_only_completions_are_targets():
    """Not the prompt, not the padding; an end token that equals the padding is one, or no model would learn to end."""
    assert completion_batch(PROMPTS, COMPLETIONS).targets.tolist() == [
        [-100, 11, 12, 13, END],
        [14, END, -100, -100, -100],
        [-100, -100, 15, 16, 17],
    ]


@pytest.mark.parametrize(("prompts", "completions"), [([[1], []], [[2], [3]]), ([[1], [2]], [[3], []])])
def test_a_row_with_nothing_to_learn_is_refused(prompts, completions):
    """Without a prompt there is no token that the first could be predicted from; and a row needs a target."""
    with pytest.raises(ValueError, match="row 1 has"):
        completion_batch(prompts, completions)


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_no_tokens_are_refused(sequences):
    """A reward model would read a padding."""
    with pytest.raises(ValueError, match="must hold a token"):
        right_padded(sequences)


def test_lengths_decide_what_is_padding():
    """Never a token id: the end token is the same number."""
    ids, real = right_padded([[3, END], [4, 5, END]])
    assert ids.tolist() == [[3, END, 0], [4, 5, END]]
    assert real.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_each_number_is_what_the_model_says_after_that_prefix(temperature):
    """The slow twin: one prefix at a time, the last place, the next token."""
    gpt, batch = made_gpt(), completion_batch(PROMPTS, COMPLETIONS)
    fast = model_logprobs(gpt, batch, temperature=temperature)
    for row, prompt, completion in zip(fast, PROMPTS, COMPLETIONS, strict=True):
        slow = torch.zeros_like(row)
        for n, token in enumerate(completion):
            logits = gpt(torch.tensor([prompt + completion[:n]]))[0, -1]
            slow[len(prompt) - 1 + n] = (logits / temperature).softmax(-1)[token].log()
        torch.testing.assert_close(row, slow)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant):
    """On the left it would be seen, and move every position."""
    gpt = made_gpt(**VARIANTS[variant])
    together = model_logprobs(gpt, completion_batch(PROMPTS, COMPLETIONS), temperature=0.7)
    for row, prompt, completion in zip(together, PROMPTS, COMPLETIONS, strict=True):
        alone = model_logprobs(gpt, completion_batch([prompt], [completion]), temperature=0.7)[0]
        torch.testing.assert_close(row[: len(alone)], alone)


def test_the_distribution_is_the_one_that_is_sampled_from():
    """Drawn at 0.7 and judged at 1, a token has the log-probability of a policy that nobody ran."""
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    drawn_from = filtered(logits, SamplingConfig(temperature=0.7)).log_softmax(-1)
    torch.testing.assert_close(log_distribution(logits, temperature=0.7), drawn_from)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_without_a_distribution_is_refused(temperature):
    """At 0 the likeliest token is certain, and every other has -inf."""
    with pytest.raises(ValueError, match="above 0"):
        log_distribution(torch.zeros(1, 3), temperature=temperature)


def test_both_ways_to_a_models_logprobs_agree():
    """At temperature 1 they come from its losses, without logits: values and gradients are the same."""
    batch, found = completion_batch(PROMPTS, COMPLETIONS), []
    for way in (model_logprobs, lambda gpt, batch: token_logprobs(gpt(batch.ids), batch.targets)):
        gpt = made_gpt()
        logprobs = way(gpt, batch)
        logprobs.sum().backward()
        found.append((logprobs.detach(), gpt.token_embedding.weight.grad))
    torch.testing.assert_close(*found)


def test_the_engine_and_the_trainer_see_the_same_policy():
    """Cache, lanes and pages against one forward pass: the ratio of the first inner step is 1 within 1e-4."""
    gpt = made_gpt(context_length=32).float()
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=8)
    requests = [asked(prompt, seed, sampling, logprobs=0) for seed, prompt in enumerate(PROMPTS)]
    answers = finished(Engine(gpt, EngineConfig(max_batch=3)), requests)
    batch = completion_batch(PROMPTS, [answer.tokens for answer in answers])
    with torch.no_grad():
        ours = model_logprobs(gpt, batch)
    for row, targets, answer in zip(ours, batch.targets, answers, strict=True):
        theirs = torch.tensor([logprob.chosen for logprob in answer.logprobs])
        assert (row[targets != IGNORED] - theirs).abs().max() < 1e-4


def test_the_reference_is_at_distance_0_and_stays_where_it_is():
    """A reference with dropout, or one that learns with the policy, would measure nothing."""
    gpt, ids = made_gpt(dropout=0.5).train(), torch.tensor([PROMPTS[2]])
    reference = frozen(gpt)
    gpt.eval()
    assert exact_kl(gpt(ids), reference(ids)).abs().max() == 0
    gpt.train()
    before = reference(ids)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter += 1.0
    assert torch.equal(reference(ids), before)
    assert not before.requires_grad
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_entropy_of_certainty_and_of_ignorance():
    """0, and log V."""
    logits = torch.stack([torch.zeros(VOCAB), 100.0 * nn.functional.one_hot(torch.tensor(3), VOCAB)])
    torch.testing.assert_close(entropy(logits), torch.tensor([math.log(VOCAB), 0.0]))
    hot = entropy(torch.randn(VOCAB), temperature=1000.0)
    torch.testing.assert_close(hot, torch.tensor(math.log(VOCAB)), atol=1e-4, rtol=0)


def test_sums_and_means_are_of_the_marked_places():
    """A number in the padding must not count, nor its place."""
    logprobs = torch.tensor([[-1.0, -2.0, -9.0], [-9.0, -4.0, -6.0]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert summed(logprobs, mask).tolist() == [-3.0, -10.0]
    assert averaged(logprobs, mask).tolist() == [-1.5, -5.0]


def test_half_precision_is_widened_first():
    """bfloat16 has 8 bits: a log-probability of -5.01 would be -5."""
    logits, targets = torch.randn(4, 9, generator=torch.Generator().manual_seed(1)).bfloat16(), torch.arange(4)
    torch.testing.assert_close(token_logprobs(logits, targets), token_logprobs(logits.float(), targets), rtol=0, atol=0)
