"""What is estimated of the errors: recovered where it is known, and the likelihood against dense algebra."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gammaln

from src.collapse import collapse
from src.design import build_design
from src.errors import Errors, Shock, shock_precision
from src.exposure import row_shares
from src.generate import draw
from src.nuisance import MOST_ONSET, ONSET, STRIDE, onset_beyond, t_likelihood, update_shock
from src.passes import (
    Workspace,
    expected_forms,
    forms,
    log_determinant,
    precision_of,
    quadratic_forms,
    residuals,
)
from src.synthetic import ar1
from tests.test_generate import world as drawn
from tests.worlds import panel_of, staggered

FULL = Errors("ar1", "unit", ("county",))


def world(units=600, periods=10, rho=0.6, spread=0.5, ever=0.4, shock=0.3, phi=0.5, seed=0):
    """AR(1) errors of unequal scales, larger among adopters, shocks to 25 counties, gaps and late entries."""
    rng = np.random.default_rng(seed)
    cohort = rng.choice([4, 6, np.inf], units, p=[0.1, 0.1, 0.8])
    county = rng.integers(0, 25, units)
    adopter = np.isfinite(cohort)
    scale = np.exp(spread * rng.standard_normal(units) + ever * adopter)
    errors = scale[:, None] * ar1(rng.standard_normal((units, periods)), rho)
    outcome = errors + shock * ar1(rng.standard_normal((25, periods)), phi)[county] + rng.standard_normal((units, 1))
    outcome += 0.5 * (np.arange(1, periods + 1) >= cohort[:, None])
    seen = rng.random((units, periods)) > 0.1
    unit, period = np.nonzero(seen)
    return panel_of(unit, period + 1, cohort, outcome[unit, period], members={"county": county})


def estimate(panel, errors=FULL):
    regression = build_design(panel, row_shares(panel)[0], units=True)[0]
    return collapse(regression, errors)


def test_parameters_of_the_errors_are_recovered():
    collapsed = estimate(world())
    found, s = collapsed.nuisance, collapsed.s
    assert found.settled
    assert found.rho == pytest.approx(0.6, abs=0.05)
    assert found.shocks["county"].sd * s == pytest.approx(0.3, abs=0.06)
    assert found.shocks["county"].phi == pytest.approx(0.5, abs=0.2)
    assert np.log(found.ever / found.never) == pytest.approx(0.4, abs=0.15)
    assert 2 < found.nu < 8  # log-normal scales of spread .5 are about a t with 4 to 5 degrees of freedom


def test_short_panels_do_not_bias_the_autocorrelation():
    """The profile estimate over five periods would be about .6 - (1 + .6)/5 = .28."""
    rho = [estimate(world(periods=5, shock=0.0, seed=seed), Errors("ar1", "common")).nuisance.rho for seed in range(6)]
    assert np.mean(rho) == pytest.approx(0.6, abs=0.05)


def test_equal_scales_are_found_equal():
    found = estimate(world(spread=0.0, ever=0.0, shock=0.0), Errors("ar1", "unit")).nuisance
    assert found.nu > 40
    assert np.std(found.log_scale) < 0.05


def test_absent_shocks_are_found_absent():
    collapsed = estimate(world(shock=0.0))
    assert collapsed.nuisance.shocks["county"].sd * collapsed.s < 0.15


def test_independent_errors_of_one_scale_need_no_estimates():
    panel = staggered(seed=3)
    plain = estimate(panel, Errors())
    assert plain.nuisance.passes == 0
    assert not plain.evidence.sigma_known
    np.testing.assert_array_equal(plain.nuisance.weight, 1.0)


def test_rescaled_outcome_rescales_scales_and_changes_nothing_else():
    panel = world(units=200)
    one, other = estimate(panel), estimate(replace(panel, outcome=1000 * panel.outcome))
    assert other.nuisance.rho == pytest.approx(one.nuisance.rho, rel=1e-6)
    np.testing.assert_allclose(other.nuisance.weight, one.nuisance.weight, rtol=1e-5)
    record, larger = one.nuisance.record(one.s, 10), other.nuisance.record(other.s, 10)
    assert larger["scale_ever"] == pytest.approx(1000 * record["scale_ever"], rel=1e-5)
    assert larger["shocks"]["county"]["sd"] == pytest.approx(1000 * record["shocks"]["county"]["sd"], rel=1e-5)
    in_s = [c.evidence.rescale(c.s) for c in (one, other)]
    np.testing.assert_allclose(in_s[1].moment, in_s[0].moment, rtol=1e-4, atol=1e-6)


def test_calendar_does_not_matter():
    panel = world(units=200)
    later = replace(panel, time=panel.time + 1990, cohort=panel.cohort + 1990)
    later = replace(later, roster=replace(panel.roster, cohort=panel.roster.cohort + 1990))
    one, other = estimate(panel), estimate(later)
    np.testing.assert_allclose(other.evidence.gram, one.evidence.gram, rtol=1e-6, atol=1e-9)


def test_unit_likelihood_is_the_dense_multivariate_t_with_the_intercept_integrated_out():
    """Density of contrasts C r, C orthonormal to 1, under a multivariate t: same up to what rho, nu, s0 do not move."""
    panel = world(units=12, periods=6)
    work = Workspace.of(build_design(panel, row_shares(panel)[0])[0], FULL, 1.0)
    residual = np.random.default_rng(1).normal(size=len(panel.unit))
    free = np.bincount(panel.unit) - 1.0

    def found(rho, nu, s0):
        q = quadratic_forms(work, residual[:, None], rho)[:, 0]
        everybody, nobody = np.ones(12, dtype=bool), np.zeros(12, dtype=bool)
        return log_determinant(work, rho, everybody) + t_likelihood(q, free, nobody, nu, s0, s0)

    def dense(rho, nu, s0):
        total = 0.0
        for i in range(12):
            mine = panel.unit == i
            time, r = panel.time[mine], residual[mine]
            if len(time) < 2:
                continue
            contrast = np.linalg.svd(np.ones((1, len(time))))[2][1:]
            shape = contrast @ (rho ** np.abs(np.subtract.outer(time, time))) @ contrast.T
            p, z = len(shape), contrast @ r
            q = z @ np.linalg.solve(shape, z) / s0
            total += gammaln((nu + p) / 2) - gammaln(nu / 2) - p / 2 * np.log(nu * np.pi * s0)
            total += -0.5 * np.linalg.slogdet(shape)[1] - (nu + p) / 2 * np.log1p(q / nu)
        return total

    points = [(0.2, 3.0, 1.0), (0.7, 8.0, 0.5), (0.5, 2.0, 2.0), (0.9, 30.0, 1.3)]
    gaps = [found(*point) - dense(*point) for point in points]
    assert np.ptp(gaps) < 1e-8


def test_expected_forms_are_quadratic_forms_summed_over_draws():
    panel = world(units=12, periods=6)
    weight = np.random.default_rng(2).uniform(0.5, 2, len(panel.unit))
    panel = replace(panel, weight=weight)
    work = Workspace.of(build_design(panel, row_shares(panel)[0])[0], FULL, 1.0)
    residual = np.random.default_rng(1).normal(size=(len(panel.unit), 4))
    for rho in (0.0, 0.5, -0.3):
        expected = quadratic_forms(work, residual, rho).sum(axis=1)
        np.testing.assert_allclose(expected_forms(work, residual)(rho), expected, atol=1e-10)


def test_prior_of_shocks_is_the_inverse_of_their_covariance_across_gaps():
    gaps = np.array([1, 3, 1])
    time = np.r_[0, np.cumsum(gaps)]
    covariance = 0.4**2 * 0.7 ** np.abs(np.subtract.outer(time, time))
    found = shock_precision(gaps, Shock(np.zeros(1, dtype=int), 1, sd=0.4, phi=0.7))
    np.testing.assert_allclose(found, np.linalg.inv(covariance), atol=1e-9)


def test_shocks_that_are_seen_give_their_own_moments():
    """Shocks known without error: MacKay's fixed point is their variance, phi their autocorrelation."""
    drawn = 0.3 * ar1(np.random.default_rng(0).standard_normal((400, 12)), 0.6)
    seen = np.concatenate([drawn[..., None], np.zeros((400, 12, 5))], axis=-1)
    found = update_shock(seen, np.ones(11, dtype=int), Shock(np.zeros(400, dtype=int), 400))
    assert found.sd == pytest.approx(0.3, rel=0.03)
    assert found.phi == pytest.approx(0.6, abs=0.03)


