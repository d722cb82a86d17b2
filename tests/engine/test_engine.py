"""Many requests at once: each gets what `generate` would give it alone, to the last bit of its logits."""

import json
import random
import re

import pytest
import torch
from small_gpt import BOLD, VARIANTS, VOCAB, asked, finished, made_gpt

from kernels.quantization import quantize_int8
from minigpt.engine import forward, paged
from minigpt.engine.choose import Choices
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.generate import generate
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.request import Answer, Request
from minigpt.grammar.constraint import Constraint
from minigpt.grammar.json_schema import json_schema
from minigpt.grammar.regular_expression import regular_expression
from minigpt.grammar.token_trie import TokenTrie
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.runtime.seeding import generator


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_request_in_a_crowd_gets_what_generate_gives(variant):
    """Every shape of model; prompts cut into chunks, few pages so that some give way, contexts that slide."""
    gpt = made_gpt(**VARIANTS[variant], context_length=32)
    small = EngineConfig(max_batch=3, page=4, chunk=7, chunk_beside=5, cache_tokens=60)
    requests = [asked([(7 * i * j + 3) % VOCAB for i in range(n)], seed=j) for j, n in enumerate([1, 5, 9, 32, 17, 9])]
    for request, answer in zip(requests, finished(Engine(gpt, small), requests), strict=True):
        alone = list(generate(gpt, request.prompt, BOLD, generator=generator(request.seed)))
        assert answer.tokens == alone and answer.reason == "length"
        assert len(set(alone)) > 3


@pytest.mark.parametrize("long", [3, paged.LONG])
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"alibi"}))
def test_the_pages_of_a_gpu_hold_what_lanes_do(variant, long, monkeypatch):
    """The memory for `kernels.decode_attention`, here with the kernel's twin in torch; parts of prompts gather it."""
    monkeypatch.setattr(paged, "LONG", long)
    pages_of = lambda config, lanes, pages, page, like, rows: paged.Paged(config, pages, page, like)  # noqa: E731
    monkeypatch.setattr(forward, "Lanes", pages_of)
    gpt = made_gpt(**VARIANTS[variant], context_length=32)
    small = EngineConfig(max_batch=3, page=4, chunk=7, chunk_beside=5, cache_tokens=60, drafts=2)
    common = [5, 9, 2, 7, 7, 1, 3, 30, 12, 4]
    requests = [asked([*common[:n], j], seed=j) for j, n in enumerate([1, 5, 9, 10, 7, 9])]
    for request, answer in zip(requests, finished(Engine(gpt, small), requests), strict=True):
        assert answer.tokens == list(generate(gpt, request.prompt, BOLD, generator=generator(request.seed)))


# --- the promise --------------------------------------------------------------------------------------------------


def whole_gpt(integers: bool = False) -> GPT:
    """In float32, with widths that fill vectors; as int8 if asked."""
    torch.manual_seed(3)
    shape = {"vocab_size": 160, "context_length": 320, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
    gpt = GPT(GPTConfig(**shape, mlp_width=96)).eval()
    for parameter in gpt.parameters():
        parameter.data *= 8.0 if parameter.ndim == 2 else 1.0
    if integers:
        for block in gpt.blocks:
            for part in (block.attention, block.mlp):
                for name, layer in list(part.named_children()):
                    if type(layer) is torch.nn.Linear:
                        setattr(part, name, IntegerLinear(*quantize_int8(layer.weight.data)))
        gpt.lm_head = IntegerLinear(*quantize_int8(gpt.lm_head.weight.data))
    return gpt


def crowd(count: int) -> list[Request]:
    """Prompts of 1 to 300 tokens, some of which begin alike."""
    draw = random.Random(1)
    common = [draw.randrange(160) for _ in range(250)]
    prompts = [common[: draw.randrange(251)] + [draw.randrange(160) for _ in range(draw.randint(1, 50))]
               for _ in range(count)]  # fmt: skip
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=12)
    return [asked(prompt, seed, sampling) for seed, prompt in enumerate(prompts)]


