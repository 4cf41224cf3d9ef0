"""Effects on counts, against sums over rows one by one."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import integrate, stats

from src import estimand, rates
from src.average import MARGINS, Average
from src.chance import Probabilities, any_event, of_kind
from src.collapse import collapse
from src.design import build_design
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
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
    return collapsed, theta, found, rates.count_scales(rates.Factor(collapsed, theta), found, draws, 1)


def of(made, scale, estimand, group="", level=""):
    scales = made[3]
    k = [(a.estimand, a.group, a.level) for a in scales[scale].found].index((estimand, group, level))
    return scales[scale].draws.reshape(DRAWS, -1)[:, k]


def probability(x, variance):
    """That a Poisson count is not zero, log mean Normal(x, variance), by adaptive quadrature."""
    none, _ = integrate.quad(lambda e: np.exp(-np.exp(x + np.sqrt(variance) * e)) * stats.norm.pdf(e), -9, 9)
    return 1 - none


def test_sums_over_rows_one_by_one(made):
    collapsed, theta, _, _ = made
    regression, levels = collapsed.regression, collapsed.levels
    panel, design = regression.panel, regression.design
    matrix = regression.matrix.toarray()
    position = [design.all_labels.index(label) for label in theta["column"].to_numpy()]
    nuisance = design.columns(("time", "covariate"))
    kept = np.setdiff1d(np.arange(design.size), nuisance)
    variance = levels.omega[3] + sum((shock.sd * collapsed.s) ** 2 for shock in collapsed.nuisance.shocks.values())
    slope = dict(
        zip(("exposure", "difference"), (design.blocks[b].columns for b in ("exposure", "difference")), strict=True)
    )
    for d, draw_ in enumerate(theta.to_numpy().reshape(DRAWS, -1)):
        b = np.zeros(design.size)
        b[position] = draw_
        b[nuisance] = collapsed.conditional.mean - collapsed.conditional.slope @ b[kept]
        f = matrix @ b
        base, gain_own, gain_all, gain_switch, least, most = np.zeros((6, panel.treated.sum()))
        for n, row in enumerate(np.flatnonzero(panel.treated)):
            i = panel.unit[row]
            if levels.total[i] == 0:
                continue
            mine = panel.unit == i
            a = (levels.pull[i] - levels.weight[mine] @ f[mine]) / levels.total[i]
            untreated = matrix[row, nuisance] @ b[nuisance]
            base[n] = np.exp(a + variance / 2 + untreated)
            share = regression.shares[row] / regression.exposure_sd
            centre = regression.exposure_centre / regression.exposure_sd
            others, more = share @ b[slope["exposure"]], share @ b[slope["difference"]]
            tau = sum(
                matrix[row, p] * b[p] for p in position if not slope["exposure"].start <= p < slope["difference"].stop
            )
            tau -= centre @ b[slope["difference"]]
            gain_own[n] = base[n] * (np.exp(tau) - 1)
            share = min(np.exp(untreated) / np.exp(f[mine]).sum(), rates.MOST_SHARE)
            alone = a + untreated - np.log(1 - share)
            least[n], most[n] = (probability(x, variance) for x in (alone, alone + tau))
            gain_all[n] = base[n] * (np.exp(tau + others + more) - 1)
            gain_switch[n] = base[n] * (np.exp(tau + others + more) - np.exp(others))
        for name, gain in (("att", gain_own), ("total_treated", gain_all), ("switching", gain_switch)):
            assert of(made, "percent", name)[d] == pytest.approx(100 * gain.sum() / base.sum(), rel=1e-6)
            assert of(made, "outcome", name)[d] == pytest.approx(gain.mean(), rel=1e-6)
        assert of(made, "outcome", "total_events")[d] == pytest.approx(gain_own.sum(), rel=1e-6)
        assert of(made, "outcome", "total_events", "total_treated")[d] == pytest.approx(gain_all.sum(), rel=1e-6)
        assert of(made, "outcome", "att_any")[d] == pytest.approx(most.mean() - least.mean(), rel=1e-4, abs=1e-6)
        assert of(made, "percent", "att_any")[d] == pytest.approx(100 * (most.sum() / least.sum() - 1), rel=1e-3)
        given = (base + gain_own).sum() / most.sum() - base.sum() / least.sum()
        assert of(made, "outcome", "att_given_any")[d] == pytest.approx(given, rel=1e-3)
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
    percent = rates.count_scales(rates.Factor(collapsed, one), found, draws, 1)["percent"].draws
    for k, average in enumerate(found):
        if average.estimand in ("att", "att_event", "att_cohort"):
            np.testing.assert_allclose(percent[..., k], 100 * np.expm1(one.to_numpy()[..., 0]), rtol=1e-9)


def test_truth_of_the_proportional_effect_by_hand(made):
    collapsed, _, found, scales = made
    panel = collapsed.regression.panel
    k = [a.estimand for a in found].index("att")
    mean, tau = panel.truth.mean[panel.treated], panel.truth.tau[panel.treated]
    assert scales["percent"].truth[k] == pytest.approx(100 * (mean @ np.expm1(tau)) / mean.sum())
    assert scales["outcome"].truth[k] == pytest.approx((mean @ np.expm1(tau)) / len(tau))
    assert scales["log"].truth[k] == pytest.approx(tau.mean())


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
        assert ("of equal size" in scales["percent"].said[k]) == bool(len(average.rows))
        assert scales["log"].said[k] == ""


@pytest.mark.parametrize("x", [-12.0, -3.0, 0.0, 2.0, 6.0])
@pytest.mark.parametrize("variance", [0.0, 0.2, 2.5])
def test_probability_of_any_event(x, variance):
    assert any_event(np.array(x), np.array(variance)) == pytest.approx(probability(x, variance), rel=5e-6)


@pytest.mark.parametrize("law", [any_event, of_kind])
def test_table_of_probabilities_and_what_lies_beyond_it(law):
    variance = np.array([0.0, 0.3, 2.5])
    table = Probabilities.of(law, variance)
    rng = np.random.default_rng(0)
    x, which = rng.uniform(-20, 14, (40, 50)), rng.integers(0, 3, (40, 50))
    np.testing.assert_allclose(table.at(x, which), law(x, variance[which]), rtol=2e-5)
    assert table.at(np.array([-np.inf]), np.array([1])) == 0


def test_probability_of_none_is_right_on_average_whatever_the_mean():
    rng = np.random.default_rng(0)
    share, none = 0.15, []
    for mean in (0.4, 1.0, 3.0):
        total = rng.poisson(mean, 400_000)
        level = np.where(total > 0, rng.gamma(np.maximum(total, 1)), 0.0)
        none.append(np.exp(-level * share / (1 - share)).mean() / np.exp(-mean * share))
    assert none == pytest.approx([1, 1, 1], abs=2e-3)


def test_margins_multiply_to_the_effect_in_percent(made):
    for group, level, whole in (("", "", "att"), ("ownership", "state", "att_by"), ("event_time", "2", "att_event")):
        key = (group, level) if whole == "att_by" else ("", level)
        total = 1 + of(made, "percent", whole, *key) / 100
        parts = [1 + of(made, "percent", name, group, level) / 100 for name in MARGINS]
        np.testing.assert_allclose(parts[0] * parts[1], total, rtol=1e-9)


def test_totals_are_rates_times_rows(made):
    found = made[3]["outcome"].found
    for average in found:
        if average.estimand == "total_events" and average.group not in ("event_time", "cohort"):
            whole = "att" if not average.group else average.group if average.group in rates.SUMMED else "att_by"
            key = (average.group, average.level) if whole == "att_by" else ("", "")
            total = of(made, "outcome", "total_events", average.group, average.level)
            np.testing.assert_allclose(total, average.n_obs * of(made, "outcome", whole, *key), rtol=1e-9)
    assert "total_events" not in {average.estimand for average in made[3]["percent"].found}


def test_true_margins_by_hand(made):
    collapsed, _, _, scales = made
    panel = collapsed.regression.panel
    truth, rows = panel.truth, np.flatnonzero(panel.treated)
    alone = np.log(truth.mean[rows]) - truth.variance[rows] / 2
    least, most = (
        np.array([probability(a, v) for a, v in zip(x, truth.variance[rows], strict=True)])
        for x in (alone, alone + truth.tau[rows])
    )
    on = scales["outcome"]
    known = {average.estimand: on.truth[k] for k, average in enumerate(on.found) if average.group == ""}
    assert known["att_any"] == pytest.approx(most.mean() - least.mean(), rel=1e-4)
    assert known["total_events"] == pytest.approx(truth.mean[rows] @ np.expm1(truth.tau[rows]))


def test_levels_may_hold_what_parts_the_two_of_a_contrast():
    levels = ("Food - drink", "Steel")
    found = [Average("att_by", "ind", level, np.zeros(1), 1, 1) for level in levels]
    found.append(Average("contrast", "ind", " - ".join(levels), np.zeros(1), 2, 2))
    values = np.array([[30.0, 10.0, np.nan]])
    rates.contrasts(values, found, relative=False)
    assert values[0, 2] == 20
