"""Models whose every word is known beforehand, so that what a chat does with words can be watched."""

from itertools import pairwise

import torch

from minigpt.chat.session import Session
from minigpt.chat.template import with_chat_tokens
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.tokenizer import Tokenizer

BYTES = with_chat_tokens(Tokenizer.bytes_only())  # 256 to 259: system, user, assistant, end
SYSTEM, USER, ASSISTANT, END = range(256, 260)
GREEDY = SamplingConfig(temperature=0, max_new_tokens=20)


def says(text: str, then: int = END, context_length: int = 64) -> GPT:
    """A model that answers anything with `text`, byte for byte, and then says `then`: a token, or a byte again.

    After each token it knows just one: the blocks add nothing, an embedding is one number, and the head reads it. So no
    byte may occur twice.
    """
    chain = [ASSISTANT, *text.encode(), then]
    assert len(set(chain[:-1])) == len(chain) - 1, f"{text!r} says a byte twice"
    gpt = GPT(GPTConfig(vocab_size=260, context_length=context_length, n_layer=1, n_head=9, n_kv_head=1, n_embd=288,
                        mlp_width=32, tied=False)).eval()  # fmt: skip
    with torch.no_grad():
        for layer in (gpt.blocks[0].attention.o_proj, gpt.blocks[0].mlp.down_proj, gpt.lm_head):
            layer.weight.zero_()
        gpt.token_embedding.weight.copy_(torch.eye(260, 288))
        for now, after in pairwise(chain):
            gpt.lm_head.weight[after, now] = 9.0
    return gpt


def session(gpt: GPT, **how) -> Session:
    return Session(Engine(gpt, EngineConfig(max_batch=2)), BYTES, **{"sampling": GREEDY, **how})


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def prompts(chat: Session, monkeypatch) -> list[str]:
    """What the engine is asked from now on, as text."""
    asked, submit = [], chat.engine.submit

    def watched(request):
        asked.append(BYTES.decode(request.prompt))
        return submit(request)

    monkeypatch.setattr(chat.engine, "submit", watched)
    return asked


__all__ = ["ASSISTANT", "BYTES", "END", "GREEDY", "SYSTEM", "USER", "assistant", "prompts", "says", "session",
           "system", "user"]  # fmt: skip
