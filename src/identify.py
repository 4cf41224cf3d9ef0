"""Which effects the data speak of, whatever the prior adds.

Two things can leave an effect without evidence. A treated row has no counterfactual where its unit and its period are
not tied together by untreated rows:

    untreated rows (i, t) are edges between unit i and period t; alpha_i + lambda_t is known up to a constant within
    each connected component, hence alpha_i + lambda_t of a treated row if and only if i and t are in the same one

(Borusyak, Jaravel & Spiess 2024, assumption 1 without covariates). And a level of a classification has no effect of
its own where the columns D x level, with the exposures, are collinear with units, periods and covariates.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from models.inputs import BY, CrossProducts, Design
from src.tally import First, Known

NULL = 1e-8
MOVES = 1e-6


def components(tied: np.ndarray) -> np.ndarray:
    """Periods that untreated rows of units tie together have the same number, shape (period,).

    Parameters
    ----------
    tied : array, shape (period, period)
        Number of units with untreated rows in both periods.
    """
    return connected_components(sp.csr_array(tied), directed=False)[1]


def silent_directions(design: Design, evidence: CrossProducts, mass: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Directions of the coefficients of the named blocks about which the evidence is silent.

    Parameters
    ----------
    design : Design
    evidence : CrossProducts
        Over the effect and exposure columns of the design, in its order.
    mass : array, shape (column,)
        Weighted sum of squares of every column of the design.
    names : tuple of str

    Returns
    -------
    array, shape (column, direction)
        Over all columns of the design; zero outside the named blocks, largest entry one.
    """
    columns = design.columns(names)
    gram = evidence.gram[np.ix_(columns, columns)]
    scale = np.sqrt(np.maximum(mass[columns], 1e-300))
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    null = np.zeros((design.size, int((values < NULL).sum())))
    null[columns] = vectors[:, values < NULL] / scale[:, None]
    return null / np.maximum(np.abs(null).max(axis=0), 1e-300)


def moves(weights: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Whether linear maps, shape (..., column), change along a silent direction, shape (...)."""
    along = np.abs(weights @ null).max(axis=-1, initial=0.0)
    return along > MOVES * np.maximum(np.abs(weights).max(axis=-1), 1e-300)


def slopes_in(names: tuple[str, ...]) -> tuple[str, ...]:
    """The blocks of exposures among `names`."""
    return tuple(name for name in names if name in ("exposure", "difference") or name.startswith(BY))


def known_effects(design: Design, evidence: CrossProducts, first: First, terms: tuple[str, ...]) -> Known:
    """Of which effects the data speak: periods tied together, cohorts and levels that have an effect of their own.

    Parameters
    ----------
    design : Design
    evidence : CrossProducts
    first : First
    terms : tuple of str
        Blocks that the model uses.
    """
    silent = {}
    for name in ("cohort", *design.groups):
        null = silent_directions(design, evidence, first.mass, (name, *slopes_in(terms)))
        silent[name] = moves(np.eye(design.size)[design.blocks[name].columns], null)
    return Known(components(first.tied), silent)
