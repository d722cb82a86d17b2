"""The targets, and whether a run met them: each has a floor, which must be met, and a goal.

A target looks at rows by pattern and takes the worst of them. A target with a row that is missing, open, wrong or
failed is open, and so is one without its peer: what was not measured is never claimed.
"""

import fnmatch
import math
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.kernel_table import Row

HEADS = ("target", "measured (worst row)", "floor", "met?", "goal", "met?")


class Bar(NamedTuple):
    """`figure` of every row that fits `rows` must be at least so much.

    figure: a peer's name (its time / ours), "best" (of all peers), "sdpa" (the same, where any covers the shape),
            "memory PEER" (its peak / ours) or "ceiling" (the share of it that is reached).
    """

    rows: str
    figure: str
    least: float


class Target(NamedTuple):
    name: str
    floor: tuple[Bar, ...]
    goal: tuple[Bar, ...]


FORWARD_64 = "attention/forward/64/T4096", "attention/forward/64/T16384"
FORWARD_128, WINDOW, DOCUMENTS = "attention/forward/128/T*", "attention/*/64/window", "attention/*/64/documents"
BACKWARD_64, BACKWARD_128 = "attention/backward/64/T*", "attention/backward/128/T*"
MEAN, PER_TOKEN = "cross_entropy/gpt2/mean", "cross_entropy/gpt2/none"
INT8 = "quantized/int8/B1/*"
TARGETS = (
    Target(
        "attention forward, head_dim 64, causal, 4k-16k",
        tuple(Bar(rows, "flash", 1.25) for rows in FORWARD_64) + tuple(Bar(rows, "cudnn", 0.95) for rows in FORWARD_64),
        tuple(Bar(rows, "flash", 1.6) for rows in FORWARD_64) + tuple(Bar(rows, "cudnn", 1.2) for rows in FORWARD_64),
    ),
    Target(
        "attention forward, head_dim 128, causal",
        (Bar(FORWARD_128, "flash", 1.2),), (Bar(FORWARD_128, "flash", 1.85), Bar(FORWARD_128, "cudnn", 1.1)),
    ),
    Target(
        "attention backward, head_dim 64",
        (Bar(BACKWARD_64, "flash", 1.1),), (Bar(BACKWARD_64, "flash", 1.6), Bar(BACKWARD_64, "cudnn", 1.0)),
    ),
    Target(
        "attention backward, head_dim 128",
        (Bar(BACKWARD_128, "flash", 1.0),), (Bar(BACKWARD_128, "flash", 1.6), Bar(BACKWARD_128, "cudnn", 1.0)),
    ),
    Target("window 1,024 at 16k", (Bar(WINDOW, "flex", 1.2),), (Bar(WINDOW, "flex", 1.8),)),
    Target("document mask at 16k", (Bar(DOCUMENTS, "flex", 1.2),), (Bar(DOCUMENTS, "flex", 2.0),)),
    Target(
        "decode at 128 MB of cache and more",
        (Bar("decode/*", "ceiling", 0.75),), (Bar("decode/*", "ceiling", 0.92),),
    ),
    Target(
        "linear + cross-entropy, 16k x 768 x 50k",
        (Bar(MEAN, "compile", 1.2), Bar(MEAN, "memory compile", 6)),
        (Bar(MEAN, "eager", 1.6), Bar(MEAN, "memory eager", 16)),
    ),
    Target(  # the logits are made twice, or they would have to be kept: four products against the peers' three
        "the same with a loss per token",
        (Bar(PER_TOKEN, "memory compile", 6),), (Bar(PER_TOKEN, "compile", 1.0), Bar(PER_TOKEN, "memory eager", 16)),
    ),
    Target(
        "RMSNorm, forward and backward",
        (Bar("rms_norm/both/*", "ceiling", 0.85),),
        (Bar("rms_norm/both/*", "ceiling", 0.93), Bar("rms_norm/backward/*", "compile", 1.3)),
    ),
    Target("AdamW, 124M parameters", (Bar("adamw/plain", "fused", 1.0),), (Bar("adamw/clip_and_copy", "fused", 1.3),)),
    Target("Newton-Schulz", (Bar("newton_schulz", "compile", 1.2),), (Bar("newton_schulz", "compile", 2.0),)),
    Target("int8 linear, batch 1", (Bar(INT8, "best", 1.5),), (Bar(INT8, "best", 1.9),)),
    Target("every cell of the grid, best SDPA", (Bar("grid/*", "sdpa", 1.0),), (Bar("grid/*", "sdpa", 1.0),)),
)  # fmt: skip


def figure(row: Row, name: str) -> float | None:
    """None if this row says nothing about it."""
    if row.state != "OK":
        return None
    if name == "ceiling":
        return row.of_ceiling
    if name == "sdpa":
        return math.inf if row.us and not row.ratios else row.ratio("best")
    if name.startswith("memory "):
        peer, ours = row.peak_mb.get(name.removeprefix("memory ")), row.peak_mb.get("ours")
        return None if peer is None or not ours else peer / ours
    return row.ratio(name)


def worst(bar: Bar, rows: Iterable[Row]) -> float | None:
    """The least figure of the rows that fit; None if there is none, or one of them has none."""
    figures = [figure(row, bar.figure) for row in rows if fnmatch.fnmatchcase(row.key, bar.rows)]
    known = [value for value in figures if value is not None]
    return min(known) if known and len(known) == len(figures) else None


def verdict(bars: tuple[Bar, ...], rows: list[Row]) -> str:
    """yes, no or open. One bar that is missed is enough for a no, however open the others are."""
    values = [worst(bar, rows) for bar in bars]
    if any(value is not None and value < bar.least for value, bar in zip(values, bars, strict=True)):
        return "no"
    return "open" if None in values else "yes"


def summary(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """One line per target, under HEADS."""
    rows = list(rows)
    lines = []
    for target in TARGETS:
        figures: dict[str, float | None] = {}
        for bar in (*target.floor, *target.goal):
            value = worst(bar, rows)
            known = figures.get(bar.figure, value)
            figures[bar.figure] = None if value is None or known is None else min(value, known)
        measured = ", ".join(f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in figures.items())
        if any(row.host_bound and fnmatch.fnmatchcase(row.key, bar.rows) for row in rows for bar in target.floor):
            measured += "; the host is slower"
        lines.append(
            (target.name, measured, _wanted(target.floor), verdict(target.floor, rows), _wanted(target.goal),
             verdict(target.goal, rows))
        )  # fmt: skip
    return lines


def _wanted(bars: tuple[Bar, ...]) -> str:
    return ", ".join(dict.fromkeys(f"{bar.figure} {bar.least:g}" for bar in bars))
