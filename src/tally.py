"""What estimands need to know of rows: sums that add up over blocks of units, wherever the rows are.

rows ──tied──▶ periods that untreated rows tie together
rows ──own──▶ by term and level: weights, maps of tau, numbers of rows and units
rows ──felt──▶ by set of rows: what others' adoption amounts to there
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.sparse as sp

from models.inputs import BY
from src.design import MEAN, NUISANCE, Regression, averaged_terms, positions_of, treated_labels
from src.exposure import Reach, reach_of
from src.kernel import BLOCKS

NEAR_ZERO = 0.25


def added(one: Any, two: Any) -> Any:
    """Sum of two records of numbers, field by field and key by key."""
    if isinstance(one, dict):
        return {key: added(one[key], two[key]) for key in one}
    if isinstance(one, (Lead, Level, Own, Felt)):
        return type(one)(*(added(getattr(one, field.name), getattr(two, field.name)) for field in fields(one)))
    return one + two


@dataclass(frozen=True)
class Known:
    """Of which effects the data speak, whatever rows they are averaged over; see src.identify.

    Attributes
    ----------
    component : array of int, shape (period,)
        Periods with the same number are tied together by untreated rows.
    silent : dict of str to array of bool, shape (level,)
        Cohorts, and levels of groups, without an effect of their own.
    """

    component: np.ndarray
    silent: dict[str, np.ndarray]


@dataclass(frozen=True)
class Level:
    """Sums over the treated rows of every level of a term.

    Attributes
    ----------
    weight, silent, truth : array, shape (level,)
        Weight of the rows, of those of which the data are silent, and weighted true effect.
    tau : array, shape (level, column)
        Weighted sum of the effect of own adoption at zero exposure, as a map of the coefficients.
    rows, units, lost : array of int, shape (level,)
        Rows; units; units of whose rows the data are wholly silent.
    near, seen : array of int, shape (level,)
        Of all rows of those units, treated or not: those with exposures near zero, and how many there are.
    """

    weight: np.ndarray
    silent: np.ndarray
    truth: np.ndarray
    tau: np.ndarray
    rows: np.ndarray
    units: np.ndarray
    lost: np.ndarray
    near: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Lead:
    """Rows and units of every lead, and of those before the farthest one, shape (level,)."""

    rows: np.ndarray
    units: np.ndarray
    earlier: np.ndarray


@dataclass(frozen=True)
class Own:
    """Sums over treated rows by term, and how many of them have exposures near zero."""

    levels: dict[str, Level]
    treated: int
    near: int

    def __add__(self, other: Own) -> Own:
        return added(self, other)


@dataclass(frozen=True)
class Felt:
    """Sums over a set of rows.

    Attributes
    ----------
    rows, units : int
    weight : float
    shares : array, shape (exposure,)
        Weighted sum of the exposures.
    by : dict of str to array, shape (level,)
        Weighted sum of the columns of an exposure's slopes by group, and weight of the rows of each level.
    learned : array, shape (column,)
        Weighted sum of the columns of a learned kernel; empty where there is none.
    truth : float
        Weighted sum of the true effect of others, where no slope says it.
    reach : dict of str to Reach
        For each exposure that this set of rows is about, on whom it rests.
    """

    rows: int
    units: int
    weight: float
    shares: np.ndarray
    by: dict[str, np.ndarray]
    learned: np.ndarray
    truth: float
    reach: dict[str, Reach]


@dataclass(frozen=True)
class Sets:
    """Sums over sets of rows by name: "treated", "control" (untreated and exposed), "all", "control county", ..."""

    felt: dict[str, Felt]

    def __add__(self, other: Sets) -> Sets:
        return Sets(added(self.felt, other.felt))


@dataclass(frozen=True)
class First:
    """What is needed before anything can be said to be identified.

    Attributes
    ----------
    tied : array of int, shape (period, period)
        Number of units that have untreated rows in both periods.
    mass : array, shape (column,)
        Weighted sum of squares of every column.
    lead : Lead
    """

    tied: np.ndarray
    mass: np.ndarray
    lead: Lead

    def __add__(self, other: First) -> First:
        return First(self.tied + other.tied, self.mass + other.mass, added(self.lead, other.lead))


def first(regression: Regression) -> First:
    """The first look at rows."""
    panel, design = regression.panel, regression.design
    lead = lead_rows(regression) if "lead" in design.blocks else Lead(*np.zeros((3, 0), dtype=int))
    return First(tied_periods(regression), regression.matrix.power(2).T @ panel.weight, lead)


def tied_periods(regression: Regression) -> np.ndarray:
    """Number of units that have untreated rows in both of two periods, shape (period, period)."""
    panel, periods = regression.panel, regression.frame.periods
    untreated = np.flatnonzero(~panel.treated)
    where = (panel.unit[untreated], np.searchsorted(periods, panel.time[untreated]))
    seen = sp.csr_array((np.ones(len(untreated), dtype=int), where), shape=(len(panel.units), len(periods)))
    return (seen.T @ seen).toarray()


def lead_rows(regression: Regression) -> Lead:
    """Rows and units of every lead."""
    panel, block = regression.panel, regression.design.blocks["lead"]
    rows, units, earlier = np.zeros((3, block.size), dtype=int)
    columns = sp.csc_array(regression.matrix[:, block.columns])
    for k, level in enumerate(block.levels):
        mine = columns.indices[columns.indptr[k] : columns.indptr[k + 1]]
        rows[k], units[k] = len(mine), len(np.unique(panel.unit[mine]))
        earlier[k] = int((panel.event_time[mine] < level).sum())
    return Lead(rows, units, earlier)


def spoken_rows(regression: Regression, known: Known | None) -> np.ndarray:
    """Treated rows of whose effect the data speak, shape (treated row,); all where nothing is given."""
    panel = regression.panel
    rows = np.flatnonzero(panel.treated)
    if known is None:
        return np.ones(len(rows), dtype=bool)
    period = np.searchsorted(regression.frame.periods, panel.time)
    of_unit = np.full(len(panel.units), -1)
    untreated = ~panel.treated
    of_unit[panel.unit[untreated]] = known.component[period[untreated]]  # all of a unit's are the same
    spoken = of_unit[panel.unit[rows]] == known.component[period[rows]]
    labels = treated_labels(panel, False)
    for name, silent in known.silent.items():
        spoken &= ~silent[positions_of(labels[name][1], regression.frame.levels[name])]
    return spoken


def own(regression: Regression, known: Known | None = None) -> Own:
    """Sums over the treated rows of every level of every term.

    Parameters
    ----------
    regression : Regression
    known : Known, optional
        Without it the data are taken to speak of all rows.
    """
    panel = regression.panel
    rows = np.flatnonzero(panel.treated)
    spoken = spoken_rows(regression, known)
    weight, unit = panel.weight[rows], panel.unit[rows]
    truth = np.full(len(rows), np.nan) if panel.truth is None else panel.truth.tau[rows]
    tau, near = own_map(regression, rows), rows_near_zero(regression)
    near_of, seen_of = np.bincount(panel.unit, near), np.bincount(panel.unit)
    labels, found = treated_labels(panel, False), {}
    for name in averaged_terms(panel):
        levels = regression.frame.levels[name]
        code, n = positions_of(labels[name][1], levels), len(levels)
        share = sp.csr_array((weight, (code, np.arange(len(rows)))), shape=(n, len(rows)))
        pairs = np.unique(np.column_stack([code, unit]), axis=0)
        heard = np.unique(np.column_stack([code, unit])[spoken], axis=0)
        units = np.bincount(pairs[:, 0], minlength=n)
        found[name] = Level(
            np.bincount(code, weight, n),
            np.bincount(code, weight * ~spoken, n),
            np.bincount(code, weight * truth, n),
            (share @ tau).toarray(),
            np.bincount(code, minlength=n),
            units,
            units - np.bincount(heard[:, 0], minlength=n),
            np.bincount(pairs[:, 0], near_of[pairs[:, 1]], n),
            np.bincount(pairs[:, 0], seen_of[pairs[:, 1]], n),
        )
    return Own(found, len(rows), int(near[rows].sum()))


def own_map(regression: Regression, rows: np.ndarray) -> sp.csr_array:
    """tau at zero exposure in each of the `rows`, 0 where untreated: a linear map, sparse of shape (row, column)."""
    design, treated = regression.design, regression.panel.treated[rows].astype(float)
    kept = np.ones(design.size)
    for name, block in design.blocks.items():
        if name in ("lead", MEAN, "exposure", "difference", "earlier", *BLOCKS, *NUISANCE) or name.startswith(BY):
            kept[block.columns] = 0.0
    tau = sp.csr_array(regression.matrix[rows] @ sp.diags_array(kept))
    if "difference" not in design.blocks:
        return tau
    centre = treated[:, None] * (regression.exposure_centre / regression.exposure_sd)
    return sp.csr_array(tau - placed(centre, design.blocks["difference"].columns, design.size))


def placed(values: np.ndarray, columns: slice, size: int) -> sp.csr_array:
    """Values on the rows as the given ones of `size` columns, sparse."""
    before, after = (sp.csr_array((len(values), count)) for count in (columns.start, size - columns.stop))
    return sp.csr_array(sp.hstack([before, sp.csr_array(values), after], format="csr"))


def rows_near_zero(regression: Regression) -> np.ndarray:
    """Whether a row has all exposures near zero, shape (row,)."""
    return (regression.shares <= NEAR_ZERO * regression.exposure_sd).all(axis=1)


def sets(regression: Regression) -> Sets:
    """Sums over the sets of rows that estimands of others' adoption are about."""
    panel, surface = regression.panel, regression.surface
    exposed = regression.shares.any(axis=1)
    if surface is not None:
        exposed |= surface.reached
    found = {
        "treated": felt(regression, panel.treated),
        "control": felt(regression, ~panel.treated & exposed),
        "all": felt(regression, np.ones(len(panel.unit), dtype=bool)),
    }
    if surface is not None:
        found["reached"] = felt(regression, ~panel.treated & surface.reached, (surface.name,))
    for k, name in enumerate(regression.exposures):
        mine = regression.shares[:, k] > 0
        found[f"control {name}"] = felt(regression, ~panel.treated & mine, (name,))
        found[f"treated {name}"] = felt(regression, panel.treated & mine, (name,))
        if BY + name in regression.design.blocks:
            by = panel.groups[panel.roster.mappings[name].by]
            for j, level in enumerate(by.levels):
                of_level = ~panel.treated & mine & (by.code[panel.unit] == j)
                found[f"control {name} {level}"] = felt(regression, of_level, (name,))
    return Sets(found)


def felt(regression: Regression, rows: np.ndarray, about: tuple[str, ...] = ()) -> Felt:
    """Sums over some rows.

    Parameters
    ----------
    regression : Regression
    rows : array of bool, shape (row,)
    about : tuple of str
        Exposures of which it is asked on whom they rest.
    """
    panel, design, surface = regression.panel, regression.design, regression.surface
    weight = panel.weight * rows
    by = {}
    for name, block in design.blocks.items():
        if name.startswith(BY):
            exposure = name.removeprefix(BY)
            level = panel.groups[panel.roster.mappings[exposure].by].code[panel.unit]
            by[name] = weight @ regression.matrix[:, block.columns]
            by[f"{name} rows"] = np.bincount(level, weight, block.size)
    spill = None if panel.truth is None else panel.truth.spill
    return Felt(
        int(rows.sum()),
        len(np.unique(panel.unit[rows])),
        float(weight.sum()),
        weight @ regression.shares,
        by,
        np.zeros(0) if surface is None else weight @ surface.columns,
        float("nan") if spill is None else float(weight @ spill),
        {name: reach_of(panel, name, rows, regression.frame.periods) for name in about},
    )
