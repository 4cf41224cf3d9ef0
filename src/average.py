"""Averages of the effect of own adoption, as linear maps of the coefficients.

Weights are counts of rows (times the data's sampling weights), never estimated precisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from src.design import MEAN, Regression, positions_of, treated_labels
from src.tally import Own

MOST_CONTRASTED = 5
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


def own_effects(regression: Regression, own: Own) -> Iterator[Average]:
    """Averages of tau, the effect of own adoption at zero exposure, over subsets of the treated rows.

    Parameters
    ----------
    regression : Regression
    own : Own
        Sums over all rows.
    """
    panel = regression.panel
    yield from level_averages(regression, "att", "mu", own)
    for name in panel.groups:
        by_level = list(level_averages(regression, "att_by", name, own))
        yield from by_level
        if 2 <= len(by_level) <= MOST_CONTRASTED:
            yield from (difference(a, b) for a, b in combinations(by_level, 2))
    for a, b in combinations(panel.groups, 2):
        yield from level_averages(regression, "att_by", f"{a}:{b}", own)
    yield from level_averages(regression, "att_event", "path", own)
    yield from level_averages(regression, "att_cohort", "cohort", own)
    yield from level_averages(regression, "att_gt", "cell", own)


def level_averages(regression: Regression, estimand: str, term: str, own: Own) -> Iterator[Average]:
    """Average of tau over the treated rows of each level of a term.

    Where effects of single units are integrated out, their mean is a coefficient of its own.

    Parameters
    ----------
    regression : Regression
    estimand, term : str
    own : Own
    """
    panel, design, levels = regression.panel, regression.design, regression.frame.levels[term]
    sums, far = own.levels[term], extrapolation(regression, own)
    group = term if estimand == "att_by" else ""
    mine = {}
    if regression.blocks is None:
        rows = np.flatnonzero(panel.treated)
        code = positions_of(treated_labels(panel, False)[term][1], levels)
        mine = {k: rows[code == k] for k in range(len(levels))}
    for k, level in enumerate(levels):
        weights = sums.tau[k] / sums.weight[k]
        if regression.integrated:
            weights[design.blocks[MEAN].start + design.blocks[MEAN].levels.index(f"{term}={level}")] = 1.0
        silent = sums.silent[k] / sums.weight[k]
        unsupported = without_support(sums.near[k] / sums.seen[k])
        identified = bool(silent <= MOST_SILENT) and not unsupported
        note = unsupported or join(about_silence(int(sums.units[k]), int(sums.lost[k]), silent), far)
        name, truth = "" if term == "mu" else str(level), float(sums.truth[k] / sums.weight[k])
        counts = (int(sums.units[k]), int(sums.rows[k]))
        yield Average(estimand, group, name, weights, *counts, truth, note, identified, rows=mine.get(k, NO_ROWS))


def about_silence(units: int, lost: int, share: float) -> str:
    """What to say where the data are silent about a `share` of the weight of rows, `lost` of the units wholly."""
    if share == 0:
        return ""
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


def without_support(share: float) -> str:
    """Why effects at zero exposure cannot be told of some units; empty where they can.

    They are never seen near it, whether treated or not: what they would do there is another's word, not theirs.

    Parameters
    ----------
    share : float
        Of all rows of these units that are near it.
    """
    if share >= LEAST_SUPPORT:
        return ""
    return f"not identified: {share:.1%} of all rows of these units have exposures near zero, where it is evaluated"


def extrapolation(regression: Regression, own: Own) -> str:
    """What stands between the data and effects at zero exposure: hardly any treated row near it, or fixed effects."""
    if not regression.exposures:
        return ""
    names = " and ".join(
        name for name, told in zip(regression.exposures, regression.frame.told, strict=True) if not told
    )
    less = f"less the slope of {names} on the untreated over the number of others, which is not known" if names else ""
    near = own.near / own.treated
    far = f"linear extrapolation: {near:.0%} of treated rows have exposures near zero" if near < FEW else ""
    return join(less, far)


def join(*parts: str) -> str:
    """Notes in one string."""
    return "; ".join(part for part in parts if part)
