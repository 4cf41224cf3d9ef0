"""Fixed-effects Poisson: published numbers, and counts of which there are none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest

from src.exposure import row_shares
from src.fit import load
from src.frequentist import COLUMNS
from src.generate import draw
from src.poisson import poisson_etwfe, poisson_twfe, poisson_twfe_cr3, poisson_twfe_exposures
from tests.test_command import composed
from tests.test_counts import two_by_two
from tests.test_generate import world
from tests.worlds import staggered


@pytest.fixture(scope="module")
def deaths():
    return load(composed("data=driving_counts", "likelihood=poisson"))[0]


def row(table, scale, estimand="att", level=None):
    mine = table[(table["scale"] == scale) & (table["estimand"] == estimand)]
    return mine.iloc[0] if level is None else mine[mine["level"] == level].iloc[0]


def test_published_numbers_of_seat_belt_laws(deaths):
    one = poisson_twfe(deaths, {}, 0.95)
    assert list(one.columns) == COLUMNS
    assert (row(one, "log").estimate, row(one, "log").se) == pytest.approx((-0.0933, 0.0347), abs=6e-5)
    cells = poisson_etwfe(deaths, {}, 0.95)
    assert (row(cells, "log").estimate, row(cells, "log").se) == pytest.approx((-0.1296, 0.0308), abs=6e-5)
    assert row(cells, "percent").estimate == pytest.approx(-13.24, abs=5e-3)
    assert row(poisson_etwfe(replace(deaths, offset=None), {}, 0.95), "percent").estimate == pytest.approx(
        -10.04, abs=5e-3
    )


def test_intervals_hold_the_estimate_and_grow_with_their_mass(deaths):
    narrow, wide = (row(poisson_etwfe(deaths, {}, prob), "percent") for prob in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def counted(seed=0, **changes):
    """A staggered panel of counts, about a third of them zero."""
    panel = staggered(units=80, seed=seed, **changes)
    rng = np.random.default_rng(seed)
    return replace(
        panel, outcome=rng.poisson(np.exp(0.5 * panel.outcome)).astype(float), weight=np.ones(len(panel.unit))
    )


def test_groups_and_contrasts_are_ratios_of_each_other():
    panel = counted()
    table = poisson_twfe(panel, {}, 0.95)
    name = next(iter(panel.groups))
    contrast = table[(table["estimand"] == "contrast") & (table["scale"] == "percent")].iloc[0]
    first, second = contrast.level.split(" - ")
    by = table[(table["estimand"] == "att_by") & (table["scale"] == "percent") & (table["group"] == contrast.group)]
    ratios = by.set_index("level")["estimate"] / 100 + 1
    assert contrast.estimate / 100 + 1 == pytest.approx(ratios[first] / ratios[second])
    assert contrast.group in panel.groups
    assert name


def test_units_without_events_change_nothing():
    panel = counted()
    silent = np.isin(panel.unit, np.unique(panel.unit)[-3:])
    some = replace(panel, outcome=np.where(silent, 0.0, panel.outcome))
    without = row(poisson_twfe(some, {}, 0.95), "log")
    keep = ~silent
    parts = {name: getattr(panel, name)[keep] for name in ("unit", "time", "weight", "covariates", "outcome")}
    assert row(poisson_twfe(replace(panel, **parts), {}, 0.95), "log").estimate == pytest.approx(
        without.estimate, abs=1e-6
    )


def test_a_cell_without_events_is_not_identified_and_the_others_are():
    panel = counted()
    cell = (panel.row_cohort == 5) & (panel.time == 6)
    table = poisson_etwfe(replace(panel, outcome=np.where(cell, 0.0, panel.outcome)), {}, 0.95)
    silent = row(table, "percent", "att_gt", "5@6")
    assert np.isnan(silent.estimate)
    assert "not identified" in silent.note
    assert np.isfinite(row(table, "percent", "att_gt", "5@7").estimate)
    assert np.isnan(row(table, "percent").estimate)


def test_units_without_events_before_adoption_tell_no_effect():
    panel = counted()
    late = np.isin(panel.unit, np.unique(panel.unit[panel.row_cohort == 7]))
    table = poisson_etwfe(replace(panel, outcome=np.where(late & ~panel.treated, 0.0, panel.outcome)), {}, 0.95)
    assert np.isnan(row(table, "percent", "att_cohort", "7").estimate)
    assert np.isfinite(row(table, "percent", "att_cohort", "5").estimate)


def test_two_units_in_two_periods():
    estimate = row(poisson_twfe(two_by_two([20, 90, 40, 60]), {}, 0.95), "percent").estimate
    assert estimate == pytest.approx(100 * (90 * 40 / (20 * 60) - 1))


@pytest.fixture(scope="module")
def exposed():
    panel = draw(world("counts_exposed", units=200, industries=6, districts=8, adopters=[10, 10, 10, 10]), 1, 2)
    shares, _ = row_shares(panel)
    return panel, shares, poisson_twfe_exposures(panel, shares, 0.95)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # inside pyfixest
def test_exposures_stand_beside_adoption(exposed):
    panel, shares, table = exposed
    treated = panel.treated * 1.0
    columns = {"D": treated} | shares | {f"D{name}": treated * share for name, share in shares.items()}
    covariates = dict(zip(panel.covariate_names, panel.covariates.T, strict=True))
    frame = pd.DataFrame({"y": panel.outcome, "unit": panel.unit, "time": panel.time} | columns | covariates)
    formula = f"y ~ {' + '.join([*columns, *covariates])} | unit + time"
    some = (frame.groupby("unit")["y"].transform("sum") > 0).to_numpy()
    fit = pf.fepois(formula, frame[some], vcov={"CRV1": "unit"})
    known = fit.coef()
    assert row(table, "log").estimate == pytest.approx(known["D"], abs=1e-5)
    assert row(table, "log").se == pytest.approx(fit.se()["D"], rel=1e-4)
    matrix = np.column_stack(list(columns.values()))[some]
    felt = matrix @ known[list(columns)]
    mean = np.asarray(fit.predict(type="response")) * np.exp(-felt)
    on = panel.treated[some]
    total = row(table, "percent", "total_treated")
    assert total.estimate == pytest.approx(100 * (mean[on] @ np.expm1(felt[on])) / mean[on].sum(), rel=1e-4)
    slope = table[(table["estimand"] == "spill_per_pp") & (table["scale"] == "log") & (table["group"] == "district")]
    wanted = {"control": known["district"], "difference": known["Ddistrict"]}
    wanted["treated"] = sum(wanted.values())
    for level, value in wanted.items():
        assert slope.set_index("level").loc[level, "estimate"] == pytest.approx(value / 100, abs=1e-7)


def test_total_is_direct_plus_what_others_do_in_percent(exposed):
    _, _, table = exposed
    parts = [row(table, "percent", name).estimate for name in ("direct", "spill_treated", "total_treated")]
    assert parts[0] + parts[1] == pytest.approx(parts[2])
    direct, att = (row(table, "percent", name) for name in ("direct", "att"))
    assert direct.estimate == pytest.approx(att.estimate)
    assert direct.se == pytest.approx(att.se)


def test_without_exposures_nothing_is_said_of_them():
    assert len(poisson_twfe_exposures(counted(), {}, 0.95)) == 0


def test_a_level_of_one_adopter_has_no_jackknife_and_the_others_do():
    panel = counted()
    first = panel.unit[panel.treated][0]
    factor = panel.groups["industry"]
    code = np.where(np.arange(len(factor.code)) == first, len(factor.levels), factor.code)
    alone = replace(panel, groups={"industry": replace(factor, code=code, levels=(*factor.levels, "alone"))})
    table = poisson_twfe_cr3(alone, {}, 0.95).query("scale == 'log' and estimand == 'att_by'").set_index("level")
    assert np.isfinite(table.loc["alone", "estimate"])
    assert np.isnan(table.loc["alone", "se"])
    assert "one unit alone" in table.loc["alone", "note"]
    assert np.isfinite(table.drop(index="alone")["se"]).all()


def test_exposures_that_go_together_are_not_told_apart(exposed):
    panel, shares, _ = exposed
    twice = {"one": shares["district"], "two": 2 * shares["district"]}
    mappings = dict.fromkeys(twice, panel.roster.mappings["district"])
    both = replace(panel, roster=replace(panel.roster, mappings=mappings))
    table = poisson_twfe_exposures(both, twice, 0.95)
    slopes = table[(table["estimand"] == "spill_per_pp") & (table["scale"] == "log")]
    assert slopes["estimate"].isna().all()
    assert slopes["note"].str.contains("collinear").all()


def test_no_event_while_treated_leaves_every_effect_of_adoption_untold(exposed):
    panel, shares, _ = exposed
    silent = replace(panel, outcome=np.where(panel.treated, 0.0, panel.outcome))
    table = poisson_twfe_exposures(silent, shares, 0.95)
    for name in ("att", "direct", "total_treated", "switching"):
        assert np.isnan(row(table, "percent", name).estimate)


def test_few_units_are_flagged():
    panel = counted()
    first = panel.unit[panel.treated][0]
    factor = panel.groups["industry"]
    code = np.where(np.arange(len(factor.code)) == first, len(factor.levels), factor.code)
    alone = replace(panel, groups={"industry": replace(factor, code=code, levels=(*factor.levels, "alone"))})
    table = poisson_twfe(alone, {}, 0.95)
    assert "rests on 1 unit and is unreliable" in row(table, "percent", "att_by", "alone").note
    assert "unreliable" not in row(table, "percent").note
