"""From a panel to the columns of the regression.

    y_it = alpha_i + lambda_t + x_it'beta + D_it tau_it + S_it'delta_control + D_it (S_it - Sbar)'difference
           + (1 - D_it) f_it + y_it'c + eps_it

    tau_it = mu + path_e + cohort_g + cell_gt + m_e (sum of group terms + unit_i),    (m_0, m_1) = onset, else m_e = 1

`Sbar` is the mean exposure of treated rows, so `mu` is the effect at average exposure: well identified, and nearly
independent of `difference`. The estimands convert (effects at zero exposure are mu - Sbar'difference). `f` is there
where the kernel of an exposure is learned; see src.kernel. `c` are slopes of outcomes that come earlier in a system of
several; see src.system.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from models.inputs import BY, Block, Design
from src.errors import FULL
from src.exposure import PER_POINT, flat_exposures, is_share
from src.kernel import BLOCKS, Surface, learned_exposure, surface_of
from src.panel import Panel
from src.products import centred_within

if TYPE_CHECKING:
    from src.blocks import Blocks

NUISANCE = ("time", "fixed", "covariate")  # blocks that are integrated out, in this order
MEAN = "mean"  # block of the mean effects of single units, where these are integrated out: no column of any row
MOST_OWN = 2_000  # adopters whose own effects are sampled; of more they are integrated out
MOST_LEADS = 8  # against the last period before adoption; earlier rows belong to the farthest
DIMS = {"mu": "", "path": "event_time"}  # of blocks that do not bear the name of theirs
CELL = r"-?\d+@-?\d+"  # label of a cohort x period cell


@dataclass(frozen=True)
class Frame:
    """What the columns mean, whichever rows they are made for: the same for every block of a panel.

    Attributes
    ----------
    levels : dict of str to tuple
        Of every term of tau and of the leads; only those that some row has.
    rows_per_event_time : array, shape (event time,)
        Share of treated rows.
    periods : array of int, shape (period,)
    last : dict of int to int
        Of each cohort, the last period before adoption in which it is seen; its first one where there is none.
    later : bool
        There are treated rows in the adoption period and after it.
    exposure_sd : array, shape (exposure,)
        SD of each exposure over exposed rows, its unit among the columns.
    exposure_centre : array, shape (exposure,)
        Weighted mean of each exposure over treated rows.
    exposure_step : array, shape (exposure,)
        Step in each exposure for which its slope is reported: .01 of a share, else one SD.
    told : array of bool, shape (exposure,)
        Not absorbed by fixed effects.
    covariate_mean, covariate_sd : array, shape (covariate,)
        Unit of each covariate; SD 1 where it does not vary, so that its column is zero.
    totals : dict of str to array, shape (level,)
        Weight of the treated rows of each level of a term.
    outcome : tuple of float
        Mean and SD.
    cells : dict of (cohort, period) to array
        Rows, their weight and their weighted outcome.
    """

    levels: dict[str, tuple]
    rows_per_event_time: np.ndarray
    periods: np.ndarray
    last: dict[int, int]
    later: bool
    exposure_sd: np.ndarray
    exposure_centre: np.ndarray
    exposure_step: np.ndarray
    told: np.ndarray
    covariate_mean: np.ndarray
    covariate_sd: np.ndarray
    totals: dict[str, np.ndarray]
    outcome: tuple[float, float]
    cells: dict[tuple[float, int], np.ndarray]

    @property
    def treated(self) -> int:
        """Number of treated rows."""
        return int(sum(rows for (g, t), (rows, *_) in self.cells.items() if t >= g))


@dataclass(frozen=True)
class Regression:
    """Rows of the regression beside the names of its columns.

    Attributes
    ----------
    panel : Panel
    design : Design
    matrix : sparse array, shape (row, column)
        Effects (treated rows only), exposures in SDs, standardised covariates, period dummies without the first.
    shares : array, shape (row, exposure)
        Exposures in their own unit.
    frame : Frame
    surface : Surface, optional
        Of the exposure whose kernel is learned.
    onset : tuple of float
        Share of the differences in effect between levels and units that is there at event times 0, 1, ...
    integrated : bool
        Effects of single units are integrated out before all else: there are too many to sample.
    blocks : Blocks, optional
        Where the rows are if not here; the panel then has units and no rows, and the matrix none.
    """

    panel: Panel
    design: Design
    matrix: sp.csr_array
    shares: np.ndarray
    frame: Frame
    surface: Surface | None = None
    onset: tuple[float, ...] = FULL
    integrated: bool = False
    blocks: Blocks | None = None

    @property
    def rows(self) -> int:
        """Number of rows, wherever they are."""
        return len(self.panel.outcome) if self.blocks is None else self.blocks.rows

    @property
    def adopters(self) -> np.ndarray:
        """Units with treated rows, shape (unit,)."""
        if self.blocks is not None:
            return self.blocks.adopters
        return np.isin(np.arange(len(self.panel.units)), self.panel.unit[self.panel.treated])

    @property
    def exposure_sd(self) -> np.ndarray:
        """SD of each exposure over exposed rows, its unit among the columns."""
        return self.frame.exposure_sd

    @property
    def exposure_centre(self) -> np.ndarray:
        """Weighted mean of each exposure over treated rows."""
        return self.frame.exposure_centre

    @property
    def exposure_step(self) -> np.ndarray:
        """Step in each exposure for which its slope is reported."""
        return self.frame.exposure_step

    @property
    def covariate_sd(self) -> np.ndarray:
        """Unit of each covariate among the columns."""
        return self.frame.covariate_sd

    @property
    def exposures(self) -> tuple[str, ...]:
        """Names of the exposures that vary and have slopes."""
        return self.design.blocks["exposure"].levels if "exposure" in self.design.blocks else ()

    @property
    def share_of(self) -> dict[str, np.ndarray]:
        """Each of those exposures on the rows, shape (row,)."""
        return dict(zip(self.exposures, self.shares.T, strict=True))


def build_design(panel: Panel, shares: dict[str, np.ndarray], units: bool = False) -> tuple[Regression, list[str]]:
    """Columns for every term that the panel can carry; a level exists only where a treated row has it.

    Parameters
    ----------
    panel : Panel
    shares : dict of str to array, shape (row,)
        Exposures; one that is zero throughout is left out. One that fixed effects absorb has no slope on the
        untreated: its column is zero.
    units : bool
        Give every adopter an effect of its own; of more than `MOST_OWN` adopters they are integrated out.

    Returns
    -------
    Regression
    notes : list of str
        What was left out, one line each.
    """
    notes = [f"exposure {name} is zero in every row and is left out" for name, s in shares.items() if not s.any()]
    shares = {name: s for name, s in shares.items() if s.any() and name != learned_exposure(panel)}
    return regression_of(panel, shares, surface_of(panel), units), notes


def regression_of(
    panel: Panel,
    shares: dict[str, np.ndarray],
    surface: Surface | None,
    units: bool,
    trait: np.ndarray | None = None,
    onset: tuple[float, ...] = FULL,
    frame: Frame | None = None,
    integrated: bool | None = None,
) -> Regression:
    """The columns of `build_design`.

    Parameters
    ----------
    panel : Panel
    shares : dict of str to array, shape (row,)
        Exposures with slopes, each of which is somewhere above zero.
    surface : Surface, optional
        Of the exposure whose kernel is learned.
    units : bool
        Give every adopter an effect of its own.
    trait : array, shape (unit,), optional
        Of the units, standardised among adopters, on which effects may depend, in the adoption period and after it.
    onset : tuple of float
        What columns of groups, interactions and units have at event times 0, 1, ..., instead of 1.
    frame : Frame, optional
        What the columns mean, where the panel is a block of a larger one.
    integrated : bool, optional
        Integrate the effects of adopters out; where not given, if they are many.
    """
    if integrated is None:
        integrated = units and too_many(len(np.unique(panel.unit[panel.treated])))
    sampled = units and not integrated
    if frame is None:
        frame = frame_of(survey(panel, shares, sampled), panel, tuple(shares), flat_exposures(panel, shares))
    treated = np.flatnonzero(panel.treated)
    pieces: list[sp.csr_array] = []
    blocks: dict[str, Block] = {}

    def add(name: str, dim: str, levels: tuple, columns: sp.csr_array, predictor: np.ndarray | None = None) -> None:
        start = sum(block.size for block in blocks.values())
        blocks[name] = Block(name, dim, levels, start, predictor)
        pieces.append(columns)

    event_time = panel.event_time[treated].astype(int)
    predictors = {name: dict(zip(panel.groups[name].levels, z, strict=True)) for name, z in panel.predictors.items()}
    for name, (rows, labels) in treated_labels(panel, sampled).items():
        levels = frame.levels.get(name, ())
        if not levels:
            continue
        code = positions_of(labels, levels)
        value = reached(event_time[rows], onset) if ramps(name, panel) else np.ones(len(rows))
        indicator = sp.csr_array((value, (treated[rows], code)), shape=(len(panel.unit), len(levels)))
        slope = None
        if name in predictors:
            z = np.array([predictors[name][level] for level in levels], dtype=float)
            slope = z - z.mean() if np.ptp(z) > 0 else None
        add(name, DIMS.get(name, name), levels, indicator, slope)
    if integrated:
        named = tuple(f"{name}={level}" for name in averaged_terms(panel) for level in frame.levels[name])
        add(MEAN, MEAN, named, sp.csr_array((len(panel.unit), len(named))))
    if trait is not None:
        of_adopters = trait[panel.unit] * panel.treated
        add("trait", "", (0,), sp.csr_array(of_adopters[:, None]))
        if frame.later:
            add("trait_late", "", (0,), sp.csr_array((of_adopters * (panel.event_time >= 1))[:, None]))

    if "lead" in frame.levels:
        before, ahead = leads(panel, frame.last)
        levels = frame.levels["lead"]
        indicator = sp.csr_array(
            (np.ones(len(before)), (before, positions_of(ahead, levels))), shape=(len(panel.unit), len(levels))
        )
        add("lead", "lead", levels, indicator)

    share = np.column_stack(list(shares.values())) if shares else np.zeros((len(panel.unit), 0))
    sd = frame.exposure_sd
    if shares:
        names = tuple(shares)
        add("exposure", "exposure", names, sp.csr_array(share / sd * frame.told))
        centred = panel.treated[:, None] * (share - frame.exposure_centre) / sd
        add("difference", "exposure", names, sp.csr_array(centred))
        for k, name in enumerate(names):
            by = panel.roster.mappings[name].by
            if by and frame.told[k]:
                add(BY + name, f"{name}_by_{by}", *by_level(panel, by, share[:, k] / sd[k]))

    if surface is not None:
        untreated = sp.csr_array(sp.diags_array((~panel.treated).astype(float)) @ surface.columns)
        for name, levels in surface.levels.items():
            start = sum(len(surface.levels[other]) for other in BLOCKS[: BLOCKS.index(name)])
            dim = "kernel" if name == "kernel" else "ring"
            add(name, dim, levels, untreated[:, start : start + len(levels)])

    if panel.given:
        given = [centred_within(values, panel.unit) for values in panel.given.values()]
        add("earlier", f"earlier_{len(given)}", tuple(panel.given), sp.csr_array(np.column_stack(given)))
    if panel.covariate_names:
        standard = (panel.covariates - frame.covariate_mean) / frame.covariate_sd
        add("covariate", "covariate", panel.covariate_names, sp.csr_array(standard))
    if panel.fixed and len(frame.periods) > 1:
        add("fixed", "fixed", *level_periods(panel))
    if len(frame.periods) > 1:
        later = np.flatnonzero(panel.time > frame.periods[0])
        column = np.searchsorted(frame.periods, panel.time[later]) - 1
        shape = (len(panel.unit), len(frame.periods) - 1)
        dummies = sp.csr_array((np.ones(len(later)), (later, column)), shape=shape)
        add("time", "time", tuple(frame.periods[1:].tolist()), dummies)

    design = Design(blocks, frame.rows_per_event_time, tuple(panel.groups))
    matrix = sp.csr_array(sp.hstack(pieces, format="csr"))
    return Regression(panel, design, matrix, share, frame, surface, onset, integrated)


def too_many(adopters: int) -> bool:
    """Whether so many adopters have their own effects integrated out instead of sampled."""
    return adopters > MOST_OWN


def ramps(name: str, panel: Panel) -> bool:
    """Whether only a share of a term's differences is there at first."""
    return name == "unit" or name.removesuffix("_late") in panel.groups or name.count(":") == 1


