"""What a user can get wrong: every check ends in a `PanelError` that names the problem, the rows and the remedy.

The settings come first, then the columns, their values, the rows together, and the outcome of those that are kept.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pandera.pandas as pa

from src.config import DataConfig
from src.panel import PanelError, count, some
from src.read import MISSING_WORDS, labels, numbers

RESERVED_WORDS = """
    time unit cohort event_time event_time_step chain draw exposure covariate mu path cell group_cell column level
    difference estimand group scale theta sigma alpha beta lambda_ tau gram moment square dof evidence delta_control
    delta_treated rows_per_event_time
"""
DERIVED_SUFFIXES = ("_late", "_effect", "_offset", "_deviation", "_slope", "_predictor")
TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": np.asarray,
    "log": np.log,
    "log1p": np.log1p,
    "asinh": np.arcsinh,
}


def check_settings(data: DataConfig) -> None:
    """Refuse settings that contradict each other or take a name that the model needs.

    Raises
    ------
    PanelError
    """
    if data.cohort and data.treated:
        raise PanelError("data.cohort and data.treated are both given: keep one and set the other to null")
    if not data.cohort and not data.treated:
        raise PanelError(
            "adoption is not given: set data.cohort to the column of first treated periods, "
            "or data.treated to a 0/1 column"
        )
    if data.transform not in TRANSFORMS:
        raise PanelError(f"data.transform={data.transform} is unknown: use one of {', '.join(TRANSFORMS)}")
    for setting, names in (("groups", data.groups), ("exposures", data.exposures)):
        for name in names:
            derived = setting == "groups" and any(
                name.endswith(suffix) and name.removesuffix(suffix) in names for suffix in DERIVED_SUFFIXES
            )
            if not name.strip() or any(mark in name for mark in ":@/[]") or name in RESERVED_WORDS.split() or derived:
                raise PanelError(
                    f"data.{setting}: the name {name!r} is reserved: rename it (not empty, none of : @ / [ ], "
                    f"not a word of the model such as mu, no other group's name with {', '.join(DERIVED_SUFFIXES)})"
                )
    strangers = [name for name in data.predictors if name not in data.groups]
    if strangers:
        raise PanelError(
            f"data.predictors names {some(strangers)}, which is no group: the groups are {some(data.groups) or 'none'}"
        )
    taken = [data.outcome, data.unit, data.time, data.cohort, data.treated, *data.covariates]
    twice = [name for name in dict.fromkeys(data.covariates) if taken.count(name) > 1]
    if twice:
        raise PanelError(f"data.covariates names {some(twice)}, which is used already: name each column once")


def settings_and_columns(data: DataConfig) -> list[tuple[str, str]]:
    """Every setting that names a column, with the column."""
    pairs = [
        ("data.unit", data.unit),
        ("data.time", data.time),
        ("data.cohort", data.cohort),
        ("data.treated", data.treated),
        ("data.outcome", data.outcome),
        *(("data.covariates", name) for name in data.covariates),
        ("data.weights", data.weights),
        *((f"data.groups.{key}", name) for key, name in data.groups.items()),
        *((f"data.exposures.{key}", name) for key, name in data.exposures.items()),
        *((f"data.predictors.{key}", name) for key, name in data.predictors.items()),
    ]
    return [(setting, name) for setting, name in pairs if name]


def check_columns(frame: pd.DataFrame, data: DataConfig) -> None:
    """Refuse a frame that is empty or lacks a column.

    Raises
    ------
    PanelError
        With the closest existing name.
    """
    if not len(frame):
        raise PanelError("the data have no rows: give one row for each unit and period")
    existing = [str(name) for name in frame.columns]
    missing = [(setting, name) for setting, name in settings_and_columns(data) if name not in frame.columns]
    if missing:
        close = {name: difflib.get_close_matches(name, existing, 1) for _, name in missing}
        wanted = [
            f"{name!r} ({setting}" + (f"; did you mean {close[name][0]!r}?)" if close[name] else ")")
            for setting, name in missing
        ]
        raise PanelError(f"no column {some(wanted)}: the columns are {some(existing, 30)}")
    twice = [name for _, name in settings_and_columns(data) if existing.count(name) > 1]
    if twice:
        raise PanelError(f"several columns are named {some(dict.fromkeys(twice))}: rename all but one")


@dataclass(frozen=True)
class Rule:
    """What every value of a column must satisfy.

    Attributes
    ----------
    problem : str
        Said of the values that do not.
    holds : callable
        Of the raw column and its numbers, both shape (row,); array of bool, shape (row,).
    """

    problem: str
    holds: Callable[[pd.Series, np.ndarray], np.ndarray]

    def check(self, setting: str, remedy: str) -> pa.Check:
        """The rule as a pandera check that carries the setting and the remedy."""

        def test(column: pd.Series) -> pd.Series:
            return pd.Series(self.holds(column, numbers(column)), index=column.index)

        return pa.Check(test, name=setting, title=self.problem, description=remedy, ignore_na=False)


def is_number_or_missing(raw: pd.Series, x: np.ndarray) -> np.ndarray:
    """Where a column holds a number or nothing, shape (row,)."""
    if pd.api.types.is_numeric_dtype(raw):
        return np.ones(len(raw), dtype=bool)
    return ~np.isnan(x) | (raw.isna() | raw.astype("str").str.strip().isin(MISSING_WORDS)).to_numpy()


NUMBER = Rule("is not a number", is_number_or_missing)
NOT_INFINITE = Rule("is infinite", lambda raw, x: ~np.isinf(x))
NOT_MISSING = Rule("is missing", lambda raw, x: ~np.isnan(x))
WHOLE = Rule("is not a whole number", lambda raw, x: ~np.isfinite(x) | (x == np.round(x)))
ZERO_OR_ONE = Rule("is neither 0 nor 1", lambda raw, x: np.isnan(x) | (x == 0) | (x == 1))
NOT_NEGATIVE = Rule("is negative", lambda raw, x: ~(x < 0))
ABOVE_MINUS_INFINITY = Rule("is minus infinity", lambda raw, x: x != -np.inf)
ABOVE_ZERO = Rule("is not above 0", lambda raw, x: ~(x <= 0))
ABOVE_MINUS_ONE = Rule("is not above -1", lambda raw, x: ~(x <= -1))
LABELLED = Rule("is empty", lambda raw, x: labels(raw).notna().to_numpy())


def rules_of(transform: str) -> dict[str, list[tuple[Rule, str]]]:
    """For each setting that names a column: the rules of its values in the order they are tried, with the remedy."""
    spare = "correct them, or leave them empty to have those rows dropped"
    positive = f"data.transform={transform} cannot take them: use another transform, or leave them empty"
    of_outcome = {"log": [(ABOVE_ZERO, positive)], "log1p": [(ABOVE_MINUS_ONE, positive)]}.get(transform, [])
    period = "give every row a period as a whole number, such as the year"
    adoption = "give the first treated period as a whole number; for never-treated units leave it empty, 0 or inf"
    weights = "give every row a finite weight of 0 or more"
    return {
        "data.unit": [(LABELLED, "name the unit of every row, or drop those rows")],
        "data.time": [(rule, period) for rule in (NUMBER, NOT_MISSING, NOT_INFINITE, WHOLE)],
        "data.cohort": [(rule, adoption) for rule in (NUMBER, WHOLE, ABOVE_MINUS_INFINITY)],
        "data.treated": [(rule, "write 1 for treated rows and 0 for the others") for rule in (NUMBER, ZERO_OR_ONE)],
        "data.outcome": [(NUMBER, spare), (NOT_INFINITE, spare), *of_outcome],
        "data.covariates": [(NUMBER, spare), (NOT_INFINITE, spare)],
        "data.weights": [(rule, weights) for rule in (NUMBER, NOT_MISSING, NOT_INFINITE, NOT_NEGATIVE)],
        "data.groups": [(LABELLED, "give them a level or drop them")],
        "data.exposures": [(LABELLED, "give them a level or drop them")],
        "data.predictors": [(rule, "give every level one number") for rule in (NUMBER, NOT_MISSING, NOT_INFINITE)],
    }


def check_values(frame: pd.DataFrame, data: DataConfig) -> None:
    """Refuse values that cannot be what their column means.

    Raises
    ------
    PanelError
        The first rule that is broken, with its rows.
    """
    rules = rules_of(data.transform)
    checks: dict[str, list[pa.Check]] = {}
    for setting, name in settings_and_columns(data):
        kind = ".".join(setting.split(".")[:2])
        checks.setdefault(name, []).extend(rule.check(setting, remedy) for rule, remedy in rules[kind])
    schema = pa.DataFrameSchema({name: pa.Column(None, tests, nullable=True) for name, tests in checks.items()})
    numbered = frame[list(checks)].set_axis(np.arange(1, len(frame) + 1))
    try:
        schema.validate(numbered)
    except pa.errors.SchemaError as error:
        raise PanelError(broken_rule(error)) from None
    if data.weights and not numbers(frame[data.weights]).any():
        raise PanelError(f"data.weights: column {data.weights!r} is 0 in every row: give weights above 0")


def broken_rule(error: pa.errors.SchemaError) -> str:
    """The message of a rule that some rows break; a value is shown unless it is missing."""
    rule, failures = error.check, error.failure_cases.sort_values("index")
    cases = []
    for row, value in zip(failures["index"], failures["failure_case"], strict=True):
        shown = repr(value) if isinstance(value, str) else str(value)
        cases.append(f"row {row}" if pd.isna(value) or value == "" else f"row {row}: {shown}")
    return (
        f"{rule.name}: column {error.schema.name!r} {rule.title} in {count(len(cases), 'row')} "
        f"({some(cases)}): {rule.description}"
    )


def check_duplicates(unit: np.ndarray, time: np.ndarray, units: np.ndarray, order: np.ndarray) -> None:
    """Refuse a unit with two rows in a period.

    Parameters
    ----------
    unit, time : array, shape (row,)
        Sorted by unit, then time.
    units : array of str, shape (unit,)
    order : array of int, shape (row,)
        Position of each row in the file.

    Raises
    ------
    PanelError
    """
    again = np.flatnonzero((unit[1:] == unit[:-1]) & (time[1:] == time[:-1])) + 1
    if len(again):
        cases = [f"unit {units[unit[k]]} in {time[k]}: rows {order[k - 1] + 1} and {order[k] + 1}" for k in again]
        raise PanelError(f"{count(len(again), 'duplicate row')} ({some(cases)}): keep one row for each unit and period")


def check_outcome(outcome: np.ndarray, unit: np.ndarray, name: str) -> None:
    """Refuse an outcome that does not vary within any unit.

    Raises
    ------
    PanelError
    """
    tiny = 1e-12 * max(np.abs(outcome).max(), 1e-300)
    start = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])
    within = np.maximum.reduceat(outcome, start) - np.minimum.reduceat(outcome, start)
    if within.max() <= tiny:
        where = "" if np.ptp(outcome) <= tiny else " within every unit"
        raise PanelError(
            f"data.outcome: column {name!r} is constant{where} in all {count(len(outcome), 'row')}: "
            "give an outcome that changes over time"
        )
