"""Outcomes drawn from coefficients: nothing is lost on the way there and back."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from src import redraw
from src.collapse import collapse
from src.design import build_design
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from src.system import FIRST, collapse_all, collapse_counts, only
from tests.test_generate import world
from tests.test_sites import conditional

ERRORS, EVENTS = Errors("ar1", "unit"), Errors("ar1", "unit", events=True)
SMALL = {"units": 240, "periods": 8, "starts": [4, 6], "adopters": [30, 30], "industries": 6, "districts": 8}


def panel_of(name):
    return draw(world(name, **SMALL), 1, 3)


@pytest.fixture(scope="module")
def gaussian():
    panel = panel_of("twofold")
    return panel, collapse_all(panel, row_shares(panel)[0], ERRORS, (FIRST, "y1"), False, True, True)


@pytest.fixture(scope="module")
def counts():
    panel = panel_of("parted")
    return panel, collapse_counts(panel, row_shares(panel)[0], EVENTS, "y1", False)


def draw_of(equation, value=0.0, names=("mu", "exposure", "difference", "earlier")):
    design = equation.collapsed.regression.design
    labels = design.labels(tuple(name for name in names if name in design.blocks))
    values = np.full(len(labels), value)
    return xr.Dataset({"theta": ("column", values)}, coords={"column": labels})


def test_with_the_outcomes_that_there_were_the_equation_is_as_it_was(gaussian):
    panel, (_, second) = gaussian
    again = redraw.given(second, [panel.outcome]).regression.matrix
    np.testing.assert_allclose(again.toarray(), second.collapsed.regression.matrix.toarray(), atol=1e-12)
    other = redraw.given(second, [2 * panel.outcome]).regression.matrix
    mine = second.collapsed.regression.design.blocks["earlier"].columns
    np.testing.assert_allclose(other[:, mine].toarray(), 2 * again[:, mine].toarray())


def test_the_outcome_that_there_was_leaves_the_evidence_that_there_was(gaussian):
    panel, (first, _) = gaussian
    found = redraw.with_outcome(first.collapsed, ERRORS, panel.outcome)
    np.testing.assert_allclose(found.evidence.gram, first.collapsed.evidence.gram)
    np.testing.assert_allclose(found.evidence.moment, first.collapsed.evidence.moment)


def test_estimates_of_what_was_drawn_scatter_about_it_as_the_evidence_says(gaussian):
    """Of both equations, the second given a first that is drawn anew: z = L'(estimate - truth) of unit variance."""
    _, system = gaussian
    rng, z = np.random.default_rng(0), []
    for _ in range(40):
        before = []
        for equation in system:
            truth = draw_of(equation, 0.3)
            found = redraw.redrawn(equation, ERRORS, (), truth, before, rng)
            before.append(found.outcome)
            evidence = redraw.evidence_of(found, redraw.columns_of(found.collapsed, truth))
            lower = np.linalg.cholesky(evidence.gram)
            estimate = np.linalg.solve(evidence.gram, evidence.moment)
            z.append(lower.T @ (estimate - truth["theta"].to_numpy()))
    flat = np.concatenate(z)
    assert flat.mean() == pytest.approx(0, abs=4 / np.sqrt(flat.size))
    assert flat.var() == pytest.approx(1, abs=4 * np.sqrt(2 / flat.size))


def test_counts_have_the_totals_of_the_data_and_effects_in_proportion(counts):
    panel, (whole, _) = counts
    # without a disturbance and shocks, which would add to the variance
    levels = replace(whole.collapsed.levels, omega=np.zeros_like(whole.collapsed.levels.omega))
    nuisance = replace(whole.collapsed.nuisance, shocks={})
    still = replace(whole.collapsed, levels=levels, nuisance=nuisance)
    effect = np.where(panel.treated, np.log(2), 0.0)
    drawn = [redraw.counted(still, effect, np.random.default_rng(seed))[0] for seed in range(20)]
    expected = np.zeros(len(panel.unit))
    for unit in np.unique(panel.unit):
        mine = panel.unit == unit
        odds = np.where(panel.treated[mine], 2.0, 1.0)
        expected[mine] = panel.outcome[mine].sum() * odds / odds.sum()
    for values in drawn:
        np.testing.assert_array_equal(np.bincount(panel.unit, values), np.bincount(panel.unit, panel.outcome))
    some = panel.treated & (expected > 0)
    assert np.mean(drawn, axis=0)[some].sum() == pytest.approx(expected[some].sum(), rel=0.03)


