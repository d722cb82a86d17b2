"""Pairs to ids, some of them held out; endless batches of them.

Both answers of a pair must be whole within the context: the reward is read where an answer ends, and an answer without
its end is another one. A pair that is longer is left out, and counted aloud.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Self

import numpy as np

from minigpt.alignment.config import PairsConfig
from minigpt.batches.shuffle import round_keys, shuffled
from minigpt.chat.template import Template, missing_tokens
from minigpt.finetune.examples import held_out, is_file
from minigpt.lessons.exchange import LessonSide
from minigpt.lessons.preference_file import Preference, preference, read_preferences
from minigpt.lessons.preferences import pairs
from minigpt.runtime.checkpoint import newest_whole, read_json, write_json
from minigpt.runtime.console import say
from minigpt.runtime.distributed import Group
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.pretrain import init_folder
from minigpt.training.run_folder import DATA, RECEIPT, make_way


class TokenPair(NamedTuple):
    """One question, two answers; what the assistant says in each is marked."""

    messages: Preference
    chosen: list[int]  # the question and the answer
    rejected: list[int]
    said_chosen: list[bool]  # the tokens of the answer, its <|end|> among them
    said_rejected: list[bool]
    flipped: bool  # known to be labelled the wrong way round
    rule: str = ""  # of the lessons' rules, the one in which the answers differ


class Sides(NamedTuple):
    train: list[TokenPair]
    val: list[TokenPair]


def open_pairs(run: RunConfig, settings: PairsConfig, tokenizer: Tokenizer, group: Group) -> Sides:
    """The pairs of a run: to learn from, and held out. The same settings give the same ones.

    Raises: ValueError naming file and line; for pairs that are all too long; if a run that has begun would go on with
            other pairs. FileNotFoundError.
    """
    template, context_length = Template(tokenizer), run.model.context_length
    train, val = (tokenized(side, template, context_length, f"{settings.data} ({name})", tell=group.is_main)
                  for name, side in zip(Sides._fields, labelled_pairs(settings, run.machine.seed), strict=True))
    sides = Sides(train if settings.labels == "given" else with_shuffled_labels(train, run.machine.seed), val)
    group.main_decides(lambda: _remember(run, settings.data, digest(sides)))
    return sides


def check_chats(init: str | None) -> Path:
    """The folder of the base model. Raises: ValueError for none, and for one that was never taught what a turn is."""
    if init is None:
        raise ValueError("preferences are learned by a model that answers: name its folder with --init")
    if missing := missing_tokens(Tokenizer.load(folder := init_folder(init))):
        raise ValueError(f"{init} has no {' '.join(missing)}: it completes text and has never answered. Teach it "
                         f"first: python train.py sft --init {init}")  # fmt: skip
    return folder


# --- which pairs --------------------------------------------------------------------------------------------------


class Labelled(NamedTuple):
    pair: Preference
    flipped: bool = False  # known to be labelled the wrong way round
    rule: str = ""


def labelled_pairs(settings: PairsConfig, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Those to learn from and those held out.

    Of a file, a share of the questions is held out, with all their pairs. Of our own lessons there are other questions
    to be asked: a tenth as many pairs, and 200 at least.
    Raises: ValueError for a name that is neither a file nor lessons; what reading pairs raises.
    """
    given = [Labelled(pair) for pair in read_preferences(settings.val_data)] if settings.val_data else []
    if is_file(settings.data):
        everything = [Labelled(pair) for pair in read_preferences(settings.data)]
        return (everything, given) if given else _held_out(everything, settings.data)
    if settings.data != "lessons":
        raise ValueError(f"--data {settings.data}: give a file of pairs (JSONL), or lessons")
    n_val = max(200, settings.examples // 10)
    return _generated("train", settings.examples, settings, seed), given or _generated("test", n_val, settings, seed)


def rules_can_judge(settings: PairsConfig) -> bool:
    """Whether all pairs are the project's own, held-out ones too: then its rules can judge answers to them."""
    return not is_file(settings.data) and settings.val_data is None


def _generated(side: LessonSide, count: int, settings: PairsConfig, seed: int) -> list[Labelled]:
    made = islice(pairs(side, seed, settings.noise), count)
    return [Labelled(preference(pair), pair["flipped"], pair["rule"]) for pair in made]


def _held_out(everything: list[Labelled], source: str) -> tuple[list[Labelled], list[Labelled]]:
    """A share of the questions, with all their pairs."""
    _, back = held_out([labelled.pair.prompt for labelled in everything], source)
    asked = {json.dumps(prompt) for prompt in back}
    sides: tuple[list[Labelled], list[Labelled]] = ([], [])
    for labelled in everything:
        sides[json.dumps(labelled.pair.prompt) in asked].append(labelled)
    return sides


def tokenized(
    labelled: Iterable[Labelled], template: Template, context_length: int, source: str, *, tell: bool
) -> list[TokenPair]:
    """All pairs as ids, less those that are longer than the context. Raises: ValueError if none is left."""
    kept, long = [], 0
    for messages, flipped, rule in labelled:
        prompt = len(template.prompt(messages.prompt))
        chosen, rejected = (template.render([*messages.prompt, *answer]) for answer in messages[1:])
        if max(len(chosen.ids), len(rejected.ids)) > context_length:
            long += 1
            continue
        said = ([False] * prompt + answer.mask[prompt:] for answer in (chosen, rejected))
        kept.append(TokenPair(messages, chosen.ids, rejected.ids, *said, flipped, rule))
    if not kept:
        raise ValueError(f"{source}: all {long} pairs are longer than the context of {context_length} tokens; give "
                         "shorter ones, or a base model with a longer context")  # fmt: skip
    if long and tell:
        say(f"note: {source}: of {long + len(kept):,} pairs {long:,} are longer than the context of {context_length} "
            "tokens and are left out")  # fmt: skip
    return kept


def swapped(pair: TokenPair) -> TokenPair:
    """The same with the other label."""
    prompt, chosen, rejected = pair.messages
    return TokenPair(Preference(prompt, rejected, chosen), pair.rejected, pair.chosen, pair.said_rejected,
                     pair.said_chosen, not pair.flipped, pair.rule)  # fmt: skip


def with_shuffled_labels(pairs: list[TokenPair], seed: int) -> list[TokenPair]:
    """The control: a coin decides which answer counts as the better one. What is learned then, labels do not teach."""
    coin = Random(f"shuffled labels {seed}")
    return [swapped(pair) if coin.random() < 0.5 else pair for pair in pairs]


# --- on disk: only what they were, so that a change is noticed ----------------------------------------------------


def digest(sides: Sides) -> str:
    """SHA-256 over all ids: settings, file, tokenizer and context, whatever of them decides what is learned."""
    total = hashlib.sha256()
    for side in sides:
        for pair in side:
            total.update(json.dumps([pair.chosen, pair.rejected, pair.flipped]).encode())
        total.update(b"side")
    return total.hexdigest()


def _remember(run: RunConfig, source: str, now: str) -> None:
    make_way(run)
    folder = Path(run.out_dir)
    receipt = folder / DATA / RECEIPT
    if receipt.exists() and read_json(receipt).get("pairs") != now and newest_whole(folder):
        raise ValueError(f"the pairs of {source} have changed since {folder} began to learn from them; put them back, "
                         "choose another --out-dir, or --overwrite")  # fmt: skip
    receipt.parent.mkdir(parents=True, exist_ok=True)
    write_json(receipt, {"pairs": now})


# --- batches ------------------------------------------------------------------------------------------------------


class PairBatches:
    """An endless iterator: each epoch a shuffled order of all pairs; process `rank` of `world` gets its share of each.

    Every batch has as many pairs, also where one epoch ends and the next begins, so the mean of the micro-batches'
    means is the mean over the step. Which pairs batch n has is a function of (seed, n): n is all there is to save.
    `collate` makes a batch of the chosen indices.

    Raises: ValueError if the processes cannot share a batch evenly.
    """

    def __init__(
        self, n: int, collate: Callable[[list[int]], Any], *, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world:
            raise ValueError(f"batch_size={batch_size} cannot be shared by {world} processes; use a multiple")
        self.n, self.collate, self.batch_size, self.seed = n, collate, batch_size, seed
        self.rank, self.world, self.position = rank, world, 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        first = self.position * self.batch_size
        self.position += 1
        return self.collate([self._pair(i) for i in range(first + self.rank, first + self.batch_size, self.world)])

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def _pair(self, count: int) -> int:
        epoch, place = divmod(count, self.n)
        return int(shuffled(np.array([place]), self.n, round_keys(self.seed, epoch))[0])


def in_order(n: int, batch_size: int) -> Iterator[list[int]]:
    """All indices once, in batches; the last may be smaller."""
    return (list(range(first, min(first + batch_size, n))) for first in range(0, n, batch_size))
