"""What a user can get wrong: every check ends in a `PanelError` that names the problem, the rows and the remedy.

The settings come first, then the columns, their values, the rows together, and the outcome of those that are kept.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import pandera.pandas as pa

from models.inputs import UNITLESS
from src.config import DataConfig, ExposureConfig, exposure_entries
from src.panel import LESS, OVER, Factor, Panel, PanelError, count, first_rows, some
from src.read import MISSING_WORDS, labels, numbers

MARKS = ":@/[]"  # with which labels and paths are put together
RESERVED_WORDS = """
    chain draw column obs estimand group level arm
    unit units time cohort event_time event_time_step lead_time cell group_cell exposure covariate outcome weight
    mu path difference theta sigma alpha beta lambda_ tau delta_control delta_treated s rho nu scale scales shock shocks
    trait fixed gram moment square dof evidence rows_per_event_time covariate_sd exposure_sd exposure_centre
    equation equation_beside equation_pair outcome_pair
    att direct switching contrast overall lead total_treated total_events
"""
RESERVED_BEGINNINGS = (
    "sd_",
    "att_",
    "contrast_",
    "spill_",
    "unit_",
    "rho_",
    "nu_",
    "scale_",
    "shock_",
    "trait_",
    "total_",
    "earlier_",
    "natural_",
)
HUGE = 1e100  # squares of larger numbers overflow
LAST_PERIOD = 2**53  # larger whole numbers are not told apart as floats
DERIVED_SUFFIXES = (
    "_late",
    "_partial",
    "_tied",
    "_correlation",
    "_width",
    "_effect",
    "_offset",
    "_deviation",
    "_slope",
    "_predictor",
    "_contrast",
    "_length",
)
OWN_TERMS = (
    "mu",
    "path",
    "cohort",
    "cell",
    "group_cell",
    "unit",
    "exposure",
    "difference",
    "kernel",
    "kernel_any",
    "kernel_number",
    "earlier",
    "covariate",
    "time",
    "fixed",
)
LEARNED = "learned"
EXPOSURE_KINDS: dict[str, tuple[str, ...]] = {  # with what each of them needs
    "share": (),
    "ring": ("latitude", "longitude"),
    "kernel": ("latitude", "longitude", "scale"),
    LEARNED: ("latitude", "longitude", "cutoff"),
    "neighbours": ("latitude", "longitude"),
    "weights": (),
}
EXPOSURE_OPTIONS: dict[str, tuple[str, ...]] = {
    "share": (),
    "ring": (),
    "kernel": ("cutoff",),
    LEARNED: (),
    "neighbours": (),
    "weights": ("between",),
}
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
    if not data.name.strip(". ") or "/" in data.name:
        raise PanelError(f"data.name={data.name!r} cannot name a folder of runs: give a word without /")
    if data.transform not in TRANSFORMS:
        raise PanelError(f"data.transform={data.transform} is unknown: use one of {', '.join(TRANSFORMS)}")
    empty = [f"data.{word}" for word in ("unit", "time", "outcome") if not getattr(data, word)]
    empty += [f"data.{word}" for word in ("groups", "predictors") if "" in getattr(data, word).values()]
    empty += [f"data.exposures.{name}" for name, entry in data.exposures.items() if entry == ""]
    lists = ("covariates", "fixed_effects", "mediators", "outcomes")
    empty += [f"data.{word}" for word in lists if "" in getattr(data, word)]
    if empty:
        raise PanelError(f"{some(empty)} names no column: say which column of the file it is")
    for name in data.groups:
        check_name("groups", name, (*OWN_TERMS, *(other for other in data.groups if other != name)))
    for name in data.exposures:
        check_name("exposures", name, OWN_TERMS)
    for name, entry in exposure_entries(data).items():
        check_exposure(name, entry)
        if entry.by and entry.by not in data.groups:
            raise PanelError(
                f"data.exposures.{name}: by={entry.by} is no group: the groups are {some(data.groups) or 'none'}"
            )
    learned = [name for name, entry in exposure_entries(data).items() if entry.kernel == "learned"]
    if len(learned) > 1:
        raise PanelError(f"data.exposures {' and '.join(learned)}: only one kernel can be learned; give others a scale")
    strangers = [name for name in data.predictors if name not in data.groups]
    if strangers:
        raise PanelError(
            f"data.predictors names {some(strangers)}, which is no group: the groups are {some(data.groups) or 'none'}"
        )
    taken = [data.outcome, data.unit, data.time, data.cohort, data.treated, *data.covariates]
    check_once("covariates", data.covariates, taken, "")
    held = " (a covariate, which is held fixed, cannot be an outcome as well)"
    for setting in ("mediators", "outcomes"):
        check_once(setting, getattr(data, setting), [*taken, *data.mediators, *data.outcomes], held)
        for name in getattr(data, setting):
            check_name(setting, name, OWN_TERMS)


def check_once(setting: str, names: list[str], taken: list[str | None], why: str) -> None:
    """Refuse a column that is something else already; `why` follows the remedy.

    Raises
    ------
    PanelError
    """
    twice = [name for name in dict.fromkeys(names) if taken.count(name) > 1]
    if twice:
        raise PanelError(f"data.{setting} names {some(twice)}, which is used already: name each column once{why}")


def check_exposure(name: str, entry: ExposureConfig) -> None:
    """Refuse an exposure that says too little, too much, or two things at once.

    Raises
    ------
    PanelError
    """
    kinds = [kind for kind in EXPOSURE_KINDS if getattr(entry, kind, None)]
    setting = f"data.exposures.{name}"
    if len(kinds) != 1:
        said = f"names {' and '.join(kinds)}" if kinds else "names no kind of exposure"
        known = ", ".join(kind for kind in EXPOSURE_KINDS if kind != LEARNED)
        raise PanelError(f"{setting} {said}: give exactly one of {known}")
    kind = LEARNED if entry.kernel == LEARNED else kinds[0]
    words = "kernel=learned" if kind == LEARNED else kind
    needed = EXPOSURE_KINDS[kind]
    missing = [word for word in needed if not getattr(entry, word)]
    if missing:
        raise PanelError(f"{setting}: {words} needs {' and '.join(missing)}")
    more = () if kind == LEARNED else ("form", "size", "by")
    allowed = {kinds[0], *needed, *EXPOSURE_OPTIONS[kind], "lag", *more}
    idle = [word for word, value in vars(entry).items() if value and word not in allowed]
    if idle:
        raise PanelError(f"{setting}: {words} has no use for {' and '.join(idle)}: take it out")
    forms = ("share", "additive") if kind == "share" or entry.between else ("share", "additive", "nearest")
    if entry.form and entry.form not in forms:
        raise PanelError(f"{setting}: form={entry.form} needs ties between units; use {' or '.join(forms)}")
    if entry.ring and not (len(entry.ring) == 2 and 0 <= entry.ring[0] < entry.ring[1]):
        raise PanelError(f"{setting}: ring={entry.ring} is to be two distances in kilometres, as in [0, 80]")


def check_name(setting: str, name: str, terms: tuple[str, ...]) -> None:
    """Refuse a name that the model or its results give to something else.

    Parameters
    ----------
    setting : {"groups", "exposures", "mediators", "outcomes"}
    name : str
    terms : tuple of str
        Terms of the model beside this one, from whose names others are derived.

    Raises
    ------
    PanelError
    """
    owners = [*terms, *(f"{term}_late" for term in terms)]
    owner = next((term for term in owners for suffix in DERIVED_SUFFIXES if name == term + suffix), None)
    reason = None
    if not name or name != name.strip():
        reason = "it is empty, or has blanks at its ends"
    elif any(mark in name for mark in MARKS):
        reason = f"labels are put together with {' '.join(MARKS)}"
    elif name in RESERVED_WORDS.split():
        reason = "a word of the model and its tables"
    elif name.startswith(RESERVED_BEGINNINGS):
        reason = f"the model's own names begin with {', '.join(RESERVED_BEGINNINGS)}"
    elif setting in ("mediators", "outcomes") and any(word in name for word in (LESS, OVER)):
        reason = "results put the names of two outcomes together with ' - ' and ' in '"
    elif owner:
        reason = f"the model's own name for a part of {owner}"
    elif name.endswith(UNITLESS):
        reason = f"the model's names of what has no unit end with {', '.join(UNITLESS)}"
    if reason:
        raise PanelError(f"data.{setting}: the name {name!r} is reserved ({reason}): rename it; its column may stay")


def settings_and_columns(data: DataConfig) -> list[tuple[str, str]]:
    """Every setting that names a column, with the column."""
    of_exposures = [
        (f"data.exposures.{key}" + ("" if word in ("share", "between") else f".{word}"), getattr(entry, word))
        for key, entry in exposure_entries(data).items()
        for word in ("share", "between", "latitude", "longitude", "size")
    ]
    pairs = [
        ("data.unit", data.unit),
        ("data.time", data.time),
        ("data.cohort", data.cohort),
        ("data.treated", data.treated),
        ("data.outcome", data.outcome),
        *(("data.covariates", name) for name in data.covariates),
        *(("data.mediators", name) for name in data.mediators),
        *(("data.outcomes", name) for name in data.outcomes),
        ("data.offset", data.offset),
        ("data.weights", data.weights),
        *(("data.fixed_effects", name) for name in data.fixed_effects),
        *((f"data.groups.{key}", name) for key, name in data.groups.items()),
        *of_exposures,
        *((f"data.predictors.{key}", name) for key, name in data.predictors.items()),
    ]
    return [(setting, name) for setting, name in pairs if name]


def check_columns(frame: pd.DataFrame, data: DataConfig) -> None:
    """Refuse a frame that is empty or lacks a column; see `check_named`."""
    check_named(frame, settings_and_columns(data))


def check_named(frame: pd.DataFrame, named: list[tuple[str, str]]) -> None:
    """Refuse a frame that is empty or lacks a column that a setting names.

    Parameters
    ----------
    frame : DataFrame
    named : list of (str, str)
        Settings with the columns that they name.

    Raises
    ------
    PanelError
        With the closest existing name.
    """
    if not len(frame):
        raise PanelError("the data have no rows: give one row for each unit and period")
    existing = [str(name) for name in frame.columns]
    missing = [(setting, name) for setting, name in named if name not in frame.columns]
    if missing:
        close = {name: closest_column(name, existing) for _, name in missing}
        wanted = [
            f"{name!r} ({setting}" + (f"; did you mean {close[name]!r}?)" if close[name] else ")")
            for setting, name in missing
        ]
        raise PanelError(f"no column {some(wanted)}: the columns are {some(existing, 30)}")
    twice = [name for _, name in named if existing.count(name) > 1]
    if twice:
        raise PanelError(f"several columns are named {some(dict.fromkeys(twice))}: rename all but one")


def closest_column(name: str, existing: list[str]) -> str | None:
    """The existing column whose name is closest, whatever its case; None where none is close."""
    lower = {column.casefold(): column for column in existing}
    close = difflib.get_close_matches(name.casefold(), list(lower), 1)
    return lower[close[0]] if close else None


@dataclass(frozen=True)
class Rule:
    """What every value of a column must satisfy.

    Attributes
    ----------
    problem : str
        Said of the values that do not.
    holds : callable
        Of the raw column and its numbers, both shape (row,); array of bool, shape (row,).
    of_text : bool
        The rule does not look at the numbers.
    """

    problem: str
    holds: Callable[[pd.Series, np.ndarray], np.ndarray]
    of_text: bool = False

    def check(self, setting: str, remedy: str) -> pa.Check:
        """The rule as a pandera check that carries the setting and the remedy."""

        def test(column: pd.Series) -> pd.Series:
            values = np.zeros(0) if self.of_text else numbers(column)
            return pd.Series(self.holds(column, values), index=column.index)

        return pa.Check(test, name=setting, title=self.problem, description=remedy, ignore_na=False)


def is_number_or_missing(raw: pd.Series, x: np.ndarray) -> np.ndarray:
    """Where a column holds a number or nothing, shape (row,)."""
    if pd.api.types.is_numeric_dtype(raw):
        return np.ones(len(raw), dtype=bool)
    return ~np.isnan(x) | (raw.isna() | raw.astype("str").str.strip().isin(MISSING_WORDS)).to_numpy()


NUMBER = Rule("is not a number", is_number_or_missing)
NOT_INFINITE = Rule("is infinite", lambda raw, x: ~np.isinf(x))
NOT_HUGE = Rule("is beyond 1e100", lambda raw, x: ~(np.abs(x) > HUGE) | np.isinf(x))
A_PERIOD = Rule("is too large for a period", lambda raw, x: ~(np.abs(x) > LAST_PERIOD) | np.isinf(x))
NOT_MISSING = Rule("is missing", lambda raw, x: ~np.isnan(x))
WHOLE = Rule("is not a whole number", lambda raw, x: ~np.isfinite(x) | (x == np.round(x)))
ZERO_OR_ONE = Rule("is neither 0 nor 1", lambda raw, x: np.isnan(x) | (x == 0) | (x == 1))
NOT_NEGATIVE = Rule("is negative", lambda raw, x: ~(x < 0))
ABOVE_MINUS_INFINITY = Rule("is minus infinity", lambda raw, x: x != -np.inf)
ABOVE_ZERO = Rule("is not above 0", lambda raw, x: ~(x <= 0))
ABOVE_MINUS_ONE = Rule("is not above -1", lambda raw, x: ~(x <= -1))
LABELLED = Rule("is empty", lambda raw, x: labels(raw).notna().to_numpy(), of_text=True)


FINITE = (NUMBER, NOT_MISSING, NOT_INFINITE, NOT_HUGE)
LATITUDE = Rule("is not from -90 to 90", lambda raw, x: ~(np.abs(x) > 90))
LONGITUDE = Rule("is not from -180 to 360", lambda raw, x: ~((x < -180) | (x > 360)))


def rules_of(transform: str) -> dict[str, list[tuple[Rule, str]]]:
    """For each setting that names a column: the rules of its values in the order they are tried, with the remedy."""
    spare = "correct them, or leave them empty to have those rows dropped"
    smaller = "give the column in a larger unit, or leave them empty to have those rows dropped"
    positive = f"data.transform={transform} cannot take them: use another transform, or leave them empty"
    of_outcome = {"log": [(ABOVE_ZERO, positive)], "log1p": [(ABOVE_MINUS_ONE, positive)]}.get(transform, [])
    period = "give every row a period as a whole number, such as the year"
    adoption = "give the first treated period as a whole number; for never-treated units leave it empty, 0 or inf"
    weights = "give every row a finite weight of 0 or more"
    return {
        "data.unit": [(LABELLED, "name the unit of every row, or drop those rows")],
        "data.time": [(rule, period) for rule in (NUMBER, NOT_MISSING, NOT_INFINITE, WHOLE, A_PERIOD)],
        "data.cohort": [(rule, adoption) for rule in (NUMBER, WHOLE, ABOVE_MINUS_INFINITY, A_PERIOD)],
        "data.treated": [(rule, "write 1 for treated rows and 0 for the others") for rule in (NUMBER, ZERO_OR_ONE)],
        "data.outcome": [(NUMBER, spare), (NOT_INFINITE, spare), (NOT_HUGE, smaller), *of_outcome],
        "data.outcomes": [(NUMBER, spare), (NOT_INFINITE, spare), (NOT_HUGE, smaller), *of_outcome],
        "data.mediators": [(NUMBER, spare), (NOT_INFINITE, spare), (NOT_HUGE, smaller)],
        "data.covariates": [(NUMBER, spare), (NOT_INFINITE, spare), (NOT_HUGE, smaller)],
        "data.weights": [(rule, weights) for rule in (NUMBER, NOT_MISSING, NOT_INFINITE, NOT_HUGE, NOT_NEGATIVE)],
        "data.offset": [
            (rule, "give every row an exposure to risk above 0, such as its population")
            for rule in (NUMBER, NOT_MISSING, NOT_INFINITE, NOT_HUGE, ABOVE_ZERO)
        ],
        "data.groups": [(LABELLED, "give them a level or drop them")],
        "data.fixed_effects": [(LABELLED, "give them a level or drop them")],
        "data.exposures": [(LABELLED, "give them a level or drop them")],
        **{
            f"data.exposures.{word}": [(rule, f"give every unit a {word} in degrees") for rule in (*FINITE, within)]
            for word, within in (("latitude", LATITUDE), ("longitude", LONGITUDE))
        },
        "data.exposures.size": [(rule, "give every unit a size of 0 or more") for rule in (*FINITE, NOT_NEGATIVE)],
        "data.predictors": [
            (rule, "give every level one number") for rule in (NUMBER, NOT_MISSING, NOT_INFINITE, NOT_HUGE)
        ],
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
        first, second, *rest = setting.split(".")
        kind = ".".join([first, second, *rest[1:]]) if second == "exposures" else f"{first}.{second}"
        checks.setdefault(name, []).extend(rule.check(setting, remedy) for rule, remedy in rules[kind])
    schema = pa.DataFrameSchema({name: pa.Column(None, tests, nullable=True) for name, tests in checks.items()})
    numbered = frame[list(checks)]
    numbered = numbered.set_axis(numbered.index.to_numpy() + 1)
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


def check_joint_labels(groups: dict[str, Factor]) -> None:
    """Refuse levels with colons that make two cells of an interaction look like one, as "a:b" + "c" and "a" + "b:c".

    Parameters
    ----------
    groups : dict of str to Factor
        Over the units of the panel.

    Raises
    ------
    PanelError
    """
    if len(groups) < 2 or not any(":" in level for group in groups.values() for level in group.levels):
        return
    for chosen in (*combinations(groups.values(), 2), tuple(groups.values())):
        cells: dict[str, tuple[str, ...]] = {}
        for cell in set(zip(*(np.array(group.levels)[group.code].tolist() for group in chosen), strict=True)):
            other = cells.setdefault(":".join(cell), cell)
            if other != cell:
                pairs = [" with ".join(repr(level) for level in levels) for levels in sorted((cell, other))]
                raise PanelError(
                    f"data.groups: of {' and '.join(group.name for group in chosen)}, {pairs[0]} and {pairs[1]} are "
                    f"both labelled {':'.join(cell)!r}: rename these levels so that they have no colon"
                )


def check_cohorts(cohort: np.ndarray, first: int, name: str) -> None:
    """Refuse a column of zeros and ones in the place of first treated periods.

    Parameters
    ----------
    cohort : array, shape (cohort,)
        inf where never treated.
    first : int
        Period.
    name : str
        Column, for the message.

    Raises
    ------
    PanelError
    """
    periods = cohort[np.isfinite(cohort)]
    if len(periods) and (periods == 1).all() and first > 1:
        raise PanelError(
            f"data.cohort: column {name!r} holds nothing but 0 and 1, and the first period is {first}: give the "
            "first treated period of each unit, or a column that is 1 in treated rows as data.treated"
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


@dataclass(frozen=True)
class Range:
    """Least and greatest outcome, and the widest range within a unit; adds up over units."""

    low: float
    high: float
    widest: float
    rows: int

    def __add__(self, other: Range) -> Range:
        low, high, widest = min(self.low, other.low), max(self.high, other.high), max(self.widest, other.widest)
        return Range(low, high, widest, self.rows + other.rows)


def range_of(outcome: np.ndarray, unit: np.ndarray) -> Range:
    """The range of the outcome; a unit's rows are together."""
    if not len(outcome):
        return Range(np.inf, -np.inf, 0.0, 0)
    start = first_rows(unit)
    within = np.maximum.reduceat(outcome, start) - np.minimum.reduceat(outcome, start)
    return Range(float(outcome.min()), float(outcome.max()), float(within.max()), len(outcome))


