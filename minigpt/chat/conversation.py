"""Messages; what is a conversation, and three ways in which files hold them.

    ours, OpenAI's    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    Alpaca            {"instruction": "Translate", "input": "chat", "output": "cat"}        ("input" may be missing)
    ShareGPT          {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}

one object to a line, or all in one JSON list, as Alpaca and ShareGPT were published; either may be compressed (.gz).
Other keys are left alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from minigpt.corpus.files import opened_lines

ROLES: Final = ("system", "user", "assistant")
SHAREGPT: Final = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
                   "assistant": "assistant"}  # fmt: skip


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


def check_messages(messages: Sequence[Message]) -> None:
    """At most one system message, first; then user and assistant in turns, the user first; nobody says nothing.

    Who has the last word is not asked here. Raises: ValueError naming the message, counted from 1.
    """
    if not messages:
        raise ValueError("a conversation without messages")
    wanted = "user"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {number} must have a role and a content, and is {type(message).__name__}")
        role, content = message.get("role"), message.get("content")
        if number == 1 and role == "system":
            wanted = role
        if role not in ROLES:
            raise ValueError(f"message {number}: unknown role {role!r}: choose one of {', '.join(ROLES)}")
        if role != wanted:
            raise ValueError(
                f"message {number} is the {role}'s where the {wanted}'s is due: at most one system message, "
                "then user and assistant in turns, the user first"
            )
        if not isinstance(content, str):
            raise ValueError(f"message {number} ({role}): the content must be text, not {type(content).__name__}")
        if not content.strip():
            raise ValueError(f"message {number} ({role}): the content is empty")
        wanted = "assistant" if role == "user" else "user"


def read_conversations(path: str | Path) -> Iterator[list[Message]]:
    """The conversations of a file, in its order, each with an answer to learn from. Lines are read one at a time.

    Raises: ValueError naming the file and the line (or, in a JSON list, the item) for what is no JSON, not in one of
            the three forms, not in order, empty, or without an answer; for a file that holds none; as opened_lines.
    """
    found = False
    for place, row in _rows(Path(path)):
        found = True
        try:
            messages = _messages(row)
            check_messages(messages)
            if all(message["role"] != "assistant" for message in messages):
                raise ValueError("the assistant says nothing: there is no answer to learn from")
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        yield messages
    if not found:
        raise ValueError(f"{path} holds no conversation")


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """(where, row): the lines that are not blank, or the items of one JSON list."""
    with opened_lines(file) as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # the mark that Windows puts first
            if number == 1 and text.lstrip().startswith(b"["):
                items = _parsed(file, 1, text + lines.read())
                yield from ((f"{file}, item {place}", item) for place, item in enumerate(items, 1))
            elif text.strip():
                yield f"{file}, line {number}", _parsed(file, number, text)


def _parsed(file: Path, number: int, text: bytes) -> Any:
    """JSON that begins at line `number` of a file."""
    try:
        return json.loads(text.decode("utf-8").rstrip())  # what is cut off ends on its own line, not on the next
    except UnicodeDecodeError as error:
        number += text.count(b"\n", 0, error.start)
        raise ValueError(f"{file}, line {number} is not UTF-8 text: {error.reason}") from None
    except json.JSONDecodeError as error:
        number += error.lineno - 1
        raise ValueError(f"{file}, line {number} is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 5,000 brackets
        raise ValueError(f"{file}, line {number} is no JSON that can be read: {error}") from None


def _messages(row: Any) -> list[Message]:
    """One row of a file, whichever of the three forms it has. Raises: ValueError for any other."""
    match row:
        case {"messages": [*messages]}:
            return [_message(message, "role", "content") for message in messages]
        case {"conversations": [*turns]}:
            return [_renamed(_message(turn, "from", "value")) for turn in turns]
        case {"instruction": str(asked), "output": answer}:
            given = row.get("input") or ""
            return [{"role": "user", "content": f"{asked}\n\n{given}" if given else asked},
                    {"role": "assistant", "content": answer}]  # fmt: skip
    keys = f"an object with {', '.join(map(repr, row)) or 'nothing'}" if isinstance(row, dict) else type(row).__name__
    raise ValueError(f'expected {{"messages": [...]}}, Alpaca\'s "instruction" and "output", or ShareGPT\'s '
                     f'{{"conversations": [...]}}, found {keys}')  # fmt: skip


def _message(turn: Any, role: str, content: str) -> Message:
    if not isinstance(turn, Mapping) or not {role, content} <= turn.keys():
        raise ValueError(f'a message is {{"{role}": ..., "{content}": ...}}, not {json.dumps(turn)[:80]}')
    return {"role": turn[role], "content": turn[content]}


def _renamed(message: Message) -> Message:
    name = message["role"]
    if not isinstance(name, str) or name not in SHAREGPT:
        raise ValueError(f"ShareGPT's turns are from {', '.join(SHAREGPT)}, not from {name!r}")
    return {"role": SHAREGPT[name], "content": message["content"]}
