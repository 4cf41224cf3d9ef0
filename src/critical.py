"""The critical value of HonestDiD's relative magnitudes, from the few simulations that decide it.

    eta(xi) = min over eta, tau of eta    such that    xi_r <= sigma_r eta + X_r tau for every moment r

The least favourable critical value is a high quantile of eta over draws of xi: of 1,000 linear programs, moderndid
solves all where the six largest values decide. Here each solved program bounds all others. Its optimal basis B has
multipliers gamma >= 0, so by duality gamma'xi <= eta(xi); and z = W_B^-1 xi_B, with W = [sigma, X], raised by the
largest violation over sigma_r is feasible for any other draw, so

    gamma'xi  <=  eta(xi)  <=  gamma'xi + max over r of (xi_r - W_r z) / sigma_r

The draw with the largest upper bound is solved next, until none that is left can be among the largest.

Source: Andrews, Roth & Pakes (2023) for the test; Rambachan & Roth (2023) for its use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Solve = Callable[[np.ndarray], tuple[float, np.ndarray]]
EXACT = 1e-11  # of an upper bound, above the lower one


def high_quantile(xi: np.ndarray, w: np.ndarray, prob: float, solve: Solve) -> float:
    """Quantile of eta over draws, by linear interpolation as NumPy's.

    Parameters
    ----------
    xi : array, shape (draw, moment)
    w : array, shape (moment, 1 + nuisance)
        Standard deviations of the moments, and X.
    prob : float
    solve : callable
        Of one draw: eta and the moments that bind.
    """
    draws, size = len(xi), w.shape[1]
    wanted = draws - int(np.floor((draws - 1) * prob))
    upper, lower = np.full(draws, np.inf), np.full(draws, -np.inf)
    known = np.zeros(draws, dtype=bool)
    values = np.full(draws, -np.inf)
    while not known.all():
        largest = np.sort(values[known])[-wanted:]
        left = np.where(known, -np.inf, upper)
        i = int(left.argmax())
        if len(largest) == wanted and left[i] <= largest[0]:
            break
        known[i], values[i] = True, upper[i]
        if np.isfinite(upper[i]) and upper[i] - lower[i] <= EXACT * (1 + abs(upper[i])):
            continue
        values[i], binding = solve(xi[i])
        if len(binding) == size and np.linalg.cond(w[binding]) < 1e10:
            z = np.linalg.solve(w[binding], xi[:, binding].T)
            excess = ((xi.T - w @ z) / w[:, :1]).max(axis=0)
            upper = np.minimum(upper, z[0] + np.maximum(excess, 0.0))
            if (np.linalg.solve(w[binding].T, np.eye(size)[0]) >= -EXACT).all():
                lower = np.maximum(lower, z[0])
    return float(np.quantile(np.where(known, values, values[known].min()), prob))


@contextmanager
def few_programs() -> Iterator[None]:
    """Let moderndid find its least favourable critical values this way while the block runs."""
    from moderndid.didhonest import arp_nuisance

    usual = arp_nuisance._compute_least_favorable_cv

    def quick(
        x_t: Any = None,
        sigma: Any = None,
        hybrid_kappa: float = 0.05,
        sims: int = 1000,
        rows_for_arp: Any = None,
        seed: int = 0,
        model: Any = None,
    ) -> float:
        if x_t is None or model is None:
            return usual(x_t, sigma, hybrid_kappa, sims, rows_for_arp, seed, model)
        rows = np.arange(len(sigma)) if rows_for_arp is None else rows_for_arp
        x, spread = x_t[rows].reshape(len(rows), -1), sigma[np.ix_(rows, rows)]
        xi = np.random.default_rng(seed).multivariate_normal(np.zeros(len(rows)), spread, size=sims)
        w = np.column_stack([np.sqrt(np.diag(spread)), x])
        if not (w[:, 0] > 0).all():
            return usual(x_t, sigma, hybrid_kappa, sims, rows_for_arp, seed, model)
        return high_quantile(xi, w, 1 - hybrid_kappa, lambda draw: solved(model, draw))

    def solved(model: Any, draw: np.ndarray) -> tuple[float, np.ndarray]:
        solution = arp_nuisance._solve_with_row_upper(model, -draw)
        if solution is None:
            raise RuntimeError("a linear program of relative magnitudes has no solution")
        basic = arp_nuisance.highspy.HighsBasisStatus.kBasic
        return solution.col_value[0], np.flatnonzero([status != basic for status in model.getBasis().row_status])

    arp_nuisance._compute_least_favorable_cv = quick
    try:
        yield
    finally:
        arp_nuisance._compute_least_favorable_cv = usual
