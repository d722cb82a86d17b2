"""Small talk and refusals: short, friendly, and about the right things."""

import pytest

from minigpt.lessons import python_help, small_talk
from minigpt.lessons.exchange import is_right, refuses
from minigpt.lessons.outside import DOMAINS, NEVER_TRAINED_DOMAINS
from minigpt.lessons.preferences import bare_question


def test_only_questions_outside_are_refused():
    """A model that refuses everything would pass every test of refusing."""
    assert all(refuses(turn.answer) == (turn.kind == "refusal") for turn in small_talk.exchanges("train"))
    assert not any(refuses(fact.answer) for fact in python_help.facts())


@pytest.mark.parametrize("side", ["train", "test", "templates"])
def test_the_judge_accepts_every_answer_and_none_of_another_kind(side):
    """ "You are welcome" is no answer to "Who are you?"."""
    answers = {turn.kind: turn.answer for turn in small_talk.exchanges(side)}
    for turn in small_talk.exchanges(side):
        assert turn.question.strip() and is_right(turn.check, turn.answer), turn
        others = [kind for kind, answer in answers.items() if kind != turn.kind and is_right(turn.check, answer)]
        assert set(others) <= {"origin", "not human"}, turn  # who says "I am minigpt" has said who it is


def test_no_question_is_on_two_sides():
    """Marks and capitals make no new problem of an old one."""
    all_sides = map(small_talk.exchanges, ("train", "test", "templates"))
    sides = [{bare_question(turn.question) for turn in turns} for turns in all_sides]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_new_subjects_and_one_new_domain_are_never_trained():
    """Refusing must not hang on a list of words that were seen."""
    for domain in DOMAINS.values():
        assert not set(domain.wordings) & set(domain.new[0])
        assert not set(domain.subjects) & set(domain.new[1])
    trained = " ".join(turn.question for turn in small_talk.exchanges("train"))
    assert not any(subject in trained for domain in NEVER_TRAINED_DOMAINS.values() for subject in domain.new[1])


def test_refused_questions_begin_like_questions_about_python():
    """Otherwise the first two words would decide, and "What is the flu?" would be looked up in the library."""
    openings = {" ".join(turn.question.split()[:2]) for turn in python_help.exchanges("train")}
    questions = [turn.question for turn in small_talk.refused("train")]
    shared = sum(" ".join(question.split()[:2]) in openings for question in questions)
    assert shared > 0.4 * len(questions)
