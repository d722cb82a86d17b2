"""Numbers for words, against a dict."""

import random

import numpy as np
import pytest

from minigpt.tokenizer import word_index
from minigpt.tokenizer.word_index import PADDING, WordIndex, Words

LENGTHS = [1, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40]  # around the ends of one, two and four machine words


def words_of(spelled: list[bytes]) -> Words:
    lengths = np.array([len(word) for word in spelled], np.int64)
    data = b"".join(spelled) + b"\xff" * PADDING  # whoever reads too far must not find zeros
    return Words(data, lengths.cumsum() - lengths, lengths)


@pytest.mark.parametrize("small", [False, True])
def test_words_are_numbered_as_by_a_dict(monkeypatch, small):
    """In the order in which they first come; also where every word collides with others, and while tables grow."""
    if small:
        monkeypatch.setattr(word_index, "MIX", np.ones(4, np.uint64))  # no mixing: the hash of short words is 0
    rng, index, numbers = random.Random(1), WordIndex(longest=40), {}
    for _ in range(40 if small else 150):
        count = rng.randint(0, 100 if small else 900)
        spelled = [bytes(rng.choices(b"ab\0", k=rng.choice(LENGTHS))) for _ in range(count)]
        expected, new = [], []
        for place, word in enumerate(spelled):
            if word not in numbers:
                numbers[word] = len(numbers)
                new.append(place)
            expected.append(numbers[word])
        got, got_new = index.number(words_of(spelled))
        assert got.tolist() == expected and got_new.tolist() == new
    assert index.count == len(numbers) > (500 if small else 20_000)


def test_a_prefix_and_its_zeros_are_different_words():
    """Eight bytes hold "a" and "a\\0" alike: the length tells them apart."""
    numbers, _ = WordIndex().number(words_of([b"a", b"a\0", b"a\0\0\0\0\0\0\0", b"a" + bytes(15), b"a"]))
    assert numbers.tolist() == [0, 1, 2, 3, 0]


def test_words_that_are_too_long_are_forgotten():
    """A megabyte without a space must not stay in memory."""
    index = WordIndex(longest=40)
    for expected in (0, 1):
        numbers, new = index.number(words_of([b"x" * 41]))
        assert numbers.tolist() == [expected] and new.tolist() == [0]
    assert not index.tables[-1].slot_of
