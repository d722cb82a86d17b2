"""Which tokenizer a run uses: an existing one, or one trained on the run's own text."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    pattern: Literal["gpt2", "cl100k", "o200k"] = "cl100k"  # how text is cut before merging: GPT-2's, 4's or 4o's rule
    tokenizer: str | None = None  # folder or file of an existing tokenizer; none trains one on the run's text
