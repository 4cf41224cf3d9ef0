"""The algebra of evidence: precisions of the errors, sums over blocks, elimination.

For unit i with rows X_i, y_i, error precision P_i = V_i^-1 (up to sigma^2) and alpha_i flat,

    M_i = P_i - P_i 1 1'P_i / (1'P_i 1),    gram = sum_i X_i'M_i X_i,    moment = sum_i X_i'M_i y_i,    dof = n - N

(`src.within`), so sampling costs the same for 10^4 and 10^9 rows. P is sparse and block-diagonal over units: diagonal
for independent errors, tridiagonal for AR(1) with or without gaps. M_i annihilates constants within the unit, so
nothing else needs demeaning. Further terms are integrated out by Schur complements, under flat or Normal priors.

Source: Lindley & Smith (1972) for the integration; Wooldridge (2021) for the equivalence with two-way fixed effects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from models.inputs import CrossProducts
from src.within import within_products

TOLERANCE = 1e-9


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
class BlockConditional:
    """Posterior of terms v_k, one block a level, given the others o: Normal(F_k (moment_k - cross_k o), F_k F_k').

    Attributes
    ----------
    factor : array, shape (level, period, period)
        F_k, upper triangular.
    cross : array, shape (level, period, other)
    moment : array, shape (level, period)
    """

    factor: np.ndarray
    cross: np.ndarray
    moment: np.ndarray


def independent_precision(weight: np.ndarray) -> sp.csr_array:
    """Precision of independent errors, shape (row, row): the weights on the diagonal."""
    return sp.csr_array(sp.diags_array(weight))


def ar1_bands(unit: np.ndarray, time: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inverse of the correlation rho^|t - s| of the rows of each unit, exact across gaps.

    With a = rho^(distance to the row before) and v = 1 - a^2 (a = 0, v = 1 in a unit's first row), the inverse is
    tridiagonal: 1 / v_j + a_{j+1}^2 / v_{j+1} on the diagonal, -a_{j+1} / v_{j+1} beside it; log|R| = sum log v_j.

    Parameters
    ----------
    unit, time : array of int, shape (row,)
        Sorted by unit, then time.
    rho : float
        In (-1, 1).

    Returns
    -------
    diagonal, beside, innovation : array, shape (row,)
        Diagonal; entry that ties a row to the next one (0 in a unit's last row); v.
    """
    along = unit[1:] == unit[:-1]
    a = np.r_[0.0, np.where(along, float(rho) ** np.where(along, np.diff(time), 1), 0.0)]
    v = 1 - a**2
    ahead, v_ahead = np.r_[a[1:], 0.0], np.r_[v[1:], 1.0]
    return 1 / v + ahead**2 / v_ahead, -ahead / v_ahead, v


def ar1_precision(unit: np.ndarray, time: np.ndarray, weight: np.ndarray, rho: float) -> sp.csr_array:
    """Precision W^1/2 R^-1 W^1/2 of AR(1) errors with weights, shape (row, row), tridiagonal within units."""
    if rho == 0:
        return independent_precision(weight)
    diagonal, beside, _ = ar1_bands(unit, time, rho)
    root = np.sqrt(weight)
    off = (beside * root)[:-1] * root[1:]
    return sp.csr_array(sp.diags_array([off, diagonal * weight, off], offsets=[-1, 0, 1]))


@dataclass(frozen=True)
class Compensated:
    """A sum of symmetric sparse arrays with what rounding took from it (Knuth's two-sum), so that blocks may be many.

    Attributes
    ----------
    high, low : sparse array
        The upper triangle of the sum as it is rounded, and the rest.
    """

    high: sp.csr_array
    low: sp.csr_array

    @classmethod
    def of(cls, upper: sp.csr_array) -> Compensated:
        """One array, by its upper triangle."""
        nothing = sp.csr_array((upper.shape[0], upper.shape[1]), dtype=np.float32)
        return cls(compact(upper), nothing)

    def __add__(self, other: Compensated) -> Compensated:
        high = self.high + other.high
        part = high - self.high
        rest = sp.csr_array((self.high - (high - part)) + (other.high - part))
        rest.eliminate_zeros()
        rest = sp.csr_array(rest.astype(np.float32))  # what rounding takes needs few digits
        return Compensated(compact(high), compact(self.low + other.low + rest))

    @property
    def value(self) -> sp.csr_array:
        """The sum, symmetric."""
        upper = sp.csr_array(self.high + self.low) if self.low.nnz else self.high
        return sp.csr_array(upper + sp.triu(upper, 1, format="csr").T)


def compact(array: sp.csr_array) -> sp.csr_array:
    """The array without room to spare, which sums of sparse arrays keep, and with indices no wider than they need."""
    width = np.int32 if max(array.nnz, *array.shape) < 2**31 else np.int64
    parts = (array.data.copy(), array.indices.astype(width), array.indptr.astype(width))
    return sp.csr_array(parts, shape=array.shape)


def centred_within(outcome: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """The outcome less its mean within the unit: M annihilates it; this saves digits where levels dwarf variation."""
    return outcome - (np.bincount(unit, outcome) / np.bincount(unit))[unit]


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
    columns = sp.csr_array(sp.hstack([matrix, sp.csr_array(centred_within(outcome, unit)[:, None])], format="csr"))
    products = Compensated.of(within_products(columns, unit, precision)).value.toarray()
    rows, units = len(outcome), unit.max() + 1
    return as_evidence(products, float(rows - units))


def as_evidence(products: np.ndarray, dof: float) -> CrossProducts:
    """The record of dense cross-products whose last column is the outcome."""
    return CrossProducts(products[:-1, :-1], products[:-1, -1], float(products[-1, -1]), dof)


def eliminate_blocks(
    products: sp.csr_array, levels: int, periods: int, prior: np.ndarray
) -> tuple[np.ndarray, BlockConditional]:
    """Integrate out the first levels * periods columns, which only share rows within a level, under a Normal prior.

    Parameters
    ----------
    products : sparse array, shape (column, column)
        The outcome comes last.
    levels, periods : int
    prior : array, shape (period, period)
        Prior precision of the periods of a level; levels are independent.

    Returns
    -------
    array, shape (other, other)
        Cross-products of the other columns and the outcome.
    BlockConditional
        Its `cross` without the outcome.
    """
    size = levels * periods
    own = sp.coo_array(products[:size, :size])
    blocks = np.zeros((levels, periods, periods))
    blocks[own.row // periods, own.row % periods, own.col % periods] = own.data
    factor = np.linalg.inv(np.linalg.cholesky(blocks + prior))
    half = factor @ products[:size, size:].toarray().reshape(levels, periods, -1)
    flat = half.reshape(size, -1)
    rest = products[size:, size:].toarray() - flat.T @ flat
    return rest, BlockConditional(factor.transpose(0, 2, 1), half[..., :-1], half[..., -1])


def eliminate(
    cross: CrossProducts, keep: np.ndarray, out: np.ndarray, prior: np.ndarray | None = None
) -> tuple[CrossProducts, Conditional]:
    """Integrate the columns `out` out.

    The gram of the kept columns becomes A_kk - A_ko A_oo^-1 A_ok. Under a flat prior each column out costs one degree
    of freedom; under Normal(0, sigma^2 prior^-1) its precision is added to A_oo and none is lost.

    Parameters
    ----------
    cross : CrossProducts
    keep, out : arrays of int
        Positions of columns. Under a flat prior those of `out` that the ones before them explain get a zero
        coefficient.
    prior : array, shape (out, out), optional
        Prior precision; flat where not given.

    Returns
    -------
    CrossProducts
        Over the kept columns.
    Conditional
        Of the coefficients of `out` given the kept ones.
    """
    own = cross.gram[np.ix_(out, out)] + (0.0 if prior is None else prior)
    free = np.setdiff1d(np.arange(len(out)), dependent_columns(own)) if prior is None else np.arange(len(out))
    gone = out[free]
    lower = np.linalg.cholesky(own[np.ix_(free, free)])
    half = scipy.linalg.solve_triangular(lower, cross.gram[np.ix_(gone, keep)], lower=True)
    half_moment = scipy.linalg.solve_triangular(lower, cross.moment[gone], lower=True)
    gram = cross.gram[np.ix_(keep, keep)] - half.T @ half
    collapsed = replace(
        cross,
        gram=(gram + gram.T) / 2,
        moment=cross.moment[keep] - half.T @ half_moment,
        square=cross.square - float(half_moment @ half_moment),
        dof=cross.dof - (len(gone) if prior is None else 0),
    )
    mean, slope = np.zeros(len(out)), np.zeros((len(out), len(keep)))
    factor = np.zeros((len(out), len(out)))
    inverse = scipy.linalg.solve_triangular(lower, np.eye(len(gone)), lower=True).T
    mean[free] = inverse @ half_moment
    slope[free] = inverse @ half
    factor[np.ix_(free, free)] = inverse
    return collapsed, Conditional(mean, slope, factor)


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
