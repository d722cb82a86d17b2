"""The smaller commands beside train.py and sample.py: python -m minigpt COMMAND."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minigpt import config
from minigpt.chat.config import ChatConfig
from minigpt.compress.config import CompressConfig, in_full
from minigpt.corpus.config import CorpusConfig
from minigpt.export.config import ExportConfig
from minigpt.lessons.config import TasksTableConfig

USAGE = """\
python -m minigpt COMMAND [...]

  quickstart [--out-dir out/quickstart]    the whole recipe: from text to a model that answers, in minutes
  doctor                 what this machine offers, what would be chosen, and why
  corpus [--data ...]    read, clean and split a corpus; print what each rule dropped or changed, with examples
  tokenizer explain TEXT [--tokenizer PATH]    how a text becomes tokens, merge by merge
  tokenizer train [--data ...] [--vocab-size N]    a tokenizer alone, as Hugging Face and tiktoken read it
  report RUN             draw a run's curves into RUN/report.html (extra: report)
  lessons [tasks | preferences] [--side SIDE]    what the project teaches by itself: counts and examples
  grade RUN [--families NAMES]    how many held-out tasks of the lessons a run solves
  compress RUN [--int8 | --int4 [--gptq]] [--prune SHARE]    a smaller model beside it, and what that costs
  chat [RUN] [--system TEXT]    talk with a run that has learned to chat; none: the newest
  export RUN [--to hf|gguf]    for other programs: transformers and vLLM, or llama.cpp (extra: export)

