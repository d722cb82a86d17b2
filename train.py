"""Train a GPT: `python train.py` learns from text that every Python carries, on any machine, offline.

    python train.py                                    a few minutes; the same line resumes a stopped run
    python train.py quick --data notes/ --n-layer 8    your own text, another shape; see --help
    torchrun --nproc-per-node 2 train.py               several processes
"""

import sys

from minigpt.runtime.console import one_line_errors, say


def main() -> int:
    from minigpt import presets  # only now, where Ctrl+C is heeded: it imports numpy

    run = presets.from_command_line()
    # torch is imported only now: --help and a mistyped flag are answered at once
    from minigpt.completion import preview
    from minigpt.training import summary
    from minigpt.training.loop import Stopped
    from minigpt.training.run import machine, train

    with machine(run.machine) as (group, dtype):
        tell = say if group.is_main else lambda text: None  # one voice
        try:
            done = train(run, group, dtype, preview)  # folder -> stage -> optimizer -> fit
        except Stopped as stopped:
            tell(summary.how_to_resume(run))
            return stopped.status
        if done is None:
            tell(summary.already_finished(run))
        elif group.is_main:  # only here are the last scores in the logbook for sure
            say(summary.after(run, *done))
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
