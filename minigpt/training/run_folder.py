"""A new run, a run to resume, a finished run, or a mistake? Decided before anything is computed or written."""

import dataclasses
import json
import shutil
from pathlib import Path

from minigpt import config as settings
from minigpt.runtime.checkpoint import checkpoints, newest_whole, read_json, remove_leftovers, write_json
from minigpt.runtime.whole import must_be_writable
from minigpt.training.config import RunConfig

RUN, DATA, RECEIPT = "run.json", "data", "prepared.json"  # the receipt says what the data was made from
# Everything that a run writes, for --overwrite: nothing else in the folder is ever touched.
OURS = (RUN, "metrics.jsonl", "report.html", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
        "adapter_config.json", "adapter_model.safetensors")


def open_run(run: RunConfig) -> Path | None:
    """Look at `run.out_dir`. Returns the checkpoint to resume from, or None to begin at step 0.

    Nothing is written or discarded yet, so that a mistake found later (in the data, say) leaves all as it was. A run
    without a checkpoint has learnt nothing: it may begin again with other settings.

    Raises: ValueError if the folder cannot be written to, or holds something else: files that are no run's, or a run
            with other settings.
    """
    folder = Path(run.out_dir)
    must_be_writable(folder)
    if not (folder / RUN).exists():
        _must_be_free(folder)
        return None
    if run.overwrite:
        _must_not_hold(folder, run.init)
        return None
    if run.resume == "never":
        raise ValueError(f"{folder} already holds a run; with --resume never choose another --out-dir, or --overwrite")
    if checkpoints(folder):
        _must_be_the_same(run, read_run(folder, run), folder)
    remove_leftovers(folder)
    return newest_whole(folder)


def make_way(run: RunConfig) -> None:
    """With --overwrite, discard the run in `out_dir`: called right before anything takes the place of what it holds."""
    folder = Path(run.out_dir)
    if run.overwrite and (folder / RUN).exists():
        discard(folder)


def write_run(run: RunConfig) -> None:
    """From now on `run.out_dir` is this run's. (Of a resumed run, max_steps may have grown.)"""
    make_way(run)
    folder = Path(run.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN, dataclasses.asdict(run))


def read_run(folder: Path, defaults: RunConfig) -> RunConfig:
    """The settings that a run was started with.

    One that came into the house after the run has its class's default, which changes nothing; not that of `defaults`,
    whose preset may have begun to use it.

    Raises: ValueError if they are damaged, or of another kind of training than `defaults`.
    """
    try:
        data = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / RUN} is damaged ({error}); --overwrite begins again") from None
    kind = data.get("kind", "pretrain") if isinstance(data, dict) else defaults.kind
    if kind != defaults.kind:
        raise ValueError(f"{folder} holds a run of kind {kind}, not {defaults.kind}; choose another --out-dir, or "
                         "begin again with --overwrite")  # fmt: skip
    groups = {name: type(group)() for name, group in vars(defaults).items() if dataclasses.is_dataclass(group)}
    return settings.from_dict(dataclasses.replace(defaults, **groups), data, str(folder / RUN))


def run_home(folder: Path) -> Path | None:
    """The folder with a run's settings: this one, or the one above a checkpoint; None if it is no run's."""
    folder = folder.resolve()
    return next((home for home in (folder, folder.parent) if (home / RUN).exists()), None)


def text_home(folder: Path) -> Path | None:
    """The run of pre-training behind a run, whose text the model has read; None where it is gone, or a stranger's.

    A later stage names in its run.json what it began with, and so back to the first.
    """
    seen: set[Path] = set()
    while (home := run_home(folder)) is not None and home not in seen:
        seen.add(home)
        settings = read_json(home / RUN)
        if settings.get("kind", "pretrain") == "pretrain":
            return home if (home / DATA).exists() else None
        if settings["init"] is None:  # a model that never read a text, only problems
            return None
        folder = Path(settings["init"])
    return None


def discard(folder: Path) -> None:
    """Remove a run's own files; a stranger's files in the same folder stay, and a model that no run.json calls ours."""
    if (folder / DATA / RECEIPT).exists():
        shutil.rmtree(folder / DATA)
    if not (folder / RUN).exists():
        return
    for path in checkpoints(folder):
        shutil.rmtree(path)
    remove_leftovers(folder)
    for name in reversed(OURS):  # run.json last: whoever is interrupted here can begin here again
        (folder / name).unlink(missing_ok=True)


def _must_not_hold(folder: Path, init: str | None) -> None:
    if init is not None and folder.resolve() in ((base := Path(init).resolve()), *base.parents):
        raise ValueError(f"--overwrite would discard {init}, with which this run is to begin; choose another --out-dir")


def _must_be_free(folder: Path) -> None:
    ours = {f".{DATA}.unfinished", DATA if (folder / DATA / RECEIPT).exists() else ""}  # all that precedes run.json
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours) if folder.is_dir() else []
    if strangers:
        raise ValueError(f"--out-dir {folder} holds no run but other files ({strangers[0]}, ...); choose an empty one")


def _must_be_the_same(new: RunConfig, old: RunConfig, folder: Path) -> None:
    """Resuming changes nothing but the number of steps, which may grow; and where the run is told to look."""
    free = {"resume", "overwrite", "out_dir", "workers"}
    changed = [
        f"{after.flag} {before.written}, not {after.written}"
        for before, after in settings.differences(old, new)
        if after.name not in free and not (after.name == "max_steps" and after.value > before.value)
    ]
    if changed:
        raise ValueError(
            f"{folder} holds a run with {'; '.join(changed)}. Resume it with the old value{'s' * (len(changed) > 1)}, "
            "choose another --out-dir, or begin again with --overwrite."
        )
