"""The model's rows and their classical twins in one table."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from src.compare import beside, compare, is_fixed, unequal_weights, with_twins
from src.estimators import estimate
from src.frequentist import COLUMNS
from src.panel import Factor, Panel, Roster
from tests.test_figure import ATT, EVERYTHING, comparison_of, table_of

ESTIMANDS = [
    *("estimand", "group", "level", "scale", "mean", "sd", "median", "low", "high", "prob", "p_positive", "ess_bulk"),
    *("ess_tail", "r_hat", "mcse_mean", "n_units", "n_obs", "truth", "note"),
]


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Forty units over fourteen periods, adopters at 3, so that event times run to 11."""
    rng = np.random.default_rng(0)
    unit, time = np.repeat(np.arange(40), 14), np.tile(np.arange(1, 15), 40)
    cohort = np.where(np.arange(40) < 15, 3.0, np.inf)
    return Panel(
        name="small",
        unit=unit,
        time=time,
        outcome=rng.normal(size=unit.size),
        weight=np.ones(unit.size),
        covariates=np.zeros((unit.size, 0)),
        covariate_names=(),
        units=np.arange(40).astype(str),
        cohort=cohort,
        groups={"ownership": Factor("ownership", ("private", "state"), np.arange(40) % 2)},
        predictors={},
        roster=Roster(cohort, {}, np.arange(40)),
        is_log=False,
        sha256="",
    )


@pytest.fixture(scope="module")
def estimands() -> pd.DataFrame:
    """Event times before the average, and an estimand that no classical estimator has."""
    keys = [("att_event", None, str(e)) for e in range(12)]
    keys += [("att", None, None), ("overall", None, None), ("att_by", "ownership", "state")]
    rows = [
        dict.fromkeys(ESTIMANDS, 1.0)
        | {"estimand": estimand, "group": group, "level": level, "scale": "outcome", "note": None, "n_obs": 7}
        | {"mean": float(j), "sd": 0.5, "low": j - 1.0, "high": j + 1.0, "prob": 0.9}
        for j, (estimand, group, level) in enumerate(keys)
    ]
    return pd.DataFrame(rows, columns=ESTIMANDS)


@pytest.fixture(scope="module")
def table(estimands, panel) -> pd.DataFrame:
    return compare({"hier": estimands}, estimate(panel, {}, 0.9, ["etwfe", "twfe"]))


def test_columns_and_all_rows_of_both(table, estimands, panel):
    assert list(table.columns) == COLUMNS
    classical = estimate(panel, {}, 0.9, ["etwfe", "twfe"])
    assert len(table) == len(estimands) + len(classical)
    model = table[table.estimator == "hier"]
    assert list(model.estimate) == list(estimands["mean"])
    assert set(model.se) == {0.5}
    keys = ["estimator", "estimand", "group", "level", "scale"]
    twins = table[table.estimator != "hier"].sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(twins, classical.sort_values(keys, ignore_index=True))


def test_twins_stand_together_the_model_first(table):
    order = ["att_event", "att", "overall", "att_by", "att_gt", "att_cohort", "contrast"]
    assert list(dict.fromkeys(table.estimand)) == order
    events = table[table.estimand == "att_event"]
    assert list(events.level[::2]) == [str(e) for e in range(12)]
    assert list(events.estimator) == ["hier", "etwfe"] * 12
    assert list(table.estimator[table.estimand == "att"]) == ["hier", "etwfe", "twfe"]
    by = table[table.estimand == "att_by"]
    assert list(zip(by.level, by.estimator, strict=True)) == [("state", "hier"), ("state", "twfe"), ("private", "twfe")]


def test_each_estimand_is_one_block(table):
    changes = (table.estimand != table.estimand.shift()).sum()
    assert changes == table.estimand.nunique()
    pd.testing.assert_frame_equal(beside(table), table)


def test_fields_that_do_not_apply_are_empty_in_the_file(table):
    text = table.to_csv(index=False)
    row = next(line for line in text.splitlines() if line.startswith("att,"))
    assert row.startswith("att,,,outcome,hier,12.0,0.5,11.0,13.0,0.9,7,")
    assert list(pd.read_csv(StringIO(text)).columns) == COLUMNS


def test_arguments_are_left_as_they_are(estimands, panel):
    before = estimands.copy(deep=True)
    compare({"hier": estimands}, estimate(panel, {}, 0.9, []))
    pd.testing.assert_frame_equal(estimands, before)


def test_the_twin_is_the_closest_classical_estimate_of_the_same_estimand():
    table = table_of(EVERYTHING)
    rows = with_twins(table, comparison_of(table), "percent").set_index(["estimand", "group", "level"])
    assert len(rows) == len(EVERYTHING)
    assert rows.loc[("att", "", ""), "estimator"] == "twfe_exposures"
    assert rows.loc[("att_event", "", "3"), "estimator"] == "etwfe"
    np.testing.assert_allclose(rows["estimate"], rows["mean"])
    without = with_twins(table_of([ATT]), comparison_of(table_of([ATT])), "percent")
    assert list(without["estimator"]) == ["etwfe"]


def test_the_model_is_not_its_own_twin_and_what_could_not_run_is_none():
    table = table_of([ATT])
    comparison = comparison_of(table)
    comparison.loc[comparison["estimator"] == "etwfe", "estimate"] = np.nan
    assert list(with_twins(table, comparison, "percent")["estimator"]) == ["twfe"]
    alone = with_twins(table, comparison[comparison["estimator"] == "hier"], "percent")
    assert alone["estimate"].isna().all()


def test_what_the_model_fixes_is_known_by_its_note_or_its_spread():
    table = table_of([ATT] * 5).query("scale == 'outcome'").reset_index(drop=True)
    table["note"] = [None, "fixed by the model: one effect for all; more", "linear extrapolation", None, np.nan]
    table["sd"] = [1.0, 1.0, 1.0, 0.0, np.nan]
    assert list(is_fixed(table)) == [False, True, False, True, False]


@pytest.mark.parametrize(("rival", "said"), [(0.40, False), (0.80, True)])
def test_weights_that_move_the_answer_are_said(rival, said):
    table = table_of([ATT])
    comparison = comparison_of(table)
    mine = comparison[(comparison["estimator"] == "hier") & (comparison["estimand"] == "att")]
    other = mine.assign(estimator="hier_common_scale", estimate=mine["estimate"] + (rival - 0.38) * 10 * mine["se"])
    sentence = unequal_weights(pd.concat([comparison, other], ignore_index=True))
    assert bool(sentence) is said
    assert unequal_weights(comparison) == ""
