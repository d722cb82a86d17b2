"""Read files that may be damaged or come from elsewhere: whatever is wrong, one line that names the file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn any ValueError inside (bad JSON, UTF-8 and base64 are ValueErrors too) into one about `path`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be used as a tokenizer: {error}. "
            "If it is damaged, fetch it again from where it came, or save the tokenizer again."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises: FileNotFoundError; ValueError if there is no object in it."""
    return typed(json.loads(path.read_text(encoding="utf-8")), dict, "the file")


def field(table: Mapping[str, Any], key: str, kind: type[Kind]) -> Kind:
    """`table[key]`, which must be of this kind. Raises: ValueError if it is missing or of another kind."""
    if key not in table:
        raise ValueError(f"the key {key!r} is missing")
    return typed(table[key], kind, repr(key))


def token_ids(vocab: Mapping[str, Any]) -> dict[str, int]:
    """The ids of named tokens. Raises: ValueError unless they are integers and one to one."""
    ids = {name: typed(i, int, f"the id of {name!r}") for name, i in vocab.items()}
    if len(set(ids.values())) < len(ids):
        raise ValueError("two tokens have the same id")
    return ids


def typed(value: object, kind: type[Kind], what: str) -> Kind:
    """`value`, which must be of this kind. Raises: ValueError if it is not."""
    if not isinstance(value, kind):
        raise ValueError(f"{what} should be of type {kind.__name__}, but is {type(value).__name__}")
    return value