def reached(event_time: np.ndarray, onset: tuple[float, ...]) -> np.ndarray:
    """m_e, the share of the differences that is there at each event time, shape as given; 1 before adoption, too."""
    early = (event_time >= 0) & (event_time < len(onset))
    return np.where(early, np.array(onset)[np.where(early, event_time, 0).astype(int)], 1.0)


def treated_labels(panel: Panel, units: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For every term of tau that the panel can carry: treated rows that it concerns, and the label of each.

    Rows are counted among treated ones.
    """
    treated = np.flatnonzero(panel.treated)
    every = np.arange(len(treated))
    event_time = panel.event_time[treated].astype(int)
    cohort = panel.row_cohort[treated].astype(int)
    labels = {name: panel.row_labels(factor)[treated] for name, factor in panel.groups.items()}
    found = {
        "mu": (every, np.zeros(len(treated), dtype=int)),
        "path": (every, event_time),
        "cohort": (every, cohort),
        "cell": (every, cell_labels(cohort, panel.time[treated])),
    }
    found |= {name: (every, labels[name]) for name in panel.groups}
    found |= {f"{a}:{b}": (every, joint_labels(labels[a], labels[b])) for a, b in combinations(panel.groups, 2)}
    if panel.groups:
        found["group_cell"] = (every, np.array(reduce(joint_labels, labels.values())))
    if units:
        found["unit"] = (every, panel.units[panel.unit[treated]])
    later = np.flatnonzero(event_time >= 1)
    return found | {f"{name}_late": (later, labels[name][later]) for name in panel.groups}


def averaged_terms(panel: Panel) -> tuple[str, ...]:
    """Terms by whose levels effects are averaged."""
    return ("mu", "path", "cohort", "cell", *panel.groups, *(f"{a}:{b}" for a, b in combinations(panel.groups, 2)))


def own_rows(panel: Panel, onset: tuple[float, ...]) -> np.ndarray:
    """f, the rows of every unit's own effect, shape (row,): m_e where it has adopted."""
    return panel.treated * reached(panel.event_time, onset)


def mean_effects(regression: Regression) -> sp.csr_array:
    """Share of every unit's own effect in the mean over the treated rows of each level, shape (unit, column).

        h_i = sum over the rows of a level of weight_it f_it / weight of all rows of the level

    over all columns of the design, zero outside the block of means.
    """
    panel, block = regression.panel, regression.design.blocks[MEAN]
    treated = np.flatnonzero(panel.treated)
    weight = panel.weight[treated] * own_rows(panel, regression.onset)[treated]
    unit, labels = panel.unit[treated], treated_labels(panel, False)
    row, column, value, at = [], [], [], block.start
    for name in averaged_terms(panel):
        levels = regression.frame.levels[name]
        code = positions_of(labels[name][1], levels)
        row.append(unit)
        column.append(at + code)
        value.append(weight / regression.frame.totals[name][code])
        at += len(levels)
    where = (np.concatenate(row), np.concatenate(column))
    return sp.csr_array((np.concatenate(value), where), shape=(len(panel.units), regression.design.size))


def leads(panel: Panel, last: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows before adoption that have a lead, and how many periods ahead of it they are (as a negative number)."""
    of_cohort = np.array([last.get(int(g), 0) if np.isfinite(g) else 0 for g in panel.cohort])
    adopts = np.isfinite(panel.row_cohort)
    rows = np.flatnonzero(adopts & ~panel.treated & (panel.time != of_cohort[panel.unit]))
    return rows, np.maximum(panel.event_time[rows].astype(int), -MOST_LEADS)


def positions_of(labels: np.ndarray, levels: tuple) -> np.ndarray:
    """Position of each label among the levels, every one of which is there."""
    known, code = np.unique(labels, return_inverse=True)
    place = {level: k for k, level in enumerate(levels)}
    return np.array([place[label] for label in known.tolist()], dtype=int)[code]


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squares about the mean of columns; adds up over blocks (Chan, Golub & LeVeque 1983).

    Attributes
    ----------
    n, mean, square : array, shape (column,)
    """

    n: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, columns: list[np.ndarray]) -> Moments:
        """Of columns that may have different lengths."""
        n = np.array([len(x) for x in columns], dtype=float)
        mean = np.array([x.mean() if len(x) else 0.0 for x in columns])
        return cls(n, mean, np.array([x.var() * len(x) if len(x) else 0.0 for x in columns]))

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        part = other.n / np.maximum(n, 1)
        step = other.mean - self.mean
        return Moments(n, self.mean + part * step, self.square + other.square + self.n * part * step**2)

    @property
    def sd(self) -> np.ndarray:
        """Population SD of each column."""
        return np.sqrt(self.square / np.maximum(self.n, 1))


@dataclass(frozen=True)
class Survey:
    """What has to be known of all rows before columns can be made; adds up over blocks of units.

    Attributes
    ----------
    weights : dict of str to dict
        Weight of the treated rows of each label, by term.
    seen : dict of int to set of int
        Periods in which a cohort is seen.
    periods : set of int
    exposed : Moments
        Of every exposure over the rows where it is above zero.
    felt : array, shape (exposure,)
        Weighted sum over treated rows.
    covariates, outcome : Moments
    cells : dict of (cohort, period) to array
        Rows, their weight and their weighted outcome; cohort inf where never treated.
    """

    weights: dict[str, dict]
    seen: dict[int, set[int]]
    periods: set[int]
    exposed: Moments
    felt: np.ndarray
    covariates: Moments
    outcome: Moments
    cells: dict[tuple[float, int], np.ndarray]

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            {name: summed(self.weights[name], other.weights[name]) for name in self.weights},
            {g: self.seen.get(g, set()) | other.seen.get(g, set()) for g in self.seen | other.seen},
            self.periods | other.periods,
            self.exposed + other.exposed,
            self.felt + other.felt,
            self.covariates + other.covariates,
            self.outcome + other.outcome,
            summed(self.cells, other.cells),
        )


