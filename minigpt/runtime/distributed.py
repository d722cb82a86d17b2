"""One process or many, behind one small `Group`: one process is also a group.

`torchrun --nproc-per-node 2 train.py` starts this program twice and says so through the environment (RANK,
WORLD_SIZE, LOCAL_RANK). Each process takes its rows of every batch; gradients are averaged once a step; only rank 0
writes. Tensors travel by NCCL between GPUs and by gloo between CPUs; decisions ("shall we stop?") always by gloo, so
that asking never waits for a GPU.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes that train one model together."""

    rank: int
    world: int
    device: torch.device
    control: Any = None  # gloo group for decisions; None where there is one process

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with its gradients averaged over the group during backward; alone, the model itself."""
        if self.world == 1:
            return model
        return DistributedDataParallel(model, gradient_as_bucket_view=True)

    def sync_only_if(self, last: bool, model: nn.Module) -> AbstractContextManager:
        """Average gradients in the last micro-batch of a step only: once a step, not once a backward."""
        return nullcontext() if last or self.world == 1 else model.no_sync()

    def mean(self, value: float) -> float:
        """The mean of one number over the group, the same on every rank."""
        return self._reduce(value, dist.ReduceOp.SUM) / self.world

    def most(self, value: int) -> int:
        """The largest of one integer over the group: how the processes agree on a signal."""
        return int(self._reduce(float(value), dist.ReduceOp.MAX))

    def _reduce(self, value: float, op: Any) -> float:
        if self.world == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(number, op, group=self.control)
        return number.item()

    def main_decides(self, decide: Callable[[], T]) -> T:
        """Rank 0 does the work, every rank gets the answer: one prepares, all read.

        If rank 0 fails, it says why, and the others stop too instead of waiting for ever.
        """
        if self.world == 1:
            return decide()
        answer: list[Any] = [None, True]  # (value, failed)
        try:
            if self.is_main:
                answer = [decide(), False]
        finally:
            dist.broadcast_object_list(answer, src=0, group=self.control)
        value, failed = answer
        if failed:
            raise SystemExit(2)
        return value


def launcher() -> str:
    """What stands before a script on the line that started as many processes as there are."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return "python" if world == 1 else f"torchrun --nproc-per-node {world}"


@contextmanager
def group(device: torch.device) -> Iterator[Group]:
    """Join the group that torchrun's environment describes; without torchrun, a group of one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Group(0, 1, device)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    control = dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD
    try:
        yield Group(rank, world, device, control)
    finally:
        dist.destroy_process_group()
