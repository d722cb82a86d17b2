"""tiktoken's rank files: one token a line, in base64, and its rank, which is also its id.

A rank file holds ordinary tokens only; the split pattern and the special tokens must be known from elsewhere: from its
name, where it is one of those that OpenAI publishes. `merges_from_ranks` (vocabulary.py) says how ranks become merges.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from minigpt.tokenizer.patterns import GPT2, O200K, PATTERNS, TIKTOKEN_CL100K, resolve
from minigpt.tokenizer.reading import blaming
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary, merges_from_ranks


class Published(NamedTuple):
    """What a published rank file does not say."""

    pattern: str
    ranks: int  # how many lines it has: a download that broke off has fewer
    special: Mapping[str, int]


_FIM = {"<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}
_R50K = Published(GPT2, 50_256, {END_OF_TEXT: 50_256})
PUBLISHED: Final = {
    "gpt2": _R50K,
    "r50k_base": _R50K,
    "p50k_base": Published(GPT2, 50_280, {END_OF_TEXT: 50_256}),
    "cl100k_base": Published(TIKTOKEN_CL100K, 100_256, {END_OF_TEXT: 100_257, **_FIM, "<|endofprompt|>": 100_276}),
    "o200k_base": Published(O200K, 199_998, {END_OF_TEXT: 199_999, "<|endofprompt|>": 200_018}),
}
"""By file name. Source: tiktoken_ext/openai_public.py."""


def read(path: Path, pattern: str | None, special: Mapping[str, int] | None) -> Vocabulary:
    """Without a pattern, the file must be a published one, known by its name: then it has that one's special tokens.
    With one and without `special`, <|endoftext|> takes the id after the last rank, except that plain bytes have none.

    Raises: FileNotFoundError; ValueError if the file is damaged, or nothing says its pattern.
    """
    published = None if pattern is not None else PUBLISHED.get(path.stem)
    if pattern is None and published is None:
        raise ValueError(
            f"{path} holds ranks, and neither a split pattern nor special tokens. Say which: Tokenizer.from_tiktoken"
            f"(path, pattern=...) with one of {', '.join(PATTERNS)}; or give it the name of what it is, one of "
            f"{', '.join(f'{name}.tiktoken' for name in PUBLISHED)}; or use a tokenizer.json, which says it all."
        )
    with blaming(path):
        tokens = _read_ranks(path)
        if published is None:
            after = {END_OF_TEXT: max(tokens) + 1} if len(tokens) > 256 else {}
            return from_ranks(tokens, resolve(pattern), after if special is None else special)
        if len(tokens) != published.ranks:
            raise ValueError(f"{path.stem} has {published.ranks:,} ranks, and this file {len(tokens):,}")
        return from_ranks(tokens, published.pattern, published.special if special is None else special)


def _read_ranks(path: Path) -> dict[int, bytes]:
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        token, _, rank = line.partition(b" ")
        if not rank.isdigit() or int(rank) in tokens:
            raise ValueError(f"line {number} is no base64 token followed by a rank of its own")
        tokens[int(rank)] = base64.b64decode(token, validate=True)
    if not tokens:
        raise ValueError("256 bytes have no token: the file is empty")
    return tokens


def from_ranks(tokens: Mapping[int, bytes], pattern: str, special: Mapping[str, int]) -> Vocabulary:
    """A vocabulary that encodes by tiktoken's rule."""
    return Vocabulary(
        tokens=tokens,
        merges=merges_from_ranks(tokens),
        special=special,
        pattern=pattern,
        end_of_text=END_OF_TEXT if END_OF_TEXT in special else None,
        whole_words=True,
    )


def write(vocabulary: Vocabulary, path: Path) -> None:
    """Raises: ValueError if merging by id would give other tokens than this vocabulary's merges."""
    made = [new for _, _, new in vocabulary.merges]
    if made != sorted(made):
        raise ValueError("tiktoken merges in the order of ids, and this tokenizer in another")
    lines = [base64.b64encode(token) + b" %d\n" % i for i, token in sorted(vocabulary.tokens.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
