"""python -m minigpt chat: a conversation in the terminal; or through a pipe, where each line is a turn.

Answers go to standard output, all else to standard error.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, suppress

from minigpt.chat.config import ChatConfig
from minigpt.chat.session import Session
from minigpt.chat.template import missing_tokens
from minigpt.completion import load_run, newest_run
from minigpt.engine.engine import Engine
from minigpt.model.gpt import parameter_count
from minigpt.runtime.console import say
from minigpt.runtime.interrupt import Interrupt

HELP = """\
/reset   begin again: nothing of the conversation is remembered
/undo    take the last turn back
/quit    end; so does Ctrl+D. Ctrl+C stops the answer that is being written
Anything else is said to the model; to say something that begins with /, put a space before it."""


def talk(run: str | None, wish: ChatConfig) -> None:
    """Talk with the model of a run; none: the newest.

    Raises: ValueError for a folder without a model, for a model that only completes text, and, where a pipe feeds the
            chat, for a message that is too long.
    """
    session = open_session(run, wish)
    terminal = sys.stdin.isatty()
    for line in _typed() if terminal else _piped():
        if line.startswith("/"):
            if not _obey(session, line.strip()):
                return
        elif line.strip():
            try:
                _answer(session, line, terminal)
            except ValueError as error:
                if not terminal:
                    raise
                say(f"error: {error}")


def open_session(run: str | None, wish: ChatConfig) -> Session:
    """The model of a run, ready to talk. Raises: as talk."""
    folder = newest_run(run)
    model, tokenizer = load_run(folder, wish.machine, wish.engine)
    if missing := missing_tokens(tokenizer):
        raise ValueError(
            f"{folder} completes text and has not learned to chat: its tokenizer has no {', '.join(missing)}. "
            f"python train.py sft teaches a run to chat; python sample.py --run {folder} lets this one write"
        )
    say(f"{folder}: {parameter_count(model.config):,} parameters. /help shows what else can be said")
    engine = Engine(model, wish.engine)
    return Session(engine, tokenizer, system=wish.system, sampling=wish.sampling, seed=wish.machine.seed)


def _typed() -> Iterator[str]:
    """Lines from a terminal, until Ctrl+D. Ctrl+C gives up the line, not the chat."""
    with suppress(ImportError):
        import readline  # noqa: F401  arrow keys, and earlier lines
    while True:
        try:
            yield input("> ")
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("\n[/quit or Ctrl+D ends the chat]")


def _piped() -> Iterator[str]:
    return (line.removesuffix("\n") for line in sys.stdin)


def _obey(session: Session, command: str) -> bool:
    """Do what a line that begins with / says. False: end the chat."""
    match command:
        case "/quit" | "/exit":
            return False
        case "/reset":
            session.reset()
            say("[a new conversation]")
        case "/undo":
            say("[the last turn is taken back]" if session.undo() else "[there is no turn to take back]")
        case "/help":
            say(HELP)
        case _:
            say(f"[there is no {command}; /help shows what there is]")
    return True


def _answer(session: Session, text: str, terminal: bool) -> None:
    """Print an answer as it comes. Ctrl+C ends it, and where nobody can type, the chat; SIGTERM ends the chat."""
    before = session.forgotten
    pieces = session.say(text)
    if session.forgotten > before:
        say(f"[the context of {session.engine.shape.context_length} tokens is full: "
            f"the oldest turns are forgotten, {session.forgotten} by now]")  # fmt: skip
    with Interrupt() as interrupt, closing(pieces):
        for piece in pieces:
            print(piece, end="", flush=True)
            if interrupt.signal:
                break
    print(flush=True)
    if interrupt.signal == signal.SIGTERM:
        sys.exit(128 + signal.SIGTERM)
    if interrupt.signal and not terminal:
        raise KeyboardInterrupt
    notes = {"length": "cut: the limit on tokens is reached", "cancelled": "stopped"}
    if session.reason in notes:
        say(f"[{notes[session.reason]}]")
