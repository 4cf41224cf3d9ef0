"""Averages of the effect of own adoption, as linear maps of the coefficients.

Weights are counts of rows (times the data's sampling weights), never estimated precisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import scipy.sparse as sp

from models.inputs import BY
from src.design import NUISANCE, Regression, cell_labels, in_order, joint_labels
from src.exposure import flat_exposures
from src.kernel import BLOCKS
from src.panel import Panel

MOST_CONTRASTED = 5
NEAR_ZERO = 0.25
FEW = 0.05
LEAST_SUPPORT = 0.01  # of the rows of a stratum that are near zero exposure
MOST_SILENT = 0.5
NO_ROWS = np.zeros(0, dtype=int)
FIXED = "fixed by the model"  # how the note of a structural row begins
OWN = ("att", "att_by", "att_event", "att_cohort", "att_gt", "direct")
ENDS = dict.fromkeys(OWN, ("own", "none")) | {
    "total_treated": ("all", "none"),
    "spill_control": ("all", "none"),
    "overall": ("all", "none"),
    "spill_treated": ("all", "own"),
    "switching": ("all", "others"),
}  # what is felt in the two worlds that an estimand compares
MARGINS = ("att_any", "att_given_any")  # of counts: own adoption on any event, and on the mean where there is any


@dataclass(frozen=True)
class Average:
    """One estimand as a linear map of the coefficients.

    Attributes
    ----------
    estimand, group, level : str
        Key in the tables; `group` and `level` are empty where they do not apply.
    weights : array, shape (column,)
        Over all columns of the design.
    n_units, n_obs : int
        Units and rows that are averaged.
    truth : float
        NaN for real data.
    note : str
    identified : bool
        False where the data say nothing: the estimate is then NaN and `note` says why.
    rows : array of int
        Rows of the panel that are averaged; empty where none are, as in a contrast or a slope.
    """

    estimand: str
    group: str
    level: str
    weights: np.ndarray
    n_units: int
    n_obs: int
    truth: float = float("nan")
    note: str = ""
    identified: bool = True
    rows: np.ndarray = field(default_factory=lambda: NO_ROWS)


def own_effects(regression: Regression, spoken: np.ndarray) -> Iterator[Average]:
    """Averages of tau, the effect of own adoption at zero exposure, over subsets of the treated rows.

    Parameters
    ----------
    regression : Regression
    spoken : array of bool, shape (treated row,)
        Rows of whose effect the data speak.
    """
    panel = regression.panel
    rows = np.flatnonzero(panel.treated)
    event_time = panel.event_time[rows].astype(int)
    cohort = panel.row_cohort[rows].astype(int)
    labels = {name: panel.row_labels(factor)[rows] for name, factor in panel.groups.items()}

    def averaged(estimand: str, group: str, label: np.ndarray) -> Iterator[Average]:
        return subset_averages(regression, estimand, group, label, spoken)

    yield from averaged("att", "", np.full(len(rows), ""))
    for name, level in labels.items():
        by_level = list(averaged("att_by", name, level))
        yield from by_level
        if 2 <= len(by_level) <= MOST_CONTRASTED:
            yield from (difference(a, b) for a, b in combinations(by_level, 2))
    for a, b in combinations(labels, 2):
        yield from averaged("att_by", f"{a}:{b}", joint_labels(labels[a], labels[b]))
    yield from averaged("att_event", "", event_time)
    yield from averaged("att_cohort", "", cohort)
    yield from averaged("att_gt", "", cell_labels(cohort, panel.time[rows]))


def subset_averages(
    regression: Regression, estimand: str, group: str, labels: np.ndarray, spoken: np.ndarray
) -> Iterator[Average]:
    """Average of tau over the treated rows of each label, in sorted order.

    Parameters
    ----------
    regression : Regression
    estimand, group : str
    labels : array, shape (treated row,)
    spoken : array of bool, shape (treated row,)
    """
    panel = regression.panel
    rows = np.flatnonzero(panel.treated)
    levels, code = in_order(labels)
    weight = panel.weight[rows]
    share = sp.csr_array((weight, (code, np.arange(len(rows)))), shape=(len(levels), len(rows)))
    total = np.bincount(code, weight)
    weights = (share @ own_map(regression, rows)).toarray() / total[:, None]
    truth = np.full(len(levels), np.nan)
    if panel.truth is not None:
        truth = np.bincount(code, weight * panel.truth.tau[rows]) / total
    silent = np.bincount(code, weight * ~spoken) / total
    near, far = rows_near_zero(regression), extrapolation(regression)
    for k, level in enumerate(levels):
        mine = code == k
        units = np.unique(panel.unit[rows][mine])
        n_units = len(units)
        unsupported = without_support(near, panel, units)
        identified = bool(silent[k] <= MOST_SILENT) and not unsupported
        note = unsupported or join(about_silence(panel, rows[mine], spoken[mine], silent[k]), far)
        yield Average(
            *(estimand, group, str(level), weights[k], n_units, int(mine.sum()), float(truth[k]), note, identified),
            rows=rows[mine],
        )


def own_map(regression: Regression, rows: np.ndarray) -> sp.csr_array:
    """tau at zero exposure in each of the `rows`, 0 where untreated: a linear map, sparse of shape (row, column)."""
    design, treated = regression.design, regression.panel.treated[rows].astype(float)
    kept = np.ones(design.size)
    for name, block in design.blocks.items():
        if name in ("lead", "exposure", "difference", *BLOCKS, *NUISANCE) or name.startswith(BY):
            kept[block.columns] = 0.0
    own = sp.csr_array(regression.matrix[rows] @ sp.diags_array(kept))
    if "difference" not in design.blocks:
        return own
    centre = treated[:, None] * (regression.exposure_centre / regression.exposure_sd)
    return sp.csr_array(own - placed(centre, design.blocks["difference"].columns, design.size))


def placed(values: np.ndarray, columns: slice, size: int) -> sp.csr_array:
    """Values on the rows as the given ones of `size` columns, sparse."""
    before, after = (sp.csr_array((len(values), count)) for count in (columns.start, size - columns.stop))
    return sp.csr_array(sp.hstack([before, sp.csr_array(values), after], format="csr"))


def about_silence(panel: Panel, rows: np.ndarray, spoken: np.ndarray, share: float) -> str:
    """What to say where the data are silent about some of the `rows`, `share` of their weight."""
    if spoken.all():
        return ""
    units = len(np.unique(panel.unit[rows]))
    lost = units - len(np.unique(panel.unit[rows][spoken]))
    which = f"{share:.0%} of these rows ({lost} of {units} units wholly)"
    if share > MOST_SILENT:
        return f"not identified: nothing untreated in the data compares with {which}"
    return f"nothing untreated in the data compares with {which}: there the model alone speaks"


def difference(a: Average, b: Average) -> Average:
    """Contrast of two levels of a group, `a` minus `b`."""
    return Average(
        "contrast",
        a.group,
        f"{a.level} - {b.level}",
        a.weights - b.weights,
        a.n_units + b.n_units,
        a.n_obs + b.n_obs,
        a.truth - b.truth,
        next((x.note for x in (a, b) if not x.identified), ""),
        a.identified and b.identified,
    )


def rows_near_zero(regression: Regression) -> np.ndarray:
    """Whether a row has all exposures near zero, shape (row,)."""
    return (regression.shares <= NEAR_ZERO * regression.exposure_sd).all(axis=1)


def without_support(near: np.ndarray, panel: Panel, units: np.ndarray) -> str:
    """Why effects at zero exposure cannot be told of some units; empty where they can.

    They are never seen near it, whether treated or not: what they would do there is another's word, not theirs.

    Parameters
    ----------
    near : array of bool, shape (row,)
    panel : Panel
    units : array of int
    """
    share = near[np.isin(panel.unit, units)].mean()
    if share >= LEAST_SUPPORT:
        return ""
    return f"not identified: {share:.1%} of all rows of these units have exposures near zero, where it is evaluated"


def extrapolation(regression: Regression) -> str:
    """What stands between the data and effects at zero exposure: hardly any treated row near it, or fixed effects."""
    if not regression.exposures:
        return ""
    absorbed = flat_exposures(regression.panel, regression.share_of)
    names = " and ".join(absorbed)
    less = f"less the slope of {names} on the untreated over the number of others, which is not known" if names else ""
    near = rows_near_zero(regression)[regression.panel.treated].mean()
    far = f"linear extrapolation: {near:.0%} of treated rows have exposures near zero" if near < FEW else ""
    return join(less, far)


def join(*parts: str) -> str:
    """Notes in one string."""
    return "; ".join(part for part in parts if part)
