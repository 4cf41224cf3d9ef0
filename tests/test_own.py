"""Effects of single units integrated out: against a column for every adopter, and against dense algebra."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, optimize

from src import design, tally
from src.average import own_effects
from src.collapse import collapse, whitened_products, without_periods_and_covariates
from src.design import MEAN, build_design, mean_effects, own_rows, regression_of
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from src.nuisance import TYPICAL, estimate, posterior, spread_of_effects, starting
from src.passes import Workspace, forms, precision_of, weighed
from src.within import projected
from tests.test_generate import world

ERRORS = Errors("ar1", "unit", ("district", "industry"))


@pytest.fixture(scope="module")
def both():
    """The same panel with the effects of adopters as columns, and without, under the same errors."""
    panel = draw(world("realistic", units=200, industries=5, districts=8, adopters=[8, 8, 8, 8]), 1, 1)
    explicit = build_design(panel, row_shares(panel)[0], units=True)[0]
    collapsed = collapse(explicit, ERRORS)
    explicit = collapsed.regression
    trait = explicit.matrix[:, explicit.design.blocks["trait"].columns].toarray().ravel()
    of_unit = np.zeros(len(panel.units))
    of_unit[panel.unit[panel.treated]] = trait[panel.treated]
    integrated = regression_of(
        explicit.panel, explicit.share_of, None, True, of_unit, explicit.onset, explicit.frame, integrated=True
    )
    return collapsed, integrated


def test_what_is_left_is_what_eliminating_the_columns_of_adopters_leaves(both):
    collapsed, integrated = both
    nuisance = collapsed.nuisance
    explicit = collapsed.regression
    one = whitened_products(explicit, nuisance)
    own = explicit.design.columns(("unit",))
    rest = np.setdiff1d(np.arange(explicit.design.size), own)
    precise = one.gram[np.ix_(own, own)] + np.eye(len(own)) / nuisance.own**2
    pull = np.linalg.solve(precise, one.gram[np.ix_(own, rest)])
    gram = one.gram[np.ix_(rest, rest)] - one.gram[np.ix_(rest, own)] @ pull
    moment = one.moment[rest] - pull.T @ one.moment[own]
    two = whitened_products(integrated, nuisance)
    there = np.setdiff1d(np.arange(integrated.design.size), integrated.design.columns((MEAN,)))
    names = [explicit.design.all_labels[k] for k in rest]
    assert [integrated.design.all_labels[k] for k in there] == names
    np.testing.assert_allclose(two.gram[np.ix_(there, there)], gram, atol=1e-9 * np.abs(gram).max())
    np.testing.assert_allclose(two.moment[there], moment, atol=1e-9 * np.abs(moment).max())


def test_means_of_effects_given_the_rest_are_those_of_the_effects_themselves(both):
    collapsed, integrated = both
    nuisance, explicit = collapsed.nuisance, collapsed.regression
    evidence, _ = without_periods_and_covariates(whitened_products(explicit, nuisance), explicit.design)
    own = explicit.design.columns(("unit",))
    rest = np.array([k for k in range(len(evidence.moment)) if k not in set(own)])
    theta = np.random.default_rng(0).normal(size=len(rest))
    covariance = np.linalg.inv(evidence.gram[np.ix_(own, own)] + np.eye(len(own)) / nuisance.own**2)
    mean = covariance @ (evidence.moment[own] - evidence.gram[np.ix_(own, rest)] @ theta)
    unit = [str(level) for level in explicit.design.blocks["unit"].levels]
    place = [int(np.flatnonzero(integrated.panel.units == level)[0]) for level in unit]
    share = mean_effects(integrated)[:, integrated.design.blocks[MEAN].columns].toarray()[place]

    found, _ = without_periods_and_covariates(whitened_products(integrated, nuisance), integrated.design)
    means = integrated.design.columns((MEAN,))
    labels = integrated.design.all_labels
    others = np.array([labels.index(explicit.design.all_labels[k]) for k in rest])
    given = found.moment[means] - found.gram[np.ix_(means, others)] @ theta
    np.testing.assert_allclose(given, share.T @ mean, atol=1e-8)
    np.testing.assert_allclose(-found.gram[np.ix_(means, means)], share.T @ covariance @ share, atol=1e-9)


def test_averages_take_the_mean_effect_of_their_own_rows(both):
    collapsed, integrated = both
    explicit = collapsed.regression
    unit = explicit.design.blocks["unit"].columns
    share = mean_effects(integrated)
    place = [int(np.flatnonzero(integrated.panel.units == level)[0]) for level in explicit.design.blocks["unit"].levels]
    pairs = zip(own_effects(explicit, tally.own(explicit)), own_effects(integrated, tally.own(integrated)), strict=True)
    for one, two in pairs:
        assert (one.estimand, one.group, one.level) == (two.estimand, two.group, two.level)
        of_units = share[place] @ two.weights
        np.testing.assert_allclose(of_units, one.weights[unit], atol=1e-12)


def test_the_spread_is_where_the_likelihood_of_all_rows_is_largest():
    """Dense brute force: every row's covariance with every other, unit effects and coefficients integrated out."""
    panel = draw(world("realistic", units=120, industries=5, districts=6, adopters=[9, 9, 9, 9]), 3, 1)
    frame = build_design(panel, row_shares(panel)[0], units=True)[0]
    plain = regression_of(panel, frame.share_of, None, True, frame=frame.frame, integrated=True)
    errors = Errors("ar1", "common", ())
    work = Workspace.of(plain, errors, 0.5)
    found = estimate(plain, errors, 0.5)
    assert found.settled
    assert found.passes < 40

    columns, f = work.columns_at(found.onset).toarray(), own_rows(panel, found.onset)
    same = panel.unit[:, None] == panel.unit[None, :]
    distance = np.abs(panel.time[:, None] - panel.time[None, :])
    scale = found.weight[panel.unit] ** -0.5
    errors_of = np.outer(scale, scale) * np.where(same, found.rho**distance, 0.0) + 1e4 * same
    sd = np.ones(columns.shape[1])
    for name, block in work.layout.blocks.items():
        sd[block] = min(found.spreads[name], 100.0)
    rest = errors_of + (columns * sd**2) @ columns.T
    own = np.outer(f, f) * same

    def loss(log_spread: float) -> float:
        v = np.exp(2 * log_spread)
        lower = np.linalg.cholesky(rest + v * own)
        fit = np.linalg.solve(lower, work.outcome) ** 2
        return 2 * np.log(np.diag(lower)).sum() + fit.sum() + 2 * log_spread + TYPICAL**2 / v

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.02), np.log(3.0)), method="bounded").x
    assert found.own == pytest.approx(np.exp(best), rel=0.02)


