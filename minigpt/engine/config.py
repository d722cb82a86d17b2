"""How bold the next token may be, and how much the engine does at once."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    max_new_tokens: int = 256  # stop after so many tokens, if no end token came first
    temperature: float = 0.8  # below 1: safer, above: bolder; 0: always the likeliest token
    top_k: int | None = None  # choose among the k likeliest tokens only
    top_p: float = 1.0  # choose among the likeliest tokens that together have this probability
    min_p: float = 0.0  # choose among tokens at least this many times as likely as the likeliest
    repetition_penalty: float = 1.0  # above 1: tokens already there become less likely
    presence_penalty: float = 0.0  # taken off the logit of a token that was written already
    frequency_penalty: float = 0.0  # taken off it once for each time that it was

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens {self.max_new_tokens}: needs at least 1")
        if not (self.temperature == 0 or 1e-4 <= self.temperature < math.inf):
            raise ValueError(f"--temperature {self.temperature}: needs at least 0 (or 0.0001); 0.7 to 1 is usual")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"--top-k {self.top_k}: needs at least 1, or none for no limit")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p {self.top_p}: is a probability above 0; 1 keeps every token")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"--min-p {self.min_p}: is a share from 0 (keeps every token) to 1")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise ValueError(f"--repetition-penalty {self.repetition_penalty}: must be from 0.01 to 100; 1 is off")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -100 <= getattr(self, name) <= 100:
                flag = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise ValueError(f"{flag}: must be from -100 to 100; 0 is off")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    max_batch: int = 16  # requests computed together; more wait
    page: int = 16  # tokens in a page of the cache
    cache_tokens: int | None = None  # tokens that pages hold in all; none: max_batch times the model's context
    cache_dtype: Literal["weights", "float32", "bfloat16", "int8"] = "weights"  # of keys and values: fewer bytes
    chunk: int = 256  # tokens of prompts read in one step while nobody writes
    chunk_beside: int = 12  # tokens of prompts read in one step beside those who write: more delays them
    drafts: int = 0  # tokens guessed ahead and checked together, at most: good where text repeats itself
    invariant: bool = True  # the same tokens in any company; off: with torch, faster alone with float weights
    compiled: bool = True  # compute in C where a compiler is found; off: in torch
    graphs: bool = True  # on a GPU, record a step that writes and replay it; off: begin each operation anew

    def __post_init__(self) -> None:
        for name in ("max_batch", "page", "chunk", "chunk_beside"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: needs at least 1")
        if not 0 <= self.drafts <= 7:
            raise ValueError(f"--drafts {self.drafts}: guess 0 to 7 tokens ahead; wrong guesses cost time")
        if self.cache_tokens is not None and self.cache_tokens < self.page:
            raise ValueError(f"--cache-tokens {self.cache_tokens}: needs at least a page of {self.page}")
