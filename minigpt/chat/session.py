"""A conversation that goes on: what was said, what is left out when the context is full, and the answer as it comes."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

from minigpt.chat.conversation import Message
from minigpt.chat.template import Template
from minigpt.engine.config import SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Reason, Request
from minigpt.tokenizer import Tokenizer


class Fitted(NamedTuple):
    prompt: list[int]
    dropped: int  # turns, the oldest, that are not in the prompt


def fitted(template: Template, messages: Sequence[Message], context_length: int, answer: int) -> Fitted:
    """The prompt of a conversation that may be longer than the context.

    The rule: room is kept for an answer of `answer` tokens, but never for more than a quarter of the context. The
    oldest turns, each a message of the user's with its answer, are left out one by one until the rest fits. The system
    message and the last message always stay, and no message is cut.
    Raises: ValueError if these two alone are too long; as Template.prompt.
    """
    room = kept_for_answer(context_length, answer)
    begin = first = int(messages[0]["role"] == "system") if messages else 0
    while len(prompt := template.prompt([*messages[:begin], *messages[first:]])) > context_length - room:
        first += 2
        if first >= len(messages):
            system = " with the system message" if begin else ""
            raise ValueError(
                f"the message is too long: {len(prompt)} tokens{system}, and of the {context_length} that the model "
                f"sees {room} are kept for the answer"
            )
    return Fitted(prompt, (first - begin) // 2)


def kept_for_answer(context_length: int, answer: int) -> int:
    """Tokens of the context that a prompt must leave free."""
    return min(answer, context_length // 4)


class Session:
    """One conversation with one model. What it has forgotten, for want of room, it has forgotten for good."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        system: str | None = None,
        sampling: SamplingConfig | None = None,
        seed: int | None = None,
    ) -> None:
        """`seed`: the same one gives the same answers to the same messages; none: different ones every time.

        Raises: ValueError if the tokenizer lacks the control tokens, or if nothing can be said beside `system`.
        """
        self.engine, self.template, self.seed = engine, Template(tokenizer), seed
        self.sampling = sampling or SamplingConfig()
        # A model that begins to speak for somebody else has ended, too.
        ends = [self.template.end, *self.template.speaker.values(), tokenizer.eot_token]
        self.stop_ids = [end for end in ends if end is not None]
        self.system: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        if self.system:
            self._check_system()
        self.asked = 0  # turns so far: each draws from a stream of its own
        self.reset()

    def _check_system(self) -> None:
        """Raises: ValueError if the system message leaves no room for a word."""
        least = len(self.template.prompt([*self.system, {"role": "user", "content": "?"}]))
        context_length = self.engine.shape.context_length
        room = kept_for_answer(context_length, self.sampling.max_new_tokens)
        if least > context_length - room:
            raise ValueError(f"the system message is too long: with the shortest question it takes {least} tokens, and "
                             f"of the {context_length} that the model sees {room} are kept for the answer")  # fmt: skip

    def reset(self) -> None:
        """Begin again; the system message stays."""
        self.messages = list(self.system)
        self.forgotten = 0  # turns that were left out since then
        self.reason: Reason | None = None  # why the last answer ended

    def undo(self) -> bool:
        """Take the last turn back. False if there is none."""
        if self.messages == self.system:
            return False
        del self.messages[-2:]
        return True

    def say(self, text: str) -> Iterator[str]:
        """Stream the answer to a message: whole characters only.

        When it ends, or is not read on, what came of it is remembered; a turn without an answer is not. A character
        that was cut by the limit on tokens is left out.
        Raises: ValueError for an empty message and for one that is too long, at once; then nothing is changed.
        """
        asked: Message = {"role": "user", "content": text}
        limit, context_length = self.sampling.max_new_tokens, self.engine.shape.context_length
        prompt, dropped = fitted(self.template, [*self.messages, asked], context_length, limit)
        del self.messages[len(self.system) : len(self.system) + 2 * dropped]
        self.forgotten += dropped
        self.asked += 1
        sampling = replace(self.sampling, max_new_tokens=min(limit, context_length - len(prompt)))
        seed = None if self.seed is None else self.seed + self.asked
        request = Request(prompt=prompt, sampling=sampling, stop_ids=self.stop_ids, seed=seed)
        return self._answer(asked, request)

    def _answer(self, asked: Message, request: Request) -> Iterator[str]:
        answer = self.engine.submit(request)
        decoder, said = self.template.tokenizer.stream_decoder(), ""
        try:
            with closing(self.engine.follow(answer)) as tokens:
                for token in tokens:
                    if piece := decoder.push(token):
                        said += piece
                        yield piece
            if answer.reason == "stop" and (piece := decoder.flush()):  # the model itself left it unfinished
                said += piece
                yield piece
        finally:
            self.reason = answer.reason
            if said.strip():
                self.messages += [asked, {"role": "assistant", "content": said}]
