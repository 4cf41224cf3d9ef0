"""Density of a unit's outcomes given those of others and a draw of the coefficients: what leave-one-unit-out rests on.

Shocks tie units together, so that the likelihood is no product over units. Given the coefficients all is Normal, and
what the others say of the shocks u that a unit is hit by has a closed form (Bürkner, Gabry & Vehtari 2021):

    u | y_-i, theta ~ Normal(m, sigma^2 C),    C = (Lambda^-1 + sum over others j of Z_j'M_j Z_j)^-1,
                                               m = C sum over others j of Z_j'M_j (y_j - X_j theta)
    y_i | y_-i, theta ~ Normal(X_i theta + Z_i m, sigma^2 (tau R_i + Z_i C Z_i' + v f_i f_i'))    up to alpha_i

with M_j as in `src.products`, R_i the AR(1) correlation with the panel's weights, Lambda the prior of the shocks.
alpha_i is flat, so that the density is that of rows - 1 orthonormal contrasts within the unit. Where C_all and m_all
are those given all units, and A = Z_i C_all Z_i', those without unit i are

    Z_i C Z_i' = B = A (I - M_i A)^-1,    Z_i m = Z_i m_all + B M_i (Z_i m_all - e_i),    e_i = y_i - X_i theta

What only unit i tells is integrated over what is known without it: its own effect v f_i f_i', v = (sd_unit / sigma)^2,
f_i the rows in which it has adopted, and its error scale tau ~ scaled-inverse-chi^2(nu, s0), by the trapezoidal rule.
The posterior took the scale as estimated, 1 / w_i; the density under that scale, `plugged`, is what draws are weighted
by.

    theta, v   drawn given all units, or given a rest that does not have unit i
    rho, phi, nu, s0, sd of shocks, scales of others   as estimated from all units
    s, onset, the trait of unit i (its log scale)      likewise: what adopters' effects depend on has seen the unit
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.special import gammaln, logsumexp

from src.blocks import over
from src.collapse import Collapsed, products_under, without_periods_and_covariates, without_shocks
from src.design import Regression, own_rows
from src.errors import prior_of_the_rest, without_first_shocks
from src.panel import Panel, first_rows
from src.products import BlockConditional

REACH, FINE = 8.0, 2.0  # of the integral over a unit's scale: SDs of its logarithm to either side, nodes an SD


@dataclass(frozen=True)
class Draws:
    """Draws of what the density is given, in units of the outcome.

    Attributes
    ----------
    coefficients : array, shape (draw, column)
        Of all columns of the design, periods and covariates too; zero of means of effects that are integrated out.
    sigma : array, shape (draw,)
    spread : array, shape (draw,)
        SD of the effects of single units; zero where they have none.
    """

    coefficients: np.ndarray
    sigma: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Told:
    """What units say of the shocks, given coefficients.

    Attributes
    ----------
    first : BlockConditional, optional
        Of the shocks of the first classification given all other columns, a block a level.
    covariance : array, shape (other, other)
        Of the shocks of the other classifications.
    cross : array, shape (other, column)
    moment : array, shape (other,)
        Their mean is covariance (moment - cross theta).
    """

    first: BlockConditional | None
    covariance: np.ndarray
    cross: np.ndarray
    moment: np.ndarray


@dataclass(frozen=True)
class Unit:
    """One unit, and what is said of its shocks.

    Attributes
    ----------
    position : int
        Among the units of the panel.
    rows : array of int, shape (row,)
        Of the panel.
    residual : array, shape (row, draw)
        y - X theta, its own effect taken out where it has been drawn.
    mean : array, shape (row, draw)
        Of its shocks, in units of the outcome.
    covariance : array, shape (row, row)
        Of its shocks, over sigma^2.
    """

    position: int
    rows: np.ndarray
    residual: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


def products_of(collapsed: Collapsed, units: np.ndarray | None = None) -> sp.csr_array:
    """Cross-products of shocks, columns and outcome of some units, or of all, symmetric."""
    regression, nuisance = collapsed.regression, collapsed.nuisance
    codes = codes_of(collapsed)
    if units is None:
        units = np.arange(len(regression.panel.units))
    function = partial(products_under, nuisance=nuisance.bare)
    return over(part_of(regression, units), function, nuisance.weight[units], codes[units]).value


def codes_of(collapsed: Collapsed) -> np.ndarray:
    """Level of every unit in the classification of each shock, shape (unit, shock)."""
    shocks = [shock.code for shock in collapsed.nuisance.shocks.values()]
    units = len(collapsed.regression.panel.units)
    return np.column_stack(shocks) if shocks else np.zeros((units, 0), dtype=int)


def part_of(regression: Regression, units: np.ndarray) -> Regression:
    """The rows of some units, whose positions are in order, with the columns of all."""
    panel = regression.panel
    rows = np.flatnonzero(np.isin(panel.unit, units))
    smaller = replace(
        panel,
        unit=np.searchsorted(units, panel.unit[rows]),
        time=panel.time[rows],
        outcome=panel.outcome[rows],
        weight=panel.weight[rows],
        covariates=panel.covariates[rows],
        units=panel.units[units],
        cohort=panel.cohort[units],
        groups={name: replace(factor, code=factor.code[units]) for name, factor in panel.groups.items()},
        fixed={name: replace(factor, code=factor.code[units]) for name, factor in panel.fixed.items()},
        roster=replace(panel.roster, position=panel.roster.position[units]),
        truth=None,
    )
    return replace(regression, panel=smaller, matrix=regression.matrix[rows], shares=regression.shares[rows])


def without(collapsed: Collapsed, products: sp.csr_array, units: np.ndarray) -> tuple[Collapsed, sp.csr_array]:
    """The evidence of all units but some, errors as they were estimated, and its cross-products.

    Parameters
    ----------
    collapsed : Collapsed
    products : sparse array
        Of all units.
    units : array of int
        In order.
    """
    regression, nuisance = collapsed.regression, collapsed.nuisance
    rest = sp.csr_array(products - products_of(collapsed, units))
    rows = int((~np.isin(regression.panel.unit, units)).sum())
    dof = float(rows - (len(regression.panel.units) - len(units)))
    cross = without_shocks(rest, regression.frame.periods, list(nuisance.shocks.values()), dof)
    cross = replace(cross, sigma_known=collapsed.evidence.sigma_known)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    return replace(collapsed, evidence=evidence, conditional=conditional), rest


def told(collapsed: Collapsed, products: sp.csr_array) -> Told:
    """What the units of the cross-products say of the shocks."""
    shocks = list(collapsed.nuisance.shocks.values())
    gaps = np.diff(collapsed.regression.frame.periods)
    rest, first = without_first_shocks(products, gaps, shocks)
    prior = prior_of_the_rest(gaps, shocks)
    others = len(prior)
    covariance = np.linalg.inv(rest[:others, :others] + prior) if others else prior
    return Told(first, covariance, rest[:others, others:-1], rest[:others, -1])


def log_densities(
    collapsed: Collapsed, products: sp.csr_array, draws: Draws, units: np.ndarray, inside: bool
) -> tuple[np.ndarray, np.ndarray]:
    """log p(y_i | those of the cross-products but unit i, draw), shape (draw, unit): the density, and `plugged`.

    Parameters
    ----------
    collapsed : Collapsed
        For columns and errors.
    products : sparse array
        Of all units, or of a rest.
    draws : Draws
    units : array of int
        Units with two rows or more.
    inside : bool
        The units are among those of the cross-products, and are to be taken out of them one at a time.
    """
    density, plugged = np.zeros((2, len(draws.sigma), len(units)))
    place = {int(i): k for k, i in enumerate(units)}
    for unit in units_told(collapsed, told(collapsed, products), draws, units):
        k = place[unit.position]
        density[:, k], plugged[:, k] = of_unit(collapsed, unit, draws, inside)
    return density, plugged


def units_told(collapsed: Collapsed, known: Told, draws: Draws, units: np.ndarray) -> Iterator[Unit]:
    """Units with what is said of their shocks, those of a level of the first classification together."""
    regression, panel = collapsed.regression, collapsed.regression.panel
    codes, periods = codes_of(collapsed), len(regression.frame.periods)
    levels = [shock.levels for shock in collapsed.nuisance.shocks.values()]
    offsets = np.r_[0, np.cumsum(levels[1:])].astype(int) * periods
    theta, others = draws.coefficients.T, len(known.moment)
    mean_others = known.covariance @ (known.moment[:, None] - known.cross @ theta)
    bounds = np.r_[first_rows(panel.unit), len(panel.unit)]
    period = np.searchsorted(regression.frame.periods, panel.time)
    level = -1
    for i in sorted(units.tolist(), key=lambda i: tuple(codes[i])):
        rows = np.arange(bounds[i], bounds[i + 1])
        residual = panel.outcome[rows, None] - regression.matrix[rows] @ theta
        mean, covariance = np.zeros_like(residual), np.zeros((len(rows), len(rows)))
        if known.first is not None:
            if codes[i, 0] != level:
                level = int(codes[i, 0])
                factor, cross = known.first.factor[level], known.first.cross[level]
                pull = factor @ cross[:, :others]
                pulled = pull @ known.covariance
                first = factor @ (known.first.moment[level][:, None] - cross[:, others:] @ theta) - pull @ mean_others
                own_covariance = factor @ factor.T + pulled @ pull.T
            at = period[rows]
            beside = [offsets[j] + codes[i, j + 1] * periods + at for j in range(len(levels) - 1)]
            mean = first[at] + sum((mean_others[place] for place in beside), np.zeros_like(residual))
            covariance = own_covariance[np.ix_(at, at)]
            for place in beside:
                both = pulled[np.ix_(at, place)]
                covariance = covariance - both - both.T
                covariance = covariance + sum(known.covariance[np.ix_(place, there)] for there in beside)
        yield Unit(i, rows, residual, mean, covariance)


def of_unit(collapsed: Collapsed, unit: Unit, draws: Draws, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    """The log density of one unit, and `plugged`, shape (draw,) each; parameters as of `log_densities`."""
    regression, nuisance = collapsed.regression, collapsed.nuisance
    panel, rows, i = regression.panel, unit.rows, unit.position
    gaps = np.abs(np.subtract.outer(panel.time[rows], panel.time[rows]))
    root = np.sqrt(panel.weight[rows])
    correlation = (float(nuisance.rho) ** gaps if nuisance.rho else np.eye(len(rows))) / np.outer(root, root)
    f = own_rows(panel_rows(panel, rows), regression.onset)
    drawn = own_effects(regression, draws, i)
    mean, covariance = unit.mean, unit.covariance
    if inside:
        own = nuisance.own if regression.integrated else 0.0
        precision = within_precision(correlation / nuisance.weight[i] + own**2 * np.outer(f, f))
        covariance = covariance @ np.linalg.inv(np.eye(len(rows)) - precision @ covariance)
        mean = mean + covariance @ (precision @ (mean - unit.residual))
    left = unit.residual + f[:, None] * drawn - mean
    basis = scipy.linalg.helmert(len(rows))
    spread = (draws.spread / draws.sigma) ** 2
    form = Form.of(basis @ left / draws.sigma, basis @ correlation @ basis.T, basis @ covariance @ basis.T, basis @ f)
    shift = (len(rows) - 1) * (np.log(draws.sigma) + 0.5 * np.log(2 * np.pi))
    plugged = form.at(np.array([1 / nuisance.weight[i]]), spread)[:, 0] - shift
    if np.isinf(nuisance.nu):
        return plugged, plugged
    typical = (nuisance.ever if regression.adopters[i] else nuisance.never) ** 2
    scale, log_mass = scales(nuisance.nu, typical, len(rows) - 1, form.largest)
    return logsumexp(form.at(scale, spread) + log_mass, axis=1) - shift, plugged


def panel_rows(panel: Panel, rows: np.ndarray) -> Panel:
    """The panel of the rows of one unit, for what is asked of rows alone."""
    return replace(panel, unit=panel.unit[rows], time=panel.time[rows])


def own_effects(regression: Regression, draws: Draws, i: int) -> np.ndarray:
    """The effect of unit i itself where it has been drawn, else zero, shape (draw,)."""
    block = regression.design.blocks.get("unit")
    name = str(regression.panel.units[i])
    if block is None or name not in block.levels:
        return np.zeros(len(draws.sigma))
    return draws.coefficients[:, block.start + block.levels.index(name)]


def within_precision(covariance: np.ndarray) -> np.ndarray:
    """M = P - P 1 1'P / 1'P 1 of P = covariance^-1, shape (row, row)."""
    precision = np.linalg.inv(covariance)
    ones = precision.sum(axis=1)
    return precision - np.outer(ones, ones) / ones.sum()


def scales(nu: float, typical: float, free: int, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of an integral over the scale tau ~ scaled-inverse-chi^2(nu, typical), and the log mass of each.

    Parameters
    ----------
    nu, typical : float
    free : int
        Contrasts.
    largest : float
        Quadratic form of what is left at tau = 1, at most: the posterior of tau lies between those of zero and of it.
    """
    sd = np.sqrt(2 / (nu + free))
    least = np.log(nu * typical / (nu + free)) - REACH * sd
    most = np.log((nu * typical + largest) / (nu + free)) + REACH * sd
    log = np.linspace(least, most, int(np.ceil((most - least) / sd * FINE)) + 1)
    prior = nu / 2 * np.log(nu * typical / 2) - gammaln(nu / 2) - nu / 2 * log - nu * typical / (2 * np.exp(log))
    return np.exp(log), prior + np.log(log[1] - log[0])


