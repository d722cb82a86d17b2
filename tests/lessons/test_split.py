"""Which side a problem is on, and what a side may see."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.lessons.split import HELD, TEST_SHARE, Hand, draw, is_test, pieces_of
from minigpt.lessons.words import DIGITS, LETTERS, NAMES, SIZES, THINGS


def test_a_draw_is_the_same_on_every_machine():
    """Written down here: another number would move problems from test to train under everybody's feet."""
    assert [draw("a"), draw("a", "b"), draw("seed", 7)] == GOLDEN
    assert all(0 <= draw(number) < 1 for number in range(1000))


GOLDEN = [0.4825337957378396, 0.19923828663621956, 0.21012370784641032]


def test_parts_of_a_draw_do_not_run_together():
    """("ab", "c") and ("a", "bc") are different questions."""
    assert draw("ab", "c") != draw("a", "bc")


def test_the_split_takes_its_share():
    """10,000 fair draws stay within four standard deviations of TEST_SHARE."""
    held_out = sum(is_test(str(number)) for number in range(10_000))
    assert abs(held_out - 10_000 * TEST_SHARE) < 4 * (10_000 * TEST_SHARE * (1 - TEST_SHARE)) ** 0.5


@pytest.mark.parametrize("pieces", [NAMES, THINGS, LETTERS, DIGITS, SIZES])
def test_pieces_are_either_trained_or_held_out(pieces):
    """And never none: a family without a held-out piece would have no compositional problems."""
    trained, held = (pieces_of("family", pieces, held_out=held) for held in (False, True))
    assert sorted(trained + held) == sorted(pieces)
    assert len(held) == max(1, len(pieces) // HELD)


def test_each_family_holds_out_other_pieces():
    """So that every word is trained somewhere: what was never seen at all could not even be copied."""
    assert pieces_of("one hop", NAMES, held_out=True) != pieces_of("two hops", NAMES, held_out=True)


@given(st.integers(0, 2**53), st.integers(2, 12), st.sampled_from([DIGITS, LETTERS]))
def test_held_out_neighbours_stand_in_compositional_problems_alone(seed, n, alphabet):
    """Trained strings have none; compositional ones have at least one, however short."""

    def news(side):
        string = Hand("copy", side, seed).string(alphabet, n)
        assert len(string) == n
        return sum(b in pieces_of("copy", alphabet, a, held_out=True) for a, b in pairwise(string))

    assert news("train") == news("test") == news("longer") == 0
    assert news("compositional") >= 1


def test_every_opening_and_every_question_is_trained_but_not_every_pair():
    """A compositional wording is a new pair of known parts: words never seen could not be understood."""
    openings, asks = ("A ", "B ", "C "), ("x", "y", "z")
    said = {
        side: {Hand("copy", side, seed).wording(openings, asks) for seed in range(200)}
        for side in ("train", "compositional")
    }
    assert said["compositional"] == {"A y", "B z", "C x"}
    assert len(said["train"]) == 6 and not said["train"] & said["compositional"]


@given(st.integers(0, 2**53), st.integers(0, 20))
def test_some_are_different_and_from_the_list(seed, n):
    """Two facts about one name would contradict each other."""
    drawn = Hand("copy", "train", seed).some(range(20), n)
    assert len(set(drawn)) == n and set(drawn) <= set(range(20))


def test_every_order_comes_equally_often():
    """A shuffle that prefers an order tells the model where to look."""
    orders = [tuple(Hand("copy", "train", seed).shuffled("abc")) for seed in range(3000)]
    assert len(set(orders)) == 6
    assert all(abs(orders.count(order) - 500) < 4 * 500**0.5 for order in set(orders))