def check_outcome(found: Range, name: str) -> None:
    """Refuse an outcome that does not vary within any unit.

    Raises
    ------
    PanelError
    """
    tiny = 1e-12 * max(abs(found.low), abs(found.high), 1e-300)
    if found.widest <= tiny:
        where = "" if found.high - found.low <= tiny else " within every unit"
        raise PanelError(
            f"data.outcome: column {name!r} is constant{where} in all {count(found.rows, 'row')}: "
            "give an outcome that changes over time"
        )
    if found.widest < 1 / HUGE:
        raise PanelError(
            f"data.outcome: column {name!r} varies by no more than {found.widest:.3g} within a unit: give it in a "
            "smaller unit"
        )


def check_counts(panel: Panel, transform: str, weights: str | None) -> None:
    """Refuse outcomes that are no counts, or what a likelihood of counts cannot take.

    Raises
    ------
    PanelError
    """
    if transform != "none":
        raise PanelError(f"data.transform={transform}: a likelihood of counts takes them as they are: use none")
    if weights:
        raise PanelError(
            f"data.weights={weights}: counts have no weights yet: set it to null, or use likelihood=gaussian"
        )
    for name, values in {"data.outcome": panel.outcome, **panel.others}.items():
        for problem, wrong in (("negative", values < 0), ("not a whole number", values != np.round(values))):
            rows = np.flatnonzero(wrong)
            if len(rows):
                raise PanelError(
                    f"{name} is {problem} in {count(len(rows), 'row')} ({cases(panel, values, rows)}), so it is no "
                    "count: correct them, or use likelihood=gaussian"
                )


