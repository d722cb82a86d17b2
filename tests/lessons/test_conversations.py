"""The whole course as a file: large enough, without overlap, in the form that everybody reads."""

import json
from itertools import islice

import pytest

from minigpt.chat.conversation import check_messages, read_conversations
from minigpt.lessons import python_help, small_talk
from minigpt.lessons.conversations import conversations, main
from minigpt.lessons.exchange import is_right
from minigpt.lessons.preferences import bare_question
from minigpt.runtime.whole import write_json_lines


@pytest.fixture(scope="module")
def course():
    return {side: list(conversations(side, 0)) for side in ("train", "test", "templates")}


def test_there_are_at_least_twenty_thousand_different_conversations(course):
    """Fewer would be learned by heart, wording for wording."""
    assert len({json.dumps(item["messages"]) for item in course["train"]}) == len(course["train"]) >= 20_000
    assert len(course["test"]) >= 2_000 and len(course["templates"]) >= 2_000


def test_no_question_that_is_held_out_is_trained_in_any_turn(course):
    """Also the first turn of a conversation is trained on; a test question must not hide there."""
    held = {bare_question(turn.question) for source in (python_help, small_talk) for turn in source.exchanges("test")}
    asked = {bare_question(turn["content"]) for item in course["train"] for turn in item["messages"][::2]}
    assert not held & asked
    keys = [{item["key"] for item in course[side]} for side in course]
    assert not keys[0] & keys[1] and not keys[0] & keys[2]


def test_every_conversation_is_in_order_and_its_answer_right(course):
    """The gold answer that fails its own check would count a perfect model as wrong."""
    for items in course.values():
        for item in items:
            check_messages(item["messages"])
            assert is_right(item["check"], item["messages"][-1]["content"]), item


def test_every_kind_is_on_every_side(course):
    """A kind that is only trained or only tested says nothing."""
    kinds = [{item["kind"] for item in items} for items in course.values()]
    assert kinds[0] == kinds[1] == kinds[2]
    assert {"module", "meaning", "returns", "home", "find", "parameters", "correction", "follow-up", "refusal",
            "greeting", "identity"} <= kinds[0]  # fmt: skip


def test_the_seed_decides_order_and_decoration_but_not_the_side(course):
    """The same seed gives the same bytes; another one other conversations, but no other split."""
    again, other = list(conversations("test", 0)), list(conversations("test", 1))
    assert again == course["test"] != other
    assert {item["key"] for item in other} == {item["key"] for item in again}


def test_a_written_course_reads_back_and_carries_its_judge(course, tmp_path):
    """The file alone must do: for training, and for judging without the library that it was made from."""
    write_json_lines(tmp_path / "course.jsonl", course["test"][:50])
    assert list(read_conversations(tmp_path / "course.jsonl")) == [item["messages"] for item in course["test"][:50]]
    first = json.loads((tmp_path / "course.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert is_right(first["check"], first["messages"][-1]["content"])


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="unknown side 'val': choose one of train, test, templates"):
        next(conversations("val", 0))


def test_the_command_prints_counts_and_examples_and_writes(capsys, tmp_path):
    """Whoever trains on data should look at it first."""
    main(["--side", "test", "--count", "200", "--examples", "1", "--out", str(tmp_path / "out.jsonl")])
    printed = capsys.readouterr().out
    assert "200 conversations" in printed and "meaning: " in printed and "u: " in printed
    assert len(list(islice(read_conversations(tmp_path / "out.jsonl"), 300))) == 200
    with pytest.raises(ValueError, match="--count 0: at least 1"):
        main(["--count", "0"])
    with pytest.raises(ValueError, match="is a folder"):
        main(["--count", "2", "--out", str(tmp_path)])
    assert not capsys.readouterr().out, "what cannot be written is said before anything else"
