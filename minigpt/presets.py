"""Named runs, as Python functions: each returns a complete config, and the command line only overrides.

    python train.py quick                    a few minutes on a laptop, on text that every Python carries
    python train.py nanogpt-char --data FILE the classic: characters of Shakespeare, at nanoGPT's CPU shape
    python train.py gpt2-124m --data FOLDER  GPT-2's shape, for a GPU
    python train.py sft --data my.jsonl      from completing text to following requests, by conversations
    python train.py tasks                    from nothing to fourteen kinds of problems that a rule can judge
    python train.py lora --init out/sft      the same with adapters: a hundredth of the parameters learns
    python train.py reward                   a model that says which of two answers is better
    python train.py dpo                      answers that are liked, from pairs
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from minigpt import config
from minigpt.alignment.config import (
    AnswerRowConfig,
    DPOConfig,
    GRPOConfig,
    PairBatchConfig,
    PairsConfig,
    PPOConfig,
    RewardConfig,
    RolloutConfig,
)
from minigpt.batches.config import BatchConfig, RowConfig
from minigpt.corpus.config import CorpusConfig
from minigpt.finetune.config import LoraConfig, SFTConfig, TasksConfig
from minigpt.model.config import GPTConfig
from minigpt.optim.config import OptimConfig
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer.config import TokenizerConfig
from minigpt.training.config import Inherited, RunConfig, TrainConfig


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


def sft() -> RunConfig:
    """What `quick` has made learns to answer, by the project's own lessons or by a file of conversations."""
    return RunConfig(
        kind="sft",
        out_dir="out/sft",
        init="out/quick",
        machine=MachineConfig(),
        corpus=Inherited(),
        tokenizer=Inherited(),
        batches=RowConfig(batch_size=8),
        model=GPTConfig(),
        optim=OptimConfig(lr=5e-3, warmup_steps=20, weight_decay=0.0),
        train=TrainConfig(max_steps=2000, eval_every=250, eval_batches=10, save_every=250, sample_every=500),
        # Held-out questions about Python answered rightly, and what the text of before lost in bits per byte:
        # 500 steps, lr 6e-3, replay 0.1: 87 %, +0.35; 500, 5e-3, 0.4: 51 %, -0.00; 1,000, 5e-3, 0.3: 94 %, -0.04
        stage=SFTConfig(examples=60_000, replay=0.3),
    )


def lora() -> RunConfig:
    """Another file of conversations for a model that chats already, by adapters alone."""
    run = sft()
    return replace(
        run,
        kind="lora",
        out_dir="out/lora",
        init="out/sft",
        optim=replace(run.optim, optimizer="adamw", lr=2e-3, beta2=0.999),
        train=replace(run.train, max_steps=600),
        stage=LoraConfig(lora_rank=2, lora_alpha=4.0, of=SFTConfig()),  # of small matrices, 2 is 1.4 %
    )


def tasks() -> RunConfig:
    """A small GPT learns fourteen kinds of problems from nothing, in half an hour of one thread."""
    return RunConfig(
        kind="tasks",
        out_dir="out/tasks",
        machine=MachineConfig(threads=1),
        corpus=Inherited(),
        tokenizer=TokenizerConfig(pattern="gpt2"),
        batches=RowConfig(batch_size=8),
        model=GPTConfig(vocab_size=1043, context_length=128, n_layer=4, n_head=4, n_embd=128, mlp_width=256,
                        short_conv=4),
        optim=OptimConfig(lr=3e-3, min_lr_ratio=0.0, warmup_steps=30, weight_decay=0.0),
        train=TrainConfig(max_steps=8500, eval_every=500, save_every=500, sample_every=0),
        stage=TasksConfig(growing=80_000),
    )


def reward() -> RunConfig:
    """What `sft` has made, with one number for a head, learns which of two answers is better."""
    return RunConfig(
        kind="reward",
        out_dir="out/reward",
        init="out/sft",
        machine=MachineConfig(),
        corpus=Inherited(),
        tokenizer=Inherited(),
        batches=PairBatchConfig(batch_size=16),
        model=GPTConfig(),
        optim=OptimConfig(lr=1e-3, warmup_steps=20, weight_decay=0.0),
        train=TrainConfig(max_steps=1000, eval_every=200, eval_batches=10, save_every=200, sample_every=0),
        stage=RewardConfig(pairs=PairsConfig(examples=16_000), label_noise=0.1),  # the share in the project's own pairs
    )


