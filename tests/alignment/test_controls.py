"""Lines about the trainings beside a run. (That their commands work is shown by a run, in test_grpo.)"""

from dataclasses import replace

import pytest

from minigpt.alignment import controls
from minigpt.alignment.config import RolloutConfig
from minigpt.presets import grpo
from minigpt.runtime.logbook import Logbook

BEFORE = {"pass@1": 0.25, "interval": 0.02}
AFTER = {"pass@1": 0.75, "interval": 0.01}


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The lines about a run of 60 seconds at 4,096 tokens per second, whose examples took `took` for 50 steps.

    Each of its steps has written its answers first, which took three quarters of the time.
    """

    def lines(took=None, reward="verifier", name="grpo", **machine):
        for folder, split in ((name, "train"), *([("grpo-sft", "final")] if took else [])):
            (tmp_path / folder).mkdir(exist_ok=True)
            Logbook(tmp_path / folder).record(50, split, tokens=50 * 4096, tok_per_s=1024.0, waited=3.0)
        seconds = {name: 60.0, "grpo-sft": took}
        monkeypatch.setattr(controls, "_seconds", lambda folder: seconds[folder.name])
        monkeypatch.setattr(controls, "newest_whole", lambda folder: folder / "checkpoint-50")
        monkeypatch.setattr(controls, "read_state", lambda _: {"progress": {"step": 50}})
        monkeypatch.setattr("sys.argv", ["train.py", "grpo", "--reward=verifier", "--out-dir", "x", "--lr", "1"])
        run = replaced(grpo(), out_dir=f"{tmp_path / name}/", init="base", machine=machine)
        config = RolloutConfig(problems="letters,sort digits", reward=reward)
        return controls.told_reward_controls(run, config, BEFORE, lambda folder: AFTER)

    return lines


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
