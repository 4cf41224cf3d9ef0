"""Estimators for staggered adoption: published numbers, one another, and least squares."""

from dataclasses import replace

import numpy as np
import pytest

from src import staggered as staggered_estimators
from src.clusters import classifications, twfe_clusters
from src.fit import load
from src.frequentist import COLUMNS, twfe
from src.panel import of_rows
from src.staggered import bjs, cs, cs_never, did2s, sunab
from tests.test_command import composed
from tests.worlds import panel_of, staggered


@pytest.fixture(scope="module")
def real():
    return {name: load(composed(f"data={name}"))[0] for name in ("mpdta", "fracking", "castle")}


def of(table, estimand="att", level=None, group=None):
    mine = table[(table["estimand"] == estimand) & (table["scale"] == "outcome")]
    mine = mine if level is None else mine[mine["level"] == level]
    mine = mine if group is None else mine[mine["group"] == group]
    return mine.iloc[0]


def test_callaway_and_santanna_of_mpdta(real):
    """ATT(g, t) and standard errors of R's did, from moderndid's documentation."""
    table = cs_never(real["mpdta"], {}, 0.95)
    published = {
        **{"2004@2004": (-0.0105, 0.0233), "2004@2005": (-0.0704, 0.0310), "2004@2006": (-0.1373, 0.0364)},
        **{"2004@2007": (-0.1008, 0.0344), "2006@2006": (-0.0046, 0.0178), "2006@2007": (-0.0412, 0.0202)},
        **{"2007@2007": (-0.0261, 0.0167)},
    }
    for level, (estimate, se) in published.items():
        row = of(table, "att_gt", level)
        assert (round(row.estimate, 4), round(row.se, 4)) == (estimate, se)
    assert (round(of(table).estimate, 4), round(of(table).se, 4)) == (-0.0400, 0.0120)
    assert list(table.columns) == COLUMNS


@pytest.mark.parametrize(
    ("name", "estimator", "expected"),
    [  # computed with diff-diff and moderndid; castle: R's did2s manual
        ("fracking", cs_never, (0.0483, 0.0114)),
        ("fracking", bjs, (0.0505, 0.0169)),
        ("castle", did2s, (0.0751, 0.0354)),
        ("mpdta", bjs, (-0.0477, 0.0132)),
    ],
)
def test_real_panels(real, name, estimator, expected):
    row = of(estimator(real[name], {}, 0.95))
    assert (round(row.estimate, 4), round(row.se, 4)) == expected


def test_sun_and_abraham_are_callaway_and_santanna_with_the_never_treated(real):
    one, two = sunab(real["mpdta"], {}, 0.95), cs_never(real["mpdta"], {}, 0.95)
    for estimand, level in (("att", None), ("att_event", "1"), ("att_cohort", "2006"), ("lead", "-2")):
        assert of(one, estimand, level).estimate == pytest.approx(of(two, estimand, level).estimate, abs=1e-9)
    assert {"-4", "-3", "-2"} == set(one[one["estimand"] == "lead"]["level"])


def test_uniform_bands_hold_the_pointwise_ones(real):
    table = cs(real["mpdta"], {}, 0.95)
    band, point = (of(table[table["estimator"] == name], "att_event", "1") for name in ("cs_uniform", "cs"))
    assert band.estimate == point.estimate
    assert band.low < point.low < point.high < band.high
    assert "standard errors" in band.note


def test_imputation_and_two_stages_agree_where_rows_weigh_alike(real):
    one, two = (f(real["fracking"], {}, 0.95) for f in (bjs, did2s))
    assert of(one).estimate == pytest.approx(of(two).estimate, abs=1e-9)
    by = {row.level: row.estimate for row in one[one["estimand"] == "att_by"].itertuples() if row.scale == "outcome"}
    assert len(by) == 12
    assert np.isfinite(by["201"])


