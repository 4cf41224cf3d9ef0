"""Integrate unit effects out of the Gaussian likelihood: from rows to cross-products.

For unit i with rows X_i, y_i, error precision P_i = V_i^-1 (up to sigma^2) and alpha_i flat,

    M_i = P_i - P_i 1 1'P_i / (1'P_i 1),    gram = sum_i X_i'M_i X_i,    moment = sum_i X_i'M_i y_i,    dof = n - N

so sampling costs the same for 10^4 and 10^9 rows. P is sparse and block-diagonal over units: diagonal for independent
errors (here), tridiagonal for AR(1) with or without gaps; weights and unit scales multiply it. M_i annihilates
constants within the unit, so nothing else needs demeaning. Terms with a flat prior (periods, covariates) are then
integrated out by a Schur complement and drawn back afterwards from their exact conditional.

Source: Lindley & Smith (1972) for the integration; Wooldridge (2021) for the equivalence with two-way fixed effects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from models.inputs import CrossProducts, Design
from src.design import Regression, without_covariates
from src.panel import PanelError

TOLERANCE = 1e-9
NUISANCE = ("time", "covariate")
SATURATED = ("cell", "exposure", "difference")


@dataclass(frozen=True)
class Conditional:
    """Posterior of the integrated terms given the others, eta | theta ~ Normal(mean - slope theta, sigma^2 F F').

    Attributes
    ----------
    mean : array, shape (eta,)
    slope : array, shape (eta, theta)
    factor : array, shape (eta, eta)
        F, upper triangular, F F' = inverse of eta's block of the gram.
    """

    mean: np.ndarray
    slope: np.ndarray
    factor: np.ndarray

    def draw(self, theta: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One eta for each draw of theta, shape (draw, theta), and sigma, shape (draw,): shape (draw, eta)."""
        noise = rng.standard_normal((len(theta), len(self.mean))) @ self.factor.T
        return self.mean - theta @ self.slope.T + sigma[:, None] * noise


@dataclass(frozen=True)
class Collapsed:
    """A regression reduced to what its coefficients' posterior needs.

    Attributes
    ----------
    regression : Regression
        Without covariates that are absorbed.
    evidence : CrossProducts
        Over the effect and exposure columns in the order of the design, in units of the outcome.
    conditional : Conditional
        Of periods and covariates given those, in units of the outcome.
    s : float
        Residual SD of the saturated fit.
    notes : tuple of str
    """

    regression: Regression
    evidence: CrossProducts
    conditional: Conditional
    s: float
    notes: tuple[str, ...]


def collapse(regression: Regression) -> Collapsed:
    """Integrate units, periods and covariates out.

    Raises
    ------
    PanelError
        The saturated regression leaves no degree of freedom, or fits perfectly; or nothing is left of adoption once
        units, periods and covariates are taken out.
    """
    notes = []
    cross = weighted_products(regression)
    absorbed = absorbed_covariates(cross, regression.design, len(regression.panel.outcome))
    if absorbed:
        notes.append(f"covariates {', '.join(absorbed)} do not vary beyond unit and period effects and are left out")
        regression = without_covariates(regression, absorbed)
        cross = weighted_products(regression)
    design = regression.design
    nuisance = tuple(name for name in NUISANCE if name in design.blocks)
    kept = tuple(name for name in design.blocks if name not in nuisance)
    evidence, conditional = eliminate(cross, design.columns(kept), design.columns(nuisance))
    s = saturated_scale(evidence, design)
    if not s > TOLERANCE * np.std(regression.panel.outcome):
        raise PanelError(nothing_left(evidence, regression))
    adopted = design.blocks["mu"].columns
    if evidence.gram[adopted, adopted].item() <= TOLERANCE * regression.panel.treated.sum():
        raise PanelError(
            "adoption is explained by units, periods and covariates, so its effect cannot be told: no adopter is seen "
            "both before and after adoption beside somebody untreated, or a covariate is adoption itself; drop that "
            "covariate, or add rows"
        )
    return Collapsed(regression, evidence, conditional, s, tuple(notes))


def nothing_left(evidence: CrossProducts, regression: Regression) -> str:
    """Why the saturated fit has no residual: too few rows for its coefficients, or an outcome that they explain."""
    names = tuple(name for name in SATURATED if name in regression.design.blocks)
    gram = evidence.take(regression.design.columns(names)).gram
    rank = len(gram) - len(dependent_columns(gram))
    rows = len(regression.panel.outcome)
    if evidence.dof <= rank:
        return (
            f"the panel is too small: {rows} rows leave no variation once every unit, period and cohort x period cell "
            "has its own effect; add units or periods"
        )
    return (
        f"units, periods, covariates and adoption explain the outcome without error in all {rows} rows, so there is "
        "nothing random to tell effects from: check that data.outcome is the outcome, and not a copy or a sum of them"
    )


def weighted_products(regression: Regression) -> CrossProducts:
    """Cross-products under independent errors with the panel's weights."""
    panel = regression.panel
    return cross_products(regression.matrix, panel.outcome, panel.unit, independent_precision(panel.weight))


def independent_precision(weight: np.ndarray) -> sp.csr_array:
    """Precision of independent errors, shape (row, row): the weights on the diagonal."""
    return sp.csr_array(sp.diags_array(weight))


def cross_products(
    matrix: sp.csr_array, outcome: np.ndarray, unit: np.ndarray, precision: sp.csr_array
) -> CrossProducts:
    """Evidence about the coefficients of `matrix` with unit effects integrated out.

    Parameters
    ----------
    matrix : sparse array, shape (row, column)
    outcome : array, shape (row,)
    unit : array of int, shape (row,)
        Unit of each row; every unit's rows are together.
    precision : sparse array, shape (row, row)
        Block-diagonal over units.

    Returns
    -------
    CrossProducts
        Over all columns; adds up over disjoint sets of units.
    """
    _, unit = np.unique(unit, return_inverse=True)
    rows, units = len(outcome), unit.max() + 1
    member = sp.csr_array((np.ones(rows), (unit, np.arange(rows))), shape=(units, rows))
    # M annihilates unit means; taking them out of y first only saves digits where the level dwarfs the variation
    centred = outcome - (member @ outcome / np.bincount(unit))[unit]
    columns = sp.csr_array(sp.hstack([matrix, sp.csr_array(centred[:, None])], format="csr"))
    whitened = precision @ columns
    sums = member @ whitened
    total = member @ (precision @ np.ones(rows))
    between = sp.dia_array((1 / total[None, :], [0]), shape=(units, units)) @ sums
    products = (columns.T @ whitened - sums.T @ between).toarray()
    products = (products + products.T) / 2
    return CrossProducts(products[:-1, :-1], products[:-1, -1], float(products[-1, -1]), float(rows - units))


def dependent_columns(gram: np.ndarray) -> np.ndarray:
    """Positions of columns that the ones before them explain (relative to their own sum of squares)."""
    scale = np.diag(gram).copy()
    rest, dependent = gram.astype(float).copy(), []
    for j in range(len(gram)):
        if rest[j, j] <= TOLERANCE * max(scale[j], np.finfo(float).tiny):
            dependent.append(j)
        else:
            rest -= np.outer(rest[:, j], rest[j]) / rest[j, j]
    return np.array(dependent, dtype=int)


def absorbed_covariates(cross: CrossProducts, design: Design, rows: int) -> list[str]:
    """Covariates that unit effects, period effects or earlier covariates explain, hence without a slope of their own.

    Parameters
    ----------
    cross : CrossProducts
        Over all columns of the design.
    rows : int
        Number of rows: the total sum of squares of a standardised covariate.
    """
    if "covariate" not in design.blocks:
        return []
    positions = design.columns(tuple(name for name in NUISANCE if name in design.blocks))
    first = len(positions) - design.blocks["covariate"].size
    within = cross.gram[np.ix_(positions, positions)]
    inside = np.diag(within)[first:] <= TOLERANCE * rows
    explained = np.isin(np.arange(first, len(positions)), dependent_columns(within))
    return [name for name, drop in zip(design.blocks["covariate"].levels, inside | explained, strict=True) if drop]


def eliminate(cross: CrossProducts, keep: np.ndarray, out: np.ndarray) -> tuple[CrossProducts, Conditional]:
    """Integrate the columns `out` out under flat priors.

    The gram of the kept columns becomes A_kk - A_ko A_oo^-1 A_ok, and each column out costs one degree of freedom.

    Parameters
    ----------
    cross : CrossProducts
    keep, out : arrays of int
        Positions of columns; those of `out` are linearly independent, or else are given a zero coefficient.

    Returns
    -------
    CrossProducts
        Over the kept columns.
    Conditional
        Of the coefficients of `out` given the kept ones.
    """
    dependent = dependent_columns(cross.gram[np.ix_(out, out)])
    free = np.setdiff1d(np.arange(len(out)), dependent)
    held, gone = np.ix_(keep, keep), out[free]
    lower = np.linalg.cholesky(cross.gram[np.ix_(gone, gone)])
    half = scipy.linalg.solve_triangular(lower, cross.gram[np.ix_(gone, keep)], lower=True)
    half_moment = scipy.linalg.solve_triangular(lower, cross.moment[gone], lower=True)
    gram = cross.gram[held] - half.T @ half
    collapsed = CrossProducts(
        (gram + gram.T) / 2,
        cross.moment[keep] - half.T @ half_moment,
        cross.square - float(half_moment @ half_moment),
        cross.dof - len(gone),
    )
    mean, slope = np.zeros(len(out)), np.zeros((len(out), len(keep)))
    factor = np.zeros((len(out), len(out)))
    inverse = scipy.linalg.solve_triangular(lower, np.eye(len(gone)), lower=True).T
    mean[free] = inverse @ half_moment
    slope[free] = inverse @ half
    factor[np.ix_(free, free)] = inverse
    return collapsed, Conditional(mean, slope, factor)


def least_squares(cross: CrossProducts) -> tuple[np.ndarray, np.ndarray, float]:
    """Flat-prior limit of the evidence in closed form.

    Returns
    -------
    coefficients : array, shape (column,)
        NaN where a column is explained by the ones before it.
    covariance : array, shape (column, column)
        sigma^2 times the inverse gram.
    sigma : float
        Residual SD, sqrt(RSS / (dof - rank)); NaN where no degree of freedom is left.
    """
    dependent = dependent_columns(cross.gram)
    free = np.setdiff1d(np.arange(len(cross.moment)), dependent)
    inverse = np.linalg.inv(cross.gram[np.ix_(free, free)])
    solution = inverse @ cross.moment[free]
    left = cross.dof - len(free)
    rss = max(cross.square - float(cross.moment[free] @ solution), 0.0)
    sigma = float(np.sqrt(rss / left)) if left > 0 else float("nan")
    coefficients = np.full(len(cross.moment), np.nan)
    covariance = np.full(cross.gram.shape, np.nan)
    coefficients[free] = solution
    covariance[np.ix_(free, free)] = sigma**2 * inverse
    return coefficients, covariance, sigma


def saturated_scale(cross: CrossProducts, design: Design) -> float:
    """s, the residual SD when every cohort x period cell has its own effect: the unit of all priors.

    Parameters
    ----------
    cross : CrossProducts
        Over the kept columns in the order of the design, periods and covariates integrated out.
    """
    names = tuple(name for name in SATURATED if name in design.blocks)
    return least_squares(cross.take(design.columns(names)))[2]
