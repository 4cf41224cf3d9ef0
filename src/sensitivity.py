"""How far may parallel trends fail before the answer changes? For the model, and for a classical event study.

Adopters' untreated outcomes may move away from the others' by d_e, known to be zero at e = -1 alone, with second
differences that after adoption are kappa times as large as before it:

    d_e - 2 d_{e-1} + d_{e-2} ~ Normal(0, (sigma m_e)^2),    m_e = 1 before adoption, kappa from e = 0 on
    d_{-1} - d_{-2} ~ Normal(0, priors.lead^2),    sigma ~ half-Normal(s / 2)

Before adoption d_e is what `src.leads` sees, and sigma is learned from it. After adoption d_e and the effect are never
told apart: what is reported is what the prior makes of d_e there,

    att(kappa) = sum over event times of w_e (effect_e - d_e),    w_e the share of treated rows

with effect_e that of a model with leads. kappa = 0 extends the slope before adoption in a straight line. The breakdown
kappa is the smallest whose interval holds zero.

The classical counterpart is HonestDiD by moderndid on the coefficients of `sunab`: `smoothness` bounds second
differences of d_e by M, `relative_magnitude` bounds first differences by Mbar times the largest before adoption.

Source: Rambachan & Roth (2023) for bounds; the random walk is its smoothness restriction as a prior.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import softmax

from src.critical import few_programs
from src.frequentist import regress
from src.leads import Leads
from src.panel import Panel
from src.staggered import averaged, event_sets, relative_cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KAPPAS = (0.0, 0.5, 1.0, 1.5, 2.0)
FINE = np.arange(0.0, 5.01, 0.05)  # in which the breakdown is looked for
MAGNITUDES = (0.5, 1.0, 2.0)
LEADS = 5  # of the classical event study: relative magnitudes look at the largest of them
GRID = 100  # candidate values that an interval of relative magnitudes is built of
DRAWS = 4000
SIGMAS = 60
COLUMNS = ["method", "bound", "mean", "low", "high", "prob", "p_positive"]


@dataclass(frozen=True)
class Walk:
    """d_e as sums of innovations: before adoption of the slope and of sigma, after it of kappa sigma.

    Attributes
    ----------
    slope : array, shape (event time,)
        Of the slope at adoption.
    steps : array, shape (event time, innovation)
    """

    slope: np.ndarray
    steps: np.ndarray

    @classmethod
    def at(cls, distance: np.ndarray, first: int) -> Walk:
        """At distances from e = -1 to one side of it; innovation i, from 1 on, counts from distance i + `first` on."""
        size = np.abs(distance)
        nodes = np.arange(1, size.max(initial=1) + 1)
        steps = np.maximum(size[:, None] - nodes[None] + 1 - first, 0).astype(float)
        return cls(distance.astype(float), steps)


def violated(
    leads: Leads, event_times: np.ndarray, weights: np.ndarray, s: float, slope_sd: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the average effect under parallel trends, shape (draw,), and for every kappa of `FINE`, (kappa, draw).

    Parameters
    ----------
    leads : Leads
        One of them at -2.
    event_times : array of int, shape (event time,)
        Of the effects.
    weights : array, shape (event time,)
        Share of treated rows.
    s, slope_sd : float
        In units of the outcome.
    seed : int
    """
    rng = np.random.default_rng([seed, 12])
    told = [k for k, average in enumerate(leads.found) if average.identified]
    at = np.array([int(leads.found[k].level) for k in told])
    before, after = Walk.at(at + 1, 1), Walk.at(event_times + 1, 0)
    precision = np.linalg.inv(leads.covariance[np.ix_(told, told)])
    pull = precision @ leads.mean[told]
    precision = precision - np.eye(len(told)) / slope_sd**2  # the leads' own prior gives way to the walk's
    posterior_of = {}
    sigmas = s * np.geomspace(1e-3, 3.0, SIGMAS)
    log = np.empty(SIGMAS)
    for k, sigma in enumerate(sigmas):
        prior = slope_sd**2 * np.outer(before.slope, before.slope) + sigma**2 * before.steps @ before.steps.T
        prior += 1e-10 * np.trace(prior) * np.eye(len(told))
        covariance = np.linalg.inv(np.linalg.inv(prior) + precision)
        covariance = (covariance + covariance.T) / 2
        posterior_of[k] = covariance @ pull, covariance
        size = np.linalg.slogdet(np.eye(len(told)) + prior @ precision)[1]
        log[k] = 0.5 * pull @ covariance @ pull - 0.5 * size + stats.halfnorm.logpdf(sigma, scale=s / 2) + np.log(sigma)
    chosen = rng.choice(SIGMAS, DRAWS, p=softmax(log))
    drawn = np.empty((DRAWS, len(told)))
    for k in np.unique(chosen):
        mine = chosen == k
        drawn[mine] = rng.multivariate_normal(*posterior_of[k], int(mine.sum()), method="eigh")
    noise = rng.multivariate_normal(np.zeros(len(weights)), leads.path_covariance, DRAWS, method="eigh")
    effect = leads.path - drawn @ leads.slope[:, told].T + noise
    slope = -drawn[:, at.tolist().index(-2)]
    line = slope * (weights @ after.slope)
    bend = sigmas[chosen] * (rng.standard_normal((DRAWS, after.steps.shape[1])) @ (after.steps.T @ weights))
    base = effect @ weights
    parallel = (leads.path + noise) @ weights
    return parallel, base - line - FINE[:, None] * bend