def of_exposures(found: Survey, kept: list[int]) -> Survey:
    """The survey with some of its exposures alone."""
    of = found.exposed
    exposed = Moments(of.n[kept], of.mean[kept], of.square[kept])
    return replace(found, exposed=exposed, felt=found.felt[kept])


def survey(panel: Panel, shares: dict[str, np.ndarray], units: bool) -> Survey:
    """The survey of a panel or of a block of one; parameters as of `build_design`."""
    treated, weight = panel.treated, panel.weight
    of_treated = weight[treated]
    weights = {}
    for name, (rows, labels) in treated_labels(panel, units).items():
        found, code = np.unique(labels, return_inverse=True)
        sums = np.bincount(code, of_treated[rows], len(found)).tolist()
        weights[name] = dict(zip(found.tolist(), sums, strict=True))
    cells = cells_of(panel)
    seen: dict[int, set[int]] = {}
    for g, t in cells:
        if np.isfinite(g):
            seen.setdefault(int(g), set()).add(t)
    return Survey(
        weights,
        seen,
        set(panel.periods.tolist()),
        Moments.of([s[s > 0] for s in shares.values()]),
        np.array([weight[treated] @ s[treated] for s in shares.values()]),
        Moments.of(list(panel.covariates.T)),
        Moments.of([panel.outcome]),
        cells,
    )


