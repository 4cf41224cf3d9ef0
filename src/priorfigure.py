"""What the prior says, as a picture: intervals of effects, and outcomes that it draws beside those that were seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.figure import CLASSICAL, DPI, MODEL, STYLE, WIDTH, finish, shorten
from src.trace import whole

if TYPE_CHECKING:
    from src.prior import Said

MOST = 14  # estimands
TICKS = (-99.9, -90, -50, 0, 100, 900, 9900, 1e6)  # percent
BINS = 60
ROOM = 0.08  # of the axis, for a label
FAR = 4  # times the range of outcomes that were seen


def draw(said: Said, heading: str, unit: str, path: Path) -> None:
    """Draw both panels."""
    from src.prior import ABSURD, readable

    rows = readable(said.table).drop_duplicates(["estimand", "group"]).head(MOST)
    percent = unit == "percent"
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(rows) + 2.6))
        top, bottom = figure.subplots(2, 1, height_ratios=(0.6 + 0.3 * len(rows), 2.4))
        effects(top, rows, percent, ABSURD if percent else None)
        outcomes(bottom, said)
        note = (
            f"Lines: {100 * said.table['prob'].iloc[0]:g}% intervals of the prior, points: medians; of a group, its "
            "first level. Grey: absurd, beyond -90% or +900%. Below: outcomes of treated rows given what the unit was "
            "before adoption; the farthest draws are left out. Source: prior.csv."
        )
        finish(figure, [top, bottom], heading, note)
        with whole(path) as part:
            figure.savefig(part, format="png", dpi=DPI)


def effects(axis: Axes, rows: pd.DataFrame, percent: bool, absurd: tuple[float, float] | None) -> None:
    """Intervals of effects; percent on a scale on which twice as much is as far as half as much."""

    def at(values) -> np.ndarray:
        values = np.asarray(values, dtype=float)
        return np.log1p(np.maximum(values, -99.999) / 100) if percent else values

    place = np.arange(len(rows))
    low, middle, high = (at(rows[name]) for name in ("low", "median", "high"))
    axis.hlines(place, low, high, color=MODEL, linewidth=2)
    axis.plot(middle, place, "o", color=MODEL, markersize=5, label="prior")
    axis.axvline(0, color="black", linewidth=0.8)
    labels = [
        " ".join(str(x) for x in row if pd.notna(x) and x) for row in rows[["estimand", "group", "level"]].to_numpy()
    ]
    axis.set_yticks(place, [shorten(label) for label in labels])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    limits = axis.get_xlim()
    if absurd is not None:
        ends = at(np.array(absurd))
        limits = min(limits[0], ends[0] - 0.5), max(limits[1], ends[1] + 0.5)
        for end, far in zip(ends, limits, strict=True):
            axis.axvspan(end, far, color="#eeeeee", zorder=0)
        shown = apart([tick for tick in TICKS if limits[0] <= at([tick])[0] <= limits[1]], at, limits)
        axis.set_xticks(at(shown), [f"{tick:+,g}%" if tick else "0" for tick in shown])
    axis.set_xlim(*limits)
    axis.set_title("Effects" if percent else "Effects, units of the outcome")


def apart(ticks: list[float], at: Callable, limits: tuple[float, float]) -> list[float]:
    """Ticks whose labels do not run into each other, zero first."""
    kept: list[float] = []
    for tick in sorted(ticks, key=lambda tick: (tick != 0, tick not in (-90, 900), abs(tick))):
        if all(abs(at([tick])[0] - at([other])[0]) > ROOM * (limits[1] - limits[0]) for other in kept):
            kept.append(tick)
    return sorted(kept)


def outcomes(axis: Axes, said: Said) -> None:
    """Densities of outcomes of treated rows, as seen and from the prior."""
    low, high = said.seen.min(), said.seen.max()
    room = FAR * max(high - low, 1e-12)
    drawn = said.drawn[(said.drawn > low - room) & (said.drawn < high + room)]
    edges = np.linspace(min(drawn.min(initial=low), low), max(drawn.max(initial=high), high), BINS).tolist()
    axis.hist(said.seen, edges, density=True, color=CLASSICAL, alpha=0.55, label="seen")
    axis.hist(drawn, edges, density=True, histtype="step", color=MODEL, linewidth=1.6, label="drawn from the prior")
    axis.set_title("Outcomes of treated rows")
    axis.set_yticks([])
    axis.grid(visible=False, axis="y")
