"""One prompt, one sequence, one token after the other: the slow twin of everything faster."""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from minigpt.engine.choose import allowed_only, check_constraint
from minigpt.engine.config import SamplingConfig
from minigpt.engine.sampling import next_token
from minigpt.grammar.constraint import Constraint, Cursor
from minigpt.model.cache import DenseKVCache, KVCache
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import check_ids
from minigpt.runtime.precision import compute_dtype
from minigpt.runtime.seeding import fresh_generator


def generate(
    model: nn.Module,
    prompt: Sequence[int],
    config: SamplingConfig,
    *,
    stop_ids: Collection[int] = (),
    generator: torch.Generator | None = None,
    cached: bool = True,
    on_slide: Callable[[int], None] | None = None,
    constraint: Constraint | None = None,
) -> Iterator[int]:
    """Continue `prompt`, yielding each new token once it is chosen; a token in `stop_ids` ends it unseen.

    What the model sees: everything, while it fits into context_length tokens. When one no longer fits, all
    but the newest context_length // 2 are dropped and read again from position 0, since keys and values know
    the positions they were made at. So the window slides by half a context at a time, seldom enough to be
    cheap. `on_slide` is told how many tokens stay, the first time. `cached` changes how much is computed,
    never what: without a cache every step reads all it sees.

    With a `constraint`, only tokens may come after which the text can still be made to match it within the config's
    max_new_tokens; it ends where nothing may follow.

    The model is put into evaluation mode for each token and back after it, so it may be trained in between.
    Randomness comes from `generator` alone (none: a fresh stream that differs every time); torch's global
    stream is not touched.
    Raises: ValueError for an empty prompt, an id beyond the vocabulary, and a constraint that was made for another one
            or that no text so short can match; at once and not at the first token.
    """
    if not prompt:
        raise ValueError("the prompt holds no token: begin with the end-of-text token, or any other")
    check_ids(torch.tensor(prompt), model.config.vocab_size, "the prompt")
    cursor = None
    if constraint is not None:
        check_constraint(constraint, model.config.vocab_size)
        cursor = constraint.begin(config.max_new_tokens)
    return _tokens(model, list(prompt), config, stop_ids, generator or fresh_generator(), cached, on_slide, cursor)


def _tokens(
    model: nn.Module,
    visible: list[int],
    config: SamplingConfig,
    stop_ids: Collection[int],
    generator: torch.Generator,
    cached: bool,
    on_slide: Callable[[int], None] | None,
    cursor: Cursor | None,
) -> Iterator[int]:
    context_length = model.config.context_length
    cache = dense_cache(model, len(visible) + config.max_new_tokens) if cached else None
    tokens: list[int] = []
    if cursor is not None and cursor.finished:
        return
    for _ in range(config.max_new_tokens):
        if len(visible) > context_length:
            visible = visible[-max(1, context_length // 2) :]
            if cache is not None:
                cache.length = 0
            if on_slide is not None:
                on_slide(len(visible))
                on_slide = None
        known = 0 if cache is None else cache.length
        logits = next_logits(model, visible[known:], cache)  # (V,)
        if cursor is not None:
            logits = allowed_only(logits.cpu(), cursor.allowed())
        written = torch.tensor(tokens, dtype=torch.long)
        token = int(next_token(logits, torch.tensor(visible), config, generator, written))
        if cursor is not None:
            cursor.advance(token)
        if token in stop_ids or (cursor is not None and cursor.stopped):
            return
        yield token
        if cursor is not None and cursor.finished:
            return
        tokens.append(token)
        visible.append(token)


@torch.inference_mode()
def next_logits(model: nn.Module, ids: list[int], cache: KVCache | None) -> Tensor:
    """What the model says about the token after `ids`, which come after what the cache holds: (V,)."""
    with evaluating(model):
        batch = torch.tensor([ids], device=next(model.parameters()).device)  # (1, T)
        return model(batch, cache=cache)[0, -1]


def dense_cache(model: nn.Module, tokens: int) -> DenseKVCache:
    """Room for `tokens` of one sequence, but never for more than the model sees."""
    capacity = min(tokens, model.config.context_length)
    return DenseKVCache(model.config, 1, capacity, compute_dtype(model), next(model.parameters()).device)
