"""A small GPT that learns to solve the families of problems, from nothing, and is graded by exact match.

What SFT does, without a base model: conversations in packed rows, only the answers count. Three things differ. The
tokenizer is learned from the problems, so that a letter, a digit or a name is one token: the model sees what a problem
is made of. The problems are fresh: nothing can be learned by heart. And they grow, from the shortest to all.
"""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from minigpt.batches.prefetch import Prefetch
from minigpt.chat.template import Template, with_chat_tokens
from minigpt.finetune.config import TasksConfig
from minigpt.finetune.fresh import FreshRows, as_examples, prompt_of, rendered
from minigpt.finetune.grade import scores
from minigpt.finetune.rows import held_out_batches
from minigpt.finetune.sft import answer_tokens, save_chat_model
from minigpt.lessons.tasks import families_of, lessons, problems
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained, read_config
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.evaluate import bytes_per_token, evaluate
from minigpt.training.stage import Metrics, Prepared, Stage, to_device

READ = 8000  # problems that the tokenizer is learned from
LOOKED_AT = 30  # problems of each family in a look on the way
AT_THE_END = 300  # and in the last one
EXAM = 1  # seed of the problems that are asked: the same whatever the seed of a run


def open_stage(
    run: RunConfig, settings: TasksConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """All that train.py needs: tokenizer, model, stage.

    Raises: ValueError for an unknown family, or a size that one of them does not have; with --init; for problems that
            are longer than the context.
    """
    if run.init:
        raise ValueError("--init: this preset begins from nothing, with a tokenizer of its own; leave it out")
    families = families_of(settings.families)
    if checkpoint:
        tokenizer = Tokenizer.load(checkpoint)
        gpt = load_pretrained(checkpoint, replace(read_config(checkpoint), dropout=run.model.dropout))
    else:
        tokenizer = learned_tokenizer(run.model.vocab_size, run.tokenizer.pattern)
        torch.manual_seed(run.machine.seed)
        gpt = GPT(replace(run.model, vocab_size=tokenizer.n_vocab))
    gpt = gpt.to(group.device)

    def outcome(scores: Metrics) -> list[str]:
        return [f"held-out problems of {len(families)} families: {scores['right']:.1%} right, of the worst "
                f"{scores['worst']:.1%} (loss {scores['loss']:.4f} nats per token)",
                f"  by family and side: python -m minigpt grade {run.out_dir}"]  # fmt: skip

    template = Template(tokenizer)
    return Prepared(
        stage=prepare(run, gpt, template, families, settings, group, dtype),
        trained=gpt,
        gpt=gpt,
        tokenizer=tokenizer,
        prompt=prompt_of(next(problems(families[-1], "test", EXAM, size=settings.size)), template),
        material=f"fresh problems of {len(families)} families, {LOOKED_AT} of each held out to look at on the way",
        epoch_tokens=None,
        outcome=outcome,
        try_it=f"python -m minigpt chat {run.out_dir}",
    )


def learned_tokenizer(vocab_size: int, pattern: str) -> Tokenizer:
    """Tokens of problems and those of a chat: every letter, digit, name and thing is one. The same for every run.

    Made-up words are left out: their syllables would be merged across, now so and now so.
    """
    read = (problem for problem in islice(lessons(seed=0), READ) if problem.family != "spell")
    texts = (text for problem in read for text in (problem.prompt, problem.answer))
    return with_chat_tokens(Tokenizer.train(texts, vocab_size, pattern=pattern))


def prepare(
    run: RunConfig,
    gpt: GPT,
    template: Template,
    families: list[str],
    settings: TasksConfig,
    group: Group,
    dtype: torch.dtype,
) -> Stage:
    """Training as a stage. It is judged by the loss of held-out answers and by exact match."""
    context_length, batch_size = gpt.config.context_length, run.batches.batch_size
    rows = FreshRows(lambda start: lessons(run.machine.seed, settings.growing, start, families, settings.size),
                     template, batch_size=batch_size, context_length=context_length, accumulate=run.train.accumulate,
                     shared=(group.rank, group.world))  # fmt: skip
    sizes = bytes_per_token(template.tokenizer, group.device)  # (V,)
    asked = (problem for family in families
             for problem in islice(problems(family, "test", EXAM, size=settings.size), LOOKED_AT))  # fmt: skip
    held_out = as_examples(rendered(problem, template) for problem in asked)
    if (longest := int(held_out.lengths.max())) > context_length:
        raise ValueError(f"a problem takes {longest} tokens, more than the context: choose --context-length {longest} "
                         "or more")  # fmt: skip

    def look(model: nn.Module, limit: int | None) -> Metrics:
        batches = held_out_batches(held_out, batch_size, context_length)
        loss = evaluate(model, (to_device(batch, group.device) for batch in batches), sizes)["loss"]
        exam = scores(gpt, template, families, "test", seed=EXAM, size=settings.size,
                      asked=AT_THE_END if limit is None else LOOKED_AT)  # fmt: skip
        right = {family: score.share for family, score in exam.items()}
        return {"loss": loss, "right": mean(right.values()), "worst": min(right.values()), **right}

    model = compile_model(mixed_precision(gpt, dtype), run.machine, group.device)
    return Stage(model, Prefetch(rows), answer_tokens, look,
                 lambda folder: save_chat_model(gpt, template.tokenizer, folder))  # fmt: skip
