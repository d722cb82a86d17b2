"""Guess the next tokens cheaply, and let the model check all guesses at once.

A step that computes one token of a sequence reads every weight for it; computing five costs little more. So a cheap
guesser proposes the next few, the model computes all of them in one step, and of each guess its logits choose the
token that would have come anyway, with the same random number: as long as that is the guess, the next row of logits
is right as well. Nothing is accepted that would not have been chosen, so text and distribution stay the same; what a
guess costs is only time. So whoever guessed wrong is asked for fewer next time, and for more who guessed right.

    the model sees    the cat sat on          guessed    the  mat  and
    it chooses        the  mat  .             kept       the  mat        (and . follows: three tokens in one step)

Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding". For a guesser that is sure
of its guess, their rule accepts token x with probability p(x), which is how often a draw from p is x.
"""

from typing import Protocol
from weakref import WeakKeyDictionary

from minigpt.engine.generate import dense_cache, next_logits
from minigpt.engine.pages import common
from minigpt.engine.request import Answer
from minigpt.model.cache import DenseKVCache
from minigpt.model.gpt import GPT


class Guesser(Protocol):
    """Whoever has an idea how a text goes on."""

    def guess(self, answer: Answer, count: int) -> list[int]:
        """At most `count` tokens that may follow answer.visible."""
        ...


class PromptLookup:
    """What followed the last time: good for code, quotations, summaries and other texts that repeat themselves.

    Source: Saxena 2023, "Prompt Lookup Decoding".
    """

    LONGEST, SHORTEST = 4, 2  # tokens that must have occurred before; longer ones are believed first

    def __init__(self) -> None:
        self.seen: WeakKeyDictionary[Answer, _Seen] = WeakKeyDictionary()

    def guess(self, answer: Answer, count: int) -> list[int]:
        tokens = answer.visible
        seen = self.seen.get(answer)
        if seen is None or seen.length > len(tokens):  # the window has slid
            seen = self.seen[answer] = _Seen()
        seen.read(tokens)
        for length in range(self.LONGEST, self.SHORTEST - 1, -1):
            at = seen.after.get(tuple(tokens[-length:]))
            if at is not None:
                return tokens[at : at + count]
        return []


class _Seen:
    """Where each run of a few tokens was followed by another, the last time."""

    def __init__(self) -> None:
        self.after: dict[tuple[int, ...], int] = {}  # run of tokens -> the place after it
        self.length = 1  # tokens read, up to which runs are known

    def read(self, tokens: list[int]) -> None:
        for end in range(self.length, len(tokens)):  # a run at the very end has no successor yet
            for length in range(PromptLookup.SHORTEST, PromptLookup.LONGEST + 1):
                if length <= end:
                    self.after[tuple(tokens[end - length : end])] = end
        self.length = max(self.length, len(tokens))


class DraftModel:
    """A smaller model with the same vocabulary, which always guesses its likeliest token."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.caches: WeakKeyDictionary[Answer, _Read] = WeakKeyDictionary()

    def guess(self, answer: Answer, count: int) -> list[int]:
        tokens, shape = answer.visible, self.model.config
        count = min(count, shape.context_length - len(tokens))
        if count < 1:
            return []
        for ended in [other for other in self.caches if other.reason is not None]:
            del self.caches[ended]
        read = self.caches.get(answer)
        if read is None:
            read = self.caches[answer] = _Read(dense_cache(self.model, shape.context_length))
        read.back_to(tokens)
        guessed: list[int] = []
        while len(guessed) < count:
            missing = [*tokens, *guessed][read.cache.length :]
            guessed.append(int(next_logits(self.model, missing, read.cache).argmax()))
            read.tokens += missing
        return guessed


class _Read:
    """What a draft model has read of one text, right guesses and wrong ones."""

    def __init__(self, cache: DenseKVCache) -> None:
        self.cache, self.tokens = cache, []

    def back_to(self, tokens: list[int]) -> None:
        """Forget what has turned out otherwise, and the last token, whose logits are wanted."""
        self.cache.length = min(common(self.tokens, tokens), len(tokens) - 1)
        del self.tokens[self.cache.length :]
