"""python -m minigpt quickstart, through the same code in seconds: what it leaves, and how it goes on after anything."""

import json
import shutil
import signal

import pytest
from scripts import QUICK, some_text

from minigpt.commands import main
from minigpt.quickstart import recipe
from minigpt.runtime.checkpoint import file_digest
from minigpt.training import run as stations

PLACES = ("pretrain", "sft", "dpo", "int8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "story.txt"
    file.write_text(some_text(3000), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory, text):
    """A recipe that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("recipe") / "all"
    quickstart(text, folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def quickstart(text, folder, *more):
    main(["quickstart", *QUICK, "--data", str(text), "--out-dir", str(folder), *more])


def weights(folder):
    return {place: file_digest(folder / place / "model.safetensors") for place in PLACES}


def stop_once(monkeypatch, stage):
    """Ctrl+C (in `fit`: SIGTERM, after one step) the next time this stage is computed, and only then."""
    module, name = {"corpus": (recipe, "prepare_data"), "exam": (recipe, "examine"),
                    "int8": (recipe, "compress_run")}.get(stage, (stations, "fit"))  # fmt: skip
    original = getattr(module, name)

    def stopped(*args, **kwargs):
        if name == "fit" and args[2].kind != stage:
            return original(*args, **kwargs)
        monkeypatch.setattr(module, name, original)
        if name != "fit":
            raise KeyboardInterrupt
        begun = args[0]

        def objective(model, batch):
            signal.raise_signal(signal.SIGTERM)
            return begun.objective(model, batch)

        return original(begun._replace(objective=objective), *args[1:], **kwargs)

    monkeypatch.setattr(module, name, stopped)


def test_every_stage_has_a_row_with_a_figure_and_its_seconds(finished, copied, text, capsys):
    """The table is what the whole is for; asked for again, it comes at once, and nothing is computed."""
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    quickstart(text, copied)
    captured = capsys.readouterr()
    rows = [line for line in captured.out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:-1]] == [f"| {name}" for name in recipe.STAGES]
    assert all(row.count("|") == 5 for row in rows) and "all together" in rows[-1]
    assert "--- " not in captured.err and "minigpt chat" in captured.err
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()} == before


def test_the_exam_says_how_many_were_asked_and_what_needs_no_understanding(finished):
    """A share without n and without a baseline could mean anything."""
    marks = json.loads((finished / "exam.json").read_text(encoding="utf-8"))
    assert [mark["subject"] for mark in marks] == ["Python", "Python, new wordings", "outside of Python",
                                                   "outside of Python, new wordings"]  # fmt: skip
    assert all(mark["n"] == 3 and 0 <= mark["interval"][0] <= mark["interval"][1] <= 1 for mark in marks)
    assert marks[2]["prior"] == 1.0 and marks[0]["prior"] < 0.5  # who always refuses knows no Python


def test_stopped_in_every_stage_it_goes_on_and_comes_to_the_same_end(finished, text, tmp_path, monkeypatch, capsys):
    """The same line, six times interrupted, gives the same weights to the last bit."""
    folder = tmp_path / "stopped"
    for stage in recipe.STAGES:
        stop_once(monkeypatch, stage)
        monkeypatch.setattr("sys.argv", ["", "quickstart", "--out-dir", str(folder), "--overwrite"])
        with pytest.raises(SystemExit) as stop:
            quickstart(text, folder)
        trained = stage in ("pretrain", "sft", "dpo")
        assert stop.value.code == 128 + (signal.SIGTERM if trained else signal.SIGINT)
        err = capsys.readouterr().err
        assert f": {stage}. " in err.rpartition("\n--- ")[2]  # it came as far as this, no further
        assert err.endswith(f"The same line goes on from here: python -m minigpt quickstart --out-dir {folder}\n")
    quickstart(text, folder)
    assert weights(folder) == weights(finished)
    assert (folder / "exam.json").read_bytes() == (finished / "exam.json").read_bytes()


def test_a_stage_whose_outcome_is_gone_is_done_again(copied, finished, text, capsys):
    """Somebody removed it, or the process died between two files; what a smaller model says of itself is no proof."""
    shutil.rmtree(copied / "int8")
    quickstart(text, copied)
    assert capsys.readouterr().err.count("\n--- ") == 1
    assert weights(copied) == weights(finished)
    state = json.loads((copied / "quickstart.json").read_text(encoding="utf-8"))
    del state["rows"]["int8"]  # killed between the model and the note
    (copied / "quickstart.json").write_text(json.dumps(state), encoding="utf-8")
    quickstart(text, copied)
    assert weights(copied) == weights(finished)


def test_a_full_disk_costs_one_stage(copied, finished, text, monkeypatch):
    """What was complete stays; with room again, the same line goes on."""
    shutil.rmtree(copied / "int8")

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "compress_run", full)
        with pytest.raises(OSError, match="No space"):
            quickstart(text, copied)
    quickstart(text, copied)
    assert weights(copied) == weights(finished)


@pytest.mark.parametrize(("more", "message"), [
    (["--sft-steps", "4"], "--sft-steps 3, not 4"),
    (["--n-embd", "32"], "--n-embd 16, not 32"),
    (["--seed", "7", "--sft-steps", "4"], "--sft-steps 3, not 4.*--seed 1, not 7"),
    (["--sft-steps", "0"], "--sft-steps 0: needs at least 1"),
])  # fmt: skip
def test_another_recipe_needs_another_folder(copied, text, more, message):
    """Half of it by one recipe and half by another would be a figure that nobody can repeat."""
    with pytest.raises(ValueError, match=message):
        quickstart(text, copied, *more)


def test_overwrite_removes_what_it_made_and_nothing_else(copied, text, monkeypatch):
    """A stranger's file in the folder survives, and a folder of strangers is not touched at all."""
    (copied / "diary.txt").write_text("mine", encoding="utf-8")
    stop_once(monkeypatch, "corpus")
    with pytest.raises(SystemExit):
        quickstart(text, copied, "--overwrite")
    assert (copied / "diary.txt").exists()
    assert not [place for place in PLACES if (copied / place / "model.safetensors").exists()]
    (copied / "quickstart.json").unlink()
    with pytest.raises(ValueError, match="holds other files"):
        quickstart(text, copied)


def test_in_a_terminal_it_ends_in_the_chat(copied, text, monkeypatch):
    """Only there: a pipe must come to its end, and --chat off means off."""
    talks = []
    monkeypatch.setattr("minigpt.quickstart.command.talk", lambda run, wish: talks.append((run, wish)))
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    quickstart(text, copied, "--chat", "off")
    assert not talks
    quickstart(text, copied)
    [(run, wish)] = talks
    assert run == str(copied / "int8") and wish.sampling.temperature == 0
