"""Our kernels on a GPU: checked, timed and compared with the best that torch offers, in one command.

    python -m benchmarks.bench_kernels --json PATH                 everything, at most 8 minutes
    python -m benchmarks.bench_kernels --json PATH --only decode   rows whose name contains the word
    python -m benchmarks.bench_kernels --json PATH --dry-run       toy sizes in Triton's interpreter: no GPU, no times

First the ceilings: a large copy, a large matrix product. Then case after case: fresh random inputs, ours checked
against float64 with poisoned memory, its peers beside it; what is wrong is not timed. The JSON is rewritten after
every row, so that a run that is cut off keeps what it has; rows that were not reached stay OPEN. A kernel that hangs
or breaks the GPU's context costs its own row: the process starts itself anew and goes on with the next.

Read next: kernel_case.py, kernel_measure.py, kernel_timing.py, kernel_costs.py; the cases are in cases_*.py; the table
and the targets in kernel_table.py and kernel_summary.py.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import kernel_summary, kernel_table
from benchmarks.kernel_table import Row

if TYPE_CHECKING:
    from benchmarks.kernel_case import Case

ROOT = Path(__file__).parents[1]
ROW_LIMIT = 100    # seconds for a row, compiling included: more is a kernel that hangs
WARM_LIMIT = 150   # seconds for compiling everything beforehand, many processes at a time
LEAST = 10         # seconds that must be left to begin another row


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the results go, rewritten after every row")
    parser.add_argument("--markdown", type=Path, help="where the table goes, as markdown")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose name contains it")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row begins later")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes in Triton's interpreter, nothing is timed")
    parser.add_argument("--no-warm", action="store_true", help="do not compile beforehand in parallel")
    parser.add_argument("--resume", action="store_true", help="go on with the rows that PATH lacks")
    parser.add_argument("--warm", metavar="I/N", help=argparse.SUPPRESS)  # a worker: compile each N-th case, from I on
    return parser.parse_args(argv)


def prepare(args: argparse.Namespace) -> str:
    """Choose our kernels, before anybody imports them, and the device: cuda, or cpu for a dry run."""
    os.environ["MINIGPT_KERNELS"] = "interpret" if args.dry_run else "triton"
    warnings.filterwarnings("ignore")  # a forced SDPA backend explains at length why it will not; the row has it
    import torch

    if args.dry_run:
        from kernels.interpreter import choose_interpreter

        choose_interpreter()  # now: torch.compile will import Triton before our kernels do
        torch.set_num_threads(1)
        return "cpu"
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing can be timed here. --dry-run runs toy sizes on the CPU.")
    return "cuda"


def chosen_cases(only: str) -> "list[Case]":
    """The important first; then those with a peer that must be compiled, for that is slow; the grid, Hopper's own."""
    from benchmarks.cases_attention import attention_cases, grid_cases, hopper_cases
    from benchmarks.cases_decoding import decode_cases, quantized_cases
    from benchmarks.cases_training import cross_entropy_cases, norm_cases, optimizer_cases, rotary_cases

    families = (
        attention_cases(), decode_cases(), cross_entropy_cases(), optimizer_cases(), norm_cases(), quantized_cases(),
        rotary_cases(),
    )  # fmt: skip
    targets = sorted((case for family in families for case in family), key=lambda case: case.compiled)
    cases = [case for case in (*targets, *grid_cases(), *hopper_cases()) if only in case.key]
    if not cases:
        raise SystemExit(f"--only {only}: no row's name contains that")
    return cases


