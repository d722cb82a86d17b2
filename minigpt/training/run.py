"""One run, from its settings to a trained model: the stations between the command line and `fit`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from minigpt.model.gpt import GPT
from minigpt.optim.groups import build_optimizer
from minigpt.runtime import device, distributed
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.console import say
from minigpt.runtime.distributed import Group
from minigpt.runtime.folder_lock import FolderLock
from minigpt.runtime.precision import LossScaler
from minigpt.tokenizer import Tokenizer
from minigpt.training import summary
from minigpt.training.config import RunConfig
from minigpt.training.loop import Progress, fit
from minigpt.training.run_folder import open_run, write_run
from minigpt.training.stage import Prepared

Preview = Callable[[GPT, Tokenizer, Sequence[int]], str]  # what a model says to a prompt, to look at on the way


class Done(NamedTuple):
    progress: Progress
    prepared: Prepared


@contextmanager
def machine(settings: MachineConfig) -> Iterator[tuple[Group, torch.dtype]]:
    """The processes that train together, each on its device, and the dtype of activations there.

    Raises: ValueError for a device or a dtype that this machine does not offer.
    """
    device.keep_freed_memory()
    device.set_threads(settings.threads)
    where = torch.device(device.choose_device(settings.device).value)
    dtype = getattr(torch, device.choose_dtype(settings.dtype, where).value)
    with distributed.group(where) as group:
        yield group, dtype


def train(run: RunConfig, group: Group, dtype: torch.dtype, preview: Preview) -> Done | None:
    """Begin a run, or go on with it, up to its last step; the trained model lies in `run.out_dir`.

    None: the run had finished before, and nothing was done.
    Raises: Stopped after a signal, with everything saved; ValueError and OSError for what is wrong with settings, data
            or disk.
    """
    with FolderLock(Path(run.out_dir)) as lock:
        group.main_decides(lock.take)
        checkpoint = group.main_decides(lambda: open_run(run))  # None: a new run
        if summary.is_finished(run, checkpoint):
            return None
        prepared = run.stage.prepare(run, group, dtype, checkpoint)
        optimizer = build_optimizer(prepared.trained, run.optim)
        group.main_decides(lambda: lock.take(make=True))
        group.main_decides(lambda: write_run(run))
        if group.is_main:
            say(summary.before(run, prepared, dtype, group))
        progress = fit(prepared.stage, optimizer, run, group, scaler=LossScaler(enabled=dtype == torch.float16),
                       resume_from=checkpoint,
                       sample=lambda: preview(prepared.gpt, prepared.tokenizer, prepared.prompt))  # fmt: skip
        return Done(progress, prepared)
