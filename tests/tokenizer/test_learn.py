"""Merges learned many at a time, against one at a time, and against the trainers that people use."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import learn, naive
from minigpt.tokenizer.byte_alphabet import BYTE_OF
from minigpt.tokenizer.count import count_words
from minigpt.tokenizer.learn import Places, learn_merges
from minigpt.tokenizer.patterns import CL100K, GPT2, PATTERNS
from minigpt.tokenizer.word_counts import WordCounts

ANY = r"(?s:.+)"
CORPORA = st.lists(st.text(alphabet="aab c\n", max_size=40) | st.text(max_size=20), max_size=8)
FEW_LETTERS = st.lists(st.text(alphabet="abcd", max_size=30), max_size=12)
N_RANDOM = 200  # corpora; ten times as many with --slow


@given(texts=CORPORA, pattern=st.sampled_from([ANY, GPT2, CL100K]), min_frequency=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_batches_of_merges_are_the_merges_of_the_twin(texts, pattern, min_frequency):
    """Few letters make many ties, runs and overlaps, which is where a batch must end."""
    learned = learn_merges(count_words(texts, pattern), 25, min_frequency)
    assert learned == naive.train(texts, 25, pattern, min_frequency)


@given(texts=FEW_LETTERS, n_merges=st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_every_number_of_merges_is_the_beginning_of_the_same_list(texts, n_merges):
    """A batch must not run past the number asked for, nor leave merges out."""
    assert learn_merges(count_words(texts, ANY), n_merges) == naive.train(texts, 60, ANY)[:n_merges]


def first_seen(texts: Sequence[str], n_merges: int, min_frequency: int = 1) -> list[learn.Pair]:
    """As minbpe: pairs are counted afresh, word after word, and of the most frequent ones the first counted wins.

    Source: karpathy/minbpe, regex.py, `max(stats, key=stats.get)` over a dict filled in the order of the text.
    """
    words = [list(word.encode()) for text in texts for word in naive.split(text, GPT2)]
    merges: list[learn.Pair] = []
    while len(merges) < n_merges:
        stats: dict[learn.Pair, int] = {}
        for word in words:
            for pair in pairwise(word):
                stats[pair] = stats.get(pair, 0) + 1
        best = max(stats, key=stats.get, default=None)
        if best is None or stats[best] < min_frequency:
            break
        words = [naive.merge(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


@given(texts=CORPORA | FEW_LETTERS, min_frequency=st.integers(1, 2))
@settings(max_examples=200, deadline=None)
def test_the_first_seen_of_equals_is_the_one_that_minbpe_takes(texts, min_frequency):
    """Which pair stands first changes with every merge, so the queue must look again."""
    learned = learn_merges(count_words(texts, GPT2), 30, min_frequency, "first_seen")
    assert learned == first_seen(texts, 30, min_frequency)


@pytest.mark.parametrize("text", ["abab", "ababab", "aaaa", "aaaaaaa", " " * 20, "abaabaab", "aabbaabb", "a" * 1001])
def test_pairs_made_and_used_up_in_one_merge_are_counted_right(text):
    """Merging a b in "abab" makes (new, a) and uses it up again; a trainer here once left it in its counts."""
    words = [text, text + "x", "x" + text, text + "x" + text]
    assert learn_merges(count_words(words, ANY), 50) == naive.train(words, 50, ANY)


def recounted(places: Places) -> Counter[learn.Pair]:
    """Every pair that stands somewhere, counted by walking along the tokens."""
    counts: Counter[learn.Pair] = Counter()
    at = 0
    while (then := int(places.after[at])) < len(places.token):
        assert places.before[then] == at
        if places.token[at] >= 0 <= places.token[then]:
            counts[int(places.token[at]), int(places.token[then])] += int(places.weight[at])
        at = then
    return counts


@given(words=st.lists(st.text(alphabet="aab", max_size=12), max_size=5))
@settings(max_examples=100, deadline=None)
def test_counts_and_neighbours_stay_exact_through_merges(words):
    """The queue trusts the counts; here they are recounted from the tokens after every batch."""
    places = Places(WordCounts.of(Counter(word.encode() for word in words)), np.arange(256), 300)
    new = 256
    while new < 262 and (live := [pair for pair, n in enumerate(places.count.all.tolist()) if n > 0]):
        live.sort(key=lambda pair: -places.count.all[pair])
        merged, _ = places.merge(live[:3], new)
        new += len(merged)
        assert sorted(recounted(places).values()) == sorted(places.count.all[places.count.all > 0].tolist())
        assert not set(merged) & set(recounted(places))
        assert (places.turn.all == learn.NEVER).all()


@pytest.mark.parametrize("waiting", [1, 2, 7])
def test_the_floor_of_the_queue_changes_nothing(texts, waiting, monkeypatch):
    """Pairs below it are not looked at until it is lowered; here that happens all the time."""
    words = count_words(texts, CL100K)
    expected = learn_merges(words, 300), learn_merges(words, 300, tie_break="first_seen")
    monkeypatch.setattr(learn, "WAITING", waiting)
    assert (learn_merges(words, 300), learn_merges(words, 300, tie_break="first_seen")) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_real_text_gives_the_same_merges_as_the_twin(texts, pattern):
    """A few kilobytes of code and many scripts, rather than two letters."""
    excerpt = [texts[-1], texts[0][:3000]]
    learned = learn_merges(count_words(excerpt, PATTERNS[pattern]), 40)
    assert learned == naive.train(excerpt, 40, PATTERNS[pattern])


def test_counts_beyond_32_bits_do_not_overflow():
    """Hugging Face's did: pairs past 2**32 began again at 0, and the tokenizer was silently bad (issue 1170)."""
    words = {b"ab": 2**32 + 5, b"cd": 2**32 + 6, b"ef": 7, b"xab": 2**60}
    assert learn_merges(WordCounts.of(words), 5) == [tuple(b"ab"), (ord("x"), 256), tuple(b"cd"), tuple(b"ef")]
    sums = {b"%dab" % i: 2**31 - 1 for i in range(9)} | {b"xy": 2**34}  # each fits 32 bits, their sum does not
    assert learn_merges(WordCounts.of(sums), 2) == [tuple(b"ab"), tuple(b"xy")]


