"""The collapsed likelihood against brute force, closed forms and other libraries."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import integrate, stats

from src.collapse import (
    absorbed_covariates,
    collapse,
    dependent_columns,
    eliminate,
    independent_precision,
    least_squares,
    weighted_products,
)
from src.design import build_design
from src.exposure import row_shares
from src.frequentist import regress
from src.panel import PanelError
from src.products import cross_products
from tests.worlds import panel_of, staggered


def regression_of(panel):
    return build_design(panel, row_shares(panel)[0])[0]


def log_density(cross, theta, sigma):
    quadratic = cross.square - 2 * cross.moment @ theta + theta @ cross.gram @ theta
    return -cross.dof * np.log(sigma) - quadratic / (2 * sigma**2)


def tiny():
    """Five units, unbalanced with gaps, unequal weights, three columns."""
    rng = np.random.default_rng(3)
    unit = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4])
    x = rng.normal(size=(len(unit), 3))
    return unit, x, rng.normal(size=len(unit)) + unit, rng.uniform(0.5, 2, len(unit))


def test_log_density_equals_explicit_one_with_unit_effects_integrated_numerically():
    unit, x, y, w = tiny()
    cross = cross_products(sp.csr_array(x), y, unit, independent_precision(w))

    def explicit(theta, sigma):
        total = 0.0
        for i in np.unique(unit):
            mine = unit == i
            residual = y[mine] - x[mine] @ theta
            centre = np.average(residual, weights=w[mine])

            def density(alpha, residual=residual, mine=mine, sigma=sigma, centre=centre):
                scale = sigma / np.sqrt(w[mine])
                here = stats.norm.logpdf(residual, alpha, scale).sum()
                return np.exp(here - stats.norm.logpdf(residual, centre, scale).sum())

            value, _ = integrate.quad(density, centre - 12 * sigma, centre + 12 * sigma, epsabs=1e-13, points=[centre])
            scale = sigma / np.sqrt(w[mine])
            total += np.log(value) + stats.norm.logpdf(residual, centre, scale).sum()
        return total

    rng = np.random.default_rng(0)
    points = [(rng.normal(size=3), rng.uniform(0.5, 2)) for _ in range(6)]
    gaps = [log_density(cross, *point) - explicit(*point) for point in points]
    assert np.ptp(gaps) < 1e-8


def test_gram_under_dependent_errors_equals_dense_projection():
    unit, x, y, w = tiny()
    period = np.array([0, 1, 4, 2, 3, 0, 2, 3, 5, 1, 0, 5])
    blocks, dense = [], np.zeros((len(unit), len(unit)))
    for i in np.unique(unit):
        rows = np.flatnonzero(unit == i)
        covariance = 0.6 ** np.abs(np.subtract.outer(period[rows], period[rows])) / w[rows[0]]
        precision = np.linalg.inv(covariance)
        ones = precision.sum(axis=1)
        dense[np.ix_(rows, rows)] = precision - np.outer(ones, ones) / ones.sum()
        blocks.append(sp.coo_array(precision))
    cross = cross_products(sp.csr_array(x), y, unit, sp.csr_array(sp.block_diag(blocks)))
    np.testing.assert_allclose(cross.gram, x.T @ dense @ x, atol=1e-12)
    np.testing.assert_allclose(cross.moment, x.T @ dense @ y, atol=1e-12)
    np.testing.assert_allclose(cross.square, y @ dense @ y, atol=1e-12)


def test_elimination_equals_integration_of_a_flat_prior():
    unit, x, y, w = tiny()
    cross = cross_products(sp.csr_array(x), y, unit, independent_precision(w))
    keep, out = np.array([0]), np.array([1, 2])
    smaller, conditional = eliminate(cross, keep, out)

    def integrated(first, sigma):
        at = np.array([first])
        centre = conditional.mean - conditional.slope @ at
        half = 10 * sigma * np.sqrt(np.diag(conditional.factor @ conditional.factor.T)).max()

        def density(b, a):
            return np.exp(log_density(cross, np.array([first, a, b]), sigma) - log_density(cross, peak, sigma))

        peak = np.array([first, *centre])
        value, _ = integrate.dblquad(
            density, centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half, epsabs=1e-10
        )
        return np.log(value) + log_density(cross, peak, sigma)

    points = [(0.1, 0.8), (-0.7, 1.3), (0.4, 1.0)]
    gaps = [log_density(smaller, np.array([a]), sigma) - integrated(a, sigma) for a, sigma in points]
    assert np.ptp(gaps) < 1e-6


def test_conditional_draws_have_the_joint_posterior_moments():
    cross = weighted_products(regression_of(staggered(seed=2)))
    columns = np.array([0, cross.gram.shape[0] - 2, cross.gram.shape[0] - 1])
    joint = cross.take(columns)
    _, conditional = eliminate(joint, np.array([0]), np.array([1, 2]))
    inverse = np.linalg.inv(joint.gram)
    rng = np.random.default_rng(1)
    theta = (inverse @ joint.moment)[0] + rng.standard_normal((200_000, 1)) * 0.7 * np.sqrt(inverse[0, 0])
    eta = conditional.draw(theta, np.full(len(theta), 0.7), rng)
    np.testing.assert_allclose(eta.mean(axis=0), (inverse @ joint.moment)[1:], atol=0.01)
    np.testing.assert_allclose(np.cov(eta.T) / (0.49 * inverse[1:, 1:]), np.ones((2, 2)), atol=0.03)


def test_average_effect_is_the_two_way_fixed_effects_coefficient_of_an_unbalanced_panel():
    panel = staggered()
    collapsed = collapse(regression_of(panel))
    evidence = collapsed.evidence.take(collapsed.regression.design.columns(("mu",)))
    coefficient, covariance, _ = least_squares(evidence)
    expected, se = feols(panel, panel.treated[:, None].astype(float))
    np.testing.assert_allclose(coefficient, expected, rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(covariance[0, 0]), se, rtol=1e-6)


def test_weights_enter_as_in_weighted_least_squares():
    panel = staggered(seed=4)
    weight = np.random.default_rng(0).uniform(0.2, 3, len(panel.unit))
    weighted = panel_of(
        panel.unit, panel.time, panel.cohort, panel.outcome, weight=weight / weight.mean(), covariates=panel.covariates
    )
    collapsed = collapse(regression_of(weighted))
    evidence = collapsed.evidence.take(collapsed.regression.design.columns(("mu",)))
    expected, _ = feols(weighted, weighted.treated[:, None].astype(float))
    np.testing.assert_allclose(least_squares(evidence)[0], expected, rtol=1e-8)


def feols(panel, columns):
    """Coefficients and classical standard errors of `columns` by pyfixest, the independent route."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyfixest as pf

        frame = pd.DataFrame(columns, columns=[f"d{j}" for j in range(columns.shape[1])])
        names = [*frame.columns, *panel.covariate_names]
        for j, name in enumerate(panel.covariate_names):
            frame[name] = panel.covariates[:, j]
        frame = frame.assign(y=panel.outcome, unit=panel.unit, time=panel.time, w=panel.weight)
        # singletons are kept: they cost their own unit effect and carry nothing
        fit = pf.feols(
            f"y ~ {' + '.join(names)} | unit + time", frame, vcov="iid", weights="w", fixef_rm="none", fixef_tol=1e-12
        )
        table = fit.tidy().loc[list(frame.columns[: columns.shape[1]])]
    return table["Estimate"].to_numpy(), table["Std. Error"].to_numpy()


