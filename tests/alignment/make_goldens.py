"""What TRL's trainers make of small tensors: their own loss code, run offline. Writes goldens.json beside this file.

    pip install trl==1.16.0 datasets transformers, then: python tests/alignment/make_goldens.py

Where a loss looks at log-probabilities, a stand-in model hands them over, so that TRL's gradient with respect to them
is seen too, in float64. Two more runs go all the way from tokens, through a real Llama whose weights a formula gives.
"""

import json
import os
import random
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor, nn

GOLDENS = Path(__file__).with_name("goldens.json")
LETTERS = "abcdefghijklmnopqrstuvwxyz "  # ids 1 to 27; 0 is the end, which is the padding, too: TRL's common case
END = 0
SHAPE = {"vocab_size": 28, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}  # fmt: skip
PAIRS = [("the cat", " sat", " ran away"), ("a", " dog barks at night", " x"), ("why not", " yes", " no")]
PREFERENCES = {"sigmoid": {"beta": 0.1}, "hinge": {"beta": 0.4}, "ipo": {"beta": 0.5},
               "robust": {"beta": 0.3, "label_smoothing": 0.1},
               "aot_unpaired": {"beta": 0.3, "label_smoothing": 0.1}}  # fmt: skip
AGGREGATED = ("grpo", "bnpo", "dapo", "dr_grpo")
MAX_NEW_TOKENS = 9
REWARDS = [0.0, 1.0, 1.0, 0.5, 2.0, 2.0, 2.0, 2.0, -1.0, 0.25, 3.0, 0.1]  # three prompts, four answers each


def fill(named: Iterator[tuple[str, nn.Parameter]], phase: int) -> None:
    """Weights that any program can make again: integers that look drawn, other ones for each name; gains about 1."""
    with torch.no_grad():
        for name, parameter in named:
            count = torch.arange(parameter.numel()) + zlib.crc32(name.encode()) % 1000 + phase
            noise = (count * count * 2654435761 % 2**32).double().view(parameter.shape) / 2**32 - 0.5
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 else noise)


def written(text: str) -> list[int]:
    return [LETTERS.index(letter) + 1 for letter in text]


