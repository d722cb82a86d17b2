"""Conversations: three forms of files, one form of messages, and errors that say where."""

import gzip
import json

import pytest
from chat.talkers import assistant, system, user

from minigpt.chat.conversation import check_messages, read_conversations

TALK = [system("Be kind."), user("Hi"), assistant("Hello."), user("Bye"), assistant("Farewell.")]


def written(tmp_path, *lines):
    """A file whose lines are these: text as it is, all else as JSON."""
    file = tmp_path / "talk.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    file.write_text(text + "\n", encoding="utf-8")
    return file


def test_three_forms_give_the_same_messages(tmp_path):
    """Whoever has data in one of them need not rewrite it; blank lines and other keys do no harm."""
    turns = [{"from": who, "value": message["content"]}
             for who, message in zip(("system", "human", "gpt", "user", "chatgpt"), TALK, strict=True)]  # fmt: skip
    file = written(tmp_path, {"messages": TALK, "kind": "small talk"}, "", {"id": 7, "conversations": turns},
                   {"instruction": "Turn it round", "input": "chat", "output": "tahc"},
                   {"instruction": "Hi", "input": "", "output": "Hello."},
                   {"instruction": "Hi", "output": "né"})  # fmt: skip
    assert list(read_conversations(file)) == [
        TALK, TALK, [user("Turn it round\n\nchat"), assistant("tahc")], [user("Hi"), assistant("Hello.")],
        [user("Hi"), assistant("né")],
    ]  # fmt: skip


def test_a_file_may_be_one_json_list(tmp_path):
    """As Alpaca and ShareGPT were published; and Windows puts a mark before the first byte."""
    file = tmp_path / "alpaca.json"
    rows = [{"instruction": "Hi", "output": "Hello."}, {"messages": TALK}]
    file.write_text(json.dumps(rows, indent=2), encoding="utf-8-sig")
    assert list(read_conversations(file)) == [[user("Hi"), assistant("Hello.")], TALK]
    file.write_text(json.dumps({"messages": TALK}), encoding="utf-8-sig")
    assert list(read_conversations(file)) == [TALK]


GOOD = {"messages": [user("Hi"), assistant("Hello.")]}


