"""What a tokenizer knows, as plain data. Two tokenizers with equal vocabularies give equal ids.

One representation serves every format. `merges` is a list of (left, right, made) in order of priority: of
all neighbouring pairs in a pre-token, the one that stands first in the list is merged first (the leftmost
of equals).

* A tokenizer trained here and GPT-2's `merges.txt` hold exactly such a list, one line per token.
* tiktoken stores only tokens with ranks, and merges *any* two neighbours whose bytes together are a token,
  lowest rank first. That is the same rule with a longer list: every way to cut a token into two tokens is a
  merge, and all merges that make the same token share its rank (`merges_from_ranks`). So merges of one
  token that follow each other in the list count as one rank. Llama 3's tokenizer.json is such a list too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Merge = tuple[int, int, int]  # ids: left, right, made

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Everything that decides ids. A special token is no text: it has an id and a name, and is never merged.

    Raises: ValueError unless ids and tokens are one to one, every byte has a token, and every merge is of
    tokens.
    """

    tokens: Mapping[int, bytes]  # ordinary tokens only
    merges: Sequence[Merge]  # in order of priority
    special: Mapping[str, int]
    pattern: str  # the regular expression that cuts text into pre-tokens
    end_of_text: str | None = None  # the special token that ends a document
    normalization: Literal["NFC"] | None = None  # applied to text first (Qwen); loses the exact spelling
    whole_words: bool = False  # a pre-token that is a token is taken whole (tiktoken, Llama 3)

    def __post_init__(self) -> None:
        _check_tokens(self.tokens, self.special)
        _check_merges(self.merges, self.tokens)

    @cached_property
    def size(self) -> int:
        """The highest id plus one: how many rows an embedding needs, gaps included."""
        return 1 + max(max(self.tokens), max(self.special.values(), default=0))

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        return {token: i for i, token in self.tokens.items()}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides ids, the same on every machine: also those put between documents."""
        special = sorted(self.special.items(), key=lambda item: item[1])
        usual = END_OF_TEXT if END_OF_TEXT in self.special else None  # left out: shards from before it counted stay
        end = [] if self.end_of_text == usual else [self.end_of_text]
        lines = [json.dumps([self.pattern, self.normalization, self.whole_words, special, *end])]
        lines += [f"{i} {token.hex()}" for i, token in sorted(self.tokens.items())]
        lines += [f"{left}+{right}={made}" for left, right, made in self.merges]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _check_tokens(tokens: Mapping[int, bytes], special: Mapping[str, int]) -> None:
    spelled = set(tokens.values())
    if len(spelled) != len(tokens):
        raise ValueError(f"{len(tokens) - len(spelled)} tokens stand in the vocabulary twice")
    if missing := [byte for byte in range(256) if bytes([byte]) not in spelled]:
        raise ValueError(f"not byte-level: {len(missing)} bytes have no token, the first is {missing[0]}")
    if len(set(special.values())) != len(special) or not tokens.keys().isdisjoint(special.values()):
        raise ValueError("two tokens have the same id")
    if min(min(tokens), min(special.values(), default=0)) < 0:
        raise ValueError("a token has a negative id")
    for name in special:
        if not name or name.encode() in spelled:
            raise ValueError(f"the special token {name!r} is an ordinary token too: name it like <|this|>")


def _check_merges(merges: Sequence[Merge], tokens: Mapping[int, bytes]) -> None:
    for left, right, made in merges:
        if left not in tokens or right not in tokens or made not in tokens:
            raise ValueError(f"the merge {left} + {right} = {made} names an id that no token has")
        if (together := tokens[left] + tokens[right]) != tokens[made]:
            raise ValueError(
                f"the merge {left} + {right} makes {together!r}, but token {made} is {tokens[made]!r}"
            )


def merges_from_ranks(tokens: Mapping[int, bytes]) -> list[Merge]:
    """tiktoken's rule as a merge list: every cut of a token into two tokens, in the order of ids."""
    id_of = {token: i for i, token in tokens.items()}
    return [
        (id_of[token[:cut]], id_of[token[cut:]], made)
        for made, token in sorted(tokens.items())
        for cut in range(1, len(token))
        if token[:cut] in id_of and token[cut:] in id_of
    ]
