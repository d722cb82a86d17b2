"""Messages to ids, and which of them the assistant must learn to say: one pass gives both.

    <|system|>text<|end|><|user|>text<|end|><|assistant|>text<|end|>
                                                         ^^^^^^^^^^^ the mask

Phi's form without its line breaks, which would cost two tokens a turn and say nothing. Texts are encoded one by one and
put between the control tokens as ids, so a text that spells <|end|> stays text. Other programs write the whole
conversation as one text first and look for control tokens in it: for them the same template in their language, Jinja,
refuses such a text.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from minigpt.chat.conversation import ROLES, Message, check_messages
from minigpt.tokenizer import Tokenizer

SPEAKER: Final = {role: f"<|{role}|>" for role in ROLES}
END: Final = "<|end|>"
TOKENS: Final = (*SPEAKER.values(), END)


class Rendered(NamedTuple):
    ids: list[int]
    mask: list[bool]  # the assistant's own tokens: his text and the <|end|> behind it


class Template:
    """The chat template of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises: ValueError if the tokenizer lacks the control tokens."""
        if missing := missing_tokens(tokenizer):
            raise ValueError(f"the tokenizer has no {', '.join(missing)}: python train.py sft teaches a run to chat")
        self.tokenizer = tokenizer
        self.speaker = {role: tokenizer.special_tokens[name] for role, name in SPEAKER.items()}
        self.end = tokenizer.special_tokens[END]

    def render(self, messages: Sequence[Message]) -> Rendered:
        """A whole conversation. Raises: ValueError as check_messages."""
        check_messages(messages)
        ids: list[int] = []
        mask: list[bool] = []
        for message in messages:
            said = self.tokenizer.encode_parts([message["content"], self.end])
            ids += [self.speaker[message["role"]], *said]
            mask += [False, *[message["role"] == "assistant"] * len(said)]
        return Rendered(ids, mask)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation in which the assistant has the next word.

        Raises: ValueError as check_messages, and if the last message is not the user's.
        """
        ids = self.render(messages).ids
        if messages[-1]["role"] != "user":
            raise ValueError(f"the last message is the {messages[-1]['role']}'s: only a user's can be answered")
        return [*ids, self.speaker["assistant"]]


def missing_tokens(tokenizer: Tokenizer) -> list[str]:
    """The control tokens that a tokenizer lacks; none: it can chat."""
    return [name for name in TOKENS if name not in tokenizer.special_tokens]


def with_chat_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that has the control tokens, at the ids behind all others; itself if it has them.

    Every other id stays what it was. Raises: ValueError if an ordinary token is spelled like one of them.
    """
    missing = missing_tokens(tokenizer)
    if not missing:
        return tokenizer
    new = {name: tokenizer.n_vocab + place for place, name in enumerate(missing)}
    return Tokenizer(replace(tokenizer.vocabulary, special={**tokenizer.vocabulary.special, **new}))
