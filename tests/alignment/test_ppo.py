"""Proximal policy optimisation as a stage: the critic, the kept distance, and what a run of it comes to."""

import shutil
from functools import partial

import pytest
import torch
from counted_bytes import counted_bytes
from vowels import opened, tokenizer

from minigpt.alignment.reward_model import save_reward_model, with_scalar_head
from minigpt.batches.loader import IGNORED
from minigpt.model.pretrained import load_pretrained
from minigpt.runtime.checkpoint import file_digest
from minigpt.runtime.logbook import read_events
from minigpt.training.estimate import standing

pytestmark = pytest.mark.usefixtures("vowels")


@pytest.fixture
def train(train_guessing):
    return partial(train_guessing, "ppo")


# --- a round ------------------------------------------------------------------------------------------------------


def test_before_the_first_step_nothing_is_expected_and_nothing_is_far(guessing):
    """The critic says 0, the distance is 0: returns are the rewards at all tokens, at γ = λ = 1."""
    _, prepared = opened("ppo", guessing, "--lam", "1", "--batch-size", "32")
    batch = next(prepared.stage.batches)
    assert torch.equal(batch.old_logprobs, batch.ref_logprobs) and not batch.old_values.any()
    mask = batch.targets != IGNORED
    assert set(batch.returns[mask].tolist()) == {0.0, 1.0}
    for returns, row in zip(batch.returns, mask, strict=True):
        assert len(set(returns[row].tolist())) == 1  # the answer's reward, at each of its tokens
    metrics = prepared.stage.objective(prepared.stage.model, batch).metrics
    assert metrics["kl"] < 1e-8 and metrics["kl_per_answer"] == 0 and metrics["clipped"] == 0


def test_what_the_critic_says_of_padding_and_prompt_does_not_count(guessing):
    """Trap: the value of pad positions. Advantages are whitened over the answers' tokens, and 0 elsewhere."""
    _, prepared = opened("ppo", guessing, "--batch-size", "32")
    torch.nn.init.normal_(prepared.trained.critic.lm_head.weight)  # a critic that says something everywhere
    batch = next(prepared.stage.batches)
    mask = batch.targets != IGNORED
    assert batch.old_values[~mask].any()
    assert not batch.advantages[~mask].any() and not batch.returns[~mask].any()
    torch.testing.assert_close(batch.advantages[mask].mean().item(), 0.0, rtol=0, atol=1e-5)
    torch.testing.assert_close(batch.advantages[mask].std().item(), 1.0, rtol=0, atol=1e-3)
    loss = prepared.stage.objective(prepared.stage.model, batch).value
    strayed = batch._replace(old_values=batch.old_values + 9.0 * ~mask, returns=batch.returns + 9.0 * ~mask)
    torch.testing.assert_close(prepared.stage.objective(prepared.stage.model, strayed).value, loss)


def test_the_critics_mistakes_do_not_reach_the_policy(guessing):
    """Why it is a model of its own: values are wrong for long, and the policy must not forget over them."""
    _, prepared = opened("ppo", guessing, "--batch-size", "32")
    batch = next(prepared.stage.batches)
    batch = batch._replace(advantages=torch.zeros_like(batch.advantages), returns=batch.returns + 3)
    prepared.stage.objective(prepared.stage.model, batch).value.backward()
    assert not any(parameter.grad.any() for parameter in prepared.gpt.parameters())
    assert prepared.trained.critic.lm_head.weight.grad.any()


@pytest.mark.parametrize(("scale", "direction"), [(1.0, -1), (0.0, 1)])
def test_the_price_of_distance_follows_the_distance(guessing, scale, direction):
    """Below the target it falls, above it rises; 10 % a round at most, whatever one wild round says."""
    _, prepared = opened("ppo", guessing, "--batch-size", "32")
    source = prepared.stage.batches.source
    source.policy.reference.lm_head.weight.data *= scale  # 0: a reference that finds all tokens equally likely
    next(prepared.stage.batches)
    assert source.state["kl_coefficient"] == pytest.approx(0.05 * (1 + 0.1 * direction))


