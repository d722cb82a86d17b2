"""One of Hopper's multiprocessors in Python: Gluon kernels that nothing here could run, run as unluckily as may be.

Triton's interpreter knows no Gluon, whose kernels are programs of several parts that run at the same time: copies
arrive some time after they were begun, matrix products read their operands some time after they were begun, and only
barriers order them. So here the parts take turns by lot, and what was begun and not yet waited for happens at a time
drawn by lot: at once, late, or as late as the program allows. Memory that nobody has written, and memory into which a
copy is on its way, is NaN.

    run(launch, source, seed)     raises Stuck where all wait for something that will not come

A launch is what `kernels.launch.on_paper` wrote down of an op's own call, with real tensors.

What is checked beyond the numbers: results used before they were waited for, or never waited for; memory written by
threads and read by copies or products without a fence; barriers with more arrivals than they count; a part that ends
before its stores were read, a program that ends before its copies arrived; addresses that do not exist. What is not:
registers and layouts (the compiler's, see `kernels.machine_code`), numbers of 32 bits, and time.
"""

import ast
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kernels.launch import Launch


class Stuck(Exception):
    """Everybody waits."""


class Misuse(Exception):
    """What the hardware forbids, or leaves undefined."""


class Part:
    """One part of the program: a group of warps, with the products it has begun, oldest first, and its stores."""

    def __init__(self, machine: "Machine", function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.machine, self.name = machine, function.__name__
        self.products: list[Product] = []
        self.stores: list[Callable[[], None]] = []
        self.until: Callable[[], bool] = lambda: True
        self.turn, self.done, self.error = threading.Semaphore(0), False, None
        self.thread = threading.Thread(target=self._work, args=(function, arguments), daemon=True)
        self.thread.start()

    def _work(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.turn.acquire()
        try:
            if not self.machine.over:
                function(*arguments)
            if self.products and not self.machine.over:
                raise Misuse("it ends before its products were waited for")
            if self.stores and not self.machine.over:
                raise Misuse("it ends before its stores were read: their memory may be another program's by then")
        except BaseException as error:  # told by whoever waits for this part
            self.error = error
        self.done = True
        self.machine.turn.release()

    def pause(self, until: Callable[[], bool] = lambda: True) -> None:
        """Let others go first, and come back when `until` is true."""
        self.until = until
        self.machine.turn.release()
        self.turn.acquire()
        if self.machine.over:
            raise SystemExit


class Product:
    """A matrix product on its way: it reads its operands when it happens."""

    def __init__(self, a: Any, b: "Memory", c: Tensor | None) -> None:
        self.operands, self.value = (a, b, c), None

    def happen(self) -> None:
        a, b, c = self.operands
        product = (a.value if isinstance(a, Memory) else a).float() @ b.value.float()
        self.value = registers(product if c is None else product + c)


class Machine:
    """One program of the grid."""

    def __init__(self, program: int, seed: int) -> None:
        self.program, self.random = program, Random(seed)
        self.patience = self.random.choice([0.0, 0.5, 1.0])   # how likely a part goes before something on its way
        self.turn, self.over = threading.Semaphore(0), False
        self.copies: list[Callable[[], None]] = []
        self.unfenced: list[Any] = []
        self.part: Part | None = None

    def run(self, parts: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
        """All of them, in turns."""
        if self.unfenced:
            raise Misuse("barriers are initialised without a fence: the copying unit does not know them")
        team = [Part(self, *each) for each in parts]
        try:
            while not all(part.done for part in team):
                ready = [part for part in team if not part.done and part.until()]
                coming = list(self._coming(team))
                if not ready and not coming:
                    raise Stuck(", ".join(part.name for part in team if not part.done))
                if coming and (not ready or self.random.random() >= self.patience):
                    self.random.choice(coming)()
                    continue
                if self.random.random() < 0.2:
                    self.random.shuffle(team)  # who goes first goes on for a while: mistakes need one far ahead
                self.part = min(ready, key=team.index)
                self.part.turn.release()
                self.turn.acquire()
                if self.part.error is not None:
                    raise self.part.error
            if self.copies:
                raise Misuse("it ends before copies arrive: their memory may be another program's by then")
        finally:
            self.over = True
            for part in team:
                part.turn.release()

    def must_be_fenced(self, memory: Any) -> None:
        """Before a unit beside the threads reads it."""
        if isinstance(memory, Memory) and any(memory.whole is each for _, each in self.unfenced):
            raise Misuse("memory written by threads is read without a fence")

    def _coming(self, team: list[Part]) -> Iterator[Callable[[], None]]:
        """What could happen next by itself: any copy, and each part's oldest product."""
        for pending in (self.copies, *(part.stores for part in team)):
            yield from (lambda at=at, pending=pending: pending.pop(at)() for at in range(len(pending)))
        for part in team:
            waiting = [product for product in part.products if product.value is None]
            if waiting:
                yield waiting[0].happen


# --- memory and barriers ------------------------------------------------------------------------------------------


class Memory:
    """A view of shared memory."""

    def __init__(self, machine: Machine, value: Tensor, whole: Any = None) -> None:
        self.machine, self.value, self.whole = machine, value, self if whole is None else whole

    def index(self, i: int) -> "Memory":
        return Memory(self.machine, self.value[i], self.whole)

    def reshape(self, shape: list[int]) -> "Memory":
        return Memory(self.machine, self.value.view(shape), self.whole)

    def permute(self, order: list[int]) -> "Memory":
        return Memory(self.machine, self.value.permute(order), self.whole)

    def store(self, value: Tensor) -> None:
        self.value.copy_(value)
        self.machine.unfenced.append((self.machine.part, self.whole))


class Barrier:
    """Counts arrivals and bytes; when both are complete, its round is over."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.count, self.phase, self.arrived, self.bytes = machine, 0, 0, 0, 0

    def index(self, i: int) -> "Barrier":
        assert i == 0
        return self

    def add(self, arrivals: int, more: int) -> None:
        self.arrived, self.bytes = self.arrived + arrivals, self.bytes + more
        if not 0 < self.count >= self.arrived:
            raise Misuse(f"{self.arrived} arrivals at a barrier that counts {self.count}")
        if self.arrived == self.count and self.bytes == 0:
            self.phase, self.arrived = 1 - self.phase, 0


class Barriers(list):
    def index(self, i: int) -> Barrier:
        return self[i]


class Tiles:
    """What a descriptor says: tiles (1, 1, rows, D) of (B, H, T, D), 0 beyond its ends. Counts the copies made."""

    def __init__(self, descriptor: Any) -> None:
        base, self.copies = descriptor.base, 0
        self.tensor = base.as_strided(descriptor.shape, descriptor.strides, base.storage_offset())
        self.dtype, self.layout = base.dtype, None
        shape = descriptor.block_shape
        self.block_type = SimpleNamespace(shape=shape, nbytes=math.prod(shape) * base.element_size())

    def rows(self, at: list[int]) -> Tensor:
        if min(at) < 0 or at[0] >= self.tensor.size(0) or at[1] >= self.tensor.size(1):
            raise Misuse(f"a tile at {at} of {tuple(self.tensor.shape)}")
        return self.tensor[at[0], at[1], at[2] : at[2] + self.block_type.shape[2]]


class Pointer:
    def __init__(self, tensor: Tensor, offset: Any = 0) -> None:
        self.tensor, self.offset = tensor.view(-1), offset

    def __add__(self, more: Any) -> "Pointer":
        return Pointer(self.tensor, self.offset + more)

    def numbers(self) -> Tensor:
        """Where in the tensor."""
        at = self.offset.as_subclass(Tensor)
        if at.min() < 0 or at.max() >= len(self.tensor):
            raise Misuse(f"numbers {at.min()} to {at.max()} of {len(self.tensor)}")
        return at


class Registers(Tensor):
    """A tensor with a layout, of which nothing is asked."""

    type = SimpleNamespace(layout=None)


def registers(x: Tensor) -> Tensor:
    return x.as_subclass(Registers)


# --- the language -------------------------------------------------------------------------------------------------


def copying(machine: Machine) -> dict[str, Any]:
    """The copying unit: it begins, and what it copies comes later."""

    def load(tiles: Tiles, at: list[int], barrier: Barrier, memory: Memory) -> None:
        memory.value.fill_(math.nan)  # from here on it may be anything
        tiles.copies += 1

        def arrive() -> None:
            rows = tiles.rows(at)
            memory.value.zero_()
            memory.value[0, 0, : len(rows)] = rows
            barrier.add(0, -tiles.block_type.nbytes)

        machine.copies.append(arrive)
        machine.part.pause()

    def store(tiles: Tiles, at: list[int], memory: Memory) -> None:
        def leave() -> None:
            rows = tiles.rows(at)
            rows.copy_(memory.value[0, 0, : len(rows)])

        machine.must_be_fenced(memory)
        machine.part.stores.append(leave)
        machine.part.pause()

    def store_wait(pendings: int) -> None:
        machine.part.pause(lambda part=machine.part: len(part.stores) <= pendings)

    return {"load": load, "store": store, "tma": SimpleNamespace(store_wait=store_wait)}


def multiplying(machine: Machine) -> dict[str, Any]:
    """The matrix units."""

    def begin(a: Any, b: Memory, c: Tensor, *, use_acc: bool = True, is_async: bool = False) -> Product:
        if isinstance(c, Product):
            raise Misuse("a product is used before it was waited for")
        machine.must_be_fenced(a)
        machine.must_be_fenced(b)
        product = Product(a, b, c if use_acc else None)
        machine.part.products.append(product)
        machine.part.pause()
        return product

    def finish(outstanding: int, deps: tuple[Product, ...]) -> Any:
        begun = machine.part.products
        for product in begun[: len(begun) - outstanding]:
            if product.value is None:
                product.happen()
        del begun[: len(begun) - outstanding]
        if any(product.value is None or product in begun for product in deps):
            raise Misuse("a product is used before it was waited for")
        machine.part.pause()
        return deps[0].value if len(deps) == 1 else tuple(product.value for product in deps)

    return {"warpgroup_mma": begin, "warpgroup_mma_wait": finish}


def keeping_order(machine: Machine) -> dict[str, Any]:
    """Barriers and fences."""

    def init(barrier: Barrier, count: int) -> None:
        barrier.count = count
        machine.unfenced.append((machine.part, barrier))

    def arrive(barrier: Barrier, count: int) -> None:
        barrier.add(count, 0)
        machine.part.pause()

    def wait(barrier: Barrier, phase: int) -> None:
        machine.part.pause(lambda: barrier.phase != phase)

    def fence() -> None:
        machine.unfenced[:] = [each for each in machine.unfenced if each[0] is not machine.part]

    mbarrier = SimpleNamespace(
        MBarrierLayout=nothing, init=init, wait=wait, expect=lambda barrier, count: barrier.add(1, count),
        arrive=arrive,
    )  # fmt: skip
    return {"mbarrier": mbarrier, "fence_async_shared": fence}


def language(machine: Machine) -> dict[str, Any]:
    """The names that a kernel uses, for one program."""

    def allocate(dtype: Any, shape: list[int], layout: Any) -> Any:
        if dtype is torch.int64:
            barriers = Barriers(Barrier(machine) for _ in range(shape[0]))
            return barriers if len(shape) > 1 else barriers[0]
        return Memory(machine, torch.full(shape, math.nan, dtype=dtype))

    def read(pointer: Pointer) -> Tensor:
        return registers(pointer.tensor[pointer.numbers()])

    def write(pointer: Pointer, value: Tensor) -> None:
        pointer.tensor[pointer.numbers()] = value.as_subclass(Tensor)

    gl = SimpleNamespace(
        constexpr=same, int64=torch.int64, float32=torch.float32, program_id=lambda axis: machine.program,
        static_range=range, cast=lambda x, dtype: x, cdiv=lambda a, b: -(-a // b), minimum=low, maximum=high,
        arange=lambda start, end, layout=None: registers(torch.arange(start, end)),
        full=lambda shape, value, dtype, layout=None: registers(torch.full(shape, value, dtype=dtype)),
        max=lambda x, axis: x.amax(axis), sum=lambda x, axis: x.sum(axis), where=where, exp2=torch.exp2,
        log2=torch.log2, convert_layout=lambda x, layout: x, load=read, store=write, allocate_shared_memory=allocate,
        warp_specialize=lambda parts, warps, registers: machine.run(parts),
        NVMMADistributedLayout=nothing, DotOperandLayout=nothing, SliceLayout=nothing,
    )  # fmt: skip
    return {
        **copying(machine), **multiplying(machine), **keeping_order(machine), "gl": gl, "tl": gl,
        "gluon": SimpleNamespace(jit=same), "triton": SimpleNamespace(jit=same),
        "LOG2E": math.log2(math.e), "LN2": math.log(2), "NOTHING_YET": -1e30,
    }  # fmt: skip


def low(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) else torch.minimum(a, b)


def high(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) else torch.maximum(a, b)


def where(condition: Tensor, a: Any, b: Any) -> Tensor:
    return registers(torch.where(condition, a, b))


def same(x: Any) -> Any:
    return x


def nothing(*args: Any, **kwargs: Any) -> None:
    return None


# --- a kernel -----------------------------------------------------------------------------------------------------


def kernel_source(*paths: Path) -> str:
    """The functions and constants of kernels in these files, without what runs on the host."""
    kept = []
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = ast.unparse(node)
            jitted = isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in node.decorator_list)
            if jitted or (isinstance(node, ast.Assign) and "gl.constexpr(" in text):
                kept.append(text)
    return "\n\n".join(kept)


def run(launch: Launch, source: str, seed: int) -> dict[str, Any]:
    """Every program of the grid, one after the other. Returns the arguments as the kernel saw them.

    Raises: Stuck, Misuse, and whatever the kernel raises.
    """
    arguments = {name: seen(x) for name, x in launch.arguments.items()}
    for program in range(launch.grid[0]):
        names = language(Machine(program, 1000 * seed + program))
        exec(compile(source, "<kernel>", "exec"), names)
        names[launch.kernel.fn.__name__](**arguments)
    return arguments


def seen(x: Any) -> Any:
    if isinstance(x, Tensor):
        return Pointer(x)
    return Tiles(x) if hasattr(x, "block_shape") else x
