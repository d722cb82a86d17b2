"""Small benchmarks, each pair on the same inputs and checked for equal results first.

    pytest benchmarks --benchmark-only --benchmark-group-by=group      on a quiet machine; read the ratios

Absolute times of shared machines mean little; within one group the two are measured in one run.
"""

import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kernels
from kernels import reference
from minigpt.engine.config import SamplingConfig
from minigpt.engine.generate import generate
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import save_pretrained
from minigpt.optim.config import OptimConfig
from minigpt.optim.groups import build_optimizer
from minigpt.tokenizer import Tokenizer

SMALL = GPTConfig(vocab_size=1024, context_length=128, n_layer=4, n_head=4, n_embd=128)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def text():
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return "".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)[:2_000_000]


@pytest.fixture(scope="module")
def tokenizer(text):
    return Tokenizer.train([text], vocab_size=4096)


# --- tokenizer: 2 MB of Python's library --------------------------------------------------------------------------


def encode_ours(tokenizer, text):
    return tokenizer.encode_to_numpy


def encode_tiktoken(tokenizer, text):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {tokenizer.token_bytes(i): i for i in range(tokenizer.n_vocab) if not tokenizer.is_special_token(i)}
    theirs = tiktoken.Encoding("ours", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={})
    return theirs.encode_ordinary


def encode_huggingface(tokenizer, text, tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.benchmark(group="encode 2 MB of new text")
@pytest.mark.parametrize("who", ["ours", "tiktoken", "huggingface"])
def test_encoding(benchmark, who, tokenizer, text, tmp_path_factory):
    """New text: our table of words is emptied before each round, as a corpus read once would find it."""
    if who == "ours":
        encode = tokenizer.encode_to_numpy
    elif who == "tiktoken":
        encode = encode_tiktoken(tokenizer, text)
    else:
        encode = encode_huggingface(tokenizer, text, tmp_path_factory)
    part = text[:200_000]
    assert np.array_equal(encode(part), tokenizer.encode_ordinary(part))
    benchmark.pedantic(encode, args=(text,), setup=tokenizer.clear_cache, rounds=5)


# --- kernels: the fast path beside its specification --------------------------------------------------------------


@pytest.mark.benchmark(group="attention, forward and backward, (8, 4, 256, 64)")
@pytest.mark.parametrize("which", ["kernels", "reference"])
def test_attention(benchmark, which):
    attend = {"kernels": kernels.attention, "reference": reference.attention}[which]
    q, k, v = (torch.randn(8, 4, 256, 64, requires_grad=True) for _ in range(3))
    torch.testing.assert_close(attend(q, k, v), reference.attention(q, k, v), atol=1e-5, rtol=1e-4)
    benchmark(lambda: attend(q, k, v).sum().backward())


@pytest.mark.benchmark(group="linear + cross-entropy, forward and backward, 2048 tokens, 4096 words, 256 wide")
@pytest.mark.parametrize("which", ["kernels", "reference"])
def test_linear_cross_entropy(benchmark, which):
    op = {"kernels": kernels.linear_cross_entropy, "reference": reference.linear_cross_entropy}[which]
    x, weight = torch.randn(2048, 256, requires_grad=True), torch.randn(4096, 256, requires_grad=True)
    targets = torch.randint(4096, (2048,))
    expected = reference.linear_cross_entropy(x, weight, targets)
    torch.testing.assert_close(op(x, weight, targets), expected, rtol=1e-4, atol=1e-4)
    benchmark(lambda: op(x, weight, targets).backward())


# --- optimizer: one step of AdamW on a GPT of 1M parameters ---------------------------------------------------------


def adamw_ours(model):
    return build_optimizer(model, OptimConfig(optimizer="adamw")).step


def adamw_torch(model, **how):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, **how).step


@pytest.mark.benchmark(group="AdamW, one step of a GPT with 1M parameters")
@pytest.mark.parametrize("who", ["ours", "torch default", "torch foreach", "torch fused"])
def test_adamw(benchmark, who):
    """Equality with torch.optim.AdamW over 200 steps is tested in tests/optim."""
    model = GPT(SMALL)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    how = {} if who == "torch default" else {who.split()[-1]: True}
    benchmark(adamw_ours(model) if who == "ours" else adamw_torch(model, **how))


# --- generation: the same weights, the same greedy tokens -----------------------------------------------------------


def generate_ours(model, prompt, n):
    return list(generate(model, prompt, SamplingConfig(temperature=0, max_new_tokens=n)))


def generate_transformers(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()

    def run(model: nn.Module, prompt, n):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        how = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "pad_token_id": 0}
        out = theirs.generate(ids, attention_mask=mask, **how)
        return out[0, len(prompt) :].tolist()

    return run


@pytest.mark.benchmark(group="generate 64 tokens with a cache, 1M parameters, one sequence")
@pytest.mark.parametrize("who", ["ours", "transformers"])
def test_generation(benchmark, who, tmp_path):
    torch.manual_seed(0)
    model = GPT(SMALL).eval()
    save_pretrained(model, tmp_path)
    run = generate_ours if who == "ours" else generate_transformers(tmp_path)
    prompt = list(range(16))
    assert run(model, prompt, 64) == generate_ours(model, prompt, 64)
    benchmark(run, model, prompt, 64)
