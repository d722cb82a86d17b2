"""A problem with five right answers, and a model that has learnt in a second to guess at it."""

from pathlib import Path

import torch

from minigpt import presets
from minigpt.alignment.logprobs import completion_batch
from minigpt.chat.template import Template, with_chat_tokens
from minigpt.finetune.sft import save_chat_model
from minigpt.lessons import puzzles
from minigpt.lessons.family import Family, Problem
from minigpt.lessons.split import Hand
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.optim.config import OptimConfig
from minigpt.optim.groups import build_optimizer
from minigpt.runtime.distributed import Group
from minigpt.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnop"  # four of which are vowels: a model that guesses is right in a quarter of all tries
VOWELS = "aeio"

FEW_ROUNDS = ("--problems", "vowel", "--max-new-tokens", "4", "--prompts", "4", "--group", "8", "--inner-epochs", "2",
              "--batch-size", "16", "--test-problems", "16", "--max-steps", "8", "--warmup-steps", "1",
              "--eval-every", "50", "--save-every", "3", "--threads", "1", "--device", "cpu")  # fmt: skip


def vowel(hand: Hand, size: int) -> Problem:
    number = hand.below(900)
    return Problem("vowel", f"vowel {number}", hand.pick(VOWELS), f"vowel: {number}")


FAMILY = Family(vowel, range(1, 2), range(2, 3), is_right=lambda problem, text: text in VOWELS and len(text) == 1)


def tokenizer() -> Tokenizer:
    return with_chat_tokens(Tokenizer.bytes_only())


def guessing_model(folder: Path) -> Path:
    """A folder with a model that answers with any of the letters and ends."""
    text_ids = tokenizer()
    template, chance = Template(text_ids), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=text_ids.n_vocab, context_length=32, n_layer=1, n_head=2, n_kv_head=1, n_embd=32))
    optimizer = build_optimizer(gpt, OptimConfig(lr=0.02))
    for _ in range(60):
        numbers, letters = (torch.randint(top, (64,), generator=chance).tolist() for top in (900, len(LETTERS)))
        asked = [template.prompt([{"role": "user", "content": f"vowel {number}"}]) for number in numbers]
        batch = completion_batch(asked, [[ord(LETTERS[i]), template.end] for i in letters])
        gpt(batch.ids, batch.targets).sum().div(128).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_chat_model(gpt, text_ids, folder)
    return folder


def opened(preset: str, init: Path, *argv: str, checkpoint: Path | None = None):
    """The run and what its stage has prepared, without train.py."""
    run = presets.from_command_line([preset, "--init", str(init), *FEW_ROUNDS, *map(str, argv)])
    return run, run.stage.prepare(run, Group(0, 1, torch.device("cpu")), torch.float32, checkpoint)


def known_family(monkeypatch) -> None:
    monkeypatch.setitem(puzzles.PUZZLES, "vowel", FAMILY)
