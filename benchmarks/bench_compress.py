"""What each way to compress a trained run costs and gains, as Markdown.

    python -m benchmarks.bench_compress --run out/quick --recover 200     every way: bytes, bits per byte, speed
    python -m benchmarks.bench_compress                                   speed alone, of larger shapes
    python -m benchmarks.bench_compress --shape 512 --rounds 15

Quality: bits per byte on the run's own held-out text. Speed: greedy decoding in the engine, all models in turns; ratios
are medians of the ratios in a round. Decoding speed does not depend on what was learnt, so without a run fresh weights
do: a small model's time goes into beginning operations, not into weights.
"""

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from minigpt.batches.loader import Batch
from minigpt.compress import command
from minigpt.compress.choose import for_engine
from minigpt.compress.config import CompressConfig
from minigpt.compress.folder import save_compressed
from minigpt.compress.grid import INT4, INT8
from minigpt.compress.measure import CROWD, bits_per_byte, chosen_ways, decoding_seconds, weight_bytes
from minigpt.compress.prune import prune_structure
from minigpt.compress.quantize import IntegerGPT, quantize
from minigpt.compress.recover import recover
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained
from minigpt.training.config import RunConfig
from minigpt.training.pretrain import Data

SHAPES = {
    "6 layers, 384 wide": {"n_layer": 6, "n_head": 6, "n_embd": 384, "vocab_size": 4096},
    "8 layers, 512 wide": {"n_layer": 8, "n_head": 8, "n_embd": 512, "vocab_size": 4096},
    "12 layers, 768 wide": {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 8192},
}
TOKENS = 32


class Run(NamedTuple):
    """A trained model, and what it is judged by."""

    folder: Path
    model: GPT
    settings: RunConfig
    data: Data
    bits: float  # per byte
    rounds: int


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if not args.run:
        return larger_shapes(args.shape, args.rounds)
    with ExitStack() as stack:
        asked = CompressConfig(threads=args.threads, device="cpu")
        settings = command.run_settings(args.run, asked)
        data, model = command.open_data(args.run, settings, asked, stack), load_pretrained(args.run).eval()
        ways(Run(args.run, model, settings, data, bits_per_byte(model, data), args.rounds), args.recover)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a trained run with its data; none: fresh weights, speed alone")
    parser.add_argument("--recover", type=int, default=100, help="steps of training after pruning")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", default="", help="without a run: only shapes whose name contains it")
    return parser.parse_args()


# --- a trained run ------------------------------------------------------------------------------------------------


def ways(run: Run, steps: int) -> None:
    """Every way there is, with its cost in bits per byte and its gain in bytes and speed."""
    print(f"{run.folder}: {weight_bytes(run.folder):,} bytes, {run.bits:.4f} bits per byte; int3 counts as 3 bits\n")
    print(f"| | bytes | bits per byte | tokens/s alone | {CROWD} together |\n|---|---:|---:|---:|---:|")
    print(f"| not compressed, {steps} more steps | 1.000x | {control(run, steps):+.4f} | | |", flush=True)
    for name, wish in wishes(steps):
        print(row(run, name, wish), flush=True)


def wishes(steps: int) -> Iterator[tuple[str, CompressConfig]]:
    """What is tried, with its name in the table."""
    yield "int8, nearest", CompressConfig(weights="int8")
    for weights in ("int4", "int3"):
        yield f"{weights}, nearest", CompressConfig(weights=weights)
        yield f"{weights}, GPTQ", CompressConfig(weights=weights, rounding="gptq")
    for share in (0.3, 0.5):
        for how in ("magnitude", "wanda"):
            yield f"{how}, {share:.0%}", CompressConfig(prune=share, how=how)
    yield "2:4", CompressConfig(prune=0.5, how="2:4")
    yield f"magnitude, 50%, {steps} steps with its teacher", CompressConfig(prune=0.5, how="magnitude", recover=steps)
    cut = {"prune": 0.3, "how": "structured"}
    yield "structured, 30%", CompressConfig(**cut)
    yield f"structured, 30%, {steps} steps of text alone", CompressConfig(**cut, recover=steps, teacher="none")
    yield f"structured, 30%, {steps} steps with its teacher", CompressConfig(**cut, recover=steps)
    yield f"structured, 30%, {steps} steps with its teacher, int8", CompressConfig(**cut, recover=steps, weights="int8")


def control(run: Run, steps: int) -> float:
    """What as many steps do for the model itself: pruning must be compared with this, not with 0."""
    model = recover(copy.deepcopy(run.model), run.settings, run.data, steps)
    return bits_per_byte(model, run.data) - run.bits


def row(run: Run, name: str, wish: CompressConfig) -> str:
    """Made, written, measured."""
    model = command.smaller(run.model, run.settings, run.data, wish)
    with tempfile.TemporaryDirectory() as place:
        save_compressed(model, run.data.tokenizer, run.folder, {}, Path(place) / "out")
        size = weight_bytes(Path(place) / "out")
    if wish.weights == "int3":
        size = command.packed(model)
    if isinstance(model, IntegerGPT):
        for_engine(model)
    alone, crowd = (speeds([run.model, model], n, run.rounds)[1][1] for n in (1, CROWD))
    more = bits_per_byte(model, run.data) - run.bits
    return f"| {name} | {size / weight_bytes(run.folder):.3f}x | {more:+.4f} | {alone:.2f}x | {crowd:.2f}x |"


# --- speed --------------------------------------------------------------------------------------------------------


def speeds(models: Sequence[GPT], requests: int, rounds: int) -> list[tuple[float, float]]:
    """(tokens per second, times as fast as the first) of each model."""
    first, *_ = seconds = decoding_seconds(models, requests, TOKENS, rounds)
    return [(requests * TOKENS / statistics.median(taken),
             statistics.median(before / after for before, after in zip(first, taken, strict=True)))
            for taken in seconds]  # fmt: skip


def larger_shapes(wanted: str, rounds: int) -> None:
    """Decoding speed, and which kernel was chosen for what."""
    for name, shape in ((name, shape) for name, shape in SHAPES.items() if wanted in name):
        torch.manual_seed(1)
        model = GPT(GPTConfig(context_length=256, **shape)).eval()
        ids = torch.randint(model.config.vocab_size, (2, 128))
        integers = {"int8": quantize(model, INT8), "int4": quantize(model, INT4)}
        tables = [chosen_ways(chosen) for each in integers.values() if (chosen := for_engine(each))]
        models = {"float32": model, "structured, 30%": prune_structure(model, 0.3, [Batch(ids, ids, None)]), **integers}
        rates = [speeds(list(models.values()), n, rounds) for n in (1, CROWD)]
        print(f"\n{name}\n\n| | tokens/s alone | | {CROWD} together | |\n|---|---:|---:|---:|---:|")
        for i, each in enumerate(models):
            numbers = " | ".join(f"{rate[i][0]:,.0f} | {rate[i][1]:.2f}x" for rate in rates)
            print(f"| {each} | {numbers} |")
        print("\n" + "\n\n".join(tables), flush=True)


if __name__ == "__main__":
    main()