def table(parallel: np.ndarray, draws: np.ndarray, prob: float) -> tuple[pd.DataFrame, float]:
    """Rows of method `parallel_trends` and `second_differences`, and the breakdown kappa.

    Returns
    -------
    table : DataFrame
        `COLUMNS`; bound is kappa.
    breakdown : float
        0 where the interval of kappa = 0 holds zero already, inf beyond the largest that was looked at.
    """
    tails = [(1 - prob) / 2, (1 + prob) / 2]

    def row(method: str, bound: float, values: np.ndarray) -> dict:
        low, high = np.quantile(values, tails)
        numbers = {"mean": values.mean(), "low": low, "high": high, "prob": prob, "p_positive": (values > 0).mean()}
        return {"method": method, "bound": bound} | numbers

    rows = [row("parallel_trends", np.nan, parallel)]
    rows += [row("second_differences", kappa, draws[np.abs(FINE - kappa).argmin()]) for kappa in KAPPAS]
    low, high = np.quantile(draws, tails, axis=1)
    holds = (low <= 0) & (high >= 0)
    return pd.DataFrame(rows, columns=COLUMNS), float(FINE[holds.argmax()]) if holds.any() else float("inf")


def in_words(rows: pd.DataFrame, breakdown: float, unit: str) -> Iterator[str]:
    """What the average effect is under violations, in sentences."""
    mine = rows[rows["method"] == "second_differences"].set_index("bound")
    one = mine.loc[1.0]
    yield (
        f"If second differences go on after adoption as before it (kappa = 1), the average effect is {one['mean']:.3g} "
        f"{unit} ({100 * one['prob']:g}% interval {one['low']:.3g} to {one['high']:.3g}), positive with probability "
        f"{one['p_positive']:.0%}."
    )
    if breakdown == 0:
        yield "Already a straight extension of the slope before adoption (kappa = 0) leaves the sign open."
    elif np.isinf(breakdown):
        yield f"The interval excludes zero for every kappa up to {FINE[-1]:g}."
    else:
        yield f"The interval excludes zero up to kappa = {breakdown:.2f}, the breakdown value."
    yield "Trends after adoption are not identified by the data: these numbers are what assumptions about them give."


def honest(panel: Panel, prob: float) -> pd.DataFrame:
    """HonestDiD bounds of the average effect, from the event study of `sunab`; none where it has fewer than two leads.

    Parameters
    ----------
    panel : Panel
    prob : float

    Returns
    -------
    DataFrame
        `COLUMNS`, methods `smoothness` and `relative_magnitude`.
    """
    beta, covariance, at, weights = event_study(panel)
    before = int((at < 0).sum())
    if before < 2:
        return pd.DataFrame(columns=COLUMNS)
    largest = float(np.abs(np.diff(np.r_[beta[:before], 0.0], 2)).max())
    smooth = [share * largest for share in (0.0, *MAGNITUDES)]
    return bounds(beta, covariance, before, weights, smooth, list(MAGNITUDES), prob, GRID)