@pytest.mark.parametrize(("line", "message"), [
    ('{"messages": [', r"line 2 is not JSON: Expecting value at column 15"),
    ("[" * 100_000, "line 2 is no JSON that can be read"),
    ({"messages": [user("Hi"), {"role": "tool", "content": "4"}]}, "line 2: message 2: unknown role 'tool': choose"),
    ({"messages": [user("Hi"), {"role": ["user"], "content": "4"}]}, "line 2: message 2: unknown role"),
    ({"messages": [assistant("Hello.")]}, "line 2: message 1 is the assistant's where the user's is due"),
    ({"messages": [user("Hi"), user("Hi")]}, "line 2: message 2 is the user's where the assistant's is due"),
    ({"messages": [user("Hi"), assistant("1"), assistant("2")]}, "line 2: message 3 is the assistant's"),
    ({"messages": [user("Hi"), system("Be kind."), assistant("2")]}, "line 2: message 2 is the system's"),
    ({"messages": [system("a"), system("b"), user("c")]}, "line 2: message 2 is the system's where the user's is due"),
    ({"messages": [user("Hi"), assistant(" \n")]}, r"line 2: message 2 \(assistant\): the content is empty"),
    ({"messages": [user(None), assistant("x")]}, r"line 2: message 1 \(user\): the content must be text, not NoneType"),
    ({"messages": [user([{"text": "Hi"}]), assistant("x")]}, "the content must be text, not list"),
    ({"messages": [{"role": "user"}, assistant("x")]}, 'line 2: a message is .*not {"role": "user"}'),
    ({"messages": ["Hi", "Hello."]}, 'line 2: a message is .*not "Hi"'),
    ({"messages": []}, "line 2: a conversation without messages"),
    ({"messages": [system("Be kind."), user("Hi")]}, "line 2: the assistant says nothing"),
    ({"messages": "Hi"}, "line 2: expected .*found an object with 'messages'"),
    ({"conversations": [{"from": "bing", "value": "Hi"}]}, "line 2: ShareGPT's turns are from .*not from 'bing'"),
    ({"conversations": [{"from": [], "value": "Hi"}]}, "line 2: ShareGPT's turns are from"),
    ({"conversations": [user("Hi")]}, 'line 2: a message is {"from": '),
    ({"instruction": "Hi", "output": ""}, r"line 2: message 2 \(assistant\): the content is empty"),
    ({"prompt": "Hi", "answer": "Hello."}, "line 2: expected .*found an object with 'prompt', 'answer'"),
    ({}, "line 2: expected .*found an object with nothing"),
    ("[]", "line 2: expected .*found list"),
    ("7", "line 2: expected .*found int"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_file_and_line(tmp_path, line, message):
    """Somebody has a million lines of which one is bad: nothing else would find it."""
    file = written(tmp_path, GOOD, line)
    read = read_conversations(file)
    assert next(read) == GOOD["messages"]
    with pytest.raises(ValueError, match=message) as error:
        next(read)
    assert str(error.value).startswith(f"{file}, line 2")


def test_damage_in_a_json_list_is_found_by_line_and_a_bad_row_by_its_number(tmp_path):
    """A list has no lines of its own: rows are counted, while bad JSON still has a line."""
    file = tmp_path / "list.json"
    file.write_text(json.dumps([GOOD, {"messages": [user("Hi")]}]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.json, item 2: the assistant says nothing"):
        list(read_conversations(file))
    file.write_text("[\n{},\n{]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.json, line 3 is not JSON"):
        list(read_conversations(file))
    file.write_bytes(b'[\n{},\n{"messages": "\xff"}]\n')
    with pytest.raises(ValueError, match=r"list.json, line 3 is not UTF-8 text"):
        list(read_conversations(file))


def test_a_file_that_is_no_text_or_holds_nothing(tmp_path):
    """An empty file would train on nothing, silently."""
    file = tmp_path / "x.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"messages": "\xff"}\n')
    with pytest.raises(ValueError, match="x.jsonl, line 2 is not UTF-8 text"):
        list(read_conversations(file))
    for nothing in ("", "\n\n", "[]"):
        file.write_text(nothing, encoding="utf-8")
        with pytest.raises(ValueError, match="x.jsonl holds no conversation"):
            list(read_conversations(file))


def test_a_file_may_be_compressed_and_what_is_no_file_of_lines_is_said(tmp_path):
    """As data sets are published; a folder, another format and what is missing are named for what they are."""
    (tmp_path / "talk.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() + b"\n"))
    assert list(read_conversations(tmp_path / "talk.jsonl.gz")) == [GOOD["messages"]]
    (tmp_path / "talk.parquet").write_bytes(b"PAR1")
    for name, kind, message in (
        ("nowhere.jsonl", FileNotFoundError, "nowhere.jsonl: there is no such file"),
        (".", IsADirectoryError, "is a folder: name a file of JSON lines"),
        ("talk.parquet", ValueError, "talk.parquet is Parquet, and JSON lines are needed here"),
    ):
        with pytest.raises(kind, match=message):
            list(read_conversations(tmp_path / name))


def test_who_has_the_last_word_is_free():
    """A prompt ends with the user, a lesson with the assistant: both are conversations."""
    check_messages(TALK)
    check_messages(TALK[:-1])
    check_messages(TALK[1:2])


def test_messages_that_are_none():
    """Whoever hands them over from a file of another form gets the same kind of answer."""
    with pytest.raises(ValueError, match="message 2 must have a role and a content, and is str"):
        check_messages([user("Hi"), "Hello."])
    with pytest.raises(ValueError, match="message 1: unknown role None"):
        check_messages([{}])
