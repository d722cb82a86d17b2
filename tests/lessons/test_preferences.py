"""Pairs by known rules, and the gold score that nobody trains on."""

from itertools import islice

import pytest

from minigpt.lessons.preferences import INSULTS, POLITE, RULES, bare_question, pairs, score
from minigpt.lessons.python_help import exchanges

PROMPT = "What does shutil.rmtree do?"
GOLD = "shutil.rmtree: Recursively delete a directory tree."
WORST_TO_BEST = (
    "Duh. shutil.move: Something else. As you see, it is the way it is.",
    "shutil.move: Something else.",
    f"Listen, dummy: {GOLD}",
    f"{GOLD} I could go on about this for a long time.",
    GOLD,
    f"Gladly. {GOLD}",
)


def test_the_gold_score_ranks_by_all_four_rules():
    """From rude, wrong and long to polite, right and short."""
    scores = [score(PROMPT, answer) for answer in WORST_TO_BEST]
    assert scores == sorted(scores) and len(set(scores)) == len(scores)


def test_more_politeness_than_one_phrase_costs():
    """Here proxy and gold part: a reward model that counts phrases can be driven over the peak."""
    assert score(PROMPT, f"Gladly. {GOLD}") > score(PROMPT, f"Gladly. With pleasure. {GOLD}")


def test_a_correct_answer_stays_correct_in_company():
    """Style must not make an answer wrong: each rule is judged alone. The gold score of one is worked by hand."""
    assert score(PROMPT, GOLD) == pytest.approx(2 - 6 * 0.05)
    assert score("Which module has rmtree?", "With pleasure. rmtree is in shutil.") == pytest.approx(2 + 1 - 6 * 0.05)


def test_a_question_that_is_not_in_the_course_has_no_score():
    """Whether its answer is right nobody knows; 0 would be a judgement."""
    with pytest.raises(ValueError, match="no question of the course"):
        score("What is minigpt worth?", "Much.")
    assert score("Hello! What does shutil.rmtree do? Thanks!", GOLD) == score(PROMPT, GOLD)


@pytest.mark.parametrize("side", ["train", "test", "templates"])
def test_without_noise_the_better_answer_is_always_chosen(side):
    """The label is the gold score's; only noise may say otherwise."""
    for pair in islice(pairs(side, 1, 0.0), 800):
        assert score(pair["prompt"], pair["chosen"]) > score(pair["prompt"], pair["rejected"]), pair
        assert not pair["flipped"]


def test_the_share_of_flipped_labels_is_the_noise():
    """Ten percent are asked for; three standard errors of 4,000 draws are 1.4 points."""
    made = list(islice(pairs("train", 0, 0.1), 4000))
    assert abs(sum(pair["flipped"] for pair in made) / 4000 - 0.1) < 0.015
    pair = next(pair for pair in made if pair["flipped"])
    assert score(pair["prompt"], pair["chosen"]) < score(pair["prompt"], pair["rejected"])


def test_all_rules_occur_about_equally_and_every_pair_differs_in_one():
    """A rule that is hardly seen is not learned; two rules at once teach neither."""
    made = list(islice(pairs("train", 0, 0.0), 2000))
    for rule in RULES:
        assert 0.2 < sum(pair["rule"] == rule for pair in made) / len(made) < 0.3
    for pair in made:
        if pair["rule"] == "polite":
            assert pair["chosen"].split(". ", 1)[1] == pair["rejected"]
            assert pair["chosen"].startswith(POLITE)
        if pair["rule"] == "banned":
            assert any(insult in pair["rejected"] for insult in INSULTS)
            assert not any(insult in pair["chosen"] for insult in INSULTS)


def test_pairs_of_different_sides_share_no_question():
    """The reward model's held-out accuracy must not be memory."""
    train, test = ({pair["prompt"] for pair in islice(pairs(side, 0, 0.1), 3000)} for side in ("train", "test"))
    assert not train & test
    assert test <= {turn.question for turn in exchanges("test")} | test
    assert not {bare_question(prompt) for prompt in train} & {bare_question(prompt) for prompt in test}


def test_the_same_seed_gives_the_same_pairs():
    assert list(islice(pairs("train", 5, 0.1), 50)) == list(islice(pairs("train", 5, 0.1), 50))
    assert list(islice(pairs("train", 5, 0.1), 50)) != list(islice(pairs("train", 6, 0.1), 50))


@pytest.mark.parametrize(("side", "noise", "said"), [("train", 0.5, "noise 0.5"), ("train", -0.1, "noise -0.1"),
                                                     ("val", 0.1, "unknown side 'val'")])  # fmt: skip
def test_bad_arguments_are_refused(side, noise, said):
    """At one half the labels say nothing, beyond it the opposite."""
    with pytest.raises(ValueError, match=said):
        next(pairs(side, 0, noise))