def bounds(
    beta: np.ndarray,
    covariance: np.ndarray,
    before: int,
    weights: np.ndarray,
    smooth: list[float],
    relative: list[float],
    prob: float,
    grid: int,
) -> pd.DataFrame:
    """Robust intervals of a weighted average of effects.

    Parameters
    ----------
    beta : array, shape (event time,)
        Coefficients, those before adoption first, without -1.
    covariance : array, shape (event time, event time)
    before : int
        Number of the former.
    weights : array, shape (event time from 0 on,)
    smooth, relative : list of float
        Values of M and Mbar.
    prob : float
    grid : int
        Candidate values that an interval of relative magnitudes is built of.
    """
    options = {"l_vec": weights.reshape(-1, 1), "alpha": 1 - prob}
    counts = (before, len(beta) - before)
    with silent_output(), few_programs(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on grids that an interval reaches the end of
        import moderndid

        of_m = moderndid.create_sensitivity_results_sm(beta, covariance, *counts, m_vec=smooth, **options)
        of_mbar = moderndid.create_sensitivity_results_rm(
            beta, covariance, *counts, m_bar_vec=relative, grid_points=grid, **options
        )
    rows = []
    for method, found, name in (("smoothness", of_m, "m"), ("relative_magnitude", of_mbar, "Mbar")):
        for one in found.to_dicts():
            row = {"method": method, "bound": one[name], "low": one["lb"], "high": one["ub"], "prob": prob}
            rows.append(row | {"mean": np.nan, "p_positive": np.nan})
    return pd.DataFrame(rows, columns=COLUMNS)


@contextmanager
def silent_output() -> Iterator[None]:
    """Keep what a compiled library prints away from standard output while the block runs."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def event_study(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of `sunab` by event time, their covariance, the event times, and the share of rows of those after.

    The last `LEADS` before adoption, without -1, then those from adoption on.
    """
    cells = relative_cells(panel)
    fit = regress(panel, cells)
    maps, at, rows = [], [], []
    sets = {
        int(level): mask for (name, level), mask in event_sets(panel).items() if name in ("lead", "att_event") and level
    }
    for level, mask in sorted(sets.items()):
        if not -LEADS - 1 <= level != -1:
            continue
        share = averaged(cells, mask, panel.weight)
        weight = np.array([share.get(name, 0.0) for name in fit.names])
        if np.abs(fit.null @ weight).max(initial=0.0) > 1e-6 or not weight.any():
            continue
        maps.append(weight)
        at.append(level)
        rows.append(panel.weight[mask].sum())
    matrix, event_time, size = np.array(maps), np.array(at), np.array(rows)
    share = size[event_time >= 0] / size[event_time >= 0].sum()
    return matrix @ fit.coefficients, matrix @ fit.covariance @ matrix.T, event_time, share


def draw(rows: pd.DataFrame, breakdown: float, unit: str) -> Figure:
    """Intervals of the average effect by how far parallel trends may fail, a panel a method."""
    from matplotlib.figure import Figure  # with src.figure here: the rest runs where nothing is drawn

    from src.figure import CLASSICAL, MODEL, POOLED, WIDTH, finish

    figure = Figure(figsize=(WIDTH, 3.2))
    names = {
        "second_differences": ("model: kappa", MODEL),
        "smoothness": ("HonestDiD smoothness: M", CLASSICAL),
        "relative_magnitude": ("relative magnitude: Mbar", POOLED),
    }
    shown = [name for name in names if (rows["method"] == name).any()]
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    parallel = rows[rows["method"] == "parallel_trends"]
    for axis, name in zip(axes, shown, strict=True):
        mine, (label, colour) = rows[rows["method"] == name], names[name]
        at = np.arange(len(mine))
        axis.vlines(at, mine["low"], mine["high"], color=colour, linewidth=2)
        axis.plot(at, mine["mean"].fillna((mine["low"] + mine["high"]) / 2), "o", color=colour, markersize=4)
        axis.axhline(0, color="black", linewidth=0.8)
        for _, row in parallel.iterrows():
            axis.axhspan(row["low"], row["high"], color=MODEL, alpha=0.12, linewidth=0, label="parallel trends hold")
        axis.set_xticks(at, [f"{bound:.2g}" for bound in mine["bound"]])
        axis.set_xlabel(label, fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
    axes[0].set_ylabel(f"average effect on adopters,\n{unit}")
    said = "beyond every kappa looked at" if np.isinf(breakdown) else f"{breakdown:.2f}"
    note = (
        f"Breakdown kappa: {said}. Violations after adoption are not identified by the data: each interval is what an "
        "assumption about them makes of the answer. kappa = 0 and M = 0 extend the slope before adoption in a straight "
        "line. Source: sensitivity.csv."
    )
    return finish(figure, [axes[0]], "How far may parallel trends fail?", note)
