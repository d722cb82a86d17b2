"""Group relative policy optimisation as a stage: groups, signal, and what a run of it comes to."""

import math
import shlex
import shutil
from functools import partial

import pytest
import torch
from scripts import run_script
from vowels import opened

from minigpt.alignment.judges import Judge
from minigpt.alignment.logprobs import token_logprobs
from minigpt.alignment.rollouts import Experience
from minigpt.runtime.checkpoint import file_digest
from minigpt.runtime.logbook import read_events

pytestmark = pytest.mark.usefixtures("vowels")


@pytest.fixture
def train(train_guessing):
    return partial(train_guessing, "grpo")


def judged_by(monkeypatch, rewards):
    """A verifier that hands out these rewards, again and again; returns how often it was asked."""
    asked = []

    def judge(answers):
        asked.append(len(answers))
        return torch.tensor(rewards).repeat(len(answers) // len(rewards) + 1)[: len(answers)]

    monkeypatch.setattr("minigpt.alignment.policy_stage.open_judge", lambda *_: Judge(judge))
    return asked


# --- a round ------------------------------------------------------------------------------------------------------


def test_before_the_first_step_there_is_no_distance_and_every_ratio_is_one(guessing):
    """Traps: a reference that is another model, old log-probabilities of the engine or another temperature.

    Then L = -Σ w A, for answers of one length the mean advantage: 0.
    """
    run, prepared = opened("grpo", guessing, "--temperature", "0.7")
    batch = next(prepared.stage.batches)
    assert torch.equal(batch.old_logprobs, batch.ref_logprobs)
    metrics = prepared.stage.objective(prepared.stage.model, batch).metrics
    assert metrics["kl"] < 1e-8 and metrics["clipped"] == 0
    now = token_logprobs(prepared.gpt(batch.ids), batch.targets, temperature=0.7)
    assert ((now - batch.old_logprobs).exp() - 1).abs().max() < 1e-4
    assert run.stage.rollouts.temperature == 0.7


def test_an_answer_is_compared_with_those_to_the_same_problem(guessing, monkeypatch):
    """Trap: normalised across prompts. The one wrong answer stands out, and the one right one."""
    easy, hard = [0.0] + [1.0] * 7, [1.0] + [0.0] * 7
    judged_by(monkeypatch, easy + hard)
    _, prepared = opened("grpo", guessing, "--batch-size", "32")
    loader = prepared.stage.batches
    next(loader)
    found = loader.round.advantages.view(4, 8)
    worst, best = -(1 - 1 / 8) / (math.sqrt(1 / 8) + 1e-4), (1 - 1 / 8) / (math.sqrt(1 / 8) + 1e-4)
    torch.testing.assert_close(found[0, 0].item(), worst)
    torch.testing.assert_close(found[1, 0].item(), best)
    assert found.sum(1).abs().max() < 1e-4


def test_equal_rewards_teach_nothing_and_are_no_nan(guessing):
    """Trap: 0 / 0. And the search for signal ends: 4 problems, redrawn twice."""
    _, prepared = opened("grpo", guessing, "--reward", "constant", "--batch-size", "32")
    batch = next(prepared.stage.batches)
    loss = prepared.stage.objective(prepared.stage.model, batch)
    assert not batch.advantages.any() and loss.value.abs() < 1e-6 and loss.metrics["without_signal"] == 1
    assert prepared.stage.batches.state_dict()["drawn"] == 12


def test_problems_without_signal_are_replaced(guessing, monkeypatch):
    """Dynamic sampling: half of the groups say nothing, so 2 and then 1 are drawn again, and counted."""
    asked = judged_by(monkeypatch, [1.0] * 8 + [0.0, 1.0] * 4)
    _, prepared = opened("grpo", guessing, "--batch-size", "32")
    batch = next(prepared.stage.batches)
    assert asked == [32, 16, 8] and batch.ids.size(0) == 32
    assert prepared.stage.batches.state_dict()["drawn"] == 7
    silent = (batch.advantages == 0).sum().item()
    assert silent == 8  # one group of four is still without
    assert batch.figures[0, -1].item() == pytest.approx(4 / 7)


def test_nothing_is_replaced_where_nobody_asks_for_it(guessing):
    """--redraws 0: the share without signal is then that of the problems themselves."""
    _, prepared = opened("grpo", guessing, "--redraws", "0", "--batch-size", "32")
    next(prepared.stage.batches)
    assert prepared.stage.batches.state_dict()["drawn"] == 4


def test_micro_batches_add_up_to_the_step(guessing):
    """Two of 8 answers have the gradient of one of 16."""
    found = []
    for argv in (("--batch-size", "16"), ("--batch-size", "8", "--accumulate", "2")):
        run, prepared = opened("grpo", guessing, *argv)
        for _ in range(run.train.accumulate):
            batch = next(prepared.stage.batches)
            (prepared.stage.objective(prepared.stage.model, batch).value / run.train.accumulate).backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in prepared.gpt.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kl", ["k3", "ratio_weighted_k3"])
def test_both_distances_pull_back_to_the_reference(guessing, kl):
    """Without any advantage the loss is the distance alone, and it falls."""
    _, prepared = opened("grpo", guessing, "--reward", "constant", "--kl", kl, "--kl-coefficient", "1")
    batch = next(prepared.stage.batches)
    batch = batch._replace(ref_logprobs=batch.ref_logprobs - 0.5 * batch.mask)
    loss = prepared.stage.objective(prepared.stage.model, batch)
    assert loss.value.item() == pytest.approx(math.exp(-0.5) - 0.5, abs=1e-4)
    assert isinstance(batch, Experience)


# --- a run --------------------------------------------------------------------------------------------------------


def test_right_answers_become_likelier_and_shuffled_rewards_teach_nothing(train, tmp_path):
    """A quarter of all guesses is right at first. Between the two runs only the rewards differ."""
    longer = ("--max-steps", "40", "--lr", "0.01", "--save-every", "40")
    result = train(*longer, "--reward", "shuffled", out="grpo-shuffled")
    assert result.status == 0 and "this is a control" in result.err, result.err
    result = train(*longer)
    assert result.status == 0, result.err
    taught, control = (read_events(tmp_path / out)[-1]["pass@1"] for out in ("grpo", "grpo-shuffled"))
    assert taught > 0.8 and control < 0.5
    assert f"rewards shuffled: pass@1 {control:.3f}" in result.err and "--reward constant" in result.err
    first = read_events(tmp_path / "grpo")[0]
    assert {"reward", "pass_rate", "kl", "entropy", "clipped", "truncated", "without_signal"} <= first.keys()
    assert 0.1 < first["pass_rate"] < 0.45 and first["reward"] == first["pass_rate"]


def test_a_run_prints_the_lines_that_make_its_controls(train, tmp_path, monkeypatch):
    """And they do, in their order; the last tells of all, compared on the same problems.

    A step is told in answers: none has as many tokens as the context.
    """
    result = train()
    assert "8 steps of 16 answers, into" in result.err
    printed = [shlex.split(line)[2:] for line in result.err.splitlines() if line.startswith("    python train.py")]
    assert [argv[0] for argv in printed] == ["sft", "grpo", "grpo"]
    for argv in printed:
        result = run_script("train.py", argv, monkeypatch)
        assert result.status == 0, result.err
    final = read_events(tmp_path / "grpo")[-1]
    assert f"what it controls, {tmp_path / 'grpo'}: pass@1 {final['pass@1']:.3f}" in result.err
    assert "this is a control: rewards constant" in result.err and "rewards shuffled: pass@1" in result.err
    assert "copied examples (SFT on gold) for" in result.err and "not run yet" not in result.err


def test_a_run_that_was_stopped_ends_in_the_same_bits(train, tmp_path):
    """A checkpoint of step 6 lies within a round of four steps: its answers are those of weights that are gone."""
    assert train().status == 0
    before = file_digest(tmp_path / "grpo" / "model.safetensors")
    shutil.rmtree(tmp_path / "grpo" / "checkpoint-8")
    assert (tmp_path / "grpo" / "checkpoint-6" / "rollouts" / "round.safetensors").exists()
    result = train()
    assert result.status == 0 and file_digest(tmp_path / "grpo" / "model.safetensors") == before, result.err


@pytest.mark.parametrize(("argv", "message"), [
    (["--init", "none"], "name its folder with --init"),
    (["--dropout", "0.1"], "--dropout 0.1: two passes over an answer"),
    (["--group", "1"], "--group 1: an answer alone"),
    (["--temperature", "0"], "--temperature 0.0: answers must be drawn"),
    (["--problems", "vowels"], "did you mean vowel"),
    (["--problems", " "], "must not be empty"),
    (["--reward", "nowhere"], "--reward nowhere: there is no such folder"),
    (["--batch-size", "12"], "4 · 8 = 32 answers, and a step learns from 12"),
    (["--max-new-tokens", "40"], "choose a smaller --max-new-tokens"),
    (["--clip-low", "-1"], "--clip-low -1.0"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(train, tmp_path, argv, message):
    """And no folder with half a run in it."""
    result = train(*argv)
    assert result.status == 2 and message in result.err, result.err
    assert not (tmp_path / "grpo").exists()
