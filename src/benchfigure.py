"""The benchmarks as a picture: effective draws a second, seconds by stage, where the command's time goes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from src.benchmarks import (
    COLLAPSED,
    FAILED,
    MODELS,
    STAGES,
    of,
    rate,
    samplers,
    signed,
    sizes,
    slope,
    spent_by_stage,
    usual,
)
from src.figure import DPI, MODEL, STYLE
from src.trace import whole

COLOURS = ("#e07b1a", "#2a9d8f", "#8f5ea8", "#c0392b", "#7f8c1b", "#5c6b73")  # of the peers, in their order
OF_STAGES = ("#1f3b73", "#7aa6d8", "#e07b1a", "#2a9d8f", "#8f5ea8", "#c0392b")
LINES = {"pooled": "--", "hier": "-"}
WIDE, HIGH = 7.4, 4.2  # inches, of a panel
ONE_DECADE = 10


def draw(found: dict, path: Path) -> bool:
    """Draw what was measured to `path`; whether there was anything."""
    fit = found.get("command", {}).get("fit", {})
    panels = [
        (rates, any(sizes(found, model) for model in MODELS)),
        (by_rows, bool(usual(found, "rows"))),
        (by_columns, bool(usual(found, "columns"))),
        (of_command, bool(fit) and FAILED not in fit),
    ]
    wanted = [panel for panel, has in panels if has]
    if not wanted:
        return False
    with matplotlib.rc_context(STYLE):
        across = min(len(wanted), 2)
        down = -(-len(wanted) // across)
        figure = Figure(figsize=(WIDE * across, HIGH * down), dpi=DPI, layout="constrained")
        axes = np.atleast_1d(figure.subplots(down, across)).ravel()
        for panel, axis in zip(wanted, axes, strict=False):
            panel(found, axis)
        for axis in axes[len(wanted) :]:
            axis.remove()
        with whole(path) as part:
            figure.savefig(part, format="png")
    return True


def rates(found: dict, axis: Axes) -> None:
    """Effective draws a second against firms, a line a sampler."""
    names = list(dict.fromkeys(name for model in MODELS for name in samplers(found, model)))
    peers = [name for name in names if name != COLLAPSED]
    colours = {COLLAPSED: MODEL} | {name: COLOURS[j % len(COLOURS)] for j, name in enumerate(peers)}
    ticks: set[int] = set()
    for name in names:
        for model, style in LINES.items():
            at = [firms for firms in sizes(found, model) if of(found, model, firms, name)]
            if at:
                ticks |= set(at)
                height = [rate(of(found, model, firms, name)) for firms in at]
                label = f"{name}, {model}"
                axis.plot(at, height, style, color=colours[name], marker="o", markersize=4.5, label=label)
    axis.set(xlabel="firms", ylabel="minimum bulk ESS a second")
    logarithmic(axis, sorted(ticks))
    axis.set_title("The same posterior: effective draws a second of sampling")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def logarithmic(axis: Axes, at: Iterable[float]) -> None:
    """Both axes, ticks as plain numbers; along the first at the sizes that were measured."""
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(list(at), [f"{size:,.0f}" for size in at])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    low, high = axis.get_ylim()
    if high / low < ONE_DECADE:  # a tick at least on either side
        axis.set_ylim(low / np.sqrt(ONE_DECADE), high * np.sqrt(ONE_DECADE))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def by_rows(found: dict, axis: Axes) -> None:
    """Seconds of the stages against rows."""
    stages(usual(found, "rows"), "rows", axis)
    axis.set_title("Seconds by stage, and their slopes in rows")


def by_columns(found: dict, axis: Axes) -> None:
    """Seconds of the stages against columns."""
    stages(usual(found, "columns"), "columns", axis)
    axis.set_title("Seconds by stage, and their slopes in columns")


def stages(sized: list[dict[str, float]], by: str, axis: Axes) -> None:
    """A line for each stage, its slope in the legend."""
    at = [row[by] for row in sized]
    for stage, colour in zip(STAGES, OF_STAGES, strict=True):
        grows = slope(sized, stage, by)
        label = stage if np.isnan(grows) else f"{stage}, {signed(grows)}"
        axis.plot(at, [row[stage] for row in sized], color=colour, marker="o", markersize=4.5, label=label)
    axis.set(xlabel=by, ylabel="seconds")
    logarithmic(axis, at)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def of_command(found: dict, axis: Axes) -> None:
    """Seconds of the stages of the command, first and warm."""
    first, warm = spent_by_stage(found["command"]["fit"])
    names = [name for name in first if name != "whole"]
    height = np.arange(len(names))
    both = ((first, -0.2, "#c9ced6", "first, caches empty"), (warm, 0.2, MODEL, "warm"))
    for spent, shift, colour, label in both:
        width = [spent[name] for name in names]
        bars = axis.barh(height + shift, width, 0.38, color=colour, label=f"{label}: {spent['whole']:.0f} s")
        axis.bar_label(bars, [f"{value:.1f}" for value in width], padding=3, fontsize=9)
    axis.set_yticks(height, names)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="seconds")
    axis.margins(x=0.12)
    axis.set_title("Where the time of the whole command goes")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
