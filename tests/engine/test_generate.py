"""One prompt, one sequence, one token after the other."""

import re
from itertools import islice

import pytest
import torch
from small_gpt import CONTEXT, VARIANTS, VOCAB, asked, finished, made_gpt
from torch import nn

from minigpt.engine.config import SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.generate import generate
from minigpt.engine.sampling import repetition_penalised
from minigpt.grammar.constraint import Constraint
from minigpt.grammar.regular_expression import regular_expression
from minigpt.grammar.token_trie import TokenTrie
from minigpt.model.evaluating import evaluating
from minigpt.runtime.precision import mixed_precision
from minigpt.runtime.seeding import generator

GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=8)
BOLD = SamplingConfig(temperature=1.0, top_p=0.95, max_new_tokens=50, repetition_penalty=1.1)


def stream(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(gpt: nn.Module, prompt: list[int], config: SamplingConfig, **more) -> list[int]:
    return list(generate(gpt, prompt, config, generator=stream(), **more))




@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [1, 5, CONTEXT, CONTEXT + 9])
def test_a_cache_changes_no_token(variant, length):
    """The cache is an economy, never a choice: also past the context, where the window slides four times."""
    gpt = made_gpt(**VARIANTS[variant])
    prompt = [(7 * i + 3) % VOCAB for i in range(length)]
    cached, plain = tokens(gpt, prompt, BOLD), tokens(gpt, prompt, BOLD, cached=False)
    assert cached == plain and len(cached) == 50
    assert len(set(cached)) > 3  # a model that repeats one token would agree with anything


def test_greedy_is_the_argmax_of_the_whole_sequence_each_time():
    """The definition, without any of the code under test."""
    gpt, ids = made_gpt(), [1, 2, 3]
    for _ in range(8):
        with torch.no_grad():
            ids = [*ids, int(gpt(torch.tensor([ids]))[0, -1].argmax())]
    assert tokens(gpt, [1, 2, 3], GREEDY) == ids[3:]


