"""Critical values from few linear programs are those from all of them."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from src.critical import few_programs, high_quantile


def program(xi, w):
    """Optimum of one program and the moments that bind, by SciPy."""
    found = linprog(np.eye(w.shape[1])[0], A_ub=-w, b_ub=-xi, bounds=(None, None), method="highs-ds")
    return found.fun, np.flatnonzero(found.slack < 1e-9)


@pytest.mark.parametrize(("moments", "nuisance", "seed"), [(8, 2, 0), (14, 5, 1), (20, 8, 2)])
def test_a_quantile_of_optima_is_that_of_solving_every_program(moments, nuisance, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(moments, nuisance))
    x -= x.mean(axis=0)  # so that nu = 1/moments is feasible in the dual: every program has an optimum
    root = rng.normal(size=(moments, moments))
    spread = root @ root.T
    w = np.column_stack([np.sqrt(np.diag(spread)), x])
    xi = rng.multivariate_normal(np.zeros(moments), spread, 200)
    solved = []

    def solve(draw):
        solved.append(draw)
        return program(draw, w)

    wanted = np.quantile([program(draw, w)[0] for draw in xi], 0.97)
    assert high_quantile(xi, w, 0.97, solve) == pytest.approx(wanted, rel=1e-9)
    assert len(solved) < 100


def test_bounds_of_relative_magnitudes_do_not_move():
    import moderndid

    beta = np.array([0.02, -0.03, 0.01, 0.3, 0.35, 0.5])
    covariance = 0.01 * (0.5 * np.eye(6) + 0.5)
    options = {"m_bar_vec": [0.5, 1.0], "grid_points": 30, "l_vec": np.full((3, 1), 1 / 3)}
    usual = moderndid.create_sensitivity_results_rm(beta, covariance, 3, 3, **options)
    with few_programs():
        quick = moderndid.create_sensitivity_results_rm(beta, covariance, 3, 3, **options)
    pd.testing.assert_frame_equal(pd.DataFrame(usual.to_dicts()), pd.DataFrame(quick.to_dicts()), rtol=1e-9)
