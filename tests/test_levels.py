"""Levels of the share of a part: by an estimated law, so that expected parts are those that are counted."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from src import rates
from src.chance import Probabilities, of_kind
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from src.levels import NORMAL, law_of, laws
from src.system import collapse_counts
from tests.test_generate import world

EVENTS = Errors("ar1", "unit", (), events=True)
MANY = {"units": 400, "periods": 8, "starts": [4, 6], "adopters": [60, 60], "industries": 4, "districts": 8}


def drawn(share, events, seed):
    """A panel whose units have few events, and what adoption does to log odds: .8."""
    base, rng = draw(world("parted", **MANY, covariates=0), 1, seed), np.random.default_rng(seed)
    odds = logit(share) + rng.normal(0, 0.6, 400)[base.unit] + rng.normal(0, 0.4, len(base.unit)) + 0.8 * base.treated
    whole = rng.poisson(events, len(odds)).astype(float)
    part = rng.binomial(whole.astype(int), expit(odds)).astype(float)
    return replace(base, outcome=whole, others={"y1": part})


def of_part(panel):
    return collapse_counts(panel, row_shares(panel)[0], EVENTS, "y1", False)[1].collapsed


def test_law_of_shares_is_the_one_they_are_drawn_from():
    rng = np.random.default_rng(0)
    n = rng.poisson(6, 40_000)
    p, c = law_of(rng.binomial(n, rng.beta(0.8, 3.2, len(n))), n)
    assert p == pytest.approx(0.2, abs=0.005)
    assert c == pytest.approx(4, rel=0.05)
    p, c = law_of(rng.binomial(n, 0.3), n)  # no two units differ
    assert p == pytest.approx(0.3, abs=0.005)
    assert c > 200


def test_laws_of_adopters_and_others_are_apart_where_there_are_enough_of_both():
    rng = np.random.default_rng(1)
    n, ever = np.full(2000, 20), np.arange(2000) < 400
    k = rng.binomial(n, np.where(ever, 0.6, 0.2))
    a, b = laws(k, n, ever)
    np.testing.assert_allclose((a / (a + b))[[0, -1]], [0.6, 0.2], atol=0.02)
    few = np.arange(2000) < 20
    a, b = laws(k, n, few)
    assert np.ptp(a / (a + b)) == 0


@pytest.mark.parametrize(("share", "events"), [(0.1, 2.0), (0.02, 8.0), (0.4, 1.0)])
def test_expected_parts_are_those_that_are_counted(share, events):
    """A share of every unit that is as likely as another would make them half as many again in the first world."""
    counted, expected = np.zeros(2), np.zeros(2)
    for seed in range(4):
        panel = drawn(share, events, seed)
        collapsed = of_part(panel)
        regression, levels = collapsed.regression, collapsed.levels
        known = np.zeros((200, regression.design.size))
        known[:, regression.design.columns(("mu",))] = 0.8
        level, omega = rates.unit_levels(regression, levels, known, np.random.default_rng(0))
        felt = (regression.matrix @ known.T).T + level[:, panel.unit]
        part = panel.outcome * Probabilities.of(of_kind, levels.omega).at(felt, omega[:, panel.unit])
        for k, mine in enumerate((panel.treated, ~panel.treated)):
            counted[k] += panel.others["y1"][mine].sum()
            expected[k] += part[:, mine].sum(axis=1).mean()
    np.testing.assert_allclose(expected, counted, rtol=0.08)


def test_units_whose_events_are_all_of_the_part_or_none_have_the_law_of_their_likes():
    panel = drawn(0.3, 1.0, 5)
    levels = of_part(panel).levels
    k, n = (np.bincount(panel.unit, values) for values in (panel.others["y1"], panel.outcome))
    a, b = laws(k, n, np.isfinite(panel.cohort))
    kappa = np.sqrt(1 + NORMAL * levels.share @ levels.omega)
    for some in ((k == 0) & (n > 2), (k == n) & (n > 2)):
        unit = int(np.flatnonzero(some)[0])
        values = np.random.default_rng(0).beta(k[unit] + a[unit], n[unit] - k[unit] + b[unit], 400_000)
        values = kappa[unit] * logit(values)
        assert levels.pull[unit] / levels.total[unit] == pytest.approx(values.mean(), abs=0.01)
        assert 1 / levels.total[unit] == pytest.approx(values.var(), rel=0.02)
        mine = panel.unit == unit
        np.testing.assert_allclose(levels.weight[mine] / levels.total[unit], panel.outcome[mine] / n[unit])
    np.testing.assert_allclose(levels.share.sum(axis=1), 1)


def test_a_normal_is_nearly_a_logistic_function():
    for x, variance in ((-2.0, 0.3), (0.7, 1.5)):
        exact = of_kind(np.array(x), np.array(variance))
        assert expit(x / np.sqrt(1 + NORMAL * variance)) == pytest.approx(exact, abs=0.01)
