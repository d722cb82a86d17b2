"""One process at a time in a folder."""

import subprocess
import sys

import pytest

from minigpt.runtime.folder_lock import FolderLock

HOLD = """
import sys, time
from pathlib import Path
from minigpt.runtime.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.take(make=True)
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    """Killed or not: nothing is left behind that somebody would have to remove."""
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "held\n"
            with FolderLock(folder) as second, pytest.raises(ValueError, match="another process is at work in"):
                second.take()
        finally:
            first.kill()
    with FolderLock(folder) as third:
        third.take()
        third.take()
        with FolderLock(folder) as fourth, pytest.raises(ValueError):
            fourth.take()
    with FolderLock(folder) as fifth:
        fifth.take()
    assert not any(folder.iterdir())


def test_a_folder_that_is_not_there_is_free(tmp_path):
    """Looking makes none."""
    with FolderLock(tmp_path / "run") as lock:
        lock.take()
    assert not (tmp_path / "run").exists()
