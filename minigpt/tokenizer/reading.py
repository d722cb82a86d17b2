"""Read files that may be damaged or come from elsewhere: whatever is wrong, one line that names the file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn any ValueError inside (bad JSON, bad UTF-8 and bad base64 are ValueErrors too) into one about `path`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{path} is no tokenizer that can be used here: {error}. "
            "If it is damaged, restore it from where it came or save the tokenizer again."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises: FileNotFoundError; ValueError if it is no object."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found {type(content).__name__}")
    return content


def field(table: Mapping[str, Any], key: str, kind: type[Kind]) -> Kind:
    """`table[key]`, which must be of this kind. Raises: ValueError if it is missing or of another kind."""
    if key not in table:
        raise ValueError(f"the key {key!r} is missing")
    return typed(table[key], kind, key)


def typed(value: object, kind: type[Kind], what: str) -> Kind:
    """`value`, which must be of this kind. Raises: ValueError if it is not."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{what!r} should be of type {kind.__name__}, but is {type(value).__name__}")
    return value
