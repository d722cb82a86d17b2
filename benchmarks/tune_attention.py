"""Which tiles make attention fastest on this GPU? Every choice that compiles well, timed beside the one in use.

    python -m benchmarks.tune_attention                    forward, dk and dv, dq; heads of 64 and 128; some minutes
    python -m benchmarks.tune_attention --only "dq 64"     one of them
    python -m benchmarks.tune_attention --dry-run          toy sizes in Triton's interpreter: checked, not timed

Choices are compiled on all cores first, and what spills registers or asks for more shared memory than there is, is
not tried (`kernels.machine_code` judges). What is left must give the results of the choice in use before it is timed;
then all take turns. The winners are written into `tiles`, `dkdv_tiles` and `dq_tiles` by hand, and
`python -m kernels.machine_code attention` has the last word: they are chosen for both versions of Triton.
"""

import argparse
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_kernels import prepare
from benchmarks.kernel_measure import said
from benchmarks.kernel_timing import GPUClock, Spread
from kernels.machine_code import SHARED_LIMIT, compiling_processes, read

SHOWN = 6         # of the fastest, for each subject
ALLOWED = 2e-2    # ‖other - in use‖ / ‖in use‖, both rounded to bfloat16
SPILLED = 64      # bytes a thread: more is not tried
SIDES = {  # queries and keys of a tile
    "forward": ((64, 128), (32, 64, 128)),
    "dkdv": ((16, 32, 64), (64, 128)),
    "dq": ((64, 128), (32, 64, 128)),
}
CHOOSERS = {"forward": ("forward", "tiles"), "dkdv": ("backward", "dkdv_tiles"), "dq": ("backward", "dq_tiles")}


class Subject(NamedTuple):
    """A kernel in a situation of which its tiles are a function."""

    kernel: str      # of CHOOSERS
    D: int
    documents: bool

    def __str__(self) -> str:
        return f"{self.kernel} {self.D}{', documents' if self.documents else ''}"


SUBJECTS = [Subject(*each) for each in itertools.product(CHOOSERS, (64, 128), (False, True))]


class Choice(NamedTuple):
    """`kernels.gpu.attention_tiles.Tiles`, before Triton may be imported."""

    t: int
    s: int
    num_warps: int
    num_stages: int

    def __str__(self) -> str:
        return f"Tiles({self.t}, {self.s}, {self.num_warps}, {self.num_stages})"


def choices(subject: Subject, *, dry: bool) -> list[Choice]:
    if dry:
        return [Choice(32, 16, 4, 1), Choice(16, 32, 4, 1)]
    return [Choice(*each) for each in itertools.product(*SIDES[subject.kernel], (4, 8), (1, 2, 3, 4))]


def chosen(subject: Subject, choice: Choice | None) -> AbstractContextManager[object]:
    """Within, the subject's kernel has these tiles; none: those in use."""
    from kernels.gpu.attention_tiles import Tiles

    file, name = CHOOSERS[subject.kernel]
    module = importlib.import_module(f"kernels.gpu.attention_{file}")
    in_use = getattr(module, name)
    return mock.patch.object(module, name, in_use if choice is None else lambda *situation: Tiles(*choice))


def tensors(subject: Subject, device: str, *, dry: bool) -> dict[str, Tensor | None]:
    """16k tokens as a model has them: heads are views of (B, T, H · D)."""
    D, (B, T) = subject.D, (1, 16384) if subject.documents else (4, 4096)
    H = 2048 // D
    if dry:
        B, T, H, D = 1, 70, 2, 16
    torch.manual_seed(1)
    shape, dtype = (B, T, H, D), torch.float32 if dry else torch.bfloat16
    made = {name: torch.empty(shape, dtype=dtype, device=device).transpose(1, 2) for name in ("q", "k", "v", "dy")}
    if device != "meta":
        for tensor in made.values():
            tensor.normal_()
    ids = torch.arange(T, device=device) // 1024 if subject.documents else None
    return {**made, "document": None if ids is None else ids.expand(B, T).contiguous()}


def pass_of(subject: Subject, made: Mapping[str, Tensor | None]) -> Callable[[], tuple[Tensor, ...]]:
    """The forward pass, or the backward pass after it: their kernels stand side by side, and one has other tiles."""
    from kernels.gpu.attention_backward import backward
    from kernels.gpu.attention_forward import forward

    q, k, v, dy, document = made.values()
    how = (document, 0, q.size(2), q.size(3) ** -0.5, 0.0)
    if subject.kernel == "forward":
        return lambda: forward(q, k, v, *how)[:1]
    y, lse = forward(q, k, v, *how)
    return lambda: backward(dy, None, q, k, v, y, lse, *how)


