"""The synthetic panel: its margins are the published ones, and its truth is the truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from src import synthetic
from src.config import SyntheticConfig
from src.panel import PanelError
from src.synthetic import loadings

ROOT = Path(__file__).parents[1]
PARAMETERS = OmegaConf.to_container(OmegaConf.load(ROOT / "data/synthetic/parameters.yaml"))
POLLUTERS = ["B06", "B07", "B08", "B09", "C17", "C19", "C22", *[f"C{i}" for i in range(25, 34)], "D44"]
ATT = {"ln_green_patents": np.log(1.383), "ln_green_quality": np.log(1.688)}


def settings(**changes):
    preset = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/data/synthetic.yaml"))
    del preset["defaults"]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SyntheticConfig), preset, changes))


def draw(**changes):
    return synthetic.draw(settings(**changes))


def world_file(folder, changes):
    path = folder / "world.yaml"
    OmegaConf.save(OmegaConf.merge(PARAMETERS, changes), path)
    return str(path)


def treated(frame):
    return frame.year >= frame.first_treated


def one_row_a_firm(frame):
    return frame.drop_duplicates("firm").set_index("firm")


def brute_exposure(firms, firm, year, column):
    """Share of adopters among the other members of the firm's group, counted one by one."""
    own = firms[column][firm]
    adopted = others = 0
    for other, group, first in zip(firms.index, firms[column], firms.first_treated, strict=True):
        if other != firm and group == own:
            others += 1
            adopted += first <= year
    return adopted / others if others else 0.0


@pytest.fixture(scope="module")
def full():
    return draw().frame


@pytest.fixture(scope="module")
def small():
    return draw(size="small").frame


def test_seed_decides_everything(small):
    pd.testing.assert_frame_equal(draw(size="small").frame, small)
    other = draw(size="small", seed=1).frame
    for column in ["year", "first_treated", "industry", "size", "ln_green_patents", "tau_ln_green_patents"]:
        assert list(other[column][:50]) != list(small[column][:50]), column


def test_options_share_all_other_draws(small):
    iid = draw(size="small", errors="iid").frame
    outcomes = ["ln_green_patents", "ln_green_quality", "sa", "uncertainty"]  # mediators share what moves outcomes
    pd.testing.assert_frame_equal(iid.drop(columns=outcomes), small.drop(columns=outcomes))
    assert not np.allclose(iid[outcomes], small[outcomes])


def test_rows_are_sorted_unique_and_complete(full):
    assert not full.duplicated(["firm", "year"]).any()
    pd.testing.assert_frame_equal(full, full.sort_values(["firm", "year"]))
    assert not full.drop(columns="first_treated").isna().any().any()
    varying = full.groupby("firm")[["first_treated", "industry", "ownership", "district"]].nunique(dropna=False)
    assert (varying == 1).all().all()


def test_firms_enter_leave_and_miss_single_years(full):
    spell = full.groupby("firm").year.agg(["min", "max", "count"])
    missing = spell["max"] - spell["min"] + 1 - spell["count"]
    assert len(spell) == 4000
    assert set(missing) == {0, 1}
    assert 0.01 < missing.mean() < 0.05
    assert 0.4 < (spell["min"] > 2010).mean() < 0.6
    assert 0.02 < (spell["max"] < 2023).mean() < 0.15
    assert spell["count"].min() >= 3


def test_covariates_have_the_published_moments(full):
    for name, law in PARAMETERS["covariates"].items():
        assert full[name].mean() == pytest.approx(law["mean"], abs=0.1 * law["sd"]), name
        assert full[name].std() == pytest.approx(law["sd"], rel=0.06), name
        if law["law"] == "normal":
            assert [full[name].mean(), full[name].std(ddof=0)] == pytest.approx([law["mean"], law["sd"]]), name
    assert full.leverage.between(0, 1).all()
    assert full.largest_holder.between(0, 1).all()
    assert full.tobin_q.min() > 0
    assert full.growth.min() > -1


def test_age_moves_with_the_calendar(small):
    age = np.exp(small.ln_age)
    assert np.allclose(age, age.round())
    step = age.groupby(small.firm).diff().dropna()
    assert np.allclose(step, small.groupby("firm").year.diff().dropna())


@pytest.mark.parametrize("outcome", ATT)
def test_outcomes_have_the_published_moments(full, outcome):
    assert full[outcome].mean() == pytest.approx(0.84, abs=0.06)
    assert full[outcome].std() == pytest.approx(1.31, abs=0.05)


