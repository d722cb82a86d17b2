"""Before and after: bytes on disk, bits per byte on text it has not seen, tokens per second."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from minigpt.batches.loader import windows
from minigpt.compress.choose import Choice
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Request
from minigpt.model.gpt import GPT
from minigpt.training.evaluate import bytes_per_token, evaluate
from minigpt.training.pretrain import Data

CROWD = 16   # requests together
ROUNDS = 5
PROMPT = 8   # tokens
LOGITS = 2**26


class Measured(NamedTuple):
    """One model."""

    bytes: int
    bits_per_byte: float
    alone: float  # tokens per second of one request
    crowd: float  # and of 16 together


def weight_bytes(folder: Path) -> int:
    """Of all weight files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def bits_per_byte(model: GPT, data: Data) -> float:
    """On all text that was held out, in batches whose logits (which an integer model makes) take 256 MB at most."""
    T, V = model.config.context_length, model.config.vocab_size
    batch_size = max(1, min(8, LOGITS // (T * V)))
    sizes = bytes_per_token(data.tokenizer, torch.device("cpu"))  # (V,)
    shape = {"batch_size": batch_size, "context_length": T, "mask_documents": False}
    return evaluate(model, windows(data.val, **shape), sizes)["bits_per_byte"]


def decoding_rates(models: Sequence[GPT], requests: int, tokens: int) -> list[float]:
    """Tokens per second of each model in the engine, greedily: medians over rounds in which they take turns."""
    return [requests * tokens / statistics.median(taken) for taken in decoding_seconds(models, requests, tokens)]


def decoding_seconds(models: Sequence[GPT], requests: int, tokens: int, rounds: int = ROUNDS) -> list[list[float]]:
    """What each model takes in each round. They take turns: whatever else the machine does slows all of them alike."""
    engines = [Engine(model, EngineConfig(max_batch=requests)) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    for engine in engines:
        _seconds(engine, requests, 2)  # the first use prepares things
    for _ in range(rounds):
        for engine, taken in zip(engines, seconds, strict=True):
            taken.append(_seconds(engine, requests, tokens))
    return seconds


def _seconds(engine: Engine, requests: int, tokens: int) -> float:
    sampling = SamplingConfig(temperature=0, max_new_tokens=tokens)
    for i in range(requests):
        engine.submit(Request(prompt=range(i, i + PROMPT), sampling=sampling))
    started = time.perf_counter()
    while engine.busy:
        engine.step()
    return time.perf_counter() - started


# --- tables -------------------------------------------------------------------------------------------------------


def comparison(before: Measured, after: Measured) -> str:
    """Markdown: one row for each thing that was measured."""
    rows = [
        "| | before | after | |",
        "|---|---:|---:|---:|",
        f"| bytes of weights | {before.bytes:,} | {after.bytes:,} | {after.bytes / before.bytes:.3f}x |",
        f"| held-out bits per byte | {before.bits_per_byte:.4f} | {after.bits_per_byte:.4f} "
        f"| {after.bits_per_byte - before.bits_per_byte:+.4f} |",
    ]
    if before.alone:
        for name, old, new in (("alone", before.alone, after.alone), (f"{CROWD} together", before.crowd, after.crowd)):
            rows.append(f"| tokens/s, {name} | {old:,.0f} | {new:,.0f} | {new / old:.2f}x |")
    return "\n".join(rows)


def chosen_ways(choices: Sequence[Choice]) -> str:
    """Markdown: what was chosen for each shape, and the measurements that decided."""
    rows = [
        "| matrix | layers | outputs x inputs | chosen | us for 1 row | us for 16 rows |",
        "|---|---:|---:|---|---|---|",
    ]
    for choice in choices:
        name = " + ".join(name.rpartition(".")[2] for name in choice.names)
        times = [", ".join(f"{way} {1e6 * pair[i]:.0f}" for way, pair in choice.seconds.items()) for i in (0, 1)]
        rows.append(
            f"| {name} | {choice.layers} | {choice.shape[0]} x {choice.shape[1]} | {choice.way} "
            f"| {times[0]} | {times[1]} |"
        )
    return "\n".join(rows)
