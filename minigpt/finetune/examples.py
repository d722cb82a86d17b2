"""Conversations to ids and masks: once, on disk, with some of them held out.

Both sides lie in `out_dir/data`, beside a receipt that says what they were made from. A run that is resumed learns
from what lies there; it notices if the file that was named has changed since.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from minigpt.chat.conversation import Message, read_conversations
from minigpt.chat.template import Rendered, Template
from minigpt.finetune.config import SFTConfig
from minigpt.finetune.own_lessons import are_ours, own_lessons, sources
from minigpt.runtime.checkpoint import file_digest, load_tensors, newest_whole, read_json, save_tensors, write_json
from minigpt.runtime.console import say
from minigpt.runtime.distributed import Group
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.run_folder import DATA, RECEIPT, make_way

HELD_OUT = 0.05  # of the questions of a file; of our own lessons as many again as this, from their test side
SIDES = ("train", "val")


class Examples(NamedTuple):
    """Conversations end to end; conversation d is places starts[d] to starts[d + 1]."""

    ids: np.ndarray     # (N,) int32
    target: np.ndarray  # (N,) bool: the assistant must learn to say it
    starts: np.ndarray  # (conversations + 1,) int64

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Places that each conversation takes in a row: all tokens but the last have one to predict."""
        return np.diff(self.starts) - 1  # (conversations,)

    @property
    def targets(self) -> int:
        return int(self.target.sum())


def shortened(rendered: Rendered, limit: int) -> Rendered | None:
    """The first `limit` tokens, up to the last one that the assistant says; None if he says nothing there.

    So an answer that does not fit is learned up to where the context ends, without <|end|>: nothing teaches to stop
    there. What nobody has to predict, a last question say, takes no room.
    """
    said = [place for place, own in enumerate(rendered.mask[:limit]) if own]
    return Rendered(rendered.ids[: said[-1] + 1], rendered.mask[: said[-1] + 1]) if said else None


def render(
    conversations: Iterable[Sequence[Message]], template: Template, context_length: int, source: str
) -> Examples:
    """All conversations as ids, none longer than a row; how many had to be shortened is said aloud.

    Raises: ValueError if there are none, or none has an answer within the context.
    """
    ids, target, lengths = [np.zeros(0, np.int32)], [np.zeros(0, bool)], [0]
    cut = silent = 0
    for messages in conversations:
        whole = template.render(messages)
        kept = shortened(whole, context_length + 1)  # the last token is only predicted
        silent += kept is None
        if kept is not None:
            cut += sum(kept.mask) < sum(whole.mask)
            ids.append(np.array(kept.ids, np.int32))
            target.append(np.array(kept.mask, bool))
            lengths.append(len(kept.ids))
    n = len(lengths) - 1
    if not n:
        raise ValueError(
            f"{source}: of {silent} conversations none has an answer within the context of {context_length} tokens; "
            "give shorter ones, or a base model with a longer context"
        )
    if cut or silent:
        say(f"note: {source}: of {n + silent:,} conversations {cut:,} go on beyond the context of {context_length} "
            f"tokens and are cut there; {silent:,} have no answer before it and are left out")  # fmt: skip
    return Examples(np.concatenate(ids), np.concatenate(target), np.cumsum(lengths, dtype=np.int64))


# --- which conversations ------------------------------------------------------------------------------------------


def conversations(settings: SFTConfig, seed: int) -> tuple[Iterable[list[Message]], Iterable[list[Message]]]:
    """Those to learn from and those held out.

    `is_file` says whether they are a file's; any others are a lesson's of our own.
    Raises: ValueError naming file and line; FileNotFoundError; ValueError for an unknown lesson.
    """
    given = settings.val_data and read_conversations(settings.val_data)
    if is_file(settings.data):
        everything = read_conversations(settings.data)
        return (everything, given) if given else held_out(list(everything), settings.data)
    sources(settings.data)  # a mistyped name is said now
    test = own_lessons(settings.data, "test", seed, max(1, int(HELD_OUT * settings.examples)))
    return own_lessons(settings.data, "train", seed, settings.examples), given or test