def test_cells_are_extended_two_way_fixed_effects():
    panel = staggered(seed=5)
    collapsed = collapse(regression_of(panel))
    block = collapsed.regression.design.blocks["cell"]
    columns = collapsed.regression.matrix[:, block.columns].toarray()
    coefficient = least_squares(collapsed.evidence.take(collapsed.regression.design.columns(("cell",))))[0]
    np.testing.assert_allclose(coefficient, feols(panel, columns)[0], rtol=1e-7)


def test_records_of_disjoint_units_add_up():
    regression = regression_of(staggered(seed=6))
    panel = regression.panel
    whole = weighted_products(regression)
    half = panel.unit < 30
    parts = [
        cross_products(
            regression.matrix[rows], panel.outcome[rows], panel.unit[rows], independent_precision(panel.weight[rows])
        )
        for rows in (np.flatnonzero(half), np.flatnonzero(~half))
    ]
    total = parts[0] + parts[1]
    np.testing.assert_allclose(total.gram, whole.gram, atol=1e-9)
    np.testing.assert_allclose([total.square, total.dof], [whole.square, whole.dof], rtol=1e-12)


def test_a_level_that_dwarfs_the_variation_costs_no_digits():
    panel = staggered(seed=7)
    far = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome + 1e8, covariates=panel.covariates)
    near = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome, covariates=panel.covariates)
    moments = [weighted_products(regression_of(p)).square for p in (near, far)]
    np.testing.assert_allclose(moments[1], moments[0], rtol=1e-6)


def test_rescaled_outcome_rescales_s_and_changes_nothing_else():
    panel = staggered(seed=8)
    larger = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome * 1000, covariates=panel.covariates)
    smaller = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome, covariates=panel.covariates)
    a, b = (collapse(regression_of(p)) for p in (smaller, larger))
    assert b.s == pytest.approx(1000 * a.s)
    in_s = [c.evidence.rescale(c.s) for c in (a, b)]
    np.testing.assert_allclose(in_s[1].moment, in_s[0].moment, rtol=1e-9)
    np.testing.assert_allclose(in_s[1].square, in_s[0].square, rtol=1e-9)
    np.testing.assert_array_equal(in_s[1].gram, in_s[0].gram)


def test_row_order_and_calendar_do_not_matter():
    panel = staggered(seed=9, groups=False, exposed=False)
    order = np.random.default_rng(0).permutation(len(panel.unit))
    shuffled = panel_of(
        panel.unit[order], panel.time[order] + 2000, panel.cohort + 2000, panel.outcome[order],
        covariates=panel.covariates[order],
    )  # fmt: skip
    plain = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome, covariates=panel.covariates)
    a, b = (collapse(regression_of(p)) for p in (plain, shuffled))
    np.testing.assert_allclose(b.evidence.gram, a.evidence.gram, atol=1e-9)
    np.testing.assert_allclose(b.evidence.moment, a.evidence.moment, atol=1e-9)