def dpo() -> RunConfig:
    """What `sft` has made learns from pairs which answers to prefer, without a reward model.

    It goes furthest from `train.py sft --data course,styles`, which has all these answers among its own.
    """
    run = reward()
    return replace(
        run,
        kind="dpo",
        out_dir="out/dpo",
        optim=replace(run.optim, optimizer="adamw", lr=1e-4, beta2=0.999),
        train=replace(run.train, max_steps=300, eval_every=100, eval_batches=5, save_every=100, sample_every=100),
        # Win rate at temperature 0 and right answers lost in points, lr 1e-4: beta 0.15, weight 1: 76 %, 1.6;
        # 0.3, 1: 80 %, 1.4; 0.5, 1: 79 %, 0.2; 0.5, 0.5: 83 %, 0.6. With lr 3e-4 and weight 0.5 thirteen were lost
        stage=DPOConfig(
            pairs=PairsConfig(examples=8_000), beta=0.5, chosen_weight=0.5, temperature=0.0, prompts=300
        ),
    )


def grpo() -> RunConfig:
    """What `sft` has made writes several answers to each problem, and the better ones become likelier."""
    return RunConfig(
        kind="grpo",
        out_dir="out/grpo",
        init="out/sft",
        machine=MachineConfig(),
        corpus=Inherited(),
        tokenizer=Inherited(),
        batches=AnswerRowConfig(batch_size=256),
        model=GPTConfig(),
        # AdamW makes steps of lr out of noise, too: with 1e-4 and a KL of 0.01, shuffled rewards cost 20 points
        optim=OptimConfig(
            optimizer="adamw", lr=4e-5, schedule="constant", warmup_steps=10, weight_decay=0.0, beta2=0.99
        ),
        train=TrainConfig(max_steps=60, eval_every=20, eval_batches=2, save_every=20, sample_every=0),
        stage=GRPOConfig(rollouts=RolloutConfig(inner_epochs=1), kl_coefficient=0.1),
    )


def ppo() -> RunConfig:
    """The same with a critic in the place of groups, and against a verifier or what `reward` has made."""
    run = grpo()
    return replace(
        run,
        kind="ppo",
        out_dir="out/ppo",
        batches=AnswerRowConfig(batch_size=128),
        optim=replace(run.optim, lr=1e-4, warmup_steps=4),
        train=replace(run.train, max_steps=160, eval_every=40, save_every=40),
        stage=PPOConfig(),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "quick": quick,
    "nanogpt-char": nanogpt_char,
    "gpt2-124m": gpt2_124m,
    "sft": sft,
    "lora": lora,
    "tasks": tasks,
    "reward": reward,
    "dpo": dpo,
    "grpo": grpo,
    "ppo": ppo,
}

USAGE = """\
python train.py [preset] [--flag value ...]

Train a GPT. Presets: quick (the default), nanogpt-char, gpt2-124m, tasks; and for a trained one: sft, lora,
reward, dpo, grpo, ppo.
[brackets] show this preset's values: python train.py sft --help shows those of sft.
The same line resumes a run that was stopped. --flag=value and --flag_name work too."""

SHAPE = ("vocab_size", "n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "mlp_width", "position", "short_conv",
         "norm", "mlp", "qk_norm", "window", "tied", "bias", "rope_theta", "norm_eps")  # fmt: skip


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
    """With --init the shape comes with the weights; dropout and a shorter context may be asked for.

    Raises: ValueError for a flag of the shape; FileNotFoundError if there is no such folder.
    """
    if clash := sorted(given & set(SHAPE)):
        flag = "--" + clash[0].replace("_", "-")
        raise ValueError(f"{flag} cannot be combined with --init: the shape comes with the weights")
    if not run.init.startswith("hf:") and not Path(run.init).exists():
        raise FileNotFoundError(f"--init {run.init}: there is no such folder. Name that of a trained model, or train "
                                "one first: python train.py makes out/quick, python train.py sft out/sft")  # fmt: skip
    from minigpt.training.pretrain import init_shape  # imports torch

    asked = {name: getattr(run.model, name) for name in ("dropout", "context_length") if name in given}
    return replace(run, model=replace(init_shape(run.init), **asked))
