"""How fast does the engine write on a GPU? Steps replayed as CUDA graphs, and the same begun operation by operation.

    python -m benchmarks.bench_decoding                  124M and 1.1B parameters in bfloat16, one text and sixteen
    python -m benchmarks.bench_decoding --only 1b        one of the shapes
    python -m benchmarks.bench_decoding --dry-run        a toy on the CPU, where nothing is recorded: no figure counts

Random weights; prompts of 512 random tokens, then 64 steps, always the likeliest token. Before anything counts,
replayed logits are compared with those of the same step begun anew. Both engines take turns, step by step; the clock is
the host's, around a whole step with its choice of tokens: what a reader waits for.

    of copy bandwidth    bytes of all weights, and of the keys and values that are read, over the time of a step; as a
                         share of what a large copy on the same GPU moves
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kernel_timing import GPUClock, Spread
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.graphs import GraphedForward
from minigpt.engine.request import Request
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, parameter_count

SHAPES = {
    "124m": GPTConfig(vocab_size=50304, context_length=1024, n_layer=12, n_head=12, n_embd=768, mlp_width=2048),
    "1b": GPTConfig(vocab_size=50304, context_length=1024, n_layer=16, n_head=32, n_kv_head=8, n_embd=2048,
                    mlp_width=8192),
}  # fmt: skip
TOY = {"toy": GPTConfig(vocab_size=64, context_length=256, n_layer=1, n_head=2, n_embd=16)}
CROWDS = (1, 16)
PROMPT, STEPS, WARM = 512, 64, 8
GOAL = 0.70       # of copy bandwidth: one text, bfloat16
ALLOWED = 0.03    # of the largest logit: replayed and begun anew split the keys in other places


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if not args.dry_run and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing can be timed here. --dry-run computes a toy on the CPU.")
    device, shapes = (torch.device("cpu"), TOY) if args.dry_run else (torch.device("cuda"), SHAPES)
    copy = None if args.dry_run else GPUClock().ceilings()["copy"]  # GB/s
    print(f"{torch.cuda.get_device_name() if copy else 'dry run on a CPU'}; torch {torch.__version__}; "
          f"copy {f'{copy:,.0f} GB/s' if copy else 'not measured'}; goal for one text: {GOAL:.0%} of it\n")  # fmt: skip
    print("| shape, texts | steps are | tokens/s | ms a step: median, quartiles | of copy bandwidth |")
    print("|---|---|---:|---:|---:|")
    for name, shape in shapes.items():
        if args.only in name:
            for line in rows(name, shape, device, copy):
                print(line, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="only shapes whose name contains it")
    parser.add_argument("--dry-run", action="store_true", help="a toy on the CPU, to see that the command works")
    return parser.parse_args(argv)


def rows(name: str, shape: GPTConfig, device: torch.device, copy: float | None) -> Iterator[str]:
    """The table's, for each crowd, replayed and not."""
    torch.manual_seed(1)
    with device:
        model = GPT(shape).to(torch.bfloat16).eval()
    for texts in CROWDS:
        engines = {"begun": engine_of(model, texts, graphs=False), "replayed": engine_of(model, texts, graphs=True)}
        error = disagreement(engines["replayed"])
        if error is not None and error > ALLOWED:
            yield f"| {name}, {texts} | replayed | WRONG: off by {error:.1%} of the largest logit | | |"
            continue
        spreads = step_times(engines)
        for way, spread in spreads.items():
            share = "–" if copy is None else f"{bytes_of_a_step(shape, texts) / spread.median / copy / 1e9:.0%}"
            times = f"{1e3 * spread.median:.2f}, {1e3 * spread.low:.2f} to {1e3 * spread.high:.2f}"
            yield f"| {name}, {texts} | {way} | {texts / spread.median:,.0f} | {times} | {share} |"


def prompt_length(shape: GPTConfig) -> int:
    return min(PROMPT, shape.context_length // 2)


def engine_of(model: GPT, texts: int, *, graphs: bool) -> Engine:
    """With all texts begun: what follows only writes."""
    shape, prompt = model.config, prompt_length(model.config)
    engine = Engine(model, EngineConfig(max_batch=texts, chunk=texts * prompt, graphs=graphs, compiled=False))
    draw = torch.Generator().manual_seed(2)
    sampling = SamplingConfig(temperature=0, max_new_tokens=shape.context_length)
    for ids in torch.randint(shape.vocab_size, (texts, prompt), generator=draw).tolist():
        engine.submit(Request(prompt=ids, sampling=sampling))
    while engine.scheduler.waiting or not all(sequence.writes for sequence in engine.scheduler.running):
        engine.step()
    return engine


@torch.inference_mode()
def disagreement(engine: Engine) -> float | None:
    """Of a step's logits, replayed and begun anew, as a share of the largest; none where nothing is replayed."""
    if not isinstance(engine.forward, GraphedForward):
        return None
    works = engine.scheduler.plan()
    replayed = engine.forward.logits(works).float().clone()
    anew = engine.forward.forward.logits(works).float()
    return float((replayed - anew).abs().max() / anew.abs().max())


def step_times(engines: dict[str, Engine]) -> dict[str, Spread]:
    """Seconds of a step, the engines taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(WARM + STEPS):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.step()  # it has waited for the GPU when it returns: its tokens are chosen
            if number >= WARM:
                seconds[name].append(time.perf_counter() - started)
    return {name: Spread.of(values) for name, values in seconds.items()}


def bytes_of_a_step(shape: GPTConfig, texts: int) -> float:
    """Weights once, and every text's keys and values at the middle of the steps that are timed; all in bfloat16."""
    length = prompt_length(shape) + WARM + STEPS // 2
    return 2.0 * (parameter_count(shape) + texts * length * 2 * shape.n_layer * shape.kv_heads * shape.dims_per_head)


if __name__ == "__main__":
    main()
