"""A GPT small enough to generate with in milliseconds, in every shape."""

import torch

from minigpt.engine.config import SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Answer, Request
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT

VOCAB, CONTEXT = 40, 12

VARIANTS = {
    "rope": {}, "learned": {"position": "learned"}, "sinusoidal": {"position": "sinusoidal"},
    "alibi": {"position": "alibi"}, "none": {"position": "none"}, "window": {"window": 5},
    "grouped": {"n_head": 4, "n_kv_head": 1}, "short conv": {"short_conv": 3},
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "qk_norm": False},
}  # fmt: skip


def made_gpt(**changes) -> GPT:
    """Small, in float64, with weights large enough that what it saw decides what it says."""
    shape = {"vocab_size": VOCAB, "context_length": CONTEXT, "n_layer": 2, "n_head": 2, "n_embd": 16}
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(**{**shape, "mlp_width": 24, **changes})).double().eval()
    for parameter in gpt.parameters():
        parameter.data *= 8.0 if parameter.ndim == 2 else 1.0
    return gpt


# --- and an engine to ask -----------------------------------------------------------------------------------------

BOLD = SamplingConfig(temperature=1.0, top_p=0.95, max_new_tokens=40, frequency_penalty=0.1)


def asked(prompt: list[int], seed: int = 1, sampling: SamplingConfig = BOLD, **more) -> Request:
    return Request(prompt=prompt, sampling=sampling, seed=seed, **more)


def finished(engine: Engine, requests: list[Request]) -> list[Answer]:
    answers = [engine.submit(request) for request in requests]
    while engine.busy:
        engine.step()
    return answers
