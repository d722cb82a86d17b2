"""Every command of the README, in a short form: what a newcomer types must work as it stands."""

import bisect
import calendar
import contextlib
import csv
import heapq
import inspect
import io
import os
import re
import shlex
import string
import subprocess
import sys
import textwrap

import pytest
from scripts import QUICK, ROOT, TINY, some_text

with contextlib.redirect_stdout(io.StringIO()):
    import this

SHORT = {  # what makes a command short; the rest of it runs as it is written
    "train.py": (*TINY, "--save-every", "3", "--context-length", "160"),  # a conversation fits in
    "sample.py": ("--max-new-tokens", "8", "--device", "cpu"),
}
SHAPED = ("--n-layer", "--n-head", "--n-kv-head", "--n-embd", "--vocab-size")  # not with --init: the shape comes along


def commands():
    """The lines of the README's bash blocks, each && part by itself, without comments and without the test command."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("  #")[0].split("&&")]
    return [part for part in parts if part and not part.startswith(("pip ", "pytest"))]


def shortened(command):
    """The command as a list, with flags added behind it that make it small."""
    words = shlex.split(command)
    if "|" in command:  # what stands before it types for the user
        words = words[words.index("|") + 1 :]
    if "quickstart" in words:
        words += [*QUICK, "--chat", "off"]
    if "lessons" in words:
        words += ["--count", "50", "--examples", "1"]
    trained = {"sft", "lora", "reward", "dpo", "grpo", "ppo"} & set(words)  # their model comes from another run
    if trained & {"grpo", "ppo"}:
        words += ["--prompts", "4", "--test-problems", "4", "--max-new-tokens", "4"]
    elif trained:
        words += ["--examples", "200"]
    if "benchmarks.bench_kernels" in words:
        words += ["--dry-run", "--only", "rotary/both"]  # no GPU here
    if "benchmarks.bench_decoding" in words:
        words += ["--dry-run"]
    if "benchmarks.tune_attention" in words:
        words += ["--dry-run", "--only", "forward 64"]
    words = [sys.executable, *words[1:]] if words[0] == "python" else words
    if words[0] == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d",
                 "--rdzv-endpoint", "localhost:0", *words[1:]]  # fmt: skip
    for script, flags in SHORT.items():
        if script in words and "--help" not in words:
            given = {word for word in words if word.startswith("--")}
            pairs = [(flags[i], flags[i + 1]) for i in range(0, len(flags), 2)]
            spared = given & set(SHAPED) | (set(SHAPED) if trained or "--init" in given else set())
            words += [word for pair in pairs if pair[0] not in spared for word in pair]
    return words


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder that looks like a fresh clone with a user's files beside it, so that out/ is not ours."""
    desk = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "sample.py", "minigpt", "kernels", "benchmarks"):
        (desk / name).symlink_to(ROOT / name)
    for folder in ("notes", "corpus"):
        (desk / folder).mkdir()
        for module in (bisect, calendar, csv, heapq, shlex, string, textwrap, this):  # real text: rules judge it
            text = inspect.getsource(module)[:4000]
            (desk / folder / f"{module.__name__}.txt").write_text(text, encoding="utf-8")
    (desk / "input.txt").write_text(some_text(4000), encoding="utf-8")
    return desk


def run(words, desk):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(desk / "hub")}
    return subprocess.run(words, cwd=desk, env=environment, capture_output=True, text=True, timeout=300)


def test_every_command_of_the_readme_works(desk):
    """In the order in which they stand: later ones use what earlier ones left."""
    seen = commands()
    assert len(seen) >= 12, f"only {len(seen)} commands were found: is the pattern still right?"
    for command in seen:
        if "PATH" in command:  # a race needs the peer's folder; benchmarks have tests of their own
            continue
        result = run(shortened(command), desk)
        if "hf:" in command:  # without a network the hub's cache may do; else one clear line
            assert result.returncode in (0, 2), result.stderr
            assert result.returncode == 0 or "cannot be fetched" in result.stderr or "minigpt[hf]" in result.stderr
        else:
            assert result.returncode == 0, f"{command}\n{result.stderr[-2000:]}"


def test_the_readme_stays_a_narrative():
    """Under 300 lines, or nobody reads it; and every file it names exists."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") < 300
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert (ROOT / name).exists() or (ROOT / "minigpt" / name).exists(), name


def test_the_mistake_of_the_readme_is_answered_as_it_says(desk):
    """To the letter: it is shown as a promise."""
    [said] = re.findall(r"`(error: .*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    result = run([sys.executable, "train.py", "--n-layers", "4"], desk)
    assert (result.returncode, result.stderr) == (2, said + "\n")
