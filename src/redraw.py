"""An outcome drawn from coefficients, and the evidence that it leaves where nothing of the errors is estimated.

    theta ──▶ f = X theta + shocks ──▶ y ──▶ evidence about theta

    Gaussian   y = f + errors, serially correlated and of unequal scale
    counts     y ~ Multinomial(N, softmax(f + z)) over the rows of a unit, z the disturbance, N its events in the data
    part       y of each row ~ Binomial(n, 1 / (1 + exp(-a - f - z))) of its n events, given that of all y are N

What the model does not draw is as it was estimated from the data: s, rho, scales, shocks, onset; of counts a variance
of each unit's disturbance, drawn from its probabilities, which the evidence is then told. Effects of periods and
covariates are flat in the model, and so are those of units on Gaussian outcomes: they may be anything, and are zero.
The level of a unit is flat, too, and with it gone counts are looked at given their total,

    integral over a of Poisson(y | exp(a + f + z)) = Multinomial(y | N, softmax(f + z)) / N    whatever f and z

and of a part likewise to the accuracy of a saddlepoint, its level flat in the number that is expected,

so that ranks are uniform for totals that have nothing to do with the draw, and for no levels that lie in a range: at
its ends effects decide which units have any event, and those that have some differ from those that have none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp
import xarray as xr
from scipy.optimize import brentq
from scipy.special import expit, softmax

from models.inputs import CrossProducts
from src import noise
from src.collapse import Collapsed, with_outcome
from src.design import NUISANCE
from src.errors import Errors
from src.panel import first_rows
from src.products import centred_within
from src.system import Equation

TRIES = 200  # at a time, of which one in sqrt(2 pi variance of the total) adds up
REACH = 40.0  # of a level in log odds


@dataclass(frozen=True)
class Redrawn:
    """An outcome and what it says of the coefficients.

    Attributes
    ----------
    outcome : array, shape (row,)
    collapsed : Collapsed
        With its regression and evidence.
    """

    outcome: np.ndarray
    collapsed: Collapsed


def redrawn(
    equation: Equation,
    errors: Errors,
    terms: tuple[str, ...],
    draw: xr.Dataset,
    before: list[np.ndarray],
    rng: np.random.Generator,
) -> Redrawn:
    """The outcome of one equation.

    Parameters
    ----------
    equation : Equation
        Of the data.
    errors : Errors
    terms : tuple of str
        As of `src.collapse.collapse`.
    draw : Dataset
        One draw of theta, dim column, and of sigma where it is not known, in units of s.
    before : list of array, shape (row,)
        Outcomes of the equations before.
    rng : Generator
    """
    collapsed = given(equation, before)
    panel, s = collapsed.regression.panel, collapsed.s
    felt = s * (collapsed.regression.matrix[:, columns_of(collapsed, draw)] @ draw["theta"].to_numpy().ravel())
    if not errors.events:
        sigma = np.array([s * float(draw["sigma"].item()) if "sigma" in draw else s])
        weight = collapsed.nuisance.weight[:, None]
        outcome = felt + noise.errors(collapsed.regression, collapsed.nuisance, sigma, weight, rng)[:, 0]
        return Redrawn(outcome, with_outcome(collapsed, errors, outcome))
    if equation.is_share:
        panel = replace(panel, whole=before[0])
        collapsed = replace(collapsed, regression=replace(collapsed.regression, panel=panel))
    outcome, share = counted(collapsed, felt, rng)
    return Redrawn(outcome, with_outcome(collapsed, errors, outcome, terms, share))


def columns_of(collapsed: Collapsed, draw: xr.Dataset) -> np.ndarray:
    """Positions in the design of the coefficients that the model has, shape (column,)."""
    return collapsed.regression.design.positions(draw["theta"]["column"].to_numpy())


def given(equation: Equation, before: list[np.ndarray]) -> Collapsed:
    """The equation with other outcomes before it."""
    collapsed = equation.collapsed
    if not equation.earlier:
        return collapsed
    regression = collapsed.regression
    scaled = [centred_within(values, regression.panel.unit) for values in before]
    mine = sp.csr_array(np.column_stack(scaled) / equation.scale)
    place = regression.design.blocks["earlier"].columns
    pieces = [regression.matrix[:, : place.start], mine, regression.matrix[:, place.stop :]]
    return replace(collapsed, regression=replace(regression, matrix=sp.csr_array(sp.hstack(pieces, format="csr"))))


def counted(collapsed: Collapsed, felt: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts, shape (row,), and the variance of each unit's disturbance, as probabilities of none or one, shape (unit,
    grid point); every unit has as many events as in the data.
    """
    levels, panel = collapsed.levels, collapsed.regression.panel
    assert levels is not None
    chosen = noise.picked(levels.share, rng)
    z = np.sqrt(levels.omega[chosen])[panel.unit] * noise.serial(panel, collapsed.nuisance.rho, 1, rng)[:, 0]
    log = panel.log_offset + felt + z
    for shock in collapsed.nuisance.shocks.values():
        log = log + collapsed.s * noise.shocks(panel, shock, 1, rng)[:, 0]
    events = np.rint(np.bincount(panel.unit, panel.outcome)).astype(int)
    rows = partial(np.split, indices_or_sections=first_rows(panel.unit)[1:])
    if panel.whole is None:
        found = [rng.multinomial(n, softmax(of_unit)) for n, of_unit in zip(events, rows(log), strict=True)]
    else:
        whole = np.rint(panel.whole).astype(int)
        each = zip(events, rows(whole), rows(log), strict=True)
        found = [part_of(n, of_unit, odds, rng) for n, of_unit, odds in each]
    return np.concatenate(found).astype(float), np.eye(levels.share.shape[1])[chosen]


