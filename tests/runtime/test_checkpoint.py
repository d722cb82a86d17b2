"""Folders that are whole or absent."""

import os
import subprocess
import sys

import pytest
import torch

from minigpt.runtime import checkpoint as files


def write(folder):
    (folder / "weights").write_bytes(b"w" * 1000)
    (folder / "state").mkdir()
    (folder / "state" / "optimizer").write_bytes(b"o" * 1000)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(tmp_path):
    """A disk holds two; the one before the newest is there in case the newest is damaged. 10 is newer than 9."""
    for step in (8, 9, 10):
        files.save_checkpoint(tmp_path, step, write)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-9"]
    assert files.newest_whole(tmp_path) == tmp_path / "checkpoint-10"


def damage_by_flipping(folder):
    data = bytearray((folder / "weights").read_bytes())
    data[500] ^= 1
    (folder / "weights").write_bytes(data)


def damage_by_truncating(folder):
    os.truncate(folder / "state" / "optimizer", 999)


def damage_by_removing(folder):
    (folder / "weights").unlink()


def damage_the_digest(folder):
    (folder / files.DIGEST).write_text("{")


@pytest.mark.parametrize("harm", [damage_by_flipping, damage_by_truncating, damage_by_removing, damage_the_digest])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, capsys, harm):
    """One flipped bit in the weights would otherwise go on training for ever."""
    for step in (1, 2):
        files.save_checkpoint(tmp_path, step, write)
    harm(tmp_path / "checkpoint-2")
    assert files.newest_whole(tmp_path) == tmp_path / "checkpoint-1"
    assert "checkpoint-2 is damaged" in capsys.readouterr().err


def test_when_all_are_damaged_nothing_is_guessed(tmp_path):
    """Beginning again silently would throw away what a person could still rescue."""
    files.save_checkpoint(tmp_path, 1, write)
    damage_by_flipping(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match="no checkpoint in .* is whole"):
        files.newest_whole(tmp_path)


def test_a_failure_while_writing_leaves_the_old_state(tmp_path):
    """A full disk must not cost the checkpoint that was already there."""
    files.save_checkpoint(tmp_path, 1, write)

    def fail(folder):
        write(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.save_checkpoint(tmp_path, 2, fail)
    assert names(tmp_path) == ["checkpoint-1"]


def test_a_process_killed_while_writing_leaves_the_old_state(tmp_path):
    """kill -9 runs no clean-up: what it leaves must have a name that nobody reads, and go at the next start."""
    files.save_checkpoint(tmp_path, 1, write)
    code = (
        "import os, sys, pathlib; from minigpt.runtime import checkpoint as files\n"
        "def write(folder): (folder / 'weights').write_bytes(b'w'); os._exit(9)\n"
        "files.save_checkpoint(pathlib.Path(sys.argv[1]), 2, write)"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root).returncode == 9
    assert files.newest_whole(tmp_path) == tmp_path / "checkpoint-1"
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["checkpoint-1"]


def test_the_top_of_the_run_shows_the_newest(tmp_path):
    """sample.py, and every other program, finds the weights without knowing about checkpoints."""
    for step, byte in ((1, b"a"), (2, b"b")):
        made = files.save_checkpoint(tmp_path, step, lambda folder, byte=byte: (folder / "weights").write_bytes(byte))
        files.publish(made, tmp_path)
    assert (tmp_path / "weights").read_bytes() == b"b"
    assert (tmp_path / "checkpoint-1" / "weights").read_bytes() == b"a"
    assert not (tmp_path / files.DIGEST).exists()


def test_tensors_come_back_bit_for_bit(tmp_path):
    """NaN payloads, negative zero, subnormals, every dtype an optimizer keeps."""
    tensors = {"a": torch.tensor([float("nan"), -0.0, 1e-45]), "b": torch.tensor(7), "c": torch.ones(2, 3).bfloat16()}
    files.save_tensors(tmp_path / "t", tensors)
    back = files.load_tensors(tmp_path / "t")
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    os.truncate(tmp_path / "t", 60)
    with pytest.raises(ValueError, match="damaged"):
        files.load_tensors(tmp_path / "t")