def header(device: str) -> dict[str, Any]:
    """What the numbers hang on."""
    versions = {}
    for package in ("torch", "triton", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    gpu = "none: dry run in Triton's interpreter"
    if device == "cuda":
        import torch

        gpu = torch.cuda.get_device_name()
        versions["cuda"] = str(torch.version.cuda)
    return {"gpu": gpu, "python": platform.python_version(), **versions, "commit": commit(),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}  # fmt: skip


def commit() -> str:
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


# --- compiling beforehand ---------------------------------------------------------------------------------


def warm_all(args: argparse.Namespace, cases: int) -> None:
    """Compile in processes of their own, side by side: Triton's and torch.compile's caches lie on disk.

    Alone this process would need most of its minutes for it. In a dry run one worker takes one case.
    """
    workers = min(8, max(1, (os.cpu_count() or 2) // 2))
    started, stride = (1, cases) if args.dry_run else (workers, workers)
    command = [sys.executable, "-m", "benchmarks.bench_kernels", "--json", str(args.json), "--only", args.only]
    command += ["--dry-run"] if args.dry_run else []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "2"}
    processes = [
        subprocess.Popen([*command, "--warm", f"{i}/{stride}"], cwd=ROOT, env=environment, **quiet)
        for i in range(started)
    ]
    ends = time.monotonic() + WARM_LIMIT
    for process in processes:
        try:
            process.wait(max(0.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def be_worker(share: str, cases: "list[Case]", device: str) -> int:
    from benchmarks.kernel_measure import broken, warm

    first, stride = map(int, share.split("/"))
    for case in cases[first::stride]:
        warm(case, device)
        if broken(device):
            return 1
    return 0


# --- the run ----------------------------------------------------------------------------------------------


class Bench:
    """The rows, in memory and in the JSON; and the deadline."""

    def __init__(self, args: argparse.Namespace, cases: "list[Case]", device: str) -> None:
        from benchmarks.kernel_timing import GPUClock, StubClock

        self.args, self.cases, self.device = args, cases, device
        self.clock = StubClock() if args.dry_run else GPUClock()
        self.rows = {case.key: Row(key=case.key, shape=case.describe(dry=args.dry_run)) for case in cases}
        self.document: dict[str, Any] = {}
        if args.resume:
            self.document, rows = kernel_table.read_json(args.json)
            self.rows.update({row.key: row for row in rows if row.key in self.rows})
        else:
            self.document = {"dry_run": args.dry_run, "clock": self.clock.label, "started": time.time(),
                             "header": header(device), "ceilings": {}}  # fmt: skip
            self.save()

    def seconds_left(self) -> float:
        return self.document["started"] + 60 * self.args.minutes - time.time()

    def save(self) -> None:
        self.document["open"] = [row.key for row in self.rows.values() if row.state == "OPEN"]
        self.document["summary"] = kernel_summary.summary(self.rows.values())
        kernel_table.write_json(self.args.json, self.document, self.rows.values())

    def run(self) -> None:
        from benchmarks.kernel_measure import broken, measure

        if not self.document["ceilings"]:
            self.document["ceilings"] = self.clock.ceilings()
        for case in self.cases:
            if self.rows[case.key].state != "OPEN" or self.seconds_left() < LEAST:
                continue
            with self.watched(case.key):
                self.rows[case.key] = measure(case, self.clock, self.device, self.document["ceilings"])
            self.save()
            print(" ".join(kernel_table.cells_of(self.rows[case.key])), flush=True)
            if broken(self.device):
                self.start_anew()

    @contextlib.contextmanager
    def watched(self, key: str) -> Iterator[None]:
        """A kernel that never ends cannot be stopped from within: its row is given up, and the process with it."""
        timer = threading.Timer(ROW_LIMIT, self.give_up, [key])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def give_up(self, key: str) -> None:
        self.rows[key] = Row(key=key, shape=self.rows[key].shape, state="FAILED", reason=f"not done in {ROW_LIMIT} s")
        self.save()
        self.start_anew()

    def start_anew(self) -> None:
        """The same command in place of this process; it goes on where this one stopped.

        Open files are closed on the way, the GPU's among them: its driver ends a kernel when nobody holds it open.
        """
        args = self.args
        command = [sys.executable, "-m", "benchmarks.bench_kernels", "--json", str(args.json), "--only", args.only]
        command += ["--minutes", str(args.minutes), "--no-warm", "--resume"]
        command += ["--markdown", str(args.markdown)] if args.markdown else []
        command += ["--dry-run"] if args.dry_run else []
        sys.stdout.flush()
        for file in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                os.set_inheritable(int(file), int(file) <= 2)
        os.execv(sys.executable, command)

    def report(self) -> int:
        """Print the tables; the exit status says whether everything that was reached was right."""
        rows = list(self.rows.values())
        facts = " · ".join(f"{name} {value}" for name, value in self.document["header"].items())
        ceilings = self.document["ceilings"]
        limits = "not measured"
        if ceilings:
            limits = f"copy {ceilings['copy']:.0f} GB/s, bf16 product {ceilings['matmul']:.0f} TFLOP/s"
        lines = kernel_summary.summary(rows)
        print(f"\n{facts}\nclock: {self.clock.label}; ceilings: {limits}; > 1: ours is faster\n")
        print(kernel_table.text_table(rows))
        print("\n" + "\n".join(" | ".join(line) for line in [kernel_summary.HEADS, *lines]))
        if self.document["open"]:
            print(f"\nopen, not reached: {len(self.document['open'])} rows")
        if self.args.markdown:
            targets = kernel_table.markdown_table(kernel_summary.HEADS, lines)
            table = kernel_table.markdown_table(kernel_table.HEADS, kernel_table.table_rows(rows))
            text = f"{facts}\n\nCeilings: {limits}.\n\n{targets}\n\n{table}\n"
            self.args.markdown.write_text(text, encoding="utf-8")
        return int(any(row.state in ("WRONG", "FAILED") for row in rows))


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    device = prepare(args)
    cases = chosen_cases(args.only)
    if args.warm:
        return be_worker(args.warm, cases, device)
    bench = Bench(args, cases, device)
    if not args.no_warm and not args.resume:
        warm_all(args, len(cases))
    bench.run()
    return bench.report()


if __name__ == "__main__":
    raise SystemExit(main())