@pytest.fixture
def chosen_from(monkeypatch):
    """Every row of logits a token was chosen from: {(seed, how many tokens before it): logits}"""
    seen: dict[tuple[int, int], torch.Tensor] = {}
    choose = Choices.choose

    def recorded(choices, row, answer):
        place, logits = (answer.request.seed, len(answer.tokens)), choices.logits[row]
        if place in seen:
            assert torch.equal(seen[place], logits), f"other bits at {place}: company shows"
        seen[place] = logits.clone()
        return choose(choices, row, answer)

    monkeypatch.setattr(Choices, "choose", recorded)
    return seen


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "int8", "torch"])
@pytest.mark.parametrize("integers", [False, True], ids=["float32", "int8"])
def test_company_changes_no_bit(integers, cache_dtype, chosen_from):
    """Alone; in a crowd; with a remembered beginning; in chunks of other sizes; where the youngest give way."""
    gpt, requests = whole_gpt(integers), crowd(24)
    how = {"compiled": False} if cache_dtype == "torch" else {"cache_dtype": cache_dtype}
    if how.get("cache_dtype") and (why := Engine(gpt).not_compiled):
        pytest.skip(why)
    engine = Engine(gpt, EngineConfig(max_batch=1, **how))
    if not engine.invariant:
        pytest.skip("this machine's matrix products depend on company: the engine says so")
    alone = [answer.tokens for request in requests for answer in finished(Engine(gpt, engine.config), [request])]
    warm = finished(engine, requests)
    warm_again = finished(engine, requests)
    assert sum(answer.cached > 0 for answer in warm_again) > 20
    crowded = finished(Engine(gpt, EngineConfig(max_batch=16, **how)), requests)
    narrow = EngineConfig(max_batch=5, page=7, chunk=11, chunk_beside=3, cache_tokens=700, **how)
    for answers in (warm, warm_again, crowded, finished(Engine(gpt, narrow), requests)):
        assert [answer.tokens for answer in answers] == alone
    assert len(chosen_from) == 24 * 12


def test_the_promise_is_not_made_where_it_cannot_be_kept():
    """In torch: a width that no vector fills, half precision; and whoever does not ask for it, is not told it holds."""
    assert not Engine(made_gpt().float(), EngineConfig(compiled=False)).invariant
    assert not Engine(whole_gpt().bfloat16()).invariant
    assert not Engine(whole_gpt(), EngineConfig(cache_dtype="bfloat16", compiled=False)).invariant
    assert not Engine(whole_gpt(), EngineConfig(invariant=False, compiled=False)).invariant


# --- the life of a request ----------------------------------------------------------------------------------------


def test_a_cancelled_request_is_not_computed_again_and_the_others_go_on():
    gpt = made_gpt()
    engine = Engine(gpt, EngineConfig(max_batch=2))
    first, second, third = (engine.submit(asked([n], seed=n)) for n in (1, 2, 3))
    engine.step()
    engine.cancel(first)
    engine.cancel(third)
    while engine.busy:
        engine.step()
    assert (first.reason, len(first.tokens), third.reason, third.tokens) == ("cancelled", 1, "cancelled", [])
    assert second.tokens == list(generate(gpt, [2], BOLD, generator=generator(2)))


def test_a_stop_token_ends_a_text_unseen():
    gpt = made_gpt()
    [answer] = finished(Engine(gpt), [asked([1])])
    stop = answer.tokens[7]
    [stopped] = finished(Engine(gpt), [asked([1], stop_ids=(stop,))])
    assert stopped.tokens == answer.tokens[: answer.tokens.index(stop)] and stopped.reason == "stop"


def test_tokens_can_be_read_as_they_come():
    gpt = made_gpt()
    engine = Engine(gpt)
    beside = engine.submit(asked([2], seed=2))
    assert list(engine.follow(engine.submit(asked([1])))) == list(generate(gpt, [1], BOLD, generator=generator(1)))
    assert beside.tokens == list(generate(gpt, [2], BOLD, generator=generator(2)))


def test_an_answer_that_nobody_reads_on_is_cancelled():
    engine = Engine(made_gpt())
    tokens = engine.follow(engine.submit(asked([1])))
    next(tokens)
    tokens.close()
    assert not engine.busy


def test_an_answer_that_was_never_begun_is_not_waited_for():
    with pytest.raises(ValueError, match="never begun"):
        next(Engine(made_gpt()).follow(Answer(asked([1]))))


def test_a_forbidden_token_never_comes_and_a_wished_one_always():
    gpt = made_gpt()
    [plain] = finished(Engine(gpt), [asked([1])])
    never = plain.tokens[0]
    [without] = finished(Engine(gpt), [asked([1], logit_bias={never: -1000.0})])
    assert never not in without.tokens
    [only] = finished(Engine(gpt), [asked([1], logit_bias={5: 1e6})])
    assert set(only.tokens) == {5}


