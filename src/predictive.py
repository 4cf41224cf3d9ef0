"""What counts the model would have us see, beside those that were counted.

    y_i | n_i ~ Multinomial(n_i, p_i),    p_it proportional to exp(f_it + u_kt + v_ct + z_it) over the rows of unit i
    z_i ~ Normal(0, omega_i R(rho))       omega_i from its posterior, z and shocks drawn anew

n_i is the unit's own total. The flat prior on a_i makes the likelihood that of the counts given n_i, so replicates keep
it: what is checked is how a unit's events spread over its periods, which is all that the effects are read from. Units
without any event say nothing, and are left out of data and replicates alike.

With y_i. the unit's mean and r_it = (y_it - y_i.) / sqrt(y_i.), over the units that ever adopt (`treated`) and the
others (`control`):

    zeros         share of rows without an event
    dispersion    sum of r_it^2 / sum over units of (rows - 1): variance to mean within units, 1 for pure Poisson
    maximum       largest count
    lag1          correlation of r_it with that of the unit's next row

`tail` is the share of replicates above what was counted, ties half: near 0 or 1 the model does not produce such data.

Source: Gelman, Meng & Stern (1996) for posterior predictive checks.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.collapse import Collapsed
from src.errors import Shock
from src.figure import BINS, CLASSICAL, MODEL, WIDTH, finish
from src.panel import Panel
from src.rates import all_coefficients
from src.sites import Counts

REPLICATES = 400
SURPRISING = 0.005
WORDS = {
    "zeros": "share of zeros",
    "dispersion": "variance to mean within units",
    "maximum": "largest count",
    "lag1": "lag-1 correlation within units",
}
KINDS = {"treated": "units that adopt", "control": "units that never adopt"}


def check(collapsed: Collapsed, theta: xr.DataArray, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Statistics of the data beside those of replicates.

    Parameters
    ----------
    collapsed : Collapsed
        Of counts.
    theta : DataArray, dims (chain, draw, column)
        In log points.
    seed : int

    Returns
    -------
    summary : DataFrame
        A row for each statistic of `WORDS` and kind of unit: kind, statistic, observed, mean, low and high (95% of the
        replicates), tail, units.
    replicates : DataFrame
        The statistic of every replicate: kind, statistic, value.
    """
    panel = collapsed.regression.panel
    counts = Counts.of(panel.outcome, panel.unit, panel.time)
    ever = np.isfinite(panel.cohort)[counts.unit]
    kinds = {name: mine for name, mine in zip(KINDS, (ever, ~ever), strict=True) if mine.any()}
    draw = replicator(collapsed, counts, theta, seed)
    drawn = [of_kinds(draw(r), counts, kinds) for r in range(REPLICATES)]
    replicates, observed = pd.concat(drawn, ignore_index=True), of_kinds(counts.count, counts, kinds)
    rows = []
    for kind, statistic, seen in observed.itertuples(index=False):
        values = replicates.query("kind == @kind and statistic == @statistic")["value"].to_numpy()
        low, high = np.quantile(values, [0.025, 0.975])
        tail = np.mean(values > seen) + 0.5 * np.mean(values == seen)
        row = {"observed": seen, "mean": values.mean(), "low": low, "high": high, "tail": tail}
        rows.append({"kind": kind, "statistic": statistic} | row | {"units": int(kinds[kind].sum())})
    return pd.DataFrame(rows), replicates


def replicator(collapsed: Collapsed, counts: Counts, theta: xr.DataArray, seed: int) -> Callable[[int], np.ndarray]:
    """A function that draws the r-th replicate of the counts, shape (slot, unit), from a draw of the posterior."""
    regression, nuisance, levels = collapsed.regression, collapsed.nuisance, collapsed.levels
    assert levels is not None
    flat = theta.transpose("chain", "draw", "column").to_numpy().reshape(1, -1, theta.sizes["column"])
    spaced = np.linspace(0, flat.shape[1] - 1, REPLICATES).astype(int)
    some = xr.DataArray(flat[:, spaced], dims=("chain", "draw", "column"), coords={"column": theta["column"]})
    coefficients = all_coefficients(collapsed, some, seed)
    rng = np.random.default_rng([seed, 9])
    reached = np.cumsum(levels.share[counts.unit], axis=1)[:, :-1]
    total = counts.count.sum(axis=0).astype(np.int64)
    step = counts.padded(np.r_[0, np.diff(regression.panel.time)])[1:]

    def draw(r: int) -> np.ndarray:
        felt = regression.matrix @ coefficients[r] + regression.panel.log_offset
        for shock in nuisance.shocks.values():
            felt += shocks(regression.panel, shock, collapsed.s, rng)
        omega = levels.omega[(rng.random((len(total), 1)) > reached).sum(axis=1)]
        power = counts.padded(felt) + np.sqrt(omega) * disturbance(step, nuisance.rho, rng)
        chance = np.exp(power - power.max(axis=0)) * counts.real
        # the last category takes what rounding leaves over: the first slot, in which every unit has a row
        found = rng.multinomial(total, (chance / chance.sum(axis=0))[::-1].T)
        return found.T[::-1].astype(float)

    return draw


