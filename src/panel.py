"""The panel: read, check and encode a file of unit-period rows.

    file ──read──▶ DataFrame ──encode──▶ Panel

What is wrong ends in a `PanelError` that names the problem, the rows and the remedy; what can be handled is handled
and said in `Panel.notes`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from src.config import DataConfig


class PanelError(ValueError):
    """A user's mistake: the problem, the rows, the remedy, in one message."""


@dataclass(frozen=True)
class Factor:
    """A classification of units that does not change over time.

    Attributes
    ----------
    name : str
        Name of the group or exposure, e.g. "industry".
    levels : tuple of str
        Sorted labels.
    code : array of int, shape (unit,)
        Level of each unit, as a position in `levels`.
    """

    name: str
    levels: tuple[str, ...]
    code: np.ndarray


@dataclass(frozen=True)
class Roster:
    """Every unit ever in the file, also those that the likelihood leaves out: who can expose others.

    Attributes
    ----------
    cohort : array of float, shape (member,)
        First treated period; inf where never treated.
    members : dict of str to array of int, shape (member,)
        For each exposure, the group of each unit.
    weight : array of float, shape (member,)
        Mean weight of each unit (ones without weights).
    position : array of int, shape (unit,)
        Where each unit of the panel stands in the roster.
    """

    cohort: np.ndarray
    members: dict[str, np.ndarray]
    weight: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Truth:
    """What a generator knows.

    Attributes
    ----------
    tau : array, shape (row,)
        Effect of own adoption at zero exposure, for treated rows (0 elsewhere).
    slope_control, slope_treated : dict of str to float
        Effect per unit share of each exposure.
    """

    tau: np.ndarray
    slope_control: dict[str, float]
    slope_treated: dict[str, float]


@dataclass(frozen=True)
class Panel:
    """Unit-period rows sorted by unit, then time; complete in outcome and covariates.

    Attributes
    ----------
    unit : array of int, shape (row,)
        Position in `units`.
    time : array of int, shape (row,)
        Calendar period.
    outcome : array of float, shape (row,)
        After the transform.
    weight : array of float, shape (row,)
        Sampling weights with mean one over rows.
    covariates : array of float, shape (row, covariate)
    units : array of str, shape (unit,)
    cohort : array of float, shape (unit,)
        First treated period; inf where never treated.
    groups : dict of str to Factor
        Pooled factors.
    predictors : dict of str to array of float, shape (level,)
        Group-level predictor of a group, one value a level.
    roster : Roster
    is_log : bool
        Effects are log points, so a percent scale exists.
    sha256 : str
        Of the data that were read.
    notes : tuple of str
        One line for each thing that was handled.
    truth : Truth, optional
    """

    name: str
    unit: np.ndarray
    time: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    covariates: np.ndarray
    covariate_names: tuple[str, ...]
    units: np.ndarray
    cohort: np.ndarray
    groups: dict[str, Factor]
    predictors: dict[str, np.ndarray]
    roster: Roster
    is_log: bool
    sha256: str
    notes: tuple[str, ...] = ()
    truth: Truth | None = None

    @property
    def periods(self) -> np.ndarray:
        """Calendar periods that occur, sorted."""
        return np.unique(self.time)

    @property
    def row_cohort(self) -> np.ndarray:
        """First treated period of each row's unit, shape (row,); inf where never treated."""
        return self.cohort[self.unit]

    @property
    def treated(self) -> np.ndarray:
        """D, shape (row,): True from the cohort's period on."""
        return self.time >= self.row_cohort

    @property
    def event_time(self) -> np.ndarray:
        """e = t - g, shape (row,); -inf where never treated."""
        return self.time - self.row_cohort


