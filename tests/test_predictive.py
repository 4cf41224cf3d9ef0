"""Counts drawn from the model, against the laws that they are drawn from, and what is said of any outcome."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from src import events, noise, predictive
from src.collapse import collapse
from src.design import build_design
from src.errors import Errors, Shock
from src.exposure import row_shares
from src.generate import draw
from src.panel import Panel
from src.sites import Counts
from tests.test_generate import world


def collapsed_of(panel: Panel, errors: Errors):
    regression, _ = build_design(panel, row_shares(panel)[0])
    return collapse(regression, errors)


def at_its_mean(collapsed, draws: int = 20) -> xr.DataArray:
    """Draws of the average effect alone, all at the truth of the world."""
    panel = collapsed.regression.panel
    tau = panel.truth.tau[panel.treated].mean()
    return xr.DataArray(np.full((2, draws, 1), tau), dims=("chain", "draw", "column"), coords={"column": ["mu"]})


@pytest.fixture(scope="module")
def panel():
    return draw(world("counts", units=500, unit_effect_sd=1.0, level=0.5), 1, 3)


@pytest.fixture(scope="module")
def made(panel):
    collapsed = collapsed_of(panel, Errors("ar1", "unit", (), events=True))
    return collapsed, events.check(collapsed, at_its_mean(collapsed), 0)


def test_a_model_that_is_right_surprises_nobody(made):
    _, check = made
    assert list(predictive.surprises(check)) == []
    assert check.summary["tail"].between(0.01, 0.99).all()
    assert len(check.summary) == 8
    assert {len(values) for values in check.drawn.values()} == {predictive.REPLICATES}


def test_pure_poisson_is_found_out_where_counts_are_disturbed(panel):
    collapsed = collapsed_of(panel, Errors("none", "none", (), events=True))
    check = events.check(collapsed, at_its_mean(collapsed), 0)
    tails = check.summary.set_index(["kind", "statistic"])["tail"]
    assert tails["control", "dispersion"] == 0
    assert tails["control", "zeros"] == 0
    assert tails["control", "lag1"] == 0
    sentences = " ".join(predictive.surprises(check))
    assert "variance to mean within units is" in sentences
    assert "among all other units" in sentences
    record = predictive.record(check)
    assert record["surprises"] == list(predictive.surprises(check))
    assert record["predictive"][0]["kind"] == "treated"


def test_replicates_keep_the_total_of_every_unit_and_its_rows(made, panel):
    collapsed, _ = made
    counts = Counts.of(panel.outcome, panel.unit, panel.time)
    once = events.replicator(collapsed, counts, at_its_mean(collapsed), 0)(0)
    np.testing.assert_array_equal(once.sum(axis=0), counts.count.sum(axis=0))
    assert not once[~counts.real].any()
    assert (once != counts.count).any()


def test_counts_without_disturbance_are_multinomial_with_the_shares_of_f(panel):
    collapsed = collapsed_of(panel, Errors("none", "none", (), events=True))
    counts = Counts.of(panel.outcome, panel.unit, panel.time)
    theta = at_its_mean(collapsed)
    still = replace(collapsed, conditional=replace(collapsed.conditional, factor=collapsed.conditional.factor * 0))
    drawn = events.replicator(still, counts, theta, 0)
    average = np.mean([drawn(r) for r in range(predictive.REPLICATES)], axis=0)
    design = collapsed.regression.design
    b = np.zeros(design.size)
    nuisance = design.columns(("time", "covariate"))
    kept = np.setdiff1d(np.arange(design.size), nuisance)
    b[design.all_labels.index("mu")] = theta.to_numpy()[0, 0, 0]
    b[nuisance] = still.conditional.mean - still.conditional.slope @ b[kept]
    share = np.exp(counts.padded(collapsed.regression.matrix @ b)) * counts.real
    expected = counts.count.sum(axis=0) * share / share.sum(axis=0)
    z = (average - expected)[counts.real] / np.sqrt(expected[counts.real] / predictive.REPLICATES)
    assert np.abs(z).max() < 6
    assert np.mean(z**2) == pytest.approx(0.9, abs=0.1)  # a binomial varies by less than a Poisson


def test_disturbances_have_the_correlations_of_an_ar1_over_gaps():
    rng = np.random.default_rng(0)
    step = np.repeat([[1.0], [3.0]], 200_000, axis=1)
    path = noise.disturbance(step, 0.6, rng)
    np.testing.assert_allclose(np.corrcoef(path), [[1, 0.6, 0.6**4], [0.6, 1, 0.6**3], [0.6**4, 0.6**3, 1]], atol=0.01)
    np.testing.assert_allclose(path.var(axis=1), 1, atol=0.01)


def test_shocks_are_shared_by_the_level_and_the_period(panel):
    code = panel.groups["industry"].code
    shock = Shock(code, code.max() + 1, sd=0.5, phi=0.4)
    values = 0.5 * noise.shocks(panel, shock, 1, np.random.default_rng(0))[:, 0]
    of_cell = pd.Series(values).groupby([code[panel.unit], panel.time])
    assert of_cell.std(ddof=0).max() == pytest.approx(0, abs=1e-12)
    assert of_cell.first().std() == pytest.approx(0.25, rel=0.2)


def test_statistics_by_hand():
    count = np.array([[0.0, 2.0], [3.0, 2.0], [0.0, 9.0]])
    real = np.array([[True, True], [True, True], [True, False]])
    found = events.statistics(np.where(real, count, 0), real)
    assert found["zeros"] == pytest.approx(2 / 5)
    assert found["maximum"] == 3
    assert found["dispersion"] == pytest.approx((1 + 4 + 1) / (2 + 1))
    assert found["lag1"] == pytest.approx((-2 - 2) / np.sqrt((1 + 4) * (4 + 1)))