def numbers(draw: random.Random, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Even, and short enough to be read."""
    flat = [round(draw.uniform(low, high), 3) for _ in range(torch.Size(shape).numel())]
    return torch.tensor(flat, dtype=torch.float64).view(shape)


def leading(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def inputs() -> dict[str, Any]:
    """What the losses are given: log-probabilities of three pairs and of four answers, rewards, logits."""
    draw = random.Random(6)
    pairs, answers = leading([5, 3, 6, 2, 6, 4], 6), leading([6, 2, 4, 5], 6)
    policy = numbers(draw, (4, 6), -3, -0.1)
    return {
        "pairs": {"mask": pairs, "logprobs": numbers(draw, (6, 6), -3, -0.1) * pairs,
                  "ref_chosen": numbers(draw, (3,), -9, -4), "ref_rejected": numbers(draw, (3,), -9, -4)},
        "rewards": {"chosen": numbers(draw, (3,), -2, 2), "rejected": numbers(draw, (3,), -2, 2)},
        "answers": {"mask": answers, "logprobs": policy * answers,
                    "old": (policy + numbers(draw, (4, 6), -0.5, 0.5)) * answers,
                    "ref": (policy + numbers(draw, (4, 6), -0.5, 0.5)) * answers,
                    "advantages": torch.tensor([1.2, -0.7, 0.4, -1.1], dtype=torch.float64)},
        "tokens": {"logits": numbers(draw, (2, 3, 5), -3, 3), "targets": torch.tensor([[4, 0, 2], [1, 1, 3]]),
                   "temperature": 0.7},
        "group_rewards": REWARDS,
    }  # fmt: skip


# --- TRL ----------------------------------------------------------------------------------------------------------


def tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<end>": END} | {letter: i + 1 for i, letter in enumerate(LETTERS)}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")


def llama(phase: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPE, tie_word_embeddings=False, bos_token_id=None, eos_token_id=END, pad_token_id=END)
    model = LlamaForCausalLM(config).eval()
    fill(model.named_parameters(), phase)
    return model


def settings(folder: str) -> dict[str, Any]:
    return {"output_dir": folder, "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True,
            "save_strategy": "no"}  # fmt: skip


def dpo(folder: str, given: dict[str, Tensor]) -> dict[str, Any]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS])
    config = DPOConfig(**settings(folder), beta=0.1, per_device_eval_batch_size=len(PAIRS))
    trainer = DPOTrainer(llama(0), llama(1), config, train_dataset=rows, eval_dataset=rows,
                         processing_class=tokenizer())  # fmt: skip
    found: dict[str, Any] = {"from_tokens": trainer.evaluate()["eval_loss"]}
    trainer.precompute_ref_logps = True
    for kind, asked in PREFERENCES.items():
        trainer.loss_types, trainer.beta = [kind], asked["beta"]
        trainer.label_smoothing = asked.get("label_smoothing", 0.0)
        pairs = [[0, 1, 2]] if kind != "aot_unpaired" else [[0], [1], [2]]  # alone, nothing is sorted: conservative DPO
        found[kind] = _mean([_dpo_loss(trainer, given, pair) for pair in pairs])
    return found


def _dpo_loss(trainer: Any, given: dict[str, Tensor], pairs: list[int]) -> tuple[Tensor, Tensor]:
    both = pairs + [i + 3 for i in pairs]
    logprobs = given["logprobs"].clone().requires_grad_()
    beside = torch.zeros(len(both), 6)

    def stand_in(**_: Any) -> SimpleNamespace:
        shown = (logprobs * given["mask"])[both]  # a model gives 0 where a label says nothing
        return SimpleNamespace(log_probs=shown, entropy=beside, mean_logits=beside, is_top1=beside.bool())

    mask = torch.cat([torch.zeros(len(both), 1).long(), given["mask"][both].long()], dim=1)  # the prompt's one token
    batch = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
             "ref_chosen_logps": given["ref_chosen"][pairs], "ref_rejected_logps": given["ref_rejected"][pairs]}
    loss = trainer.compute_loss(stand_in, batch)
    return loss.detach(), torch.autograd.grad(loss, logprobs)[0]


def _mean(parts: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    losses, gradients = zip(*parts, strict=True)
    return {"loss": torch.stack(losses).mean(), "gradient": torch.stack(gradients).mean(0)}


def reward(folder: str, given: dict[str, Tensor]) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    config = LlamaConfig(**SHAPE, num_labels=1, pad_token_id=END, eos_token_id=END, bos_token_id=None)
    rows = Dataset.from_list([{"chosen": p + c, "rejected": p + r} for p, c, r in PAIRS])
    trainer = RewardTrainer(LlamaForSequenceClassification(config), RewardConfig(**settings(folder)),
                            train_dataset=rows, processing_class=tokenizer())  # fmt: skip
    trainer.model.eval()
    found = {}
    for centering in (None, 0.01):
        trainer.args.center_rewards_coefficient = centering
        rewards = torch.cat([given["chosen"], given["rejected"]]).requires_grad_()
        loss = trainer.compute_loss(lambda rewards=rewards, **_: SimpleNamespace(logits=rewards[:, None]),
                                    {"attention_mask": torch.ones(6, 2)})  # fmt: skip
        found[str(centering or 0.0)] = {"loss": loss.detach(), "gradient": torch.autograd.grad(loss, rewards)[0]}
    return found


def grpo(folder: str, given: dict[str, Tensor]) -> dict[str, Any]:
    trainer = grpo_trainer(folder)
    trainer.model.eval()
    trainer.max_completion_length = MAX_NEW_TOKENS
    trainer.epsilon_low, trainer.epsilon_high = 0.2, 0.28
    found = {}
    for kind in AGGREGATED:
        for name, beta, weighted in (("none", 0.0, False), ("k3", 0.04, False), ("ratio_weighted_k3", 0.04, True)):
            trainer.loss_type, trainer.beta, trainer.args.use_bias_correction_kl = kind, beta, weighted
            found[f"{kind} {name}"] = _mean([_grpo_loss(trainer, given, slice(0, 4))])
    trainer.beta = 0.0
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 2
    for kind in AGGREGATED:  # what two micro-batches of two answers add up to
        trainer.loss_type = kind
        parts = [_grpo_loss(trainer, given, part) for part in (slice(0, 2), slice(2, 4))]
        found[f"{kind} accumulated"] = {"loss": parts[0][0] + parts[1][0], "gradient": parts[0][1] + parts[1][1]}
    return found


def grpo_trainer(folder: str, **more: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(**settings(folder), num_generations=4, per_device_train_batch_size=12, max_steps=1,
                        max_completion_length=3, temperature=0.8, logging_steps=1, **more)  # fmt: skip
    rows = Dataset.from_list([{"prompt": pair[0]} for pair in PAIRS])
    return GRPOTrainer(llama(0), reward_funcs=lambda completions, **_: REWARDS, args=config, train_dataset=rows,
                       processing_class=tokenizer())  # fmt: skip


def _grpo_loss(trainer: Any, given: dict[str, Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    logprobs = given["logprobs"].clone().requires_grad_()
    shown = logprobs[rows]
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (shown, torch.zeros_like(shown), None)
    mask = given["mask"][rows].long()
    batch = {"prompt_ids": torch.ones(len(mask), 1).long(), "prompt_mask": torch.ones(len(mask), 1).long(),
             "completion_ids": torch.ones_like(mask), "completion_mask": mask, "advantages": given["advantages"][rows],
             "old_per_token_logps": given["old"][rows], "ref_per_token_logps": given["ref"][rows],
             "num_items_in_batch": given["mask"].sum()}  # fmt: skip
    loss = trainer._compute_loss(trainer.model, batch)
    return loss.detach(), torch.autograd.grad(loss, logprobs)[0]


def advantages(folder: str, scaled: str) -> list[float]:
    """Of one real step: TRL generates, asks for rewards, and compares within groups."""
    trainer = grpo_trainer(folder, scale_rewards=scaled)
    trainer.train()
    return list(trainer._logs["advantages"])


def policy_from_tokens(folder: str) -> list[list[float]]:
    """Log-probabilities at temperature 0.8 of completions whose prompts TRL pads on the left."""
    trainer = grpo_trainer(folder)
    width, answer = max(len(p) for p, _, _ in PAIRS), max(len(c) + 1 for _, c, _ in PAIRS)
    rows, seen = [], []
    for prompt, chosen, _ in PAIRS:
        left, right = width - len(prompt), answer - len(chosen) - 1
        rows.append([END] * left + written(prompt) + written(chosen) + [END] * (right + 1))
        seen.append([0] * left + [1] * (width + answer - left - right) + [0] * right)
    with torch.no_grad():
        logprobs = trainer._get_per_token_logps_and_entropies(
            trainer.model.eval(), torch.tensor(rows), torch.tensor(seen), answer)[0]  # fmt: skip
    return [row[: len(chosen) + 1].tolist() for row, (_, chosen, _) in zip(logprobs, PAIRS, strict=True)]


def tokens(given: dict[str, Any]) -> dict[str, Any]:
    from trl.trainer.utils import selective_log_softmax_and_entropy

    logits = given["logits"].clone().requires_grad_()
    logprobs, entropy = selective_log_softmax_and_entropy(logits, given["targets"], temperature=given["temperature"])
    return {"logprobs": logprobs.detach(), "entropy": entropy.detach(),
            "gradient": torch.autograd.grad(logprobs.sum() + entropy.sum(), logits)[0]}  # fmt: skip


def goldens() -> dict[str, Any]:
    import datasets
    import trl

    datasets.disable_progress_bars()
    given = inputs()

    def within(work: Callable[..., Any], *arguments: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return work(folder, *arguments)

    return plain({
        "trl": trl.__version__, "given": given,
        "dpo": within(dpo, given["pairs"]), "reward": within(reward, given["rewards"]),
        "grpo": within(grpo, given["answers"]), "tokens": tokens(given["tokens"]),
        "advantages": {scaled: within(advantages, scaled) for scaled in ("group", "none")},
        "policy_from_tokens": within(policy_from_tokens),
    })  # fmt: skip


def plain(x: Any) -> Any:
    """Tensors as nested lists."""
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    return x.tolist() if isinstance(x, Tensor) else x


if __name__ == "__main__":
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in goldens().items()]
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