def test_a_part_is_drawn_given_the_whole(counts):
    _, (whole, part) = counts
    rng = np.random.default_rng(1)
    first = redraw.redrawn(whole, EVENTS, (), draw_of(whole), [], rng)
    second = redraw.redrawn(part, EVENTS, (), draw_of(part), [first.outcome], rng)
    panel = second.collapsed.regression.panel
    np.testing.assert_array_equal(panel.outcome, second.outcome)
    np.testing.assert_array_equal(panel.whole, first.outcome)
    assert (second.outcome <= first.outcome).all()
    of_data = np.bincount(panel.unit, part.collapsed.regression.panel.outcome)
    np.testing.assert_array_equal(np.bincount(panel.unit, second.outcome), of_data)


def test_parts_that_add_up_follow_fishers_noncentral_hypergeometric_law():
    whole, odds, rng = np.array([5, 0, 7, 30]), np.array([0.5, 9.0, -0.5, 0.0]), np.random.default_rng(0)
    drawn = np.array([redraw.part_of(11, whole, odds, rng) for _ in range(4000)])
    assert (drawn.sum(axis=1) == 11).all()
    mean, covariance = conditional([5, 0, 7, 30], 11, odds)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * np.sqrt(covariance.max() / 4000))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.15)
    assert redraw.part_of(0, whole, odds, rng).tolist() == [0, 0, 0, 0]
    assert redraw.part_of(42, whole, odds, rng).tolist() == whole.tolist()


def test_fit_of_treated_rows_by_hand(counts, gaussian):
    rng = np.random.default_rng(2)
    for (_, system), errors in ((gaussian, ERRORS), (counts, EVENTS)):
        equation = system[0]
        found = redraw.redrawn(equation, errors, (), draw_of(equation), [], rng)
        regression, s = found.collapsed.regression, found.collapsed.s
        panel, design = regression.panel, regression.design
        coefficients = rng.normal(size=(3, design.size))
        fits = redraw.treated_fit(found, errors, coefficients, np.full(3, 2.0))
        means = redraw.without_nuisance(found, errors, coefficients)
        felt = regression.matrix @ coefficients.T
        flat = design.columns(("time", "covariate"))
        only_flat = regression.matrix[:, flat] @ coefficients[:, flat].T
        by_hand, lefts = np.zeros(3), []
        for unit in np.unique(panel.unit[panel.treated]):
            mine = panel.unit == unit
            rows = np.flatnonzero(mine & panel.treated)
            y = found.outcome[rows]
            if errors.events:
                chance = np.exp(felt[rows]) / np.exp(felt[rows]).sum(axis=0)
                by_hand += y @ np.log(chance)
                lefts.append(np.repeat(y[:, None], 3, axis=1))
            else:
                left = y[:, None] - felt[rows] - (found.outcome[mine, None] - felt[mine]).mean(axis=0)
                by_hand -= (left**2).sum(axis=0) / (2 * (2.0 * s) ** 2)
                lefts.append(y[:, None] - only_flat[rows] - (found.outcome[mine, None] - only_flat[mine]).mean(axis=0))
        np.testing.assert_allclose(fits, by_hand, rtol=1e-9)
        np.testing.assert_allclose(means, np.vstack(lefts).mean(axis=0), rtol=1e-9)


def test_functions_of_the_outcome_do_not_change_as_it_moves_with_what_is_flat(gaussian):
    """Else ranks would not be those of a prior; see src.simulate."""
    rng = np.random.default_rng(3)
    _, system = gaussian
    found = redraw.redrawn(system[0], ERRORS, (), draw_of(system[0]), [], rng)
    regression = found.collapsed.regression
    design = regression.design
    flat = design.columns(("time", "covariate"))
    coefficients = rng.normal(size=(2, design.size))
    by, level = rng.normal(size=len(flat)), rng.normal(size=len(regression.panel.units))
    moved = replace(found, outcome=found.outcome + regression.matrix[:, flat] @ by + level[regression.panel.unit])
    further = coefficients.copy()
    further[:, flat] += by
    for function in (lambda *a: redraw.treated_fit(*a, np.ones(2)), redraw.without_nuisance):
        np.testing.assert_allclose(function(moved, ERRORS, further), function(found, ERRORS, coefficients), rtol=1e-9)
        assert not np.allclose(function(moved, ERRORS, coefficients), function(found, ERRORS, coefficients))


def test_a_regression_of_one_outcome_is_a_system_of_its_own():
    panel = panel_of("realistic")
    regression, _ = build_design(panel, row_shares(panel)[0], False)
    (equation,) = only(collapse(regression, ERRORS))
    assert redraw.given(equation, []) is equation.collapsed