def test_cohorts_have_the_proportions_of_the_pilot_lists(full, small):
    for frame, pilots in [(full, 130), (small, 60)]:
        counts = one_row_a_firm(frame).first_treated.value_counts().sort_index()
        assert list(counts.index) == [2015, 2016, 2017, 2018]
        assert counts.sum() == pilots
        assert np.abs(counts.to_numpy() - pilots * np.array([46, 63, 97, 99]) / 305).max() < 1


def test_industries_districts_and_ownership(full, small):
    firms = one_row_a_firm(full)
    sizes = firms.industry.value_counts()
    assert len(sizes) == 82
    assert set(sizes.index[:5]) == {"C39", "C27", "C38", "C35", "C26"}
    assert firms.industry.str.startswith("C").mean() > 0.6
    assert (firms.ownership == "state").mean() == pytest.approx(0.36, abs=0.03)
    assert firms.province.nunique() == 31
    assert len(firms[["province", "district"]].drop_duplicates()) == firms.district.nunique()
    districts = firms.district.value_counts()
    assert len(districts) == 170
    assert districts.min() >= 15
    assert districts.max() > 4 * districts.median()
    assert one_row_a_firm(small)[["industry", "district"]].nunique().to_list() == [12, 15]


def test_heavy_polluters_are_the_named_industries(full):
    assert sorted(full.industry[full.polluting == 1].unique()) == POLLUTERS
    assert not full.industry[full.polluting == 0].isin(POLLUTERS).any()


@pytest.mark.parametrize("changes", [{}, {"seed": 3}, {"selection": "growth"}, {"spillover": "literal"}])
@pytest.mark.parametrize("outcome", ATT)
def test_mean_effect_on_the_treated_rows_is_the_reported_one(outcome, changes):
    frame = draw(size="small", **changes).frame
    tau = frame[f"tau_{outcome}"]
    assert tau[treated(frame)].mean() == pytest.approx(ATT[outcome], rel=1e-12)
    assert (tau[~treated(frame)] == 0).all()


@pytest.mark.parametrize("outcome", ATT)
def test_effects_differ_as_reported(full, outcome):
    rows = full[treated(full)]
    tau = rows[f"tau_{outcome}"]
    by_owner, by_polluting = tau.groupby(rows.ownership).mean(), tau.groupby(rows.polluting).mean()
    assert by_owner["private"] > by_owner["state"] + 0.1
    assert by_polluting[0] > by_polluting[1] + 0.03
    path = tau.groupby(rows.year - rows.first_treated).mean()
    assert path[0] == pytest.approx(0.4 * path[5], rel=0.1)
    assert (path.diff()[1:5] > 0).all()
    own = tau[rows.year == rows.first_treated + 5].groupby([rows.industry, rows.ownership]).std()
    assert own.max() > 0.05


def test_readings_differ_by_slope_times_exposure(small):
    """The spillover of sampled rows, from a double loop over firms."""
    unit = draw(size="small", spillover="unit").frame
    firms = one_row_a_firm(small)
    late = small[small.year >= 2015].sample(25, random_state=0)
    assert treated(late).any()
    assert not treated(late).all()
    for row in late.itertuples():
        expected = 9 * np.log(1.072) * brute_exposure(firms, row.firm, row.year, "district")
        expected += 9 * np.log(1.198) * brute_exposure(firms, row.firm, row.year, "industry")
        assert row.ln_green_patents - unit.ln_green_patents[row.Index] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("outcome", ATT)
def test_without_noise_the_outcome_is_effect_plus_spillovers(tmp_path, outcome):
    still = {
        "outcomes": {outcome: {"intercept": 1.0, "firm_sd": 0.0}},
        "year": {"drift": 0.0, "sd": 0.0},
        "covariates": {name: {"beta": 0.0} for name in PARAMETERS["covariates"]},
        "errors": {"iid": {"sd": 0.0}},
        "spillover": {"ratio": 2.5},
    }
    world = draw(size="small", errors="iid", outcome=outcome, parameters=world_file(tmp_path, still))
    firms = one_row_a_firm(world.frame)
    rows = world.frame.sample(60, random_state=0)
    for row in rows.itertuples():
        slope = world.known.treated if row.year >= row.first_treated else world.known.control
        spillover = sum(slope[column] * brute_exposure(firms, row.firm, row.year, column) for column in slope)
        tau = getattr(row, world.known.tau)
        assert getattr(row, outcome) == pytest.approx(1.0 + tau + spillover, abs=1e-12)
    assert len(slope) == 2
    assert treated(rows).any()