@pytest.mark.parametrize("nu", [2.5, 40.0, np.inf])
def test_scales_and_effects_of_units_are_integrated_out_of_what_they_say_of_the_spread(nu):
    """By adaptive quadrature over the scale, a unit at a time."""
    rng = np.random.default_rng(7)
    s0, free, units = 0.7, 9, 12
    d = rng.uniform(0.5, 4, units)
    b = rng.normal(size=units) * np.sqrt(d + d**2 * rng.choice([0.1, 4.0], units))
    q = b**2 / d + rng.chisquare(free - 1, units) * rng.choice([0.3, 1.0, 3.0], units)

    def told(scale, k, v):
        """Likelihood times the density of the scale, over its logarithm."""
        total = scale + d[k] * v
        return (
            0.5 * np.log(scale / total)
            - free / 2 * np.log(scale)
            - (q[k] - b[k] ** 2 * v / total) / (2 * scale)
            - (0 if np.isinf(nu) else nu / 2 * np.log(scale) + nu * s0 / (2 * scale))
        )

    def loss(log_spread):
        v = np.exp(2 * log_spread)
        if np.isinf(nu):
            each = [told(s0, k, v) for k in range(units)]
        else:
            at = np.linspace(-8, 8, 4001)
            top = [max(told(np.exp(x), k, v) for x in at[::50]) for k in range(units)]
            each = [
                np.log(integrate.quad(lambda x, k=k: np.exp(told(np.exp(x), k, v) - top[k]), -12, 12, limit=400)[0])
                + top[k]
                for k in range(units)
            ]
        return -2 * sum(each) + 2 * log_spread + TYPICAL**2 / v

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(5)), method="bounded", options={"xatol": 1e-6}).x
    found = spread_of_effects(np.column_stack([d, b**2, q, np.full(units, free)]), nu, s0)
    assert found == pytest.approx(np.exp(best), rel=1e-4)