def check_parts(panel: Panel) -> None:
    """Refuse a count beside the outcome that is no part of it, or that is all of it or nothing in every unit.

    Raises
    ------
    PanelError
    """
    for name, values in panel.others.items():
        rows = np.flatnonzero(values > panel.outcome)
        if len(rows):
            raise PanelError(
                f"{name} is larger than data.outcome in {count(len(rows), 'row')} ({cases(panel, values, rows)}): of "
                "counts, an outcome of data.outcomes is a part of data.outcome: name another, or use model=hier for "
                "each of them"
            )
        of_units, of_whole = np.bincount(panel.unit, values), np.bincount(panel.unit, panel.outcome)
        adopts = np.isfinite(panel.cohort)
        tells = (of_units > 0) & (of_units < of_whole)
        if not tells.any():
            raise PanelError(
                f"{name} is all of data.outcome, or nothing of it, in every unit, so its share tells nothing: name "
                "another column"
            )
        if not (adopts & tells).any():
            raise PanelError(
                f"no adopter has both events that are {name} and others, so the effect on its share cannot be told: "
                "name another column, or use model=hier"
            )


def cases(panel: Panel, values: np.ndarray, rows: np.ndarray) -> str:
    """The first few rows with a value, in words."""
    return some(f"unit {panel.units[panel.unit[r]]} in {panel.time[r]}: {values[r]:g}" for r in rows)
