"""What a model answers to many questions, written together."""

from collections.abc import Sequence
from typing import NamedTuple

from minigpt.chat.template import Template
from minigpt.engine.config import EngineConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Request
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT


class Said(NamedTuple):
    """One answer to one question."""

    prompt: list[int]
    tokens: list[int]  # without <|end|>
    text: str
    ended: bool        # by itself; else at the limit

    def completion(self, end: int) -> list[int]:
        """All tokens that the model chose."""
        return [*self.tokens, end] if self.ended else self.tokens


def written(gpt: GPT, template: Template, requests: Sequence[Request], config: EngineConfig) -> list[Said]:
    """The answers to all requests, in their order, without dropout.

    Raises: ValueError, with the engine's reason, if one of them is refused.
    """
    with evaluating(gpt):
        engine = Engine(gpt, config)
        answers = [engine.submit(request) for request in requests]
        while engine.busy:
            engine.step()
    if wrong := next((answer.error for answer in answers if answer.error), None):
        raise ValueError(wrong)
    return [Said(list(request.prompt), answer.tokens, template.tokenizer.decode(answer.tokens), answer.reason == "stop")
            for request, answer in zip(requests, answers, strict=True)]  # fmt: skip
