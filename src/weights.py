"""What the two-way fixed effects coefficient averages: its weights on effects, and the comparisons that it is made of.

    tau = sum over treated rows of w_it tau_it,    w_it = e_it / sum over treated rows of e_it        weights on effects

e_it is the residual of D_it on unit and period effects (and covariates). Weights may be negative: a unit that has been
treated for long serves as a control for those treated later, and its effect counts against the coefficient.

    tau = sum over pairs of cohorts of s_kl tau_kl                                                    comparisons

tau_kl compares two cohorts, or one with the never-treated, in the periods where only one of them changes. Comparisons
of a later with an earlier treated cohort subtract what happens to the earlier one's effect.

Source: de Chaisemartin & D'Haultfoeuille (2020), equation 3; Goodman-Bacon (2021), theorem 1, by diff-diff.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.design import cell_labels
from src.frequentist import feols, frame_of, regress
from src.panel import Panel
from src.staggered import plain_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "treated_vs_never": "adopters against the never-treated",
    "earlier_vs_later": "earlier against later adopters",
    "later_vs_earlier": "later against earlier adopters",
}
MATTERS = 0.02  # share of negative weight from which on it is said
OFF = 0.01  # of the coefficient


def cell_weights(panel: Panel) -> pd.DataFrame:
    """Weight of the coefficient on the effect of every cohort and period, beside the cell's share of treated rows.

    Returns
    -------
    DataFrame
        cell ("2015@2017"), weight and share, which both sum to 1, n_obs.
    """
    frame, regressors, _ = frame_of(panel, {"D": panel.treated})
    fit = feols(frame, "x0", [name for name in regressors if name != "x0"], lean=False)
    rows = np.flatnonzero(panel.treated)
    weight = panel.weight[rows] * np.asarray(fit.resid())[rows]
    cells = cell_labels(panel.row_cohort[rows], panel.time[rows])
    table = pd.DataFrame({"cell": cells, "weight": weight / weight.sum(), "share": panel.weight[rows], "n_obs": 1})
    table["share"] /= table["share"].sum()
    return table.groupby("cell", sort=False, as_index=False).sum()


def comparisons(panel: Panel) -> pd.DataFrame:
    """The comparisons of two cohorts that the coefficient is made of; none where one cohort is all there is.

    Returns
    -------
    DataFrame
        kind (of `KINDS`), treated, control, weight, estimate; exact on balanced panels without covariates.
    """
    from diff_diff import BaconDecomposition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on panels that are not balanced, which the caller says
        found = (
            BaconDecomposition()
            .fit(plain_frame(panel), outcome="y", unit="unit", time="time", first_treat="cohort")
            .to_dataframe()
        )
    names = {"comparison_type": "kind", "treated_group": "treated", "control_group": "control"}
    return found.rename(columns=names)[["kind", "treated", "control", "weight", "estimate"]]


def coefficient(panel: Panel) -> float:
    """The two-way fixed effects coefficient."""
    return float(regress(panel, {"D": panel.treated}).coefficients[0])


def total(pairs: pd.DataFrame) -> float:
    """What the comparisons add up to."""
    return float(pairs["weight"].to_numpy() @ pairs["estimate"].to_numpy())


def adds_up(pairs: pd.DataFrame, coefficient: float) -> bool:
    """Whether that is the coefficient, as on balanced panels without covariates and weights."""
    return abs(total(pairs) - coefficient) <= OFF * abs(coefficient)


def sentences(weights: pd.DataFrame, pairs: pd.DataFrame, coefficient: float) -> Iterator[str]:
    """What of the coefficient a reader is to know."""
    negative = weights["weight"] < 0
    share = float(-weights.loc[negative, "weight"].sum())
    distance = float((weights["weight"] - weights["share"]).abs().sum() / 2)
    if share >= MATTERS:
        yield (
            f"The TWFE coefficient gives {int(negative.sum())} of {len(weights)} cells of cohort and period negative "
            f"weight, {share:.0%} in all: it may have another sign than every effect that it averages."
        )
    yield f"Its weights differ from those of treated rows by {distance:.0%} (half the sum of absolute differences)."
    if not adds_up(pairs, coefficient):
        yield (
            f"The comparisons of two cohorts add up to {total(pairs):.3g} and not to the coefficient, "
            f"{coefficient:.3g}: units are not seen in every period, or there are covariates, weights or fixed "
            "effects, which they leave out."
        )
        return
    late = float(pairs.loc[pairs["kind"] == "later_vs_earlier", "weight"].sum())
    if late >= MATTERS:
        yield f"{late:.0%} of it compares later adopters with earlier ones, whose own effects it subtracts."


def draw(weights: pd.DataFrame, pairs: pd.DataFrame, coefficient: float) -> Figure:
    """Weights on cells beside shares of rows, and the comparisons by weight."""
    from matplotlib.figure import Figure  # with src.figure here: the rest runs where nothing is drawn

    from src.figure import CLASSICAL, MODEL, POOLED, WIDTH, finish

    colours = dict(zip(KINDS, (MODEL, POOLED, CLASSICAL), strict=True))
    figure = Figure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2)
    sign = np.where(weights["weight"] < 0, CLASSICAL, MODEL)
    left.scatter(100 * weights["share"], 100 * weights["weight"], c=sign, s=18, zorder=3)
    top = 100 * max(weights["share"].max(), weights["weight"].max())
    left.plot([0, top], [0, top], color=POOLED, linewidth=0.8, linestyle="--")
    left.axhline(0, color="black", linewidth=0.8)
    left.set_xlabel("share of treated rows, %")
    left.set_ylabel("weight of the coefficient, %")
    left.set_title("cells of cohort and period")
    for kind, mine in pairs.groupby("kind", sort=False):
        label = f"{KINDS.get(str(kind), kind)} ({mine['weight'].sum():.0%})"
        right.scatter(100 * mine["weight"], mine["estimate"], s=22, color=colours.get(str(kind), POOLED), label=label)
    right.axhline(0, color="black", linewidth=0.8)
    right.set_xlabel("weight, %")
    right.set_ylabel("estimate of the comparison")
    right.set_title("comparisons of two cohorts")
    mean = "the TWFE coefficient" if adds_up(pairs, coefficient) else "not quite the TWFE coefficient here"
    note = (
        "Left: dashed line, weights that count rows; orange, negative weight. Right: each point is a difference in "
        f"differences of two cohorts; their weighted mean is {mean}. Source: weights.csv, bacon.csv."
    )
    return finish(figure, [right], "What does two-way fixed effects average?", note)
