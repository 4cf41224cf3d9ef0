"""Rules and cells as one picture: what they gain, with intervals, and how sure their order is."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from src.figure import DPI, LONGEST_LABEL, MODEL, STYLE, WIDTH, shorten
from src.trace import whole

MOST_CELLS = 25
SURE = LinearSegmentedColormap.from_list("sure", ["#d5dbe8", MODEL])
TODAY = "#e07b1a"


def draw(rules: pd.DataFrame, cells: pd.DataFrame, title: str, unit: str, path: Path) -> None:
    """Rules above, cells beneath; written whole or not at all.

    Parameters
    ----------
    rules, cells : DataFrame
        As in rules.csv and cells.csv.
    title, unit : str
    path : Path
    """
    shown = cells.head(MOST_CELLS)
    sizes = [len(rules), len(shown)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.4 + 0.3 * sum(sizes)), dpi=DPI, layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=[size + 1.5 for size in sizes])
        draw_rules(upper, rules, unit)
        draw_cells(lower, shown, len(cells), unit)
        colours = ScalarMappable(Normalize(0, 1), SURE)
        bar = figure.colorbar(colours, ax=[upper, lower], location="bottom", shrink=0.5, aspect=40, pad=0.02)
        bar.set_label("rules: P(gain above today's rule); cells: P(among the top)", fontsize=9)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        with whole(path) as part:
            figure.savefig(part, format="png")


def draw_rules(axis: Axes, rules: pd.DataFrame, unit: str) -> None:
    """Gain a chosen unit and period of every rule; today's in orange, its gain as a line."""
    labels = [f"{rule}, {limits}" if limits else rule for rule, limits in zip(rules["rule"], rules["limits"])]  # noqa: B905
    plain = rules[(rules["rule"] == "today") & (rules["limits"] == "")]
    axis.axvline(plain["gain"].iloc[0], color=TODAY, linewidth=1, linestyle=":")
    for at, row in enumerate(rules.to_dict("records")):
        colour = TODAY if row["rule"] == "today" else SURE(row["p_beats_today"])
        axis.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=2.2)
        axis.plot(row["gain"], at, "o", color=colour, markersize=6)
    finish(axis, labels, f"Rules: gain a chosen unit and period, {unit}, {rules['prob'].iloc[0]:.0%} intervals")


def draw_cells(axis: Axes, cells: pd.DataFrame, of: int, unit: str) -> None:
    """Gain of a candidate alone in every cell; hollow where nobody was ever treated."""
    labels = [shorten(f"{cell} ({n})")[: LONGEST_LABEL + 8] for cell, n in cells[["cell", "candidates"]].to_numpy()]
    for at, row in enumerate(cells.to_dict("records")):
        colour = SURE(row["p_top"])
        axis.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=2.2)
        shape, fill = ("D", "white") if row["extrapolated"] else ("o", MODEL)
        axis.plot(row["gain"], at, shape, color=MODEL, markerfacecolor=fill, markersize=5.5)
    several = f"{len(cells)} of {of} cells" if len(cells) < of else "Cells"
    hollow = "; hollow diamond: nobody treated there" if np.any(cells["extrapolated"]) else ""
    finish(axis, labels, f"{several} (candidates): gain of one alone{hollow}")


def finish(axis: Axes, labels: list[str], title: str) -> None:
    """Labels, zero line, title."""
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    axis.set_title(title, fontsize=10)
