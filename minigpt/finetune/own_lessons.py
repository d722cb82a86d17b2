"""What the project has to teach: conversations from the room `lessons`, in a mixture of equal parts."""

from collections.abc import Iterator
from typing import Literal

from minigpt import config
from minigpt.chat.conversation import Message
from minigpt.lessons import conversations, puzzles, python_help, small_talk, styles, tasks
from minigpt.lessons.family import Problem

Side = Literal["train", "test"]
TALKS = {"course": conversations.conversations, "python_help": python_help.conversations,
         "small_talk": small_talk.conversations, "styles": styles.conversations}  # fmt: skip
WHOLE = ("course", "tasks")


def sources(spec: str) -> list[str]:
    """`lessons` for all, or some by name with commas between: "course", "small_talk,tasks", "copy" or "letters".

    Puzzles are taught by name alone: they are for models that will go on to learn from rewards.

    Raises: ValueError for an unknown name, with the nearest.
    """
    names = list(WHOLE) if spec == "lessons" else [name.strip() for name in spec.split(",")]
    known = [*TALKS, "tasks", *tasks.FAMILIES, *puzzles.PUZZLES]
    for name in names:
        if name not in known:
            raise config.unknown("lesson", name, known)
    return names


def are_ours(spec: str) -> bool:
    """Whether all that is named are sources of ours."""
    try:
        return bool(sources(spec))
    except ValueError:
        return False


def own_lessons(spec: str, side: Side, seed: int, count: int) -> Iterator[list[Message]]:
    """`count` conversations, in turns one from each source; fewer, if all sources come to their end.

    Raises: as `sources`.
    """
    turns = [_of(name, side, seed) for name in sources(spec)]
    while turns and count:
        for source in list(turns)[:count]:
            messages = next(source, None)
            if messages is None:
                turns.remove(source)
            else:
                yield messages
                count -= 1


def _of(name: str, side: Side, seed: int) -> Iterator[list[Message]]:
    if name in TALKS:
        return (lesson["messages"] for lesson in TALKS[name](side, seed))
    if name in puzzles.PUZZLES:
        return _in_turns([puzzles.problems(name, side, seed)])
    families = list(tasks.FAMILIES) if name == "tasks" else [name]
    return _in_turns([tasks.problems(family, side, seed) for family in families])


def _in_turns(problems: list[Iterator[Problem]]) -> Iterator[list[Message]]:
    """One problem of each family, again and again: they never end."""
    while True:
        for problem in map(next, problems):
            yield [{"role": "user", "content": problem.prompt}, {"role": "assistant", "content": problem.answer}]
