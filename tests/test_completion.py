"""What a command line names: which run, of those that are there."""

import os
import shutil

import pytest

from minigpt.completion import newest_run
from minigpt.runtime.checkpoint import save_tensors


def test_of_many_runs_the_newest_are_named(tmp_path):
    """Whoever mistypes one wants to see the others, not a page of them."""
    for age in range(30):
        (file := tmp_path / f"run-{age}" / "model.safetensors").parent.mkdir()
        save_tensors(file, {})
        os.utime(file, (10**9 - age, 10**9 - age))
    # left by a command that was killed
    shutil.copytree(tmp_path / "run-9", tmp_path / ".run-9-int8.unfinished", copy_function=shutil.copy)
    assert newest_run(None, tmp_path) == tmp_path / "run-0"
    with pytest.raises(ValueError, match=r"holds no model .*run-0, .*run-7, and 22 older ones$"):
        newest_run("nowhere", tmp_path)