def test_logprobs_are_the_models_own():
    """Whatever the temperature: log softmax of its logits, checked with a forward pass of the model."""
    gpt = made_gpt()
    cool = SamplingConfig(temperature=0.3, max_new_tokens=5)
    [answer] = finished(Engine(gpt), [asked([1, 2], logprobs=3, sampling=cool)])
    logits = gpt(torch.tensor([[1, 2, *answer.tokens]]))[0, 1:-1].log_softmax(-1).detach()
    for token, said, row in zip(answer.tokens, answer.logprobs, logits, strict=True):
        assert said.chosen == pytest.approx(float(row[token]), abs=1e-5)
        assert [i for i, _ in said.likeliest] == row.topk(3).indices.tolist()


def test_damaged_weights_end_requests_with_an_error_not_the_engine():
    gpt = made_gpt()
    gpt.token_embedding.weight.data[7] = torch.nan
    engine = Engine(gpt)
    for answer in finished(engine, [asked([7]), asked([1], sampling=SamplingConfig(temperature=0))]):
        assert answer.reason == "error" and "not finite" in answer.error
    with pytest.raises(ValueError, match="not finite"):
        list(engine.follow(engine.submit(asked([7]))))
    assert not engine.busy


def test_what_was_damaged_harms_nobody_after():
    """A NaN in a lane would be multiplied by the weight 0 of whoever comes next, and stay a NaN."""
    gpt = made_gpt(tied=False)
    gpt.token_embedding.weight.data[7] = torch.nan
    engine = Engine(gpt, EngineConfig(max_batch=1, page=2))
    greedy = SamplingConfig(temperature=0, max_new_tokens=4)
    for prompt, reason in (([1, 2, 3, 7], "error"), ([1, 2], "length"), ([1, 2, 3, 4], "length")):
        [answer] = finished(engine, [asked(prompt, sampling=greedy)])
        assert answer.reason == reason
    assert answer.tokens == list(generate(gpt, [1, 2, 3, 4], greedy))


def test_half_precision_lengths_do_not_overflow():
    """The square of a stream's length is beyond float16 long before the stream is."""
    gpt = made_gpt(n_embd=64, mlp_width=64).half()
    gpt.token_embedding.weight.data *= 400 / gpt.token_embedding.weight.data.abs().amax()
    greedy = SamplingConfig(temperature=0, max_new_tokens=4)
    assert finished(Engine(gpt), [asked([1, 2], sampling=greedy)])[0].tokens == list(generate(gpt, [1, 2], greedy))


def test_integer_layers_work_in_a_model_of_any_dtype():
    gpt = whole_gpt(integers=True).to(torch.bfloat16)
    greedy = SamplingConfig(temperature=0, max_new_tokens=4)
    assert finished(Engine(gpt), [asked([1, 2], sampling=greedy)])[0].tokens == list(generate(gpt, [1, 2], greedy))


def test_every_lane_can_hold_a_whole_context():
    engine = Engine(made_gpt(), EngineConfig(max_batch=5, page=16))  # a context of 12 takes a page of 16
    for n in range(5):
        engine.submit(asked([n] * 12))
    engine.step()
    engine.step()
    assert len(engine.scheduler.running) == 5


def test_whoever_fails_is_told_of_by_the_step_and_nothing_is_forgotten_meanwhile():
    engine = Engine(made_gpt(), EngineConfig(max_batch=1, page=2, cache_tokens=4))
    answer, told = engine.submit(asked([1, 2])), []
    with pytest.raises(ValueError, match="on their way"):
        engine.forget()
    while engine.busy:
        told = engine.step()
    assert told == [answer] and answer.reason == "error" and "cache_tokens" in answer.error


