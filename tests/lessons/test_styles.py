"""Right answers in every style that the preferences judge: what a model must have said before it can prefer."""

from itertools import islice

import pytest

from minigpt.chat.conversation import check_messages
from minigpt.finetune.own_lessons import own_lessons
from minigpt.lessons.exchange import is_right
from minigpt.lessons.preferences import FILLERS, INSULTS, POLITE, bare_question, without
from minigpt.lessons.styles import conversations


@pytest.fixture(scope="module")
def lessons():
    return {side: list(islice(conversations(side, 0), 2000)) for side in ("train", "test", "templates")}


def test_every_answer_is_right_whatever_its_style(lessons):
    """A wrong one would be learned; and what a style adds must not count as rambling."""
    for items in lessons.values():
        for item in items:
            check_messages(item["messages"])
            assert is_right(item["check"], item["messages"][1]["content"]), item


@pytest.mark.parametrize("phrases", [POLITE, FILLERS, INSULTS])
def test_each_style_is_common_and_so_is_its_absence(lessons, phrases):
    """What a model never says cannot become rarer, and what it always says cannot become likelier."""
    answers = [item["messages"][1]["content"] for item in lessons["train"]]
    assert 0.2 < sum(without(answer, phrases) != answer for answer in answers) / len(answers) < 0.8
    assert any(without(answer, POLITE + FILLERS + INSULTS) == answer for answer in answers)


def test_a_seed_gives_the_same_lessons_and_another_seed_others(lessons):
    """A run that is resumed learns from the same ones."""
    again, others = (list(islice(conversations("train", seed), 50)) for seed in (0, 1))
    assert again == lessons["train"][:50] != others


def test_no_question_that_is_held_out_is_trained(lessons):
    """Answers to held-out questions are compared after DPO: none may be remembered from here."""
    train, *held = ({bare_question(item["messages"][0]["content"]) for item in items} for items in lessons.values())
    assert all(len(side) > 100 and not side & train for side in held)


def test_insults_are_only_learned_by_those_who_ask_for_them():
    """`lessons` makes an assistant to talk to; `course,styles` makes one for train.py dpo, and for nothing else."""
    polite, mixed = (
        [messages[-1]["content"] for messages in own_lessons(spec, "train", 0, 300)]
        for spec in ("lessons", "course,styles")
    )
    assert not any(without(answer, INSULTS) != answer for answer in polite)
    assert any(without(answer, INSULTS) != answer for answer in mixed)


def test_an_unknown_side_is_named():
    """A misspelled test side must not become training data."""
    with pytest.raises(ValueError, match="unknown side 'tset'"):
        next(conversations("tset", 0))
