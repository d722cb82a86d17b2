"""Special tokens: ids with a meaning for the machine, such as "here a document ends".

They must not be writable from outside. If the text "<|endoftext|>" in somebody's message became the real id 50256,
that person could end the system prompt and speak in its name. So encoding user text that spells a special token
raises by default, and code that means the token says so by name. `encode_ordinary` takes the spelling as plain
characters, which is right for a training corpus that happens to mention it.
"""

import re
from collections.abc import Collection, Iterator, Mapping


def spelling(names: Collection[str]) -> re.Pattern[str]:
    """Matches any of the names; the longest first, so that <|end|> does not hide <|end|>2 in a name list."""
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))


def refuse(text: str, forbidden: Collection[str]) -> None:
    """Raise ValueError if `text` spells one of the `forbidden` special tokens."""
    if forbidden and (found := spelling(forbidden).search(text)):
        name = found.group()
        raise ValueError(
            f"the text spells the special token {name!r} at character {found.start()}, and text from outside must "
            f"not control the model. To mean the token, pass allowed_special={{{name!r}}}; to encode the spelling "
            "as ordinary characters, use encode_ordinary(text) or pass disallowed_special=()."
        )


def cut(text: str, allowed: Mapping[str, int]) -> Iterator[str | int]:
    """The stretches of ordinary text (str) and the special tokens between them (id), in order."""
    start = 0
    for found in spelling(allowed).finditer(text) if allowed else ():
        if found.start() > start:
            yield text[start : found.start()]
        yield allowed[found.group()]
        start = found.end()
    if start < len(text):
        yield text[start:]
