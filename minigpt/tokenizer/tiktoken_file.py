"""tiktoken's rank files: one token a line, in base64, and its rank, which is also its id.

A rank file holds ordinary tokens only; the split pattern and the special tokens must be known from elsewhere.
`merges_from_ranks` (vocabulary.py) says how ranks become merges.
"""

import base64
from collections.abc import Mapping
from pathlib import Path

from minigpt.tokenizer.reading import blaming
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary, merges_from_ranks


def read(path: Path, pattern: str, special: Mapping[str, int] | None) -> Vocabulary:
    """Without `special`, <|endoftext|> takes the id after the last rank, except that plain bytes have none.

    Raises: FileNotFoundError; ValueError if the file is damaged.
    """
    with blaming(path):
        tokens: dict[int, bytes] = {}
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            token, _, rank = line.partition(b" ")
            if not rank.isdigit() or int(rank) in tokens:
                raise ValueError(f"line {number} is no base64 token followed by a rank of its own")
            tokens[int(rank)] = base64.b64decode(token, validate=True)
        if special is None:
            special = {END_OF_TEXT: max(tokens) + 1} if len(tokens) > 256 else {}
        return from_ranks(tokens, pattern, special)


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
