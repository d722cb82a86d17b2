"""Special tokens: ids with a meaning for the machine, such as "here a document ends".

They must not be writable from outside. If the text "<|endoftext|>" in somebody's message became the real
id, that person could end the system prompt and speak in its name. So encoding text that spells a special
token raises by default, and code that means the token says so by name. `encode_ordinary` takes the spelling
as plain characters, which is right for a training corpus that happens to mention it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache


@lru_cache(maxsize=64)
def spelling(names: frozenset[str]) -> re.Pattern[str]:
    """Matches any of `names`, longer ones first: <|end|> must not hide <|end|>x where both are tokens."""
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))


def refuse(text: str, forbidden: frozenset[str]) -> str:
    """`text` itself. Raises: ValueError if it spells one of the `forbidden` special tokens."""
    if forbidden and (found := spelling(forbidden).search(text)):
        name = found.group()
        raise ValueError(
            f"the text spells the special token {name!r} at character {found.start()}, and text must not "
            f"control the model. To mean the token, pass allowed_special={{{name!r}}}; to encode the "
            "spelling as ordinary characters, use encode_ordinary(text) or pass disallowed_special=()."
        )
    return text


def cut(text: str, allowed: Mapping[str, int]) -> Iterator[str | int]:
    """The stretches of ordinary text (str) and the special tokens between them (id), in order."""
    start = 0
    for found in spelling(frozenset(allowed)).finditer(text):
        yield text[start : found.start()]
        yield allowed[found.group()]
        start = found.end()
    yield text[start:]
