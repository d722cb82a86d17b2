"""How does text continue text? The engine knows integers; here they become words again, as they come.

In:  a model, its tokenizer, a prompt and the sampling settings.
Out: pieces of text, streamed: never half a character, never part of a stop string.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from minigpt.engine.config import SamplingConfig
from minigpt.engine.generate import generate
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained
from minigpt.runtime import device
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.seeding import generator
from minigpt.tokenizer import Tokenizer


def complete(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    config: SamplingConfig,
    *,
    seed: int = 1,
    stop: Sequence[str] = (),
    on_slide: Callable[[int], None] | None = None,
) -> Iterator[str]:
    """Stream the continuation of `prompt` (which may be empty); ends at the end token or before a stop string.

    The same seed gives the same text. Special tokens spelled out in the prompt are ordinary characters here.
    """
    end = tokenizer.eot_token
    ids = tokenizer.encode_ordinary(prompt) or [start_token(tokenizer)]
    tokens = generate(model, ids, config, stop_ids=() if end is None else (end,),
                      generator=generator(seed), on_slide=on_slide)  # fmt: skip
    yield from until_stop(_characters(tokens, tokenizer), stop)


def preview(model: nn.Module, tokenizer: Tokenizer) -> str:
    """A few lines out of nothing, to look at while a model trains; always drawn with the same seed."""
    return "".join(complete(model, tokenizer, "", SamplingConfig(max_new_tokens=80, temperature=0.8, top_p=0.95)))


def start_token(tokenizer: Tokenizer) -> int:
    """What stands before the first word: the token between documents, or a line break where there is none."""
    return tokenizer.encode_ordinary("\n")[0] if tokenizer.eot_token is None else tokenizer.eot_token


def until_stop(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """Pass text on up to the first stop string, holding back only what could still become one.

    ["Hel", "lo\\n\\nUs", "er:"] with stop ["\\n\\nUser:"] -> "Hel", "lo"
    """
    held = ""
    for piece in pieces:
        held += piece
        found = [held.find(text) for text in stop if text in held]
        if found:
            yield held[: min(found)]
            return
        safe = len(held) - max((_begun(held, text) for text in stop), default=0)
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _characters(tokens: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Whole characters as soon as their last byte has come."""
    decoder = tokenizer.stream_decoder()
    for token in tokens:
        if text := decoder.push(token):
            yield text
    if text := decoder.flush():
        yield text


# --- what a command line names ------------------------------------------------------------------------------------


def newest_run(named: str | None, parent: Path = Path("out")) -> Path:
    """The folder that was named, or the run in `out/` whose weights are newest.

    Raises: ValueError saying what is missing and which runs are there.
    """
    runs = sorted(parent.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    if named is None:
        if not runs:
            raise ValueError(f"no trained run in {parent}/: train one with `python train.py`, or name one with --run")
        return runs[-1].parent
    folder = Path(named)
    if not (folder / "config.json").exists():
        there = ", ".join(str(path.parent) for path in runs) or "none yet"
        raise ValueError(f"--run {folder} holds no model (config.json is missing). Trained runs: {there}")
    return folder


def load_run(folder: Path, machine: MachineConfig) -> tuple[GPT, Tokenizer]:
    """A model ready to write, on the device and in the dtype asked for, and the tokenizer beside it."""
    device.set_threads(machine.threads)
    where = torch.device(device.choose_device(machine.device).value)
    dtype = getattr(torch, device.choose_dtype(machine.dtype, where).value)
    model, tokenizer = load_pretrained(folder), Tokenizer.load(folder)
    if tokenizer.n_vocab > model.config.vocab_size:
        raise ValueError(
            f"{folder}: its tokenizer has {tokenizer.n_vocab} tokens but its model only {model.config.vocab_size}: "
            f"they do not belong together"
        )
    return model.to(where, dtype).eval(), tokenizer


def read_prompts(prompts: Sequence[str], files: Sequence[str]) -> list[str]:
    """Prompts from flags, `-` from standard input, then those from files."""
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    for file in files:
        try:
            texts.append(Path(file).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"--prompt-file {file} is not UTF-8 text") from None
    return texts or [""]