def test_beyond_the_context_the_model_sees_the_newest_half_and_what_follows():
    """The exact rule, written out: when a token no longer fits, all but context_length // 2 go."""
    gpt, visible, expected, slides = made_gpt(), [5, 6, 7], [], []
    for _ in range(40):
        if len(visible) > CONTEXT:
            visible = visible[-(CONTEXT // 2) :]
        with torch.no_grad():
            visible = [*visible, int(gpt(torch.tensor([visible]))[0, -1].argmax())]
        expected.append(visible[-1])
    long = SamplingConfig(temperature=0.0, max_new_tokens=40)
    assert tokens(gpt, [5, 6, 7], long, on_slide=slides.append) == expected
    assert slides == [CONTEXT // 2]  # said once, though it slid five times


def test_a_prompt_longer_than_the_context_slides_at_once():
    """Its newest half context decides; what stands before it cannot matter."""
    gpt, slides = made_gpt(), []
    end = [9, 8, 7, 6, 5, 4]
    long = tokens(gpt, [1, 2, 3] * 5 + end, GREEDY, on_slide=slides.append)
    assert slides == [6]
    assert long[: CONTEXT - 6 + 1] == tokens(gpt, end, GREEDY)[: CONTEXT - 6 + 1]


def test_the_repetition_penalty_counts_what_is_visible():
    """Prompt and answer alike; what has slid out of view may come again."""
    gpt, visible, expected = made_gpt(), [5, 6, 7], []
    config = SamplingConfig(temperature=0.0, repetition_penalty=2.0, max_new_tokens=30)
    for _ in range(30):
        visible = visible if len(visible) <= CONTEXT else visible[-(CONTEXT // 2) :]
        with torch.no_grad():
            logits = gpt(torch.tensor([visible]))[0, -1].float()
        visible = [*visible, int(repetition_penalised(logits, torch.tensor(visible), 2.0).argmax())]
        expected.append(visible[-1])
    assert tokens(gpt, [5, 6, 7], config) == expected
    assert expected[:8] != tokens(gpt, [5, 6, 7], GREEDY)


def test_what_fits_does_not_slide():
    """Prompt and answer fill the context to the last place: 12 tokens seen, and a 13th said."""
    slides = []
    tokens(made_gpt(), [1, 2, 3, 4, 5], GREEDY, on_slide=slides.append)
    assert slides == []


def test_a_context_of_one_token_still_writes():
    """Half of one is zero, and zero tokens have no last one."""
    gpt, last, expected = made_gpt(context_length=1), 4, []
    for _ in range(8):
        with torch.no_grad():
            last = int(gpt(torch.tensor([[last]]))[0, -1].argmax())
        expected.append(last)
    assert tokens(gpt, [3, 4], GREEDY) == tokens(gpt, [3, 4], GREEDY, cached=False) == expected


def test_a_stop_id_ends_the_sequence_and_is_not_yielded():
    """The end token is punctuation for machines; nobody wants to read it."""
    gpt = made_gpt()
    free = tokens(gpt, [1, 2, 3], GREEDY)
    stop = free[4]
    assert tokens(gpt, [1, 2, 3], GREEDY, stop_ids={stop}) == free[: free.index(stop)]


def test_the_number_of_new_tokens_is_exact():
    """One more would surprise a caller who has reserved room."""
    for n in (1, 2, 20):
        assert len(tokens(made_gpt(), [1], SamplingConfig(max_new_tokens=n))) == n


def test_the_same_stream_gives_the_same_tokens_and_another_stream_others():
    """Same seed, same text; and the global stream, which dropout may be using, is not touched."""
    gpt = made_gpt()
    before = torch.random.get_rng_state()
    first, again = (list(generate(gpt, [1], BOLD, generator=stream(7))) for _ in range(2))
    assert first == again != list(generate(gpt, [1], BOLD, generator=stream(8)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_stream_each_call_draws_its_own():
    """Somebody who gives no seed wants variety, and still no side effect."""
    gpt = made_gpt()
    before = torch.random.get_rng_state()
    assert list(generate(gpt, [1], BOLD)) != list(generate(gpt, [1], BOLD))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_empty_prompt_is_refused_at_once():
    """Raised by the call, not by the first token: a caller's try block is around the call."""
    with pytest.raises(ValueError, match="the prompt holds no token: begin with the end-of-text token"):
        generate(made_gpt(), [], GREEDY)


@pytest.mark.parametrize("wrong", [VOCAB, -1])
def test_an_id_beyond_the_vocabulary_is_refused_at_once(wrong):
    """Otherwise the embedding ends in an index error on a CPU, and on a GPU in a device-side assert."""
    with pytest.raises(ValueError, match=rf"the prompt: token id {wrong} at place 1.*vocabulary of {VOCAB}"):
        generate(made_gpt(), [1, wrong], GREEDY)


def test_the_model_is_in_evaluation_mode_inside_and_back_after_each_token():
    """Dropout must not speak; and training may go on between two tokens, each part in the mode it had."""
    quiet, gpt = made_gpt(), made_gpt(dropout=0.5).train()
    gpt.blocks[0].eval()  # a part that its owner keeps frozen
    modes = [module.training for module in gpt.modules()]
    said = []
    for token in generate(gpt, [1, 2], GREEDY, generator=stream()):
        said.append(token)
        assert [module.training for module in gpt.modules()] == modes
        assert not torch.is_inference_mode_enabled()
    assert said == tokens(quiet, [1, 2], GREEDY)


def test_the_mode_comes_back_after_an_error():
    """A model left in evaluation mode would train on without dropout, unnoticed."""
    gpt = made_gpt().train()
    with pytest.raises(RuntimeError, match="inside"), evaluating(gpt):
        assert not gpt.blocks[1].training
        raise RuntimeError("inside")
    assert all(module.training for module in gpt.modules())


def test_tokens_come_one_at_a_time():
    """Streaming: the third token is there before a fourth is computed, and nobody has to take them all."""
    calls = []
    gpt = made_gpt()
    gpt.register_forward_hook(lambda *_: calls.append(1))
    assert len(list(islice(generate(gpt, [1], BOLD, generator=stream()), 3))) == 3
    assert len(calls) == 3


def test_a_cached_step_reads_one_token():
    """What the cache is for: the prompt once, then one token per step."""
    widths = []
    gpt = made_gpt()
    gpt.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    tokens(gpt, [1, 2, 3, 4], SamplingConfig(temperature=0.0, max_new_tokens=5))
    assert widths == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_mixed_precision_writes_too(dtype):
    """The cache must hold what the wrapper computes in, not what the masters are kept in."""
    gpt = mixed_precision(made_gpt().float(), dtype)
    assert len(tokens(gpt, [1, 2], BOLD)) == 50
    low = made_gpt().to(dtype)  # and one whose weights themselves are low
    assert len(tokens(low, [1, 2], BOLD)) == 50


def test_generating_leaves_no_trace_in_the_gradients():
    """Inference mode ends with each token: the model can be trained right after."""
    gpt = made_gpt()
    next(generate(gpt, [1], GREEDY))
    gpt(torch.tensor([[1, 2]])).sum().backward()
    assert all(p.grad is not None for p in gpt.parameters())


# --- constraints --------------------------------------------------------------------------------------------------

LETTERS = [*(bytes([97 + i]) for i in range(VOCAB - 2)), b"ab"]  # of one byte, and one of two; the last id is the end


@pytest.mark.parametrize("pattern", ["(ab|c)+d{2,5}", "[a-e]{3}", "[a-z]*"])
@pytest.mark.parametrize("limit", [5, 30])
def test_the_engine_and_generate_hold_a_text_to_the_same(pattern, limit):
    """Twins: where the pattern can end the text, where it must, where the limit does; past the context as well."""
    gpt, constraint = made_gpt(), Constraint(TokenTrie([*LETTERS, None], [VOCAB - 1]), regular_expression(pattern))
    for seed, temperature in enumerate([0.0, 1.0, 4.0, 4.0]):
        sampling = SamplingConfig(temperature=temperature, max_new_tokens=limit, frequency_penalty=0.3)
        fast = finished(Engine(gpt), [asked([1, 2], seed, sampling, constraint=constraint)])[0].tokens
        for cached in (True, False):
            slow = generate(gpt, [1, 2], sampling, generator=generator(seed), cached=cached, constraint=constraint)
            assert list(slow) == fast
        assert re.fullmatch(pattern.encode(), b"".join(LETTERS[token] for token in fast))


def test_a_constraint_that_cannot_be_met_is_refused_at_once():
    """By the call; and one over tokens that the model does not have, which no mask would fit."""
    trie = TokenTrie([*LETTERS, None], [VOCAB - 1])
    with pytest.raises(ValueError, match="needs at least 9"):
        generate(made_gpt(), [1], GREEDY, constraint=Constraint(trie, regular_expression("x{9}")))
    with pytest.raises(ValueError, match="another tokenizer"):
        generate(made_gpt(vocab_size=9), [1], GREEDY, constraint=Constraint(trie, regular_expression("x")))
