"""Every mistake is named with its rows and the remedy, whichever step finds it."""

import numpy as np
import pandas as pd
import pytest

from models import hier, nopool, pooled
from models.inputs import UNITLESS
from src import estimand
from src.collapse import collapse
from src.design import build_design
from src.exposure import row_shares
from src.panel import PanelError
from src.validate import DERIVED_SUFFIXES, RESERVED_WORDS
from tests.frames import INF, adoption, changed, coded, rising, tiny
from tests.worlds import WEAK, staggered

BAD = {
    "no adoption": (tiny(), {"cohort": None}, ["adoption is not given", "data.cohort", "data.treated"]),
    "two adoptions": (tiny(), {"treated": "x"}, ["both", "keep one"]),
    "missing column": (tiny(), {"outcome": "yy"}, ["'yy'", "data.outcome", "did you mean 'y'", "firm, year, first"]),
    "missing group": (tiny(), {"groups": {"industry": "idn"}}, ["'idn'", "data.groups.industry", "'ind'"]),
    "other case": (tiny(), {"outcome": "Y", "unit": "FIRM"}, ["did you mean 'y'", "did you mean 'firm'"]),
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
    "cohort of zeros and ones": (rising(a=1, b=1), {}, ["nothing but 0 and 1", "2000", "as data.treated"]),
    "cohort minus inf": (rising(a=2002, b=-INF), {}, ["minus infinity in 5 rows", "row 6"]),
    "group varies": (changed("ind", {3: "02"}), {"groups": {"industry": "ind"}},
                     ["over time in 1 unit", "unit a: 01 and 02", "data.membership=first", "data.membership=before"]),
    "exposure varies": (changed("ind", {3: "02"}), {"exposures": {"industry": "ind"}}, ["1 unit", "data.membership"]),
    "group empty": (changed("ind", {3: None, 9: " "}), {"groups": {"industry": "ind"}},
                    ["data.groups.industry", "empty in 2 rows", "row 3, row 9", "give them a level or drop them"]),
    "huge outcome": (changed("y", {5: 1e200}), {}, ["beyond 1e100 in 1 row (row 5: 1e+200)", "larger unit"]),
    "huge covariate": (changed("x", {5: -1e200}), {"covariates": ["x"]}, ["beyond 1e100", "larger unit"]),
    "tiny outcome": (tiny(y=lambda f: f["y"] * 1e-200), {}, ["varies by no more than", "smaller unit"]),
    "huge period": (tiny(year=lambda f: f["year"] * 1e15), {}, ["too large for a period in 20 rows", "as the year"]),
    "name of a folder": (tiny(), {"name": "../x"}, ["data.name='../x'", "without /"]),
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
    "treated rows unobserved": (tiny(y=lambda f: f["y"].where(~(f["year"] >= f["first"]))), {},
                                ["no treated row is left", "5 rows dropped (y missing: 5)", "fill in"]),
    "treated rows of weight 0": (tiny(w=lambda f: 1.0 - (f["year"] >= f["first"])), {"weights": "w"},
                                 ["no treated row is left", "weight 0: 5", "above 0"]),
    "untreated rows unobserved": (tiny(x=lambda f: f["x"].where(f["year"] >= f["first"])), {"covariates": ["x"]},
                                  ["no untreated row is left", "15 rows dropped (x missing: 15)", "fewer covariates"]),
    "no name of a column": (tiny(), {"outcome": ""}, ["data.outcome names no column", "say which"]),
    "no name of a group's column": (tiny(), {"groups": {"industry": ""}}, ["data.groups names no column"]),
    "no name of a covariate": (tiny(), {"covariates": [""]}, ["data.covariates names no column"]),
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


OF_THE_MODEL = ["path_effect", "path_length", "cohort_effect", "cell_deviation", "cell_late_offset", "mu_effect",
                "unit_effect", "exposure_slope", "difference_effect", "group_cell_effect"]  # fmt: skip
OF_RESULTS = ["att_by", "att_event", "att_cohort", "att_gt", "att_by_industry", "contrast_industry", "spill_treated",
              "spill_control", "spill_per_pp", "spill_per_pp_county", "sd_industry", "sd_path"]  # fmt: skip
OF_THE_NEXT_VERSION = ["unit_scale", "rho_unit", "nu_unit", "scale_unit", "shock_industry"]
UNFIT = ["a:b", "a@b", "a/b", "a[b", "b]", "", " ", " a"]


@pytest.mark.parametrize("name", [*RESERVED_WORDS.split(), *OF_THE_MODEL, *OF_RESULTS, *OF_THE_NEXT_VERSION, *UNFIT])
@pytest.mark.parametrize("setting", ["groups", "exposures"])
def test_reserved_names(setting, name):
    with pytest.raises(PanelError, match=rf"data.{setting}.*reserved.*rename"):
        coded(tiny(), **{setting: {name: "ind"}})


def test_words_of_the_next_version_are_reserved():
    assert {"unit", "rho", "nu", "scale", "shock", "lead", "overall", "total_events"} <= set(RESERVED_WORDS.split())


@pytest.mark.parametrize("name", ["nuts2", "number", "united", "rhone", "scaled", "attitude", "industry", "late"])
def test_names_that_only_resemble_reserved_ones_are_taken(name):
    assert set(coded(tiny(), groups={name: "ind"}, exposures={name: "ind"}).groups) == {name}


@pytest.mark.parametrize("suffix", [*DERIVED_SUFFIXES, "_late_effect", "_late_offset"])
def test_names_derived_from_a_group_are_reserved(suffix):
    for groups in (["industry", f"industry{suffix}"], [f"industry{suffix}", "industry"]):
        with pytest.raises(PanelError, match=rf"industry{suffix}.*reserved"):
            coded(tiny(), groups=dict.fromkeys(groups, "ind"))
    if suffix.endswith(UNITLESS):  # its spread would be kept without the unit of the outcome
        with pytest.raises(PanelError, match="no unit end with"):
            coded(tiny(), groups={f"industry{suffix}": "ind"})
    else:
        assert set(coded(tiny(), groups={f"industry{suffix}": "ind"}).groups) == {f"industry{suffix}"}


def names_in_a_run(groups: tuple[str, ...]) -> set[str]:
    """Names of all variables and dimensions of every model and of the estimands."""
    names: set[str] = set()
    panel = staggered(units=150, seed=1)
    collapsed = collapse(build_design(panel, row_shares(panel)[0])[0])
    regression, evidence = collapsed.regression, collapsed.evidence
    assert tuple(panel.groups) == groups
    for build, options in (
        (pooled.build, {}),
        (nopool.build, {}),
        (nopool.build, {"cells": "groups"}),
        (hier.build, {}),
        (hier.build, {"path": "gaussian_process", "tails": "student_t"}),
    ):
        model = build(regression.design, evidence.rescale(collapsed.s), WEAK, **options)
        names |= set(model.named_vars) | set(model.coords)
    found = estimand.averages(regression, evidence, ("mu", "path", *groups, "exposure", "difference"))
    kept = estimand.dataset(estimand.linear_scales(np.zeros((1, 2, len(found))), found, False)["outcome"])
    companions = {f"{name}_{group}" for name in ("total_events", "att_any", "att_given_any") for group in groups}
    return names | companions | set(kept.variables) | set(kept.dims)


def test_no_group_can_take_a_name_that_a_run_gives_to_something_else():
    groups = ("industry", "ownership")
    names = names_in_a_run(groups)
    assert {"sd_industry", "industry_late_effect", "att_by_ownership", "ownership_contrast", "path_length"} <= names
    for name in sorted(names - set(groups)):
        with pytest.raises(PanelError, match="is reserved"):
            coded(tiny(), groups=dict.fromkeys((*groups, name), "ind"))


def of_firms(**labels):
    """The tiny panel with a column for each word, one letter or label a firm, a to d."""
    return tiny(**{name: np.repeat(list(words), 5) for name, words in labels.items()})


def test_labels_that_make_two_cells_look_like_one_are_refused():
    frame = of_firms(k=["a:b", "a", "x", "x"], o=["c", "b:c", "c", "c"], v=list("pppp"))
    assert set(coded(frame, groups={"industry": "k"}).groups) == {"industry"}
    for groups in ({"industry": "k", "ownership": "o"}, {"industry": "k", "place": "v", "ownership": "o"}):
        with pytest.raises(PanelError, match="'a' with 'b:c' and 'a:b' with 'c' are both labelled 'a:b:c': rename"):
            coded(frame, groups=groups)
    plain = of_firms(k=["C:1", "C:2", "C:1", "C:2"], o=["p", "s", "s", "p"])
    assert coded(plain, groups={"industry": "k", "ownership": "o"}).groups["industry"].levels == ("C:1", "C:2")


def test_labels_that_collide_only_over_all_groups_are_refused():
    frame = of_firms(k=["a:b", "a", "x", "x"], o=["c", "b", "c", "c"], v=["d", "c:d", "d", "d"])
    for pair in ("ko", "kv", "ov"):
        assert len(coded(frame, groups=dict(zip(pair, pair, strict=True))).groups) == 2
    with pytest.raises(
        PanelError, match="of k and o and v, 'a' with 'b' with 'c:d' and 'a:b' with 'c' with 'd' are both"
    ):
        coded(frame, groups={"k": "k", "o": "o", "v": "v"})
