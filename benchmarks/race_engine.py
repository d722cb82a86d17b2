"""Who writes faster on a CPU, with the same weights and the same prompts: ours, transformers, or llama.cpp?

    python -m benchmarks.race_engine                                 the 13.8M Llama shape, one thread
    python -m benchmarks.race_engine --shape 85m --threads 1 2       the larger one, on one thread and on two
    python -m benchmarks.race_engine --json race.json                every single step as well

Random weights, prompts of 64 random tokens, then 65 new ones, always the likeliest. All take turns, so that whatever
else the machine does hits all alike. Figures are medians over the turns, ratios medians of the ratios in a turn. With
one thread CPU time is counted, with more the clock.

    tokens/s     of all texts together, from the first token on
    first token  until every text has one
    p50, p95     milliseconds between two tokens of a text, over the steps of all turns
    memory       what the model adds to a process of its own, after a turn and at the most: see race_engine_memory.py
    same tokens  texts that equal transformers' in float32. A tie of random logits may fall either way, and integers
                 are other weights
    bandwidth    bytes of all weights over the time of a step, as a share of what this machine reads from memory; a
                 small model is read from the caches, so that it may be above one

Peers that are not installed are named and left out. Needs the extra bench; llama.cpp's rows also gguf and
llama-cpp-python.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.race_engine_memory import Memory, added_by
from benchmarks.race_engine_peers import NEW, PROMPT, Clock, Contestant, Writer, contestants, prepare
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import parameter_count

SHAPES = {"small": {"layers": 6, "width": 384, "mlp": 1024}, "85m": {"layers": 12, "width": 768, "mlp": 2048}}
HEAD_DIM = 64
COLUMNS = ("tokens/s", "as fast as transformers", "first token, ms", "p50, ms", "p95, ms", "memory, MB", "at most, MB",
           "same tokens", "bandwidth")  # fmt: skip
Sizes = dict[str, Memory | None]  # by contestant; empty: not measured


class Turn(NamedTuple):
    tokens: list[list[int]]
    first: float        # seconds until the first token
    steps: list[float]  # seconds for each further one

    @property
    def step(self) -> float:
        return statistics.fmean(self.steps)


class Race(NamedTuple):
    """All turns of one batch on so many threads."""

    batch: int
    threads: int
    turns: dict[str, list[Turn]]  # by contestant
    memory: Sizes
    shares: dict[str, float]      # bytes a step over the bytes that memory gives in a second
    notes: list[str]


class Row(NamedTuple):
    """What is said of a contestant: in the order of COLUMNS."""

    tokens_per_second: float
    ratio: float | None
    first_ms: float
    p50_ms: float
    p95_ms: float
    memory_mb: float | None
    peak_mb: float | None
    same: int | None
    bandwidth: float


def main() -> None:
    args = arguments()
    shape = shape_of(args.layers, args.width, args.mlp, args.vocab)
    size = parameter_count(shape)
    print(f"{size / 1e6:.1f}M parameters, {args.layers} layers, {args.width} wide; {PROMPT} tokens in, {NEW + 1} out; "
          f"torch {torch.__version__}, {platform.machine()}\n")  # fmt: skip
    rivals = [rival for rival in contestants() if args.only in rival.name]
    records = []
    with tempfile.TemporaryDirectory() as place:
        folder, tiny = Path(place) / "model", Path(place) / "tiny"
        prepare(folder, shape)
        prepare(tiny, shape_of(1, HEAD_DIM, HEAD_DIM, args.vocab))
        for threads in args.threads:
            for batch in args.batch:
                memory = {rival.name: added_by(rival, folder, tiny, batch, threads) for rival in rivals if args.memory}
                race = run(rivals, folder, memory, (batch, threads), args)
                print(table(race), flush=True)
                records.append(record(race))
    if args.json:
        args.json.write_text(json.dumps({"parameters": size, "torch": torch.__version__, "races": records}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="what is not said by the next three")
    for name in SHAPES["small"]:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--only", default="", help="only contestants whose name contains it")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="some seconds for each")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    args = parser.parse_args()
    for name, value in SHAPES[args.shape].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def shape_of(layers: int, width: int, mlp: int, vocab: int) -> GPTConfig:
    """Llama's: what all peers have."""
    return GPTConfig(vocab_size=vocab, context_length=256, n_layer=layers, n_head=width // HEAD_DIM, n_embd=width,
                     mlp_width=mlp, qk_norm=False)  # fmt: skip


