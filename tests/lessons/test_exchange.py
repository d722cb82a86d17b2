"""What makes an answer right, and which side a question is on."""

from random import Random

import pytest

from minigpt.lessons.exchange import HELD_OUT, as_people_type, check_for, is_right, side_of

GOLD = "shutil.rmtree: Recursively delete a directory tree."
CHECK = check_for(GOLD, ["shutil.rmtree"], "Recursively delete a directory tree.", slack=8)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (GOLD, True),
        ("With shutil.rmtree you recursively delete a whole directory tree!", True),
        ("shutil.rmtree: Recursively delete a tree.", True),
        ("shutil.rmtree: Delete a tree.", False),
        ("shutil.move: Recursively delete a directory tree.", False),
        ("rmtree: Recursively delete a directory tree.", False),
        (GOLD + " I am sorry, I can only help with Python.", False),
        ("I am sorry, I can only help with Python.", False),
        (GOLD + " and" * 30, False),
        ("", False),
    ],
)
def test_the_judge_wants_the_name_and_most_key_words_and_no_rambling(answer, right):
    """Too strict, and a good answer in other words fails; too lax, and a list of all words passes."""
    assert is_right(CHECK, answer) is right


def test_a_module_among_others_is_no_answer():
    """Who names every module has named the right one too."""
    check = check_for("rmtree is in shutil.", ["shutil"])
    assert is_right(check, "rmtree is in shutil.")
    assert not is_right(check, "rmtree is in shutil, os, json, re.")
    assert not is_right(check, "rmtree is in shutil2.")


def test_what_must_be_refused_is_not_answered():
    """A refusal is judged by refusing, whatever else it says kindly."""
    check = check_for("I am sorry, I can only help with Python.", [])
    assert is_right(check, "Sorry, I can only help with Python.")
    assert not is_right(check, "It will rain in Paris.")


def test_one_in_ten_combinations_is_held_out():
    """The split is a hash of the key alone: the same in every process and on every machine."""
    keys = [f"meaning|name{number}|3" for number in range(5000)]
    held = sum(side_of(key) == "test" for key in keys) / len(keys)
    assert abs(held - HELD_OUT) < 0.02
    assert [side_of(key) for key in keys[:100]] == [side_of(key) for key in keys[:100]]


def test_decoration_leaves_the_name_as_it_is_spelled():
    """Names of Python tell small letters from large ones."""
    rng = Random(0)
    seen = {as_people_type(question, rng) for question in ("What is Path?", "Path?") for _ in range(400)}
    assert all("Path" in question for question in seen)
    assert {"what is Path", "Path?", "Hello! What is Path?", "What is Path? Thanks!"} <= seen
