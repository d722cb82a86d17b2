"""What somebody asks of the engine, and what has become of it so far."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from minigpt.engine.config import SamplingConfig
from minigpt.grammar.constraint import Constraint
from minigpt.runtime.seeding import fresh_generator, generator

MOST_STOP_IDS = 64
MOST_LOGPROBS = 20

Reason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt, and how it is to be continued.

    Raises: ValueError for what no model could do; what depends on the model, `Engine.submit` refuses.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop_ids: Collection[int] = ()  # a token among them ends the text, unseen
    seed: int | None = None  # the same seed draws the same tokens; none: different ones every time
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of these tokens
    constraint: Constraint | None = None  # what the text must match, also when max_new_tokens cuts it
    logprobs: int | None = None  # report the log-probability of each token, and of so many of the likeliest

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("the prompt holds no token: begin with the end-of-text token, or any other")
        if wrong := [i for i in self.prompt if not isinstance(i, int)]:
            raise ValueError(f"the prompt holds {wrong[0]!r}, which is no integer: token ids are")
        if len(self.stop_ids) > MOST_STOP_IDS:
            raise ValueError(f"{len(self.stop_ids)} stop tokens: at most {MOST_STOP_IDS} are checked after each token")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise ValueError(f"logprobs={self.logprobs}: ask for 0 to {MOST_LOGPROBS} alternatives")
        for token, bias in self.logit_bias.items():
            if not math.isfinite(bias):
                raise ValueError(f"logit_bias {bias} of token {token}: must be finite; -100 is as good as never")


@dataclass(frozen=True)
class Logprob:
    """What the model thought of the token it chose: before penalties, temperature and filters."""

    chosen: float
    likeliest: tuple[tuple[int, float], ...]  # (token, log-probability), likeliest first


@dataclass(eq=False)
class Answer:
    """How far a request has come. The engine writes it; whoever asked reads it."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    reason: Reason | None = None  # why it has ended; none: it has not
    error: str | None = None  # what went wrong, where the reason is "error"
    slid_to: int | None = None  # tokens the model went on with when the context was full for the first time
    cached: int = 0  # tokens of the prompt that were remembered and not computed again

    def __post_init__(self) -> None:
        self.generator = fresh_generator() if self.request.seed is None else generator(self.request.seed)
        constraint, limit = self.request.constraint, self.request.sampling.max_new_tokens
        self.cursor = None if constraint is None else constraint.begin(limit)
        self.visible = list(self.request.prompt)  # what the model sees: the prompt and what it wrote

    def slide(self, context_length: int) -> None:
        """Go on with the newer half of what the model sees: the context is full."""
        del self.visible[: -max(1, context_length // 2)]
        self.slid_to = self.slid_to or len(self.visible)

    def take(self, token: int) -> bool:
        """Write down the token that was chosen; True if it is the end."""
        if self.cursor is not None:
            self.cursor.advance(token)
        if token in self.request.stop_ids or (self.cursor is not None and self.cursor.stopped):
            self.reason = "stop"
            return True
        self.tokens.append(token)
        self.visible.append(token)
        if self.cursor is not None and self.cursor.state.final:
            self.reason = "stop"
        elif len(self.tokens) == self.request.sampling.max_new_tokens:
            self.reason = "length"
        return self.reason is not None