MISSING_WORDS = ("", ".", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")
OWN_ENDINGS: tuple[str, ...] = (".csv", ".csv.gz", ".parquet", ".dta", ".xlsx")
PACKAGE_ENDINGS = (*OWN_ENDINGS, ".csv.bz2", ".pkl.gz")  # pickles run code, so never from a user's path
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


def load(data: DataConfig) -> Panel:
    """Read and encode the panel that `data` describes: see `read` and `encode`."""
    frame, sha256 = read(data)
    return encode(frame, data, sha256)


def read(data: DataConfig) -> tuple[pd.DataFrame, str]:
    """The file that `data` names, and the sha256 of its bytes.

    Units, groups and exposures are read as text, so "01" and "NA" stay labels and only an empty field is missing. In
    the other columns the usual words for a missing number count ("NA", "." and the like).

    Parameters
    ----------
    data : DataConfig
        `path`, or `package` and `file` for a panel that an installed package carries (found without importing it).

    Returns
    -------
    frame : DataFrame
        All columns of the file.
    sha256 : str

    Raises
    ------
    PanelError
        No file, an empty file, an unknown ending, an unreadable file.
    """
    path = locate(data)
    texts = {data.unit, *data.groups.values(), *data.exposures.values()}
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        frame = parse(path, texts)
        frame = frame.reset_index() if any(frame.index.names) else frame
    except PanelError:
        raise
    except UnicodeDecodeError:
        raise PanelError(f"{path} is not UTF-8 text: save it as UTF-8 (in Excel: 'CSV UTF-8') or as .xlsx") from None
    except Exception as problem:  # each of the parsers raises its own kinds
        raise PanelError(f"{path} cannot be read: {problem}") from problem
    return frame, sha256


def locate(data: DataConfig) -> Path:
    """Path of the file that `data` names, which exists and has a known ending."""
    if data.path:
        path, endings = Path(data.path).expanduser(), OWN_ENDINGS
    elif data.package and data.file:
        spec = importlib.util.find_spec(data.package.partition(".")[0])
        if spec is None or not spec.submodule_search_locations:
            raise PanelError(f"package {data.package} is not installed: pip install {data.package}, or give data.path")
        root = Path(spec.submodule_search_locations[0]).resolve()
        path, endings = (root / data.file).resolve(), PACKAGE_ENDINGS
        if not path.is_relative_to(root):
            raise PanelError(f"data.file={data.file} lies outside package {data.package}: give data.path")
    else:
        raise PanelError("no data: give data.path=<file>, or data.package and data.file")
    if not path.is_file():
        raise PanelError(f"no file {path}: check data.path (relative to {Path.cwd()})")
    if path.stat().st_size == 0:
        raise PanelError(f"{path} is empty: give a file with one row for each unit and period")
    if not path.name.lower().endswith(endings):
        raise PanelError(f"{path.name} has an unknown ending: data.path must end in {', '.join(OWN_ENDINGS)}")
    return path


def parse(path: Path, texts: set[str]) -> pd.DataFrame:
    """All columns of a file; `texts` are read as text, with only the empty field missing."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return pd.read_parquet(path)
    if name.endswith(".pkl.gz"):
        return pd.read_pickle(path)
    if name.endswith(".dta"):
        frame = pd.read_stata(path, convert_categoricals=False, convert_dates=False)  # %ty, %tq: plain whole numbers
        labelled = [column for column in frame.columns if column in texts]
        return frame.assign(**pd.read_stata(path, columns=labelled, convert_dates=False)) if labelled else frame

    def as_text(header: pd.Index) -> dict[str, Any]:
        missing = {column: [""] if column in texts else list(MISSING_WORDS) for column in header}
        types = {column: str for column in header if column in texts}
        return {"dtype": types, "na_values": missing, "keep_default_na": False}

    if name.endswith(".xlsx"):
        return pd.read_excel(path, **as_text(pd.read_excel(path, nrows=0).columns))
    header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise PanelError(f"{path.name} has the single column {header[0]!r}: separate the columns by commas")
    return pd.read_csv(path, encoding="utf-8-sig", low_memory=False, **as_text(header))


def encode(
    frame: pd.DataFrame,
    data: DataConfig,
    sha256: str,
    tau: str | None = None,
    slope_control: dict[str, float] | None = None,
    slope_treated: dict[str, float] | None = None,
) -> Panel:
    """Check a frame of unit-period rows and turn it into arrays.

    In this order: settings, columns, values, duplicates, adoption, memberships; the roster of every unit; then the
    rows that the likelihood can use. Rows left out, each kind with a note: weight 0; outcome, covariate or treatment
    status missing; always-treated units; periods in which nobody is untreated.

    Parameters
    ----------
    frame : DataFrame
        Left as it is. Messages count its rows from 1.
    data : DataConfig
    sha256 : str
    tau : str, optional
        Column with the true effect of own adoption, where a generator knows it.
    slope_control, slope_treated : dict of str to float, optional
        True effect per unit share of each exposure.

    Returns
    -------
    Panel

    Raises
    ------
    PanelError
        What a user can mend: the problem, the rows, the remedy.
    """
    check_settings(data)
    check_columns(frame, data)
    check_values(frame, data)

    code, names = pd.factorize(labels(frame[data.unit]), sort=True)
    order = np.lexsort((numbers(frame[data.time]), code))
    unit, units = code[order], np.array(names, dtype=str)

    def column(name: str) -> np.ndarray:
        return numbers(frame[name])[order]

    time = column(data.time).astype(np.int64)
    start = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])
    check_duplicates(unit, time, units, order)

    notes: list[str] = []
    doubtful = np.zeros(len(unit), dtype=bool)
    if data.cohort:
        cohort = cohort_of_units(column(data.cohort), start, units, data.cohort)
        if (column(data.cohort) == 0).any() and (time == 0).any():
            notes.append(f"{data.cohort}=0 is read as never treated, though period 0 is in the panel")
    else:
        assert data.treated is not None
        cohort, doubtful = cohort_from_treated(column(data.treated), unit, time, start, units, data.treated)

    before = last_before_adoption(time, cohort[unit], start)
    columns = dict.fromkeys((*data.groups.values(), *data.exposures.values()))
    row_labels = {name: labels(frame[name]).to_numpy(dtype=object)[order] for name in columns}
    member = {}
    for name, label in row_labels.items():
        member[name], changed = one_level(label, start, before, data.membership, units, name)
        if changed:
            level = "first level" if data.membership == "first" else "level in the last period before adoption"
            notes.append(f"{count(changed, 'unit')} change {name} over time: each takes its {level}")

    weight = column(data.weights) if data.weights else np.ones(len(unit))
    outcome = TRANSFORMS[data.transform](column(data.outcome))
    covariates = np.column_stack([column(name) for name in data.covariates] or [np.empty((len(unit), 0))])

    lost = {
        "weight 0": weight == 0,
        f"{data.outcome} missing": np.isnan(outcome),
        **{f"{name} missing": np.isnan(x) for name, x in zip(data.covariates, covariates.T, strict=True)},
        f"{data.treated} missing around adoption": doubtful,
    }
    keep, said = rows_to_keep(unit, time, cohort[unit], lost)
    notes += said

    kept, code = np.unique(unit[keep], return_inverse=True)
    check_outcome(outcome[keep], code, data.outcome)
    notes += describe_adopters(time[keep], code, cohort[kept])

    groups = {name: factor(name, member[column][kept]) for name, column in data.groups.items()}
    truth = None
    if tau is not None:
        effect = np.where(time >= cohort[unit], column(tau), 0.0)[keep]
        truth = Truth(effect, dict(slope_control or {}), dict(slope_treated or {}))
    mean_weight = np.bincount(unit, weight) / np.bincount(unit)
    members = {name: pd.factorize(member[column], sort=True)[0] for name, column in data.exposures.items()}
    return Panel(
        name=data.name,
        unit=code,
        time=time[keep],
        outcome=outcome[keep],
        weight=weight[keep] / weight[keep].mean(),
        covariates=covariates[keep],
        covariate_names=tuple(data.covariates),
        units=units[kept],
        cohort=cohort[kept],
        groups=groups,
        predictors={
            name: predictor_of_levels(column(source), row_labels[data.groups[name]], groups[name], source)
            for name, source in data.predictors.items()
        },
        roster=Roster(cohort, members, mean_weight, kept),
        is_log=data.is_log or data.transform in ("log", "log1p"),
        sha256=sha256,
        notes=tuple(notes),
        truth=truth,
    )


def numbers(column: pd.Series) -> np.ndarray:
    """A column as floats: NaN where it is missing or no number; yes/no columns as 1/0."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    text = column.astype("str").str.strip().replace({"TRUE": "1", "True": "1", "FALSE": "0", "False": "0"})
    return pd.to_numeric(text.mask(text.isin(MISSING_WORDS)), errors="coerce").to_numpy(dtype=float)


def labels(column: pd.Series) -> pd.Series:
    """A column as text without surrounding blanks, "204" for 204.0; missing only where it is empty."""
    text = column.astype("str").str.strip()
    text = text.mask(text == "")
    if text.str.fullmatch(r"-?\d+\.0").fillna(True).astype(bool).all():
        text = text.str.removesuffix(".0")
    return text


def count(n: int | np.integer, noun: str) -> str:
    """A count with its noun: "1 unit", "1,200 rows"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def some(values: Iterable[object], show: int = 3) -> str:
    """The first few of many: "3, 7, 9 and 12 more"."""
    values = list(values)
    more = f" and {len(values) - show:,} more" if len(values) > show else ""
    return ", ".join(str(value) for value in values[:show]) + more


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


def check_values(frame: pd.DataFrame, data: DataConfig) -> None:
    """Refuse values that cannot be what their column means.

    Raises
    ------
    PanelError
        The first rule that is broken, with its rows.
    """
    spare = "correct them, or leave them empty to have those rows dropped"
    positive = f"data.transform={data.transform} cannot take them: use another transform, or leave them empty"
    of_outcome = {"log": [(ABOVE_ZERO, positive)], "log1p": [(ABOVE_MINUS_ONE, positive)]}.get(data.transform, [])
    period = "give every row a period as a whole number, such as the year"
    adoption = "give the first treated period as a whole number; for never-treated units leave it empty, 0 or inf"
    weights = "give every row a finite weight of 0 or more"
    rules: dict[str, list[tuple[Rule, str]]] = {
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
    checks: dict[str, list[pa.Check]] = {}
    for setting, name in settings_and_columns(data):
        kind = ".".join(setting.split(".")[:2])
        checks.setdefault(name, []).extend(rule.check(setting, remedy) for rule, remedy in rules[kind])
    schema = pa.DataFrameSchema({name: pa.Column(None, tests, nullable=True) for name, tests in checks.items()})
    numbered = frame[list(checks)].set_axis(np.arange(1, len(frame) + 1))
    try:
        schema.validate(numbered)
    except pa.errors.SchemaError as error:
        rule, cases = error.check, error.failure_cases.sort_values("index")
        cases = [
            f"row {row}"
            + ("" if pd.isna(value) or value == "" else f": {value!r}" if isinstance(value, str) else f": {value}")
            for row, value in zip(cases["index"], cases["failure_case"], strict=True)
        ]
        raise PanelError(
            f"{rule.name}: column {error.schema.name!r} {rule.title} in {count(len(cases), 'row')} "
            f"({some(cases)}): {rule.description}"
        ) from None
    if data.weights and not numbers(frame[data.weights]).any():
        raise PanelError(f"data.weights: column {data.weights!r} is 0 in every row: give weights above 0")


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


def cohort_of_units(first: np.ndarray, start: np.ndarray, units: np.ndarray, name: str) -> np.ndarray:
    """First treated period of each unit from a column that says it in every row.

    Parameters
    ----------
    first : array, shape (row,)
        NaN, 0 or inf where never treated.
    start : array of int, shape (unit,)
        First row of each unit.
    units : array of str, shape (unit,)
    name : str
        Column, for the message.

    Returns
    -------
    array, shape (unit,)
        inf where never treated.

    Raises
    ------
    PanelError
        It varies within a unit.
    """
    first = np.where(np.isnan(first) | (first == 0), np.inf, first)
    low, high = np.minimum.reduceat(first, start), np.maximum.reduceat(first, start)
    varies = np.flatnonzero(low != high)
    if len(varies):
        cases = [
            f"unit {units[i]}: {low[i]:.0f} and {'never' if np.isinf(high[i]) else f'{high[i]:.0f}'}" for i in varies
        ]
        raise PanelError(
            f"data.cohort: column {name!r} varies within {count(len(varies), 'unit')} ({some(cases)}): give a unit "
            "the same first treated period in all its rows, or use data.treated with a 0/1 column"
        )
    return low


def cohort_from_treated(
    treated: np.ndarray, unit: np.ndarray, time: np.ndarray, start: np.ndarray, units: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """First treated period of each unit from a 0/1 column.

    Parameters
    ----------
    treated : array, shape (row,)
        0, 1 or NaN.
    unit, time, start, units, name
        As in the functions beside this one.

    Returns
    -------
    cohort : array, shape (unit,)
        First period with a 1; inf where there is none.
    doubtful : array of bool, shape (row,)
        Rows without a status that the unit's other rows do not settle.

    Raises
    ------
    PanelError
        Treatment switches off, or a unit has no status at all.
    """
    cohort = np.minimum.reduceat(np.where(treated == 1, time, np.inf), start)
    last_zero = np.maximum.reduceat(np.where(treated == 0, time, -np.inf), start)
    off = np.flatnonzero(last_zero > cohort)
    if len(off):
        cases = [f"unit {units[i]}: 1 in {cohort[i]:.0f}, 0 in {last_zero[i]:.0f}" for i in off]
        raise PanelError(
            f"data.treated: treatment {name!r} switches off in {count(len(off), 'unit')} ({some(cases)}): "
            "adoption must last; correct the column, drop those units, or give data.cohort"
        )
    silent = np.flatnonzero(np.isinf(cohort) & np.isinf(last_zero))
    if len(silent):
        raise PanelError(
            f"data.treated: column {name!r} is empty in all rows of {count(len(silent), 'unit')} "
            f"({some(units[silent])}): say 0 or 1, or drop those units"
        )
    settled = (time < last_zero[unit]) | (time >= cohort[unit])
    return cohort, np.isnan(treated) & ~settled


def last_before_adoption(time: np.ndarray, row_cohort: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Row of each unit's last period before adoption, shape (unit,).

    The first row of a unit that is never treated or first seen after adoption.
    """
    position = np.where((time < row_cohort) & np.isfinite(row_cohort), np.arange(len(time)), -1)
    last = np.maximum.reduceat(position, start)
    return np.where(last < 0, start, last)


def one_level(
    label: np.ndarray, start: np.ndarray, before: np.ndarray, membership: str, units: np.ndarray, name: str
) -> tuple[np.ndarray, int]:
    """The one level that each unit has of a group or exposure.

    Parameters
    ----------
    label : array of str, shape (row,)
    start, before : array of int, shape (unit,)
        Row of each unit's first period, and of its last before adoption.
    membership : {"error", "first", "before"}
        What to do where a unit's level changes: refuse, take its first, take its last before adoption (its first
        where it is never treated).
    units : array of str, shape (unit,)
    name : str
        Column, for the message.

    Returns
    -------
    level : array of str, shape (unit,)
    changed : int
        Number of units whose level changes.

    Raises
    ------
    PanelError
        A level changes and membership is "error".
    """
    code, levels = pd.factorize(label)
    low, high = np.minimum.reduceat(code, start), np.maximum.reduceat(code, start)
    changed = np.flatnonzero(low != high)
    if len(changed) and membership == "error":
        cases = [f"unit {units[i]}: {levels[low[i]]} and {levels[high[i]]}" for i in changed]
        raise PanelError(
            f"column {name!r} changes over time in {count(len(changed), 'unit')} ({some(cases)}): set "
            "data.membership=first (a unit's first level) or data.membership=before (its last before adoption)"
        )
    return label[before if membership == "before" else start], len(changed)


def rows_to_keep(
    unit: np.ndarray, time: np.ndarray, row_cohort: np.ndarray, lost: dict[str, np.ndarray]
) -> tuple[np.ndarray, list[str]]:
    """Rows that the likelihood can use, with a note on each kind that it cannot.

    Parameters
    ----------
    unit, time, row_cohort : array, shape (row,)
    lost : dict of str to array of bool, shape (row,)
        Rows that cannot be used, by reason.

    Returns
    -------
    keep : array of bool, shape (row,)
    notes : list of str

    Raises
    ------
    PanelError
        Nobody treated, nobody untreated, one period.
    """
    notes = []
    keep = ~np.any(list(lost.values()), axis=0)
    reasons = [f"{reason}: {rows.sum():,}" for reason, rows in lost.items() if rows.any()]
    if reasons:
        notes.append(f"{count((~keep).sum(), 'row')} dropped ({'; '.join(reasons)})")
    if not keep.any():
        raise PanelError(f"no row is left: {notes[0]}; fill in the missing values or name fewer covariates")
    if np.ptp(time[keep]) == 0:
        raise PanelError(f"all rows are of one period ({time[keep][0]}): a panel needs at least two; add periods")
    if not np.isfinite(row_cohort).any():
        raise PanelError("nobody is treated: no unit has a first treated period; check data.cohort or data.treated")

    adopted = time >= row_cohort
    if not (keep & adopted).any():
        first, last = time[keep].min(), time[keep].max()
        raise PanelError(
            f"nobody is treated between {first} and {last}: the first adoption is in {row_cohort.min():.0f}; check the "
            "cohorts, or give later periods"
        )
    always = np.zeros_like(keep)
    while (keep & ~always).any():  # without their rows the first period may move
        first = time[keep & ~always].min()
        more = keep & ~always & (row_cohort <= first)
        if not more.any():
            break
        always |= more
    if not (keep & ~always).any():
        raise PanelError(
            f"nobody is ever untreated: all {count(len(np.unique(unit[always])), 'unit')} have adopted by their first "
            "period; add units or periods without treatment"
        )
    if always.any():
        notes.append(
            f"{count(len(np.unique(unit[always])), 'always-treated unit')} ({count(always.sum(), 'row')}) dropped: "
            f"treated from the first period ({first}) or earlier; they still expose others"
        )
        keep &= ~always

    all_treated = keep & ~np.isin(time, np.unique(time[keep & ~adopted]))
    if all_treated.any():
        keep &= ~all_treated
        notes.append(
            f"{count(len(np.unique(time[all_treated])), 'period')} ({some(np.unique(time[all_treated]))}) dropped with "
            f"{count(all_treated.sum(), 'row')}: nobody is untreated then"
        )
    if not (keep & adopted).any():
        raise PanelError(
            f"nobody is left who is treated while others are not ({'; '.join(notes)}): "
            "add units that adopt later or never"
        )
    return keep, notes


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


def describe_adopters(time: np.ndarray, unit: np.ndarray, cohort: np.ndarray) -> list[str]:
    """Notes on units whose effect the data hardly speak of, or not at all.

    Parameters
    ----------
    time, unit : array of int, shape (row,)
        Rows kept, sorted by unit, then time.
    cohort : array, shape (unit,)
    """
    notes = []
    first_seen = time[np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])]
    late = (first_seen >= cohort).sum()
    if late:
        notes.append(
            f"{count(late, 'adopter')} {'is' if late == 1 else 'are'} first seen after adoption: they are "
            "in the averages, but only the model speaks for them"
        )
    future = (np.isfinite(cohort) & (cohort > time.max())).sum()
    if future:
        notes.append(
            f"{count(future, 'unit')} {'adopts' if future == 1 else 'adopt'} after the last period ({time.max()}): "
            "not yet treated in the panel"
        )
    if not np.isinf(cohort).any():
        notes.append("no unit is never treated: those that adopt later are the comparison")
    single = (np.bincount(unit) == 1).sum()
    if single:
        notes.append(f"{count(single, 'unit')} with a single row: kept, though it says nothing about change")
    return notes


def factor(name: str, level: np.ndarray) -> Factor:
    """A classification of the units kept, `level` shape (unit,); only levels that occur."""
    code, levels = pd.factorize(level, sort=True)
    return Factor(name, tuple(str(label) for label in levels), code)


def predictor_of_levels(value: np.ndarray, label: np.ndarray, group: Factor, name: str) -> np.ndarray:
    """Group-level predictor of each level, shape (level,).

    Parameters
    ----------
    value : array, shape (row,)
    label : array of str, shape (row,)
        Level of the group in that row.
    group : Factor
    name : str
        Column, for the message.

    Raises
    ------
    PanelError
        It varies within a level.
    """
    span = pd.Series(value).groupby(label).agg(["min", "max"])
    varies = span[span["min"] != span["max"]]
    if len(varies):
        cases = [f"{level}: {low:g} to {high:g}" for level, low, high in varies.itertuples()]
        raise PanelError(
            f"data.predictors.{group.name}: column {name!r} varies within {count(len(varies), 'level')} of "
            f"{group.name} ({some(cases)}): give every level one number"
        )
    return span["min"].reindex(list(group.levels)).to_numpy()
