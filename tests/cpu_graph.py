"""A CUDA graph without a GPU: operations written down with the very memory they read and wrote, and done again.

What a capture does on a GPU, `CPUGraphs` does here: it runs a step once and keeps every operation of torch, and every
launch of a Triton kernel, with its tensors. A replay does them again, in their order, on the same memory; Python is not
asked. Before each replay all that any record has computed is overwritten with nonsense, for records share their memory:
so whoever reads before it is written, or keeps a result from one replay to the next, is found.

It refuses what a capture refuses: to wait for a number, to make shapes of numbers, to bring in memory of the host.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from kernels import launch
from minigpt.engine.graphs import WARM_UPS, NotRecorded, Recorded

REFUSED = {  # operations by their name in the dispatcher
    **dict.fromkeys(("_local_scalar_dense", "equal"), "waits for a number"),
    **dict.fromkeys(("nonzero", "masked_select", "_unique2", "unique_dim"), "makes shapes of numbers"),
    **dict.fromkeys(("lift_fresh", "lift_fresh_copy", "resize_", "set_"), "brings in other memory"),
}
UNSEEN = {"tolist", "numpy", "__array__", "cpu", "cuda", "tensor", "as_tensor", "asarray", "from_numpy", "frombuffer"}
NONSENSE = -77


class Operation(NamedTuple):
    """Something done once: how to do it again, and the results that are memory of their own."""

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: dict[int, Tensor]  # by their place among the results; the others are views, or were written in place

    def again(self) -> None:
        results = tree_leaves(self.run(*self.args, **self.kwargs))
        for place, old in self.made.items():
            old.copy_(results[place])


class _Unseen(TorchFunctionMode):
    """Refuse the ways between host and device that do not reach the dispatcher where both are the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = getattr(func, "__name__", ""), [*args, *(kwargs or {}).values()]
        if name in UNSEEN or (name == "to" and any(isinstance(x, str | torch.device) for x in given)):
            raise NotRecorded(f"{name} moves numbers between host and device")
        if name in ("__getitem__", "__setitem__") and any(isinstance(x, list) for x in (args[1], *_several(args[1]))):
            raise NotRecorded(f"{name} with a list brings in memory of the host")
        return func(*args, **(kwargs or {}))


def _several(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else ()


class _Recorder(TorchDispatchMode):
    """Every operation within, and every launch."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, overload, kwargs = func.overloadpacket.__name__, func._overloadname, kwargs or {}
        if name in REFUSED:
            raise NotRecorded(f"{name} {REFUSED[name]}")
        if name in ("index", "index_put", "index_put_") and any(_is_mask(x) for x in args[1]):
            raise NotRecorded(f"{name} with a mask makes shapes of numbers")
        if (name, overload) in (("repeat_interleave", "Tensor"), ("repeat_interleave", "self_Tensor")):
            raise NotRecorded("repeat_interleave makes shapes of numbers")
        result = func(*args, **kwargs)
        given = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = {i: x for i, x in enumerate(tree_leaves(result)) if isinstance(x, Tensor) and _memory(x) not in given}
        self.operations.append(Operation(func, args, kwargs, made))
        return result

    def launch(self, *args: Any, **kwargs: Any) -> None:
        """In place of `kernels.launch.launch`: what Triton's interpreter does in memory, torch does not see."""
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            launch.launch(*args, **kwargs)
        self.operations.append(Operation(launch.launch, args, kwargs, {}))

    @contextmanager
    def everything(self) -> Iterator[None]:
        kernels = [module for name, module in sys.modules.items() if name.startswith("kernels.gpu.")]
        with ExitStack() as stack:
            for module in kernels:
                if hasattr(module, "launch"):
                    stack.enter_context(mock.patch.object(module, "launch", self.launch))
            # not in inference mode: there torch would show whole functions, and hide what they do
            for within in (torch.inference_mode(False), torch.no_grad(), _Unseen(), self):
                stack.enter_context(within)
            yield


def _is_mask(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class CPUGraphs:
    """`minigpt.engine.graphs.Record`, on a CPU; counts how often each record is replayed."""

    def __init__(self) -> None:
        self.records: list[list[Operation]] = []
        self.replays: list[int] = []

    def __call__(self, step: Callable[[], Tensor]) -> Recorded:
        for _ in range(WARM_UPS):
            step()
        recorder = _Recorder()
        with recorder.everything():
            result = step()
        self.records.append(recorder.operations)
        self.replays.append(0)
        return Recorded(result, partial(self._replay, len(self.records) - 1))

    def _replay(self, number: int) -> None:
        self.replays[number] += 1
        with torch.inference_mode(False), torch.no_grad():
            for record in self.records:
                for operation in record:
                    for x in operation.made.values():
                        x.fill_(NONSENSE)
            for operation in self.records[number]:
                operation.again()