def test_what_units_say_of_their_effects_is_said_at_scale_one():
    """Dense residuals without any effect taken out, under unequal weights, shocks and shares at first."""
    rng = np.random.default_rng(0)
    panel = draw(world("realistic", units=200), 3, 1)
    weight = np.exp(0.4 * rng.normal(size=len(panel.unit)))
    panel = replace(panel, weight=weight / weight.mean())
    frame = build_design(panel, row_shares(panel)[0], units=True)[0]
    plain = regression_of(panel, frame.share_of, None, True, frame=frame.frame, integrated=True)
    work = Workspace.of(plain, ERRORS, 0.5)
    start = starting(work.layout, ERRORS, len(panel.units))
    now = replace(start, onset=(0.7, 0.9), spreads=start.spreads | {"unit": 0.8})
    of_units = np.exp(0.7 * rng.normal(size=len(panel.units)))
    found = weighed(work, of_units, coefficients=None, before=now.bare, now=now.bare)
    coefficients = posterior(work.layout, now, found.products.value)
    said = forms(work, of_units, coefficients=coefficients, now=now.bare, nodes=np.array([now.rho])).effects

    left = -work.columns_at(now.onset) @ coefficients
    left[:, 0] += work.outcome
    f = own_rows(panel, now.onset)
    pulled = projected(np.column_stack([f, left]), panel.unit, precision_of(panel, np.ones(len(of_units)), now.rho))
    sums = [np.bincount(panel.unit, x) for x in (f * pulled[:, 0], *(pulled[:, 0] * column for column in left.T))]
    square = np.bincount(panel.unit, (pulled[:, 1:] * left).sum(axis=1))
    expected = [sums[0], (np.array(sums[1:]) ** 2).sum(axis=0), square, np.bincount(panel.unit) - 1]
    np.testing.assert_allclose(said, np.column_stack(expected)[work.adopters], rtol=1e-10)


def test_a_large_effect_does_not_pass_for_large_errors():
    """Units that tell little of their scale, drawn as the model says."""
    rng = np.random.default_rng(8)
    nu, s0, spread, units, before, after = 3.0, 0.5, 0.4, 4000, 4, 3
    scale = nu * s0 / rng.chisquare(nu, units)
    f = np.r_[np.zeros(before), np.ones(after)]
    rows = spread * rng.normal(size=(units, 1)) * f + np.sqrt(scale)[:, None] * rng.normal(size=(units, len(f)))
    rows -= rows.mean(axis=1, keepdims=True)
    d = np.full(units, before * after / len(f))
    said = np.column_stack([d, (rows @ f) ** 2, (rows**2).sum(axis=1), np.full(units, len(f) - 1)])
    assert spread_of_effects(said, nu, s0) == pytest.approx(spread, rel=0.08)


def test_what_the_errors_are_hardly_depends_on_whether_effects_are_columns(both):
    collapsed, integrated = both
    plain = regression_of(integrated.panel, integrated.share_of, None, True, frame=integrated.frame, integrated=True)
    found = collapse(plain, ERRORS)
    assert found.nuisance.rho == pytest.approx(collapsed.nuisance.rho, abs=0.01)
    assert found.nuisance.onset == pytest.approx(collapsed.nuisance.onset, abs=0.1)
    np.testing.assert_allclose(found.nuisance.weight, collapsed.nuisance.weight, rtol=0.15)
    assert found.regression.integrated


def test_independent_errors_leave_effects_of_many_units_out(monkeypatch):
    monkeypatch.setattr(design, "MOST_OWN", 5)
    panel = draw(world("realistic", units=200, industries=5, districts=8, adopters=[8, 8, 8, 8]), 1, 1)
    regression, _ = build_design(panel, row_shares(panel)[0], units=True)
    assert regression.integrated
    collapsed = collapse(regression, Errors())
    assert not collapsed.regression.integrated
    assert any("effects of single units are left out" in note for note in collapsed.notes)
    assert not any("left out" in note for note in collapse(regression, Errors(), own=False).notes)
    assert collapse(regression, ERRORS).regression.integrated