def test_a_split_is_the_estimate_without_adopters_of_other_levels(real):
    panel = real["fracking"]
    label = panel.row_labels(panel.groups["basin"])
    keep = ~np.isfinite(panel.row_cohort) | (label == "204")
    code = np.unique(panel.unit[keep], return_inverse=True)[1]
    alone = replace(
        panel, unit=code, time=panel.time[keep], outcome=panel.outcome[keep], weight=panel.weight[keep],
        covariates=panel.covariates[keep], cohort=panel.cohort[np.unique(panel.unit[keep])], groups={},
        units=panel.units[np.unique(panel.unit[keep])], predictors={},
    )  # fmt: skip
    for estimator in (cs_never, sunab):
        split = of(estimator(panel, {}, 0.95), "att_by", "204", "basin")
        assert split.estimate == pytest.approx(of(estimator(alone, {}, 0.95)).estimate, abs=1e-9)


@pytest.mark.parametrize("kind", ["balanced", "random gaps", "weights that change", "adopters who leave early"])
def test_splits_from_the_first_adoption_on_are_those_of_all_periods(kind, monkeypatch):
    world = staggered(units=150, seed=4)
    rng = np.random.default_rng(5)
    if kind == "weights that change":
        world = replace(world, weight=np.exp(rng.normal(size=len(world.unit))))
    if kind == "random gaps":
        world = of_rows(world, rng.random(len(world.unit)) < 0.9)
    if kind == "adopters who leave early":
        first, last = np.nanmin(world.cohort), np.max(world.cohort[np.isfinite(world.cohort)])
        leaves = (world.row_cohort == last) & (world.unit % 3 == 0)
        world = of_rows(world, ~leaves | (world.time < first - 1))
    found = cs(world, {}, 0.95)
    monkeypatch.setattr(staggered_estimators, "from_adoption", lambda panel: panel)
    np.testing.assert_allclose(*(t[["estimate", "se"]].to_numpy() for t in (found, cs(world, {}, 0.95))), rtol=1e-9)


def test_levels_of_few_adopters_are_not_run():
    panel = staggered(units=60)
    rows = sunab(panel, {}, 0.95).query("estimand == 'att_by' and scale == 'outcome'")
    few = rows[rows["estimate"].isna()]
    assert len(few) < len(rows)
    assert few["note"].str.contains("fewer than 5 adopters").all()


def test_clusters_change_the_error_and_not_the_estimate(real):
    table = twfe_clusters(real["fracking"], {}, 0.95)
    row, usual = of(table), of(twfe(real["fracking"], {}, 0.95))
    assert row.estimator == "twfe_by_basin"
    assert row.estimate == pytest.approx(usual.estimate)
    # pyfixest: feols("y ~ D | unit + time", vcov={"CRV1": "basin"})
    assert row.se == pytest.approx(0.032195, rel=2e-3)
    assert "12 clusters; wild cluster bootstrap p = 0." in row.note


def test_two_ways_and_the_same_classification_once():
    panel = staggered(units=80)
    assert list(classifications(panel)) == ["industry", *(n for n in classifications(panel) if n != "industry")]
    names = set(twfe_clusters(panel, {}, 0.95)["estimator"])
    assert any("+" in name for name in names) == (len(classifications(panel)) > 1)


def everybody_adopts():
    """Two groups of two cohorts each, no unit that never adopts, and a constant effect of 2."""
    unit = np.repeat(np.arange(40), 8)
    time = np.tile(np.arange(8), 40)
    cohort = np.repeat([3.0, 5.0, 4.0, 8.0], 10)
    rng = np.random.default_rng(0)
    y = 2.0 * (time >= cohort[unit]) + 0.3 * time + rng.normal(size=40)[unit] + 0.01 * rng.normal(size=320)
    return panel_of(unit, time, cohort, y, groups={"half": np.repeat([0, 1], 20)})


def test_a_level_in_which_everybody_adopts_has_no_split_of_sunab():
    rows = sunab(everybody_adopts(), {}, 0.95).query("estimand == 'att_by' and scale == 'outcome'")
    assert rows["estimate"].isna().all()
    assert rows["note"].str.contains("no unit never adopts").all()
    assert "the last cohort stands in" in of(cs_never(everybody_adopts(), {}, 0.95)).note


def test_fixed_effects_by_period_that_are_left_out_are_said():
    panel = staggered(units=60)
    fixed = replace(panel, fixed={"industry": panel.groups["industry"]})
    for estimator in (cs, bjs):
        assert "fixed effects by period are left out" in of(estimator(fixed, {}, 0.95)).note
        assert "fixed effects" not in of(estimator(panel, {}, 0.95)).note