def shocks(panel: Panel, shock: Shock, s: float, rng: np.random.Generator) -> np.ndarray:
    """New shocks to the levels of a classification, shape (row,), in log points; AR(1) over calendar periods."""
    gaps = np.diff(panel.periods)
    path = disturbance(np.repeat(gaps[:, None], shock.levels, axis=1), shock.phi, rng)
    return s * shock.sd * path[np.searchsorted(panel.periods, panel.time), shock.code[panel.unit]]


def disturbance(step: np.ndarray, rho: float, rng: np.random.Generator) -> np.ndarray:
    """AR(1) of unit variance along the first axis, `step` periods from one to the next, shape (slots - 1, unit).

    Returns
    -------
    array, shape (slot, unit)
    """
    path = rng.standard_normal((len(step) + 1, step.shape[1]))
    for j, gap in enumerate(step):
        kept = rho ** np.maximum(gap, 0)
        path[j + 1] = kept * path[j] + np.sqrt(1 - kept**2) * path[j + 1]
    return path


def of_kinds(count: np.ndarray, counts: Counts, kinds: dict[str, np.ndarray]) -> pd.DataFrame:
    """The statistics of counts, shape (slot, unit), of each kind of units: columns kind, statistic, value."""
    rows = []
    for kind, mine in kinds.items():
        values = statistics(count[:, mine], counts.real[:, mine])
        rows += [{"kind": kind, "statistic": name, "value": value} for name, value in values.items()]
    return pd.DataFrame(rows)


def statistics(count: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The statistics of counts, shape (slot, unit), where there is a row."""
    mean = count.sum(axis=0) / real.sum(axis=0)
    deviation = np.where(real, (count - mean) / np.sqrt(mean), 0.0)
    here, ahead = deviation[:-1] * real[1:], deviation[1:]
    spread = np.sqrt((here**2).sum() * (ahead**2).sum())
    return {
        "zeros": float((count[real] == 0).mean()),
        "dispersion": float((deviation**2).sum() / max(real.sum() - real.shape[1], 1)),
        "maximum": float(count.max()),
        "lag1": float((here * ahead).sum() / spread) if spread > 0 else 0.0,
    }


def record(summary: pd.DataFrame) -> dict:
    """The statistics for diagnostics.json, and in sentences what is surprising."""
    return {"predictive": summary.to_dict("records"), "surprises": list(surprises(summary))}


def surprises(summary: pd.DataFrame) -> Iterator[str]:
    """A sentence for each statistic of the data that hardly any replicate has."""
    for _, row in summary[(summary["tail"] - 0.5).abs() > 0.5 - SURPRISING].iterrows():
        seen, low, high = (plain(row[name]) for name in ("observed", "low", "high"))
        what, who = WORDS[row["statistic"]], KINDS[row["kind"]]
        yield (
            f"Counts drawn from the model are unlike the data: {what} is {seen} among {who}, and {low} to {high} "
            "in 95% of the draws (figures/predictive.png)."
        )


def plain(value: float) -> str:
    """Three digits, more where a number has more before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(summary: pd.DataFrame, replicates: pd.DataFrame) -> Figure:
    """Statistics of counts drawn from the model, beside those of the data: a row of panels for each kind of units."""
    kinds, names = (list(dict.fromkeys(summary[key])) for key in ("kind", "statistic"))
    figure = Figure(figsize=(WIDTH, 2.1 * len(kinds)))
    grid = figure.subplots(len(kinds), len(names), squeeze=False)
    for axis, row in zip(grid.flat, summary.itertuples(), strict=True):
        mine = (replicates["kind"] == row.kind) & (replicates["statistic"] == row.statistic)
        axis.hist(replicates.loc[mine, "value"], bins=BINS, color=MODEL, alpha=0.55, label="drawn from the model")
        axis.axvline(row.observed, color=CLASSICAL, linewidth=2, label="the data")
        axis.set_title(f"{row.tail:.0%} of draws above", fontsize=9)
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(3))
    for line, kind in zip(grid, kinds, strict=True):
        line[0].set_ylabel(textwrap.fill(KINDS[kind], 12))
    for axis, name in zip(grid[-1], names, strict=True):
        axis.set_xlabel(textwrap.fill(WORDS[name], 18))
    note = (
        f"{len(replicates) // len(summary):,} replicates: every unit with its own total, spread over its periods as "
        "the model has it. Units without any event are left out. Tail shares near 0% or 100% say that the model does "
        "not produce such data. Source: diagnostics.json."
    )
    return finish(figure, [grid[0, 0]], "Does the model produce such counts?", note)