Training and sampling are scripts of their own: python train.py --help, python sample.py --help"""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    tokenizer: str | None = None  # folder or file of a tokenizer; none: the newest run's


@dataclass(frozen=True, kw_only=True)
class CorpusRun:
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    workers: int | None = None  # processes that clean a large corpus; none: one per core. The result is the same

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}: at least one process must clean")


@dataclass(frozen=True, kw_only=True)
class TokenizerRun:
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    pattern: Literal["gpt2", "cl100k", "o200k"] = "cl100k"  # how text is cut before merging: GPT-2's, 4's or 4o's rule
    vocab_size: int = 4096  # ids, <|endoftext|> among them
    out_dir: str = "out/tokenizer"  # where tokenizer.json and ranks.tiktoken go


def doctor(argv: Sequence[str]) -> None:
    """Device, dtype, threads, memory, kernels, engine: each choice with its reason."""
    help_asked(argv, "doctor", "what this machine offers, what would be chosen, and why")
    if argv:
        raise ValueError(f"doctor takes no arguments, not {argv[0]!r}")
    from minigpt.engine import compiler
    from minigpt.runtime.doctor import examine

    print(examine([compiler.explain()]))


def corpus(argv: Sequence[str]) -> None:
    """Counts of documents, characters and bytes, and what each rule of cleaning did, with examples."""
    from minigpt.corpus.read import describe

    wish = config.from_command_line(CorpusRun(), argv, "python -m minigpt corpus [--data ...]")
    print(describe(wish.corpus, wish.workers or os.cpu_count() or 1))


def tokenizer(argv: Sequence[str]) -> None:
    """Look into a tokenizer, or train one by itself."""
    help_asked(argv[:1], "tokenizer explain | train", "look into a tokenizer, or train one; each has its own --help")
    if not argv:
        raise ValueError("tokenizer needs explain or train: python -m minigpt --help shows both")
    if argv[0] not in TOKENIZER_COMMANDS:
        raise config.unknown("tokenizer command", argv[0], TOKENIZER_COMMANDS)
    TOKENIZER_COMMANDS[argv[0]](argv[1:])


def explain_tokens(argv: Sequence[str]) -> None:
    """The cuts, the merges in their order, the ids; coloured in a terminal."""
    from minigpt.completion import newest_run
    from minigpt.tokenizer import Tokenizer
    from minigpt.tokenizer.explain import explain

    usage = "python -m minigpt tokenizer explain TEXT [--tokenizer PATH]"
    if argv[:1] in (["-h"], ["--help"]):
        config.from_command_line(ExplainConfig(), argv, usage)  # prints it
    dashes = argv[:1] == ["--"]  # what follows is the text, also if it begins with dashes
    argv = argv[dashes:]
    if not argv or (argv[0].startswith("--") and not dashes):
        example = 'python -m minigpt tokenizer explain "Some text"; explain -- "--text" if it begins with dashes'
        raise ValueError(f"explain needs a text: {example}")
    wish = config.from_command_line(ExplainConfig(), argv[1:], usage)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(explain(Tokenizer.load(wish.tokenizer or newest_run(None)), argv[0], colour=colour))


def train_tokenizer(argv: Sequence[str]) -> None:
    """tokenizer.json and ranks.tiktoken, from the training side of a corpus."""
    from minigpt.corpus.read import open_corpus
    from minigpt.runtime.whole import must_be_writable
    from minigpt.tokenizer import Tokenizer

    wish = config.from_command_line(TokenizerRun(), argv, "python -m minigpt tokenizer train [--data ...]")
    must_be_writable(Path(wish.out_dir))
    texts = (document.text for document in open_corpus(wish.corpus).train())
    trained = Tokenizer.train(texts, wish.vocab_size, pattern=wish.pattern, progress=True)
    trained.save(wish.out_dir)
    trained.to_tiktoken(Path(wish.out_dir) / "ranks.tiktoken")
    print(f"{wish.out_dir}: {trained.n_vocab:,} tokens. Use it with: python train.py --tokenizer {wish.out_dir}")


def report(argv: Sequence[str]) -> None:
    """One self-contained page with the curves of a run."""
    help_asked(argv, "report RUN", "draw a run's curves into RUN/report.html (extra: report)")
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ValueError("report needs one run folder: python -m minigpt report out/quick")
    from minigpt.training.report import write_report

    print(write_report(argv[0]))


def export(argv: Sequence[str]) -> None:
    """A folder for transformers and vLLM, or a file for llama.cpp."""
    run, wish = run_and_wish(ExportConfig(), argv, "export RUN [--to hf|gguf]", "export out/quick --to gguf")
    from minigpt.export.command import export_run

    print(export_run(run, wish))


def lessons(argv: Sequence[str]) -> None:
    """Conversations, or tasks, or preferences, that the project makes itself: how many, and what they look like."""
    if argv and not argv[0].startswith("-") and argv[0] not in LESSON_COMMANDS:
        raise config.unknown("kind of lesson", argv[0], LESSON_COMMANDS)
    if argv and argv[0] in LESSON_COMMANDS:
        LESSON_COMMANDS[argv[0]](argv[1:])
        return
    from minigpt.lessons.conversations import main as conversations

    conversations(argv)


def grade(argv: Sequence[str]) -> None:
    """Held-out problems, combinations that were never trained, and longer ones; with intervals and baselines."""
    from minigpt.finetune.config import GradeConfig  # only now: it imports numpy, which others do without

    run, wish = run_and_wish(GradeConfig(), argv, "grade RUN [--families NAMES] [--asked N]", "grade out/tasks")
    from minigpt.finetune.grade import grade_run

    print(grade_run(run, wish))


def lesson_tasks(argv: Sequence[str]) -> None:
    """An example of each family, and what needs no understanding to reach."""
    from minigpt.lessons.tasks_table import describe_tasks

    usage = "python -m minigpt lessons tasks [--side ...]"
    print(describe_tasks(config.from_command_line(TasksTableConfig(), argv, usage)))


def lesson_preferences(argv: Sequence[str]) -> None:
    """Pairs of answers, one better by a known rule."""
    from minigpt.lessons.preference_file import main as preferences

    preferences(argv)


def compress(argv: Sequence[str]) -> None:
    """A smaller model in a folder of its own, and a table: bytes, bits per byte, tokens per second."""
    usage = "compress RUN [--int8 | --int4 | --int3] [--gptq] [--prune SHARE [--recover STEPS]]"
    run, wish = run_and_wish(CompressConfig(), in_full(argv), usage, "compress out/quick --int8")
    from minigpt.compress.command import compress_run

    print(compress_run(run, wish).report)


def chat(argv: Sequence[str]) -> None:
    """A conversation in the terminal; through a pipe, each line is a turn."""
    named = bool(argv) and not argv[0].startswith("-")
    usage = "python -m minigpt chat [RUN] [--flag value ...]"
    wish = config.from_command_line(ChatConfig(), argv[1:] if named else argv, usage)
    from minigpt.chat.console import talk

    talk(argv[0] if named else None, wish)


def quickstart(argv: Sequence[str]) -> None:
    """Corpus, tokenizer, pre-training, fine-tuning, preferences, exam, int8, chat; the same line goes on."""
    from minigpt.quickstart.config import QuickstartConfig  # as above

    wish = config.from_command_line(QuickstartConfig(), argv, "python -m minigpt quickstart [--flag value ...]")
    from minigpt.quickstart.command import run_recipe

    run_recipe(wish)


def help_asked(argv: Sequence[str], usage: str, does: str) -> None:
    """--help of a command without settings: print it and exit with status 0."""
    if {"-h", "--help"} & set(argv):
        print(f"python -m minigpt {usage}\n\n{does}")
        sys.exit(0)


def run_and_wish(defaults: config.Config, argv: Sequence[str], usage: str, example: str) -> tuple[str, config.Config]:
    """The run that a command names first, and what its flags ask for; --help needs no run.

    Raises: ValueError for flags that do not fit, and where no run is named: `example` shows how.
    """
    named = bool(argv) and not argv[0].startswith("-")
    wish = config.from_command_line(defaults, argv[1:] if named else argv, f"python -m minigpt {usage}")
    if not named:
        command = example.partition(" ")[0]
        raise ValueError(f"{command} needs one run folder or checkpoint: python -m minigpt {example}")
    return argv[0], wish


Command = Callable[[Sequence[str]], None]
COMMANDS: dict[str, Command] = {
    "quickstart": quickstart, "doctor": doctor, "corpus": corpus, "tokenizer": tokenizer, "report": report,
    "lessons": lessons, "grade": grade, "compress": compress, "chat": chat, "export": export,
}  # fmt: skip
LESSON_COMMANDS: dict[str, Command] = {"tasks": lesson_tasks, "preferences": lesson_preferences}
TOKENIZER_COMMANDS: dict[str, Command] = {"explain": explain_tokens, "train": train_tokenizer}


def main(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    name, *rest = argv
    if name not in COMMANDS:
        raise config.unknown("command", name, COMMANDS)
    COMMANDS[name](rest)
