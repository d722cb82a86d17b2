"""Named runs, as Python functions: each returns a complete config, and the command line only overrides.

    python train.py quick                    a few minutes on a laptop, on text that every Python carries
    python train.py nanogpt-char --data FILE the classic: characters of Shakespeare, at nanoGPT's CPU shape
    python train.py gpt2-124m --data FOLDER  GPT-2's shape, for a GPU
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from minigpt import config
from minigpt.batches.config import BatchConfig
from minigpt.corpus.config import CorpusConfig
from minigpt.model.config import GPTConfig
from minigpt.optim.config import OptimConfig
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer.config import TokenizerConfig
from minigpt.training.config import RunConfig, TrainConfig


def quick() -> RunConfig:
    """A small modern GPT (Qwen3's shape) that learns Python's own library in about five minutes on two cores."""
    return RunConfig(
        out_dir="out/quick",
        machine=MachineConfig(),
        corpus=CorpusConfig(),
        tokenizer=TokenizerConfig(),
        batches=BatchConfig(batch_size=8),
        model=GPTConfig(vocab_size=4096, context_length=256, n_layer=4, n_head=4, n_kv_head=2, n_embd=128),
        optim=OptimConfig(lr=6e-3, warmup_steps=40),
        train=TrainConfig(max_steps=1050, eval_every=150, eval_batches=10, save_every=150, sample_every=350),
    )


def nanogpt_char() -> RunConfig:
    """nanoGPT's Shakespeare on a CPU: bytes as tokens, GPT-2's blocks, the same shape, batch and number of steps."""
    return RunConfig(
        out_dir="out/nanogpt-char",
        machine=MachineConfig(),
        corpus=CorpusConfig(data="input.txt", clean=False),
        tokenizer=TokenizerConfig(),
        batches=BatchConfig(batch_size=12),
        model=GPTConfig(
            vocab_size=256, context_length=64, n_layer=4, n_head=4, n_kv_head=None, n_embd=128,
            position="learned", norm="layer", mlp="gelu", qk_norm=False, tied=True, bias=False,
        ),
        optim=OptimConfig(optimizer="adamw", lr=1e-3, warmup_steps=100, weight_decay=0.1, beta2=0.99),
        train=TrainConfig(max_steps=2000, eval_every=250, eval_batches=20, save_every=500, sample_every=0),
    )  # fmt: skip


def gpt2_124m() -> RunConfig:
    """GPT-2 small (Radford et al. 2019): 12 layers, 768 wide, context 1,024; half a million tokens a step."""
    return RunConfig(
        out_dir="out/gpt2-124m",
        machine=MachineConfig(),
        corpus=CorpusConfig(),
        tokenizer=TokenizerConfig(pattern="gpt2"),
        batches=BatchConfig(batch_size=32),
        model=GPTConfig(
            vocab_size=50257, context_length=1024, n_layer=12, n_head=12, n_kv_head=None, n_embd=768,
            position="learned", norm="layer", mlp="gelu", qk_norm=False, tied=True, bias=True,
        ),
        optim=OptimConfig(lr=2e-3, warmup_steps=250, weight_decay=0.1),
        train=TrainConfig(max_steps=5000, accumulate=16, eval_every=250, save_every=500, sample_every=500),
    )  # fmt: skip


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "quick": quick,
    "nanogpt-char": nanogpt_char,
    "gpt2-124m": gpt2_124m,
}

USAGE = """\
python train.py [preset] [--flag value ...]

Train a GPT. Presets: quick (the default), nanogpt-char, gpt2-124m; [brackets] show this preset's values.
The same line resumes a run that was stopped. --flag=value and --flag_name work too."""

SHAPE = ("vocab_size", "n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "mlp_width", "position", "norm", "mlp",
         "qk_norm", "window", "tied", "bias", "rope_theta", "norm_eps")  # fmt: skip


def from_command_line(argv: Sequence[str] | None = None) -> RunConfig:
    """[preset] [--flag value ...] -> a complete config.

    Raises: ValueError for an unknown preset, flag or value, naming the nearest match.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else "quick"
    if name not in PRESETS:
        raise config.unknown("preset", name, PRESETS)
    run = config.from_command_line(PRESETS[name](), argv, USAGE)
    return _with_init_shape(run, config.given_flags(argv)) if run.init else run


def _with_init_shape(run: RunConfig, given: set[str]) -> RunConfig:
    """With --init the shape comes with the weights; dropout and a shorter context may be asked for."""
    if clash := sorted(given & set(SHAPE)):
        flag = "--" + clash[0].replace("_", "-")
        raise ValueError(f"{flag} cannot be combined with --init: the shape comes with the weights")
    from minigpt.training.pretrain import init_shape  # imports torch

    asked = {name: getattr(run.model, name) for name in ("dropout", "context_length") if name in given}
    return replace(run, model=replace(init_shape(run.init), **asked))
