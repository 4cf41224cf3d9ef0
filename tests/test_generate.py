"""Worlds whose truth is what they say it is."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from src.chance import any_event
from src.command import CONF
from src.config import GeneratorConfig
from src.exposure import row_shares
from src.generate import FIRST, by_industry, disturbances, draw
from src.panel import PanelError
from tests.test_command import composed_study

WORLDS = sorted((CONF / "generator").glob("*.yaml"))
HERE = [path.stem for path in WORLDS if "counties" not in path.read_text()]  # the others are of test_counties
COUNTS = [path.stem for path in WORLDS if "counts" in path.read_text() or "parted" in path.read_text()]
NAMES = [name for name in HERE if name not in COUNTS]
NOTHING = {
    "effect": 0.0, "ownership_gap": 0.0, "industry_law": "normal", "industry_sd": 0.0, "unit_sd": 0.0,
    "cohort_effects": [], "jump": 0.0, "spill_district": 0.0, "spill_industry": 0.0,
}  # fmt: skip


@cache
def preset(name: str) -> GeneratorConfig:
    return composed_study(f"generator={name}").generator


def world(name: str = "realistic", **changes) -> GeneratorConfig:
    return replace(preset(name), **changes)


@pytest.mark.parametrize("name", NAMES)
def test_outcomes_with_effects_less_outcomes_without_are_the_truth(name):
    mine = world(name)
    assert mine.name == name
    panel, without = draw(mine, 3, 4), draw(replace(mine, **NOTHING), 3, 4)
    shares, _ = row_shares(panel)
    truth = panel.truth
    received = np.zeros(len(panel.unit))
    for exposure, share in shares.items():
        received += share * np.where(panel.treated, truth.slope_treated[exposure], truth.slope_control[exposure])
    np.testing.assert_allclose(panel.outcome - without.outcome, truth.tau + received, atol=1e-12)
    assert not truth.tau[~panel.treated].any()
    assert list(shares) == (["district", "industry"] if mine.exposed else [])
    assert list(panel.groups) == (["industry", "ownership"] if mine.grouped else [])


@pytest.mark.parametrize("name", COUNTS)
def test_counts_average_to_what_is_true_of_them(name):
    mine = world(name, units=4000, adopters=[400] * len(world(name).starts), sd=0.3, spread=0.2, unit_effect_sd=0.5)
    panel = draw(mine, 3, 4)
    truth = panel.truth
    assert (panel.outcome == np.round(panel.outcome)).all()
    others = sum(share * truth.slope_control[exposure] for exposure, share in row_shares(panel)[0].items())
    expected = truth.mean * np.exp(truth.tau + others)
    chance = any_event(np.log(expected) - truth.variance / 2, truth.variance)
    for rows in (panel.treated, ~panel.treated):
        assert panel.outcome[rows].mean() == pytest.approx(expected[rows].mean(), rel=0.06)
        assert (panel.outcome[rows] > 0).mean() == pytest.approx(chance[rows].mean(), abs=0.02)


@pytest.mark.parametrize("name", HERE)
def test_every_unit_is_seen_and_every_adopter_before_adoption(name):
    mine = world(name)
    for design in range(6):
        panel = draw(mine, design, 0)
        assert len(panel.roster.cohort) == len(panel.units) == mine.units
        starts, adopters = np.unique(panel.cohort[np.isfinite(panel.cohort)], return_counts=True)
        assert starts.tolist() == [FIRST + start - 1 for start in mine.starts]
        assert adopters.tolist() == mine.adopters
        seen_before = np.unique(panel.unit[(panel.time < panel.row_cohort) & np.isfinite(panel.row_cohort)])
        assert len(seen_before) == sum(mine.adopters)


def test_many_gaps_leave_nobody_out():
    panel = draw(world(missing=0.9, late_entry=0.9, early_exit=0.9), 0, 0)
    assert len(panel.units) == 1000
    adopters = np.flatnonzero(np.isfinite(panel.cohort))
    assert set(adopters) <= set(panel.unit[panel.time < panel.row_cohort])


def test_a_design_repeats_by_its_seed_and_outcomes_by_theirs():
    mine = world()
    first, same, other = draw(mine, 1, 1), draw(mine, 1, 2), draw(mine, 2, 1)
    for field in ("unit", "time", "cohort", "covariates"):
        np.testing.assert_array_equal(getattr(first, field), getattr(same, field))
    for name, group in first.groups.items():
        np.testing.assert_array_equal(group.code, same.groups[name].code)
    assert np.corrcoef(first.outcome, same.outcome)[0, 1] < 0.5
    assert not np.array_equal(first.truth.tau, same.truth.tau)
    assert not np.array_equal(first.cohort, other.cohort)
    assert draw(mine, 1, 1).sha256 == first.sha256
    assert len({first.sha256, same.sha256, other.sha256}) == 3


def test_a_world_without_effects_has_none():
    truth = draw(world("no_effect"), 0, 0).truth
    assert not truth.tau.any()
    assert not any([*truth.slope_control.values(), *truth.slope_treated.values()])


def test_partially_homogeneous_effects():
    panel = draw(world("partial_homogeneity"), 0, 0)
    found = [set(panel.truth.tau[panel.treated & (panel.row_cohort == FIRST + start - 1)]) for start in (3, 5, 7)]
    assert found == [{2.0}, {2.0}, {4.0}]


def test_fused_effects_jump_rarely_by_two():
    steps = []
    for seed in range(20):
        panel = draw(world("fused"), 0, seed)
        for cohort in np.unique(panel.cohort[np.isfinite(panel.cohort)]):
            mine = panel.treated & (panel.row_cohort == cohort)
            path = [set(panel.truth.tau[mine & (panel.time == t)]) for t in range(int(cohort), FIRST + 30)]
            assert all(len(effects) == 1 for effects in path)  # one effect a cell
            steps += list(np.diff([effects.pop() for effects in path]))
    assert set(np.abs(steps)) == {0.0, 2.0}
    assert stats.binomtest(int(np.count_nonzero(steps)), len(steps), 0.1).pvalue > 0.01
    assert stats.binomtest(int(np.sum(np.array(steps) > 0)), int(np.count_nonzero(steps)), 0.6).pvalue > 0.01


def test_effects_by_industry():
    rng = np.random.default_rng(0)
    clustered = world("clustered")
    assert set(np.round(clustered.effect + by_industry(clustered, rng), 12)) == {0.0, 0.8}
    flipped = world("sign_flip")
    effects = np.round(flipped.effect + by_industry(flipped, rng), 12)
    assert set(effects) == {0.4, -0.4}
    assert (effects < 0).sum() == 7
    assert np.flatnonzero(by_industry(world("one_industry"), rng)).tolist() == [2]
    assert np.std(by_industry(world(industries=4000), rng)) == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize(("name", "lags"), [("realistic", (0.6, 0.36)), ("half_white", (0.45, 0.405))])
def test_errors_have_unit_variance_and_their_serial_correlation(name, lags):
    errors = disturbances(world(name), 40_000, np.random.default_rng(0))
    np.testing.assert_allclose(errors.std(axis=0), 1, atol=0.03)
    for lag, wanted in enumerate(lags, start=1):
        assert np.mean(errors[:, lag:] * errors[:, :-lag]) == pytest.approx(wanted, abs=0.02)


def test_other_errors():
    rng = np.random.default_rng(0)
    walk = disturbances(world("random_walk"), 40_000, rng)
    np.testing.assert_allclose(np.diff(walk, axis=1).std(axis=0), 0.4, atol=0.01)
    heavy = disturbances(world("heavy_tails", tails=5.0), 40_000, rng)
    np.testing.assert_allclose(heavy.std(axis=0), 1, atol=0.05)
    assert stats.kurtosis(heavy[:, 0]) > 2


@pytest.mark.parametrize(("name", "sign"), [("scales_up", 1), ("scales_down", -1)])
def test_effects_that_go_with_the_scale_of_errors(name, sign):
    plain = world(name, industry_shock=0, district_shock=0, covariates=0, ownership_gap=0, industry_sd=0)
    many = replace(plain, units=4000, adopters=[500] * 4, missing=0, late_entry=0, early_exit=0, period_sd=0)
    panel, without = draw(many, 0, 0), draw(replace(many, **NOTHING), 0, 0)
    adopters = np.flatnonzero(np.isfinite(panel.cohort))
    last = panel.time == panel.time.max()
    effect = panel.truth.tau[last][adopters]
    spread = np.array([without.outcome[panel.unit == i].std() for i in adopters])
    assert sign * stats.spearmanr(effect, spread).statistic > 0.4


def test_effects_that_go_with_the_size_of_units():
    plain = world("counts_rising", covariates=0, ownership_gap=0, industry_sd=0)
    many = replace(plain, units=4000, adopters=[500] * 4, missing=0, late_entry=0, early_exit=0, period_sd=0)
    panel = draw(many, 0, 0)
    last = (panel.time == panel.time.max()) & np.isfinite(panel.row_cohort)
    log_mean = np.log(panel.truth.mean[last]) - panel.truth.variance[last] / 2
    assert np.corrcoef(panel.truth.tau[last], log_mean)[0, 1] == pytest.approx(0.7, abs=0.05)
    assert panel.truth.tau[last].std() == pytest.approx(0.3, rel=0.05)


def test_units_with_larger_errors_and_a_common_average_scale():
    many = world(units=20_000, missing=0, late_entry=0, early_exit=0, industries=2, districts=2, ever=0, **NOTHING)
    quiet = replace(many, industry_shock=0, district_shock=0, covariates=0, period_sd=0, drift=0, unit_effect_sd=0)
    panel = draw(quiet, 0, 0)
    assert panel.outcome.std() == pytest.approx(0.55, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"starts": [5, 6]}, "equally long"),
        ({"starts": [1, 5, 6, 7]}, "from 2 to 12"),
        ({"starts": [5, 6, 7, 13]}, "from 2 to 12"),
        ({"starts": [5, 5, 6, 7]}, "different periods"),
        ({"units": 112, "districts": 10}, "leave some of the 112 units untreated"),
        ({"adopters": [0, 1, 1, 1]}, "at least 1 adopter"),
        ({"units": 79, "adopters": [1, 1, 1, 1]}, "give at least 80"),
        ({"cohort_effects": [1.0]}, "cohort_effects"),
        ({"ramp": []}, "ramp is empty"),
        ({"on_scale": 0.8, "on_size": -0.8}, "sum to 1 at most"),
        ({"tails": 2.0}, "more than 2 degrees of freedom"),
    ],
)
def test_worlds_that_cannot_be_are_refused(changes, words):
    with pytest.raises(PanelError, match=words):
        draw(world(**changes), 0, 0)


def drawn(**changes):
    return draw(GeneratorConfig(name="w", **changes), 1, 2)


def test_mediators_move_the_outcome_by_their_slopes_and_nothing_else():
    plain = drawn()
    panel = drawn(mediated=[0.3, -0.25], on_mediators=[0.3, -0.2])
    others = {name: values - panel.truth.others[name].tau for name, values in panel.others.items()}
    np.testing.assert_allclose(panel.outcome - plain.outcome, 0.3 * others["m0"] - 0.25 * others["m1"], atol=1e-12)
    np.testing.assert_array_equal(panel.truth.tau, plain.truth.tau)
    assert panel.truth.through == {"m0": 0.3, "m1": -0.25}
    for name, effect in (("m0", 0.3), ("m1", -0.2)):
        tau = panel.truth.others[name].tau
        assert not tau[~panel.treated].any()
        assert abs(tau[panel.treated].mean() - effect) < 0.25
    confounded = drawn(mediated=[0.3], on_mediators=[0.3], confounding=0.6)
    noise = confounded.others["m0"] - confounded.truth.others["m0"].tau
    np.testing.assert_allclose(confounded.outcome - plain.outcome, (0.3 + 0.75) * noise, atol=1e-12)


@pytest.mark.parametrize(("alike", "expected"), [(None, 0.8), (0.0, 0.0)])
def test_further_outcomes_share_what_they_are_told_to(alike, expected):
    panel = drawn(beside=[0.6], errors_alike=alike, covariates=0, period_sd=0.0, drift=0.0, effect=0.0, unit_sd=0.0)
    never = ~np.isfinite(panel.row_cohort)
    unit = panel.unit[never]

    def within(values):
        return values - (np.bincount(unit, values, len(panel.units)) / np.maximum(np.bincount(unit), 1))[unit]

    one, two = within(panel.outcome[never]), within(panel.others["y1"][never])
    assert np.corrcoef(one, two)[0, 1] == pytest.approx(expected, abs=0.08)
    assert panel.truth.others["y1"].slope_control == panel.truth.slope_control


@pytest.mark.parametrize("changes", [{"mediated": [0.3]}, {"on_mediators": [0.3]}, {"events": True, "beside": [0.1]}])
def test_worlds_of_several_outcomes_that_cannot_be_are_refused(changes):
    with pytest.raises(PanelError, match=r"generator\."):
        drawn(**changes)
