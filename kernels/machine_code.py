"""What would the GPU run? Compile a launch for a GPU that is not there, and read the machine code back.

A kernel can be right and slow: numbers spilled from registers to memory, matrix products off the matrix units,
loads of one number at a time. The compiler needs no GPU, and its output says all of that:

    python -m kernels.machine_code            every launch in manifest.py, as a table; exit status 1 if one is amiss
    python -m kernels.machine_code attention  those whose name contains the word
    python -m kernels.machine_code --arch 89  for another GPU than an A100 (80) and an H100 (90): a consumer's, here

A launch is compiled with what Triton's just-in-time compiler would know about its arguments: which pointers and
numbers divide by 16, which are 1. Otherwise the code would be another than the one that runs.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import interpreter
from kernels.launch import Launch

SHARED_LIMIT = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}  # bytes a program may ask for (CUDA guide, table 30)
BOTH = (80, 90)  # for which everything must be as wanted
TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "i8", torch.uint8: "u8",
    torch.int32: "i32", torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip


class Report(NamedTuple):
    """What the machine code of one launch consists of."""

    registers: int     # per thread; 255 is the most there are
    stack: int         # bytes per thread in memory: registers that spilled
    spills: int        # instructions that read them back or write them
    shared: int        # bytes of shared memory
    wgmma: int         # Hopper's matrix instructions, four warps at a time
    mma: int           # the older ones, one warp at a time
    beside: int        # exponentials computed while a matrix product runs
    wide_loads: int    # loads from and stores to memory, 16 bytes at a time
    wide_stores: int
    narrow_loads: int  # and of less than that
    narrow_stores: int
    instructions: int
    seconds: float     # to compile


def compiled(launch: Launch, arch: int) -> Any:
    """Triton's compiled kernel, with its `asm` and `metadata`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        kind, divides = _specialised(value)
        if parameter.is_constexpr or value is None or (kind.startswith("i") and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = kind
        if divides and not parameter.do_not_specialize:
            attributes[(i,)] = [["tt.divisibility", 16]]
    language = GluonASTSource if launch.kernel.is_gluon() else ASTSource
    source = language(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {**launch.options, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def _specialised(value: Any) -> tuple[str, bool]:
    """Triton's name of the argument's type, and whether it divides by 16."""
    if isinstance(value, Tensor):
        return "*" + TYPES[value.dtype], value.storage_offset() * value.element_size() % 16 == 0
    if isinstance(value, bool):
        return "u1", False
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
    if hasattr(value, "block_shape"):  # rows that the GPU's copying unit finds
        return f"tensordesc<{TYPES[value.base.dtype]}{list(value.block_shape)},{value.layout!r}>", False
    return "fp32", False


def read(launch: Launch, arch: int) -> Report:
    """Compile, disassemble, count."""
    started = time.perf_counter()
    binary = compiled(launch, arch)
    seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary.asm["cubin"])
        usage = _tool("cuobjdump", "--dump-resource-usage", str(path))
        code = _tool("nvdisasm", "-c", str(path))
    while_one_runs = re.findall(r"DEPBAR\.LE gsb0, 0x1 .*?DEPBAR", code, re.DOTALL)
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()

    def count(pattern: str) -> int:
        return len(re.findall(pattern, code))

    wide_loads = count(r"\bLDG\.E\.128|\bLDGSTS\.E\.[\w.]*128|\bUTMALDG")
    wide_stores = count(r"\bSTG\.E\.128|\bUTMASTG")
    return Report(
        registers=int(registers), stack=int(stack), spills=count(r"\b(LDL|STL)\b"), shared=binary.metadata.shared,
        wgmma=count(r"\b[HIQ]GMMA\b"), mma=count(r"\b[HI]MMA\b"), beside="".join(while_one_runs).count("MUFU.EX2"),
        wide_loads=wide_loads, wide_stores=wide_stores,
        narrow_loads=count(r"\b(LDG|LDGSTS|UTMALDG)\b") - wide_loads,
        narrow_stores=count(r"\b(STG|UTMASTG)\b") - wide_stores, instructions=code.count(";"), seconds=seconds,
    )  # fmt: skip


def _tool(name: str, *arguments: str) -> str:
    """Run one of the disassemblers that come with Triton."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


# --- what is wanted -------------------------------------------------------------------------------------

SMALL_TILES = {  # kernels whose tiles have fewer rows than Hopper's matrix instructions take, 64
    "decode_attention._split_kernel": "one query, and the query heads of one key head",
    "quantized_linear._few_rows_kernel": "at most 16 rows",
}
NARROW = {  # kernels that hardly read: how wide does not matter
    "attention_tiles._document_tiles_kernel": "ids, once per tile",
    "decode_attention._merge_kernel": "a handful of parts",
}
OVERLAPPING = {  # kernels that begin a product and wait for it later: how many exponentials are to lie between
    "attention_hopper_forward._forward_kernel": 128,  # 64 weights a thread, in the code of each of the two consumers
    "attention_hopper_backward._dkdv_kernel": 64,
    "attention_hopper_backward._dq_kernel": 64,
}


class Row(NamedTuple):
    """One launch of one entry of the manifest, on one architecture."""

    entry: str
    kernel: str       # file and function
    arch: int
    multiplies: bool  # a product of tiles in half precision, which belongs on the matrix units
    report: Report
    amiss: list[str]  # what is not as wanted, in words


def amiss(kernel: str, arch: int, multiplies: bool, report: Report, *, stack: int, narrow: str) -> list[str]:
    """What is not as wanted. stack: bytes that may spill; narrow: why rows may be read in pieces, or ""."""
    found = []
    if report.stack > stack or (report.spills and not stack):
        found.append(f"registers spill: {report.stack} bytes, {report.spills} instructions")
    if report.shared > SHARED_LIMIT[arch]:
        found.append(f"{report.shared} bytes of shared memory, of {SHARED_LIMIT[arch]}")
    if multiplies and not report.wgmma + report.mma:
        found.append("a product of tiles runs beside the matrix units")
    if arch == 90 and report.mma and kernel not in SMALL_TILES:
        found.append(f"{report.mma} matrix instructions of the kind before Hopper's")
    if report.beside < OVERLAPPING.get(kernel, 0):
        found.append(f"{report.beside} exponentials run beside a product, of {OVERLAPPING[kernel]}")
    if not multiplies and not report.wide_loads and kernel not in NARROW and not narrow:
        found.append(f"none of {report.narrow_loads} loads is 16 bytes wide")
    if not multiplies and not report.wide_stores and report.narrow_stores > 2 and not narrow:
        found.append(f"none of {report.narrow_stores} stores is 16 bytes wide")
    return found


def rows_of(entry: str, arch: int) -> list[Row]:
    """Compile and read every launch of an entry."""
    from kernels.manifest import ENTRIES, launches_of

    rows = []
    for launch in launches_of(entry, arch):
        function = launch.kernel.fn
        kernel = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        tensors = [getattr(x, "base", x) for x in launch.arguments.values()]  # some within a descriptor of tiles
        half = any(isinstance(x, Tensor) and x.dtype.itemsize == 2 for x in tensors)
        multiplies = half and ("tl.dot(" in launch.kernel.src or launch.kernel.is_gluon())
        report, allowed = read(launch, arch), ENTRIES[entry]
        stack = allowed.stack_allowed(function.__name__, arch)
        wrong = amiss(kernel, arch, multiplies, report, stack=stack, narrow=allowed.narrow)
        rows.append(Row(entry, kernel, arch, multiplies, report, wrong))
    return rows


def all_rows(word: str = "", archs: tuple[int, ...] = BOTH, processes: int | None = None) -> Iterator[Row]:
    """The manifest's entries whose name contains `word`, in order, compiled on all cores."""
    from kernels.manifest import ENTRIES

    work = [(entry, arch) for entry in ENTRIES if word in entry for arch in archs]
    if not work:
        raise ValueError(f"no entry of the manifest contains {word!r}; there are: {', '.join(ENTRIES)}")
    with compiling_processes(processes) as pool:
        for rows in pool.map(rows_of, *zip(*work, strict=True)):
            yield from rows


def compiling_processes(count: int | None = None) -> concurrent.futures.ProcessPoolExecutor:
    """As many as there are cores, or `count`, that compile even where this one has started CUDA, or interprets."""
    context, count = multiprocessing.get_context("spawn"), count or os.cpu_count()
    return concurrent.futures.ProcessPoolExecutor(count, context, initializer=_compile_in_this_process)


def _compile_in_this_process() -> None:
    os.environ.pop(interpreter.VARIABLE, None)


def main() -> int:
    """Print the table; 1 if something is amiss."""
    parser = argparse.ArgumentParser(prog="python -m kernels.machine_code", description="Compile for GPUs not there.")
    parser.add_argument("word", nargs="?", default="", help="only entries whose name contains it")
    parser.add_argument("--arch", type=int, choices=SHARED_LIMIT, action="append", help="90 for 9.0; may be repeated")
    columns = "{:4} {:>9} {:>5} {:>6} {:>7} {:>5} {:>4} {:>9} {:>9} {:>6} {:>5}  {:38} {}"
    print(columns.format("arch", "registers", "stack", "spills", "shared", "wgmma", "mma", "loads", "stores", "instr.",
                         "s", "kernel", "entry; loads and stores: 16 bytes wide / narrower"))  # fmt: skip
    failures = 0
    try:
        args = parser.parse_args()
        for row in all_rows(args.word, tuple(args.arch or BOTH)):
            r = row.report
            loads, stores = f"{r.wide_loads}/{r.narrow_loads}", f"{r.wide_stores}/{r.narrow_stores}"
            print(columns.format(row.arch, r.registers, r.stack, r.spills, r.shared, r.wgmma, r.mma, loads, stores,
                                 r.instructions, f"{r.seconds:.1f}", row.kernel, row.entry), flush=True)  # fmt: skip
            failures += bool(row.amiss)
            for wrong in row.amiss:
                print(f"     amiss: {wrong}", flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{failures} launches are amiss" if failures else "every launch is as wanted")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
