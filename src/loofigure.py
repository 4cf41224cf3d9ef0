"""The picture of src.loo: which units importance weights serve badly, and which of them tell models apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from src.figure import CLASSICAL, MODEL, STYLE, WIDTH, finish
from src.trace import whole


def draw(table: pd.DataFrame, comparison: pd.DataFrame, path: Path) -> None:
    """Draw Pareto k of every unit, and the difference of its log density from that of the best run.

    Parameters
    ----------
    table : DataFrame
        One row a run and unit.
    comparison : DataFrame
        One row a run, the best first.
    path : Path
    """
    with rc_context(STYLE), whole(path) as part:
        picture(table, comparison).savefig(part, format="png", dpi=150)


def picture(table: pd.DataFrame, comparison: pd.DataFrame) -> Figure:
    """The figure, a row of panels for each run; parameters as of `draw`."""
    names, most = list(comparison["run"]), comparison.set_index("run")["good_k"]
    of = {name: table[table["run"] == name].reset_index(drop=True) for name in names}
    figure = Figure(figsize=(WIDTH, 2.4 * len(names)))
    grid = figure.subplots(len(names), 2, squeeze=False)
    for (left, right), name in zip(grid, names, strict=True):
        mine = of[name]
        best = np.zeros(len(mine)) if name == names[0] else of[names[0]]["elpd"].to_numpy()
        for adopts, colour, label in ((False, MODEL, "never adopt"), (True, CLASSICAL, "adopt")):
            who = (mine["adopter"] == adopts).to_numpy()
            at = np.flatnonzero(who)
            left.plot(at, mine["pareto_k"][who], ".", color=colour, markersize=3, label=f"units that {label}")
            right.plot(at, mine["elpd"][who] - best[who], ".", color=colour, markersize=3)
        left.axhline(most[name], color="black", linewidth=0.8, linestyle=":")
        left.set_title(f"{name}: Pareto k", fontsize=10)
        left.set_visible(bool(mine["pareto_k"].notna().any()))
        what = f"{name}: log density"
        if name != names[0]:
            right.axhline(0, color="black", linewidth=0.8)
            what += f" less that of {names[0]}"
        right.set_title(what, fontsize=10)
    for axis in grid[-1]:
        axis.set_xlabel("unit")
    note = (
        "Left: weights serve badly above the dotted line; units that the model was fitted again without are left out. "
        "Right: above zero, a run predicts the unit better than the best does. Source: loo.csv."
    )
    return finish(figure, [grid[0, 0]], "Which model predicts units better?", note)
