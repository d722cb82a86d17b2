"""A new run, a run to resume, a finished run, or a mistake?"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt import presets
from minigpt.runtime import checkpoint as files
from minigpt.training.run_folder import OURS, discard, open_run, read_run, write_run


@pytest.fixture
def run(tmp_path):
    return replace(presets.quick(), out_dir=str(tmp_path / "run"))


def with_setting(run, *flags):
    from minigpt import config

    return config.from_command_line(run, flags, "")


def begin(run):
    """With a checkpoint, as after some steps."""
    write_run(run)
    folder = Path(run.out_dir)
    return files.save_checkpoint(folder, 5, lambda aside: (aside / "weights").write_bytes(b"w"))


def test_a_new_folder_is_made_and_remembers_its_settings(run, tmp_path):
    """run.json is what a later command line is compared with."""
    assert open_run(run) is None
    assert not (tmp_path / "run").exists()  # looking leaves nothing behind
    write_run(run)
    assert (tmp_path / "run" / "run.json").exists()


def test_the_same_line_resumes(run, tmp_path):
    """No --resume flag, no path to copy: the line that began the run also continues it."""
    made = begin(run)
    assert open_run(run) == made


def test_more_steps_are_allowed_and_fewer_are_not(run):
    """A finished run may be made longer; a shorter one would have had another learning rate from the start."""
    begin(run)
    longer = with_setting(run, "--max-steps", str(run.train.max_steps + 1))
    open_run(longer)
    write_run(longer)
    with pytest.raises(ValueError, match=f"--max-steps {run.train.max_steps + 1}, not {run.train.max_steps}"):
        open_run(run)


@pytest.mark.parametrize("flags", [["--lr", "0.123"], ["--n-layer", "5"], ["--seed", "9"], ["--data", "other.txt"]])
def test_any_other_changed_setting_is_named(run, flags):
    """Resuming with another learning rate or other data is a new experiment, not the old one."""
    begin(run)
    with pytest.raises(ValueError, match=f"holds a run with {flags[0]} .*, not {flags[1]}"):
        open_run(with_setting(run, *flags))


def test_all_changed_settings_are_named_at_once(run):
    """Whoever forgot three flags wants to try twice, not four times; and reads them as they are to be written."""
    begin(with_setting(run, "--n-layer", "5", "--tied", "off", "--threads", "2"))
    with pytest.raises(ValueError, match="--threads 2, not none; --n-layer 5, not 4; --tied off, not on. .* values,"):
        open_run(run)


def test_a_setting_younger_than_the_run_changes_nothing(run, tmp_path):
    """A preset may have begun to use what did not exist when the run began; the run goes on without it."""
    write_run(run)
    file = tmp_path / "run" / "run.json"
    settings = files.read_json(file)
    del settings["model"]["short_conv"]
    file.write_text(json.dumps(settings))
    preset = replace(run, model=replace(run.model, short_conv=4))
    assert read_run(tmp_path / "run", preset).model.short_conv == 0


def test_a_run_that_has_learnt_nothing_takes_other_settings(run):
    """Its first line had a mistake that came out late; the corrected one should not be refused for the sake of it."""
    write_run(run)
    assert open_run(with_setting(run, "--lr", "0.123")) is None


def test_overwrite_discards_nothing_before_there_is_something_new(run):
    """A mistake in the new run's data must not cost the old one."""
    made = begin(run)
    again = with_setting(run, "--overwrite")
    assert open_run(again) is None and made.exists()
    write_run(again)
    assert not made.exists()


def test_a_folder_that_cannot_be_made_is_refused_at_once(run, tmp_path):
    """Not after the corpus has been read."""
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; choose a folder"):
        open_run(replace(run, out_dir=str(tmp_path / "file" / "below")))


def test_resume_never_wants_a_new_folder(run):
    """For scripts that must not continue what somebody else began."""
    never = with_setting(run, "--resume", "never")
    write_run(never)
    with pytest.raises(ValueError, match="already holds a run"):
        open_run(never)


def test_overwrite_discards_the_run_and_nothing_else(run, tmp_path):
    """A stranger's file in the same folder is not ours to delete, and neither is a folder that is called data."""
    write_run(run)
    folder = tmp_path / "run"
    for name in OURS:
        (folder / name).write_text("old")
    files.save_checkpoint(folder, 5, lambda aside: (aside / "weights").write_bytes(b"w"))
    (folder / "data").mkdir()
    (folder / "data" / "mine.txt").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    discard(folder)
    assert sorted(path.name for path in folder.rglob("*")) == ["data", "mine.txt", "notes.txt"]


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_model_without_a_run_is_a_strangers(run, tmp_path, flags):
    """A download has the same names: neither is it deleted, nor do a run's weights take its place."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_text("downloaded")
    with pytest.raises(ValueError, match="no run but other files"):
        open_run(with_setting(run, *flags))
    assert (folder / "model.safetensors").read_text() == "downloaded"


@pytest.mark.parametrize("base", ["run", "run/checkpoint-5"])
def test_a_run_does_not_discard_what_it_begins_with(run, tmp_path, base):
    """The weights would be gone before they are read."""
    begin(run)
    with pytest.raises(ValueError, match="--overwrite would discard"):
        open_run(with_setting(run, "--overwrite", "--init", str(tmp_path / base)))
    assert (tmp_path / "run" / "checkpoint-5" / "weights").exists()


def test_a_run_from_before_there_were_stages_is_gone_on_with(run, tmp_path):
    """Its run.json says neither kind nor stage: it can only be pre-training."""
    write_run(run)
    file = tmp_path / "run" / "run.json"
    settings = files.read_json(file)
    del settings["kind"], settings["stage"]
    files.write_json(file, settings)
    made = files.save_checkpoint(tmp_path / "run", 5, lambda folder: (folder / "weights").write_bytes(b"w"))
    assert open_run(run) == made


def test_a_run_of_another_kind_is_named(run, tmp_path):
    """Its settings are others: to compare them one by one would name the wrong one."""
    begin(run)
    with pytest.raises(ValueError, match="holds a run of kind pretrain, not sft"):
        open_run(replace(presets.sft(), out_dir=run.out_dir))


@pytest.mark.parametrize("make", [lambda p: p.write_text("a file"), lambda p: (p.mkdir(), (p / "thesis.doc").touch())])
def test_a_folder_with_other_things_in_it_is_refused(run, tmp_path, make):
    """--out-dir . in the wrong place should not mix a run into somebody's work."""
    make(tmp_path / "run")
    with pytest.raises(ValueError, match="--out-dir"):
        open_run(run)


def test_a_damaged_run_json_is_named(run, tmp_path):
    """Truncated by a crash of an editor, say: one line, and what would work."""
    begin(run)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json is damaged"):
        open_run(run)
