"""The same template for other programs, in their language: Jinja.

They write the conversation as one text and then look for control tokens in it. Where a message spells one, its author
could speak in somebody else's name; so the template refuses the message, as `Tokenizer.encode` does.

transformers marks as the assistant's what stands between {% generation %} and {% endgeneration %}, for
`apply_chat_template(..., return_assistant_tokens_mask=True)`. Jinja itself does not know these tags, and programs that
only answer may stop at them (llama-cpp-python does): they get the template without.
"""

import json
from collections.abc import Iterable
from typing import Final

from minigpt.chat.conversation import ROLES
from minigpt.chat.template import Template
from minigpt.tokenizer import Tokenizer

CHAT: Final = (
    "{% for message in messages %}"
    "{% if message['role'] not in ROLES %}{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}"
    "{% for name in NAMES %}{% if name in message['content'] %}"
    "{{ raise_exception('a message spells the control token ' + name) }}"
    "{% endif %}{% endfor %}"
    "<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def training_template(tokenizer: Tokenizer) -> str:
    """For transformers: also says which tokens are the assistant's. Raises: ValueError without the control tokens."""
    names = Template(tokenizer).tokenizer.special_tokens
    return CHAT.replace("ROLES", _listed(ROLES)).replace("NAMES", _listed(names))


def serving_template(tokenizer: Tokenizer) -> str:
    """For programs that only answer. Raises: ValueError without the control tokens."""
    return training_template(tokenizer).replace("{% generation %}", "").replace("{% endgeneration %}", "")


def _listed(names: Iterable[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)
