"""Tokens guessed ahead: they change how many steps a text takes, and nothing else."""

import pytest
import torch
from small_gpt import BOLD, VARIANTS, VOCAB, asked, finished, made_gpt

from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.draft import DraftModel, PromptLookup
from minigpt.engine.engine import Engine
from minigpt.engine.generate import generate
from minigpt.engine.request import Answer
from minigpt.runtime.seeding import generator


class Oracle:
    """Guesses right for a while, then wrong: knows every answer beforehand."""

    def __init__(self, answers: dict[int, list[int]], right: int) -> None:
        self.answers, self.right, self.asked = answers, right, list[int]()

    def guess(self, answer: Answer, count: int) -> list[int]:
        self.asked.append(count)
        rest = self.answers[answer.request.seed][len(answer.tokens) :][:count]
        return [token if i < self.right else (token + 1) % VOCAB for i, token in enumerate(rest)]


@pytest.mark.parametrize("right", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["in torch", "in C"])
@pytest.mark.parametrize("variant", ["rope", "learned", "alibi", "window", "grouped", "short conv"])
def test_guesses_change_no_token(variant, dtype, right):
    """Right, wrong or right at first: only the number of steps is another."""
    gpt = made_gpt(**VARIANTS[variant], context_length=32).to(dtype)
    requests = [asked([n, n + 1, n], seed=n) for n in range(4)]
    plain = [answer.tokens for answer in finished(Engine(gpt), requests)]
    engine = Engine(gpt, EngineConfig(drafts=4, page=4, max_batch=3), Oracle(dict(enumerate(plain)), right))
    assert [answer.tokens for answer in finished(engine, requests)] == plain


def test_right_guesses_save_steps():
    gpt = made_gpt(context_length=64)
    [plain] = finished(Engine(gpt), [asked([1])])
    engine, steps = Engine(gpt, EngineConfig(drafts=3), Oracle({1: plain.tokens}, 3)), 0
    answer = engine.submit(asked([1]))
    while engine.busy:
        engine.step()
        steps += 1
    assert answer.tokens == plain.tokens and steps == 1 + 10  # forty tokens: the first, then four in each step


@pytest.mark.parametrize("right, asked_for", [(7, [3, 7, 7, 7, 7]), (1, [3, 3, 3, 3]), (0, [3, 1, 1, 1])])
def test_right_guesses_earn_more_of_them_and_wrong_ones_cost(right, asked_for):
    """A wrong guess is a row computed for nothing: where none was kept, one is tried; where all were, twice as many."""
    gpt = made_gpt(context_length=64)
    [plain] = finished(Engine(gpt), [asked([1])])
    oracle = Oracle({1: plain.tokens}, right)
    [answer] = finished(Engine(gpt, EngineConfig(drafts=7), oracle), [asked([1])])
    assert answer.tokens == plain.tokens
    assert oracle.asked[: len(asked_for)] == asked_for


@pytest.mark.parametrize("guesser", [PromptLookup, lambda: DraftModel(made_gpt(n_layer=1, context_length=32))])
def test_guessers_change_no_token(guesser):
    """Also beyond the context, where what they have read is no longer there."""
    gpt = made_gpt(context_length=32)
    requests = [asked([n, 1, 2, 3] * 3, seed=n) for n in range(3)]
    plain = [answer.tokens for answer in finished(Engine(gpt), requests)]
    assert [answer.tokens for answer in finished(Engine(gpt, EngineConfig(drafts=3), guesser()), requests)] == plain


def test_a_text_that_repeats_itself_is_guessed():
    lookup, answer = PromptLookup(), Answer(asked([1, 2, 3, 4, 9, 9, 2, 3]))
    assert lookup.guess(answer, 3) == [4, 9, 9]
    answer.take(4)
    assert lookup.guess(answer, 2) == [9, 9]
    answer.take(7)
    assert lookup.guess(answer, 2) == []


def test_a_model_guesses_its_own_text_right():
    """The draft model being the model itself, every guess is right; so what it remembers of a text is right."""
    gpt = made_gpt(context_length=64)
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=33)
    engine, steps = Engine(gpt, EngineConfig(drafts=3), DraftModel(gpt)), 0
    answer = engine.submit(asked([1, 2], sampling=greedy))
    while engine.busy:
        engine.step()
        steps += 1
    assert answer.tokens == list(generate(gpt, [1, 2], greedy)) and steps == 1 + 8


def test_drafts_never_cost_a_request_its_pages():
    """Without a page for its guesses a text goes on without them."""
    gpt = made_gpt(context_length=64)
    [plain] = finished(Engine(gpt), [asked([1])])
    tight = EngineConfig(max_batch=1, page=1, cache_tokens=41, drafts=4)
    assert finished(Engine(gpt, tight, Oracle({1: plain.tokens}, 4)), [asked([1])])[0].tokens == plain.tokens


def test_ids_that_nobody_knows_are_no_guess():
    class Fool:
        def guess(self, answer: Answer, count: int) -> list[int]:
            return [5, VOCAB, -1][:count]

    gpt = made_gpt()
    answer = finished(Engine(gpt, EngineConfig(drafts=3), Fool()), [asked([1])])[0]
    assert answer.tokens == list(generate(gpt, [1], BOLD, generator=generator(1)))
