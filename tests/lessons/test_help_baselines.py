"""Two scores that need no model."""

import pytest

from minigpt.lessons.exchange import Lesson, check_for
from minigpt.lessons.help_baselines import Baselines, baselines


def asked(question: str, answer: str) -> Lesson:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "kind": "home", "key": question, "check": check_for(answer, [answer.split()[-1]])}


def test_the_prior_says_one_thing_and_the_neighbour_what_rare_words_say():
    """Worked by hand: "No" is the commonest answer and right once in two; the rare word finds both neighbours."""
    train = [asked("Where is sin?", "in math"), asked("Where is dumps?", "in json"), asked("Where is it?", "in none"),
             asked("What is it?", "in none")]  # fmt: skip
    test = [asked("Who has sin?", "in math"), asked("What about it?", "in none")]
    assert baselines(train, test) == Baselines(prior=0.5, nearest=1.0)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="0 to learn from, 1 to answer"):
        baselines([], [asked("a", "b")])


def test_one_rare_word_outweighs_five_that_stand_everywhere():
    """Counting words alike, the way of asking would decide, and not the name that is asked for."""
    train = [asked("Where is the way to it?", "in none")] * 4 + [asked("sin?", "in math")]
    assert baselines(train, [asked("Where is the way to sin?", "in math")]) == Baselines(prior=0.0, nearest=1.0)
