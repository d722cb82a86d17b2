"""From logits to one token: each filter against a naive twin and against Hugging Face's."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minigpt.engine import sampling
from minigpt.engine.config import SamplingConfig
from minigpt.engine.sampling import (
    counted_off,
    drawn,
    filtered,
    min_p_only,
    next_token,
    repetition_penalised,
    tempered,
    top_k_only,
    top_p_only,
)


def random_logits(rows: int = 6, vocab: int = 40, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def kept(logits: Tensor) -> list[int]:
    return (logits > -math.inf).nonzero().flatten().tolist()


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- against naive twins ----------------------------------------------------------------------------------


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(x - max(row)) for x in row]
    return [weight / sum(weights) for weight in weights]


def naive_top_k(row: list[float], k: int) -> list[int]:
    bar = sorted(row, reverse=True)[: min(k, len(row))][-1]
    return [i for i, x in enumerate(row) if x >= bar]


def naive_top_p(row: list[float], p: float) -> list[int]:
    probability, chosen, total = softmax(row), [], 0.0
    for i in sorted(range(len(row)), key=lambda i: -row[i]):
        if total >= p:
            break
        chosen.append(i)
        total += probability[i]
    least = min(probability[i] for i in chosen)
    return [i for i, share in enumerate(probability) if share >= least - 1e-12]  # what ties is kept as well


def naive_min_p(row: list[float], share: float) -> list[int]:
    probability = softmax(row)
    return [i for i, p in enumerate(probability) if p >= share * max(probability)]


@given(st.lists(st.integers(-64, 64).map(lambda n: n / 8), min_size=1), st.integers(1, 40), st.floats(0.1, 0.9))
def test_each_filter_keeps_what_its_naive_twin_keeps(row, k, p):
    """The twins say in words of one syllable what the tensors do; float64, so that no rounding decides."""
    logits = torch.tensor(row, dtype=torch.float64)
    assert kept(top_k_only(logits, k)) == naive_top_k(row, k)
    assert kept(min_p_only(logits, p)) == naive_min_p(row, p)
    assert kept(top_p_only(logits, p)) == naive_top_p(row, p) or _on_the_edge(row, p)


def _on_the_edge(row: list[float], p: float) -> bool:
    """A running sum that meets p to the last bits may fall on either side."""
    total, ordered = 0.0, sorted(softmax(row), reverse=True)
    sums = [total := total + probability for probability in ordered]
    return any(abs(one - p) < 1e-12 for one in sums)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.97, 0.9999])
def test_looking_at_the_likeliest_first_changes_no_nucleus(p, monkeypatch):
    """Few tokens are enough for a sure row and not for a flat one: the same are kept as by sorting all of them."""
    rows = torch.stack([scale * random_logits(1, 600)[0] for scale in (0.1, 1.0, 4.0)])
    quick = top_p_only(rows, p)
    monkeypatch.setattr(sampling, "NUCLEUS", 600)
    assert torch.equal(quick, top_p_only(rows, p))
    assert [kept(row) for row in quick] == [kept(top_p_only(row, p)) for row in rows]


def test_an_impossible_token_is_never_drawn():
    """Whatever the number drawn: not at 0, where the first token's probability is 0, nor just below 1."""
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 1.0, -math.inf])
    for u, token in ((0.0, 1), (0.26, 1), (0.27, 3), (1 - 2**-24, 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda shape, generator, u=u: torch.full(shape, u))
            assert int(drawn(logits, stream())) == token


@given(st.lists(st.floats(-8, 8), min_size=2), st.floats(0.01, 1.0), st.integers(1, 5))
def test_a_filter_keeps_the_likeliest_token_and_changes_no_logit(row, share, k):
    """At least one token always remains, so that there is something to draw."""
    logits = torch.tensor(row, dtype=torch.float64)
    for result in (top_k_only(logits, k), top_p_only(logits, share), min_p_only(logits, share)):
        assert result[logits.argmax()] == logits.max()
        assert torch.equal(result[kept(result)], logits[kept(result)])


# --- by hand ----------------------------------------------------------------------------------------------


def test_filters_worked_by_hand():
    """Probabilities 0.5, 0.3, 0.15, 0.05 in shuffled order."""
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    assert kept(top_k_only(logits, 2)) == [1, 3]
    assert kept(top_p_only(logits, 0.49)) == [1]       # 0.49 is reached by the first alone
    assert kept(top_p_only(logits, 0.6)) == [1, 3]     # the token that crosses 0.6 is kept
    assert kept(top_p_only(logits, 0.9)) == [0, 1, 3]
    assert kept(min_p_only(logits, 0.25)) == [0, 1, 3]  # the bar is a quarter of 0.5
    assert kept(min_p_only(logits, 0.7)) == kept(min_p_only(logits, 1.0)) == [1]


def test_a_filter_with_no_limit_keeps_everything():
    """k beyond the vocabulary, p = 1 and share = 0 are switched off, not errors."""
    logits = random_logits()[0]
    assert torch.equal(top_k_only(logits, 10**6), logits)
    assert torch.equal(min_p_only(logits, 0.0), logits)
    assert torch.equal(filtered(logits, SamplingConfig(temperature=1.0)), logits)


def test_ties_at_the_border_of_top_k_are_all_kept():
    """Which of two equal tokens to drop would be an accident of the sort."""
    assert kept(top_k_only(torch.tensor([1.0, 2.0, 1.0, 0.0]), 2)) == [0, 1, 2]


def test_temperature_divides():
    """Odds of e² : 1 become e⁴ : 1 at one half and e : 1 at two."""
    logits = torch.tensor([2.0, 0.0])
    for temperature, odds in ((0.5, 4.0), (1.0, 2.0), (2.0, 1.0)):
        probability = tempered(logits, temperature).softmax(-1)
        assert (probability[0] / probability[1]).log().item() == pytest.approx(odds)


def test_the_repetition_penalty_lowers_what_was_seen_however_often():
    """2 / 1.5 and -2 · 1.5: both less likely than before; seen three times counts once."""
    logits = torch.tensor([2.0, -2.0, 1.0])
    result = repetition_penalised(logits, torch.tensor([0, 1, 0, 0]), 1.5)
    torch.testing.assert_close(result, torch.tensor([2 / 1.5, -3.0, 1.0]))
    assert repetition_penalised(logits, torch.tensor([0, 1]), 1.0) is logits
    assert torch.equal(logits, torch.tensor([2.0, -2.0, 1.0]))


def test_what_was_written_counts_once_and_for_each_time():
    """Token 0 written three times: 2 - 0.5 - 3 · 0.25; the prompt is not written."""
    logits = torch.tensor([2.0, -2.0, 1.0])
    result = counted_off(logits, torch.tensor([0, 1, 0, 0]), 0.5, 0.25)
    torch.testing.assert_close(result, torch.tensor([0.75, -2.75, 1.0]))
    config = SamplingConfig(temperature=0, presence_penalty=1.5)
    for written, chosen in (([0], 2), ([], 0)):
        history = torch.tensor([0]), config, torch.Generator(), torch.tensor(written, dtype=torch.long)
        assert int(next_token(logits, *history)) == chosen


# --- against Hugging Face ---------------------------------------------------------------------------------


def test_each_filter_equals_hugging_faces():
    """A setting must mean here what it means there."""
    hf = pytest.importorskip("transformers.generation.logits_process")
    logits, ids = random_logits(), torch.arange(12).view(6, 2)
    pairs = [
        (repetition_penalised(logits, ids, 1.3), hf.RepetitionPenaltyLogitsProcessor(1.3)),
        (tempered(logits, 0.7), hf.TemperatureLogitsWarper(0.7)),
        (top_k_only(logits, 5), hf.TopKLogitsWarper(5)),
        (top_p_only(logits, 0.8), hf.TopPLogitsWarper(0.8)),
        (min_p_only(logits, 0.1), hf.MinPLogitsWarper(0.1)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs(ids, logits.clone()))


@pytest.mark.parametrize("seed", range(5))
def test_all_filters_together_equal_hugging_faces_order(seed):
    """Each filter sees what the one before it left; another order keeps other tokens."""
    hf = pytest.importorskip("transformers.generation.logits_process")
    logits, ids = random_logits(seed=seed), torch.arange(12).view(6, 2)
    config = SamplingConfig(temperature=1.7, top_k=12, top_p=0.9, min_p=0.08)
    ours = filtered(repetition_penalised(logits, ids, 1.2), config)
    theirs = hf.LogitsProcessorList([
        hf.RepetitionPenaltyLogitsProcessor(1.2), hf.TemperatureLogitsWarper(1.7), hf.TopKLogitsWarper(12),
        hf.TopPLogitsWarper(0.9), hf.MinPLogitsWarper(0.08),
    ])(ids, logits.clone())  # fmt: skip
    torch.testing.assert_close(ours, theirs)


# --- the draw ---------------------------------------------------------------------------------------------


def test_temperature_zero_takes_the_likeliest_and_no_randomness():
    """Greedy is the limit; the stream is not even touched."""
    logits, generator = random_logits(), stream()
    before = generator.get_state()
    seen = torch.zeros(6, 1, dtype=torch.long)
    chosen = next_token(logits, seen, SamplingConfig(temperature=0.0), generator)
    assert torch.equal(chosen, logits.argmax(-1))
    assert torch.equal(generator.get_state(), before)


def test_the_same_stream_draws_the_same_tokens_and_leaves_the_global_one_alone():
    """Same seed, same text; and sampling during training must not change what training draws."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    seen, config = torch.zeros(6, 1, dtype=torch.long), SamplingConfig(temperature=1.0)
    draws = []
    for generator in (stream(3), stream(3), stream(4)):
        draws.append([next_token(random_logits(), seen, config, generator).tolist() for _ in range(8)])
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_draws_follow_the_probabilities():
    """20,000 draws from 0.6, 0.3, 0.1, 0: each count within five standard deviations."""
    probability = torch.tensor([0.6, 0.3, 0.1, 0.0])
    counts = Counter(drawn(probability.log().expand(20_000, 4), stream()).tolist())
    for token, p in enumerate(probability.tolist()):
        assert abs(counts[token] - 20_000 * p) <= 5 * math.sqrt(20_000 * p * (1 - p))


def test_one_row_gives_one_id_and_a_batch_one_for_each_row():
    """(V,) -> () and (B, V) -> (B,); a row alone chooses what it chooses in company."""
    config = SamplingConfig(temperature=0.0, repetition_penalty=1.5)
    logits, seen = random_logits(rows=3), torch.tensor([[1, 2], [3, 4], [5, 6]])
    together = next_token(logits, seen, config, stream())
    alone = [next_token(logits[row], seen[row], config, stream()) for row in range(3)]
    assert together.shape == (3,) and alone[0].shape == ()
    assert together.tolist() == [int(token) for token in alone]


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused_in_one_line(poison):
    """A diverged model would otherwise end in torch's words about a probability tensor."""
    logits = random_logits()[0]
    logits[3] = poison
    for temperature in (0.0, 1.0):
        config = SamplingConfig(temperature=temperature)
        with pytest.raises(ValueError, match="logits are not finite: its weights are damaged"):
            next_token(logits, torch.tensor([0]), config, stream())


def test_logits_in_low_precision_are_drawn_in_float32():
    """bfloat16 has 8 bits: its softmax over a large vocabulary would not add up to 1."""
    logits = random_logits(rows=2000).bfloat16()
    seen, config = torch.zeros(2000, 1, dtype=torch.long), SamplingConfig(temperature=1.0, top_p=0.9)
    low = next_token(logits, seen, config, stream())
    assert torch.equal(low, next_token(logits.float(), seen, config, stream()))


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens 0: needs at least 1"),
        ({"temperature": -0.1}, "--temperature -0.1: needs at least 0"),
        ({"temperature": math.nan}, "--temperature nan"),
        ({"temperature": math.inf}, "--temperature inf"),
        ({"top_k": 0}, "--top-k 0: needs at least 1, or none"),
        ({"top_p": 0.0}, "--top-p 0.0"),
        ({"top_p": 1.1}, "--top-p 1.1"),
        ({"min_p": -0.1}, "--min-p -0.1"),
        ({"min_p": 1.1}, "--min-p 1.1"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty 0.0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_flag(setting, complaint):
    """One line that names the flag, the number and what would work."""
    with pytest.raises(ValueError, match=complaint):
        SamplingConfig(**setting)