# --- what compiles well -------------------------------------------------------------------------------------------


def objection(subject: Subject, choice: Choice, arch: int) -> str | None:
    """Why a choice is not worth a turn; none if it is."""
    from kernels.launch import on_paper

    with chosen(subject, choice), on_paper(arch) as page:
        pass_of(subject, tensors(subject, "meta", dry=False))()
    [launch] = [each for each in page if each.kernel.fn.__name__ == f"_{subject.kernel}_kernel"]
    try:
        report = read(launch, arch)
    except Exception as error:  # whatever a compiler may raise
        return f"does not compile: {said(error)}"
    if report.stack > SPILLED:
        return f"{report.stack} bytes spill"
    if report.shared > SHARED_LIMIT.get(arch, min(SHARED_LIMIT.values())):
        return f"{report.shared} bytes of shared memory"
    return None


def objections(work: Sequence[tuple[Subject, Choice]], arch: int) -> list[str | None]:
    """Of each: compiled in processes of their own, on all cores. What is launched later lies in Triton's cache then."""
    with compiling_processes() as pool:
        return list(pool.map(objection, *zip(*work, strict=True), itertools.repeat(arch)))


# --- right, then fast ---------------------------------------------------------------------------------------------


def contenders(subject: Subject, tried: Sequence[Choice], device: str, *, dry: bool) -> dict[str, Callable]:
    """Each choice that gives the results of the one in use, "ours", as a run."""
    run = pass_of(subject, tensors(subject, device, dry=dry))

    def with_tiles(choice: Choice | None) -> Callable[[], tuple[Tensor, ...]]:
        def turn() -> tuple[Tensor, ...]:
            with chosen(subject, choice):
                return run()

        return turn

    runs = {"ours": with_tiles(None)}
    truth = runs["ours"]()
    for choice in tried:
        turn = with_tiles(choice)
        off = max(float((a - b).float().norm() / b.float().norm()) for a, b in zip(turn(), truth, strict=True))
        if off < ALLOWED:
            runs[str(choice)] = turn
        else:
            print(f"{subject}: {choice} is WRONG, off by {off:.1e}: not timed", file=sys.stderr)
    return runs


def lines(subject: Subject, us: Mapping[str, Spread]) -> Iterator[str]:
    """Markdown: the one in use, and the fastest, with what they gain over it."""
    in_use = us["ours"].median
    fastest = sorted((name for name in us if name != "ours"), key=lambda name: us[name].median)
    for name in ("ours", *fastest[:SHOWN]):
        spread = us[name]
        shown = "in use" if name == "ours" else name
        times = f"{spread.median:.0f} | {spread.low:.0f} to {spread.high:.0f}"
        yield f"| {subject} | {shown} | {times} | {in_use / spread.median:.3f} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="only what contains it, such as forward or 'dq 64'")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes in Triton's interpreter, nothing is timed")
    args = parser.parse_args(argv)
    device = prepare(args)
    subjects = [subject for subject in SUBJECTS if args.only in str(subject)]
    if not subjects:
        raise SystemExit(f"--only {args.only}: choose a part of one of: {'; '.join(map(str, SUBJECTS))}")
    if args.dry_run:
        for subject in subjects:
            runs = contenders(subject, choices(subject, dry=True), device, dry=True)
            print(f"{subject}: {len(runs) - 1} other choices are right; nothing was timed")
        return
    clock, properties = GPUClock(), torch.cuda.get_device_properties(0)
    work = [(subject, choice) for subject in subjects for choice in choices(subject, dry=False)]
    print(f"compiling {len(work)} choices on all cores, some minutes", file=sys.stderr, flush=True)
    found = objections(work, 10 * properties.major + properties.minor)
    for (subject, choice), problem in zip(work, found, strict=True):
        if problem is not None:
            print(f"{subject}: {choice} is not tried: {problem}", file=sys.stderr)
    print("| kernel, head_dim | tiles: queries, keys, warps, stages | us, median | quartiles | in use / this |")
    print("|---|---|---:|---:|---:|")
    for subject in subjects:
        good = [choice for (of, choice), problem in zip(work, found, strict=True) if of == subject and problem is None]
        runs = contenders(subject, good, device, dry=False)
        for line in lines(subject, clock.times(runs, 15, 20.0).us):
            print(line, flush=True)


if __name__ == "__main__":
    main()
