"""Levels of units: what turns effects on logarithms and log odds into events.

Of a count the level is flat in the logarithm, so that a unit is expected to have as many events as it has. Sites of a
part have a level that is flat in the number which the unit is expected to have (`src.sites`): any share is as likely as
another, Beta(1, 1). No level matters to effects on log odds, but it does in expected numbers, where that law would draw
the share of every unit with few events to a half. Shares of units are therefore taken as

    k_i of N_i events ~ BetaBinomial(N_i, c p, c (1 - p))

with p and c likeliest for ever- and for never-treated units, apart where there are enough of either. With A the level
of a unit on average over its events, omega the variance of its disturbance and s its share on average over that,

    s = 1 / (1 + exp(-A / kappa)),    kappa^2 = 1 + NORMAL omega

A ~ Normal(A_0, 1 / T) of a site becomes, in one step from A_0 along g = (c p - 1) log s + (c (1 - p) - 1) log(1 - s),

    A = A_0 + g' / (T - g''),    variance 1 / (T - g'')

and of a unit whose events are all of the part, or none, whose site says nothing, a Normal with mean and variance of
kappa logit(s), s ~ Beta(k + c p, N - k + c (1 - p)).

Source of kappa: Demidenko (2004), the logistic function as a Normal distribution of variance 1 / NORMAL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, digamma, expit, logit, polygamma

from src.panel import Panel

NORMAL = (16 * np.sqrt(3) / (15 * np.pi)) ** 2
ENOUGH = 30  # units with events, for a law of their own
MOST_LOG, LEAST_LOG = 7.0, -2.0  # of c
LEAST_LEFT = 0.25  # of T


@dataclass(frozen=True)
class Levels:
    """What the counts say of the level of each unit, given f: a_i ~ Normal((pull - weight'f) / total, 1 / total).

    Attributes
    ----------
    weight : array, shape (row,)
    pull, total : array, shape (unit,)
        0 for units without any event, but for those of a part (see above). Shocks are in `pull`, at their posterior
        mean.
    share : array, shape (unit, grid point)
        Posterior probability of each omega; that of the likes of a unit that says nothing.
    omega : array, shape (grid point,)
    height : array, shape (unit,)
        a_i at the estimated f less what units differ by in their effects; where there is no event, the logarithm of
        half an event over what f expects at a_i = 0.
    """

    weight: np.ndarray
    pull: np.ndarray
    total: np.ndarray
    share: np.ndarray
    omega: np.ndarray
    height: np.ndarray


def law_of(k: np.ndarray, n: np.ndarray) -> tuple[float, float]:
    """p and c that make k of n events, shape (unit,) each, likeliest."""

    def lost(x: np.ndarray) -> float:
        c = np.exp(x[1])
        a, b = c * expit(x[0]), c * expit(-x[0])
        return -float((betaln(k + a, n - k + b) - betaln(a, b)).sum())

    start = logit((k.sum() + 0.5) / (n.sum() + 1)), 1.0
    found = minimize(lost, start, bounds=[(-12.0, 12.0), (LEAST_LOG, MOST_LOG)])
    return float(expit(found.x[0])), float(np.exp(found.x[1]))


def laws(k: np.ndarray, n: np.ndarray, ever: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c p and c (1 - p) of every unit, shape (unit,) each; `ever` says whether it adopts."""
    p, c = np.empty(len(k)), np.empty(len(k))
    some = n > 0
    apart = min((some & ever).sum(), (some & ~ever).sum()) >= ENOUGH
    for mine in (ever, ~ever) if apart else (np.ones(len(k), dtype=bool),):
        p[mine], c[mine] = law_of(k[mine & some], n[mine & some])
    return c * p, c * (1 - p)


def likely(levels: Levels, panel: Panel, whole: np.ndarray, shocked: np.ndarray) -> Levels:
    """The levels of sites, brought to the law of shares.

    Parameters
    ----------
    levels : Levels
        Of a part, flat in its expected number; nothing of units whose events are all of the part, or none.
    panel : Panel
        With the part as outcome.
    whole : array, shape (row,)
    shocked : array, shape (row,)
        Shocks, at their posterior mean.
    """
    k, n = (np.bincount(panel.unit, values) for values in (panel.outcome, whole))
    a, b = laws(k, n, np.isfinite(panel.cohort))
    kappa = np.sqrt(1 + NORMAL * levels.share @ levels.omega)
    silent = levels.total == 0
    total = np.where(silent, 1.0, levels.total)
    share = expit(levels.pull / total / kappa)
    left = np.maximum(total + (a + b - 2) * share * (1 - share) / kappa**2, LEAST_LEFT * total)
    level = levels.pull / total + (a - 1 - (a + b - 2) * share) / kappa / left
    variance = kappa**2 * (polygamma(1, k + a) + polygamma(1, n - k + b))
    left = np.where(silent, 1 / variance, left)
    # over their events, and over their rows where there is none
    rows = np.where(n[panel.unit] > 0, whole, 1.0)
    of_row = np.where(
        silent[panel.unit], rows / np.bincount(panel.unit, rows)[panel.unit], levels.weight / total[panel.unit]
    )
    mean = kappa * (digamma(k + a) - digamma(n - k + b)) - np.bincount(panel.unit, of_row * shocked)
    pull = left * np.where(silent, mean, level)
    return replace(levels, weight=of_row * left[panel.unit], pull=pull, total=left)