@pytest.mark.parametrize("preset", ["ppo", "grpo"])
def test_the_estimate_of_memory_knows_of_critic_reference_and_judge(guessing, preset, tmp_path):
    """Each is as large as the policy; the critic has gradients and moments of its own."""
    save_reward_model(with_scalar_head(load_pretrained(guessing)), tokenizer(), tmp_path)
    run, prepared = opened(preset, guessing, "--reward", str(tmp_path))
    counted, _ = counted_bytes(prepared, run, next(prepared.stage.batches))
    policy = sum(weight.nbytes for weight in prepared.gpt.parameters())
    assert standing(prepared, run.optim, torch.float32) == counted
    judge = sum(weight.nbytes for weight in prepared.frozen[1].parameters())
    others = 5 + 4 * (preset == "ppo")  # weights, gradients, two moments, and the reference
    assert counted >= others * policy + judge


# --- a run --------------------------------------------------------------------------------------------------------


def test_right_answers_become_likelier_and_shuffled_rewards_teach_nothing(train, tmp_path):
    """A quarter of all guesses is right at first. Between the two runs only the rewards differ."""
    longer = ("--max-steps", "60", "--lr", "0.005", "--save-every", "60", "--kl-start", "0.01", "--kl-target", "1")
    assert train(*longer, "--reward", "shuffled", out="ppo-shuffled").status == 0
    result = train(*longer)
    assert result.status == 0, result.err
    taught, control = (read_events(tmp_path / out)[-1]["pass@1"] for out in ("ppo", "ppo-shuffled"))
    assert taught > 0.7 and control < 0.5
    first = read_events(tmp_path / "ppo")[0]
    assert {"reward", "pass_rate", "kl", "kl_per_answer", "kl_coefficient", "value_loss", "truncated"} <= first.keys()


def test_a_run_that_was_stopped_ends_in_the_same_bits(train, tmp_path):
    """Policy, critic, the price of distance and the answers of a round that was cut: all of it is in the checkpoint."""
    assert train().status == 0
    before = file_digest(tmp_path / "ppo" / "model.safetensors")
    critic = file_digest(tmp_path / "ppo" / "checkpoint-8" / "critic" / "critic.safetensors")
    shutil.rmtree(tmp_path / "ppo" / "checkpoint-8")
    result = train()
    assert result.status == 0 and file_digest(tmp_path / "ppo" / "model.safetensors") == before, result.err
    assert file_digest(tmp_path / "ppo" / "checkpoint-8" / "critic" / "critic.safetensors") == critic


def test_a_reward_model_is_followed(train, tmp_path, guessing):
    """Its reward is logged beside the verifier's, so that one sees when the two part."""
    model = with_scalar_head(load_pretrained(guessing))
    model.lm_head.weight.data *= 10
    (tmp_path / "judge").mkdir()
    save_reward_model(model, tokenizer(), tmp_path / "judge")
    result = train("--reward", tmp_path / "judge", "--max-steps", "40", "--lr", "0.005", "--kl-start", "0.01")
    assert result.status == 0, result.err
    events = [event for event in read_events(tmp_path / "ppo") if event["split"] == "train"]
    assert events[-1]["reward"] > events[0]["reward"] != events[0]["pass_rate"]


@pytest.mark.parametrize(("argv", "message"), [
    (["--kl-target", "0"], "--kl-target 0.0: needs a number above 0"),
    (["--lam", "1.5"], "--lam 1.5: must be from 0 to 1"),
    (["--kl-gain", "-1"], "--kl-gain -1.0"),
    (["--dropout", "0.1"], "--dropout 0.1"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(train, argv, message):
    """With the numbers, and what would work."""
    result = train(*argv)
    assert result.status == 2 and message in result.err, result.err
