"""What each unit says in a conditional Poisson, and how far an estimate moves without it.

    W_i = diag(mu_i) - mu_i mu_i' / n_i,    A = sum_i X_i'W_i X_i,    r_i = y_i - mu_i,    sum over the rows of r_i = 0
    t_i = X_i'(I - W_i X_i V X_i')^-1 r_i

With V = A^-1, V t_i is how far the estimate moves, in one Newton step, when unit i is left out, and
(G - 1) / G sum_i V t_i t_i'V the jackknife by clusters (CR3). mu_i is the unit's own total n_i spread as the regression
has it.

Source: Bell & McCaffrey (2002) for CR3.
"""

from __future__ import annotations

import numpy as np

from src.panel import first_rows


def information(columns: np.ndarray, mean: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """A, shape (column, column); rows of positive mean, sorted by unit."""
    weighted = mean[:, None] * columns
    start = first_rows(unit)
    sums, total = np.add.reduceat(weighted, start, axis=0), np.add.reduceat(mean, start)
    return columns.T @ weighted - sums.T @ (sums / total[:, None])


def scores(
    columns: np.ndarray, mean: np.ndarray, residual: np.ndarray, unit: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """t_i, shape (unit, column).

    Parameters
    ----------
    columns : array, shape (row, column)
    mean, residual : array, shape (row,)
        mu, above 0, and y - mu.
    unit : array of int, shape (row,)
        Sorted.
    covariance : array, shape (column, column)
        V.
    """
    found = []
    for rows in np.split(np.arange(len(unit)), first_rows(unit)[1:]):
        x, mu = columns[rows], mean[rows]
        weight = np.diag(mu) - np.outer(mu, mu) / mu.sum()
        left = np.eye(len(rows)) - weight @ (x @ covariance @ x.T)
        found.append(x.T @ np.linalg.lstsq(left, residual[rows])[0])
    return np.array(found)
