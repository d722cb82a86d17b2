"""Questions about Python: every fact in many wordings, none of which leaks across the split."""

import pytest

from minigpt.lessons import python_help
from minigpt.lessons.exchange import is_right, side_of, words_of
from minigpt.lessons.library_facts import Entry
from minigpt.lessons.preferences import bare_question
from minigpt.lessons.wordings import NEVER_TRAINED, TRAINED


def test_no_combination_of_fact_and_wording_is_on_two_sides():
    """The promise of the test side: this fact was never asked for in these words."""
    asked = {side: {bare_question(turn.question) for turn in python_help.exchanges(side)}
             for side in ("train", "test", "templates")}  # fmt: skip
    assert not asked["train"] & asked["test"]
    assert not asked["train"] & asked["templates"]
    assert not asked["test"] & asked["templates"]


def test_every_fact_of_the_test_side_is_trained_in_other_words():
    """Nobody can know what he was never told: a fact held out whole would measure nothing."""
    trained = {turn.key.rpartition("|")[0] for turn in python_help.exchanges("train")}
    assert {turn.key.rpartition("|")[0] for turn in python_help.exchanges("test")} <= trained


def test_new_wordings_are_new():
    """The side `templates` asks whether a way of asking is understood that was never trained."""
    assert TRAINED.keys() == NEVER_TRAINED.keys()
    for kind, wordings in TRAINED.items():
        assert not set(wordings) & set(NEVER_TRAINED[kind])
        assert len(set(wordings)) == len(wordings)


def test_a_question_has_one_answer():
    """Two names with one description, or one name in two modules, would make right answers wrong by chance."""
    answers: dict[str, str] = {}
    for turn in python_help.exchanges("train"):
        assert answers.setdefault(turn.question, turn.answer) == turn.answer, turn


def test_the_judge_accepts_each_answer_and_refuses_those_to_other_names():
    """Checked against the answers of 7 neighbours of the same kind, of which next to none may pass."""
    facts: dict[str, list[python_help.Fact]] = {}
    for fact in python_help.facts():
        assert is_right(fact.check, fact.answer), fact
        assert len(fact.check["words"]) > 1 or fact.kind in ("home", "find", "parameters"), fact
        facts.setdefault(fact.kind, []).append(fact)
    for kind, same in facts.items():
        passed = [
            is_right(fact.check, other.answer)
            for place, fact in enumerate(same)
            for other in (same[(place + step) % len(same)] for step in (1, 2, 3, 10, 30, 60, 90))
            if other.answer.split()[-1] != fact.answer.split()[-1]
        ]
        assert sum(passed) <= 0.001 * len(passed), kind


def test_answers_are_short():
    """At most 60 words: a small model learns to say one thing and to stop."""
    assert max(len(fact.answer.split()) for fact in python_help.facts()) <= 60


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("Recursively delete a tree.", "recursively delete a tree"),
        ("Return the size of a file.", "get the size of a file"),
        ("Return True if it is a file.", ""),
        ("Beta distribution.", ""),
    ],
)
def test_only_sentences_that_tell_what_to_do_become_requests(sentence, wanted):
    """ "How do I beta distribution?" is what nobody asks."""
    assert python_help.request(Entry("m.f", "m", "function", sentence, ())) == wanted


def test_second_turns_lean_on_the_first():
    """A follow-up about "it" needs the name before it; a correction needs another name than the one asked for."""
    for item in python_help.conversations("test", 0):
        if item["kind"] in ("follow-up", "correction"):
            first, answer, second, last = [turn["content"] for turn in item["messages"]]
            name = item["key"].split("|")[1]
            if item["kind"] == "follow-up":
                assert name in first and name not in words_of(second)
            else:
                assert name in second and not answer.startswith(f"{name}:")
            assert name.rpartition(".")[2] in last


@pytest.mark.parametrize("side", ["train", "test"])
def test_the_side_of_every_conversation_is_that_of_its_key(side):
    """The last question decides; the turns before it are of the same side (see test_conversations)."""
    assert all(side_of(item["key"]) == side for item in python_help.conversations(side, 3))


def test_the_seed_decides_what_comes_first_and_how_it_is_decorated():
    """One seed, one file; another seed greets elsewhere and remembers another mistake before a correction."""
    first, again, other = (list(python_help.conversations("test", seed)) for seed in (0, 0, 1))
    assert first == again
    assert {item["key"] for item in first} == {item["key"] for item in other}
    assert sorted(str(item) for item in first) != sorted(str(item) for item in other)
