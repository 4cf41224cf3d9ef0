"""Leads without sampling again, against the joint posterior; violations that are known; HonestDiD's numbers."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from src import estimand, sensitivity
from src.collapse import collapse
from src.design import build_design, regression_of
from src.errors import Errors
from src.exposure import row_shares
from src.fit import load
from src.leads import Leads, leads_of
from src.panel import of_rows
from src.sensitivity import Walk
from tests.test_command import composed
from tests.worlds import WEAK, staggered

TERMS = ("mu", "path")


@pytest.fixture(scope="module")
def made():
    """Exact draws of a model with flat priors on the effect by event time, of a collapsed panel with AR(1) errors."""
    panel = staggered(units=150)
    collapsed = collapse(build_design(panel, row_shares(panel)[0])[0], Errors("ar1", "common", ()))
    design, s = collapsed.regression.design, collapsed.s
    used = design.columns(("mu", "exposure", "difference"))
    evidence = collapsed.evidence.take(used)
    covariance = s**2 * np.linalg.inv(evidence.gram)
    drawn = np.random.default_rng(0).multivariate_normal(
        np.linalg.solve(evidence.gram, evidence.moment), covariance, (4, 40_000)
    )
    labels = design.labels(("mu", "exposure", "difference"))
    theta = xr.DataArray(drawn, dims=("chain", "draw", "column"), coords={"column": labels})
    found = estimand.averages(collapsed.regression, collapsed.evidence, ("mu", "exposure", "difference"))
    draws = estimand.draw_estimands(theta, design.all_labels, found)
    path = draws[..., [average.estimand == "att_event" for average in found]]
    return collapsed, leads_of(collapsed, theta, path, WEAK, collapsed.s), used, found


def test_leads_are_those_of_the_joint_posterior(made):
    collapsed, leads, used, found = made
    design, s = collapsed.regression.design, collapsed.s
    own = design.columns(("lead",))
    both = np.r_[used, own]
    gram, moment = collapsed.evidence.gram[np.ix_(both, both)] / s**2, collapsed.evidence.moment[both] / s**2
    gram[len(used) :, len(used) :] += np.eye(len(own)) / (WEAK.lead * s) ** 2
    covariance = np.linalg.inv(gram)
    mean = covariance @ moment
    sd = np.sqrt(np.diag(covariance))[len(used) :]
    np.testing.assert_allclose(leads.mean, mean[len(used) :], atol=0.02 * sd.max())
    np.testing.assert_allclose(np.sqrt(np.diag(leads.covariance)), sd, rtol=0.02)
    weights = np.array([average.weights[used] for average in found if average.estimand == "att_event"])
    path = leads.path - leads.slope @ leads.mean
    whole = leads.path_covariance + leads.slope @ leads.covariance @ leads.slope.T
    np.testing.assert_allclose(path, weights @ mean[: len(used)], atol=0.03 * sd.max())
    of_path = weights @ covariance[: len(used), : len(used)] @ weights.T
    np.testing.assert_allclose(np.diag(whole), np.diag(of_path), rtol=0.04)


def test_leads_say_who_they_are(made):
    collapsed, leads, _, _ = made
    panel = collapsed.regression.panel
    for average in leads.found:
        mine = np.isfinite(panel.row_cohort) & (panel.event_time == int(average.level))
        if not average.note:
            assert average.n_obs == mine.sum()
    assert [int(average.level) for average in leads.found] == sorted(int(average.level) for average in leads.found)
    assert leads.draws(2, 50, 0).shape == (2, 50, len(leads.found))


def test_a_model_does_not_see_its_leads(made):
    collapsed, _, _, _ = made
    regression = collapsed.regression
    block = regression.design.blocks["lead"]
    assert regression.matrix[regression.panel.treated][:, block.columns].nnz == 0
    without = regression_of(regression.panel, regression.share_of, None, False, None, regression.onset)
    np.testing.assert_array_equal(without.matrix.toarray(), regression.matrix.toarray())


def of(mean, sd, path=(1.0, 1.0)) -> Leads:
    """Leads at -4, -3, -2 of this mean and SD, and effects at 0 and 1 that are known."""
    from src.average import Average

    levels = ("-4", "-3", "-2")
    found = [Average("lead", "", level, np.zeros(1), 5, 5) for level in levels]
    none = np.zeros((2, 3))
    return Leads(found, np.array(mean), sd**2 * np.eye(3), np.array(path), none, 1e-12 * np.eye(2))


def test_plausible_leads_do_not_surprise_and_others_do():
    assert of([0.0, 0.0, 0.0], 0.1).surprise() == pytest.approx(0)
    assert of([0.3, 0.0, 0.0], 0.1).surprise() == pytest.approx(0.971, abs=1e-3)  # chi2.cdf(9, 3)
    assert "speak against" in of([0.5, 0.0, 0.0], 0.1).in_words()
    assert "do not speak against" in of([0.05, 0.0, 0.0], 0.1).in_words()


def test_walks_are_sums_of_innovations():
    before, after = Walk.at(np.array([-3, -2, -1]), 1), Walk.at(np.array([1, 2, 3]), 0)
    np.testing.assert_array_equal(before.slope, [-3, -2, -1])
    np.testing.assert_array_equal(before.steps, [[2, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(after.steps, [[1, 0, 0], [2, 1, 0], [3, 2, 1]])
    path = np.r_[before.steps @ [0.3, 0.2, 0.1] + 0.5 * before.slope, 0.0]
    np.testing.assert_allclose(np.diff(path, 2), [0.2, 0.3])


def test_without_trends_before_kappa_widens_and_does_not_move():
    parallel, draws = sensitivity.violated(of([0, 0, 0], 0.01), np.array([0, 1]), np.array([0.5, 0.5]), 1.0, 2.0, 0)
    rows, breakdown = sensitivity.table(parallel, draws, 0.95)
    assert parallel == pytest.approx(1, abs=1e-4)
    mine = rows[rows["method"] == "second_differences"]
    assert mine["mean"].to_numpy() == pytest.approx(np.ones(len(mine)), abs=0.02)
    assert (mine["high"] - mine["low"]).is_monotonic_increasing
    assert breakdown > 3


def test_a_straight_trend_before_is_extended():
    sloped = of([-0.3, -0.2, -0.1], 0.001)  # a tenth a period
    _, draws = sensitivity.violated(sloped, np.array([0, 1]), np.array([0.5, 0.5]), 1.0, 2.0, 0)
    rows, breakdown = sensitivity.table(draws[0], draws, 0.95)
    assert draws[0].mean() == pytest.approx(1 - 0.5 * (0.1 + 0.2), abs=0.005)
    assert breakdown > 0
    strong = of([-3.0, -2.0, -1.0], 0.001)
    _, draws = sensitivity.violated(strong, np.array([0, 1]), np.array([0.5, 0.5]), 1.0, 2.0, 0)
    assert draws[0].mean() == pytest.approx(1 - 1.5, abs=0.01)
    assert rows.columns.tolist() == sensitivity.COLUMNS


def test_published_bounds_of_medicaid_expansion():
    """HonestDiD's README: robust intervals of the effect on impact."""
    data = pd.read_pickle(files("moderndid") / "core/datasets/ehec_data.pkl.gz")
    data = data[(data["year"] < 2016) & (data["yexp2"].isna() | (data["yexp2"] != 2015))]
    frame = pd.DataFrame({"s": data["stfips"], "y": data["year"], "dins": data["dins"]})
    frame["g"] = data["yexp2"].where(data["yexp2"] == 2014)  # later expansions are after the last of these years
    beta, covariance, at, _ = sensitivity.event_study(as_panel(frame))
    assert at.tolist() == [-6, -5, -4, -3, -2, 0, 1]
    on_impact = np.array([1.0, 0.0])
    rows = sensitivity.bounds(beta, covariance, 5, on_impact, [0.0, 0.01, 0.02, 0.03], [0.5, 1, 1.5, 2], 0.95, 400)
    found = rows.set_index(["method", "bound"])[["low", "high"]]
    smooth = {0.0: (0.026, 0.061), 0.01: (0.013, 0.079), 0.02: (0.003, 0.091), 0.03: (-0.007, 0.101)}
    relative = {0.5: (0.024, 0.067), 1.0: (0.017, 0.072), 1.5: (0.009, 0.080), 2.0: (-0.001, 0.088)}
    for method, published in (("smoothness", smooth), ("relative_magnitude", relative)):
        for bound, ends in published.items():
            np.testing.assert_allclose(found.loc[(method, bound)], ends, atol=1.1e-3)