def ramping(onset, units=800, periods=8, seed=0):
    """Effects that differ between eight sectors and between firms, by shares `onset` of that at event times 0 and 1."""
    rng = np.random.default_rng(seed)
    cohort = rng.choice([3, 4, 5, np.inf], units, p=[0.15, 0.15, 0.15, 0.55])
    sector = rng.integers(0, 8, units)
    effect = 1.0 * rng.standard_normal(8)[sector] + 0.5 * rng.standard_normal(units)
    event = np.arange(1, periods + 1) - cohort[:, None]
    outcome = rng.standard_normal((units, 1)) + 0.4 * ar1(rng.standard_normal((units, periods)), 0.5)
    outcome += effect[:, None] * np.select([event < 0, event == 0, event == 1], [0.0, *onset], 1.0)
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    return panel_of(unit, time, cohort, outcome.ravel(), {"sector": sector})


@pytest.mark.parametrize("onset", [(0.3, 0.7), (0.8, 1.0), (1.0, 1.0), (0.5, 1.2)])
def test_shares_of_the_differences_that_are_there_at_first_are_recovered(onset):
    panel = ramping(onset)
    collapsed = collapse(build_design(panel, {}, units=True)[0], Errors("ar1", "unit"))
    assert collapsed.nuisance.settled
    assert collapsed.nuisance.onset == pytest.approx(onset, abs=0.07)
    assert collapsed.regression.onset == collapsed.nuisance.onset
    blocks = collapsed.regression.design.blocks
    for event_time, share in enumerate(collapsed.nuisance.onset):
        rows = collapsed.regression.matrix[panel.event_time == event_time]
        np.testing.assert_allclose(rows[:, blocks["unit"].columns].sum(axis=1), share)
        late = share if event_time else 0.0
        np.testing.assert_allclose(rows[:, blocks["sector_late"].columns].sum(axis=1), late)


