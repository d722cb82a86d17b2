"""Supervised fine-tuning: next-token prediction on conversations, in which only the assistant's words count.

    L = −1/n Σ ln p(targetᵢ | ids before it in its own conversation)      n targets in the whole step

A target is a token of an answer, or the <|end|> behind it: the one token that makes a model stop. The user's words are
read and never predicted.
Source: Ouyang et al. 2022, "Training language models to follow instructions with human feedback", section 3.5; the
replay of earlier text: the same, section 3.5 (PPO-ptx), there against the same forgetting.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minigpt.batches.loader import Loader, windows
from minigpt.batches.prefetch import Prefetch
from minigpt.chat.extend import extended
from minigpt.chat.jinja import training_template
from minigpt.chat.template import Template, missing_tokens, with_chat_tokens
from minigpt.finetune.base_text import BaseText, bits_before, find_base_text
from minigpt.finetune.config import SFTConfig
from minigpt.finetune.examples import Examples, open_examples
from minigpt.finetune.rows import AnswerBatch, Rows, held_out_batches
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained, read_config, save_pretrained
from minigpt.runtime.checkpoint import write_json
from minigpt.runtime.console import say
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.evaluate import bytes_per_token, evaluate
from minigpt.training.pretrain import init_folder
from minigpt.training.stage import Loss, Metrics, Prepared, Stage, to_device

QUESTION = "Hello! Who are you?"  # what a sample on the way answers


def answer_tokens(model: nn.Module, batch: AnswerBatch) -> Loss:
    """The mean loss of the whole step's targets, as far as this batch holds them (see `Rows`)."""
    losses = model(batch.ids, batch.targets, document=batch.document)  # (B, T), 0 where there is no target
    value = losses.sum() / batch.n_targets                             # ()
    return Loss(value, {"loss": value.detach()})


def open_stage(
    run: RunConfig, settings: SFTConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """All that train.py needs: base model, conversations, stage.

    Raises: ValueError without --init, for --replay without the base model's text, and for what data and model raise.
    """
    if run.init is None:
        raise ValueError("fine-tuning begins with a trained model: name its folder with --init")
    base = init_folder(run.init)
    gpt, tokenizer = load_chat_model(checkpoint or base, run, tell=group.is_main)
    text = find_base_text(base, tokenizer)
    if settings.replay and text is None:
        raise ValueError(f"--replay {settings.replay}: {run.init} has no text to replay: it read none, as after "
                         "train.py tasks, is no run of ours, or its data is gone. Use --replay 0")  # fmt: skip
    examples, held_out = open_examples(run, settings, tokenizer, group)
    before = bits_before(base)

    def outcome(scores: Metrics) -> list[str]:
        lines = [f"held-out answers: loss {scores['loss']:.4f} nats per token, perplexity {scores['perplexity']:.2f}"]
        if bits := scores.get("bits_per_byte"):
            was = "" if before is None else f", {before:.3f} before ({bits - before:+.3f})"
            lines.append(f"  pre-training text: {bits:.3f} bits per byte{was}")
        return lines

    gpt = gpt.to(group.device)
    return Prepared(
        stage=prepare(run, gpt, tokenizer, (examples, held_out), text, group, dtype, settings.replay),
        trained=gpt,
        gpt=gpt,
        tokenizer=tokenizer,
        prompt=Template(tokenizer).prompt([{"role": "user", "content": QUESTION}]),
        material=f"{len(examples):,} conversations with {examples.targets:,} tokens of answers, {len(held_out):,} held "
        f"out ({settings.data})" + (f"; {settings.replay:.0%} of the rows replay text" if settings.replay else ""),
        epoch_tokens=round(len(examples.ids) / (1 - settings.replay)),  # and the text between them
        outcome=outcome,
        try_it=f"python -m minigpt chat {run.out_dir}",
    )


def load_chat_model(folder: Path, run: RunConfig, *, tell: bool) -> tuple[GPT, Tokenizer]:
    """A model and its tokenizer, with the control tokens of a chat: those it lacks are added, aloud."""
    shape = replace(read_config(folder), dropout=run.model.dropout, context_length=run.model.context_length)
    known = Tokenizer.load(folder)
    tokenizer = with_chat_tokens(known)
    if tell and (missing := missing_tokens(known)):
        say(f"note: {folder} has never chatted: {' '.join(missing)} are added to its vocabulary of {known.n_vocab:,}")
    return extended(load_pretrained(folder, shape), tokenizer.n_vocab, known.n_vocab), tokenizer


def prepare(
    run: RunConfig,
    gpt: GPT,
    tokenizer: Tokenizer,
    sides: tuple[Examples, Examples],
    text: BaseText | None,
    group: Group,
    dtype: torch.dtype,
    replay: float,
) -> Stage:
    """Fine-tuning as a stage. It is judged by the loss of held-out answers, and by the text of before, if there is."""
    examples, held_out = sides
    context_length, batch_size, seed = gpt.config.context_length, run.batches.batch_size, run.machine.seed
    windows_of_text = Loader(text.train, batch_size=1, context_length=context_length, seed=seed) if replay else None
    rows = Rows(examples, batch_size=batch_size, context_length=context_length, accumulate=run.train.accumulate,
                seed=seed, text=windows_of_text, replay=replay, shared=(group.rank, group.world))  # fmt: skip
    sizes = bytes_per_token(tokenizer, group.device)  # (V,)

    def look(model: nn.Module, limit: int | None) -> Metrics:
        answers = held_out_batches(held_out, batch_size, context_length)
        scores = evaluate(model, (to_device(batch, group.device) for batch in answers), sizes, limit)
        del scores["bits_per_byte"]  # of answers, nobody compares them
        if text is not None:
            old = windows(text.val, context_length, batch_size)
            of_text = evaluate(model, (to_device(batch, group.device) for batch in old), sizes, limit)
            scores["bits_per_byte"] = of_text["bits_per_byte"]
        return scores

    model = compile_model(mixed_precision(gpt, dtype), run.machine, group.device)
    return Stage(model, Prefetch(rows), answer_tokens, look, lambda folder: save_chat_model(gpt, tokenizer, folder))


def save_chat_model(gpt: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """A folder that chats, here and in other programs: they stop at <|end|>, and write a conversation as we do."""
    save_pretrained(gpt, folder)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(training_template(tokenizer), encoding="utf-8", newline="\n")
    write_json(folder / "generation_config.json", _generation_config(tokenizer))


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    end, eot = Template(tokenizer).end, tokenizer.eot_token
    # padded with another token than the one that ends: who masks padding would mask the end, and it were never learned
    return {"eos_token_id": [end]} if eot is None else {
        "bos_token_id": eot, "eos_token_id": [end, eot], "pad_token_id": eot}  # fmt: skip
