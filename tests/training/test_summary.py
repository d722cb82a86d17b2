"""What a person reads: lines to type next, which must work as they stand."""

from dataclasses import replace

import pytest

from minigpt import presets
from minigpt.training.summary import how_to_resume


@pytest.fixture
def told(monkeypatch):
    """The line that goes on with a run that was begun with these arguments, by so many processes."""

    def line(*argv, world=1):
        monkeypatch.setattr("sys.argv", ["train.py", *argv])
        monkeypatch.setenv("WORLD_SIZE", str(world))
        run = replace(presets.quick(), out_dir="out/mine")
        return how_to_resume(run).removeprefix("saved in out/mine. The same line goes on from here: ")

    return line


def test_the_line_that_goes_on_is_the_same_less_what_would_be_refused_or_begin_again(told):
    """--resume never wants a new folder, which there is no longer; --overwrite would discard what was saved."""
    argv = ["quick", "--resume", "never", "--data", "my notes.txt", "--overwrite", "--lr=1", "--resume=never"]
    assert told(*argv) == "python train.py quick --data 'my notes.txt' --lr=1"
    assert told() == "python train.py"


def test_several_processes_go_on_as_several(told):
    """One alone would see other batches, and not end in the same weights."""
    assert told("quick", world=2) == "torchrun --nproc-per-node 2 train.py quick"
