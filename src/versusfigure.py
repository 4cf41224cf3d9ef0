"""The estimates of two runs side by side, as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.compare import KEYS
from src.figure import CLASSICAL, DPI, MODEL, STYLE, WIDTH
from src.fonts import fonts_for
from src.trace import whole

COLOURS = {"a": MODEL, "b": CLASSICAL}
APART = 0.16  # of the distance between rows
LONGEST = 42  # characters of a label
SLOPES = ("spill_per_pp", "spill_by", "spill_at")  # per step of an exposure, or of a single adopter: far smaller


def draw(rows: pd.DataFrame, names: tuple[str, str], path: Path) -> None:
    """Means and intervals of both runs, a row an estimate, slopes on an axis of their own; written whole or not at all.

    Parameters
    ----------
    rows : DataFrame
        Columns of versus.csv, on one scale.
    names : tuple of str
        Of the two runs.
    path : Path
    """
    families, _ = fonts_for(set("".join([*labels_of(rows), *names])))
    is_slope = rows["estimand"].isin(SLOPES)
    parts = [part for part in (rows[~is_slope], rows[is_slope]) if len(part)]
    with matplotlib.rc_context(STYLE | {"font.family": families}):
        figure = Figure(figsize=(WIDTH, 1.4 + 0.3 * (len(rows) + 2 * len(parts))), dpi=DPI, layout="constrained")
        axes = figure.subplots(len(parts), 1, height_ratios=[len(part) + 1.5 for part in parts], squeeze=False)[:, 0]
        for axis, part in zip(axes, parts, strict=True):
            draw_part(axis, part, names)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=1)
        with whole(path) as part_of_file:
            figure.savefig(part_of_file, format="png")


def draw_part(axis: Axes, rows: pd.DataFrame, names: tuple[str, str]) -> None:
    """Some of the rows on one axis."""
    for (word, colour), side, name in zip(COLOURS.items(), (-APART, APART), names, strict=True):
        at = [k + side for k in range(len(rows))]
        reach = [rows[f"mean_{word}"] - rows[f"low_{word}"], rows[f"high_{word}"] - rows[f"mean_{word}"]]
        axis.errorbar(
            rows[f"mean_{word}"],
            at,
            xerr=np.maximum(reach, 0),
            fmt="o",
            color=colour,
            markersize=5,
            elinewidth=2.2,
            label=f"{word}: {name}",
        )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(rows)), labels_of(rows))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    masses = dict.fromkeys(f"{100 * rows[f'prob_{word}'].iloc[0]:g}%" for word in COLOURS)
    unit = "percent" if rows["scale"].iloc[0] == "percent" else "units of the outcome"
    axis.set_xlabel(f"{unit}; posterior means and {' and '.join(masses)} intervals")


def labels_of(rows: pd.DataFrame) -> list[str]:
    """What stands beside each row."""
    words = [" ".join(row[key] for key in KEYS if row[key]) for row in rows.to_dict("records")]
    return [word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…" for word in words]
