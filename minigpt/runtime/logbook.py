"""metrics.jsonl: one JSON object per event, so that any tool can read a run while it goes on."""

import json
import math
import os
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


class Logbook:
    """Appends events to `folder/metrics.jsonl`; a disabled one (every rank but 0) accepts and forgets."""

    def __init__(self, folder: Path, *, after_step: int = 0, enabled: bool = True) -> None:
        """Events of steps past `after_step` are dropped first: a resumed run will write them again."""
        self.path = folder / FILE
        self.enabled = enabled
        if enabled and self.path.exists():
            kept = [event for event in read_events(folder) if event["step"] <= after_step]
            aside = self.path.with_suffix(".tmp")
            aside.write_text("".join(map(_line, kept)), encoding="utf-8", newline="\n")
            os.replace(aside, self.path)

    def record(self, step: int, split: str, **values: Any) -> None:
        if self.enabled:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(_line({"step": step, "split": split, **values}))


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Every whole event of a run; a last line cut short by a crash is passed over."""
    events = []
    for line in (folder / FILE).read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def last_scores(folder: Path) -> dict[str, Any] | None:
    """The newest "final" event of a run: its scores on all that was held out; None where none has come yet."""
    events = read_events(folder) if (folder / FILE).exists() else []
    return next((event for event in reversed(events) if event["split"] == "final"), None)


def _line(event: dict[str, Any]) -> str:
    """JSON knows no NaN: what is not finite is written as null, which every reader accepts."""
    return json.dumps({key: _finite(value) for key, value in event.items()}, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
