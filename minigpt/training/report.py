"""A run as one page: `python -m minigpt report RUN` writes RUN/report.html.

The page holds everything it shows: no script, no request, nothing that changes when it is moved or mailed.
The same run gives the same bytes.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from minigpt.config import from_dict
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import parameter_count
from minigpt.model.pretrained import read_config
from minigpt.runtime.whole import replacing
from minigpt.training.curves import DARK, LIGHT, NARROW, WIDE, Values, loss_figure, small_figure
from minigpt.training.recorded import (
    BANDS,
    Band,
    Event,
    Record,
    find_band,
    flat,
    held_out_losses,
    read_record,
    verdict,
)  # fmt: skip

DASH = "–"


def write_report(folder: str | Path, bands: Path = BANDS) -> Path:
    """Draw a run's curves into `folder/report.html`; returns the file.

    Raises: ValueError if the folder holds no run or no step yet; ImportError without the extra `report`.
    """
    record = read_record(folder)
    page = PAGE.substitute(
        name=escape(record.folder.resolve().name),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        shape=_shape(record),
        state=_state(record),
        tiles=_tiles(record),
        loss=_loss(record, find_band(record, bands)),
        small=_learning_rate(record) + _gradient_norm(record) + _throughput(record),
        settings=_settings(record.settings),
    )
    file = record.folder / "report.html"
    with replacing(file) as aside:
        aside.write_text(page, encoding="utf-8", newline="\n")
    return file


# --- words and numbers --------------------------------------------------------------------------------------


def _shape(record: Record) -> str:
    """The model in one line. With --init the shape is that of the weights, which the settings do not know."""
    saved = (record.folder / "config.json").exists()
    source = f"{record.folder / 'run.json'}: model"
    config = read_config(record.folder) if saved else from_dict(GPTConfig(), record.settings["model"], source)
    shared = f" on {config.kv_heads} key/value heads" if config.kv_heads != config.n_head else ""
    return (f"{_large(parameter_count(config))} parameters: {config.n_layer} layers, {config.n_embd} wide, "
            f"{config.n_head} heads{shared}, context {config.context_length:,}, "
            f"vocabulary {config.vocab_size:,}")  # fmt: skip


def _state(record: Record) -> str:
    last, planned = record.train[-1]["step"], record.settings["train"]["max_steps"]
    text = f"Finished: {_steps(planned)}."
    if not record.finished:
        text = f"{last:,} of {_steps(planned)} so far; the same train.py line resumes it."
    skipped = sum(event["loss"] is None or event["grad_norm"] is None for event in record.train)
    if skipped:
        text += f" In {_steps(skipped)} the loss or the gradient was not finite: no update was made there."
    return text


def _tiles(record: Record) -> str:
    """Where the run stands, in five figures, and the scores that only its stage has."""
    latest = record.held_out[-1] if record.held_out else {}
    if not latest:
        judged = f"first look at step {record.settings['train']['eval_every']:,}"
    elif latest["split"] == "final":
        judged = "nats per token"
    else:
        judged = f"nats per token, at step {latest['step']:,}"
    rivals = [f"{name} {bits:.2f}" for name, bits in record.compressed.items() if name != "bytes"]
    tokens = record.train[-1]["tokens"]
    memory = f"at most {latest['mem'] / 1e9:.1f} GB held" if latest.get("mem") else ""
    usual = ("step", "split", "mem", "loss", "perplexity", "bits_per_byte")
    return "".join([
        _tile("held-out loss", _number(latest, "loss", ".3f"), judged),
        _tile("perplexity", _number(latest, "perplexity", ".2f"), "e to the loss"),
        _tile("bits per byte", _number(latest, "bits_per_byte", ".3f"), ", ".join(rivals)),
        *(_tile(escape(name.replace("_", " ")), _number(latest, name, ".3g"), "") for name in latest
          if name not in usual),
        _tile("minutes of steps", _minutes(record), memory),
        _tile("tokens", _large(tokens), f"{tokens / record.train[-1]['step']:,.0f} a step"),
    ])  # fmt: skip


def _tile(name: str, figure: str, note: str) -> str:
    return f"<div><dt>{name}</dt><dd>{figure}<small>{note}</small></dd></div>\n"


def _number(event: Event, key: str, form: str) -> str:
    return DASH if event.get(key) is None else format(event[key], form)


def _minutes(record: Record) -> str:
    """Of the steps, from their own speeds: time lost to a crash does not count, nor do looks and checkpoints."""
    steps = [event for event in record.train if event["tok_per_s"]]
    seconds = sum(event["tokens"] / event["step"] / event["tok_per_s"] for event in steps)
    return f"{seconds / 60:.1f}" if seconds < 6000 else f"{seconds / 60:,.0f}"


def _large(count: int) -> str:
    """1,234 -> 1,234; 5,241,344 -> 5.24 million"""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{count / unit:#.3g}".rstrip(".") + f" {name}"
    return f"{count:,}"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


# --- figures ------------------------------------------------------------------------------------------------


def _column(record: Record, key: str) -> Values:
    """One quantity over the steps; what was not finite stands as null in the file and is NaN here."""
    return np.array([event[key] for event in record.train], dtype=np.float64)  # numpy reads None as NaN


def _loss(record: Record, band: Band | None) -> str:
    steps, loss = _column(record, "step"), _column(record, "loss")
    held_out = held_out_losses(record)
    points = [point for point in band.losses if point[0] <= steps[-1]] if band else []
    last = f", held out {[*held_out.values()][-1]:.3f}" if held_out else ""
    label = f"Loss over {_steps(int(steps[-1]))}: training {_ends(loss)}{last}"
    drawn = "".join(
        f'<div class="{name}">{loss_figure(name, label, size, (steps, loss), held_out, points)}</div>\n'
        for name, size in (("wide", WIDE), ("narrow", NARROW))
    )
    keys = [_key("train", "training, smoothed"), _key("train faint", "each step")]
    keys += [_key("held", "held-out text")] if held_out else []
    keys += [_key("band", f"our {len(band.seeds)} recorded runs")] if band and points else []
    words = verdict(band, record) if band else None
    said = f"<p>{escape(words)}</p>" if words else ""
    first = f"; the first was {loss[0]:.3g}" if np.isfinite(loss[0]) else ""
    title = f"<h2>Loss <small>nats per token, by step{first}</small></h2>"
    return f"<figure>\n{title}\n{drawn}<figcaption>{' '.join(keys)}{said}</figcaption>\n</figure>\n"


def _key(style: str, text: str) -> str:
    return f'<span class="key"><i class="{style}"></i>{text}</span>'


def _learning_rate(record: Record) -> str:
    optim, rates = record.settings["optim"], _column(record, "lr")
    text = f"{optim['schedule']}, top {optim['lr']:g}, {_steps(optim['warmup_steps'])} of warmup"
    drawn = small_figure("lr", f"Learning rate: {_ends(rates)}", _column(record, "step"), rates, noisy=False)
    return _small("Learning rate", drawn, text)


def _gradient_norm(record: Record) -> str:
    norms, limit = _column(record, "grad_norm"), record.settings["optim"]["clip_norm"]
    clipped = int((norms > limit).sum())
    text = f"clipped to {limit:g} (dashed) in {_steps(clipped)}" if clipped else f"never clipped to {limit:g}"
    drawn = small_figure("norm", f"Gradient norm: {_ends(norms)}", _column(record, "step"), norms, log=True,
                         mark=limit if clipped else None)  # fmt: skip
    return _small("Gradient norm", drawn, text)


def _throughput(record: Record) -> str:
    speeds = _column(record, "tok_per_s")
    known = speeds[np.isfinite(speeds)]
    text = f"{np.median(known):,.0f} in the median step" if len(known) else "not known"
    drawn = small_figure("speed", f"Tokens per second: {text}", _column(record, "step"), speeds)
    return _small("Tokens per second", drawn, f"{text}; looks and checkpoints come on top")


def _small(title: str, drawn: str, text: str) -> str:
    return f"<figure>\n<h2>{title}</h2>\n{drawn}\n<figcaption>{escape(text)}</figcaption>\n</figure>\n"


def _ends(values: Values) -> str:
    """For those who do not see the curve: where it begins and where it ends."""
    known = values[np.isfinite(values)]
    return f"from {known[0]:.3g} to {known[-1]:.3g}" if len(known) else "never finite"


# --- the page -----------------------------------------------------------------------------------------------


def _settings(settings: dict[str, Any]) -> str:
    """Group by group, each as the flag that sets it."""
    own = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    groups = {"run": own} | {name: value for name, value in settings.items() if isinstance(value, dict) and value}
    return "".join(
        f"<tbody><tr><th colspan=2 scope=rowgroup>{escape(name)}</th></tr>\n{_rows(flat(group))}</tbody>\n"
        for name, group in groups.items()
    )


def _rows(pairs: Iterable[tuple[str, Any]]) -> str:
    flags = ((f"--{name.replace('_', '-')}", value) for name, value in pairs)
    rows = (f"<tr><td>{escape(flag)}</td><td>{escape(_typed(value))}</td></tr>\n" for flag, value in flags)
    return "".join(rows)


def _typed(value: bool | int | float | str | Sequence[str] | None) -> str:
    """As on the command line."""
    if isinstance(value, list):
        return " ".join(map(repr, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {code};" for name, code in colours.items())


PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>$name · minigpt</title>
<style>
:root { color-scheme: light dark; $light }
@media (prefers-color-scheme: dark) { :root { $dark } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 780px; margin: 0 auto; padding: 56px 20px 40px; }
h1 { font-size: 34px; line-height: 1.15; font-weight: 650; letter-spacing: -.02em; margin: 0 0 10px; }
h1, td { overflow-wrap: anywhere; }
h2 { font-size: 15px; font-weight: 600; margin: 0 0 8px; }
p { margin: 0 0 4px; text-wrap: balance; }
header p, figcaption, small, footer { color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: 20px 36px; margin: 32px 0 44px; }
dt { font-size: 13px; color: var(--soft); }
dd { margin: 0; font-size: 26px; line-height: 1.3; font-weight: 600; letter-spacing: -.01em; }
dd, svg text { font-variant-numeric: tabular-nums; }
small { font-size: 12px; font-weight: 400; letter-spacing: 0; }
dd small { display: block; }
h2 small { font-size: 13px; margin-left: 6px; }
figure { margin: 0 0 44px; }
figcaption { font-size: 13px; margin-top: 6px; }
figcaption p { margin-top: 10px; color: var(--ink); font-size: 15px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: system-ui, sans-serif !important; }
svg text { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.narrow { display: none; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 0 24px; }
.key { margin-right: 18px; white-space: nowrap; }
.key i { display: inline-block; width: 18px; height: 3px; border-radius: 2px; margin-right: 7px; }
.key i { vertical-align: middle; }
.train { background: var(--train); } .faint { opacity: .35; } .held { background: var(--held); }
.band { background: var(--band); opacity: .45; } .key i.band { height: 10px; }
details { border-top: 1px solid var(--grid); padding: 16px 0; }
summary { cursor: pointer; font-weight: 600; font-size: 15px; }
table { border-collapse: collapse; font: 13px/1.7 ui-monospace, monospace; }
th { text-align: left; padding: 14px 0 2px; font: 600 13px/1.7 system-ui, sans-serif; color: var(--soft); }
td { padding: 0 28px 0 0; vertical-align: top; }
footer { border-top: 1px solid var(--grid); padding-top: 16px; font-size: 13px; }
@media (max-width: 600px) { main { padding-top: 32px; } .wide { display: none; } .narrow { display: block; } }
</style>
</head>
<body>
<main>
<header>
<h1>$name</h1>
<p>$shape</p>
<p>$state</p>
</header>
<dl>
$tiles</dl>
$loss<div class="row">
$small</div>
<details>
<summary>Settings</summary>
<table>
$settings</table>
</details>
<footer>Drawn by minigpt from run.json and metrics.jsonl.</footer>
</main>
</body>
</html>
""")