def test_ids_beyond_16_bits_are_told_apart():
    """Up to 65,536 tokens pairs are sorted as 16-bit integers. Here a is 300 and b is 65,836: the same in 16 bits."""
    token_of = np.zeros(256, np.int32)
    token_of[[ord("a"), ord("b")]] = 300, 300 + (1 << 16)
    assert len(Places(WordCounts.of({b"ac": 1, b"bc": 1}), token_of, 70_000).count.all) == 3  # and that of no pair
    words = WordCounts.of({b"abcabd": 3, b"abd": 2, b"cab": 1})
    assert learn_merges(words, 1 << 16) == learn_merges(words, 10)


def test_many_merges_are_made_at_a_time(texts, monkeypatch):
    """One at a time would be as right, and thirty times slower on large vocabularies."""
    sizes: list[int] = []
    merge = Places.merge

    def noted(places: Places, batch: list[int], new: int) -> tuple[list[learn.Pair], np.ndarray]:
        result = merge(places, batch, new)
        sizes.append(len(result[0]))
        return result

    monkeypatch.setattr(Places, "merge", noted)
    learn_merges(count_words(texts, CL100K), 1000)
    assert sum(sizes) == 1000
    assert len(sizes) < 180  # 153 when this was written


def random_corpus(seed: int) -> list[str]:
    """Made-up words, some frequent and most rare, of few or many letters."""
    dice = random.Random(seed)
    letters = dice.choice(["ab", "abc", "aabcdé", "etaoinshrdlu", "etaoin'.,0123\n", "字母表éàü😀ab"])
    made = ["".join(dice.choices(letters, k=dice.randint(1, 9))) for _ in range(dice.randint(2, 120))]
    weights = [1 / (rank + 1) for rank in range(len(made))]
    joint = dice.choice([" ", " ", "\n", "  "])
    return [joint.join(dice.choices(made, weights, k=dice.randint(1, 150))) for _ in range(dice.randint(1, 5))]


def spelled(merges: Sequence[learn.Pair]) -> list[tuple[bytes, bytes]]:
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return [(tokens[left], tokens[right]) for left, right in merges]


def hugging_face(texts: Sequence[str], n_merges: int) -> list[tuple[bytes, bytes]]:
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(GPT2), "isolated")
    letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([cut, letters])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + n_merges, initial_alphabet=letters.alphabet(), min_frequency=1, show_progress=False
    )
    peer.train_from_iterator(texts, trainer)
    merges = json.loads(peer.to_str())["model"]["merges"]
    return [tuple(bytes(BYTE_OF[letter] for letter in token) for token in pair) for pair in merges]


def rust_bpe(texts: Sequence[str], n_merges: int) -> list[bytes]:
    peer = pytest.importorskip("rustbpe").Tokenizer()
    peer.train_from_iterator(iter(texts), 256 + n_merges, pattern=GPT2)
    return [bytes(token) for token, _ in peer.get_mergeable_ranks()][256:]


def assert_as_hugging_face(seeds: range) -> None:
    for seed in seeds:
        texts = random_corpus(seed)
        learned = learn_merges(count_words(texts, GPT2), 150, tie_break="hf")
        assert spelled(learned) == hugging_face(texts, 150), seed


def assert_as_rustbpe(seeds: range) -> None:
    for seed in seeds:
        texts = random_corpus(seed)
        learned = learn_merges(count_words(texts, GPT2), 150)
        assert [left + right for left, right in spelled(learned)] == rust_bpe(texts, 150), seed


def test_the_merges_are_those_of_hugging_face():
    """With its numbers for bytes its ties fall alike, so either can stand in for the other."""
    assert_as_hugging_face(range(N_RANDOM))


def test_the_merges_are_those_of_rustbpe():
    """nanochat's trainer."""
    assert_as_rustbpe(range(N_RANDOM))


@pytest.mark.slow
def test_the_merges_are_those_of_both_on_2000_corpora():
    """The deep number."""
    assert_as_hugging_face(range(10 * N_RANDOM))
    assert_as_rustbpe(range(10 * N_RANDOM))
