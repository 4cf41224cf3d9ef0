"""Counts collapsed: published numbers, nuisance parameters of a drawn world, and what is silent."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from src.collapse import LOG_POINTS, collapse
from src.design import build_design
from src.errors import Errors
from src.exposure import row_shares
from src.fit import load
from src.generate import draw
from src.panel import of_rows
from src.poisson import poisson_etwfe, poisson_twfe
from tests.test_command import composed
from tests.test_generate import world
from tests.worlds import panel_of

PLAIN = Errors(serial="none", scale="none", events=True)
FULL = Errors(serial="ar1", scale="unit", events=True)


MANY = 1e6  # times as many events: maxima of the likelihood stay where they are, and means come to lie there


def slopes(panel, term, times=MANY):
    """Flat-prior estimates of one block, their covariance, and how many rows each level has."""
    panel = replace(panel, outcome=times * panel.outcome)
    collapsed = collapse(build_design(panel, {})[0], PLAIN, (term,))
    columns = collapsed.regression.design.columns((term,))
    evidence = collapsed.evidence.take(columns)
    inverse = np.linalg.inv(evidence.gram)
    return inverse @ evidence.moment, LOG_POINTS**2 * inverse, collapsed.regression.matrix[:, columns].sum(axis=0)


def test_published_numbers_of_seat_belt_laws():
    panel, _, _ = load(composed("data=driving_counts", "likelihood=poisson"))
    assert slopes(panel, "mu")[0] == pytest.approx([-0.0933], abs=5e-5)
    cells, _, rows = slopes(panel, "cell")
    assert cells @ rows / rows.sum() == pytest.approx(-0.1296, abs=5e-5)
    without = replace(panel, offset=None)
    cells, _, rows = slopes(without, "cell")
    assert cells @ rows / rows.sum() == pytest.approx(-0.1034, abs=5e-5)


def test_some_rows_take_their_exposure_to_risk_along():
    panel, _, _ = load(composed("data=driving_counts", "likelihood=poisson"))
    some = of_rows(panel, panel.time > 1990)
    np.testing.assert_array_equal(some.offset, panel.offset[panel.time > 1990])


def test_fixed_effects_poisson_of_the_synthetic_counts():
    """One effect, and one a cohort and period, beside pyfixest's on 400 firms, 60 of them adopters."""
    settings = ("data=synthetic_counts", "data.size=small", "data.exposures={}", "likelihood=poisson")
    panel, _, _ = load(composed(*settings))
    for estimator, term in ((poisson_twfe, "mu"), (poisson_etwfe, "cell")):
        table = estimator(panel, {}, 0.95)
        theirs = table[(table["estimand"] == "att") & (table["scale"] == "log")].iloc[0]
        effects, _, rows = slopes(panel, term)
        assert effects @ rows / rows.sum() == pytest.approx(theirs["estimate"], abs=2e-4)


def two_by_two(counts):
    """A treated and an untreated unit, before and after; `counts` in that order."""
    return panel_of(
        np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2]), np.array([2, np.inf]), np.array(counts, dtype=float)
    )


def test_two_units_in_two_periods():
    estimate, variance, _ = slopes(two_by_two([20, 90, 40, 60]), "mu")
    assert np.exp(estimate) == pytest.approx([90 * 40 / (20 * 60)], rel=1e-6)
    assert MANY * variance.item() == pytest.approx(1 / 20 + 1 / 90 + 1 / 40 + 1 / 60, rel=1e-3)


def test_few_events_give_the_mean_of_the_posterior_and_not_its_mode():
    """Under flat priors four Gamma variables, whose logarithms have known moments."""
    counts = np.array([6, 15, 8, 12])
    estimate, variance, _ = slopes(two_by_two(counts), "mu", times=1)
    exact = np.array([-1, 1, 1, -1]) @ digamma(counts)
    assert estimate.item() == pytest.approx(exact, abs=0.01)
    assert abs(np.array([-1, 1, 1, -1]) @ np.log(counts) - exact) > 0.025
    assert variance.item() == pytest.approx(polygamma(1, counts).sum(), rel=0.12)


def test_the_offset_is_taken_out():
    panel = two_by_two([20, 90, 40, 60])
    twice = replace(panel, offset=np.array([1.0, 2.0, 1.0, 1.0]))
    assert slopes(twice, "mu")[0] == pytest.approx(slopes(panel, "mu")[0] - np.log(2), abs=1e-6)


@pytest.fixture(scope="module")
def drawn():
    panel = draw(world("counts", units=1500, adopters=[60, 60, 60, 60]), 3, 3)
    return panel, collapse(build_design(panel, row_shares(panel)[0], True)[0], FULL)


def test_the_disturbance_is_found_again(drawn):
    found, truth = drawn[1].nuisance, world("counts")
    assert found.settled
    assert found.rho == pytest.approx(truth.rho, abs=0.07)
    scale = truth.sd * np.exp(truth.spread**2 / 2 - truth.spread**2 + truth.spread**2 / 2)  # sqrt of the mean variance
    assert found.never * LOG_POINTS == pytest.approx(scale, rel=0.12)
    assert found.ever / found.never == pytest.approx(np.exp(truth.ever), rel=0.2)


def test_heights_are_the_levels_of_the_world(drawn):
    panel, collapsed = drawn
    levels = collapsed.levels
    level = np.log(np.bincount(panel.unit, panel.truth.mean) / np.bincount(panel.unit))
    some = levels.total > 0
    assert np.corrcoef(levels.height[some], level[some])[0, 1] > 0.9
    assert np.median(levels.height[~some]) < np.median(levels.height[some]) - 1
    traits = collapsed.regression.design.blocks["trait"]
    columns = collapsed.regression.matrix[:, traits.columns].toarray()[:, 0]
    of_unit = columns[panel.treated & (panel.event_time == 0)]
    assert np.corrcoef(of_unit, levels.height[panel.unit[panel.treated & (panel.event_time == 0)]])[0, 1] > 0.999


def test_units_without_events_say_nothing(drawn):
    panel, collapsed = drawn
    silent = np.flatnonzero(np.bincount(panel.unit, panel.outcome) == 0)
    assert len(silent) > 20
    assert not collapsed.levels.total[silent].any()
    adopters = np.intersect1d(silent, panel.unit[panel.treated])
    columns = collapsed.regression.design.blocks["unit"]
    own = [columns.start + columns.levels.index(panel.units[i]) for i in adopters]
    assert np.abs(collapsed.evidence.gram[own]).max() < 1e-9


def test_less_is_known_the_more_counts_are_disturbed(drawn):
    panel, collapsed = drawn
    plain = collapse(build_design(panel, row_shares(panel)[0], True)[0], PLAIN)
    mu = collapsed.regression.design.blocks["mu"].columns
    assert collapsed.evidence.gram[mu, mu].item() < 0.5 * plain.evidence.gram[mu, mu].item()


def test_one_variance_for_all():
    panel = draw(world("counts", spread=0.0, ever=0.0, rho=0.0, units=600), 1, 1)
    found = collapse(build_design(panel, {})[0], Errors("none", "common", events=True)).nuisance
    assert found.rho == 0
    assert found.never == found.ever
    assert (found.never * LOG_POINTS) ** 2 == pytest.approx(0.55**2, abs=0.12)  # between points of the grid
