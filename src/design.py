"""From a panel to the columns of the regression.

    y_it = alpha_i + lambda_t + x_it'beta + D_it tau_it + S_it'delta_control + D_it (S_it - Sbar)'difference
           + (1 - D_it) f_it + eps_it

    tau_it = mu + path_e + cohort_g + cell_gt + m_e (sum of group terms + unit_i),    m_0 = onset, else m_e = 1

`Sbar` is the mean exposure of treated rows, so `mu` is the effect at average exposure: well identified, and nearly
independent of `difference`. The estimands convert (effects at zero exposure are mu - Sbar'difference). `f` is there
where the kernel of an exposure is learned; see src.kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np
import scipy.sparse as sp

from models.inputs import BY, Block, Design
from src.exposure import flat_exposures, spread, step_of
from src.kernel import BLOCKS, Surface, learned_exposure, surface_of
from src.panel import Panel

NUISANCE = ("time", "fixed", "covariate")  # blocks that are integrated out, in this order
MOST_LEADS = 8  # against the last period before adoption; earlier rows belong to the farthest
CELL = r"-?\d+@-?\d+"  # label of a cohort x period cell


@dataclass(frozen=True)
class Regression:
    """Rows of the regression beside the names of its columns.

    Attributes
    ----------
    design : Design
    matrix : sparse array, shape (row, column)
        Effects (treated rows only), exposures in SDs, standardised covariates, period dummies without the first.
    shares : array, shape (row, exposure)
        Exposures in their own unit.
    exposure_sd : array, shape (exposure,)
        SD of each exposure over exposed rows, its unit in `matrix`.
    exposure_centre : array, shape (exposure,)
        Weighted mean of each exposure over treated rows.
    exposure_step : array, shape (exposure,)
        Step in each exposure for which its slope is reported: .01 of a share, else one SD.
    covariate_sd : array, shape (covariate,)
        Unit of each covariate in `matrix`; 1 where it does not vary, so that its column is zero.
    surface : Surface, optional
        Of the exposure whose kernel is learned.
    onset : float
        Share of the differences in effect between levels and units that is there in the adoption period.
    """

    panel: Panel
    design: Design
    matrix: sp.csr_array
    shares: np.ndarray
    exposure_sd: np.ndarray
    exposure_centre: np.ndarray
    exposure_step: np.ndarray
    covariate_sd: np.ndarray
    surface: Surface | None = None
    onset: float = 1.0

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
        Give every adopter an effect of its own.

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
    onset: float = 1.0,
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
        Of the units, on which effects may depend, in the adoption period and after it.
    onset : float
        What columns of groups, interactions and units have in the adoption period, instead of 1.
    """
    treated = np.flatnonzero(panel.treated)
    pieces: list[sp.csr_array] = []
    blocks: dict[str, Block] = {}

    def add(name: str, dim: str, levels: tuple, columns: sp.csr_array, predictor: np.ndarray | None = None) -> None:
        start = sum(block.size for block in blocks.values())
        blocks[name] = Block(name, dim, levels, start, predictor)
        pieces.append(columns)

    def add_treated(
        name: str, dim: str, labels: np.ndarray, rows: np.ndarray, predictor: dict | None = None, ramps: bool = False
    ) -> None:
        levels, code = in_order(labels)
        value = np.where(ramps & (event_time[rows] == 0), onset, 1.0)
        indicator = sp.csr_array((value, (treated[rows], code)), shape=(len(panel.unit), len(levels)))
        slope = None
        if predictor is not None:
            z = np.array([predictor[level] for level in levels], dtype=float)
            slope = z - z.mean() if np.ptp(z) > 0 else None
        add(name, dim, tuple(levels.tolist()), indicator, slope)

    every = np.arange(len(treated))
    event_time = panel.event_time[treated].astype(int)
    cohort = panel.row_cohort[treated].astype(int)
    labels = {name: panel.row_labels(factor)[treated] for name, factor in panel.groups.items()}
    predictors = {name: dict(zip(panel.groups[name].levels, z, strict=True)) for name, z in panel.predictors.items()}

    add_treated("mu", "", np.zeros(len(treated), dtype=int), every)
    add_treated("path", "event_time", event_time, every)
    add_treated("cohort", "cohort", cohort, every)
    add_treated("cell", "cell", cell_labels(cohort, panel.time[treated]), every)
    for name in panel.groups:
        add_treated(name, name, labels[name], every, predictors.get(name), ramps=True)
    for a, b in combinations(panel.groups, 2):
        add_treated(f"{a}:{b}", f"{a}:{b}", joint_labels(labels[a], labels[b]), every, ramps=True)
    if panel.groups:
        finest = np.array(reduce(joint_labels, labels.values()))
        add_treated("group_cell", "group_cell", finest, every)
    if units:
        add_treated("unit", "unit", panel.units[panel.unit[treated]], every, ramps=True)
    later = np.flatnonzero(event_time >= 1)
    if 0 < len(later) < len(treated):
        for name in panel.groups:
            add_treated(f"{name}_late", f"{name}_late", labels[name][later], later)
    if trait is not None:
        of_adopters = standardised(trait, np.unique(panel.unit[treated]))[panel.unit] * panel.treated
        add("trait", "", (0,), sp.csr_array(of_adopters[:, None]))
        if 0 < len(later) < len(treated):
            add("trait_late", "", (0,), sp.csr_array((of_adopters * (panel.event_time >= 1))[:, None]))

    before = np.flatnonzero(np.isfinite(panel.row_cohort) & ~panel.treated & (panel.time != last_before(panel)))
    if len(before):
        ahead = np.maximum(panel.event_time[before].astype(int), -MOST_LEADS)
        first, code = np.unique(ahead, return_inverse=True)
        indicator = sp.csr_array((np.ones(len(before)), (before, code)), shape=(len(panel.unit), len(first)))
        add("lead", "lead", tuple(first.tolist()), indicator)

    share = np.column_stack(list(shares.values())) if shares else np.zeros((len(panel.unit), 0))
    sd = np.array([spread(s[s > 0]) for s in share.T])
    step = np.array([step_of(panel, name, s) for name, s in shares.items()])
    centre = np.average(share[treated], axis=0, weights=panel.weight[treated])
    if shares:
        names = tuple(shares)
        flat = flat_exposures(panel, shares)
        told = np.array([name not in flat for name in names])
        add("exposure", "exposure", names, sp.csr_array(share / sd * told))
        add("difference", "exposure", names, sp.csr_array(panel.treated[:, None] * (share - centre) / sd))
        for k, name in enumerate(names):
            by = panel.roster.mappings[name].by
            if by and told[k]:
                add(BY + name, f"{name}_by_{by}", *by_level(panel, by, share[:, k] / sd[k]))

    if surface is not None:
        untreated = sp.csr_array(sp.diags_array((~panel.treated).astype(float)) @ surface.columns)
        for name, levels in surface.levels.items():
            start = sum(len(surface.levels[other]) for other in BLOCKS[: BLOCKS.index(name)])
            dim = "kernel" if name == "kernel" else "ring"
            add(name, dim, levels, untreated[:, start : start + len(levels)])

    sds = panel.covariates.std(axis=0)
    covariate_sd = np.where(sds > 0, sds, 1.0)
    if panel.covariate_names:
        standard = (panel.covariates - panel.covariates.mean(axis=0)) / covariate_sd
        add("covariate", "covariate", panel.covariate_names, sp.csr_array(standard))
    periods = panel.periods
    if panel.fixed and len(periods) > 1:
        add("fixed", "fixed", *level_periods(panel))
    if len(periods) > 1:
        dummies = sp.csr_array(panel.time[:, None] == periods[None, 1:]).astype(float)
        add("time", "time", tuple(periods[1:].tolist()), dummies)

    rows_at = np.bincount(np.searchsorted(blocks["path"].levels, event_time), panel.weight[treated])
    design = Design(blocks, rows_at / rows_at.sum(), tuple(panel.groups))
    matrix = sp.csr_array(sp.hstack(pieces, format="csr"))
    return Regression(panel, design, matrix, share, sd, centre, step, covariate_sd, surface, onset)


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


def with_traits(regression: Regression, trait: np.ndarray | None, onset: float) -> Regression:
    """The regression whose effects may depend on a trait of the units, shape (unit,), and that has `onset` of the
    differences between levels and units in the adoption period.
    """
    units = "unit" in regression.design.blocks
    return regression_of(regression.panel, regression.share_of, regression.surface, units, trait, onset)


def without_covariates(regression: Regression, dropped: list[str]) -> Regression:
    """The regression without the named covariates (absorbed by unit and period effects)."""
    panel = regression.panel
    keep = [j for j, name in enumerate(panel.covariate_names) if name not in dropped]
    names = tuple(panel.covariate_names[j] for j in keep)
    smaller = replace(panel, covariates=panel.covariates[:, keep], covariate_names=names)
    return regression_of(smaller, regression.share_of, regression.surface, "unit" in regression.design.blocks)
