"""The terminal: what is typed, what is printed where, and how one gets out."""

import io
import os
import select
import signal
import sys
import time

import pytest
import torch
from chat.talkers import BYTES, assistant, says, user
from scripts import ROOT

from minigpt.chat.extend import extended
from minigpt.chat.template import Template, with_chat_tokens
from minigpt.commands import main
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import save_pretrained
from minigpt.runtime.console import one_line_errors
from minigpt.tokenizer import Tokenizer

FLAGS = ("--temperature", "0", "--threads", "1", "--device", "cpu")


def run_folder(folder, gpt, tokenizer=BYTES):
    folder.mkdir()
    save_pretrained(gpt, folder)
    tokenizer.save(folder)
    return folder


def piped(lines, monkeypatch, run, *flags):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    main(["chat", str(run), *FLAGS, *flags])


class Typist(io.StringIO):
    """Somebody at a terminal: `input` gives the lines, then the end; an exception among them is raised."""

    def __init__(self, lines, monkeypatch):
        super().__init__()
        self.lines = iter(lines)
        monkeypatch.setattr(sys, "stdin", self)
        monkeypatch.setattr("builtins.input", self.input)

    def isatty(self):
        return True

    def input(self, prompt):
        line = next(self.lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


def test_through_a_pipe_each_line_is_a_turn(tmp_path, monkeypatch, capsys):
    """Answers alone on standard output, one to a line, so that a script can read them; blank lines say nothing."""
    run = run_folder(tmp_path / "run", says("né🙂!"))
    piped(["Hi", "", "  ", "Ho"], monkeypatch, run)
    out, err = capsys.readouterr()
    assert out == "né🙂!\nné🙂!\n"
    assert str(run) in err and "parameters" in err


def test_what_begins_with_a_slash_is_obeyed(tmp_path, monkeypatch, capsys):
    """And a space before it makes it a message."""
    run = run_folder(tmp_path / "run", says("ab"))
    lines = ["/undo", "Hi", "/undo", "/undo", "/reset", "/rest", "/help", " /quit", "/quit", "never"]
    piped(lines, monkeypatch, run)
    out, err = capsys.readouterr()
    assert out == "ab\nab\n"
    notes = [line.strip("[]") for line in err.splitlines() if line.startswith("[")]
    assert [note.split(";")[0] for note in notes] == [
        "there is no turn to take back", "the last turn is taken back", "there is no turn to take back",
        "a new conversation", "there is no /rest",
    ]  # fmt: skip
    assert all(f"\n{command} " in err for command in ("/reset", "/undo", "/quit"))
    piped(["Hi", "/exit", "never"], monkeypatch, run)  # what other chats taught the fingers
    assert capsys.readouterr().out == "ab\n"


def test_flags_reach_the_model(tmp_path, monkeypatch, capsys):
    """The system message is in the prompt, and a limit on tokens cuts the answer, aloud."""
    seen = []
    monkeypatch.setattr(Template, "prompt", lambda self, messages, prompt=Template.prompt:
                        seen.append(list(messages)) or prompt(self, messages))  # fmt: skip
    piped(["Hi"], monkeypatch, run_folder(tmp_path / "run", says("abcd")), "--system", "S", "--max-new-tokens", "3")
    assert seen[-1] == [{"role": "system", "content": "S"}, user("Hi")]
    out, err = capsys.readouterr()
    assert out == "abc\n" and "[cut" in err


def test_what_is_forgotten_is_said(tmp_path, monkeypatch, capsys):
    """A model that has lost the beginning looks stupid: the reader must know why."""
    piped(["one", "two", "three", "four"], monkeypatch, run_folder(tmp_path / "run", says("ab", context_length=32)))
    out, err = capsys.readouterr()
    assert out == "ab\n" * 4
    assert "context of 32 tokens is full" in err and "forgotten, 2 by now]" in err


@pytest.mark.parametrize("flags", [[], ["--system", "S"]])
def test_a_message_that_is_too_long(flags, tmp_path, monkeypatch, capsys):
    """At a terminal one says it shorter; in a script every answer after it would stand beside the wrong line."""
    run = run_folder(tmp_path / "run", says("ab", context_length=32))
    lines = ["x" * 40, "Hi"]
    with pytest.raises(ValueError, match="the message is too long"):
        piped(lines, monkeypatch, run, *flags)
    Typist(lines, monkeypatch)
    main(["chat", str(run), *FLAGS, *flags])
    out, err = capsys.readouterr()
    assert "error: the message is too long" in err and out == "ab\n"


# --- getting out --------------------------------------------------------------------------------------------------


class Interrupted(io.StringIO):
    """A terminal's screen on which somebody presses Ctrl+C (or a signal comes) when the third piece is there."""

    def __init__(self, number=signal.SIGINT):
        super().__init__()
        self.number, self.left, self.seen = number, 3, []

    def flush(self):
        self.seen.append(self.getvalue())

    def write(self, text):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return super().write(text)


def endless(context_length=128):
    return says("abcdef", then=ord("a"), context_length=context_length)


def test_ctrl_c_stops_the_answer_and_not_the_chat(tmp_path, monkeypatch, capsys):
    """What was written stays; the next question is answered; at the prompt it only says how to end."""
    run = run_folder(tmp_path / "run", endless())
    Typist(["Hi", KeyboardInterrupt(), "/undo", "Hi"], monkeypatch)
    screen = Interrupted()
    monkeypatch.setattr(sys, "stdout", screen)
    main(["chat", str(run), *FLAGS, "--max-new-tokens", "5"])
    written = screen.getvalue().splitlines()
    assert written[0] in ("ab", "abc") and written[1:] == ["abcde"]
    assert screen.seen[:2] == ["a", "ab"], "each piece is shown as it comes"
    err = capsys.readouterr().err
    assert "[stopped]" in err and "Ctrl+D ends the chat" in err and "is taken back" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_script_is_ended_by_a_signal(number, status, tmp_path, monkeypatch):
    """There is nobody who could type /quit."""
    run = run_folder(tmp_path / "run", endless())
    screen = Interrupted(number)
    monkeypatch.setattr(sys, "stdout", screen)
    with pytest.raises(SystemExit) as ended, one_line_errors():
        piped(["Hi", "Ho"], monkeypatch, run)
    assert ended.value.code == status and screen.getvalue() in ("ab\n", "abc\n")


def test_a_run_that_only_completes_text_says_how_to_get_one_that_chats(tmp_path, monkeypatch):
    """The most likely mistake: the first run anybody has is a pre-trained one."""
    gpt = GPT(GPTConfig(vocab_size=256, context_length=16, n_layer=1, n_head=1, n_kv_head=1, n_embd=32))
    run = run_folder(tmp_path / "run", gpt, Tokenizer.bytes_only())
    with pytest.raises(ValueError, match=r"has not learned to chat: .*<\|user\|>.*python train.py sft"):
        piped(["Hi"], monkeypatch, run)
    with pytest.raises(ValueError, match="holds no model"):
        piped(["Hi"], monkeypatch, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="--system is empty"):
        piped(["Hi"], monkeypatch, run, "--system", " ")
    with pytest.raises(ValueError, match="did you mean --temperature"):
        piped(["Hi"], monkeypatch, run, "--temprature", "1")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_real_terminal(tmp_path):
    """A process of its own, with keys: a question, Ctrl+C into its endless answer and at the prompt, Ctrl+D."""
    import pty

    run = run_folder(tmp_path / "run", endless(context_length=2**14))
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        flags = [str(run), *FLAGS, "--max-new-tokens", "9999"]
        os.execv(sys.executable, [sys.executable, "-m", "minigpt", "chat", *flags])
    screen = b""

    def until(*wanted):
        nonlocal screen
        begin, patience = len(screen), time.monotonic() + 60
        while any(text not in screen[begin:] for text in wanted):
            assert time.monotonic() < patience, screen
            if select.select([terminal], [], [], 1)[0]:
                screen += os.read(terminal, 4096)

    try:
        until(b"> ")
        os.write(terminal, b"Hi\n")
        until(b"abcdefa")
        os.write(terminal, b"\x03")
        until(b"[stopped]", b"> ")
        os.write(terminal, b"half a line")
        until(b"half a line")
        time.sleep(0.2)  # a signal that comes before Python waits for keys again is seen at the next key only
        os.write(terminal, b"\x03")
        until(b"Ctrl+D ends the chat", b"> ")
        os.write(terminal, b"/undo\n")
        until(b"is taken back", b"> ")
        os.write(terminal, b"\x04")
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, screen
    finally:
        os.close(terminal)


# --- a journey ----------------------------------------------------------------------------------------------------


def test_a_model_learns_to_answer(tmp_path, monkeypatch, capsys):
    """A model that only completes text is extended, taught two answers through the mask, and talked with."""
    talks = [[user("Who?"), assistant("Me.")], [user("Where?"), assistant("Here, é.")]]
    old = Tokenizer.train(["Who? Me. Where? Here."] * 9, 264)
    tokenizer = with_chat_tokens(old)
    torch.manual_seed(0)
    shape = GPTConfig(vocab_size=old.n_vocab, context_length=64, n_layer=1, n_head=2, n_kv_head=1, n_embd=32)
    gpt = extended(GPT(shape), tokenizer.n_vocab)
    template = Template(tokenizer)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)
    for _ in range(60):
        for talk in talks:
            ids, mask = template.render(talk)
            row = torch.tensor([ids])                                                    # (1, T)
            taught = torch.tensor([mask])[:, 1:]                                         # (1, T - 1)
            gpt(row[:, :-1], row[:, 1:].where(taught, -100)).sum().div(taught.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
    piped(["Where?", "/reset", "Who?"], monkeypatch, run_folder(tmp_path / "run", gpt, tokenizer))
    assert capsys.readouterr().out == "Here, é.\nMe.\n"