def test_the_cache_is_as_wide_as_asked():
    narrow = Engine(whole_gpt(), EngineConfig(cache_dtype="bfloat16", compiled=False))
    assert narrow.forward.store.keys.dtype == torch.bfloat16
    assert Engine(whole_gpt().bfloat16()).forward.store.keys.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="int8 needs the step in C"):
        Engine(whole_gpt(), EngineConfig(cache_dtype="int8", compiled=False))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"prompt": []}, "no token"),
        ({"prompt": [1.0]}, "1.0, which is no integer"),
        ({"prompt": [VOCAB]}, "beyond the vocabulary"),
        ({"prompt": [-1]}, "beyond the vocabulary"),
        ({"prompt": [1] * 13}, "13 tokens and the model sees 12"),
        ({"prompt": [1], "stop_ids": range(100)}, "at most 64"),
        ({"prompt": [1], "logprobs": 21}, "0 to 20"),
        ({"prompt": [1], "logit_bias": {VOCAB: 1.0}}, "beyond the vocabulary"),
        ({"prompt": [1], "logit_bias": {1: float("nan")}}, "finite"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_is_queued(wish, message):
    engine = Engine(made_gpt())
    running = engine.submit(asked([1]))
    with pytest.raises(ValueError, match=message):
        engine.submit(Request(**wish))
    while engine.busy:
        engine.step()
    assert len(running.tokens) == 40


def test_a_thousand_requests_leave_nothing_behind():
    """Random lengths and cancellations: every page and lane is free or idle again."""
    engine = Engine(made_gpt(n_layer=1), EngineConfig(max_batch=8, page=4))
    draw, answers = random.Random(1), []
    for number in range(1000):
        prompt = [draw.randrange(VOCAB) for _ in range(draw.randint(1, 9))]
        answers.append(engine.submit(asked(prompt, number, SamplingConfig(max_new_tokens=draw.randint(1, 4)))))
        if draw.random() < 0.5:
            engine.step()
        if draw.random() < 0.2:
            engine.cancel(draw.choice(answers))
    while engine.busy:
        engine.step()
    assert all(answer.reason in ("length", "cancelled") for answer in answers)
    pages = engine.scheduler.pages
    assert not any(pages.holders) and len(pages.free) + len(pages.idle) == pages.count
    assert sorted(engine.scheduler.lanes) == list(range(8))


# --- constraints --------------------------------------------------------------------------------------------------


def spelled(tokens: list[int]) -> str:
    return bytes(tokens).decode()


@pytest.fixture(scope="module")
def byte_gpt() -> GPT:
    """Its tokens are bytes, the last one ends a text."""
    return made_gpt(vocab_size=260, context_length=64).float()


@pytest.fixture(scope="module")
def trie() -> TokenTrie:
    return TokenTrie([*(bytes([b]) for b in range(256)), None], [256])


@pytest.mark.parametrize("limit", [4, 9, 40])
@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_what_must_match_matches_also_when_it_is_cut(byte_gpt, trie, limit, temperature):
    """Beside a request without a constraint, and with guesses that know nothing of it."""
    constraint = Constraint(trie, regular_expression("(ab|é)+[0-9]{2,}"))
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=limit)
    engine = Engine(byte_gpt, EngineConfig(drafts=3))
    free = engine.submit(asked([1], sampling=BOLD))
    answers = [engine.submit(asked([97, 98], seed, sampling, constraint=constraint)) for seed in range(8)]
    with pytest.raises(ValueError, match="another tokenizer"):
        Engine(made_gpt()).submit(asked([1], sampling=sampling, constraint=constraint))
    while engine.busy:
        engine.step()
    for answer in answers:
        assert re.fullmatch("(ab|é)+[0-9]{2,}", spelled(answer.tokens)), spelled(answer.tokens)
        assert len(answer.tokens) <= limit
    assert free.tokens == finished(Engine(byte_gpt), [asked([1], sampling=BOLD)])[0].tokens


def test_a_schema_gives_json(byte_gpt, trie):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
              "required": ["n", "ok"]}  # fmt: skip
    constraint = Constraint(trie, json_schema(schema))
    hot = SamplingConfig(temperature=2.0, max_new_tokens=40)
    for answer in finished(Engine(byte_gpt), [asked([1], seed, hot, constraint=constraint) for seed in range(5)]):
        value = json.loads(spelled(answer.tokens))
        assert type(value["n"]) is int and type(value["ok"]) is bool and answer.reason == "stop"


@pytest.mark.parametrize("pattern", ["", "()"])
def test_a_text_that_must_be_empty_is_finished_at_once(byte_gpt, trie, pattern):
    """Nothing may come, not even a stop token; whoever follows, waits or steps sees an empty answer."""
    constraint, engine = Constraint(trie, regular_expression(pattern)), Engine(byte_gpt)
    answer = engine.submit(asked([1], constraint=constraint))
    assert answer.reason == "stop" and not engine.busy and list(engine.follow(answer)) == []
    assert list(generate(byte_gpt, [1], SamplingConfig(), constraint=constraint)) == []


def test_a_limit_that_holds_no_match_is_refused_at_once(byte_gpt, trie):
    constraint = Constraint(trie, regular_expression("abcdef"))
    with pytest.raises(ValueError, match="needs at least 6"):
        Engine(byte_gpt).submit(asked([1], sampling=SamplingConfig(max_new_tokens=5), constraint=constraint))


def test_readers_that_take_turns_lose_no_token():
    """While one shows a token, the other steps for both: what came meanwhile must still be shown."""
    engine = Engine(made_gpt(), EngineConfig(max_batch=2))
    first, second = engine.submit(asked([1], 1)), engine.submit(asked([2], 2))
    pairs = list(zip(engine.follow(first), engine.follow(second), strict=True))
    assert pairs == list(zip(first.tokens, second.tokens, strict=True)) and len(pairs) == 40