def test_one_step_of_the_shares_is_a_regression_of_dense_residuals():
    panel = ramping((0.5, 0.8), units=40)
    regression = build_design(panel, {}, units=True)[0]
    work = Workspace.of(regression, Errors("ar1", "unit"), 1.0)
    now = replace(collapse(regression, Errors("ar1", "unit")).nuisance, onset=(0.7, 1.1))
    coefficients = np.random.default_rng(1).normal(size=(work.columns.shape[1], 4))
    precision = precision_of(panel, now.weight, now.rho).toarray()
    every = work.columns.toarray()
    of_differences = [work.layout.blocks[name] for name in ("sector", "unit", "sector_late")]
    some = np.concatenate([np.arange(block.start, block.stop) for block in of_differences])
    felt, columns = [], every.copy()
    for event_time, share in ((0, 0.7), (1, 1.1)):
        here = np.ix_(panel.event_time == event_time, some)
        full = np.zeros_like(every)
        full[here] = every[here]
        felt.append(full @ coefficients)
        columns[here] *= share
    residual = -columns @ coefficients
    residual[:, 0] += work.outcome
    own, cross = np.zeros((2, 2)), np.zeros(2)
    for i in range(40):
        rows = np.flatnonzero(panel.unit == i)
        p = precision[np.ix_(rows, rows)]
        m = p - np.outer(p.sum(1), p.sum(1)) / p.sum()
        for e in (0, 1):
            cross[e] += np.trace(felt[e][rows].T @ m @ residual[rows])
            for f in (0, 1):
                own[e, f] += np.trace(felt[e][rows].T @ m @ felt[f][rows])
    prior = np.eye(2) / ONSET**2
    better = np.linalg.solve(own + prior, own @ [0.7, 1.1] + cross + prior @ [1.0, 1.0])
    expected = np.clip([0.7, 1.1] + STRIDE * (better - [0.7, 1.1]), 0.0, MOST_ONSET)
    np.testing.assert_allclose(residuals(work, now.weight, coefficients, now).all, residual, atol=1e-12)
    said = forms(work, now.weight, coefficients=coefficients, now=now, nodes=np.array([0.3]))
    assert onset_beyond((0.7, 1.1), said.own, said.cross) == pytest.approx(expected)


def test_units_that_never_change_tell_no_scale_and_do_not_carry_the_answer():
    """Half of the units at zero throughout, as on a scale of ln(1 + y): once they made every scale tiny, rho near 1."""
    panel = draw(drawn("realistic", units=300, industries=8, districts=12, adopters=[15] * 4, exposed=False), 1, 1)
    silent = np.random.default_rng(0).random(len(panel.units)) < 0.5
    zeros = replace(panel, outcome=np.where(silent[panel.unit], 0.0, panel.outcome))
    errors = Errors("ar1", "unit", ())
    of_all, of_some = (collapse(build_design(p, {}, True)[0], errors) for p in (panel, zeros))
    one, two = of_all.nuisance, of_some.nuisance
    assert two.rho == pytest.approx(one.rho, abs=0.1)
    assert two.ever * of_some.s == pytest.approx(one.ever * of_all.s, rel=0.35)
    assert two.nu > 1.5
    assert np.ptp(two.weight[silent & ~np.isfinite(panel.cohort)]) < 0.3 * two.weight.max()
    assert any("never changes" in note for note in of_some.notes)
    assert not any("never changes" in note for note in of_all.notes)