@pytest.mark.parametrize(("reading", "scale"), [("tenth", 10), ("literal", 100), ("unit", 1)])
def test_slopes_follow_the_reading(tmp_path, reading, scale):
    path = world_file(tmp_path, {"spillover": {"ratio": 0.5}})
    for outcome, district, industry in [("ln_green_patents", 1.072, 1.198), ("ln_green_quality", 1.087, 1.29)]:
        world = draw(size="small", spillover=reading, outcome=outcome, parameters=path)
        assert world.known.tau == f"tau_{outcome}"
        assert world.known.control == pytest.approx(
            {"district": scale * np.log(district), "industry": scale * np.log(industry)}
        )
        assert world.known.treated == pytest.approx({k: v / 2 for k, v in world.known.control.items()})


def test_slopes_are_named_after_the_exposures():
    data = settings(size="small")
    data.exposures = {"spatial": "district", "regional": "province"}
    assert synthetic.draw(data).known.control == pytest.approx({"spatial": 10 * np.log(1.072)})


def growth_gap(frame):
    """Growth of the pilots less that of the others, 2010-2014, before anybody adopts; in standard errors."""
    wide = frame.pivot_table(index="firm", columns="year", values="ln_green_patents")
    growth = (wide[2014] - wide[2010]).dropna()
    pilot = one_row_a_firm(frame).first_treated.notna()[growth.index]
    gap = growth[pilot].mean() - growth[~pilot].mean()
    return gap / np.sqrt(growth[pilot].var() / pilot.sum() + growth[~pilot].var() / (~pilot).sum())


def test_only_growth_selects_on_growth(full):
    assert abs(growth_gap(full)) < 2.5
    assert growth_gap(draw(selection="growth").frame) > 6


def test_traits_select_large_private_manufacturers(full):
    firms = full.groupby("firm")[["industry", "ownership", "first_treated"]].first()
    firms["size"] = full.groupby("firm")["size"].mean()
    pilot = firms.first_treated.notna()
    assert firms.industry[pilot].str.startswith("C").mean() > 0.85
    assert firms["size"][pilot].mean() > firms["size"][~pilot].mean() + 0.5
    assert (firms.ownership[pilot] == "private").mean() > (firms.ownership[~pilot] == "private").mean()


def test_ar1_is_stationary():
    series = synthetic.ar1(np.random.default_rng(0).standard_normal((40_000, 6)), 0.6)
    assert np.allclose(series.std(axis=0), 1, atol=0.02)
    assert np.corrcoef(series[:, 2], series[:, 3])[0, 1] == pytest.approx(0.6, abs=0.02)
    assert np.corrcoef(series[:, 2], series[:, 4])[0, 1] == pytest.approx(0.36, abs=0.02)


