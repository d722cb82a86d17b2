"""logbook, seeding, interrupt, console, device, doctor: small files, one page of tests."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minigpt.runtime import console, device, doctor, seeding
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.interrupt import Interrupt
from minigpt.runtime.logbook import Logbook, last_scores, read_events


def test_a_resumed_run_rewrites_what_came_after_its_checkpoint(tmp_path):
    """Steps 3 and 4 were lost in a crash and will be taken again: they must not stand in the file twice."""
    log = Logbook(tmp_path)
    for step in (1, 2, 3, 4):
        log.record(step, "train", loss=1 / step)
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 5, "los')  # cut short by the crash
    Logbook(tmp_path, after_step=2).record(3, "train", loss=9.0)
    assert [(event["step"], event["loss"]) for event in read_events(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 9.0)]


def test_every_line_is_json_that_any_reader_accepts(tmp_path):
    """JSON has no NaN; Python would write one, and other readers would stop there."""
    Logbook(tmp_path).record(1, "train", loss=float("nan"), lr=1 / 3)
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "split": "train", "loss": None, "lr": 1 / 3}


def test_the_last_scores_are_those_of_the_newest_final_look(tmp_path):
    """A run that was made longer has a final look in its middle, too; one that is on its way has none."""
    assert last_scores(tmp_path) is None
    log = Logbook(tmp_path)
    for step, split in ((1, "train"), (1, "val"), (2, "final"), (4, "final"), (5, "train")):
        log.record(step, split, loss=1 / step)
        assert (last_scores(tmp_path) is None) == (step == 1)
    assert last_scores(tmp_path)["step"] == 4


def test_only_the_main_process_writes(tmp_path):
    """Two writers would tear each other's lines."""
    Logbook(tmp_path, enabled=False).record(1, "train", loss=1.0)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_step_draws_the_same_numbers_whatever_came_before():
    """This is why no random state has to be saved."""
    seeding.seed_step(1, 7, 0)
    first = torch.rand(3)
    torch.rand(100)
    seeding.seed_step(1, 7, 0)
    assert torch.equal(first, torch.rand(3))
    for other in ((2, 7, 0), (1, 8, 0), (1, 7, 1)):
        seeding.seed_step(*other)
        assert not torch.equal(first, torch.rand(3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_old_handler_comes_back(number):
    """The step is finished and saved first; after the loop, Ctrl+C means what it always meant."""
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert interrupt.signal == 0
        os.kill(os.getpid(), number)
        assert interrupt.signal == number
        os.kill(os.getpid(), signal.SIGINT)  # torchrun passes one Ctrl+C on twice: the second must not cut the saving
    assert signal.getsignal(number) == before


def test_a_later_ctrl_c_stops_at_once(monkeypatch):
    """Who presses again after two seconds does not want to wait for the save."""
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        interrupt._since -= 3
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "the disk is full (x)"),
        (OSError("m could not be written: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "no permission to write or read (x)"),
        (OSError(errno.EACCES, "Permission denied", "x"), "(x): Permission denied. Change that, or name another"),
        (OSError(errno.ENOTDIR, "Not a directory", "x"), "error: x: Not a directory\n"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory; these help"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "--batch-size"),
        (ValueError("n_head=5\ndoes not"), "n_head=5 does not"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_status_two(capsys, error, message):
    """A traceback tells the user where our code is, not what to do."""
    with pytest.raises(SystemExit) as exit_, console.one_line_errors():
        raise error
    err = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_character_that_cannot_be_shown_ends_nothing(monkeypatch):
    """A model writes what it likes, and a terminal may know ASCII alone."""
    shown = io.BytesIO()
    for stream in (io.TextIOWrapper(shown, encoding="ascii", write_through=True), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        with console.one_line_errors():
            print("né", end="")
    assert shown.getvalue() == b"n?" and stream.getvalue() == "né"


def test_closed_streams_end_nothing():
    """As services start programs: `program <&- >&- 2>&-`. There is nothing to read, and nobody to tell."""
    code = ("import sys; from minigpt.runtime.console import one_line_errors, say\n"
            "with one_line_errors(): say(sys.stdin.read()); print('said'); sys.exit(7)")  # fmt: skip
    line = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", line, sys.executable, code], cwd=Path(__file__).parents[2]).returncode == 7


def test_what_only_we_can_cause_keeps_its_traceback():
    """A bug reported as one line cannot be found."""
    with pytest.raises(RuntimeError, match="shapes"), console.one_line_errors():
        raise RuntimeError("shapes do not match")
    with pytest.raises(AssertionError), console.one_line_errors():
        raise AssertionError("ours")


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    """`cuda:7`, a typing error, and a device of another machine's run.json."""
    assert device.choose_device("cpu").value == "cpu"
    for name in ("cuda:99", "gpu", "xpu"):
        with pytest.raises(ValueError, match=f"--device {name}: this machine"):
            device.choose_device(name)


def test_machine_settings_are_checked():
    """Threads and seeds that torch would refuse later, with a worse message."""
    with pytest.raises(ValueError, match="--threads 0"):
        MachineConfig(threads=0)
    with pytest.raises(ValueError, match="--seed -1"):
        MachineConfig(seed=-1)


def test_the_doctor_names_device_dtype_threads_memory_and_every_kernel():
    """It is the first thing to ask a user for; each choice comes with its reason."""
    text = doctor.examine()
    for word in ("device", "dtype", "threads", "memory", "attention", "linear_cross_entropy"):
        assert word in text


def test_the_doctor_warns_of_the_other_package_called_kernels(monkeypatch):
    """Hugging Face's package of that name would be imported instead of our folder, or the other way round."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.4.0")
    assert "Hugging Face's package `kernels` 0.4.0" in doctor.warnings()[0]
