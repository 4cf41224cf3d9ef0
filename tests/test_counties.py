"""Worlds of counties: truths that are what they say, and estimators that are regressions on all rows."""

from dataclasses import replace

import numpy as np
import pytest

from src import counties
from src.command import CONF
from src.config import CountiesConfig
from src.frequentist import regress
from src.panel import PanelError
from tests.test_command import composed_study
from tests.test_ties import haversine

NAMES = [path.stem for path in sorted((CONF / "generator").glob("*.yaml")) if "counties" in path.read_text()]
SMALL = {"periods": 4, "start": 3}


def world(name: str = "within40", **changes) -> CountiesConfig:
    return replace(composed_study(f"generator={name}").generator, **SMALL, **changes)


@pytest.fixture(scope="module")
def panel():
    return counties.draw(world(), 3, 4)


@pytest.mark.parametrize("name", NAMES)
def test_outcomes_with_effects_less_outcomes_without_are_the_truth(name):
    mine = world(name)
    assert mine.name == name
    panel, without = counties.draw(mine, 3, 4), counties.draw(replace(mine, effect=0.0, spill=0.0), 3, 4)
    expected = np.where(panel.treated, 2.0, panel.truth.spill)
    np.testing.assert_allclose(panel.outcome - without.outcome, expected, atol=1e-12)
    assert np.isfinite(panel.cohort).sum() == 155
    last = panel.time == panel.time.max()
    assert np.where(panel.treated, 0.0, panel.truth.spill)[last].mean() == pytest.approx(0.25)
    assert not panel.truth.spill[panel.time < panel.cohort.min()].any()


def test_miles_are_great_circles():
    latitude, longitude = counties.centroids()
    for i, j in ((0, 1), (5, 900), (3000, 17)):
        km = haversine((latitude[i], longitude[i]), (latitude[j], longitude[j]))
        assert counties.miles()[i, j] == pytest.approx(km / 1.609344)


@pytest.mark.parametrize(("name", "law"), [("within40_sum", sum), ("fading", max), ("hump", max)])
def test_spillover_is_what_a_loop_over_adopters_finds(name, law):
    mine = world(name)
    adopters = np.array([10, 700, 701, 702, 2000])
    ours = counties.spillover(mine, adopters)
    near, far = mine.within
    felt = []
    for i in range(len(ours)):
        d = [counties.miles()[i, j] for j in adopters if j != i]
        felt.append(law(np.exp(-mine.decay * x) if near < x <= far else 0.0 for x in d))
    felt = np.array(felt)
    np.testing.assert_allclose(ours, 0.25 * felt / np.where(np.isin(np.arange(len(ours)), adopters), 0, felt).mean())


def test_regressions_of_changes_are_two_way_fixed_effects(panel):
    spill = np.where(panel.treated, 0.0, panel.truth.spill)
    fit = regress(panel, {"D": panel.treated, "S": spill})
    table = counties.oracle(panel, {}, 0.95).set_index("estimand")
    assert table.loc["att", "estimate"] == pytest.approx(fit.coefficients[0], rel=1e-6)
    assert table.loc["att", "se"] == pytest.approx(np.sqrt(fit.covariance[0, 0]), rel=0.01)
    fitted = spill * fit.coefficients[1]
    assert table.loc["explained", "estimate"] == pytest.approx(counties.explained(fitted, panel), rel=1e-6)


def test_rings_count_adopters(panel):
    after = ~panel.treated & (panel.time == panel.time.max())
    position, adopters = panel.units.astype(int), np.flatnonzero(np.isfinite(panel.cohort))
    apart = counties.to_adopters(panel)
    for unit in panel.unit[after][:40]:
        d = counties.miles()[position[unit], position[adopters]]
        np.testing.assert_array_equal(apart[unit], np.where(adopters == unit, np.inf, d))
    for estimator in (counties.near_rings, counties.additive_rings):
        table = estimator(panel, {}, 0.95).set_index("estimand")
        assert 0 < table.loc["att", "se"] < 2
        assert table.loc["explained", "estimate"] < 1


def test_explained_is_one_where_nothing_is_missed_and_zero_where_nothing_is_said(panel):
    assert counties.explained(panel.truth.spill, panel) == 1.0
    assert counties.explained(np.zeros(len(panel.unit)), panel) == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"start": 1}, "a period from 2 to 4"), ({"start": 5}, "2 to 4"), ({"within": [40.0]}, "two distances in miles")],
)
def test_impossible_worlds_are_refused(changes, words):
    with pytest.raises(PanelError, match=words):
        counties.draw(replace(world(), **changes), 1, 1)
