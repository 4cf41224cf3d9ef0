"""What rows say of themselves, unit by unit, and which of them a likelihood can use.

    frame ──examine──▶ rows by unit, census ──judge──▶ cohorts and periods that go ──kept_rows──▶ rows that stay

A frame is a whole file, or those units of a larger one that have been dealt to a block (src.deal): a census adds up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from src.config import DataConfig, exposure_entries
from src.panel import PanelError, count, first_rows, some
from src.read import labelled_columns, labels, numbers
from src.validate import TRANSFORMS, check_cohorts, check_duplicates, check_values


@dataclass(frozen=True)
class Census:
    """Numbers of rows and units that decide which rows stay; adds up over units.

    Attributes
    ----------
    rows : Counter of (cohort, period, whether it is lost)
        cohort inf where never treated.
    lost : Counter of (reason, whether treated)
        Rows that cannot be used; a row can have several reasons.
    units : Counter of cohort
        All units.
    seen : Counter of cohort
        Units with a row that can be used.
    changed : Counter of str
        Units that change the level of a column over time.
    zero : bool
        A cohort was given as 0.
    """

    rows: Counter
    lost: Counter
    units: Counter
    seen: Counter
    changed: Counter
    zero: bool

    def __add__(self, other: Census) -> Census:
        return Census(
            self.rows + other.rows,
            self.lost + other.lost,
            self.units + other.units,
            self.seen + other.seen,
            self.changed + other.changed,
            self.zero or other.zero,
        )

    def notes(self, data: DataConfig) -> list[str]:
        """What was handled on the way to the rows."""
        first = min(t for _, t, _ in self.rows)
        said = describe_negative(self.units, first, data.cohort) if data.cohort else []
        if self.zero and any(t == 0 for _, t, _ in self.rows):
            said.append(f"{data.cohort}=0 is read as never treated, though period 0 is in the panel")
        level = "first level" if data.membership == "first" else "level in the last period before adoption"
        return said + [
            f"{count(changed, 'unit')} change {name} over time: each takes its {level}"
            for name, changed in self.changed.items()
        ]


@dataclass(frozen=True)
class Examined:
    """Rows sorted by unit, then time, and what each unit is.

    Attributes
    ----------
    unit : array of int, shape (row,)
    time : array of int, shape (row,)
    outcome, weight : array, shape (row,)
        The outcome transformed; weights as given.
    covariates : array, shape (row, covariate)
    others : dict of str to array, shape (row,)
        Outcomes beside the first.
    offset : array, shape (row,), optional
    extra : dict of str to array, shape (row,)
        Columns that only a generator has.
    lost : array of bool, shape (row,)
    units : array of str, shape (unit,)
    cohort : array, shape (unit,)
        inf where never treated.
    member : dict of str to array, shape (unit,)
        Level of every column that classifies units; coordinates and sizes.
    size : array, shape (unit,)
        Mean weight of each unit's rows.
    spans : dict of str to DataFrame
        Least and greatest value of a group's predictor by level.
    census : Census
    """

    unit: np.ndarray
    time: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    covariates: np.ndarray
    others: dict[str, np.ndarray]
    offset: np.ndarray | None
    extra: dict[str, np.ndarray]
    lost: np.ndarray
    units: np.ndarray
    cohort: np.ndarray
    member: dict[str, np.ndarray]
    size: np.ndarray
    spans: dict[str, pd.DataFrame]
    census: Census


@dataclass(frozen=True)
class Judged:
    """Which rows go, beside those that cannot be used.

    Attributes
    ----------
    first : float
        Cohorts up to this period are always treated.
    dropped : tuple of int
        Periods in which nobody is untreated.
    last : int
        Of the periods that stay.
    notes : list of str
    """

    first: float
    dropped: tuple[int, ...]
    last: int
    notes: list[str]


@dataclass(frozen=True)
class Roll:
    """Units that stay, by what the data can say of their effect; adds up over units."""

    late: int
    cohorts: Counter = field(default_factory=Counter)
    single: int = 0
    weight: float = 0.0
    rows: int = 0

    def __add__(self, other: Roll) -> Roll:
        return Roll(
            self.late + other.late,
            self.cohorts + other.cohorts,
            self.single + other.single,
            self.weight + other.weight,
            self.rows + other.rows,
        )

    def notes(self, last: int) -> list[str]:
        """Notes on units whose effect the data hardly speak of, or not at all; `last` is the last period."""
        said = []
        if self.late:
            are = "is" if self.late == 1 else "are"
            said.append(
                f"{count(self.late, 'adopter')} {are} first seen after adoption: they are in the averages, but only "
                "the model speaks for them"
            )
        future = sum(units for g, units in self.cohorts.items() if last < g < np.inf)
        if future:
            said.append(
                f"{count(future, 'unit')} {'adopts' if future == 1 else 'adopt'} after the last period ({last}): "
                "not yet treated in the panel"
            )
        if np.inf not in self.cohorts:
            said.append("no unit is never treated: those that adopt later are the comparison")
        if self.single:
            said.append(f"{count(self.single, 'unit')} with a single row: kept, though it says nothing about change")
        return said


def examine(frame: pd.DataFrame, data: DataConfig, extra: tuple[str, ...] = ()) -> Examined:
    """Rows by unit, checked: values, duplicates, adoption, memberships.

    Parameters
    ----------
    frame : DataFrame
        Left as it is. Messages count its rows by its index, from 1.
    data : DataConfig
    extra : tuple of str
        Columns beyond those that the settings name.

    Raises
    ------
    PanelError
    """
    check_values(frame, data)
    code, names = pd.factorize(labels(frame[data.unit]), sort=True)
    order = np.lexsort((numbers(frame[data.time]), code))
    unit, units = code[order], np.array(names, dtype=str)

    def column(name: str) -> np.ndarray:
        return numbers(frame[name])[order]

    time = column(data.time).astype(np.int64)
    start = first_rows(unit)
    check_duplicates(unit, time, units, frame.index.to_numpy()[order])
    doubtful, zero = np.zeros(len(unit), dtype=bool), False
    if data.cohort:
        cohort = cohort_of_units(column(data.cohort), start, units, data.cohort)
        zero = bool((column(data.cohort) == 0).any())
    else:
        assert data.treated is not None
        cohort, doubtful = cohort_from_treated(column(data.treated), unit, time, start, units, data.treated)

    before = last_before_adoption(time, cohort[unit], start)
    named = dict.fromkeys((*data.groups.values(), *data.fixed_effects, *labelled_columns(data)))
    row_labels = {name: labels(frame[name]).to_numpy(dtype=object)[order] for name in named}
    entries = exposure_entries(data)
    places = dict.fromkeys(name for entry in entries.values() for name in (entry.latitude, entry.longitude) if name)
    member: dict[str, np.ndarray] = {}
    changed: Counter = Counter()
    for name, label in (row_labels | {name: column(name) for name in places}).items():
        member[name], units_that_change = one_level(label, start, before, data.membership, units, name)
        if units_that_change:
            changed[name] = units_that_change
    member |= {entry.size: column(entry.size)[start] for entry in entries.values() if entry.size}

    weight = column(data.weights) if data.weights else np.ones(len(unit))
    outcome = TRANSFORMS[data.transform](column(data.outcome))
    others = {name: column(name) for name in data.mediators}
    others |= {name: TRANSFORMS[data.transform](column(name)) for name in data.outcomes}
    covariates = np.column_stack([column(name) for name in data.covariates] or [np.empty((len(unit), 0))])
    reasons = {
        "weight 0": weight == 0,
        f"{data.outcome} missing": np.isnan(outcome),
        **{f"{name} missing": np.isnan(x) for name, x in zip(data.covariates, covariates.T, strict=True)},
        **{f"{name} missing": np.isnan(x) for name, x in others.items()},
        f"{data.treated} missing around adoption": doubtful,
    }
    lost = np.any(list(reasons.values()), axis=0)
    spans = {
        name: pd.Series(column(source)).groupby(row_labels[data.groups[name]]).agg(["min", "max"])
        for name, source in data.predictors.items()
    }
    return Examined(
        unit,
        time,
        outcome,
        weight,
        covariates,
        others,
        column(data.offset) if data.offset else None,
        {name: column(name) for name in extra},
        lost,
        units,
        cohort,
        member,
        np.bincount(unit, weight) / np.bincount(unit),
        spans,
        census_of(unit, time, cohort, reasons, lost, changed, zero),
    )


def census_of(
    unit: np.ndarray,
    time: np.ndarray,
    cohort: np.ndarray,
    reasons: dict[str, np.ndarray],
    lost: np.ndarray,
    changed: Counter,
    zero: bool,
) -> Census:
    """The census of rows; parameters as of `Examined` and `Census`, `reasons` with the rows lost for each."""
    row_cohort = cohort[unit]
    treated = time >= row_cohort
    cells = pd.DataFrame({"g": row_cohort, "t": time, "lost": lost}).value_counts().reset_index().to_numpy()
    rows = Counter({(float(g), int(t), bool(gone)): int(n) for g, t, gone, n in cells})
    of_reasons = Counter(
        {
            (reason, kind): n
            for reason, mine in reasons.items()
            for kind in (False, True)
            if (n := int((mine & (treated == kind)).sum()))
        }
    )
    some_left = np.unique(unit[~lost])
    return Census(rows, of_reasons, counted(cohort), counted(cohort[some_left]), changed, zero)


def counted(cohort: np.ndarray) -> Counter:
    """Number of units of each cohort."""
    values, units = np.unique(cohort, return_counts=True)
    return Counter(dict(zip(values.tolist(), units.tolist(), strict=True)))


def judge(census: Census, data: DataConfig) -> Judged:
    """Which cohorts and periods go, with a note on each kind of row that cannot be used.

    Parameters
    ----------
    census : Census
        Of all rows.
    data : DataConfig

    Raises
    ------
    PanelError
        Nobody treated, nobody untreated, one period.
    """
    if data.cohort:
        check_cohorts(np.array(list(census.units)), min(t for _, t, _ in census.rows), data.cohort)
    notes = []
    used = Counter({(g, t): n for (g, t, lost), n in census.rows.items() if not lost})
    gone = sum(n for (_, _, lost), n in census.rows.items() if lost)
    if gone:
        notes.append(f"{count(gone, 'row')} dropped ({reasons_of(census)})")
    if not used:
        raise PanelError(f"no row is left: {notes[0]}; fill in the missing values or name fewer covariates")
    periods = sorted({t for _, t in used})
    if len(periods) == 1:
        raise PanelError(f"all rows are of one period ({periods[0]}): a panel needs at least two; add periods")
    cohorts = [g for g in census.units if np.isfinite(g)]
    if not cohorts:
        raise PanelError("nobody is treated: no unit has a first treated period; check data.cohort or data.treated")
    if not any(t >= g for g, t, _ in census.rows):
        raise PanelError(
            f"nobody is treated between {periods[0]} and {periods[-1]}: the first adoption is in {min(cohorts):.0f}; "
            "check the cohorts, or give later periods"
        )
    for kind, treated in (("treated", True), ("untreated", False)):
        rows = sum(n for (g, t, _), n in census.rows.items() if (t >= g) == treated)
        if rows and not any((t >= g) == treated for g, t in used):
            raise PanelError(
                f"no {kind} row is left: {count(rows, 'row')} dropped ({reasons_of(census, treated)}); fill in the "
                "missing values, name fewer covariates, or weigh these rows above 0"
            )
    rest = set(used)
    while rest and (early := {(g, t) for g, t in rest if g <= min(s for _, s in rest)}):
        rest -= early
    always = set(used) - rest
    units = sum(census.seen[g] for g in {g for g, _ in always})
    if not rest:
        raise PanelError(
            f"nobody is ever untreated: all {count(units, 'unit')} have adopted by their first period; add units or "
            "periods without treatment"
        )
    first = min(t for _, t in rest)
    if always:
        notes.append(
            f"{count(units, 'always-treated unit')} ({count(sum(used[cell] for cell in always), 'row')}) dropped: "
            f"treated from the first period ({first}) or earlier; they still expose others"
        )
    untreated = {t for g, t in rest if t < g}
    dropped = tuple(sorted({t for _, t in rest} - untreated))
    if dropped:
        rows = sum(used[cell] for cell in rest if cell[1] in dropped)
        notes.append(
            f"{count(len(dropped), 'period')} ({some(dropped)}) dropped with {count(rows, 'row')}: nobody is untreated "
            "then"
        )
    left = {(g, t) for g, t in rest if t not in dropped}
    if not any(t >= g for g, t in left):
        raise PanelError(
            f"nobody is left who is treated while others are not ({'; '.join(notes)}): "
            "add units that adopt later or never"
        )
    stay = np.array(sorted({t for _, t in left}))
    return Judged(float(first), dropped, int(stay[-1]), [*notes, *describe_periods(stay, data.time)])


def kept_rows(seen: Examined, judged: Judged) -> np.ndarray:
    """Rows that the likelihood can use, shape (row,)."""
    return ~seen.lost & (seen.cohort[seen.unit] > judged.first) & ~np.isin(seen.time, judged.dropped)


def roll_of(seen: Examined, keep: np.ndarray) -> Roll:
    """The roll of the units with rows in `keep`, shape (row,)."""
    stays, unit = np.unique(seen.unit[keep], return_inverse=True)
    if not len(stays):
        return Roll(0)
    cohort = seen.cohort[stays]
    late = int((seen.time[keep][first_rows(unit)] >= cohort).sum())
    single = int((np.bincount(unit) == 1).sum())
    return Roll(late, counted(cohort), single, float(seen.weight[keep].sum()), int(keep.sum()))


def reasons_of(census: Census, treated: bool | None = None) -> str:
    """Why rows cannot be used, with counts; a row can have several reasons."""
    reasons = dict.fromkeys(reason for reason, _ in census.lost)
    kinds = (False, True) if treated is None else (treated,)
    sums = {reason: sum(census.lost[reason, kind] for kind in kinds) for reason in reasons}
    return "; ".join(f"{reason}: {n:,}" for reason, n in sums.items() if n)


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
    unit, time : array of int, shape (row,)
        Sorted by unit, then time.
    start : array of int, shape (unit,)
        First row of each unit.
    units : array of str, shape (unit,)
    name : str
        Column, for the message.

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


def describe_negative(units_of: dict[float, int], first: int, name: str) -> list[str]:
    """A note on cohorts below zero where no period is: often a code for units that never adopt.

    Parameters
    ----------
    units_of : dict of float to int
        Number of units of each cohort.
    first : int
        Period.
    name : str
        Column, for the message.
    """
    negative = {g: n for g, n in units_of.items() if g < 0}
    if first < 0 or not negative:
        return []
    given = some(f"{g:.0f}" for g in sorted(negative))
    return [
        f"{count(sum(negative.values()), 'unit')} with {name} below 0 ({given}): read as adoption before the first "
        "period; if it means never, leave it empty, 0 or inf"
    ]


def describe_periods(periods: np.ndarray, name: str) -> list[str]:
    """Notes on periods that are not consecutive: event time is t - g, in whatever unit the periods are written.

    Parameters
    ----------
    periods : array of int, shape (time,)
        Sorted, at least two.
    name : str
        Column, for the message.
    """
    gaps = np.diff(periods)
    widest = int(gaps.argmax())
    if gaps.min() < gaps.max():
        return [
            f"{name} has gaps (largest: {gaps[widest]:,}, {periods[widest]} to {periods[widest + 1]}) and event time "
            "counts them: fine for missing years; if these are codes such as 201012, number the periods consecutively"
        ]
    if gaps[0] > 1:
        return [f"{name} is in steps of {gaps[0]:,}, and so is event time: {gaps[0]:,} is one period after adoption"]
    return []