def cells_of(panel: Panel) -> dict[tuple[float, int], np.ndarray]:
    """Rows, their weight and their weighted outcome in every cohort and period."""
    cohorts, of_unit = np.unique(panel.cohort, return_inverse=True)
    periods = panel.periods
    code = of_unit[panel.unit] * len(periods) + np.searchsorted(periods, panel.time)
    parts = [np.bincount(code, of) for of in (None, panel.weight, panel.weight * panel.outcome)]
    return {
        (float(cohorts[k // len(periods)]), int(periods[k % len(periods)])): np.array([part[k] for part in parts])
        for k in np.flatnonzero(parts[0])
    }


def summed(one: dict, two: dict) -> dict:
    """Numbers by label, those of the same label added up."""
    return {label: one.get(label, 0.0) + two.get(label, 0.0) for label in one | two}


def frame_of(found: Survey, panel: Panel, names: tuple[str, ...], flat: Collection[str] = ()) -> Frame:
    """What the columns mean, from a survey of all rows.

    Parameters
    ----------
    found : Survey
    panel : Panel
        For what its exposures are.
    names : tuple of str
        Of the exposures.
    flat : collection of str
        Exposures that fixed effects absorb.
    """
    last = {g: max((t for t in times if t < g), default=min(times)) for g, times in found.seen.items()}
    weight_at = found.weights["path"]
    later = any(e >= 1 for e in weight_at) and any(e < 1 for e in weight_at)
    levels = {
        name: tuple(in_order(np.array(sorted(labels)))[0].tolist())
        for name, labels in found.weights.items()
        if labels and (later or not name.endswith("_late"))
    }
    ahead = {max(t - g, -MOST_LEADS) for g, times in found.seen.items() for t in times if t < g and t != last[g]}
    if ahead:
        levels["lead"] = tuple(sorted(ahead))
    totals = {
        name: np.array([found.weights[name][label] for label in of]) for name, of in levels.items() if name != "lead"
    }
    sd = np.where(found.exposed.sd > 1e-9 * np.abs(found.exposed.mean), found.exposed.sd, found.exposed.mean)
    step = [PER_POINT if is_share(panel, name) else sd[k] for k, name in enumerate(names)]
    return Frame(
        levels,
        totals["path"] / totals["path"].sum(),
        np.array(sorted(found.periods)),
        last,
        later,
        sd,
        found.felt / totals["path"].sum(),
        np.array(step, dtype=float),
        np.array([name not in flat for name in names], dtype=bool),
        found.covariates.mean,
        np.where(found.covariates.sd > 0, found.covariates.sd, 1.0),
        totals,
        (float(found.outcome.mean[0]), float(found.outcome.sd[0])),
        dict(sorted(found.cells.items())),
    )


def last_before(panel: Panel) -> np.ndarray:
    """Last period before adoption in which the cohort of each row is seen, its first one where that is not before it.

    Shape (row,); of units that never adopt, the row's own period.
    """
    last = panel.time.copy()
    for g in np.unique(panel.cohort[np.isfinite(panel.cohort)]):
        mine = panel.row_cohort == g
        last[mine] = panel.time[mine & (panel.time < g)].max(initial=panel.time[mine].min())
    return last


def by_level(panel: Panel, group: str, value: np.ndarray) -> tuple[tuple[str, ...], sp.csr_array]:
    """A number on the rows in a column for each level of a group, shape (row, level)."""
    factor = panel.groups[group]
    rows = np.flatnonzero(value)
    shape = (len(panel.unit), len(factor.levels))
    return factor.levels, sp.csr_array((value[rows], (rows, factor.code[panel.unit[rows]])), shape=shape)


def level_periods(panel: Panel) -> tuple[tuple[str, ...], sp.csr_array]:
    """Indicators of every level x period of the fixed effects that occurs, but those of the first period.

    Labels "industry:C26@2015". Those that periods and other classifications explain are left to the elimination.
    """
    labels, pieces = [], []
    later = np.flatnonzero(panel.time > panel.time.min())
    for name, factor in panel.fixed.items():
        level = panel.row_labels(factor)[later]
        names, code = np.unique(cell_labels_of(level, panel.time[later]), return_inverse=True)
        labels += [f"{name}:{label}" for label in names]
        shape = (len(panel.unit), len(names))
        pieces.append(sp.csr_array((np.ones(len(later)), (later, code)), shape=shape))
    return tuple(labels), sp.csr_array(sp.hstack(pieces, format="csr"))


def cell_labels_of(level: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Label "C26@2015" of each row."""
    return np.char.add(np.char.add(level.astype(str), "@"), time.astype(str))


def cell_labels(cohort: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Label "2015@2017" of each treated row."""
    return cell_labels_of(cohort.astype(int), time)


def in_order(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels, and the position of each row's; cells by cohort and period as numbers ("4@9" before "4@10")."""
    levels, code = np.unique(labels, return_inverse=True)
    if levels.dtype.kind != "U" or not all(re.fullmatch(CELL, level) for level in levels):
        return levels, code
    numbers = [[int(part) for part in level.split("@")] for level in levels]
    order = np.lexsort(np.array(numbers).T[::-1])
    return levels[order], np.argsort(order)[code]


def joint_labels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Label "C39:private" of each row."""
    return np.char.add(np.char.add(a.astype(str), ":"), b.astype(str))


def standardised(value: np.ndarray, among: np.ndarray) -> np.ndarray:
    """`value` less its mean among some, over its SD among them; 0 where it does not vary, shape as given."""
    sd = np.std(value[among])
    return (value - np.mean(value[among])) / sd if sd > 1e-9 else np.zeros_like(value)


def with_traits(regression: Regression, trait: np.ndarray | None, onset: tuple[float, ...]) -> Regression:
    """The regression whose effects may depend on a trait of the units, shape (unit,), standardised among adopters, and
    that has shares `onset` of the differences between levels and units at event times 0, 1, ...
    """
    panel, units = regression.panel, "unit" in regression.design.blocks
    units = units or regression.integrated
    frame, integrated = regression.frame, regression.integrated
    found = regression_of(panel, regression.share_of, regression.surface, units, trait, onset, frame, integrated)
    blocks = regression.blocks
    return found if blocks is None else replace(found, blocks=replace(blocks, trait=trait, onset=onset))


def without_own(regression: Regression) -> Regression:
    """The regression whose effects of single units are not integrated out, nor anywhere else."""
    blocks = regression.blocks
    return replace(regression, integrated=False, blocks=None if blocks is None else replace(blocks, own=False))


def without_covariates(regression: Regression, dropped: tuple[str, ...]) -> Regression:
    """The regression without the named covariates (absorbed by unit and period effects)."""
    panel, frame = regression.panel, regression.frame
    keep = [j for j, name in enumerate(panel.covariate_names) if name not in dropped]
    names = tuple(panel.covariate_names[j] for j in keep)
    smaller = replace(panel, covariates=panel.covariates[:, keep], covariate_names=names)
    frame = replace(frame, covariate_mean=frame.covariate_mean[keep], covariate_sd=frame.covariate_sd[keep])
    units, integrated = regression.integrated or "unit" in regression.design.blocks, regression.integrated
    found = regression_of(smaller, regression.share_of, regression.surface, units, frame=frame, integrated=integrated)
    blocks = regression.blocks
    return found if blocks is None else replace(found, blocks=replace(blocks, dropped=(*blocks.dropped, *dropped)))
