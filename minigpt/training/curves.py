"""Numbers over steps as inline SVG, for a page that is read by day and by night, on a desk and on a phone.

matplotlib (extra `report`) draws without a display. The colours it is given are the light ones below; in the
SVG each becomes a CSS variable of the same name, so that the page decides. Text stays text, in its font.
"""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]

LIGHT = {"paper": "#fcfbf8", "ink": "#24272d", "soft": "#6a7078", "grid": "#e7e4dc",
         "train": "#3f74a8", "held": "#c2502f", "band": "#c9a227"}  # fmt: skip
DARK = {"paper": "#16181c", "ink": "#e8e6e1", "soft": "#989ea7", "grid": "#2b2f36",
        "train": "#7db2e5", "held": "#f0906d", "band": "#d9b64a"}  # fmt: skip
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "minigpt",  # equal input, equal bytes
    "text.color": LIGHT["soft"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "axes.edgecolor": LIGHT["grid"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "lines.solid_joinstyle": "round",
}
ROUND = [1, 2, 5, 10]  # ticks stand at these, times a power of ten
MOST_POINTS = 800  # of one line: as many as a screen can show apart; a page of a million steps stays small
FIRST_FALL = 12  # the first twelfth, in which a loss falls from ln V, may leave the picture at the top
WIDE_RANGE = 12  # a loss whose top is so many times its median is drawn on a log axis


class Size(NamedTuple):
    """Of a figure, in CSS pixels; `right` leaves room for a number behind the last point."""

    width: int
    height: int
    left: int = 44
    right: int = 8
    font: float = 12.0


WIDE, NARROW, SMALL = Size(760, 330, 40, 52), Size(350, 260, 32, 48), Size(244, 150, 42, 12, 11.0)


# --- what is worth drawing ----------------------------------------------------------------------------------


def spaced(n: int) -> NDArray[np.int64]:
    """Positions that draw a calm line of n points: all of a short one, evenly spaced ones of a long one."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).astype(np.int64))


def envelope(values: Values) -> tuple[NDArray[np.int64], Values, Values]:
    """(position, lowest, highest) of each of MOST_POINTS stretches: a long series without losing a spike."""
    stretches = np.array_split(values, min(len(values), MOST_POINTS))
    middles = np.cumsum([len(stretch) for stretch in stretches]) - len(stretches[0]) // 2 - 1
    known = [stretch[np.isfinite(stretch)] for stretch in stretches]
    low = np.array([part.min() if len(part) else np.nan for part in known])
    high = np.array([part.max() if len(part) else np.nan for part in known])
    return middles, low, high


def smooth(values: Values) -> Values:
    """The mean over the neighbouring fortieth of the series on either side; what is not finite is left out.

    Near the beginning fewer neighbours count, as many on both sides: a mean of one side would sit far below a
    loss that is falling fast.
    """
    n = len(values)
    reach = np.minimum(np.arange(n), n // 40)                                   # (n,)
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])    # (n + 1,)
    count = np.concatenate([[0], np.cumsum(known)])                             # (n + 1,)
    begin, end = np.arange(n) - reach, np.minimum(np.arange(n) + reach + 1, n)  # (n,)
    with np.errstate(invalid="ignore"):
        return (total[end] - total[begin]) / (count[end] - count[begin])        # 0/0: nothing to draw


# --- figures ------------------------------------------------------------------------------------------------


def loss_figure(
    name: str, label: str, size: Size, train: tuple[Values, Values], held_out: dict[int, float],
    band: list[tuple[int, float, float]],
) -> str:  # fmt: skip
    """Training loss faint and smoothed, held-out loss as points, the band of recorded runs behind them."""
    steps, loss = train
    mean = smooth(loss)

    def plot(axes: "Axes") -> None:
        if band:
            at, low, high = zip(*band, strict=True)
            # seeds differ by so little that a true band hides behind a line: its edge makes it visible
            axes.fill_between(at, low, high, color=LIGHT["band"], alpha=0.35, linewidth=4)
        _noise(axes, steps, loss)
        _line(axes, steps, mean, linewidth=1.8)
        _points(axes, held_out, steps[-1])
        _set_loss_axis(axes, mean, [*held_out.values(), *(high for *_, high in band)], loss)

    return draw(name, label, size, steps[-1], plot)


def small_figure(
    name: str, label: str, steps: Values, values: Values, *, log: bool = False, noisy: bool = True,
    mark: float | None = None,
) -> str:  # fmt: skip
    """One quantity from zero, or on a log axis; a noisy one faint and smoothed; `mark` is a dashed level."""
    values = np.where(values > 0, values, np.nan) if log else values

    def plot(axes: "Axes") -> None:
        if noisy:
            _noise(axes, steps, values)
        mean = np.exp(smooth(np.log(values))) if log else smooth(values)
        _line(axes, steps, mean if noisy else values)
        if mark is not None:
            axes.axhline(mark, color=LIGHT["soft"], linewidth=1, linestyle=(0, (4, 3)))
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)

    return draw(name, label, SMALL, steps[-1], plot)


def _line(axes: "Axes", steps: Values, values: Values, *, linewidth: float = 1.6) -> None:
    at = spaced(len(values))
    alone = np.isfinite(values).sum() == 1  # one point makes no line
    axes.plot(steps[at], values[at], color=LIGHT["train"], linewidth=linewidth, marker="o" if alone else "",
              markersize=4, clip_on=not alone)  # fmt: skip


def _noise(axes: "Axes", steps: Values, values: Values) -> None:
    """Every step, faintly; where they stand closer than a screen can show, the area between extremes."""
    if len(values) <= MOST_POINTS:
        axes.plot(steps, values, color=LIGHT["train"], linewidth=0.9, alpha=0.4)
    else:
        at, low, high = envelope(values)
        axes.fill_between(steps[at], low, high, color=LIGHT["train"], linewidth=0.3, alpha=0.25)


def _points(axes: "Axes", held_out: dict[int, float], last_step: float) -> None:
    """Held-out losses; the newest carries its number: behind it where the picture ends, else above it."""
    if not held_out:
        return
    steps, losses = np.array([*held_out]), np.array([*held_out.values()])
    at = spaced(len(losses))
    marker = "o" if len(at) <= 60 else ""
    axes.plot(steps[at], losses[at], color=LIGHT["held"], linewidth=1.4, marker=marker, markersize=4.5,
              markeredgecolor=LIGHT["paper"], markeredgewidth=1, clip_on=False, zorder=4)  # fmt: skip
    place: dict[str, Any] = {"xytext": (8, 0), "va": "center"}
    if steps[-1] < 0.97 * last_step:
        place = {"xytext": (0, 9), "ha": "center"}
    axes.annotate(f"{losses[-1]:.3f}", (steps[-1], losses[-1]), textcoords="offset points",
                  color=LIGHT["held"], annotation_clip=False, **place)  # fmt: skip


def _set_loss_axis(axes: "Axes", mean: Values, others: list[float], loss: Values) -> None:
    """Fit what is smooth; neither the first fall nor a single step that shoots up may flatten the rest."""
    shown = np.array([*mean[len(mean) // FIRST_FALL :], *others])
    shown, loss = shown[np.isfinite(shown)], loss[np.isfinite(loss)]
    if not len(shown):
        return
    top, bottom = shown.max(), min(shown.min(), loss.min(initial=np.inf))
    if (whole := mean[np.isfinite(mean)].max(initial=top)) < top + (top - bottom) / 2:
        top = whole  # cutting so little would not pay
    if bottom > 0 and top > WIDE_RANGE * np.median(shown):
        axes.set_yscale("log")
        axes.set_ylim(bottom / 1.1, top * 1.1)
    else:
        margin = 0.04 * (top - bottom) or 0.5
        axes.set_ylim(bottom - margin, top + margin)


# --- from matplotlib to the page ----------------------------------------------------------------------------


def draw(name: str, label: str, size: Size, last_step: float, plot: Callable[["Axes"], None]) -> str:
    """One <svg> element, read aloud as `label`; `name` keeps its ids apart from those of other figures.

    Raises: ImportError naming the extra, if matplotlib is not installed.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('a report needs the extra "report": pip install "minigpt[report]"') from None
    width, height, left, right, font = size
    room = (left / width, 24 / height, (width - left - right) / width, (height - 34) / height)
    with style.context(["default", STYLE, {"font.size": font}]):  # a user's own matplotlibrc stays out
        figure = Figure(figsize=(width / 72, height / 72))  # an SVG has 72 units to the inch
        axes = figure.add_axes(room)
        plot(axes)
        axes.set_xlim(0, max(last_step, 1))
        _set_ticks(axes, width)
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines()):
            axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center")
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    return _inline(file.getvalue(), name, label)


def _set_ticks(axes: "Axes", width: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.xaxis.set_major_locator(MaxNLocator(8 if width > 500 else 4, integer=True, steps=ROUND))
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high > 3 * low:  # less may hold no 1, 2 or 5
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 40 else (1,)))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6 if width > 500 else 4, steps=ROUND))
    axes.yaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """A number as an axis shows it: 0.004, 250, 12k, 1.5M."""
    for least, unit, name in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def _inline(svg: str, name: str, label: str) -> str:
    """An SVG file as one element of a page: no prologue, no addresses, own ids, colours by CSS variable."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # date, version, addresses
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, f"{reference}{name}-")
    for colour, code in LIGHT.items():
        svg = svg.replace(code, f"var(--{colour})")
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box, "matplotlib gives every SVG a viewBox"
    opening = f'<svg {view_box[0]} role="img" aria-label="{label}">'
    return (opening + svg[svg.index(">") + 1 :]).strip()
