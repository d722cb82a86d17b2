"""Preferences in files: one object a line, {"prompt", "chosen", "rejected"}, each a text or a list of messages.

    {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello!"}], ...}

    python -m minigpt lessons preferences --out pairs.jsonl    generated ones, with counts and examples of each rule
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.chat.conversation import Message, check_messages
from minigpt.config import from_command_line
from minigpt.corpus.files import opened_lines
from minigpt.lessons.preferences import RULES, Pair, PreferencesConfig, pairs, score
from minigpt.runtime.whole import new_file, write_json_lines


class Preference(NamedTuple):
    """A pair in the form that a chat template renders: prompt + chosen is a conversation, prompt + rejected another."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def preference(pair: Mapping[str, Any]) -> Preference:
    """A pair in messages, texts made into messages. Other keys are left alone.

    Raises: ValueError if a part is missing, empty or out of order, or if both answers are equal.
    """
    if missing := [name for name in Preference._fields if name not in pair]:
        raise ValueError(f"{', '.join(missing)} missing: a pair has prompt, chosen and rejected")
    prompt = as_messages(pair["prompt"], "prompt", "user")
    chosen, rejected = (as_messages(pair[name], name, "assistant") for name in ("chosen", "rejected"))
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        try:
            check_messages([*prompt, *answer])
        except ValueError as error:
            raise ValueError(f"prompt and {name}: {error}") from None
        if answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
            raise ValueError(f"{name} must begin and end with the assistant: the prompt holds what is said before")
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal: such a pair prefers nothing. Leave it out")
    return Preference(prompt, chosen, rejected)


def as_messages(value: Any, name: str, role: Any) -> list[Message]:
    """One part of a pair: a text is one message. Raises: ValueError for anything but a text or a list of messages."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise ValueError(f'{name} must be a text or a list of {{"role", "content"}}, not {json.dumps(value)[:60]}')
    return [{"role": item.get("role"), "content": item.get("content")} for item in value]  # type: ignore[typeddict-item]


def read_preferences(path: str | Path) -> Iterator[Preference]:
    """The pairs of a file, in its order; blank lines are passed over.

    Raises: ValueError naming the file and the line; for a file without pairs; as opened_lines.
    """
    found = False
    with opened_lines(Path(path)) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
                if not isinstance(row, dict):
                    raise ValueError(f"expected an object with prompt, chosen and rejected, not {line.decode()[:60]!r}")
                yield preference(row)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}") from None
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number} is not UTF-8 text: {error.reason}") from None
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            found = True
    if not found:
        raise ValueError(f"{path} holds no pair")


def describe(made: Sequence[Pair], examples: int) -> str:
    """How many pairs there are for each rule, how many are flipped, and the first few of each with their scores."""
    counts = Counter(pair["rule"] for pair in made)
    flipped = sum(pair["flipped"] for pair in made)
    lines = [f"{len(made):,} pairs, {flipped:,} of them ({flipped / len(made):.1%}) labelled the wrong way round"]
    for rule in RULES:
        lines.append(f"\n{rule}: {counts[rule]:,}")
        for pair in islice((pair for pair in made if pair["rule"] == rule), examples):
            lines.append(f"    {pair['prompt']}{'   (flipped)' if pair['flipped'] else ''}")
            lines += [f"      {side:8} {score(pair['prompt'], pair[side]):5.2f}  {pair[side]}"
                      for side in ("chosen", "rejected")]  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Print counts and examples of generated pairs; write a file if one is asked for.

    Raises: ValueError where no file can be, before anything is printed; OSError as the disk says.
    """
    usage = "python -m minigpt lessons preferences [--noise SHARE] [--out FILE]"
    wish = from_command_line(PreferencesConfig(), argv, usage)
    file = None if wish.out is None else new_file(wish.out)
    made = list(islice(pairs(wish.side, wish.seed, wish.noise), wish.count))
    print(describe(made, wish.examples))
    if file is not None:
        write_json_lines(file, made)
        print(f"{wish.out}: {len(made):,} pairs")
