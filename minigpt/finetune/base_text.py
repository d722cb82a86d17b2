"""The text that a base model learned from: replayed, and judged by, so that it is not forgotten.

A run of pre-training keeps its tokens in `data/`, and is found behind any number of stages.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from minigpt.batches.shards import TokenStream, open_shards
from minigpt.runtime.logbook import FILE, read_events
from minigpt.tokenizer import Tokenizer
from minigpt.training.run_folder import DATA, run_home, text_home


class BaseText(NamedTuple):
    train: TokenStream
    val: TokenStream


def find_base_text(base: Path, tokenizer: Tokenizer) -> BaseText | None:
    """The shards behind a run folder or one of its checkpoints; None where none are left, as with a folder of others.

    Raises: ValueError if they are damaged, or of a tokenizer that gives a text other ids than this one.
    """
    home = text_home(base)
    if home is None:
        return None
    theirs = Tokenizer.load(home / DATA)
    _check_same_text_ids(theirs, tokenizer, home)
    return BaseText(*(open_shards(home / DATA, side, theirs.fingerprint, theirs.n_vocab) for side in ("train", "val")))


def bits_before(base: Path) -> float | None:
    """Bits per byte of that text as the base run itself measured them last; None where it did not."""
    home = run_home(base)
    events = read_events(home) if home is not None and (home / FILE).exists() else []
    return next((event["bits_per_byte"] for event in reversed(events) if event.get("bits_per_byte")), None)


def _check_same_text_ids(theirs: Tokenizer, ours: Tokenizer, home: Path) -> None:
    """Special tokens may have come since; a text's ids must be what they were."""
    like_theirs = replace(ours.vocabulary, special=theirs.vocabulary.special)
    if like_theirs.fingerprint != theirs.fingerprint:
        raise ValueError(f"the text in {home / DATA} was cut by another tokenizer than the base model's: begin with "
                         "the model that was trained there")  # fmt: skip
