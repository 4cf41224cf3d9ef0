"""Classical estimates from sums over blocks: what `src.frequentist` does with rows in memory.

    b = (X'MX)^-1 X'My,    V = G / (G - 1) (n - 1) / (n - k) (X'MX)^-1 (sum_i s_i s_i') (X'MX)^-1,    s_i = X_i'M_i r_i

over n rows, k columns and G units, with effects of units and periods and covariates, r = y - Xb; clustered by unit.
Estimands are linear maps of b.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import stdtrit

from models.inputs import CrossProducts
from src import tally
from src.average import Average, own_effects
from src.blocks import over
from src.collapse import Collapsed, without_periods_and_covariates
from src.design import NUISANCE, Regression
from src.estimand import percent
from src.frequentist import COLUMNS
from src.identify import moves, silent_directions
from src.products import centred_within, dependent_columns
from src.spillover import TOTALS, spillover_effects
from src.twins import Twins

WEIGHING = "averages with the variance weights of the regression, some possibly negative"
OF_ROWS = "not run: it needs all rows in memory"
BY_CELL = ("att", "att_event", "att_cohort", "att_gt")


@dataclass(frozen=True)
class Asked:
    """A regression and what is taken from it.

    Attributes
    ----------
    estimator : str
    terms : tuple of str
        Blocks of the design beside periods and covariates.
    wanted : tuple of (estimand, group)
    note : str
    """

    estimator: str
    terms: tuple[str, ...]
    wanted: tuple[tuple[str, str], ...]
    note: str = ""


@dataclass(frozen=True)
class Slopes:
    """Columns of a regression, those that the ones before them explain left out, and their coefficients."""

    columns: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True)
class Scores:
    """Sum over units of the outer products of their scores, for several regressions; adds up over blocks."""

    sums: tuple[np.ndarray, ...]

    def __add__(self, other: Scores) -> Scores:
        return Scores(tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)))


def estimates(collapsed: Collapsed, names: Iterable[str], prob: float) -> pd.DataFrame:
    """Rows of the named estimators in the columns of `comparison.csv`.

    Parameters
    ----------
    collapsed : Collapsed
        Whose rows are in blocks.
    names : iterable of str
        twfe, twfe_exposures and etwfe; others say why they were not run.
    prob : float
    """
    names, (regression, cross) = list(names), collapsed.plain
    design, units = regression.design, len(regression.adopters)
    first, sums, sets = over(regression, tally.first), over(regression, tally.own), over(regression, tally.sets)
    averages = [*own_effects(regression, sums), *spillover_effects(regression, sums, sets)]
    evidence, _ = without_periods_and_covariates(cross, design)
    asked = [one for name in names for one in regressions(regression, name)]
    fits = tuple(slopes(cross, regression, one.terms) for one in asked)
    meats = over(regression, partial(scores, fits=fits)).sums
    quantile = float(stdtrit(units - 1, (1 + prob) / 2))
    records: list[dict] = []
    for one, fit, meat in zip(asked, fits, meats, strict=True):
        inverse = np.linalg.inv(cross.gram[np.ix_(fit.columns, fit.columns)])
        free = regression.rows - len(fit.columns) - 1
        covariance = units / (units - 1) * (regression.rows - 1) / free * inverse @ meat @ inverse
        null = silent_directions(design, evidence, first.mass, one.terms)
        used = np.isin(np.arange(design.size), design.columns(one.terms))
        for average in averages:
            if (average.estimand, average.group) not in one.wanted:
                continue
            weights = average.weights * used
            known = average.n_obs > 0 and not moves(weights, null)
            mine = weights[fit.columns]
            estimate = float(mine @ fit.coefficients) if known else np.nan
            se = float(np.sqrt(mine @ covariance @ mine)) if known else np.nan
            records += rows_of(one, average, estimate, se, quantile, prob, regression.panel.is_log)
    rest = [name for name in names if name not in ("twfe", "twfe_exposures", "etwfe")]
    blank = {"estimand": "att", "scale": "outcome", "estimate": np.nan, "prob": prob, "note": OF_ROWS}
    return pd.DataFrame([*records, *(blank | {"estimator": name} for name in rest)], columns=COLUMNS)


def twins(collapsed: Collapsed, names: Iterable[str], prob: float) -> Twins:
    """What `src.twins.twins` finds, without what needs rows in memory."""
    return Twins(estimates(collapsed, names, prob), refused=dict.fromkeys(("average", "bounds"), OF_ROWS))


def regressions(regression: Regression, name: str) -> Iterator[Asked]:
    """What an estimator regresses on, and what is taken from it."""
    groups = regression.panel.groups
    by = [*groups, *(f"{a}:{b}" for a, b in combinations(groups, 2))]
    felt = "" if not regression.exposures else "exposures are left out"
    if name == "twfe":
        note = "; ".join(part for part in (WEIGHING, felt) if part)
        yield Asked(name, ("mu",), (("att", ""),), note)
        yield from (Asked(name, (group,), (("att_by", group), ("contrast", group)), note) for group in by)
    elif name == "twfe_exposures" and regression.exposures:
        slopes = tuple(("spill_per_pp", exposure) for exposure in regression.exposures)
        wanted = (("att", ""), *((total, "") for total in TOTALS), *slopes)
        yield Asked(name, ("mu", "exposure", "difference"), wanted)
        for group in by:
            yield Asked(name, (group, "exposure", "difference"), (("att_by", group), ("contrast", group)))
    elif name == "etwfe":
        yield Asked(name, ("cell",), tuple((estimand, "") for estimand in BY_CELL), felt)


def slopes(cross: CrossProducts, regression: Regression, terms: tuple[str, ...]) -> Slopes:
    """Least squares on the columns of some blocks, periods and covariates."""
    design = regression.design
    beside = tuple(name for name in NUISANCE if name in design.blocks)
    columns = design.columns((*beside, *terms))
    free = columns[np.setdiff1d(np.arange(len(columns)), dependent_columns(cross.gram[np.ix_(columns, columns)]))]
    return Slopes(free, np.linalg.solve(cross.gram[np.ix_(free, free)], cross.moment[free]))


def scores(regression: Regression, *, fits: tuple[Slopes, ...]) -> Scores:
    """sum_i s_i s_i' of the units of a block, for every regression."""
    panel = regression.panel
    weight, unit = panel.weight, panel.unit
    rows, units = len(unit), len(panel.units)
    total = np.bincount(unit, weight)
    outcome, found = centred_within(panel.outcome, unit), []
    for fit in fits:
        columns = sp.csr_array(regression.matrix[:, fit.columns])
        left = outcome - columns @ fit.coefficients
        left = weight * (left - (np.bincount(unit, weight * left) / total)[unit])
        of_units = (sp.csr_array((left, (unit, np.arange(rows))), shape=(units, rows)) @ columns).toarray()
        found.append(of_units.T @ of_units)
    return Scores(tuple(found))


def rows_of(
    one: Asked, average: Average, estimate: float, se: float, quantile: float, prob: float, is_log: bool
) -> Iterator[dict]:
    """Tidy rows of an estimate: its percent row by the delta method, the interval by transforming its ends."""
    numbers = {"outcome": (estimate, se, estimate - quantile * se, estimate + quantile * se)}
    if is_log:
        middle, low, high = percent(np.array([estimate, *numbers["outcome"][2:]]))
        numbers["percent"] = (float(middle), float(100 * np.exp(estimate) * se), float(low), float(high))
    for scale, values in numbers.items():
        yield dict(
            zip(
                COLUMNS,
                (
                    *(average.estimand, average.group or None, average.level or None, scale, one.estimator),
                    *values,
                    *(prob, average.n_obs, one.note or None),
                ),
                strict=True,
            )
        )
