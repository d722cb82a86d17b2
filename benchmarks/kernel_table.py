"""Rows of results: as JSON, as a table for the terminal, as a table for RESULTS.md."""

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEADS = ("case", "shape", "ours us", "rate", "% of ceiling", "peers' time / ours", "error: ours / peer", "")
WIDTHS = (31, 45, 9, 13, 12, 50, 20, 8)  # with the gaps between: 200 columns at most
GRID = "grid/"


@dataclass(kw_only=True)
class Row:
    """One case, measured or not. Lists of three are quartile, median, quartile."""

    key: str
    shape: str = ""
    state: str = "OPEN"                                                # OPEN, OK, WRONG or FAILED
    reason: str | None = None                                          # why WRONG or FAILED
    us: dict[str, list[float]] = field(default_factory=dict)           # by contender: ours and each peer
    host_us: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)       # peer / ours: > 1 means ours is faster
    errors: dict[str, float | None] = field(default_factory=dict)      # None: not finite
    skipped: dict[str, str] = field(default_factory=dict)              # peers that raised, with what they said
    peak_mb: dict[str, float] = field(default_factory=dict)
    rate: float | None = None                                          # TFLOP/s or GB/s
    unit: str = ""
    of_ceiling: float | None = None

    @property
    def host_bound(self) -> bool:
        """Python needs longer to start our call than the GPU to run it: alone, it would take that long."""
        return bool(self.us) and self.host_us.get("ours", 0.0) > self.us["ours"][1]

    def ratio(self, peer: str) -> float | None:
        """The median; of "best" the fastest peer's. None if it was not measured."""
        if peer == "best":
            return min((spread[1] for spread in self.ratios.values()), default=None)
        return self.ratios[peer][1] if peer in self.ratios else None


def write_json(path: Path, document: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Atomic: whoever reads it, or finds it after a crash, finds a whole document."""
    text = json.dumps({**document, "rows": [asdict(row) for row in rows]}, indent=1, allow_nan=False)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, path)


def read_json(path: Path) -> tuple[dict[str, Any], list[Row]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    return document, [Row(**row) for row in document.pop("rows")]


def cells_of(row: Row) -> tuple[str, ...]:
    """One line of the table, as text."""
    ours = f"{row.us['ours'][1]:.1f}" if row.us else "-"
    rate = "-" if row.rate is None else f"{row.rate:.0f} {row.unit}"
    share = "-" if row.of_ceiling is None else f"{100 * row.of_ceiling:.0f}"
    return row.key, row.shape, ours, rate, share, _peers(row), _errors(row), row.state


def _peers(row: Row) -> str:
    if row.reason is not None:
        return row.reason
    ratios = [f"{peer} {spread[1]:.2f}" for peer, spread in row.ratios.items()]
    memory = [f"memory of {peer} {mb / row.peak_mb['ours']:.1f}x" for peer, mb in row.peak_mb.items() if peer != "ours"]
    return ", ".join(_host(row) + ratios + memory) or "-"


def _host(row: Row) -> list[str]:
    """Where the host is the slower one, its time, beside the best peer's: the ratios say nothing of it."""
    if not row.host_bound:
        return []
    peers = [us for name, us in row.host_us.items() if name != "ours"]
    return [f"host {row.host_us['ours']:.0f} us" + (f" (peer {min(peers):.0f})" if peers else "")]


def _errors(row: Row) -> str:
    """Ours, and the best of the peers."""
    if "ours" not in row.errors:
        return "-"
    peers = [error for name, error in row.errors.items() if name != "ours" and error is not None]
    errors = (row.errors["ours"], min(peers, default=None))
    return " / ".join("-" if error is None else f"{error:.1e}" for error in errors)


def grid_row(rows: list[Row]) -> Row | None:
    """The public grid in one line: the ratio to the best SDPA backend that covers each cell."""
    if not rows:
        return None
    ratios = [ratio for row in rows if (ratio := row.ratio("best")) is not None]
    states = [row.state for row in rows]
    state = next((bad for bad in ("WRONG", "FAILED", "OPEN") if bad in states), "OK")
    shape = f"{len(rows)} cells, {sum(s == 'OK' for s in states)} right, {len(ratios)} timed"
    text = "-"
    if ratios:
        slower = sum(ratio < 1 for ratio in ratios)
        text = f"best min {min(ratios):.2f}, median {statistics.median(ratios):.2f}, slower {slower}"
    return Row(key="grid", shape=shape, state=state, reason=text)


def table_rows(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    rows = list(rows)
    grid = grid_row([row for row in rows if row.key.startswith(GRID)])
    lines = [cells_of(row) for row in rows if not row.key.startswith(GRID)]
    return lines if grid is None else [*lines, cells_of(grid)]


def text_table(rows: Iterable[Row]) -> str:
    """At most 200 columns; what is too long is cut, the JSON has it whole."""
    lines = [HEADS, *table_rows(rows)]
    return "\n".join(
        " ".join(_fit(cell, width) for cell, width in zip(line, WIDTHS, strict=True)).rstrip() for line in lines
    )


def _fit(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def markdown_table(heads: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    escaped = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *escaped])
