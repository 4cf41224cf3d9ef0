"""Effects on counts, against sums over rows one by one."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from src import estimand, rates
from src.collapse import collapse
from src.design import build_design
from src.exposure import row_shares
from src.generate import draw
from src.nuisance import Errors
from tests.test_generate import world

DRAWS = 6


@pytest.fixture(scope="module")
def made():
    """A small world with exposures, made-up draws of theta, and levels that are known without error."""
    small = world("counts", exposed=True, units=160, districts=8, industries=6, adopters=[8, 8, 8, 8])
    panel = draw(small, 1, 2)
    regression, _ = build_design(panel, row_shares(panel)[0], True)
    collapsed = collapse(regression, Errors("ar1", "unit", ("district",), events=True))
    sure = replace(
        collapsed.levels,
        pull=collapsed.levels.pull * 1e18,
        weight=collapsed.levels.weight * 1e18,
        total=collapsed.levels.total * 1e18,
        share=np.eye(len(collapsed.levels.omega))[np.full(len(panel.units), 3)],
    )
    still = replace(collapsed.conditional, factor=collapsed.conditional.factor * 0)
    collapsed = replace(collapsed, levels=sure, conditional=still)
    design = collapsed.regression.design
    terms = ("mu", "path", "industry", "unit", "exposure", "difference")
    rng = np.random.default_rng(0)
    theta = xr.DataArray(
        rng.normal(0, 0.3, (2, DRAWS // 2, len(design.columns(terms)))),
        dims=("chain", "draw", "column"),
        coords={"column": design.labels(terms)},
    )
    found = estimand.averages(collapsed.regression, collapsed.evidence, terms)
    draws = estimand.draw_estimands(theta, design.all_labels, found)
    return collapsed, theta, found, rates.count_scales(collapsed, theta, found, draws, 1)


def of(made, scale, estimand, group="", level=""):
    _, _, found, scales = made
    k = [(a.estimand, a.group, a.level) for a in found].index((estimand, group, level))
    return scales[scale][0].reshape(DRAWS, -1)[:, k]


def test_sums_over_rows_one_by_one(made):
    collapsed, theta, _, _ = made
    regression, levels = collapsed.regression, collapsed.levels
    panel, design = regression.panel, regression.design
    matrix = regression.matrix.toarray()
    position = [design.all_labels.index(label) for label in theta["column"].to_numpy()]
    nuisance = design.columns(("time", "covariate"))
    kept = np.setdiff1d(np.arange(design.size), nuisance)
    lift = levels.omega[3] / 2
    slope = dict(
        zip(("exposure", "difference"), (design.blocks[b].columns for b in ("exposure", "difference")), strict=True)
    )
    for d, draw_ in enumerate(theta.to_numpy().reshape(DRAWS, -1)):
        b = np.zeros(design.size)
        b[position] = draw_
        b[nuisance] = collapsed.conditional.mean - collapsed.conditional.slope @ b[kept]
        f = matrix @ b
        base, gain_own, gain_all, gain_switch = np.zeros((4, panel.treated.sum()))
        for n, row in enumerate(np.flatnonzero(panel.treated)):
            i = panel.unit[row]
            if levels.total[i] == 0:
                continue
            mine = panel.unit == i
            a = (levels.pull[i] - levels.weight[mine] @ f[mine]) / levels.total[i]
            base[n] = np.exp(a + lift + matrix[row, nuisance] @ b[nuisance])
            share = regression.shares[row] / regression.exposure_sd
            centre = regression.exposure_centre / regression.exposure_sd
            others, more = share @ b[slope["exposure"]], share @ b[slope["difference"]]
            tau = sum(
                matrix[row, p] * b[p] for p in position if not slope["exposure"].start <= p < slope["difference"].stop
            )
            tau -= centre @ b[slope["difference"]]
            gain_own[n] = base[n] * (np.exp(tau) - 1)
            gain_all[n] = base[n] * (np.exp(tau + others + more) - 1)
            gain_switch[n] = base[n] * (np.exp(tau + others + more) - np.exp(others))
        for name, gain in (("att", gain_own), ("total_treated", gain_all), ("switching", gain_switch)):
            assert of(made, "percent", name)[d] == pytest.approx(100 * gain.sum() / base.sum(), rel=1e-6)
            assert of(made, "outcome", name)[d] == pytest.approx(gain.mean(), rel=1e-6)
        label = np.array(panel.groups["ownership"].levels)[panel.groups["ownership"].code][panel.unit][panel.treated]
        mine = label == "state"
        wanted = 100 * gain_own[mine].sum() / base[mine].sum()
        assert of(made, "percent", "att_by", "ownership", "state")[d] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("scale", ["outcome", "percent"])
def test_total_is_direct_plus_what_others_do(made, scale):
    parts = of(made, scale, "direct") + of(made, scale, "spill_treated")
    np.testing.assert_allclose(of(made, scale, "total_treated"), parts, rtol=1e-9)


def test_contrasts_in_events_and_in_percent(made):
    private, state = (of(made, "percent", "att_by", "ownership", level) for level in ("private", "state"))
    ratio = 100 * ((1 + private / 100) / (1 + state / 100) - 1)
    np.testing.assert_allclose(of(made, "percent", "contrast", "ownership", "private - state"), ratio)
    private, state = (of(made, "outcome", "att_by", "ownership", level) for level in ("private", "state"))
    np.testing.assert_allclose(of(made, "outcome", "contrast", "ownership", "private - state"), private - state)


def test_one_effect_for_all_is_the_same_in_log_points_and_in_percent(made):
    collapsed, theta, found, _ = made
    one = theta.sel(column=["mu"])
    labels = collapsed.regression.design.all_labels
    draws = estimand.draw_estimands(one, labels, found)
    percent = rates.count_scales(collapsed, one, found, draws, 1)["percent"][0]
    for k, average in enumerate(found):
        if average.estimand in ("att", "att_event", "att_cohort"):
            np.testing.assert_allclose(percent[..., k], 100 * np.expm1(one.to_numpy()[..., 0]), rtol=1e-9)


def test_truth_of_the_proportional_effect_by_hand(made):
    collapsed, _, found, scales = made
    panel = collapsed.regression.panel
    k = [a.estimand for a in found].index("att")
    mean, tau = panel.truth.mean[panel.treated], panel.truth.tau[panel.treated]
    assert scales["percent"][1][k] == pytest.approx(100 * (mean @ np.expm1(tau)) / mean.sum())
    assert scales["outcome"][1][k] == pytest.approx((mean @ np.expm1(tau)) / len(tau))
    assert scales["log"][1][k] == pytest.approx(tau.mean())


def test_slopes_are_ratios_and_no_number_of_events(made):
    log, percent = (of(made, scale, "spill_per_pp", "district", "control") for scale in ("log", "percent"))
    np.testing.assert_allclose(percent, 100 * np.expm1(log))
    assert np.isnan(of(made, "outcome", "spill_per_pp", "district", "control")).all()


def test_what_carries_a_proportional_effect_is_said():
    assert (
        rates.what_carries(np.array([1.0, 1.0, 0.0, 1.0, 1.0])) == "worth 4.0 units of equal size, the largest is 25%"
    )
    assert rates.what_carries(np.array([8.0, 1.0, 1.0])) == "worth 1.5 units of equal size, the largest is 80%"
    assert rates.what_carries(np.zeros(3)) == "no events: the units averaged have none in any period"


def test_every_sum_over_rows_says_what_carries_it(made):
    _, _, found, scales = made
    for k, average in enumerate(found):
        assert ("of equal size" in scales["percent"][2][k]) == bool(len(average.rows))
        assert scales["log"][2][k] == ""
