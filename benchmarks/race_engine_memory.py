"""What a contestant of the race adds to a process: each in one of its own.

    python -m benchmarks.race_engine_memory FOLDER TINY NAME BATCH THREADS

Libraries are loaded late and set aside memory when they are first used, which is not the model's. So a tiny model is
opened and used first; then counted is what the real one adds: resident at the end of a turn, and at the most, with all
that opening it took. Pages of a mapped file count as soon as they are read. Linux only: elsewhere nothing is said.
"""

import gc
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.race_engine_peers import NEW, PROMPT, Contestant, contestants

STATUS = Path("/proc/self/status")


class Memory(NamedTuple):
    resident: int  # bytes that it adds, after a turn
    peak: int      # and at the most


def added_by(contestant: Contestant, folder: Path, tiny: Path, batch: int, threads: int) -> Memory | None:
    """Measured in a fresh process; none where this system does not tell. Raises: RuntimeError if that process fails."""
    if not STATUS.exists():
        return None
    told = [str(folder), str(tiny), contestant.name, str(batch), str(threads)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.race_engine_memory", *told],
                          cwd=Path(__file__).parents[1], capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {contestant.name} failed:\n{done.stderr[-2000:]}")
    return Memory(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    folder, tiny, name, batch, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    contestant = next(one for one in contestants() if one.name == name)
    prompts = [[(i * j) % 256 for j in range(1, PROMPT + 1)] for i in range(1, int(batch) + 1)]
    writer = contestant.open(Path(tiny), int(batch), int(threads))
    writer.write(prompts, 2, time.perf_counter)
    del writer
    gc.collect()
    before, _ = resident()
    writer = contestant.open(Path(folder), int(batch), int(threads))
    writer.write(prompts, NEW + 1, time.perf_counter)
    now, peak = resident()
    print(json.dumps([now - before, peak - before]))


def resident() -> tuple[int, int]:
    """(bytes in memory now, at the most so far). Of this process alone: ru_maxrss begins with its parent's."""
    said = STATUS.read_text()
    now, most = (1024 * int(re.search(rf"{name}:\s+(\d+) kB", said)[1]) for name in ("VmRSS", "VmHWM"))
    return now, most


if __name__ == "__main__":
    main()