def as_panel(frame):
    """The panel of these rows, unit and period effects beside adoption."""
    from src.config import DataConfig
    from src.encode import encode

    config = DataConfig(name="ehec", unit="s", time="y", cohort="g", outcome="dins", is_log=False)
    return encode(frame, config, "none")


def test_real_leads_are_near_those_of_an_event_study():
    panel, shares, _ = load(composed("data=mpdta"))
    collapsed = collapse(build_design(panel, shares)[0])
    used = collapsed.regression.design.columns(("cell",))
    evidence = collapsed.evidence.take(used)
    drawn = np.random.default_rng(0).multivariate_normal(
        np.linalg.solve(evidence.gram, evidence.moment), collapsed.s**2 * np.linalg.inv(evidence.gram), (4, 5_000)
    )
    labels = collapsed.regression.design.labels(("cell",))
    theta = xr.DataArray(drawn, dims=("chain", "draw", "column"), coords={"column": labels})
    leads = leads_of(collapsed, theta, drawn[..., :1], WEAK, collapsed.s)
    # sunab has a coefficient for every cohort and lead; one for all cohorts is between them
    assert dict(zip((a.level for a in leads.found), leads.mean, strict=True))["-2"] == pytest.approx(0.0245, abs=0.006)


def test_the_base_is_the_last_period_before_adoption_that_is_seen():
    panel = staggered(units=120)
    cohort = np.unique(panel.cohort[np.isfinite(panel.cohort)])[0]
    gap = (panel.row_cohort == cohort) & (panel.time == cohort - 1)
    some = of_rows(panel, ~gap)
    regression, _ = build_design(some, {})
    block = regression.design.blocks["lead"]
    leads = regression.matrix[:, block.columns].toarray().any(axis=1)
    mine = some.row_cohort == cohort
    assert not leads[mine & (some.time == cohort - 2)].any()
    assert leads[mine & (some.time == cohort - 3)].all()
    assert not leads[~np.isfinite(some.row_cohort)].any()
