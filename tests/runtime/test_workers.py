"""Several processes, one order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from minigpt.runtime import workers
from minigpt.runtime.workers import AHEAD, in_order


def slow_square(number: int) -> int:
    """The later ones are the quicker ones."""
    time.sleep(max(0, 20 - number) / 1000)
    return number * number


def fail_at(bad: int, number: int) -> int:
    if number == bad:
        raise ValueError(f"{number} is bad")
    return number


def own_id(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def pairs(stop: int) -> Iterator[tuple[str, int]]:
    return ((f"item {number}", number) for number in range(stop))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(count):
    """Whoever was first; what is kept comes out beside what was made of what was sent."""
    assert list(in_order(slow_square, pairs(30), count)) == [(f"item {n}", n * n) for n in range(30)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("bad", [0, 9])
def test_an_error_comes_in_its_place(count, bad):
    """What came before it is not lost, as in a loop; the same for an error of the items themselves."""

    def broken(stop: int) -> Iterator[tuple[str, int]]:
        yield from pairs(stop)
        raise ValueError(f"{stop} is bad")

    for results in (in_order(partial(fail_at, bad), pairs(20), count), in_order(slow_square, broken(bad), count)):
        seen = []
        with pytest.raises(ValueError, match=f"{bad} is bad"):
            seen += (kept for kept, _ in results)  # += takes one after the other
        assert seen == [f"item {n}" for n in range(bad)]


@pytest.mark.parametrize("count", [1, 2])
def test_no_more_is_read_than_keeps_everyone_busy(count):
    """A corpus larger than memory passes through."""
    read = 0

    def counted() -> Iterator[tuple[None, int]]:
        nonlocal read
        for number in range(60):
            read += 1
            yield None, number

    ahead = [read - done for done, _ in enumerate(in_order(slow_square, counted(), count))]
    assert max(ahead) == (1 if count == 1 else AHEAD * count + 1)


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_not_sent_is_waited_for(count):
    """Such an item may be a stream over the source of the items: nobody else may read on before it has come out."""
    log = []

    def items() -> Iterator[tuple[int, int | None]]:
        for number in range(12):
            log.append(("read", number))
            yield number, None if number % 5 == 4 else number

    for kept, result in in_order(slow_square, items(), count):
        log.append(("out", kept))
        assert result == (None if kept % 5 == 4 else kept * kept)
    for number in (4, 9):
        assert log.index(("out", number)) < log.index(("read", number + 1))


def test_a_few_items_start_no_process(monkeypatch):
    """Starting one takes as long as cleaning a few megabytes."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)  # whoever calls it fails
    assert len(list(in_order(slow_square, pairs(AHEAD * 8), 8))) == AHEAD * 8


def test_workers_end_with_the_iterator():
    """Also where nobody reads to the end."""
    results = in_order(own_id, pairs(40), 2)
    found = {next(results)[1] for _ in range(12)} - {os.getpid()}
    assert found
    results.close()
    assert not any(is_alive(number) for number in found)


def is_alive(number: int) -> bool:
    """Whether a process runs; one that has ended and waits to be buried does not."""
    stat = Path(f"/proc/{number}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def count_slowly(number: int) -> int:
    Path(f"{number:03}.{os.getpid()}").touch()
    time.sleep(0.05)
    return number


ENDLESS = """
import sys
sys.path[:0] = {path!r}
from runtime.test_workers import count_slowly
from minigpt.runtime.workers import in_order
if __name__ == "__main__":
    try:
        for _ in in_order(count_slowly, ((None, n) for n in range(1000)), 2):
            pass
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def begin_endless(folder: Path) -> tuple[subprocess.Popen, set[int]]:
    """A process in a group of its own, as a terminal starts it, and the ids of its workers."""
    root = Path(__file__).parents[2]
    script = folder / "endless.py"
    script.write_text(ENDLESS.format(path=[str(root), str(root / "tests")]))
    process = subprocess.Popen([sys.executable, script], cwd=folder, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    ids: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ids) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        ids = {int(path.suffix[1:]) for path in folder.glob("*.[0-9]*")} - {process.pid}
    return process, ids


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux which processes run")


@needs_proc
def test_ctrl_c_is_heeded_by_one_process_alone(tmp_path):
    """A terminal sends it to all; a worker that heeded it would print its own trace into the reader's screen."""
    process, ids = begin_endless(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "interrupted\n")
    assert len(ids) == 2 and not any(map(is_alive, ids))


@needs_proc
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    """It could tell them nothing, and they would wait for ever."""
    process, ids = begin_endless(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(is_alive, ids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(ids) == 2 and not any(map(is_alive, ids))
