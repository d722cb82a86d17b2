"""Which device, which dtype, how many threads, how much memory: each choice with its reason."""

import contextlib
import ctypes
import importlib.util
import os
import platform
import sys
from typing import NamedTuple

import torch
from torch import nn

from minigpt.runtime.config import MachineConfig
from minigpt.runtime.console import say


class Choice(NamedTuple):
    """A decision and why it was taken, for `python -m minigpt doctor`."""

    value: str
    reason: str


def choose_device(name: str) -> Choice:
    """`auto` takes the fastest kind that is there; a named device must exist.

    Raises: ValueError naming what this machine has.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        if cuda:
            return Choice("cuda", f"found {torch.cuda.get_device_name(0)}")
        if mps:
            return Choice("mps", "found Apple's Metal; CUDA is not there")
        return Choice("cpu", "neither CUDA nor Metal was found")
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = "unknown"
    present = {"cpu": True, "cuda": cuda, "mps": mps}
    if not present.get(kind, False):
        here = ", ".join(device for device, there in present.items() if there)
        raise ValueError(f"--device {name}: this machine offers {here}")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, counted from 0")
    return Choice(name, "asked for")


def choose_dtype(name: str, device: torch.device) -> Choice:
    """The dtype of activations and of the weights' working copies; the weights themselves stay float32."""
    if name != "auto":
        if name == "float64" and device.type == "mps":
            raise ValueError("--dtype float64: Metal has no float64; use float32, or --device cpu")
        return Choice(name, "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bfloat16", "tensor cores; float32's range, so no loss scaling")
        return Choice("float16", "tensor cores without bfloat16; losses are scaled")
    return Choice("float32", f"the safe choice on {device.type}; --dtype bfloat16 may be faster here: measure")


def set_threads(threads: int | None) -> int:
    """How many CPU threads torch uses: as asked, else torch's default shared among the processes of this machine."""
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Ask Linux's C library to keep large blocks that a tensor has left, for the next tensor.

    By default it gives each back to the system, which must hand out zeroed pages again at the next operation. With
    this a training step on two cores takes 0.91 of the time (median of six pairs, 0.80 to 1.04), and no more memory.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc: nothing to ask
            mallopt = ctypes.CDLL("libc.so.6").mallopt
            mallopt(-1, 2**30)  # M_TRIM_THRESHOLD: give back only when more than this is free at the top
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the largest that glibc accepts


def environment(device: torch.device) -> dict[str, str]:
    """What must be equal for two runs to be equal to the last bit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " " + cpu_name()
    return {"torch": torch.__version__, "device": f"{device.type}: {name}", "threads": str(torch.get_num_threads())}


def cpu_name() -> str:
    """The processor's name with its vector extensions, which decide how sums are ordered."""
    return f"{platform.processor() or 'cpu'} {torch.backends.cpu.get_cpu_capability()}"


def free_memory(device: torch.device) -> int | None:
    """Bytes that a new tensor could use on this device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most bytes this process has held so far, under the name metrics.jsonl uses; empty where unknown."""
    if device.type == "cuda":
        return {"mem": torch.cuda.max_memory_allocated(device)}
    try:
        import resource  # absent on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return {"mem": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    except ImportError:
        return {}


def compile_model(model: nn.Module, config: MachineConfig, device: torch.device) -> nn.Module:
    """torch.compile from outside. `auto` compiles on CUDA only: on a CPU the minutes of compiling rarely pay."""
    if config.compile == "off" or (config.compile == "auto" and device.type != "cuda"):
        return model
    if config.compile == "auto" and importlib.util.find_spec("triton") is None:
        say("note: not compiled, because triton is not installed; --compile on insists")
        return model
    return torch.compile(model)
