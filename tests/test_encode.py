"""From rows to a panel: what is handled is handled as said."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
from omegaconf import OmegaConf

from src.config import DataConfig, ExposureConfig
from src.encode import Known, encode, load
from tests.frames import INF, adoption, changed, coded, rising, same_panel, settings, tiny


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("panel", set()), ("read", {"config", "panel"}), ("validate", {"config", "panel", "read"})],
)
def test_imports_go_one_way(module, allowed):
    text = (Path(__file__).parents[1] / "src" / f"{module}.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^\s*(?:from|import) src\.(\w+)", text, re.MULTILINE)) == allowed


def test_encoding_by_hand():
    panel = coded(
        tiny(), groups={"industry": "ind"}, exposures={"sector": "ind"}, predictors={"industry": "z"}, weights="w"
    )
    assert panel.units.tolist() == ["a", "b", "c", "d"]
    assert panel.cohort.tolist() == [2002, 2003, INF, INF]
    assert panel.unit.tolist() == np.repeat(range(4), 5).tolist()
    assert panel.time.dtype == np.int64
    assert panel.treated.sum() == 3 + 2
    assert panel.groups["industry"].levels == ("01", "NA", "None")
    assert panel.groups["industry"].code.tolist() == [0, 1, 0, 2]
    assert panel.predictors["industry"].tolist() == [1, 0, 2]
    assert panel.roster.members["sector"].tolist() == [0, 1, 0, 2]
    assert panel.roster.position.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(panel.weight[:5], np.arange(1, 6) / 3)
    np.testing.assert_array_equal(panel.outcome, tiny()["y"])
    assert panel.notes == ()
    assert panel.truth is None


def test_a_status_column_gives_the_same_panel():
    same_panel(coded(tiny(on=adoption(3, 2)), cohort=None, treated="on"), coded(tiny()))
    same_panel(coded(tiny(on=adoption(3, 2).astype(bool)), cohort=None, treated="on"), coded(tiny()))


def test_missing_status_is_settled_by_the_other_rows_or_dropped():
    status = adoption(3, 2)
    status[[0, 3]] = np.nan  # a, 2000 and 2003: before its last 0, after its first 1
    settled = coded(tiny(on=status), cohort=None, treated="on")
    same_panel(settled, coded(tiny()))
    status[[7, 19]] = np.nan  # b, 2002, just before adoption; d, 2004, its last
    doubtful = coded(tiny(on=status), cohort=None, treated="on")
    assert len(doubtful.unit) == 18
    assert doubtful.cohort.tolist() == [2002, 2003, INF, INF]
    assert doubtful.notes == ("2 rows dropped (on missing around adoption: 2)",)


@pytest.mark.parametrize("never", [np.nan, 0, INF])
def test_never_treated(never):
    panel = coded(tiny(first=lambda f: f["first"].fillna(never)))
    assert panel.cohort.tolist() == [2002, 2003, INF, INF]


def test_numbers_as_text_and_years_as_floats():
    frame = tiny(
        y=lambda f: " " + f["y"].astype(str),
        year=lambda f: f["year"].astype(float),
        first=lambda f: f["first"].astype(str),
    )
    same_panel(coded(frame), coded(tiny()))


@pytest.mark.parametrize(
    ("transform", "function", "is_log"),
    [("none", np.asarray, False), ("log", np.log, True), ("log1p", np.log1p, True), ("asinh", np.arcsinh, False)],
)
def test_transforms(transform, function, is_log):
    panel = coded(tiny(), transform=transform)
    np.testing.assert_allclose(panel.outcome, function(tiny()["y"]))
    assert panel.is_log is is_log
    assert coded(tiny(), transform=transform, is_log=True).is_log


def test_row_order_does_not_matter():
    changes = {"groups": {"industry": "ind"}, "exposures": {"sector": "ind"}, "weights": "w", "covariates": ["x"]}
    shuffled = tiny().sample(frac=1, random_state=1)
    same_panel(coded(shuffled, **changes), coded(tiny(), **changes))


def test_the_caller_keeps_its_frame():
    frame = changed("y", {3: np.nan}).sample(frac=1, random_state=2)
    before = frame.copy(deep=True)
    coded(
        frame, groups={"industry": "ind"}, predictors={"industry": "z"}, covariates=["x"], weights="w", transform="log"
    )
    pd.testing.assert_frame_equal(frame, before)


def test_rows_without_outcome_or_covariate_are_dropped():
    frame = changed("y", {3: np.nan, 4: np.nan})
    frame.loc[[3, 9], "x"] = np.nan
    panel = coded(frame, covariates=["x"])
    assert len(panel.unit) == 17
    assert panel.notes == ("3 rows dropped (y missing: 2; x missing: 2)",)


def test_weights_multiply_the_size_of_who_exposes_where_asked():
    frame = changed("w", {1: 0.0})
    sector = {"sector": "ind"}
    assert coded(frame, weights="w", exposures=sector).roster.mappings["sector"].size is None
    size = coded(frame, weights="w", exposures=sector, weigh_exposures=True).roster.mappings["sector"].size
    assert size.tolist() == [14 / 5, 3, 3, 3]
    sized = {"sector": ExposureConfig(share="ind", size="size")}
    frame["size"] = frame["firm"].map({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
    size = coded(frame, weights="w", exposures=sized, weigh_exposures=True).roster.mappings["sector"].size
    assert size.tolist() == [14 / 5, 6, 9, 12]


def test_rows_of_weight_zero_are_dropped():
    panel = coded(changed("w", {1: 0.0}), weights="w")
    assert len(panel.unit) == 19
    assert panel.weight.mean() == pytest.approx(1)
    assert panel.notes == ("1 row dropped (weight 0: 1)",)


def test_always_treated_units_leave_the_rows_and_stay_in_the_roster():
    panel = coded(rising(a=2000, b=2003), groups={"industry": "ind"}, exposures={"sector": "ind"})
    assert panel.units.tolist() == ["b", "c", "d"]
    assert panel.roster.cohort.tolist() == [2000, 2003, INF, INF]
    assert panel.roster.members["sector"].tolist() == [0, 1, 0, 2]
    assert panel.roster.position.tolist() == [1, 2, 3]
    assert panel.groups["industry"].levels == ("01", "NA", "None")
    assert panel.notes[0].startswith("1 always-treated unit (5 rows) dropped")


def test_a_first_period_without_outcome_makes_its_adopters_always_treated():
    panel = coded(rising(a=2001, b=2003).assign(y=lambda f: f["y"].where(f["year"] > 2000)))
    assert panel.units.tolist() == ["b", "c", "d"]
    assert [note[:22] for note in panel.notes] == ["4 rows dropped (y miss", "1 always-treated unit "]


def test_levels_of_units_left_out_are_left_out():
    panel = coded(rising(b=2000, a=2002), groups={"industry": "ind"}, predictors={"industry": "z"})
    assert panel.groups["industry"].levels == ("01", "None")
    assert panel.groups["industry"].code.tolist() == [0, 0, 1]
    assert panel.predictors["industry"].tolist() == [1, 2]


def test_adopters_first_seen_after_adoption_are_kept_and_counted():
    panel = coded(tiny().query("firm != 'a' or year >= 2003"))
    assert panel.units.tolist() == ["a", "b", "c", "d"]
    assert panel.notes == (
        "1 adopter is first seen after adoption: they are in the averages, but only the model speaks for them",
    )


def test_without_never_treated_the_last_periods_go():
    panel = coded(rising(a=2001, b=2002, c=2003, d=2003))
    assert panel.periods.tolist() == [2000, 2001, 2002]
    assert panel.cohort.tolist() == [2001, 2002, 2003, 2003]
    assert panel.notes == (
        "2 periods (2003, 2004) dropped with 8 rows: nobody is untreated then",
        "2 units adopt after the last period (2002): not yet treated in the panel",
        "no unit is never treated: those that adopt later are the comparison",
    )


def test_cohorts_after_the_last_period_keep_their_number():
    panel = coded(rising(a=2002, b=2010))
    assert panel.cohort.tolist() == [2002, 2010, INF, INF]
    assert panel.notes == ("1 unit adopts after the last period (2004): not yet treated in the panel",)


@pytest.mark.parametrize(
    ("years", "said"),
    [
        ([2000, 2001, 2002, 2003, 2004], ()),
        ([2000, 2001, 2002, 2003, 2005], ("largest: 2, 2003 to 2005", "fine for missing years")),
        ([201011, 201012, 201101, 201102, 201103], ("largest: 89, 201012 to 201101", "codes such as 201012")),
        ([20013, 20014, 20021, 20022, 20023], ("largest: 7, 20014 to 20021", "number the periods consecutively")),
        ([2000, 2002, 2004, 2006, 2008], ("year is in steps of 2, and so is event time: 2 is one period after",)),
    ],
)
def test_periods_that_are_not_consecutive_are_said(years, said):
    number = dict(zip(range(2000, 2005), years, strict=True))
    panel = coded(tiny(year=lambda f: f["year"].map(number), first=lambda f: f["first"].map(number)))
    assert len(panel.notes) == bool(said)
    assert all(words in panel.notes[0] for words in said), panel.notes
    assert "\n" not in "".join(panel.notes)
    assert set(panel.event_time[panel.treated]) == {t - g for g in years[2:4] for t in years if t >= g}


def test_cohorts_below_zero_are_said():
    panel = coded(rising(a=2002, b=-1, c=-99))
    assert panel.notes[0].startswith("2 units with first below 0 (-99, -1): read as adoption before the first period")
    numbered = coded(tiny(year=lambda f: f["year"] - 2004, first=lambda f: f["first"] - 2004))
    assert numbered.cohort.tolist() == [-2, -1, INF, INF]
    assert numbered.notes == ()


def test_units_with_a_single_row_are_kept_and_said():
    panel = coded(tiny().query("firm != 'd' or year == 2000"))
    assert len(panel.units) == 4
    assert panel.notes == ("1 unit with a single row: kept, though it says nothing about change",)


def test_cohort_zero_beside_period_zero_is_said():
    frame = tiny(year=lambda f: f["year"] - 2000, first=lambda f: (f["first"] - 2000).fillna(0))
    panel = coded(frame)
    assert panel.cohort.tolist() == [2, 3, INF, INF]
    assert panel.notes == ("first=0 is read as never treated, though period 0 is in the panel",)


@pytest.mark.parametrize(
    ("membership", "levels"),
    [
        # a adopts 2002, changes 2001; b adopts 2003, changes 2003 and 2004; c never, changes 2004; d never changes
        ("first", ["p", "p", "p", "q"]),
        ("before", ["q", "p", "p", "q"]),
    ],
)
def test_membership(membership, levels):
    ind = list("pqqqq") + list("pppqr") + list("ppppq") + list("qqqqq")
    settings = {"groups": {"industry": "ind"}, "exposures": {"sector": "ind"}, "membership": membership}
    panel = coded(tiny(ind=ind), **settings)
    group = panel.groups["industry"]
    assert [group.levels[k] for k in group.code] == levels
    assert panel.roster.members["sector"].tolist() == ["pq".index(level) for level in levels]
    assert len(panel.notes) == 1
    assert panel.notes[0].startswith("3 units change ind over time: each takes its")


def test_membership_before_of_an_adopter_first_seen_after_adoption():
    frame = tiny(ind=list("pqqrs") + list("q" * 15)).query("firm != 'a' or year >= 2002")
    panel = coded(frame, groups={"industry": "ind"}, membership="before")
    assert panel.groups["industry"].levels == ("q",)


def test_numeric_groups_get_clean_labels():
    code = np.where(tiny()["firm"] == "a", 204.0, 7.0)
    for column in (code, code.astype(int), code.astype(str), pd.Categorical(code)):
        assert coded(tiny(ind=column), groups={"industry": "ind"}).groups["industry"].levels == ("204", "7")
    half = np.where(tiny()["firm"] == "a", 1.5, 7.0)
    assert coded(tiny(ind=half), groups={"industry": "ind"}).groups["industry"].levels == ("1.5", "7.0")


def test_truth_of_a_generator():
    frame = tiny(effect=np.arange(20.0)).sample(frac=1, random_state=3)
    panel = encode(frame.query("y < 6"), settings(), "0", Known("effect", {"s": 0.5}, {"s": 0.2}))
    expected = tiny(effect=np.arange(20.0)).query("y < 6")
    treated = expected["year"] >= expected["first"]
    np.testing.assert_array_equal(panel.truth.tau, expected["effect"].where(treated, 0))
    assert panel.truth.slope_control == {"s": 0.5}
    assert panel.truth.slope_treated == {"s": 0.2}


def preset(name: str) -> DataConfig:
    path = Path(__file__).parents[1] / "conf" / "data" / f"{name}.yaml"
    given = OmegaConf.load(path)
    del given["defaults"]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), given))


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # inside pyfixest
@pytest.mark.parametrize(
    ("name", "twfe", "units", "rows", "adopters"),
    [
        ("mpdta", -0.0365, 500, 2500, 191),  # Callaway & Sant'Anna's vignette of the R package did
        ("fracking", 0.0242, 402, 10050, 329),
        ("driving", -0.0707, 48, 1200, 19),
        ("castle", 0.0755, 50, 550, 21),
    ],
)
def test_presets_reproduce_two_way_fixed_effects(name, twfe, units, rows, adopters):
    panel = load(preset(name))
    frame = pd.DataFrame({"y": panel.outcome, "d": panel.treated * 1.0, "unit": panel.unit, "time": panel.time})
    fit = pf.feols("y ~ d | unit + time", frame.assign(w=panel.weight), weights="w")
    assert fit.coef()["d"] == pytest.approx(twfe, abs=5e-5)
    assert (len(panel.units), len(panel.unit), np.isfinite(panel.cohort).sum()) == (units, rows, adopters)
    assert panel.is_log
    assert panel.notes == ()
