"""How does text continue text? The engine knows integers; here they become words again, as they come.

In:  a model, its tokenizer, a prompt and the sampling settings.
Out: pieces of text, streamed: never half a character, never part of a stop string.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from minigpt.compress.choose import for_engine
from minigpt.compress.folder import is_compressed, load_compressed
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Answer, Request
from minigpt.grammar.constraint import Constraint
from minigpt.grammar.json_schema import json_schema
from minigpt.grammar.nodes import Node
from minigpt.grammar.regular_expression import regular_expression
from minigpt.grammar.token_trie import TokenTrie
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import is_reward_model, load_pretrained
from minigpt.runtime import device
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer import Tokenizer


def complete(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: str,
    config: SamplingConfig,
    *,
    seed: int = 1,
    stop: Sequence[str] = (),
    constraint: Constraint | None = None,
    on_slide: Callable[[int], None] | None = None,
) -> Iterator[str]:
    """Stream the continuation of `prompt` (which may be empty); ends at the end token or before a stop string.

    It is asked for at once, and comes on while another is read. The same seed gives the same text, whatever else the
    engine does. Special tokens spelled out in the prompt are ordinary characters here. Where the context is full, the
    model goes on with its newer half, and `on_slide` is told how many tokens that are, the first time.
    Raises: ValueError if `constraint` allows no text as short as the config asks for.
    """
    end = tokenizer.eot_token
    answer = Answer(Request(prompt=tokenizer.encode_ordinary(prompt) or [start_token(tokenizer)], sampling=config,
                            stop_ids=() if end is None else (end,), seed=seed, constraint=constraint))  # fmt: skip
    if len(answer.visible) > engine.shape.context_length:
        answer.slide(engine.shape.context_length)
    engine.begin(answer)
    return until_stop(_characters(_watched(engine, answer, on_slide), tokenizer), stop)


def wanted_grammar(pattern: str | None, schema: str | Path | None) -> Node | None:
    """What a continuation must match: a regular expression, or the JSON schema in a file; none: anything goes.

    Raises: ValueError for both at once, for what they do not support, and for a file that cannot be read.
    """
    if pattern is not None and schema is not None:
        raise ValueError("--matching and --schema: a text can be held to one of them")
    if pattern is not None:
        return regular_expression(pattern)
    return None if schema is None else json_schema(_read_schema(Path(schema)))


def constrained(tokenizer: Tokenizer, grammar: Node | None) -> Constraint | None:
    """A grammar over the tokens of a tokenizer. Raises: ValueError for a tokenizer that cannot end a text."""
    if grammar is None:
        return None
    if tokenizer.eot_token is None:
        raise ValueError("the tokenizer has no end of text, which ends a text that must match something")
    ids = range(tokenizer.n_vocab)
    spelled = [None if tokenizer.is_special_token(i) else tokenizer.token_bytes(i) for i in ids]
    return Constraint(TokenTrie(spelled, [tokenizer.eot_token]), grammar)


def _read_schema(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--schema {file}: {error.strerror}") from None
    except ValueError as error:  # neither JSON, nor even text
        raise ValueError(f"--schema {file} is not JSON: {error}") from None


def preview(model: GPT, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> str:
    """A few lines, to look at while a model trains: the prompt, and what comes up to the next special token.

    Out of nothing, if there is no prompt. Always drawn with the same seed.
    """
    config = SamplingConfig(max_new_tokens=80, temperature=0.8, top_p=0.95)
    request = Request(prompt=list(prompt) or [start_token(tokenizer)], sampling=config, seed=1,
                      stop_ids=tuple(sorted(tokenizer.special_tokens.values())))  # fmt: skip
    with evaluating(model):
        engine = Engine(model, EngineConfig(max_batch=1))
        text = "".join(_characters(engine.follow(engine.submit(request)), tokenizer))
    return tokenizer.decode(prompt) + text


def _watched(engine: Engine, answer: Answer, on_slide: Callable[[int], None] | None) -> Iterator[int]:
    """The tokens of an answer; on_slide is told before the first one that the model chose with less in view."""
    for token in engine.follow(answer):
        if answer.slid_to is not None and on_slide is not None:
            on_slide(answer.slid_to)
            on_slide = None
        yield token


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

SHOWN = 8  # runs, to choose from


def newest_run(named: str | None, parent: Path = Path("out")) -> Path:
    """The folder that was named, or the run in `out/` whose weights are newest, of those that write.

    Raises: ValueError saying what is missing and which runs are there.
    """
    found = (path for path in parent.glob("[!.]*/model.safetensors") if not is_reward_model(path.parent))
    runs = sorted(found, key=lambda path: path.stat().st_mtime_ns)
    if named is None:
        if not runs:
            raise ValueError(f"no trained run in {parent}/: train one with `python train.py`, or name its folder")
        return runs[-1].parent
    folder = Path(named)
    if not (folder / "config.json").exists():
        there = ", ".join(str(path.parent) for path in runs[: -SHOWN - 1 : -1]) or "none yet"
        more = f", and {len(runs) - SHOWN} older ones" if len(runs) > SHOWN else ""
        raise ValueError(f"{folder} holds no model (config.json is missing). Trained runs: {there}{more}")
    return folder


def load_run(folder: Path, machine: MachineConfig, engine: EngineConfig | None = None) -> tuple[GPT, Tokenizer]:
    """A model ready to write, on the device and in the dtype asked for, and the tokenizer beside it.

    A compressed one computes on the CPU, between its integer matrices in float32, as fast as this engine can.
    """
    device.set_threads(machine.threads)
    if is_compressed(folder):
        model = _integers(folder, machine, engine)
        where, dtype = torch.device("cpu"), torch.float32
    else:
        where = torch.device(device.choose_device(machine.device).value)
        dtype = getattr(torch, device.choose_dtype(machine.dtype, where).value)
        model = load_pretrained(folder)
    return model.to(where, dtype).eval(), load_tokenizer(folder, model)


def load_tokenizer(folder: Path, model: GPT) -> Tokenizer:
    """The tokenizer beside a model. Raises: ValueError if it has more tokens than the model."""
    tokenizer = Tokenizer.load(folder)
    if tokenizer.n_vocab > model.config.vocab_size:
        raise ValueError(
            f"{folder}: its tokenizer has {tokenizer.n_vocab} tokens but its model only {model.config.vocab_size}: "
            f"they do not belong together"
        )
    return tokenizer


def _integers(folder: Path, machine: MachineConfig, engine: EngineConfig | None) -> GPT:
    if machine.device not in ("auto", "cpu") or machine.dtype not in ("auto", "float32"):
        raise ValueError(
            f"{folder} holds integer matrices, which are computed with on the CPU and in float32, "
            f"not with --device {machine.device} --dtype {machine.dtype}"
        )
    model = load_compressed(folder)
    for_engine(model, engine)
    return model


def read_prompts(prompts: Sequence[str], files: Sequence[str]) -> list[str]:
    """Prompts from flags, `-` from standard input, then those from files.

    Raises: ValueError for a file that cannot be read.
    """
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    for file in files:
        try:
            texts.append(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"--prompt-file {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"--prompt-file {file} is not UTF-8 text") from None
    return texts or [""]
