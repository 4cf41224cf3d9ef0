"""Effects on counts: in events, and in proportion to the events that there would be without any adoption.

    m_it = alpha_i E[exp(z_it + shocks)] exp(lambda_t + x_it'beta) offset_it        expected count, nobody adopts
    percent = 100 sum over rows m_it (exp(high_it) - exp(low_it)) / sum over rows m_it
    outcome = sum over rows m_it (exp(high_it) - exp(low_it)) / number of rows      events a unit and period
    log     = mean over rows (high_it - low_it)                                     the row average, in log points

with, in the terms of `src.estimand`,

    att, att_by, att_event, att_cohort, att_gt, direct      high = tau                       low = 0
    total_treated, spill_control, overall                   high = tau + S'delta             low = 0
    spill_treated                                           high = tau + S'delta_treated     low = tau
    switching                                               high = tau + S'delta_treated     low = S'delta_control

so that total_treated = direct + spill_treated draw by draw, in events and in percent. Large units count for more than
small ones, unlike in `log`: a note says how many of equal size a number is worth. A unit without any event has
alpha_i = 0: it is in the number of rows, and adds nothing to either sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import xarray as xr

from models.inputs import BY
from src.average import Average, own_map, placed
from src.collapse import Collapsed
from src.counts import Levels
from src.design import NUISANCE, Regression
from src.estimand import Scales, percent
from src.kernel import BLOCKS

CHUNK = 8_000_000  # numbers at a time
MOST_LOG = 60.0
SLOPES = ("spill_per_pp", "spill_by", "spill_at")  # ratios of means by themselves
OWN = ("att", "att_by", "att_event", "att_cohort", "att_gt", "direct")
ENDS = dict.fromkeys(OWN, ("own", "none")) | {
    "total_treated": ("all", "none"),
    "spill_control": ("all", "none"),
    "overall": ("all", "none"),
    "spill_treated": ("all", "own"),
    "switching": ("all", "others"),
}  # what is felt in the two worlds that an estimand compares


@dataclass(frozen=True)
class Felt:
    """Log points that each row feels, as linear maps of the coefficients, sparse of shape (row, column).

    Attributes
    ----------
    own : sparse array
        tau at zero exposure, on treated rows.
    others : sparse array
        S'delta_control.
    more : sparse array
        S'difference, on treated rows.
    """

    own: sp.csr_array
    others: sp.csr_array
    more: sp.csr_array

    @classmethod
    def of(cls, regression: Regression) -> Felt:
        """Those of a regression."""
        design, treated = regression.design, regression.panel.treated.astype(float)
        of_others = [name for name in design.blocks if name in ("exposure", *BLOCKS) or name.startswith(BY)]
        is_other = np.isin(np.arange(design.size), positions(regression, of_others)).astype(float)
        others = sp.csr_array(regression.matrix @ sp.diags_array(is_other))
        more = sp.csr_array(others.shape)
        if "difference" in design.blocks:
            share = treated[:, None] * regression.shares / regression.exposure_sd
            more = placed(share, design.blocks["difference"].columns, design.size)
        return cls(own_map(regression, np.arange(len(treated))), others, more)


def positions(regression: Regression, names: list[str]) -> np.ndarray:
    """Columns of the named blocks."""
    return regression.design.columns(tuple(names)) if names else np.zeros(0, dtype=int)


def count_scales(
    collapsed: Collapsed, theta: xr.DataArray, found: list[Average], draws: np.ndarray, seed: int
) -> Scales:
    """Draws, truths and notes of every estimand by scale: events, percent, and row averages in log points.

    Parameters
    ----------
    collapsed : Collapsed
        Of counts.
    theta : DataArray, dims (chain, draw, column)
        In log points.
    found : list of Average
    draws : array, shape (chain, draw, estimand)
        Row averages.
    seed : int
        Of the draws of levels, periods and covariates.
    """
    known = truths(collapsed.regression, found)
    of_slopes = [k for k, average in enumerate(found) if average.estimand in SLOPES]
    values, carried = ratios(collapsed, theta, found, seed)
    values["percent"][..., of_slopes] = percent(draws[..., of_slopes])
    known["percent"][of_slopes] = percent(np.array([found[k].truth for k in of_slopes]))
    of_events = ["a slope has no number of events" if k in of_slopes else said for k, said in enumerate(carried)]
    return {
        "outcome": (values["outcome"], known["outcome"], of_events),
        "percent": (values["percent"], known["percent"], carried),
        "log": (draws, np.array([average.truth for average in found]), [""] * len(found)),
    }


@dataclass(frozen=True)
class Plan:
    """Estimands that compare the same two worlds.

    Attributes
    ----------
    mine : list of int
        Their positions among all estimands.
    rows : array of int, shape (row,)
        Rows of the panel that any of them sums over.
    into : sparse array, shape (estimand, row)
        Weight of each row in each sum.
    high, low : sparse array, shape (row, column)
        What is felt in the two worlds.
    """

    mine: list[int]
    rows: np.ndarray
    into: sp.csr_array
    high: sp.csr_array
    low: sp.csr_array


def plans_of(regression: Regression, found: list[Average]) -> list[Plan]:
    """The estimands that sum over rows, by the worlds that they compare."""
    felt, weight = Felt.of(regression), regression.panel.weight
    worlds = {"none": 0 * felt.own, "own": felt.own, "others": felt.others, "all": felt.own + felt.others + felt.more}
    plans = []
    for high, low in dict.fromkeys(ENDS.values()):
        mine = [k for k, average in enumerate(found) if len(average.rows) and ENDS[average.estimand] == (high, low)]
        if mine:
            each = [found[k].rows for k in mine]
            rows, place = np.unique(np.concatenate(each), return_inverse=True)
            sums = np.repeat(np.arange(len(mine)), [len(part) for part in each])
            into = sp.csr_array((weight[np.concatenate(each)], (sums, place)), shape=(len(mine), len(rows)))
            plans.append(Plan(mine, rows, into, worlds[high][rows], worlds[low][rows]))
    return plans


def ratios(
    collapsed: Collapsed, theta: xr.DataArray, found: list[Average], seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Draws of every estimand that sums over rows, in events and in percent, and what carries each of these sums.

    NaN and empty where nothing is summed; parameters as of `count_scales`.
    """
    regression, levels = collapsed.regression, collapsed.levels
    assert levels is not None
    draws = theta.transpose("chain", "draw", "column")
    known = all_coefficients(collapsed, draws, seed)
    rng = np.random.default_rng([seed, 7])
    plans = plans_of(regression, found)
    gain, base = np.full((2, len(known), len(found)), np.nan)
    size, carried = np.full(len(found), np.nan), [""] * len(found)
    total = [np.zeros(len(plan.rows)) for plan in plans]
    step = max(CHUNK // len(regression.panel.unit), 1)
    for start in range(0, len(known), step):
        some = slice(start, start + step)
        log_level = unit_levels(regression, levels, known[some], rng)
        for plan, so_far in zip(plans, total, strict=True):
            mean = expected_counts(regression, log_level, known[some], plan.rows)
            high, low = (np.exp(np.minimum((x @ known[some].T).T, MOST_LOG)) for x in (plan.high, plan.low))
            base[some, plan.mine] = (plan.into @ mean.T).T
            gain[some, plan.mine] = (plan.into @ (mean * (high - low)).T).T
            so_far += mean.sum(axis=0)
    for plan, mean in zip(plans, total, strict=True):
        size[plan.mine] = plan.into.sum(axis=1)
        units, of_row = np.unique(regression.panel.unit[plan.rows], return_inverse=True)
        into_units = sp.csr_array((mean, (np.arange(len(mean)), of_row)), shape=(len(mean), len(units)))
        of_units = sp.csr_array(plan.into @ into_units)
        for position, k in enumerate(plan.mine):
            carried[k] = what_carries(of_units[[position]].data)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = {"outcome": gain / size, "percent": 100 * np.where(base > 0, gain / base, np.nan)}
    for name, values in scales.items():
        contrasts(values, found, name == "percent")
        values[:, [not average.identified for average in found]] = np.nan
    return {name: values.reshape(*draws.shape[:2], len(found)) for name, values in scales.items()}, carried


def what_carries(share: np.ndarray) -> str:
    """How many units of equal size a sum of expected counts is worth, and how much of it the largest unit has.

    Parameters
    ----------
    share : array, shape (unit,)
        Expected counts of each unit.
    """
    share = share[share > 0]
    if not len(share):
        return "no events: the units averaged have none in any period"
    worth = share.sum() ** 2 / (share**2).sum()
    return f"worth {worth:.1f} units of equal size, the largest is {share.max() / share.sum():.0%}"


def all_coefficients(collapsed: Collapsed, draws: xr.DataArray, seed: int) -> np.ndarray:
    """Draws of the coefficients of all columns of the design, those that were integrated out too, in log points.

    Columns that the model does not use are zero; shape (draw, column).
    """
    design = collapsed.regression.design
    labels = {label: k for k, label in enumerate(design.all_labels)}
    nuisance = tuple(name for name in NUISANCE if name in design.blocks)
    flat = draws.to_numpy().reshape(-1, draws.sizes["column"])
    known = np.zeros((len(flat), design.size))
    known[:, [labels[str(label)] for label in draws["column"].to_numpy()]] = flat
    if nuisance:
        out = design.columns(nuisance)
        kept = design.columns(tuple(name for name in design.blocks if name not in nuisance))
        sigma = np.full(len(flat), collapsed.s)
        known[:, out] = collapsed.conditional.draw(known[:, kept], sigma, np.random.default_rng([seed, 8]))
    return known


def unit_levels(regression: Regression, levels: Levels, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """log(alpha_i E[exp(z)]) drawn given the coefficients, shape (draw, unit); -inf for units without any event."""
    panel = regression.panel
    units = len(levels.total)
    within = sp.csr_array((levels.weight, (panel.unit, np.arange(len(panel.unit)))), shape=(units, len(panel.unit)))
    felt = ((within @ regression.matrix) @ known.T).T + within @ panel.log_offset
    some = levels.total > 0
    total = np.where(some, levels.total, 1.0)
    drawn = (levels.pull - felt) / total + rng.standard_normal(felt.shape) / np.sqrt(total)
    reached = np.cumsum(levels.share, axis=1)
    omega = np.full(felt.shape, levels.omega[0])
    chance = rng.random(felt.shape)
    for point in range(1, len(levels.omega)):
        omega = np.where(chance > reached[:, point - 1], levels.omega[point], omega)
    return np.where(some, drawn + omega / 2, -np.inf)


def expected_counts(regression: Regression, log_level: np.ndarray, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """m_it, shape (draw, row); 0 for units without any event."""
    panel, design = regression.panel, regression.design
    nuisance = positions(regression, [name for name in NUISANCE if name in design.blocks])
    plain = (regression.matrix[rows][:, nuisance] @ known[:, nuisance].T).T + panel.log_offset[rows]
    return np.exp(np.minimum(log_level[:, panel.unit[rows]] + plain, MOST_LOG))


def contrasts(values: np.ndarray, found: list[Average], relative: bool) -> None:
    """Fill the contrasts in: the difference of two levels of `att_by` in events, the ratio of ratios in percent."""
    place = {(a.estimand, a.group, a.level): k for k, a in enumerate(found)}
    for k, average in enumerate(found):
        if average.estimand == "contrast":
            first, second = average.level.split(" - ", 1)
            of_first, of_second = (values[..., place["att_by", average.group, level]] for level in (first, second))
            if relative:
                values[..., k] = 100 * ((1 + of_first / 100) / (1 + of_second / 100) - 1)
            else:
                values[..., k] = of_first - of_second


def truths(regression: Regression, found: list[Average]) -> dict[str, np.ndarray]:
    """What is true of every estimand in events and in percent; NaN where it is not known, shape (estimand,)."""
    gain, base, size = np.full((3, len(found)), np.nan)
    panel = regression.panel
    truth = panel.truth
    if truth is not None and truth.mean is not None:
        by = {"none": np.zeros(len(panel.unit)), "own": np.where(panel.treated, truth.tau, 0.0)}
        slopes = [
            np.array([slope.get(name, np.nan) for name in regression.exposures])
            for slope in (truth.slope_control, truth.slope_treated)
        ]
        received = [regression.shares @ slope if len(slope) else np.zeros(len(panel.unit)) for slope in slopes]
        by["others"] = received[0]
        by["all"] = by["own"] + np.where(panel.treated, received[1], received[0])
        for k, average in enumerate(found):
            if len(average.rows):
                weight = panel.weight[average.rows] * truth.mean[average.rows]
                high, low = (np.exp(by[end][average.rows]) for end in ENDS[average.estimand])
                gain[k], base[k] = weight @ (high - low), weight.sum()
                size[k] = panel.weight[average.rows].sum()
    found_truths = {"outcome": gain / size, "percent": 100 * gain / base}
    for name, values in found_truths.items():
        contrasts(values, found, name == "percent")
    return found_truths
