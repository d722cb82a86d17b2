"""Lines about the trainings beside a run. (That their commands work is shown by a run, in test_grpo.)"""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt import presets
from minigpt.alignment import controls, dpo
from minigpt.alignment.config import RolloutConfig
from minigpt.runtime.logbook import Logbook
from minigpt.training.run_folder import write_run

BEFORE = {"pass@1": 0.25, "interval": 0.02}
AFTER = {"pass@1": 0.75, "interval": 0.01}


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The lines about a run of 60 seconds at 4,096 tokens per second, whose examples took `took` for 50 steps.

    Each of its steps has written its answers first, which took three quarters of the time.
    """

    def lines(took=None, reward="verifier", name="grpo", **machine):
        run = replaced(presets.grpo(), out_dir=f"{tmp_path / name}/", init="base", machine=machine)
        recorded(run, "train")
        if took:
            recorded(copying(tmp_path / "grpo-sft", "letters,sort digits"), "final")
        seconds = {name: 60.0, "grpo-sft": took}
        monkeypatch.setattr(controls, "_seconds", lambda folder: seconds[folder.name])
        monkeypatch.setattr(controls, "newest_whole", lambda folder: folder / "checkpoint-50")
        monkeypatch.setattr(controls, "read_state", lambda _: {"progress": {"step": 50}})
        monkeypatch.setattr("sys.argv", ["train.py", "grpo", "--reward=verifier", "--out-dir", "x", "--lr", "1"])
        config = RolloutConfig(problems="letters,sort digits", reward=reward)
        return controls.told_reward_controls(run, config, BEFORE, lambda folder: AFTER)

    return lines


def recorded(run, split, step=50, **scores):
    """A folder with the settings of a run, and one event."""
    write_run(run)
    log = Logbook(Path(run.out_dir), after_step=run.train.max_steps)
    log.record(step, split, tokens=50 * 4096, tok_per_s=1024.0, waited=3.0, **scores)


def copying(folder, problems, steps=50):
    """The run that copies examples."""
    run = presets.sft()
    return replace(run, out_dir=str(folder), init="base", stage=replace(run.stage, data=problems, replay=0.0),
                   train=replace(run.train, max_steps=steps))  # fmt: skip


def replaced(run, machine, **more):
    return replace(run, machine=replace(run.machine, **machine), model=replace(run.model, context_length=64), **more)


def test_what_is_missing_is_told_with_the_line_that_makes_it(told, tmp_path):
    """The flags of this run, less those that differ; for examples, as many steps as its tokens a second allow."""
    lines = told(threads=1)
    assert lines[1::2] == [
        "    python train.py sft --init base --data 'letters,sort digits' --replay 0 --batch-size 8 "
        f"--max-steps 480 --out-dir {tmp_path}/grpo-sft --threads 1",
        f"    python train.py grpo --lr 1 --reward shuffled --out-dir {tmp_path}/grpo-shuffled",
        f"    python train.py grpo --lr 1 --reward constant --out-dir {tmp_path}/grpo-constant",
    ]


def test_a_control_tells_of_the_others(told, tmp_path):
    """Not of itself; its own control would be shuffled-shuffled."""
    lines = told(reward="shuffled", name="grpo-shuffled")
    assert "this is a control: rewards shuffled" in lines[2] and not any("grpo-shuffled" in line for line in lines)
    assert f"{tmp_path}/grpo-sft" in lines[1] and f"{tmp_path}/grpo-constant" in lines[4]


@pytest.mark.parametrize(("took", "steps"), [(55.0, None), (30.0, 100), (120.0, 25)])
def test_examples_are_given_the_same_time(told, took, steps):
    """The first guess may be wrong; once it has been tried, the steps for the same time are known."""
    lines = told(took)
    assert lines[0].endswith(f"for {took / 60:.1f} minutes, this run 1.0: pass@1 0.750 ± 0.010 (+0.500)")
    again = [line for line in lines if line.endswith("--overwrite")]
    assert len(again) == (steps is not None) and all(f"--max-steps {steps} " in line for line in again)


def test_examples_of_other_problems_are_not_told(told, tmp_path):
    """They stand in the folder that these would take."""
    recorded(copying(tmp_path / "grpo-sft", "digits"), "final")
    lines = told()
    assert lines[0].endswith(f"{tmp_path}/grpo-sft holds that of another run:") and lines[1].endswith("--overwrite")


# --- pairs --------------------------------------------------------------------------------------------------------

SCORES = {"accuracy": 0.75, "kl_per_token": 0.125}


@pytest.fixture
def told_pairs(tmp_path, monkeypatch, text_model):
    """The lines about a run of dpo with these flags, whose last scores are these."""

    def lines(*argv, out="dpo", **scores):
        argv = ["dpo", "--init", str(text_model), "--out-dir", str(tmp_path / out), *argv]
        monkeypatch.setattr("sys.argv", ["train.py", *argv])
        run = presets.from_command_line(argv)
        recorded(run, "train")
        if scores:
            recorded(run, "final", run.train.max_steps, **scores)
        return dpo.beside(run, run.stage)

    return lines


def printed(lines):
    return [shlex.split(line)[2:] for line in lines if line.startswith("    python train.py")]


@pytest.mark.parametrize("argv", [
    [], ["--loss", "ipo"], ["--loss", "conservative", "--label-smoothing", "0.1"], ["--chosen-weight", "0"],
    ["--loss=robust", "--label_smoothing=0.2", "--chosen_weight=0", "--labels", "given"],
])  # fmt: skip
def test_what_is_printed_is_a_line_that_works(told_pairs, argv):
    """Settings that only the run's own loss can have are replaced, too; the others stay."""
    shuffled, chosen = (presets.from_command_line(line) for line in printed(told_pairs(*argv, "--beta", "0.7")))
    assert shuffled.stage.pairs.labels == "shuffled" and chosen.stage.loss == "none" != shuffled.stage.loss
    assert shuffled.stage.beta == chosen.stage.beta == 0.7 and chosen.stage.pairs.labels == "given"


