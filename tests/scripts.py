"""Runs train.py and sample.py as a user does, but in this process: what costs time is importing torch."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TINY = ("--n-layer", "1", "--n-head", "2", "--n-kv-head", "1", "--n-embd", "16", "--context-length", "32",
        "--batch-size", "4", "--vocab-size", "300", "--max-steps", "6", "--warmup-steps", "2", "--eval-every", "3",
        "--eval-batches", "2", "--save-every", "2", "--sample-every", "0", "--threads", "1", "--device", "cpu")  # fmt: skip

QUICK = ("--n-layer", "1", "--n-head", "2", "--n-kv-head", "1", "--n-embd", "16", "--vocab-size", "300",
         "--pretrain-steps", "3", "--sft-steps", "3", "--dpo-steps", "2", "--examples", "60", "--questions", "3",
         "--threads", "1", "--device", "cpu")  # fmt: skip


class Result(NamedTuple):
    status: int
    out: str
    err: str


def run_script(name: str, argv: Sequence[str], monkeypatch: pytest.MonkeyPatch, stdin: str = "") -> Result:
    """`python NAME ARGV` without a new process: exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    out, err = io.StringIO(), io.StringIO()
    from minigpt.runtime.console import one_line_errors

    module = __import__(name.removesuffix(".py"))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), one_line_errors():
            status = module.main()
    except SystemExit as exit_:
        status = exit_.code or 0
    return Result(status, out.getvalue(), err.getvalue())


def start(*argv: str, **kwargs: object) -> subprocess.Popen:
    """A real process, for what must be killed or run in pairs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, *map(str, argv)], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)  # fmt: skip


def some_text(words: int, seed: int = 0) -> str:
    """English-looking text with structure to learn, the same on every machine."""
    import random

    chance = random.Random(seed)
    subjects, verbs = ["the cat", "a dog", "one bird", "my friend"], ["sees", "likes", "follows", "hears"]
    lines = [f"{chance.choice(subjects)} {chance.choice(verbs)} {chance.choice(subjects)}." for _ in range(words // 5)]
    return "\n".join(lines) + "\n"


def read_a_story(folder: Path) -> Path:
    """A run of pre-training on some text, finished within a second: it has never chatted."""
    story = folder / "story.txt"
    story.write_text(some_text(4000), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        result = run_script("train.py", ["quick", *TINY, "--data", story, "--out-dir", folder / "run"], patch)
    assert result.status == 0, result.err
    return folder / "run"
