"""How today's adopters were chosen: the odds of ever adopting, by what is known of a unit beforehand.

    logit P(unit i ever adopts) = a + levels of its groups + (covariates in its first row)'b

levels and b Normal(0, 1) in units of standardised columns, so that a level without an adopter has a finite coefficient;
the mode is found by Newton's method (iteratively reweighted least squares).
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from src.panel import Panel, first_rows

STEPS = 100
CLOSE = 1e-10


def propensity(panel: Panel) -> np.ndarray:
    """Log odds of ever adopting, shape (unit,)."""
    columns = [np.ones((len(panel.units), 1)), *traits(panel)]
    return fitted(np.hstack(columns), np.isfinite(panel.cohort).astype(float))


def traits(panel: Panel) -> list[np.ndarray]:
    """Indicators of the levels of every group, and standardised covariates in the first row of each unit."""
    found = [(factor.code[:, None] == np.arange(len(factor.levels))).astype(float) for factor in panel.groups.values()]
    first = panel.covariates[first_rows(panel.unit)]
    sd = first.std(axis=0)
    return [*found, (first - first.mean(axis=0)) / np.where(sd > 0, sd, 1.0)]


def fitted(columns: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Linear predictor of a logistic regression with a Normal(0, 1) prior on all but the first coefficient.

    Parameters
    ----------
    columns : array, shape (unit, column)
        The first one constant.
    chosen : array, shape (unit,)
        0 or 1.
    """
    prior = np.eye(columns.shape[1])
    prior[0, 0] = 0.0
    slope = np.zeros(columns.shape[1])
    for _ in range(STEPS):
        p = expit(columns @ slope)
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns + prior
        step = np.linalg.solve(hessian, columns.T @ (chosen - p) - prior @ slope)
        slope = slope + step
        if np.abs(step).max() < CLOSE:
            break
    return columns @ slope
