"""Does the classical answer agree? The model beside every estimator of the same estimand, in numbers and in words.

    distance     (posterior mean - estimate) / standard error
    width_ratio  width of the model's interval / width of the estimator's
    same_sign    posterior mean and estimate are on one side of zero
    reliable     the standard error rests on five units or more

Words never claim more than that: a reason is named where the run itself shows it (weights, exposures or fixed effects
left out, cross-sections), as a likely one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.compare import CLOSEST_FIRST, TWINS, closest, keyed, readable_scale
from src.figure import ENDS, MODEL, TRUTH, WIDTH, finish, sensible_limits, shorten
from src.frequentist import UNRELIABLE
from src.panel import some

FAR = 2.0  # standard errors
VARIANTS = "_uniform|_by_|_cr3"  # estimators that repeat the estimates of another one
SHOWN = ("att", "att_by", "att_cohort")
MOST_ROWS = 12
MARKS = ("#e07b1a", "#8a8a8a", "#b5403a", "#2b8a6e", "#7a5aa6", "#c7a42b", "#d9828f", "#4f9bd0")
COLUMNS = [*TWINS, "estimator", "distance", "width_ratio", "same_sign", "reliable"]


def agreement(comparison: pd.DataFrame, model: str) -> pd.DataFrame:
    """A row for every estimate that the model has a twin of.

    Parameters
    ----------
    comparison : DataFrame
        Columns of `comparison.csv`.
    model : str
        Name of the model, with which its own rows begin.

    Returns
    -------
    DataFrame
        `COLUMNS`; distance is missing where the estimator has no standard error, as a uniform band.
    """
    known = keyed(comparison[np.isfinite(comparison["estimate"].astype(float))])
    mine, others = known[known["estimator"] == model], known[~known["estimator"].str.startswith(model)]
    others = others.merge(mine, on=TWINS, suffixes=("", "_model"), how="inner")
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (others["estimate_model"] - others["estimate"]) / others["se"].astype(float)
        ratio = (others["high_model"] - others["low_model"]) / (others["high"] - others["low"])
    same = np.sign(others["estimate_model"]) == np.sign(others["estimate"])
    reliable = ~others["note"].astype(str).str.contains(UNRELIABLE)
    found = others.assign(distance=distance, width_ratio=ratio, same_sign=same, reliable=reliable)
    return found[COLUMNS].reset_index(drop=True)


def in_words(table: pd.DataFrame, comparison: pd.DataFrame, model: str) -> Iterator[str]:
    """A short paragraph on the average effect and on the subgroups, a sentence each.

    Parameters
    ----------
    table : DataFrame
        From `agreement`.
    comparison : DataFrame
    model : str
    """
    scale = readable_scale(comparison)
    mine = table[(table["scale"] == scale) & np.isfinite(table["distance"])]
    att = mine[(mine["estimand"] == "att") & ~mine["estimator"].str.contains(VARIANTS)]
    if att.empty:
        return
    names = list(att["estimator"])
    opposed = att.loc[~att["same_sign"], "estimator"]
    signs = "all of one sign with it" if opposed.empty else f"of the other sign in {some(opposed, 4)}"
    far = att[att["distance"].abs() > FAR]
    least, most = att["distance"].min(), att["distance"].max()
    yield (
        f"Of the average effect there are {len(names)} classical estimates ({some(names, 8)}), {signs}. The posterior "
        f"mean is {least:+.1f} to {most:+.1f} of their standard errors away; its interval is "
        f"{att['width_ratio'].median():.2f} times as wide as theirs (median)."
    )
    if len(far):
        yield f"More than {FAR:g} standard errors away: {some(far['estimator'], 8)}."
        yield from reasons(far, comparison)
    by = mine[(mine["estimand"] == "att_by") & ~mine["group"].str.contains(":", regex=False)]
    by = closest(by[by["reliable"] & by["estimator"].isin(CLOSEST_FIRST)], CLOSEST_FIRST)
    for group, nearest in by.groupby("group", sort=False):
        away = nearest[nearest["distance"].abs() > FAR]
        twins = some(dict.fromkeys(nearest["estimator"]), 4)
        wide = nearest["width_ratio"].median()
        yield (
            f"By {group}, against {twins}: {len(away)} of {len(nearest)} levels of five adopters or more lie more than "
            f"{FAR:g} standard errors away, and intervals are {wide:.2f} times as wide (median)."
        )


def reasons(far: pd.DataFrame, comparison: pd.DataFrame) -> Iterator[str]:
    """Likely reasons for a distance that this run itself shows."""
    here = (comparison["estimand"] == "att") & comparison["estimator"].isin(far["estimator"])
    notes = comparison.loc[here, "note"].astype(str)
    if notes.str.contains("spillovers are left out").any():
        yield "Likely reason: they leave spillovers out, which the model has."
    if notes.str.contains("weights of the regression").any():
        yield "Likely reason: they average with the weights of the regression, not by rows."
    if notes.str.contains("fixed effects by period").any():
        yield "Likely reason: they leave out the effects of level and period that the model has."
    if notes.str.contains("cross-sections").any():
        yield "Likely reason: units that are not seen in every period are compared as different units."


def draw(comparison: pd.DataFrame, model: str) -> Figure | None:
    """One row for each estimand, one mark for each estimator."""
    scale = readable_scale(comparison)
    known = keyed(comparison[(comparison["scale"] == scale) & np.isfinite(comparison["estimate"].astype(float))])
    main = known["estimand"].isin(SHOWN) & ~known["group"].str.contains(":", regex=False)
    known = known[main & ~known["estimator"].str.contains(VARIANTS)]
    keys = known.groupby(["estimand", "group", "level"], sort=False)
    rows = [key for key, part in keys if len(set(part["estimator"])) > 1][:MOST_ROWS]
    names = [model, *(name for name in dict.fromkeys(known["estimator"]) if name != model)]
    if not rows or len(names) < 2:
        return None
    height = 0.3 + 0.085 * len(names)
    figure = Figure(figsize=(WIDTH, 0.7 + height * len(rows)))
    axis = figure.subplots()
    shown = pd.concat([keys.get_group(key) for key in rows])
    limits = sensible_limits(shown[shown["estimator"] == model].assign(truth=np.nan), shown)
    step = 0.8 / len(names)
    for j, name in enumerate(names):
        mine = shown[shown["estimator"] == name].set_index(["estimand", "group", "level"])[ENDS].astype(float)
        at = np.array([k - 0.4 + step * (j + 0.5) for k, key in enumerate(rows) if key in mine.index])
        values = np.array([mine.loc[key].to_numpy() for key in rows if key in mine.index])
        colour, marker = (MODEL, "o") if name == model else (MARKS[(j - 1) % len(MARKS)], "s")
        axis.hlines(at, *np.clip(values[:, 1:].T, *limits), color=colour, linewidth=1.6 if name == model else 1)
        inside = (values[:, 0] >= limits[0]) & (values[:, 0] <= limits[1])
        axis.plot(values[inside, 0], at[inside], marker, color=colour, markersize=4 if name == model else 3, label=name)
    axis.axvline(0, color=TRUTH, linewidth=0.8)
    axis.set_yticks(range(len(rows)), [shorten(" ".join(str(part) for part in key if part)) for key in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(*limits)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("percent" if scale == "percent" else "units of the outcome")
    note = (
        f"The first {len(rows)} estimands that more than one estimator has; points and intervals of the model are dark "
        "blue. Intervals that leave the axis are cut. Source: comparison.csv, agreement.csv."
    )
    return finish(figure, [axis], "Does the classical answer agree?", note)