def is_file(spec: str) -> bool:
    """Whether --data names a file, be it there or not; a bare name of ours is ours: ./lessons is the file."""
    path = Path(spec)
    return path.suffix != "" or spec != path.name or (path.exists() and not are_ours(spec))


def held_out(everything: list[list[Message]], source: str) -> tuple[list[list[Message]], list[list[Message]]]:
    """(to learn from, held out): a share of the first questions, with all their conversations.

    Drawn by a digest of the question alone, wherever it stands: what stands twice, or with two answers, is on one side.
    Raises: ValueError if there is only one question.
    """
    draws = [_draw(messages) for messages in everything]
    different = sorted(set(draws))
    if len(different) < 2:
        raise ValueError(f"{source} has {len(different)} question, so none can be held out; give another file with "
                         "--val-data")  # fmt: skip
    last = different[max(1, round(HELD_OUT * len(different))) - 1]
    sides = ([], [])
    for messages, draw in zip(everything, draws, strict=True):
        sides[draw <= last].append(messages)
    return sides


def _draw(messages: list[Message]) -> bytes:
    question = next(message["content"] for message in messages if message["role"] == "user")
    return hashlib.blake2b(" ".join(question.split()).encode("utf-8", "surrogatepass"), key=b"held out").digest()


# --- on disk ------------------------------------------------------------------------------------------------------


def open_examples(run: RunConfig, settings: SFTConfig, tokenizer: Tokenizer, group: Group) -> tuple[Examples, Examples]:
    """(to learn from, held out) of a run: made by rank 0 if they are not there, and read by all.

    Raises: ValueError if a run that has begun would go on with other data, or what lies there is damaged; what reading
            conversations raises.
    """
    folder = Path(run.out_dir) / DATA
    group.main_decides(lambda: _make_once(run, settings, tokenizer, folder))
    made = read_json(folder / RECEIPT)["made"]
    return _read(folder, "train", made), _read(folder, "val", made)


def _make_once(run: RunConfig, settings: SFTConfig, tokenizer: Tokenizer, folder: Path) -> None:
    seed, context_length = run.machine.seed, run.model.context_length
    named = {name: spec for name, spec in (("data", settings.data), ("val_data", settings.val_data)) if spec}
    # a file that is gone counts as unchanged: what was made of it may have moved to another machine without it
    files = {name: file_digest(Path(spec)) for name, spec in named.items()
             if Path(spec).is_file() and (name == "val_data" or is_file(spec))}  # fmt: skip
    recipe = {"data": settings.data, "val_data": settings.val_data, "examples": settings.examples, "seed": seed,
              "context_length": context_length, "tokenizer": tokenizer.fingerprint}  # fmt: skip
    receipt = read_json(folder / RECEIPT) if (folder / RECEIPT).exists() and not run.overwrite else {}
    if receipt.get("recipe") == recipe:
        if receipt["files"] | files == receipt["files"]:
            return
        if newest_whole(folder.parent):
            raise ValueError(f"{settings.data} has changed since {folder.parent} began to learn from it; put it back, "
                             "choose another --out-dir, or --overwrite")  # fmt: skip
    template = Template(tokenizer)
    rendered = [render(side, template, context_length, f"{settings.data} ({name})")
                for name, side in zip(SIDES, conversations(settings, seed), strict=True)]  # fmt: skip
    _write(run, folder, rendered, {"recipe": recipe, "files": files})


def _write(run: RunConfig, folder: Path, sides: list[Examples], receipt: dict[str, Any]) -> None:
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for name, side in zip(SIDES, sides, strict=True):
            save_tensors(aside / f"{name}.safetensors", {key: torch.from_numpy(a) for key, a in side._asdict().items()})
        made = {name: file_digest(aside / f"{name}.safetensors") for name in SIDES}
        write_json(aside / RECEIPT, receipt | {"made": made})
        make_way(run)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _read(folder: Path, side: str, made: dict[str, str]) -> Examples:
    file = folder / f"{side}.safetensors"
    if not file.exists() or file_digest(file) != made[side]:
        raise ValueError(f"{file} is missing or damaged; --overwrite begins again")
    return Examples(**{name: tensor.numpy() for name, tensor in load_tensors(file).items()})