@pytest.mark.parametrize(("errors", "rho", "shocks"), [("realistic", 0.6, 0.12), ("iid", 0.0, 0.0)])
def test_errors_are_what_they_say(tmp_path, errors, rho, shocks):
    """Outcomes less effects in a world of errors alone."""
    alone = {
        "outcomes": {"ln_green_patents": {"intercept": 0.0, "firm_sd": 0.0}},
        "year": {"drift": 0.0, "sd": 0.0},
        "covariates": {name: {"beta": 0.0} for name in PARAMETERS["covariates"]},
    }
    frame = draw(errors=errors, parameters=world_file(tmp_path, alone)).frame
    frame = frame[frame.year < 2015]
    wide = frame.pivot_table(index="firm", columns="year", values="ln_green_patents").dropna()
    assert wide.corr().loc[2012, 2013] == pytest.approx(rho, abs=0.06)
    assert np.sqrt(np.mean(wide**2)) == pytest.approx(np.hypot(0.55, np.sqrt(2) * shocks), abs=0.05)
    pilot = one_row_a_firm(frame).first_treated.notna()[wide.index]
    assert (wide[pilot].std().mean() / wide[~pilot].std().mean() > 1.1) == (errors == "realistic")
    cells = frame.groupby(["industry", "year"]).ln_green_patents.agg(["mean", "var", "count"]).query("count > 50")
    between = (cells["mean"] ** 2 - cells["var"] / cells["count"]).mean()
    assert np.sqrt(max(between, 0)) == pytest.approx(shocks, abs=0.04)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcome": "patents"}, "no outcome 'patents': use one of"),
        ({"transform": "log1p"}, "data.transform=none"),
        ({"parameters": "data/nowhere.yaml"}, "no file .*nowhere.yaml"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(PanelError, match=words):
        draw(size="small", **changes)


def test_load_hands_over_panel_and_truth(small):
    panel = synthetic.load(settings(size="small"))
    assert len(panel.outcome) == len(small)
    assert np.allclose(panel.outcome, small.ln_green_patents)
    assert panel.truth.tau[panel.treated].mean() == pytest.approx(np.log(1.383))
    assert panel.truth.slope_control == pytest.approx({"district": 10 * np.log(1.072), "industry": 10 * np.log(1.198)})
    assert panel.sha256 == synthetic.load(settings(size="small")).sha256
    assert panel.sha256 != synthetic.load(settings(size="small", seed=1)).sha256


@pytest.fixture(scope="module")
def counted():
    preset = OmegaConf.load(ROOT / "conf/data/synthetic_counts.yaml")
    return draw(**{name: value for name, value in preset.items() if name != "defaults"})


def test_counts_have_the_shape_that_they_are_to_have(counted):
    for outcome, att in (("green_patents", 1.383), ("green_quality", 1.688)):
        y = counted.frame[outcome]
        assert (y == y.round()).all()
        assert counted.frame[f"tau_{outcome}"][treated(counted.frame)].mean() == pytest.approx(np.log(att))
    y = counted.frame["green_patents"]
    assert 0.5 < (y == 0).mean() < 0.6
    assert np.log1p(y).mean() == pytest.approx(0.84, abs=0.06)
    assert np.log1p(y).std() == pytest.approx(1.31, abs=0.1)
    assert 2000 < y.max() < 8000
    quality = counted.frame["green_quality"]
    assert quality.max() / quality.mean() > y.max() / y.mean()  # a heavier tail


def test_counts_average_to_their_mean(counted):
    frame = counted.frame
    untreated = frame[frame.first_treated.isna()]
    groups = pd.qcut(untreated["mean_green_patents"], 8, duplicates="drop")
    by = untreated.groupby(groups, observed=True)[["green_patents", "mean_green_patents"]].mean()
    # others' adoption lifts the untreated by some 8%
    ratio = by["green_patents"] / by["mean_green_patents"]
    assert ratio[by["mean_green_patents"] > 0.05].between(0.85, 1.35).all()


def test_counts_are_of_the_firms_of_the_panel_in_logs(full, counted):
    same = ["firm", "year", "industry", "district", "ownership", "size"]
    pd.testing.assert_frame_equal(full[same], counted.frame[same])


def test_what_mediators_have_of_the_noise_makes_their_slopes():
    """Regression of e on m = a e + c nu, with e and the nu of equal variance, has the slopes that are asked for."""
    laws = {"a": {"slope": -1.5, "noise": 0.1}, "b": {"slope": -0.2, "noise": 0.8}, "c": {"slope": 0.0, "noise": 2.0}}
    a, c = loadings(laws)
    slopes = np.linalg.solve(np.outer(a, a) + np.diag(c**2), a)
    np.testing.assert_allclose(slopes, [-1.5, -0.2, 0.0], atol=1e-12)


def test_mediators_have_the_effects_and_slopes_of_the_parameters(full):
    treated = full["year"] >= full["first_treated"]
    laws = OmegaConf.to_container(OmegaConf.load(ROOT / "data" / "synthetic" / "parameters.yaml"))["mediators"]
    names = list(laws)
    for name in names:
        assert full.loc[treated, f"tau_{name}"].mean() == pytest.approx(laws[name]["effect"])
        assert (full.loc[~treated, f"tau_{name}"] == 0).all()
    columns = {name: full[name] - full[f"tau_{name}"] for name in names}
    untreated = full["ln_green_patents"] - full["tau_ln_green_patents"]
    within = pd.DataFrame(columns | {"y": untreated})[~full["firm"].isin(full.loc[treated, "firm"])]
    within = within - within.groupby(full["firm"]).transform("mean")
    within = within - within.groupby(full["year"]).transform("mean")
    slopes = np.linalg.lstsq(within[names].to_numpy(), within["y"].to_numpy(), rcond=None)[0]
    np.testing.assert_allclose(slopes, [laws[name]["slope"] for name in names], rtol=0.1)
