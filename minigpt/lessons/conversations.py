"""The whole course: help with Python, small talk, refusals, and conversations that wander between them.

    python -m minigpt lessons                          counts and examples of each kind
    python -m minigpt lessons --out lessons.jsonl      one conversation a line, for train.py sft --data

Every conversation of a side comes once; the seed decides their order and how they are decorated. In a conversation
of several turns all of them are of one side, so that nothing held out is trained on its way.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from minigpt.config import from_command_line
from minigpt.lessons import python_help, small_talk
from minigpt.lessons.exchange import LESSON_SIDES, Exchange, Lesson, LessonSide, lesson
from minigpt.runtime.whole import new_file, write_json_lines

WANDERING = 0.15  # conversations of several subjects, for each one of a single subject


@dataclass(frozen=True, kw_only=True)
class LessonsConfig:
    side: LessonSide = "train"  # train; test: combinations held out; templates: wordings never trained
    seed: int = 0             # decides order and decoration
    count: int | None = None  # conversations to take; none: all
    examples: int = 3         # conversations of each kind to print
    out: str | None = None    # file to write them to, one JSON object a line

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("examples", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} {value}: at least {least}")


def conversations(side: LessonSide, seed: int) -> Iterator[Lesson]:
    """All conversations of a side, in an order by seed. Raises: ValueError for an unknown side."""
    if side not in LESSON_SIDES:
        raise ValueError(f"unknown side {side!r}: choose one of {', '.join(LESSON_SIDES)}")
    lessons = [*python_help.conversations(side, seed), *small_talk.conversations(side, seed)]
    lessons += wandering(side, seed, round(len(lessons) * WANDERING))
    once = {json.dumps(item["messages"]): item for item in lessons}  # decoration can make two greetings one
    lessons = list(once.values())
    Random(f"order {side} {seed}").shuffle(lessons)
    yield from lessons


def wandering(side: LessonSide, seed: int, count: int) -> Iterator[Lesson]:
    """Two to three turns that have nothing to do with each other: a greeting, a question, a refusal, a question."""
    rng = Random(f"wandering {side} {seed}")
    subjects = [list(python_help.exchanges(side)), list(small_talk.talk(side)), list(small_talk.refused(side))]
    seen: set[tuple[str, ...]] = set()
    while len(seen) < count:
        chosen = rng.choices(subjects, k=rng.choice((2, 3)))
        turns: list[Exchange] = [rng.choice(subject) for subject in chosen]
        keys = tuple(turn.key for turn in turns)
        if keys not in seen and len(set(keys)) == len(keys):
            seen.add(keys)
            yield lesson(turns[-1], rng, tuple(turns[:-1]))


def describe(lessons: Sequence[Lesson], examples: int) -> str:
    """How many of each kind there are, and the first few of each as they are said."""
    counts = Counter(item["kind"] for item in lessons)
    lines = [f"{len(lessons):,} conversations, {len({item['key'] for item in lessons}):,} different last questions"]
    for kind, count in counts.most_common():
        lines.append(f"\n{kind}: {count:,}")
        for item in islice((item for item in lessons if item["kind"] == kind), examples):
            said = [f"{turn['role'][0]}: {turn['content']}" for turn in item["messages"]]
            lines.append("    " + "\n    ".join(said) + "\n")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Print counts and examples; write a file if one is asked for.

    A line of it has messages, kind, key and check. Other programs read `messages` and leave the rest alone.
    Raises: ValueError where no file can be, before anything is printed; OSError as the disk says.
    """
    wish = from_command_line(LessonsConfig(), argv, "python -m minigpt lessons [--side SIDE] [--out FILE]")
    file = None if wish.out is None else new_file(wish.out)
    lessons = list(islice(conversations(wish.side, wish.seed), wish.count))
    print(describe(lessons, wish.examples))
    if file is not None:
        write_json_lines(file, lessons)
        print(f"{wish.out}: {len(lessons):,} conversations")