def test_a_control_is_found_by_its_settings(told_pairs, monkeypatch):
    """With the smoothing and the weight that the copying cannot have: run and controls tell of each other."""
    flags = ("--loss", "robust", "--label-smoothing", "0.1", "--chosen-weight", "0")
    for argv in printed(told_pairs(*flags, **SCORES)):
        run = presets.from_command_line(argv)
        recorded(run, "train")
        recorded(run, "final", run.train.max_steps, **SCORES)
    own = dpo.beside(run, run.stage)
    assert "this is a control: chosen" in own[0] and "what it controls" in own[1] and "75.0%" in own[2]
    lines = told_pairs(*flags, **SCORES)
    assert len(lines) == 2 and all("75.0% ranked right" in line for line in lines)


def test_a_control_of_other_settings_is_not_told(told_pairs):
    """Trap: beta 0.5 with its controls, then beta 0.1 in the same folder; the old ones would stand beside it."""
    told_pairs("--labels", "shuffled", out="dpo-shuffled", **SCORES)
    assert "75.0%" in told_pairs()[0]
    lines = told_pairs("--beta", "0.1")
    assert lines[0].endswith("/dpo-shuffled holds that of another run:") and lines[1].endswith(" --overwrite")


def test_a_control_that_is_being_made_longer_has_no_scores_yet(told_pairs):
    """Those in its logbook are of half the steps."""
    told_pairs("--labels", "shuffled", out="dpo-shuffled", **SCORES)
    told_pairs("--labels", "shuffled", "--max-steps", "600", out="dpo-shuffled")
    lines = told_pairs("--max-steps", "600")
    assert lines[0].endswith("not run yet:") and not lines[1].endswith("--overwrite")


def test_copied_answers_cannot_know_the_loss_they_are_compared_with(told_pairs, tmp_path):
    """They replaced it: a line that shuffles labels would be of another loss than the run's."""
    lines = told_pairs("--loss", "none", out="dpo-chosen")
    assert lines[1:] == ["  control: labels drawn by a coin: not run yet; the line stands behind the scores of "
                         f"{tmp_path / 'dpo'}"]  # fmt: skip
