"""Reading, checking and encoding a panel: every mistake is named, everything handled is said."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
from omegaconf import OmegaConf

from src.config import DataConfig
from src.panel import Panel, PanelError, encode, load, read

INF = float("inf")


def tiny(**columns) -> pd.DataFrame:
    """Units a (2002), b (2003), c and d (never) in 2000-2004; row 1 is a in 2000, row 6 is b in 2000, and so on."""
    frame = pd.DataFrame({"firm": np.repeat(list("abcd"), 5), "year": np.tile(np.arange(2000, 2005), 4)})
    frame["first"] = frame["firm"].map({"a": 2002.0, "b": 2003.0})
    frame["y"] = np.random.default_rng(0).normal(5, 1, 20).round(6)
    frame["x"] = np.arange(20.0) ** 2
    frame["ind"] = frame["firm"].map({"a": "01", "b": "NA", "c": "01", "d": "None"})
    frame["z"] = frame["ind"].map({"01": 1.0, "NA": 0.0, "None": 2.0})
    frame["w"] = 1.0 + frame["year"] - 2000
    return frame.assign(**columns)


def settings(**changes) -> DataConfig:
    return DataConfig(**{"name": "tiny", "unit": "firm", "time": "year", "cohort": "first", "outcome": "y", **changes})


def coded(frame: pd.DataFrame, **changes) -> Panel:
    return encode(frame, settings(**changes), "0")


def changed(column: str, values: dict[int, object], dtype: object = None) -> pd.DataFrame:
    """The tiny panel with other values in some rows, counted from 1."""
    frame = tiny()
    frame[column] = frame[column].astype(dtype or frame[column].dtype)
    for row, value in values.items():
        frame.loc[row - 1, column] = value
    return frame


def adoption(a=0, b=0, c=0, d=0) -> np.ndarray:
    """A 0/1 column that each unit turns on after so many periods from the end (0 never)."""
    return np.concatenate([np.r_[np.zeros(5 - n), np.ones(n)] for n in (a, b, c, d)])


def rising(**firms) -> pd.DataFrame:
    return tiny(first=lambda f: f["firm"].map(firms).astype(float))


BAD = {
    "no adoption": (tiny(), {"cohort": None}, ["adoption is not given", "data.cohort", "data.treated"]),
    "two adoptions": (tiny(), {"treated": "x"}, ["both", "keep one"]),
    "missing column": (tiny(), {"outcome": "yy"}, ["'yy'", "data.outcome", "did you mean 'y'", "firm, year, first"]),
    "missing group": (tiny(), {"groups": {"industry": "idn"}}, ["'idn'", "data.groups.industry", "'ind'"]),
    "no rows": (tiny().iloc[:0], {}, ["no rows"]),
    "column twice": (tiny().rename(columns={"x": "y"}), {}, ["named y", "rename"]),
    "duplicate": (changed("year", {2: 2000}), {}, ["1 duplicate row ", "unit a in 2000: rows 1 and 2", "keep one row"]),
    "switches off": (tiny(on=np.r_[0, 1, 0, 0, 0, adoption(2)[5:]]), {"cohort": None, "treated": "on"},
                     ["switches off in 1 unit", "unit a: 1 in 2001, 0 in 2004", "correct"]),
    "status 2": (tiny(on=np.r_[0, 2, adoption()[2:]]), {"cohort": None, "treated": "on"},
                 ["neither 0 nor 1", "row 2: 2", "write 1"]),
    "status unknown": (tiny(on=np.r_[adoption(2)[:15], [np.nan] * 5]), {"cohort": None, "treated": "on"},
                       ["empty in all rows of 1 unit (d)", "say 0 or 1"]),
    "cohort varies": (changed("first", {2: 2003, 7: np.nan}), {},
                      ["varies within 2 units", "unit a: 2002 and 2003", "unit b: 2003 and never", "data.treated"]),
    "cohort fraction": (rising(a=2002.5), {}, ["not a whole number in 5 rows", "row 1: 2002.5", "0 or inf"]),
    "cohort text": (changed("first", {11: "never"}, object), {}, ["row 11: 'never'", "leave it empty, 0 or inf"]),
    "cohort minus inf": (rising(a=2002, b=-INF), {}, ["minus infinity in 5 rows", "row 6"]),
    "group varies": (changed("ind", {3: "02"}), {"groups": {"industry": "ind"}},
                     ["over time in 1 unit", "unit a: 01 and 02", "data.membership=first", "data.membership=before"]),
    "exposure varies": (changed("ind", {3: "02"}), {"exposures": {"industry": "ind"}}, ["1 unit", "data.membership"]),
    "group empty": (changed("ind", {3: None, 9: " "}), {"groups": {"industry": "ind"}},
                    ["data.groups.industry", "empty in 2 rows", "row 3, row 9", "give them a level or drop them"]),
    "text outcome": (changed("y", {3: "high", 4: "1,5"}, object), {},
                     ["data.outcome", "'y'", "number in 2 rows", "row 3: 'high', row 4: '1,5'", "leave them empty"]),
    "infinite outcome": (changed("y", {5: INF}), {}, ["infinite in 1 row (row 5: inf)", "leave them empty"]),
    "infinite covariate": (changed("x", {5: -INF}), {"covariates": ["x"]}, ["data.covariates", "row 5: -inf"]),
    "text covariate": (changed("x", {5: "?"}, object), {"covariates": ["x"]}, ["'x'", "row 5: '?'"]),
    "covariate twice": (tiny(), {"covariates": ["x", "x"]}, ["data.covariates", "x", "once"]),
    "covariate is outcome": (tiny(), {"covariates": ["y"]}, ["used already"]),
    "constant outcome": (tiny(y=3.0), {}, ["'y' is constant in all 20 rows", "changes over time"]),
    "constant within": (tiny(y=np.repeat([1.1, 2.2, 3.3, 4.4], 5)), {}, ["constant within every unit", "changes"]),
    "log of 0": (changed("y", {2: 0.0, 3: -1.0}), {"transform": "log"},
                 ["not above 0 in 2 rows (row 2: 0.0, row 3: -1.0)", "another transform"]),
    "log1p of -1": (changed("y", {2: -1.0}), {"transform": "log1p"}, ["not above -1", "row 2: -1.0"]),
    "nobody treated": (rising(), {}, ["nobody is treated", "check data.cohort"]),
    "treated too late": (rising(a=2010), {}, ["nobody is treated between 2000 and 2004", "in 2010", "later periods"]),
    "only always treated": (rising(a=1999), {}, ["nobody is left", "1 always-treated unit", "adopt later"]),
    "all at once": (rising(a=2002, b=2002, c=2002, d=2002), {}, ["nobody is left", "3 periods (2002, 2003, 2004)"]),
    "nobody untreated": (rising(a=2000, b=1999, c=2000, d=2000), {}, ["nobody is ever untreated", "4 units", "add"]),
    "one period": (tiny().query("year == 2003"), {}, ["one period (2003)", "at least two; add periods"]),
    "fraction of a year": (changed("year", {4: 2003.5}, float), {}, ["data.time", "row 4: 2003.5", "whole number"]),
    "missing time": (changed("year", {4: np.nan, 6: np.nan}, float), {}, ["missing in 2 rows (row 4, row 6)", "year"]),
    "date as time": (tiny(year=pd.to_datetime("2000-01-01")), {}, ["data.time", "not a number", "such as the year"]),
    "missing unit": (changed("firm", {4: None}), {}, ["data.unit", "empty in 1 row (row 4)", "drop those rows"]),
    "negative weight": (changed("w", {4: -2.0}), {"weights": "w"}, ["negative in 1 row (row 4: -2.0)", "0 or more"]),
    "missing weight": (changed("w", {4: np.nan}), {"weights": "w"}, ["missing in 1 row (row 4)", "weight"]),
    "text weight": (changed("w", {4: "big"}, object), {"weights": "w"}, ["row 4: 'big'"]),
    "weights all 0": (tiny(w=0.0), {"weights": "w"}, ["0 in every row", "above 0"]),
    "predictor varies": (changed("z", {3: 5.0}), {"groups": {"industry": "ind"}, "predictors": {"industry": "z"}},
                         ["data.predictors.industry", "varies within 1 level", "01: 1 to 5", "one number"]),
    "predictor text": (tiny(z="yes"), {"groups": {"industry": "ind"}, "predictors": {"industry": "z"}},
                       ["not a number in 20 rows", "and 17 more", "one number"]),
    "predictor of a stranger": (tiny(), {"predictors": {"industry": "z"}}, ["industry", "no group", "none"]),
    "nothing observed": (tiny(y=np.nan), {}, ["no row is left", "y missing: 20", "fill in"]),
    "unknown transform": (tiny(), {"transform": "sqrt"}, ["sqrt", "none, log, log1p, asinh"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_rows_and_remedy(case):
    frame, changes, said = BAD[case]
    with pytest.raises(PanelError) as error:
        coded(frame, **changes)
    message = str(error.value)
    assert [words for words in said if words not in message] == [], message
    assert len(message) < 400
    assert "\n" not in message


@pytest.mark.parametrize("name", ["time", "unit", "mu", "level", "a:b", "a@b", "a/b", "a[b", "b]", "", " "])
@pytest.mark.parametrize("setting", ["groups", "exposures"])
def test_reserved_names(setting, name):
    with pytest.raises(PanelError, match=rf"data.{setting}.*reserved.*rename"):
        coded(tiny(), **{setting: {name: "ind"}})


def test_names_derived_from_a_group_are_reserved():
    with pytest.raises(PanelError, match=r"industry_late.*reserved"):
        coded(tiny(), groups={"industry": "ind", "industry_late": "ind"})
    assert set(coded(tiny(), groups={"industry_late": "ind"}).groups) == {"industry_late"}


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
    assert panel.roster.weight.tolist() == [3, 3, 3, 3]
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
    changes = {"groups": {"industry": "ind"}, "exposures": {"s": "ind"}, "weights": "w", "covariates": ["x"]}
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


def test_rows_of_weight_zero_are_dropped():
    panel = coded(changed("w", {1: 0.0}), weights="w")
    assert len(panel.unit) == 19
    assert panel.weight.mean() == pytest.approx(1)
    assert panel.roster.weight.tolist() == [14 / 5, 3, 3, 3]
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
    panel = encode(frame.query("y < 6"), settings(), "0", "effect", {"s": 0.5}, {"s": 0.2})
    expected = tiny(effect=np.arange(20.0)).query("y < 6")
    treated = expected["year"] >= expected["first"]
    np.testing.assert_array_equal(panel.truth.tau, expected["effect"].where(treated, 0))
    assert panel.truth.slope_control == {"s": 0.5}
    assert panel.truth.slope_treated == {"s": 0.2}


def same_panel(left: Panel, right: Panel) -> None:
    for field in dataclasses.fields(Panel):
        if field.name not in {"sha256", "name"}:
            np.testing.assert_equal(as_plain(getattr(left, field.name)), as_plain(getattr(right, field.name)))


def as_plain(value):
    if dataclasses.is_dataclass(value):
        return {name: as_plain(part) for name, part in vars(value).items()}
    return {key: as_plain(part) for key, part in value.items()} if isinstance(value, dict) else value


# ---------------------------------------------------------------------------------------------------------- files

WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.set_index(["firm", "year"]).to_parquet(path),
    ".dta": lambda frame, path: frame.to_stata(path, write_index=False, version=118),
    ".xlsx": lambda frame, path: frame.to_excel(path, index=False),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_files_round_trip(tmp_path, ending):
    path = tmp_path / f"panel{ending}"
    WRITERS[ending](tiny(firm=lambda f: "00" + f["firm"].map({"a": "1", "b": "2", "c": "3", "d": "NA"})), path)
    changes = {"groups": {"industry": "ind"}, "predictors": {"industry": "z"}, "exposures": {"sector": "ind"}}
    panel = load(settings(path=str(path), covariates=["x"], **changes))
    expected = coded(tiny(), covariates=["x"], **changes)
    assert panel.units.tolist() == ["001", "002", "003", "00NA"]
    assert len(panel.sha256) == 64
    same_panel(dataclasses.replace(panel, units=expected.units), expected)


def test_stata_labels_and_years(tmp_path):
    path = tmp_path / "panel.dta"
    frame = tiny(ind=pd.Categorical(np.where(tiny()["firm"] == "a", "state", "private")))
    frame["year"] = pd.to_datetime(frame["year"].astype(str))
    frame.to_stata(path, write_index=False, convert_dates={"year": "ty"})
    panel = load(settings(path=str(path), groups={"ownership": "ind"}))
    assert panel.groups["ownership"].levels == ("private", "state")
    assert panel.periods.tolist() == [2000, 2001, 2002, 2003, 2004]


def test_missing_words_of_numbers(tmp_path):
    path = tmp_path / "panel.csv"
    path.write_text("\ufefffirm,year,first,y\n" + "".join(
        f"{firm},{year},{first},{'.' if (firm, year) == ('a', 0) else 'NA' if (firm, year) == ('b', 0) else year * k}\n"
        for k, (firm, first) in enumerate([("a", "2"), ("b", "inf"), ("NA", "NA")]) for year in range(4)
    ), encoding="utf-8")  # fmt: skip
    panel = load(settings(path=str(path)))
    assert panel.units.tolist() == ["NA", "a", "b"]
    assert panel.cohort.tolist() == [INF, 2, INF]
    assert panel.notes == ("2 rows dropped (y missing: 2)",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.csv", None, ["no file", "absent.csv", "check data.path"]),
        ("panel.txt", b"a,b", ["unknown ending", ".csv, .csv.gz, .parquet, .dta, .xlsx"]),
        ("panel.pkl.gz", b"x", ["unknown ending"]),
        ("empty.csv", b"", ["is empty"]),
        ("header.csv", b"firm,year,first,y\n", ["no rows"]),
        ("panel.csv", b"firm;year;first;y\na;1;2;3\n", ["single column", "separate the columns by commas"]),
        ("panel.csv", "firm,year,first,y\nä,1,2,3\n".encode("latin-1"), ["not UTF-8", "save it"]),
        ("panel.csv", b"firm,year\na,1\nb,2,3,4\n", ["cannot be read", "line 3"]),
        ("panel.parquet", b"nonsense", ["cannot be read"]),
        ("panel.xlsx", b"nonsense", ["cannot be read"]),
        ("panel.dta", b"nonsense", ["cannot be read"]),
        ("panel.csv.gz", b"nonsense", ["cannot be read"]),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PanelError) as error:
        load(settings(path=str(tmp_path / name)))
    assert [words for words in said if words not in str(error.value)] == [], str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "no data: give data.path"),
        ({"package": "no_such_package", "file": "a.csv"}, "no_such_package is not installed: pip install"),
        ({"package": "moderndid", "file": "../a.pkl.gz"}, "outside package moderndid"),
        ({"package": "moderndid", "file": "core/a.csv"}, "no file"),
    ],
)
def test_packages_that_cannot_be_read(changes, said):
    with pytest.raises(PanelError, match=said):
        read(settings(**changes))


# -------------------------------------------------------------------------------------------------------- presets


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
