"""From a DataFrame of unit-period rows to a Panel.

    file ──read──▶ DataFrame ──encode──▶ Panel

What is wrong ends in a `PanelError`; what can be handled is handled and said in `Panel.notes`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from src.config import DataConfig, exposure_entries
from src.panel import Factor, Panel, PanelError, Roster, Truth, count, first_rows, some
from src.read import labelled_columns, labels, numbers, read
from src.ties import mapping_of
from src.validate import (
    TRANSFORMS,
    check_cohorts,
    check_columns,
    check_duplicates,
    check_joint_labels,
    check_outcome,
    check_settings,
    check_values,
)


def load(data: DataConfig) -> Panel:
    """The panel that `data` describes: `read`, then `encode`."""
    frame, sha256 = read(data)
    return encode(frame, data, with_ties(sha256, data))


def with_ties(sha256: str, data: DataConfig) -> str:
    """The hash of the data and of the files of ties that they are read with; as given where there are none."""
    files = [Path(entry.weights).expanduser() for entry in exposure_entries(data).values() if entry.weights]
    digest = hashlib.sha256(sha256.encode())
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest() if files else sha256


def encode(
    frame: pd.DataFrame,
    data: DataConfig,
    sha256: str,
    tau: str | None = None,
    slope_control: dict[str, float] | None = None,
    slope_treated: dict[str, float] | None = None,
    spill: str | None = None,
    mean: str | None = None,
    variance: str | None = None,
) -> Panel:
    """The panel of a frame of unit-period rows.

    Checked in this order: settings, columns, values, duplicates, adoption, memberships, the rows that the likelihood
    can use, their outcome, the labels of interactions. Rows left out, each kind with a note: weight 0; outcome,
    covariate or treatment status missing; always-treated units; periods in which nobody is untreated. The roster keeps
    every unit.

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
    spill : str, optional
        Column with the true effect of others' adoption on untreated rows, where no slope says it.
    mean : str, optional
        Column with the expected count without any adoption.
    variance : str, optional
        Column with the variance of the logarithm of the mean that a count is drawn with.

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
    start = first_rows(unit)
    check_duplicates(unit, time, units, order)

    notes: list[str] = []
    doubtful = np.zeros(len(unit), dtype=bool)
    if data.cohort:
        cohort = cohort_of_units(column(data.cohort), start, units, data.cohort)
        check_cohorts(cohort, time, data.cohort)
        notes += describe_negative(cohort, time, data.cohort)
        if (column(data.cohort) == 0).any() and (time == 0).any():
            notes.append(f"{data.cohort}=0 is read as never treated, though period 0 is in the panel")
    else:
        assert data.treated is not None
        cohort, doubtful = cohort_from_treated(column(data.treated), unit, time, start, units, data.treated)

    before = last_before_adoption(time, cohort[unit], start)
    columns = dict.fromkeys((*data.groups.values(), *data.fixed_effects, *labelled_columns(data)))
    row_labels = {name: labels(frame[name]).to_numpy(dtype=object)[order] for name in columns}
    entries = exposure_entries(data)
    places = dict.fromkeys(name for entry in entries.values() for name in (entry.latitude, entry.longitude) if name)
    member = {}
    for name, label in (row_labels | {name: column(name) for name in places}).items():
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
    notes += describe_periods(np.unique(time[keep]), data.time)
    notes += describe_adopters(time[keep], code, cohort[kept])

    groups = {name: factor(name, member[source][kept]) for name, source in data.groups.items()}
    check_joint_labels(groups)
    truth = None
    if tau is not None:
        effect = np.where(time >= cohort[unit], column(tau), 0.0)[keep]
        others = [column(name)[keep] if name else None for name in (spill, mean, variance)]
        truth = Truth(effect, dict(slope_control or {}), dict(slope_treated or {}), *others)
    sizes = np.bincount(unit, weight) / np.bincount(unit) if data.weigh_exposures else None
    member |= {entry.size: column(entry.size)[start] for entry in entries.values() if entry.size}
    mappings = {
        name: replace(mapping_of(name, entry, member, units, cohort, sizes, notes), by=entry.by or "")
        for name, entry in entries.items()
    }
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
        roster=Roster(cohort, mappings, kept),
        is_log=data.is_log or data.transform in ("log", "log1p"),
        sha256=sha256,
        notes=tuple(notes),
        truth=truth,
        fixed={name: factor(name, member[name][kept]) for name in data.fixed_effects},
        offset=column(data.offset)[keep] if data.offset else None,
    )


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
    if not keep.all():
        notes.append(f"{count((~keep).sum(), 'row')} dropped ({reasons_of(~keep, lost)})")
    if not keep.any():
        raise PanelError(f"no row is left: {notes[0]}; fill in the missing values or name fewer covariates")
    if np.ptp(time[keep]) == 0:
        raise PanelError(f"all rows are of one period ({time[keep][0]}): a panel needs at least two; add periods")
    if not np.isfinite(row_cohort).any():
        raise PanelError("nobody is treated: no unit has a first treated period; check data.cohort or data.treated")

    adopted = time >= row_cohort
    if not adopted.any():
        first, last = time[keep].min(), time[keep].max()
        raise PanelError(
            f"nobody is treated between {first} and {last}: the first adoption is in {row_cohort.min():.0f}; check the "
            "cohorts, or give later periods"
        )
    for kind, rows in (("treated", adopted), ("untreated", ~adopted)):
        if rows.any() and not (keep & rows).any():
            raise PanelError(
                f"no {kind} row is left: {count(rows.sum(), 'row')} dropped ({reasons_of(rows, lost)}); fill in the "
                "missing values, name fewer covariates, or weigh these rows above 0"
            )
    always = always_treated(time, row_cohort, keep)
    if not (keep & ~always).any():
        raise PanelError(
            f"nobody is ever untreated: all {count(len(np.unique(unit[always])), 'unit')} have adopted by their first "
            "period; add units or periods without treatment"
        )
    if always.any():
        first = time[keep & ~always].min()
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


def reasons_of(rows: np.ndarray, lost: dict[str, np.ndarray]) -> str:
    """Why some rows cannot be used, with counts; a row can have several reasons."""
    return "; ".join(f"{reason}: {(rows & mine).sum():,}" for reason, mine in lost.items() if (rows & mine).any())


def always_treated(time: np.ndarray, row_cohort: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Rows among `keep` of units that have adopted by the first period, shape (row,); without them it may move."""
    rest = keep.copy()
    while rest.any():
        early = rest & (row_cohort <= time[rest].min())
        if not early.any():
            break
        rest &= ~early
    return keep & ~rest


def describe_negative(cohort: np.ndarray, time: np.ndarray, name: str) -> list[str]:
    """A note on cohorts below zero where no period is: often a code for units that never adopt.

    Parameters
    ----------
    cohort : array, shape (unit,)
    time : array of int, shape (row,)
    name : str
        Column, for the message.
    """
    negative = cohort < 0
    if time.min() < 0 or not negative.any():
        return []
    given = some(f"{g:.0f}" for g in np.unique(cohort[negative]))
    return [
        f"{count(negative.sum(), 'unit')} with {name} below 0 ({given}): read as adoption before the first period; if "
        "it means never, leave it empty, 0 or inf"
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


def describe_adopters(time: np.ndarray, unit: np.ndarray, cohort: np.ndarray) -> list[str]:
    """Notes on units whose effect the data hardly speak of, or not at all.

    Parameters
    ----------
    time, unit : array of int, shape (row,)
        Rows kept, sorted by unit, then time.
    cohort : array, shape (unit,)
    """
    notes = []
    first_seen = time[first_rows(unit)]
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
