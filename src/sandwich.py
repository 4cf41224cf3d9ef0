"""Errors clustered by unit for likelihood=poisson: the scores of units in the place of what the data claim to say.

With P the precision of the prior, V the covariance of the posterior and A the information of the data,
V = V A V + V P V. V A V is replaced by sum_i V t_i t_i'V, with t_i the score of unit i as in `src.scores`. Units
without any event have no score; shocks that are integrated out are not known to it.

Source: Müller (2013), *Econometrica* 81(5), for sandwich posteriors.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import xarray as xr
from scipy.stats import norm

from src.collapse import Collapsed
from src.estimand import Scales, log_ratio
from src.panel import first_rows
from src.rates import all_coefficients
from src.scores import information, scores

CLUSTERED = "_clustered"  # ends the name of the model's rows with such intervals


def clustered(collapsed: Collapsed, theta: xr.DataArray, draws: np.ndarray, seed: int) -> np.ndarray:
    """Standard errors of estimands whose uncertainty from the data is that of the scores of units, shape (estimand,).

    With c the covariance of an estimand and the coefficients, its variance less c'A c plus sum_i (c't_i)^2. Squares
    take one factor from each half of the chains, whose errors are independent: Monte Carlo error does not add up. Never
    below the SD of the draws.

    Parameters
    ----------
    collapsed : Collapsed
        Of counts under likelihood=poisson.
    theta : DataArray, dims (chain, draw, column)
        In log points.
    draws : array, shape (chain, draw, estimand)
        Of two chains or more.
    seed : int
    """
    regression = collapsed.regression
    panel = regression.panel
    ordered = theta.transpose("chain", "draw", "column")
    known = all_coefficients(collapsed, ordered, seed)
    moving = np.ptp(known, axis=0) > 0
    total = np.bincount(panel.unit, panel.outcome)
    rows = np.flatnonzero(total[panel.unit] > 0)
    felt = regression.matrix[rows] @ known.mean(axis=0) + panel.log_offset[rows]
    unit = panel.unit[rows]
    top = np.maximum.reduceat(felt, first_rows(unit))
    power = np.exp(felt - top[np.unique(unit, return_inverse=True)[1]])
    mean = power * (total / np.maximum(np.bincount(unit, power, len(total)), 1e-300))[unit]
    columns = sp.csr_array(regression.matrix[rows])[:, np.flatnonzero(moving)].toarray()
    coefficients = known[:, moving]
    covariance = np.cov(coefficients.T)
    t = scores(columns, mean, panel.outcome[rows] - mean, unit, covariance)
    a = information(columns, mean, unit)
    chains, per_chain = draws.shape[:2]
    flat = draws.reshape(chains * per_chain, -1)
    half = np.arange(len(flat)) < chains // 2 * per_chain
    first, second = (
        (coefficients[mine] - coefficients[mine].mean(axis=0)).T @ (flat[mine] - flat[mine].mean(axis=0)) / mine.sum()
        for mine in (half, ~half)
    )
    told, robust = (first * (a @ second)).sum(axis=0), ((t @ first) * (t @ second)).sum(axis=0)
    variance = flat.var(axis=0, ddof=1)
    units = len(t)
    return np.sqrt(np.maximum(variance - told + (units - 1) / units * robust, variance))


def with_clustered_errors(
    table: pd.DataFrame, scales: Scales, collapsed: Collapsed, theta: xr.DataArray, prob: float, seed: int
) -> pd.DataFrame:
    """Rows of the table in percent and log points with clustered standard errors, and Normal intervals in log points.

    Parameters
    ----------
    table : DataFrame
        Of `estimand.table`.
    scales : Scales
        From which it was made.
    collapsed, theta, seed
        As of `clustered`.
    prob : float
    """
    found = {"percent": log_ratio(scales["percent"].draws), "log": scales["log"].draws}
    errors = clustered(collapsed, theta, np.concatenate(list(found.values()), axis=-1), seed)
    quantile, parts = norm.ppf((1 + prob) / 2), []
    for (scale, draws), se in zip(found.items(), np.split(errors, [found["percent"].shape[-1]]), strict=True):
        middle = draws.mean(axis=(0, 1))
        ends = np.array([middle, middle - quantile * se, middle + quantile * se])
        sd = se
        if scale == "percent":
            ends, sd = 100 * np.expm1(ends), 100 * np.exp(middle) * se
        parts.append(table[table["scale"] == scale].assign(mean=ends[0], sd=sd, low=ends[1], high=ends[2]))
    return pd.concat(parts, ignore_index=True)
