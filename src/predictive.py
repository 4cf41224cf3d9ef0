"""Does the model produce such data? Statistics of the data beside those of data drawn from the model.

`tail` is the share of replicates above the data, ties half: near 0 or 1 the model does not produce such data. Where a
statistic T looks at the coefficients theta too, T(y, theta) stands against T(y_rep, theta) at the same draw of theta.
Statistics of counts are in `src.events`, those of Gaussian outcomes in `src.residuals`.

Source: Gelman, Meng & Stern (1996) for posterior predictive checks and realised discrepancies.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.figure import BINS, CLASSICAL, MODEL, WIDTH, finish

Statistics = dict[tuple[str, str], np.ndarray]

REPLICATES = 400
SURPRISING = 0.005
ACROSS = 4  # panels beside each other
KINDS = {"treated": "units that adopt", "control": "all other units", "all": "all units"}


@dataclass(frozen=True)
class Check:
    """Statistics of data and replicates.

    Attributes
    ----------
    summary : DataFrame
        A row for each kind of units and statistic: kind, statistic, observed (its mean, where it looks at the
        coefficients), mean, low and high (95% of the replicates), tail, units.
    drawn, seen : dict of (str, str) to array, shape (replicate,)
        Of every replicate, and of the data at the same draw, by kind and statistic.
    words : dict of str to str
        What each statistic is.
    remedies : dict of (str, bool) to str
        What can be done about a surprise, by statistic and whether the data lie above the replicates.
    noun : str
        What is drawn.
    note : str
        How replicates are drawn.
    """

    summary: pd.DataFrame
    drawn: Statistics
    seen: Statistics
    words: Mapping[str, str]
    remedies: Mapping[tuple[str, bool], str]
    noun: str
    note: str


def check_of(
    drawn: Statistics,
    seen: Statistics,
    units: Mapping[str, int],
    words: Mapping[str, str],
    remedies: Mapping[tuple[str, bool], str],
    noun: str,
    note: str,
) -> Check:
    """The check of statistics of replicates and data; `units` has the number of units of each kind."""
    rows = []
    for (kind, statistic), values in drawn.items():
        here = seen[kind, statistic]
        low, high = np.quantile(values, [0.025, 0.975])
        tail = np.mean(values > here) + 0.5 * np.mean(values == here)
        row = {"observed": here.mean(), "mean": values.mean(), "low": low, "high": high, "tail": tail}
        rows.append({"kind": kind, "statistic": statistic} | row | {"units": units[kind]})
    return Check(pd.DataFrame(rows), drawn, seen, words, remedies, noun, note)


def stacked(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of some replicates after those of others."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def spaced(draws: xr.DataArray, number: int) -> xr.DataArray:
    """So many draws of all chains together, evenly spaced, dims (chain, draw, column) with a single chain."""
    flat = draws.transpose("chain", "draw", "column").to_numpy().reshape(1, -1, draws.sizes["column"])
    some = np.linspace(0, flat.shape[1] - 1, number).astype(int)
    return xr.DataArray(flat[:, some], dims=("chain", "draw", "column"), coords={"column": draws["column"]})


def record(check: Check) -> dict:
    """The statistics for diagnostics.json, and in sentences what is surprising."""
    return {"predictive": check.summary.to_dict("records"), "surprises": list(surprises(check))}


def surprises(check: Check) -> Iterator[str]:
    """A sentence for each statistic of the data that hardly any replicate has, and what can be done about it."""
    summary = check.summary
    for _, row in summary[surprising(check)].iterrows():
        seen, low, high = (plain(row[name]) for name in ("observed", "low", "high"))
        what, who = check.words[row["statistic"]], KINDS[row["kind"]]
        remedy = check.remedies.get((row["statistic"], row["tail"] < 0.5), "")
        yield (
            f"{check.noun} drawn from the model are unlike the data: {what} is {seen} among {who}, and {low} to {high} "
            f"in 95% of the draws (figures/predictive.png){f': {remedy}' if remedy else ''}."
        )


def in_words(check: Check) -> str:
    """How many statistics of the data are such as the model draws."""
    usual = int((~surprising(check)).sum())
    return (
        f"Of {len(check.summary)} statistics of the data, {usual} lie within the middle {1 - 2 * SURPRISING:.0%} of "
        f"{replicates_of(check)} times that the model drew them."
    )


def surprising(check: Check) -> np.ndarray:
    """Which statistics hardly any replicate reaches, shape (statistic,).

    The data count as one more replicate, so that of a right model 2 `SURPRISING` of them are at most.
    """
    tail, drawn = check.summary["tail"].to_numpy(), replicates_of(check)
    return (np.minimum(tail, 1 - tail) * drawn + 1) / (drawn + 1) < SURPRISING


def replicates_of(check: Check) -> int:
    """How often the model drew the data."""
    return len(next(iter(check.drawn.values())))


def plain(value: float) -> str:
    """Three digits, more where a number has more before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(check: Check) -> Figure:
    """Statistics of data drawn from the model beside those of the data, a panel for each."""
    summary = check.summary
    down = -(-len(summary) // ACROSS)
    figure = Figure(figsize=(WIDTH, 2.2 * down))
    grid = figure.subplots(down, ACROSS, squeeze=False)
    for axis, row in zip(grid.flat, summary.to_dict("records"), strict=False):
        name = row["kind"], row["statistic"]
        values, seen = check.drawn[name], check.seen[name]
        low, high = min(values.min(), seen.min()), max(values.max(), seen.max())
        bins = np.linspace(low, high, BINS + 1) if high > low else BINS
        axis.hist(values, bins=bins, color=MODEL, alpha=0.55, label="drawn from the model")
        if np.ptp(seen) > 0:
            axis.hist(seen, bins=bins, color=CLASSICAL, alpha=0.55)
        axis.axvline(row["observed"], color=CLASSICAL, linewidth=2, label="the data")
        axis.set_title(f"{row['tail']:.0%} of draws above", fontsize=9)
        axis.set_xlabel(textwrap.fill(f"{check.words[row['statistic']]}, {KINDS[row['kind']]}", 26), fontsize=8)
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(3))
    for axis in grid.flat[len(summary) :]:
        axis.set_visible(False)
    note = (
        f"{replicates_of(check):,} replicates: {check.note} Tail shares near 0% or 100% say that the model does not "
        "produce such data. Source: predictive.csv."
    )
    return finish(figure, [grid[0, 0]], f"Does the model produce such {check.noun.lower()}?", note)
