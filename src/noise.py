"""Errors drawn anew, as the likelihood has them: shocks to levels by period, serial correlation, unequal scales.

    e_it = sum over shock groups of u_{k(i) t} + eps_it + f_it v_i
    u_k   ~ Normal(0, sigma^2 sd^2 Q),                    Q[t, s] = phi^|t - s|
    eps_i ~ Normal(0, sigma^2 / w_i W^-1/2 R W^-1/2),     R[t, s] = rho^|t - s|,  W the panel's weights
    v_i   ~ Normal(0, sigma^2 spread^2)                   where effects of single units are integrated out, f_it the
                                                          rows in which unit i has adopted

Effects of units are flat, so that they may be anything: they are zero.
"""

from __future__ import annotations

import numpy as np

from src.design import Regression, own_rows
from src.errors import Nuisance, Shock
from src.panel import Panel, first_rows


def errors(
    regression: Regression, nuisance: Nuisance, sigma: np.ndarray, weight: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Errors of every row, shape (row, draw).

    Parameters
    ----------
    regression : Regression
    nuisance : Nuisance
    sigma : array, shape (draw,)
        Residual SD, in units of the outcome; s where the weights carry the scales of all units.
    weight : array, shape (unit, draw), or (unit, 1)
        w_i, of the scale of each unit.
    rng : Generator
    """
    panel, draws = regression.panel, len(sigma)
    found = np.zeros((len(panel.unit), draws))
    for shock in nuisance.shocks.values():
        found += shocks(panel, shock, draws, rng)
    found += serial(panel, nuisance.rho, draws, rng) / np.sqrt(weight[panel.unit] * panel.weight[:, None])
    if regression.integrated:
        effect = nuisance.own * rng.standard_normal((len(panel.units), draws))
        found += own_rows(panel, regression.onset)[:, None] * effect[panel.unit]
    return sigma * found


def shocks(panel: Panel, shock: Shock, draws: int, rng: np.random.Generator) -> np.ndarray:
    """New shocks to the levels of a classification, shape (row, draw), in units of s; AR(1) over calendar periods."""
    gaps = np.diff(panel.periods)
    path = disturbance(np.broadcast_to(gaps[:, None], (len(gaps), shock.levels * draws)), shock.phi, rng)
    path = path.reshape(len(path), shock.levels, draws)
    return shock.sd * path[np.searchsorted(panel.periods, panel.time), shock.code[panel.unit]]


def picked(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grid point for each unit, shape (unit,), drawn from its probabilities, shape (unit, grid point)."""
    return (rng.random((len(share), 1)) > np.cumsum(share, axis=1)[:, :-1]).sum(axis=1)


def disturbance(step: np.ndarray, rho: float, rng: np.random.Generator) -> np.ndarray:
    """AR(1) of unit variance along the first axis, `step` periods from one to the next, shape (slot - 1, series).

    Returns
    -------
    array, shape (slot, series)
    """
    path = rng.standard_normal((len(step) + 1, step.shape[1]))
    for j, gap in enumerate(step):
        kept = rho ** np.maximum(gap, 0)
        path[j + 1] = kept * path[j] + np.sqrt(1 - kept**2) * path[j + 1]
    return path


def serial(panel: Panel, rho: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """AR(1) of unit variance within units, exact across gaps, shape (row, draw)."""
    found = rng.standard_normal((len(panel.unit), draws))
    if rho == 0:
        return found
    slot = np.arange(len(found)) - first_rows(panel.unit)[panel.unit]
    for k in range(1, int(slot.max()) + 1):
        rows = np.flatnonzero(slot == k)
        kept = (float(rho) ** (panel.time[rows] - panel.time[rows - 1]))[:, None]
        found[rows] = kept * found[rows - 1] + np.sqrt(1 - kept**2) * found[rows]
    return found
