"""Real processes: killed without warning, interrupted, and working in pairs."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from scripts import TINY, some_text, start

from minigpt.runtime.checkpoint import file_digest, load_tensors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and gloo are tested on POSIX systems")


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "story.txt"
    file.write_text(some_text(4000), encoding="utf-8")
    return file


def command(text, out, *more):
    return ["train.py", "quick", *TINY, "--data", str(text), "--out-dir", str(out), *more]


def finish(*argv):
    process = start(*argv)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return err


def steps_taken(folder):
    file = folder / "metrics.jsonl"
    return file.read_text().count('"train"') if file.exists() else 0


def kill_and_resume(text, tmp_path, times, max_steps):
    """Run once in peace and once killed at random moments; returns both folders."""
    more = ("--max-steps", str(max_steps), "--dropout", "0.1", "--eval-every", "7")
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    finish(*command(text, calm, *more))
    chance = random.Random(0)
    for kill in range(times):
        process = start(*command(text, rough, *more))
        goal = max_steps * (kill + chance.random()) / times  # some step of this stretch
        while process.poll() is None and steps_taken(rough) < goal:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(*command(text, rough, *more))
    return calm, rough


def losses(folder):
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(event["step"], event["split"], event["loss"]) for event in events]


def assert_same_run(calm, rough):
    assert file_digest(calm / "model.safetensors") == file_digest(rough / "model.safetensors")
    assert losses(calm) == losses(rough)
    assert not list(rough.glob(".*")), "leftovers of the killed processes"


def test_a_run_killed_twice_ends_in_the_same_bits(text, tmp_path):
    """No signal handler runs on kill -9: only what was already safe on the disk counts."""
    assert_same_run(*kill_and_resume(text, tmp_path, times=2, max_steps=60))


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_in_the_same_bits(text, tmp_path):
    """The same, often: between the files of a checkpoint, during an evaluation, while data is prepared."""
    assert_same_run(*kill_and_resume(text, tmp_path, times=10, max_steps=400))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_sets_the_status(text, tmp_path, number, status):
    """What a shell script, a cluster and a person at the keyboard each rely on."""
    process = start(*command(text, tmp_path / "run", "--max-steps", "100000", "--save-every", "100000"))
    while process.poll() is None and steps_taken(tmp_path / "run") < 5:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "The same line goes on from here" in err
    [saved] = (tmp_path / "run").glob("checkpoint-*")
    assert int(saved.name.split("-")[1]) == steps_taken(tmp_path / "run")


def torchrun(*argv):
    return start("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0",
                 "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *argv)  # fmt: skip


@pytest.mark.parametrize(("dtype", "steps", "tolerance"), [("float64", 50, 1e-9), ("float32", 1, 1e-6)])
def test_two_processes_train_what_one_trains(text, tmp_path, dtype, steps, tolerance):
    """Each takes half of every batch and the gradients are averaged: the result is that of one process.

    In float64 to the end; in float32 the first loss and gradient norm (later ones drift apart by rounding).
    """
    more = ("--dtype", dtype, "--max-steps", str(steps), "--warmup-steps", "0", "--accumulate", "2")
    finish(*command(text, tmp_path / "one", *more))
    process = torchrun(*command(text, tmp_path / "two", *more))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for mine, theirs in zip(events(tmp_path / "one"), events(tmp_path / "two"), strict=True):
        assert (mine["step"], mine["split"]) == (theirs["step"], theirs["split"])
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=0, abs=tolerance)
        if "grad_norm" in mine:
            assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=0, abs=tolerance)
    if dtype == "float64":
        one, two = (load_tensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
        for name in one:
            assert one[name].dtype == torch.float64
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=tolerance)


def events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_stop_together(text, tmp_path):
    """Ctrl+C reaches them at different steps; a run in which one has stopped and one has not would hang."""
    process = torchrun(*command(text, tmp_path / "run", "--max-steps", "100000", "--save-every", "100000"))
    while process.poll() is None and steps_taken(tmp_path / "run") < 5:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert list((tmp_path / "run").glob("checkpoint-*")), "nothing was saved"
    assert process.returncode != 0


def test_a_mistake_in_a_pair_ends_both(tmp_path):
    """Rank 0 finds out that the data is missing; rank 1 must not wait for it for ever."""
    process = torchrun(*command(tmp_path / "nowhere.txt", tmp_path / "run"))
    try:
        _, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode != 0 and "nowhere.txt" in err
