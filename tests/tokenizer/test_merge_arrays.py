"""Merging with arrays against `merge_short`, which is ten lines."""

import random

import numpy as np
import pytest

from minigpt.tokenizer.merge import in_order, merge_short, rank_table
from minigpt.tokenizer.merge_arrays import PairRanks, merge_long, merge_words
from minigpt.tokenizer.vocabulary import merges_from_ranks


@pytest.fixture(scope="module", params=["merges", "ranks"])
def table(request, tokenizer):
    """The merges as trained, and as tiktoken has them: every way to cut a token, all of one rank."""
    vocabulary = tokenizer.vocabulary
    ranks, made = rank_table(vocabulary.merges if request.param == "merges" else merges_from_ranks(vocabulary.tokens))
    arrays = PairRanks(in_order(ranks, made, range(256), vocabulary.tokens), made)
    return ranks, made, arrays


def some_words(letters: str, count: int, longest: int) -> list[list[int]]:
    rng = random.Random(7)
    return [list("".join(rng.choices(letters, k=rng.randint(1, longest))).encode()) for _ in range(count)]


@pytest.mark.parametrize("letters", ["a", " e", "etaoins ", "\n    =#-", "abcdefghijklmnopqrstuvwxyzé"])
def test_words_side_by_side_are_merged_as_one_by_one(table, letters):
    """Runs of one letter too, where pairs share tokens: the first, third ... of them merge."""
    ranks, made, arrays = table
    words = some_words(letters, 300, 30)
    tokens, lengths = merge_words(np.concatenate(words), np.array([len(word) for word in words]), arrays)
    flat = iter(tokens.tolist())
    assert [[next(flat) for _ in range(n)] for n in lengths] == [merge_short(word, ranks, made) for word in words]


@pytest.mark.parametrize("letters", ["a", " e", "etaoins ", "\n    =#-", "abcdefghijklmnopqrstuvwxyzé"])
def test_long_words_are_merged_as_short_ones(table, letters):
    """All of one rank at once, everywhere; never across the place between two words."""
    ranks, made, arrays = table
    words = some_words(letters, 40, 300)
    tokens = merge_long(np.concatenate([[*word, -1] for word in words]), arrays)
    assert tokens[tokens >= 0].tolist() == [token for word in words for token in merge_short(word, ranks, made)]


def test_no_merges_and_no_words_are_no_special_case():
    """A vocabulary of plain bytes has nothing to merge."""
    ranks = PairRanks({}, [])
    assert ranks.find(np.array([1]), np.array([2])).tolist() == [2**31 - 1]
    tokens, lengths = merge_words(np.zeros(0, np.int32), np.zeros(0, np.int64), ranks)
    assert len(tokens) == len(lengths) == 0


def orderly(*merges: tuple[int, int, int]):
    """`in_order` of a vocabulary of these merges."""
    tokens = {byte: bytes([byte]) for byte in range(256)}
    for _ in merges:  # whichever of them may come first
        tokens |= {new: tokens[left] + tokens[right] for left, right, new in merges if {left, right} <= tokens.keys()}
    return in_order(*rank_table(merges), range(256), tokens)


def test_merges_out_of_order_are_noticed():
    """A list by hand may make a token after using it: then lowest first, everywhere at once, would be wrong."""
    assert orderly((97, 98, 256), (256, 99, 257)) == {(97, 98): 0, (256, 99): 1}
    assert orderly((256, 99, 257), (97, 98, 256)) is None                   # never made of what comes before
    assert orderly((97, 98, 256), (256, 99, 257), (97, 98, 256)) is None    # made twice, a rank apart


def test_pairs_that_never_meet_are_left_out():
    """Four blanks are two and two; three and one make four as well, but three come later than four."""
    merges = [(32, 32, 256), (256, 256, 257), (258, 32, 257), (32, 258, 257), (256, 32, 258), (32, 256, 258)]
    assert orderly(*merges) == {(32, 32): 0, (256, 256): 1, (256, 32): 2, (32, 256): 2}