@dataclass(frozen=True)
class Form:
    """Contrasts of one unit in the basis in which tau R + B is diagonal, tau + b.

    Attributes
    ----------
    left : array, shape (draw, contrast)
    f : array, shape (contrast,)
    b : array, shape (contrast,)
    log_size : float
        log|R|.
    """

    left: np.ndarray
    f: np.ndarray
    b: np.ndarray
    log_size: float

    @classmethod
    def of(cls, left: np.ndarray, correlation: np.ndarray, covariance: np.ndarray, f: np.ndarray) -> Form:
        """That of contrasts, shape (contrast, draw), with R, B and f of them."""
        lower = np.linalg.cholesky(correlation)
        half = scipy.linalg.solve_triangular(lower, covariance, lower=True)
        b, basis = np.linalg.eigh(scipy.linalg.solve_triangular(lower, half.T, lower=True))
        away = scipy.linalg.solve_triangular(lower, np.column_stack([left, f]), lower=True)
        turned = basis.T @ away
        return cls(turned[:, :-1].T, turned[:, -1], np.maximum(b, 0.0), 2 * float(np.log(np.diag(lower)).sum()))

    @property
    def largest(self) -> float:
        """Largest quadratic form over the draws at tau = 1 without shocks."""
        return float((self.left**2).sum(axis=1).max())

    def at(self, scale: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """-(log|V| + quadratic form) / 2 at V = tau R + B + v f f', shape (draw, scale).

        Parameters
        ----------
        scale : array, shape (scale,)
            tau.
        spread : array, shape (draw,)
            v.
        """
        total = scale[:, None] + self.b
        size = np.log(total).sum(axis=1) + self.log_size
        quadratic = self.left**2 @ (1 / total).T
        if self.f.any() and spread.any():
            felt = spread[:, None] * (self.f**2 @ (1 / total).T)
            pulled = self.left @ (self.f / total).T
            quadratic = quadratic - spread[:, None] * pulled**2 / (1 + felt)
            size = size + np.log1p(felt)
        return -0.5 * (size + quadratic)
