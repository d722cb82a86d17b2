"""python -m minigpt quickstart: what is finished already, what comes next, the table, and the chat at the end.

`quickstart.json` keeps the settings and the rows of the finished stages. A stage that was stopped goes on from its own
checkpoint; one that has none begins again: it takes seconds.
"""

import dataclasses
import signal
import sys
import time
from pathlib import Path
from typing import Any

from minigpt import config
from minigpt.chat.config import ChatConfig
from minigpt.chat.console import talk
from minigpt.engine.config import SamplingConfig
from minigpt.quickstart.config import QuickstartConfig
from minigpt.quickstart.recipe import STAGES, discard_all
from minigpt.runtime.checkpoint import read_json, write_json
from minigpt.runtime.console import say
from minigpt.training.loop import Stopped
from minigpt.training.summary import this_line

STATE = "quickstart.json"
FREE = {"out_dir", "overwrite", "chat"}  # what the same recipe may be called with


def run_recipe(wish: QuickstartConfig) -> None:
    """All stages that are not finished, one after the other; then the table, and the chat if somebody is there.

    Raises: ValueError if the folder holds something else or the recipe with other settings, and for what the stages
            raise; OSError; SystemExit after a signal, with everything saved.
    """
    folder = Path(wish.out_dir)
    state = open_state(wish, folder)
    for number, (name, stage) in enumerate(STAGES.items(), 1):
        if name in state["rows"] and (folder / stage.makes).exists():
            continue
        say(f"\n--- {number} of {len(STAGES)}: {name}. {stage.do.__doc__.splitlines()[0]}")
        started = time.monotonic()
        try:
            state["rows"][name] = list(stage.do(wish))
        except (Stopped, KeyboardInterrupt) as stop:  # Ctrl+C in a training, or outside of one
            say(f"\nsaved in {folder}. The same line goes on from here: {this_line(program='-m minigpt')}")
            sys.exit(stop.status if isinstance(stop, Stopped) else 128 + signal.SIGINT)
        finally:  # what an interrupted stage took counts as well
            state["seconds"][name] = state["seconds"].get(name, 0.0) + time.monotonic() - started
            write_json(folder / STATE, state)
        say(f"{name}: {': '.join(state['rows'][name])}")
    print(table(state), flush=True)
    command = f"python -m minigpt chat {folder / 'int8'} --temperature 0"
    if wish.chat and sys.stdin.isatty() and sys.stdout.isatty():
        say(f"\ntalk with it, now or later ({command}). Try: What does shutil.rmtree do?")
        on_cpu = dataclasses.replace(wish.machine, device="cpu", dtype="float32")  # where integers are computed with
        talk(str(folder / "int8"), ChatConfig(sampling=SamplingConfig(temperature=0), machine=on_cpu))
    else:
        say(f"\ntalk with it: {command}")


def open_state(wish: QuickstartConfig, folder: Path) -> dict[str, Any]:
    """The settings, the finished rows and the seconds so far of this folder's recipe.

    Raises: ValueError if the folder holds other files, or a recipe with other settings.
    """
    file = folder / STATE
    if file.exists() and not wish.overwrite:
        state = read_json(file)
        begun = config.from_dict(QuickstartConfig(), state["settings"], str(file))
        changed = [f"{old.flag} {old.written}, not {new.written}" for old, new in config.differences(begun, wish)
                   if new.name not in FREE]  # fmt: skip
        if changed:
            raise ValueError(f"{folder} was begun with {'; '.join(changed)}. Go on as it was begun, choose another "
                             "--out-dir, or begin again with --overwrite")  # fmt: skip
        return state
    if file.exists():
        discard_all(folder)
    elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"--out-dir {folder} holds other files; choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    state = {"settings": dataclasses.asdict(wish), "rows": {}, "seconds": {}}
    write_json(file, state)
    return state


def table(state: dict[str, Any]) -> str:
    """Markdown: one row for each stage, and how long all took."""
    seconds = state["seconds"]
    rows = ["| stage | what it did | figure | seconds |", "|---|---|---|---:|"]
    rows += [f"| {name} | {' | '.join(state['rows'][name])} | {seconds[name]:.0f} |" for name in STAGES]
    rows.append(f"| | | all together | {sum(seconds.values()):.0f} |")
    return "\n".join(["", *rows])
