"""Estimands are what they are called: independent routes, identities, identification."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from src import average, estimand, tally
from src.collapse import collapse
from src.design import build_design
from src.exposure import row_shares
from src.panel import Factor, Truth
from tests.worlds import panel_of, staggered


@pytest.fixture(scope="module")
def world():
    """A panel, random coefficients, and the draws of every estimand under them."""
    panel = staggered(units=90, seed=11)
    weight = np.random.default_rng(2).uniform(0.5, 2, len(panel.unit))
    panel = replace(panel, weight=weight / weight.mean())
    collapsed = collapse(build_design(panel, row_shares(panel)[0])[0])
    design = collapsed.regression.design
    names = tuple(name for name in design.blocks if name not in ("time", "covariate"))
    values = np.random.default_rng(3).normal(size=(2, 50, len(design.labels(names))))
    theta = xr.DataArray(values, dims=("chain", "draw", "column"), coords={"column": design.labels(names)})
    found = estimand.averages(collapsed.regression, collapsed.evidence, names)
    draws = estimand.draw_estimands(theta, design.all_labels, found)
    keyed = {(a.estimand, a.group, a.level): draws[..., k] for k, a in enumerate(found)}
    return collapsed.regression, theta, keyed, found


def predict(regression, theta, own, scale):
    """Expected outcome less units, periods and covariates, under adoption `own` and exposures times `scale`.

    g-computation from the labelled coefficients, row by row: the independent route.
    """
    panel, label = regression.panel, theta["column"].to_numpy()
    value = {name: theta.to_numpy()[..., k] for k, name in enumerate(label)}
    rows = []
    for r in range(len(panel.unit)):
        share = regression.shares[r] * scale
        total = np.zeros(theta.shape[:2])
        for k, name in enumerate(regression.exposures):
            total = total + value[f"exposure[{name}]"] * share[k] / regression.exposure_sd[k]
        if own[r]:
            g, t, e = int(panel.row_cohort[r]), int(panel.time[r]), int(panel.event_time[r])
            industry, owner = (f.levels[f.code[panel.unit[r]]] for f in panel.groups.values())
            terms = ["mu", f"path[{e}]", f"cohort[{g}]", f"cell[{g}@{t}]", f"industry[{industry}]"]
            terms += [
                f"ownership[{owner}]",
                f"industry:ownership[{industry}:{owner}]",
                f"group_cell[{industry}:{owner}]",
            ]
            terms += [f"industry_late[{industry}]", f"ownership_late[{owner}]"] if e >= 1 else []
            total = total + sum(value[term] for term in terms)
            for k, name in enumerate(regression.exposures):
                moved = share[k] - regression.exposure_centre[k]
                total = total + value[f"difference[{name}]"] * moved / regression.exposure_sd[k]
        rows.append(total)
    return np.stack(rows, axis=-1)


def test_every_estimand_equals_the_difference_of_two_predictions(world):
    regression, theta, keyed, _ = world
    panel = regression.panel
    d = panel.treated
    nobody = np.zeros(len(d), dtype=bool)

    def mean(values, rows):
        return np.average(values[..., rows], axis=-1, weights=panel.weight[rows])

    own_zero = predict(regression, theta, d, 0.0)
    none_zero = predict(regression, theta, nobody, 0.0)
    own_full = predict(regression, theta, d, 1.0)
    none_full = predict(regression, theta, nobody, 1.0)
    exposed = ~d & regression.shares.any(axis=1)
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(keyed["att", "", ""], mean(own_zero - none_zero, d), **close)
    np.testing.assert_allclose(keyed["direct", "", ""], mean(own_zero - none_zero, d), **close)
    np.testing.assert_allclose(keyed["total_treated", "", ""], mean(own_full - none_zero, d), **close)
    np.testing.assert_allclose(keyed["switching", "", ""], mean(own_full - none_full, d), **close)
    np.testing.assert_allclose(keyed["spill_treated", "", ""], mean(own_full - own_zero, d), **close)
    np.testing.assert_allclose(keyed["spill_control", "", ""], mean(none_full - none_zero, exposed), **close)
    everywhere = np.ones(len(d), dtype=bool)
    np.testing.assert_allclose(keyed["overall", "", ""], mean(own_full - none_zero, everywhere), **close)
    subset = d & (panel.event_time == 2)
    np.testing.assert_allclose(keyed["att_event", "", "2"], mean(own_zero - none_zero, subset), **close)
    subset = d & (panel.row_cohort == 3) & (panel.time == 6)
    np.testing.assert_allclose(keyed["att_gt", "", "3@6"], mean(own_zero - none_zero, subset), **close)
    factor = panel.groups["industry"]
    subset = d & (np.array(factor.levels)[factor.code][panel.unit] == "C2")
    np.testing.assert_allclose(keyed["att_by", "industry", "C2"], mean(own_zero - none_zero, subset), **close)


def test_total_is_direct_plus_spillover_in_every_draw(world):
    keyed = world[2]
    total = keyed["direct", "", ""] + keyed["spill_treated", "", ""]
    np.testing.assert_allclose(keyed["total_treated", "", ""], total, atol=1e-12)


def test_contrast_is_the_difference_of_two_levels_in_alphabetical_order(world):
    keyed = world[2]
    gap = keyed["att_by", "ownership", "0"] - keyed["att_by", "ownership", "1"]
    np.testing.assert_allclose(keyed["contrast", "ownership", "0 - 1"], gap, atol=1e-12)


def test_slope_per_percentage_point_is_a_hundredth_of_the_slope_per_unit_share(world):
    regression, theta, keyed, _ = world
    for k, name in enumerate(regression.exposures):
        control = theta.sel(column=f"exposure[{name}]").to_numpy() / regression.exposure_sd[k]
        extra = theta.sel(column=f"difference[{name}]").to_numpy() / regression.exposure_sd[k]
        np.testing.assert_allclose(keyed["spill_per_pp", name, "control"], control / 100, rtol=1e-9)
        np.testing.assert_allclose(keyed["spill_per_pp", name, "treated"], (control + extra) / 100, rtol=1e-9)
        np.testing.assert_allclose(keyed["spill_per_pp", name, "difference"], extra / 100, rtol=1e-9)


def test_overall_weighs_adopters_and_others_by_their_rows(world):
    regression, _, keyed, found = world
    panel = regression.panel
    exposed = ~panel.treated & regression.shares.any(axis=1)
    treated, others = (panel.weight[rows].sum() / panel.weight.sum() for rows in (panel.treated, exposed))
    sum_of_parts = treated * keyed["total_treated", "", ""] + others * keyed["spill_control", "", ""]
    np.testing.assert_allclose(keyed["overall", "", ""], sum_of_parts, atol=1e-12)
    assert next(a for a in found if a.estimand == "overall").n_obs == len(panel.unit)


def test_a_stratum_never_seen_near_zero_exposure_has_no_effect_at_zero():
    panel = staggered(units=120, seed=15)
    shares, _ = row_shares(panel)
    first = panel.groups["industry"].code[panel.unit] == 0
    moved = shares | {"county": np.where(first, 0.5 + shares["county"] / 2, shares["county"])}
    collapsed = collapse(build_design(panel, moved)[0])
    found = estimand.averages(collapsed.regression, collapsed.evidence, tuple(collapsed.regression.design.blocks))
    by = {a.level: a for a in found if (a.estimand, a.group) == ("att_by", "industry")}
    level = panel.groups["industry"].levels[0]
    assert not by[level].identified
    assert "exposures near zero" in by[level].note
    assert all(a.identified for name, a in by.items() if name != level)


def test_fixed_effects_that_absorb_an_exposure_leave_only_the_difference():
    panel = staggered(units=120, seed=16)
    members = panel.roster.members["county"]
    county = Factor("county", tuple(str(k) for k in range(members.max() + 1)), members[panel.roster.position])
    fixed = replace(panel, fixed={"county": county})
    collapsed = collapse(build_design(fixed, row_shares(fixed)[0])[0])
    found = estimand.averages(collapsed.regression, collapsed.evidence, tuple(collapsed.regression.design.blocks))
    known = {(a.estimand, a.group, a.level): a for a in found}
    refused = [
        *(("spill_per_pp", "county", level) for level in ("control", "treated")),
        *((name, "", "") for name in ("spill_control", "spill_treated", "total_treated", "overall")),
    ]
    for key in refused:
        assert not known[key].identified, key
        assert "county does not vary within county x period" in known[key].note
    kept = [("att", "", ""), ("spill_per_pp", "county", "difference"), ("spill_per_pp", "industry", "control")]
    assert all(known[key].identified for key in kept)


def test_the_adopters_behind_a_spillover_are_counted(world):
    found = {(a.estimand, a.group, a.level): a.note for a in world[3]}
    panel = world[0].panel
    adopters = np.isfinite(panel.cohort).sum()
    note = found["spill_per_pp", "county", "control"]
    assert note.startswith("rests on ")
    assert 1 < int(note.split()[2]) <= adopters
    assert "of equal weight" in note


def test_counts_are_those_of_the_averaged_rows(world):
    regression, found = world[0], {(a.estimand, a.group, a.level): a for a in world[3]}
    panel = regression.panel
    overall = found["att", "", ""]
    assert overall.n_obs == panel.treated.sum()
    assert overall.n_units == np.isfinite(panel.cohort[np.unique(panel.unit[panel.treated])]).sum()
    by_industry = [a for a in world[3] if (a.estimand, a.group) == ("att_by", "industry")]
    assert sum(a.n_obs for a in by_industry) == overall.n_obs
    assert sum(a.n_units for a in by_industry) == overall.n_units


def test_truths_average_over_the_same_rows(world):
    regression, found = world[0], {(a.estimand, a.group, a.level): a for a in world[3]}
    panel = regression.panel
    rows = panel.treated & (panel.event_time == 1)
    expected = np.average(panel.truth.tau[rows], weights=panel.weight[rows])
    assert found["att_event", "", "1"].truth == pytest.approx(expected)


def test_truths_of_spillovers():
    panel = staggered(seed=12)
    slopes = {"county": 0.5, "industry": -0.2}, {"county": 0.8, "industry": 0.0}
    panel = replace(panel, truth=Truth(panel.truth.tau, *slopes))
    shares = row_shares(panel)[0]
    collapsed = collapse(build_design(panel, shares)[0])
    averages = estimand.averages(collapsed.regression, collapsed.evidence, ("mu", "exposure", "difference"))
    found = {(a.estimand, a.group, a.level): a.truth for a in averages}
    d = panel.treated
    spill = 0.8 * shares["county"][d].mean()
    assert found["spill_treated", "", ""] == pytest.approx(spill)
    assert found["total_treated", "", ""] == pytest.approx(panel.truth.tau[d].mean() + spill)
    exposed = ~d & ((shares["county"] > 0) | (shares["industry"] > 0))
    control = 0.5 * shares["county"][exposed].mean() - 0.2 * shares["industry"][exposed].mean()
    assert found["spill_control", "", ""] == pytest.approx(control)
    assert found["spill_per_pp", "county", "difference"] == pytest.approx(0.003)


def cohort_without_before():
    """Cohort 3 is only ever seen after adoption; cohort 4 and the never-treated are seen throughout."""
    rng = np.random.default_rng(0)
    cohort = np.r_[np.full(4, 3.0), np.full(6, 4.0), np.full(12, np.inf)]
    unit, time = np.repeat(np.arange(22), 6), np.tile(np.arange(1, 7), 22)
    keep = ~((cohort[unit] == 3) & (time < 3))
    unit, time = unit[keep], time[keep]
    groups = {"sort": np.where(cohort == 3, "late", "seen")}
    return panel_of(unit, time, cohort, rng.normal(size=len(unit)), groups=groups)


@pytest.mark.parametrize("terms", [("mu",), ("cell",)])
def test_what_the_data_cannot_identify_is_marked_with_the_reason(terms):
    collapsed = collapse(build_design(cohort_without_before(), {})[0])
    found = {(a.estimand, a.level): a for a in estimand.averages(collapsed.regression, collapsed.evidence, terms)}
    for key in [("att_cohort", "3"), ("att_gt", "3@3"), ("att_by", "late")]:
        assert not found[key].identified
        assert "not identified" in found[key].note
    for key in [("att_cohort", "4"), ("att_gt", "4@5"), ("att_by", "seen")]:
        assert found[key].identified
    if terms == ("cell",):  # its average needs every cell
        assert not found["att", ""].identified
    else:
        assert "47% of these rows (4 of 10 units wholly)" in found["att", ""].note


def averages_of(panel, terms=("mu", "cell")):
    """Every estimand of a panel by its key."""
    collapsed = collapse(build_design(panel, row_shares(panel)[0])[0])
    found = estimand.averages(collapsed.regression, collapsed.evidence, terms)
    return {(a.estimand, a.level): a for a in found}


@pytest.mark.parametrize(
    ("name", "silent", "spoken"),
    [
        ("ownership", [("att_by", "1"), ("contrast", "0 - 1")], [("att_by", "0"), ("att_event", "1")]),
        ("cohort", [("att_cohort", "5"), ("att_gt", "5@6")], [("att_cohort", "3"), ("att_gt", "3@6"), ("att", "")]),
    ],
)
def test_a_level_whose_adoption_is_a_covariate_is_not_identified(name, silent, spoken):
    panel = staggered(units=90, seed=4)
    code = panel.groups["ownership"].code[panel.unit] if name == "ownership" else panel.row_cohort == 5
    covariates = np.column_stack([panel.covariates, panel.treated * code])
    found = averages_of(replace(panel, covariates=covariates, covariate_names=("a", "b", "adopted")))
    for key in silent:
        assert not found[key].identified
        assert "not identified" in found[key].note
    for key in spoken:
        assert found[key].identified
    share = np.average(code[panel.treated] == 1, weights=panel.weight[panel.treated])
    assert found["att", ""].identified == (share <= 0.5)
    assert f"{share:.0%} of these rows" in found["att", ""].note


def test_untreated_rows_that_nobody_else_shares_are_no_counterfactual():
    """Cohort 3 is seen in period 1 and from 3 on, everybody else from period 2 on: period 1 compares with nothing."""
    rng = np.random.default_rng(1)
    cohort = np.r_[np.full(4, 3.0), np.full(6, 4.0), np.full(12, np.inf)]
    unit, time = np.repeat(np.arange(22), 6), np.tile(np.arange(1, 7), 22)
    keep = np.where(cohort[unit] == 3, time != 2, time != 1)
    unit, time = unit[keep], time[keep]
    found = averages_of(panel_of(unit, time, cohort, rng.normal(size=len(unit))))
    assert not found["att_cohort", "3"].identified
    assert found["att_cohort", "4"].identified
    assert "(4 of 10 units wholly)" in found["att", ""].note


def test_what_a_model_fixes_is_said():
    panel = staggered(units=90, seed=4)
    fixed = {key: a for key, a in averages_of(panel, ("mu",)).items() if a.note.startswith("fixed by the model")}
    assert {key[0] for key in fixed} == {"att_by", "contrast", "att_event", "att_cohort", "att_gt"}
    free = averages_of(panel, ("mu", "path", "cohort", "cell", "industry", "ownership", "industry:ownership"))
    assert not [key for key, a in free.items() if a.note.startswith("fixed by the model")]


def test_an_effect_too_large_for_a_percentage_is_said_and_not_shown():
    panel = staggered(units=60, seed=4, groups=False, exposed=False)
    collapsed = collapse(build_design(panel, {})[0])
    found = estimand.averages(collapsed.regression, collapsed.evidence, ("mu",))
    draws = 1000 + np.random.default_rng(0).normal(size=(2, 100, len(found)))
    table = estimand.table(estimand.linear_scales(draws, found, is_log=True), 0.9)
    assert table.loc[table["scale"] == "percent", "mean"].isna().all()
    assert table.loc[table["scale"] == "percent", "note"].str.contains("too large for a percentage").all()
    assert table.loc[table["scale"] == "outcome", "mean"].notna().all()


def test_unidentified_estimands_are_nan_in_draws_and_table():
    collapsed = collapse(build_design(cohort_without_before(), {})[0])
    found = estimand.averages(collapsed.regression, collapsed.evidence, ("mu",))
    values = np.random.default_rng(0).normal(size=(2, 200, 1))
    theta = xr.DataArray(values, dims=("chain", "draw", "column"), coords={"column": ["mu"]})
    draws = estimand.draw_estimands(theta, collapsed.regression.design.all_labels, found)
    table = estimand.table(estimand.linear_scales(draws, found, is_log=True), 0.9)
    missing = table["mean"].isna()
    assert missing.any()
    assert not missing.all()
    assert table.loc[missing, "note"].str.contains("not identified").all()
    assert table["ess_bulk"][~missing].notna().all()


def test_table_is_the_quantiles_of_the_draws(world):
    _, _, keyed, found = world
    draws = np.stack(list(keyed.values()), axis=-1)
    table = estimand.table(estimand.linear_scales(draws, found, is_log=True), 0.8)
    assert list(table.columns) == estimand.COLUMNS
    row = table[(table["estimand"] == "att") & (table["scale"] == "outcome")].iloc[0]
    flat = keyed["att", "", ""].ravel()
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(flat, [0.1, 0.9]))
    assert row["p_positive"] == (flat > 0).mean()
    other = table[(table["estimand"] == "att") & (table["scale"] == "percent")].iloc[0]
    np.testing.assert_allclose(other["median"], 100 * np.expm1(np.median(flat)), rtol=1e-3)
    assert not table.duplicated(["estimand", "group", "level", "scale"]).any()


def test_extrapolation_to_zero_exposure_is_flagged():
    panel = staggered(seed=13)
    near, far = (
        {"county": np.where(panel.treated, 0.0, 0.3)},
        {"county": 0.3 + 0.05 * np.sin(np.arange(len(panel.unit)))},
    )
    for shares, flagged in ((near, False), (far, True)):
        regression = build_design(panel, shares)[0]
        assert bool(average.extrapolation(regression, tally.own(regression))) is flagged
