"""`python -m minigpt doctor`: what this machine offers, what would be chosen, and why."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

import kernels
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.device import choose_device, choose_dtype, cpu_name, free_memory, set_threads

EXTRAS = {"matplotlib": "report", "pyarrow": "data", "datasets": "data", "huggingface_hub": "hf"}


def examine(more: Sequence[tuple[str, str, str]] = ()) -> str:
    """Device, dtype, threads, memory, kernels, extras: one line each, with the reason; `more` from later rooms."""
    config = MachineConfig()
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, torch.device(device.value))
    free = free_memory(torch.device(device.value))
    rows = [
        ("python", platform.python_version(), platform.platform()),
        ("torch", torch.__version__, f"CPU: {cpu_name()}"),
        ("device", device.value, device.reason),
        ("dtype", dtype.value, dtype.reason),
        ("threads", str(set_threads(config.threads)), "torch's default here; --threads changes it"),
        ("memory", "unknown" if free is None else f"{free / 1e9:.1f} GB", f"free on {device.value} now"),
    ]
    rows += [("kernel", f"{op}: {choice}", reason) for op, choice, reason in kernels.explain()]
    rows += more
    rows += [("extra", f"{module}", _presence(module, extra)) for module, extra in EXTRAS.items()]
    width = max(len(value) for _, value, _ in rows)
    lines = [f"{name:<9}{value:<{width + 2}}{reason}" for name, value, reason in rows]
    return "\n".join([*lines, *warnings()])


def _presence(module: str, extra: str) -> str:
    found = importlib.util.find_spec(module) is not None
    return "installed" if found else f'missing: pip install "minigpt[{extra}]"'


def warnings() -> list[str]:
    """Hugging Face publishes a package that is called `kernels` too; whichever comes first on the path wins."""
    try:
        version = importlib.metadata.version("kernels")
    except importlib.metadata.PackageNotFoundError:
        return []
    ours = Path(__file__).parents[2] / "kernels"
    found = Path(kernels.__file__).parent
    which = "ours is found first here" if found == ours else f"theirs was found first, in {found}"
    return [f"warning: Hugging Face's package `kernels` {version} has the name of our folder ({which}): "
            f"`pip uninstall kernels`, or run from the project's folder"]  # fmt: skip
