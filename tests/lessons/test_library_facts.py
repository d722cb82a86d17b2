"""Facts from the library's own sources: short, clean, and the same every time."""

import os
import subprocess
import sys

import pytest

from minigpt.lessons.library_facts import MOST_WORDS, Entry, first_sentence, library


def entry_of(name: str) -> Entry:
    return next(entry for entry in library() if entry.name == name)


def test_what_everybody_asks_about_is_there():
    """Sources, compiled modules, methods of types and functions made of methods are four different ways in."""
    taken = ("path", "ignore_errors", "onerror", "dir_fd")
    rmtree = Entry("shutil.rmtree", "shutil", "function", "Recursively delete a directory tree.", taken)
    assert entry_of("shutil.rmtree")._replace(parameters=taken) == rmtree  # versions differ in what it takes
    assert entry_of("len").module == "builtins"
    assert entry_of("str.upper").sort == "method"
    assert entry_of("random.choice").parameters == ("seq",)
    assert entry_of("os.getcwd").parameters == ()
    assert entry_of("math").sort == "module"
    assert len(library()) > 600


def test_every_fact_is_short_enough_to_answer_with():
    """A model with 256 tokens must say it whole; a cut sentence teaches to stop in the middle."""
    for entry in library():
        assert 2 <= len(entry.sentence.split()) <= MOST_WORDS
        assert entry.sentence[0].isupper() and entry.sentence.endswith(".")
        assert not set(entry.sentence) & set("\n`<>|"), entry


def test_a_name_stands_once():
    """Two entries of one name would be one question with two answers."""
    names = [entry.name for entry in library()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("len(obj) -> int\n\nReturn the ``len`` of it.  Slow.", "Return the len of it."),
        ("csv.py - read/write CSV files", "Read/write CSV files."),
        ("Use a :class:`Lock` on *this*, e.g. that.", "Use a Lock on this, e.g. that."),
        ("Word.", ""),
        ("~~~ a rule ~~~", ""),
        ("Example::\n\n    >>> x", ""),
    ],
)
def test_the_first_sentence_is_prose(docstring, sentence):
    """Signatures, file names and markup are no answers."""
    assert first_sentence(docstring) == sentence


def test_another_process_reads_the_same_facts():
    """Lessons are rebuilt wherever they are needed; an order from a set would change with every process."""
    code = "from minigpt.lessons.library_facts import library; print(library())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, encoding="utf-8",
                           env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONIOENCODING": "utf-8"})  # fmt: skip
    assert there.stdout.strip() == str(library())