def part_of(total: int, whole: np.ndarray, odds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many of the `whole` events of each row are of a part, given how many are in all, shape (row,).

    Binomials at a level that expects as many, drawn until they add up: Fisher's noncentral hypergeometric law, which no
    level changes.
    """
    if total in (0, whole.sum()):
        return whole * (total > 0)
    odds = odds - odds.max()
    level = brentq(lambda a: whole @ expit(a + odds) - total, -REACH, REACH + np.ptp(odds))
    while True:
        tried = rng.binomial(whole, expit(level + odds), (TRIES, len(whole)))
        added = np.flatnonzero(tried.sum(axis=1) == total)
        if len(added):
            return tried[added[0]]


def evidence_of(found: Redrawn, columns: np.ndarray) -> CrossProducts:
    """Evidence about the columns of the model, in units of s."""
    return found.collapsed.evidence.rescale(found.collapsed.s).take(columns)


def left_of_treated(found: Redrawn, coefficients: np.ndarray) -> np.ndarray:
    """Treated rows less X theta, both less the mean of the unit, shape (draw, row)."""
    regression = found.collapsed.regression
    panel = regression.panel
    left = found.outcome[:, None] - regression.matrix @ coefficients.T
    return np.array([centred_within(one, panel.unit)[panel.treated] for one in left.T])


def without_nuisance(found: Redrawn, errors: Errors, coefficients: np.ndarray) -> np.ndarray:
    """Treated rows less their unit and what periods and covariates do: mean of what is left, shape (draw,).

    Of counts their mean as it is. Arguments as of `treated_fit`.
    """
    regression = found.collapsed.regression
    if errors.events:
        return np.full(len(coefficients), found.outcome[regression.panel.treated].mean())
    design = regression.design
    flat = design.columns(tuple(name for name in NUISANCE if name in design.blocks))
    only_flat = np.zeros_like(coefficients)
    only_flat[:, flat] = coefficients[:, flat]
    return left_of_treated(found, only_flat).mean(axis=1)


def treated_fit(found: Redrawn, errors: Errors, coefficients: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """How well each draw fits treated rows, shape (draw,): any function that looks at the outcome does.

        Gaussian   -|y - X theta - Z eta|^2 / (2 sigma^2) of treated rows, all less the mean of its unit
        counts     sum over units of the log probability of how their events of treated rows spread over these
        part       the same, each row times the events there

    eta, the effects of periods and covariates, has to be drawn with theta: it is flat, so that ranks are those of a
    prior only where they do not change as the outcome moves by Z eta.

    Parameters
    ----------
    found : Redrawn
    errors : Errors
    coefficients : array, shape (draw, column)
        Of all columns of the design, in units of the outcome.
    sigma : array, shape (draw,)
        In units of s.
    """
    if not errors.events:
        return -0.5 * ((left_of_treated(found, coefficients) / found.collapsed.s) ** 2).sum(axis=1) / sigma**2
    regression = found.collapsed.regression
    panel = regression.panel
    rows = panel.treated
    power = regression.matrix[rows] @ coefficients.T + panel.log_offset[rows, None]
    if panel.whole is not None:
        power += np.log(np.maximum(panel.whole[rows], 0.5))[:, None]
    unit = panel.unit[rows]
    starts = first_rows(unit)
    log_total = np.logaddexp.reduceat(power, starts, axis=0)
    events = np.add.reduceat(found.outcome[rows], starts)
    return found.outcome[rows] @ power - events @ log_total