def test_absorbed_covariates_are_left_out_and_named():
    panel = staggered(seed=10)
    fixed = np.random.default_rng(0).normal(size=60)[panel.unit]
    trend = panel.time.astype(float)
    covariates = np.column_stack([panel.covariates, fixed, trend, panel.covariates[:, 0] + fixed])
    more = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome, covariates=covariates)
    regression = regression_of(more)
    cross = weighted_products(regression)
    assert absorbed_covariates(cross, regression.design, len(more.unit)) == ["x2", "x3", "x4"]
    collapsed = collapse(regression)
    assert collapsed.regression.panel.covariate_names == ("x0", "x1")
    assert "x2, x3, x4" in collapsed.notes[0]


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.0, 1e9])
def test_a_constant_covariate_is_left_out_and_named(constant):
    panel = staggered(seed=10)
    covariates = np.column_stack([np.full(len(panel.unit), constant), panel.covariates])
    more = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome, covariates=covariates)
    regression = regression_of(more)
    assert np.isfinite(regression.matrix.data).all()
    collapsed = collapse(regression)
    assert collapsed.regression.panel.covariate_names == ("x1", "x2")
    assert collapsed.notes == ("covariates x0 do not vary beyond unit and period effects and are left out",)


def test_dependent_columns_are_those_that_earlier_ones_explain():
    x = np.random.default_rng(0).normal(size=(30, 3))
    x = np.column_stack([x[:, 0], x[:, 1], x[:, 0] - 2 * x[:, 1], x[:, 2], np.zeros(30)])
    np.testing.assert_array_equal(dependent_columns(x.T @ x), [2, 4])


def test_adoption_that_a_covariate_explains_is_refused():
    panel = staggered(seed=12)
    covariates = np.column_stack([panel.covariates, 2.0 * panel.treated])
    same = panel_of(panel.unit, panel.time, panel.cohort, panel.outcome, covariates=covariates)
    with pytest.raises(PanelError, match="a covariate is adoption itself"):
        collapse(regression_of(same))


def test_a_panel_without_residual_variation_is_refused():
    unit, time = np.repeat([0, 1], 2), np.tile([1, 2], 2)
    panel = panel_of(unit, time, [2, np.inf], [0.0, 1.0, 0.0, 0.5])
    with pytest.raises(PanelError, match="too small"):
        collapse(regression_of(panel))


def test_an_outcome_that_is_explained_without_error_is_refused_as_such():
    panel = staggered(seed=12, groups=False, exposed=False)
    perfect = panel_of(panel.unit, panel.time, panel.cohort, panel.time + 1.0 * panel.treated)
    with pytest.raises(PanelError, match="explain the outcome without error"):
        collapse(regression_of(perfect))


def test_fixed_effects_of_level_and_period_are_those_of_least_squares():
    panel = staggered(seed=17, exposed=False)
    panel = replace(panel, fixed={name: panel.groups[name] for name in ("industry", "ownership")})
    evidence = collapse(regression_of(panel)).evidence
    slope = evidence.moment[0] / evidence.gram[0, 0]  # of mu alone
    assert slope == pytest.approx(regress(panel, {"D": panel.treated}).coefficients[0], rel=1e-7)


def test_what_fixed_effects_leave_of_an_exposure_is_said_before_sampling():
    panel = staggered(units=90, seed=18)
    assert not collapse(regression_of(panel)).notes
    sector = replace(panel, fixed={"industry": panel.groups["industry"]})
    (note,) = collapse(regression_of(sector)).notes
    assert note.startswith("among the untreated, industry does not vary within industry x period")
    shares = row_shares(panel)[0]
    nearly = panel.time**2 / 64 + 1e-3 * shares["county"]  # moves with the period, all but a little
    (note,) = collapse(build_design(panel, {"industry": shares["industry"], "county": nearly})[0]).notes
    assert note.startswith("periods, fixed effects and covariates explain all but 0.")


def test_unit_labels_do_not_matter():
    panel = staggered(seed=14)
    new = np.random.default_rng(1).permutation(len(panel.units))
    back = np.argsort(new)  # unit i becomes new[i], and rows stay where they are
    groups = {name: np.array(f.levels)[f.code][back] for name, f in panel.groups.items()}
    members = {name: code[back] for name, code in panel.roster.members.items()}
    renamed = panel_of(
        new[panel.unit], panel.time, panel.cohort[back], panel.outcome, groups, members, covariates=panel.covariates
    )
    a, b = (collapse(regression_of(p)) for p in (panel, renamed))
    assert a.regression.design.all_labels == b.regression.design.all_labels
    np.testing.assert_allclose(b.evidence.gram, a.evidence.gram, atol=1e-9)
    np.testing.assert_allclose(b.evidence.moment, a.evidence.moment, atol=1e-9)
