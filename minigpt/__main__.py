"""python -m minigpt: the smaller commands beside train.py and sample.py."""

import sys
from collections.abc import Callable, Sequence

from minigpt import config
from minigpt.corpus.config import CorpusConfig
from minigpt.runtime.console import one_line_errors

USAGE = """\
python -m minigpt COMMAND [...]

  doctor                 what this machine offers, what would be chosen, and why
  corpus [--data ...]    read, clean and split a corpus; print what was kept, what was dropped, and by which rule
  report RUN             draw a run's curves into RUN/report.html (extra: report)

Training and sampling are scripts of their own: python train.py --help, python sample.py --help"""


def doctor(argv: Sequence[str]) -> None:
    """Device, dtype, threads, memory, kernels: each choice with its reason."""
    from minigpt.runtime.doctor import examine

    if argv:
        raise ValueError(f"doctor takes no arguments, not {argv[0]!r}")
    print(examine())


def corpus(argv: Sequence[str]) -> None:
    """Counts of documents and characters, and what the cleaning rules dropped."""
    from minigpt.corpus.read import describe

    print(describe(config.from_command_line(CorpusConfig(), argv, "python -m minigpt corpus [--data ...]")))


def report(argv: Sequence[str]) -> None:
    """One self-contained page with the curves of a run."""
    from minigpt.training.report import write_report

    if len(argv) != 1 or argv[0].startswith("-"):
        raise ValueError("report needs one run folder: python -m minigpt report out/quick")
    print(write_report(argv[0]))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"doctor": doctor, "corpus": corpus, "report": report}


def main(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    name, *rest = argv
    if name not in COMMANDS:
        raise config.unknown("command", name, COMMANDS)
    COMMANDS[name](rest)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
