"""Train a GPT: `python train.py` learns from text that every Python carries, on any machine, offline.

    python train.py                                    a few minutes; the same line resumes a stopped run
    python train.py quick --data notes/ --n-layer 8    your own text, another shape; see --help
    torchrun --nproc-per-node 2 train.py               several processes
"""

import sys

from minigpt import presets
from minigpt.runtime.console import one_line_errors, say


def main() -> int:
    run = presets.from_command_line()
    # torch is imported only now: --help and a mistyped flag are answered at once
    import torch

    from minigpt.completion import preview
    from minigpt.optim.groups import build_optimizer
    from minigpt.runtime import device, distributed
    from minigpt.runtime.precision import LossScaler
    from minigpt.training import pretrain, summary
    from minigpt.training.loop import Stopped, fit
    from minigpt.training.run_folder import open_run, write_run

    device.keep_freed_memory()
    device.set_threads(run.machine.threads)
    where = torch.device(device.choose_device(run.machine.device).value)
    dtype = getattr(torch, device.choose_dtype(run.machine.dtype, where).value)
    with distributed.group(where) as group:
        tell = say if group.is_main else lambda text: None  # one voice
        checkpoint = group.main_decides(lambda: open_run(run))  # None: a new run
        if summary.is_finished(run, checkpoint):
            tell(summary.already_finished(run))
            return 0
        data = pretrain.prepare_data(run, group)
        gpt = pretrain.build_model(run, data.tokenizer, checkpoint).to(group.device)
        stage = pretrain.prepare(run, gpt, data, group, dtype)
        optimizer = build_optimizer(gpt, run.optim)
        group.main_decides(lambda: write_run(run))
        tell(summary.before(run, gpt, data, dtype, group))
        try:
            progress = fit(stage, optimizer, run, group, scaler=LossScaler(enabled=dtype == torch.float16),
                           resume_from=checkpoint, sample=lambda: preview(gpt, data.tokenizer))  # fmt: skip
        except Stopped as stopped:
            tell(summary.how_to_resume(run))
            return stopped.status
        if group.is_main:  # only here are the last scores in the logbook for sure
            say(summary.after(run, progress, data))
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
