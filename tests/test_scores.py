"""Scores of units, and what leaving a unit out does, by brute force."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
import xarray as xr

from src import estimand, sandwich
from src.collapse import collapse
from src.design import build_design
from src.errors import Errors
from src.frequentist import treated_sets
from src.poisson import poisson_twfe_cr3, regress
from src.scores import information, scores
from tests.test_poisson import counted, row


def small(seed=0):
    """Columns, means, counts and units: 9 units of 2 to 6 rows."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(9), rng.integers(2, 7, 9))
    columns, mean = rng.normal(size=(len(unit), 3)), np.exp(rng.normal(size=len(unit)))
    y = rng.poisson(3.0, len(unit)) + 0.1
    total = np.bincount(unit, y) / np.bincount(unit, mean)
    return columns, mean * total[unit], y, unit


def by_unit(columns, mean, unit, i):
    x, mu = columns[unit == i], mean[unit == i]
    return x.T @ (np.diag(mu) - np.outer(mu, mu) / mu.sum()) @ x


def test_information_adds_up_over_units():
    columns, mean, _, unit = small()
    wanted = sum(by_unit(columns, mean, unit, i) for i in np.unique(unit))
    np.testing.assert_allclose(information(columns, mean, unit), wanted)


def test_a_unit_that_is_left_out_moves_the_estimate_by_a_newton_step():
    columns, mean, y, unit = small()
    a = information(columns, mean, unit)
    moved = scores(columns, mean, y - mean, unit, np.linalg.inv(a)) @ np.linalg.inv(a)
    for i in np.unique(unit):
        score = columns[unit == i].T @ (y - mean)[unit == i]
        np.testing.assert_allclose(moved[i], np.linalg.solve(a - by_unit(columns, mean, unit, i), score))


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # inside pyfixest
def test_jackknife_against_refits_without_each_unit():
    panel = counted(seed=2)
    found = poisson_twfe_cr3(panel, {}, 0.95)
    names = [f"z{j}" for j in range(panel.covariates.shape[1])]
    frame = pd.DataFrame({"y": panel.outcome, "D": panel.treated * 1.0, "unit": panel.unit, "time": panel.time})
    frame[names] = panel.covariates
    formula = f"y ~ {' + '.join(['D', *names])} | unit + time"
    some = frame[frame.groupby("unit")["y"].transform("sum") > 0]
    refits = [pf.fepois(formula, some[some["unit"] != i]).coef()["D"] for i in some["unit"].unique()]
    whole = pf.fepois(formula, some).coef()["D"]
    jackknife = np.sqrt((len(refits) - 1) / len(refits) * np.sum((np.array(refits) - whole) ** 2))
    assert row(found, "log").estimate == pytest.approx(whole, abs=1e-6)
    assert row(found, "log").se == pytest.approx(jackknife, rel=0.05)


def test_what_one_unit_alone_tells_has_no_jackknife():
    panel = counted()
    one = panel.treated & (panel.unit == panel.unit[panel.treated][0])
    fit = regress(panel, {"one": one, "others": panel.treated & ~one}, {}, jackknife=True)
    assert np.isnan(fit.covariance[0, 0])
    assert fit.covariance[1, 1] > 0


def test_clustered_posterior_under_flat_priors_is_the_jackknife():
    panel = replace(counted(seed=3), groups={}, predictors={})
    regression, _ = build_design(panel, {})
    collapsed = collapse(regression, Errors("none", "none", (), events=True), ("cell",))
    cells = collapsed.regression.design.columns(("cell",))
    labels = collapsed.regression.design.labels(("cell",))
    evidence = collapsed.evidence.take(cells)
    covariance = np.linalg.inv(evidence.gram) * collapsed.s**2
    mean = np.linalg.solve(evidence.gram, evidence.moment)
    drawn = np.random.default_rng(0).multivariate_normal(mean, covariance, (4, 20_000))
    theta = xr.DataArray(drawn, dims=("chain", "draw", "column"), coords={"column": labels})
    found = estimand.averages(collapsed.regression, collapsed.evidence, ("cell",))
    draws = estimand.draw_estimands(theta, collapsed.regression.design.all_labels, found)
    se = sandwich.clustered(collapsed, theta, draws, 0)
    inside = {level: mask for (name, level), mask in treated_sets(panel).items() if name == "att_gt"}
    jackknife = regress(panel, inside, {}, jackknife=True).covariance
    weight = np.array([mask.sum() for mask in inside.values()]) / panel.treated.sum()
    assert se[0] == pytest.approx(np.sqrt(weight @ jackknife @ weight), rel=0.03)