# --- the race -----------------------------------------------------------------------------------------------------


def run(
    rivals: list[Contestant], folder: Path, memory: Sizes, crowd: tuple[int, int], args: argparse.Namespace
) -> Race:
    """Everyone in turns. `crowd`: texts at once, and threads."""
    batch, threads = crowd
    torch.set_num_threads(threads)
    writers = {rival.name: rival.open(folder, batch, threads) for rival in rivals}
    prompts = torch.randint(args.vocab, (batch, PROMPT), generator=torch.Generator().manual_seed(2)).tolist()
    clock = time.process_time if threads == 1 else time.perf_counter
    turns: dict[str, list[Turn]] = {name: [] for name in writers}
    for number in range(args.turns + 1):
        for name, writer in writers.items():
            turn = timed(writer, prompts, clock)
            if number:  # the first one warms up
                turns[name].append(turn)
    notes = [f"{name}: {writer.note}" for name, writer in writers.items() if writer.note]
    return Race(batch, threads, turns, memory, shares(rivals, turns, folder), notes)


def timed(writer: Writer, prompts: list[list[int]], clock: Clock) -> Turn:
    started = clock()
    tokens, stamps = writer.write(prompts, NEW + 1, clock)
    return Turn(tokens, stamps[0] - started, [after - before for before, after in pairwise(stamps)])


def shares(rivals: list[Contestant], turns: dict[str, list[Turn]], folder: Path) -> dict[str, float]:
    """Of the memory's bandwidth, in a median step."""
    bandwidth, floats = read_bandwidth(), (folder / "model.safetensors").stat().st_size
    return {rival.name: rival.share * floats / median(turns[rival.name], "step") / bandwidth for rival in rivals}


def read_bandwidth() -> float:
    """Bytes per second that a sum reads from memory; the best of several."""
    numbers, best = torch.ones(1 << 26), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - started)
    return numbers.nbytes / best


def median(turns: list[Turn], name: str) -> float:
    return statistics.median(getattr(turn, name) for turn in turns)


# --- what is said of it -------------------------------------------------------------------------------------------


def row(race: Race, name: str) -> Row:
    own, memory = race.turns[name], race.memory.get(name)
    peers = next((turns for other, turns in race.turns.items() if other.startswith("transformers")), None)
    ratio = same = None
    if peers:
        ratio = statistics.median(peer.step / mine.step for peer, mine in zip(peers, own, strict=True))
        same = sum(a == b for a, b in zip(own[0].tokens, peers[0].tokens, strict=True))
    percentiles = statistics.quantiles((1e3 * step for turn in own for step in turn.steps), n=20, method="inclusive")
    sizes = (None, None) if memory is None else (size / 1e6 for size in memory)
    return Row(race.batch / median(own, "step"), ratio, 1e3 * median(own, "first"), percentiles[9], percentiles[18],
               *sizes, same, race.shares[name])  # fmt: skip


def table(race: Race) -> str:
    """Markdown."""
    head = f"batch {race.batch}, {race.threads} thread{'s' * (race.threads > 1)}"
    lines = [f"| {head} | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    formats = ("{:,.0f}", "{:.2f}", "{:.1f}", "{:.2f}", "{:.2f}", "{:,.0f}", "{:,.0f}", f"{{}}/{race.batch}", "{:.2f}")
    for name in race.turns:
        cells = zip(formats, row(race, name), strict=True)
        lines.append(f"| {name} | {' | '.join('–' if x is None else text.format(x) for text, x in cells)} |")
    return "\n".join([*lines, "", *(f"{note}\n" for note in race.notes)])


def record(race: Race) -> dict[str, object]:
    """For a JSON file: the rows, and seconds of every turn."""
    rows = {name: row(race, name)._asdict() | {"turns": [{"first": turn.first, "steps": turn.steps} for turn in turns]}
            for name, turns in race.turns.items()}  # fmt: skip
    return {"batch": race.batch, "threads": race.threads, "contestants": rows, "notes": race.notes}


if __name__ == "__main__":
    main()
