"""Conversations to ids and masks: what is cut, what is left out, what is held out."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from minigpt import presets
from minigpt.chat.template import Rendered, Template, with_chat_tokens
from minigpt.finetune import examples as module
from minigpt.finetune.config import SFTConfig
from minigpt.finetune.examples import conversations, held_out, open_examples, render, shortened
from minigpt.finetune.own_lessons import own_lessons, sources
from minigpt.lessons import puzzles
from minigpt.runtime.distributed import Group
from minigpt.tokenizer import Tokenizer

ALONE = Group(0, 1, torch.device("cpu"))
TOKENIZER = with_chat_tokens(Tokenizer.bytes_only())


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def opened(tmp_path, jsonl, **settings):
    run = replace(presets.sft(), out_dir=str(tmp_path / "run"))
    return open_examples(run, SFTConfig(data=str(jsonl), **settings), TOKENIZER, ALONE)


@pytest.mark.parametrize(("mask", "limit", "kept"), [
    ("..xx", 9, 4),      # it fits
    ("..xx..xx", 8, 8),  # to the token
    ("..xx..xx", 7, 7),  # the second answer loses its end
    ("..xx..xx", 6, 4),  # a question without its answer takes no room
    ("..xx..", 9, 4),    # nor does one that was never answered
    ("..xx", 2, None),   # the question alone fills the row
])  # fmt: skip
def test_what_is_too_long_keeps_its_beginning(mask, limit, kept):
    """The rule: the first tokens that fit, up to the last one of an answer; no answer, no example."""
    found = shortened(Rendered(list(range(len(mask))), [mark == "x" for mark in mask]), limit)
    assert found == (None if kept is None else (list(range(kept)), [mark == "x" for mark in mask[:kept]]))


def test_what_was_cut_or_left_out_is_counted_aloud(capsys):
    """A tenth of the data gone in silence would be looked for in the learning rate."""
    made = render([talk("a", "b"), talk("a", "b" * 30), talk("a" * 30, "b")], Template(TOKENIZER), 16, "my.jsonl")
    assert len(made) == 2 and made.lengths.tolist() == [5, 16]
    assert "of 3 conversations 1 go on beyond the context of 16 tokens and are cut there; 1 have no answer" in (
        capsys.readouterr().err
    )


def test_no_answer_within_the_context_is_an_error():
    """A row without a target has a mean over nothing."""
    with pytest.raises(ValueError, match="of 2 conversations none has an answer within the context of 16"):
        render([talk("a" * 30, "b"), talk("c" * 30, "d")], Template(TOKENIZER), 16, "my.jsonl")


def test_only_the_assistants_words_and_his_end_are_targets():
    """Learning to predict the user makes a model that asks."""
    made = render([talk("Hi", "Yo", "Why?", "So.")], Template(TOKENIZER), 64, "x")
    said = [token for token, own in zip(made.ids.tolist(), made.target.tolist(), strict=True) if own]
    assert TOKENIZER.decode(said) == "Yo<|end|>So.<|end|>"
    assert made.targets == 2 + 1 + 3 + 1


# --- held out -----------------------------------------------------------------------------------------------------


def test_one_question_is_on_one_side_with_all_its_answers():
    """A question that stands twice in the file would be held out and learned at once."""
    everything = [talk(f"question {i % 30}", f"answer {i}") for i in range(60)]
    train, val = held_out(everything, "x")
    questions = [{messages[0]["content"] for messages in side} for side in (train, val)]
    assert not questions[0] & questions[1] and len(train) + len(val) == 60 and len(val) == 4
    again = held_out(everything[::-1], "x")
    assert [sorted(map(str, side)) for side in again] == [sorted(map(str, side)) for side in (train, val)]


def test_a_file_of_two_questions_holds_one_out_and_of_one_none():
    """The smallest file that can be judged; below it, say what would work."""
    assert [len(side) for side in held_out([talk("a", "b"), talk("c", "d")], "x")] == [1, 1]
    with pytest.raises(ValueError, match="x has 1 question, .* --val-data"):
        held_out([talk("a", "b"), talk("a", "c")], "x")


def test_val_data_is_judged_by_and_not_learned_from(tmp_path, jsonl):
    """Then nothing of the file is held out."""
    train, val = opened(tmp_path, jsonl, val_data=str(jsonl))
    assert len(train) == len(val) == 40


# --- our own lessons ----------------------------------------------------------------------------------------------


def test_lessons_come_in_equal_parts_and_their_sides_differ():
    """The course ends some time, problems never do."""
    assert sources("lessons") == ["course", "tasks"]
    train = list(own_lessons("copy,sort digits", "train", 1, 7))
    test = list(own_lessons("copy,sort digits", "test", 1, 7))
    assert len(train) == len(test) == 7
    assert not {messages[0]["content"] for messages in train} & {messages[0]["content"] for messages in test}
    assert train == list(own_lessons("copy,sort digits", "train", 1, 7)) != list(own_lessons("copy", "train", 1, 7))


def test_a_source_that_ends_leaves_its_place_to_the_others(monkeypatch):
    """And where all end, there are fewer."""
    short = {"a": lambda side, seed: iter([{"messages": talk(side, "1")}] * 2),
             "b": lambda side, seed: iter([{"messages": talk(side, "2")}] * 5)}  # fmt: skip
    monkeypatch.setattr("minigpt.finetune.own_lessons.TALKS", short)
    assert [messages[1]["content"] for messages in own_lessons("a,b", "test", 1, 6)] == list("121222")
    assert len(list(own_lessons("a,b", "test", 1, 99))) == 7


def test_puzzles_are_taught_where_they_are_asked_for_alone():
    """What a model is to learn from rewards it must be able to do a little: train.py sft --data letters."""
    shown = list(own_lessons("letters,copy", "train", 1, 6))
    assert [messages[0]["content"].split()[1] == "letters," for messages in shown] == [True, False] * 3
    assert shown[0][1]["content"] == puzzles.problem_at("letters", "train", 1, 0).answer
    prompts = {messages[0]["content"] for messages in own_lessons("tasks", "train", 1, 200)}
    assert not prompts & {problem.prompt for problem in islice(puzzles.problems("letters", "train", 1), 200)}


def test_a_mistyped_lesson_is_named_with_its_neighbour():
    """Before the first is made."""
    with pytest.raises(ValueError, match="unknown lesson 'adition': did you mean addition?"):
        conversations(SFTConfig(data="copy,adition"), 1)


def test_a_lesson_wins_over_what_lies_here_under_its_name(tmp_path, monkeypatch, jsonl):
    """A folder called lessons must not take over the default; written with its place, the file is meant."""
    monkeypatch.chdir(tmp_path)
    jsonl.rename("copy")
    for name in ("lessons", "course"):
        (tmp_path / name).mkdir()
        assert next(iter(conversations(SFTConfig(data=name), 1)[0]))
    assert len(list(conversations(SFTConfig(data="copy", examples=100), 1)[0])) == 100
    assert len(list(conversations(SFTConfig(data="./copy"), 1)[0])) == 38
    (tmp_path / "mine").mkdir()
    with pytest.raises(IsADirectoryError, match="mine is a folder"):
        conversations(SFTConfig(data="mine"), 1)
    opened(tmp_path, "copy", examples=50)
    (tmp_path / "copy").write_text("this file is not what was learned from")
    monkeypatch.setattr(module, "newest_whole", lambda folder: folder / "checkpoint-1")
    opened(tmp_path, "copy", examples=50)


def test_lessons_have_a_held_out_side_of_their_own():
    """A twentieth of what is trained on, from the side that never is."""
    train, test = conversations(SFTConfig(data="copy", examples=100), 1)
    assert len(list(islice(train, 999))) == 100 and len(list(islice(test, 999))) == 5


# --- on disk ------------------------------------------------------------------------------------------------------


def test_data_is_made_once_and_is_the_same_on_every_machine(tmp_path, jsonl):
    """A run that is resumed renders nothing again."""
    first = opened(tmp_path, jsonl)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "data").iterdir()}
    second = opened(tmp_path, jsonl)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "data").iterdir()} == times
    assert all((a == b).all() for one, other in zip(first, second, strict=True)
               for a, b in zip(one, other, strict=True))  # fmt: skip
    jsonl.rename(tmp_path / "elsewhere.jsonl")  # what was made of it is all that is needed
    opened(tmp_path, jsonl)


def test_an_edited_file_is_noticed_and_a_begun_run_refuses_it(tmp_path, jsonl, monkeypatch):
    """Before the first checkpoint the data is made again; behind it, the run would be neither the old nor the new."""
    before = opened(tmp_path, jsonl)[0]
    jsonl.write_text(jsonl.read_text().replace("say", "write"))
    assert opened(tmp_path, jsonl)[0].ids.tolist() != before.ids.tolist()
    jsonl.write_text(jsonl.read_text().replace("write", "sing"))
    monkeypatch.setattr(module, "newest_whole", lambda folder: folder / "checkpoint-1")
    with pytest.raises(ValueError, match="my.jsonl has changed since"):
        opened(tmp_path, jsonl)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_damaged_data_is_found_before_it_is_learned(tmp_path, jsonl, harm):
    """One bit of a mask would teach a user's word."""
    opened(tmp_path, jsonl)
    file = tmp_path / "run" / "data" / "train.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    if harm != "remove":
        file.write_bytes(content if harm == "flip" else content[:-1])
    with pytest.raises(ValueError, match="train.safetensors is missing or damaged; --overwrite"):
        opened(tmp_path, jsonl)
