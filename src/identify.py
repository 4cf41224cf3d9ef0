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

from models.inputs import BY, CrossProducts
from src.design import Regression
from src.panel import Panel

NULL = 1e-8
MOVES = 1e-6


def with_counterfactual(panel: Panel) -> np.ndarray:
    """Whether untreated rows tie unit and period of a row together, shape (row,)."""
    periods = panel.periods
    period = len(panel.units) + np.searchsorted(periods, panel.time)
    edges = ~panel.treated
    nodes = len(panel.units) + len(periods)
    ties = sp.csr_array((np.ones(edges.sum()), (panel.unit[edges], period[edges])), shape=(nodes, nodes))
    component = connected_components(ties, directed=False)[1]
    return component[panel.unit] == component[period]


def silent_directions(regression: Regression, evidence: CrossProducts, names: tuple[str, ...]) -> np.ndarray:
    """Directions of the coefficients of the named blocks about which the evidence is silent.

    Parameters
    ----------
    regression : Regression
    evidence : CrossProducts
        Over the effect and exposure columns of the design, in its order.
    names : tuple of str

    Returns
    -------
    array, shape (column, direction)
        Over all columns of the design; zero outside the named blocks, largest entry one.
    """
    design = regression.design
    columns = design.columns(names)
    gram = evidence.gram[np.ix_(columns, columns)]
    weighted = regression.matrix[:, columns].power(2).T @ regression.panel.weight
    scale = np.sqrt(np.maximum(weighted, 1e-300))
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


def spoken_rows(regression: Regression, evidence: CrossProducts, terms: tuple[str, ...]) -> np.ndarray:
    """Treated rows with a counterfactual, in a cohort and in levels that have an effect of their own, shape (row,).

    Parameters
    ----------
    regression : Regression
    evidence : CrossProducts
    terms : tuple of str
        Blocks that the model uses.

    Returns
    -------
    array of bool, shape (treated row,)
    """
    design = regression.design
    treated = np.flatnonzero(regression.panel.treated)
    spoken = with_counterfactual(regression.panel)[treated]
    for name in ("cohort", *design.groups):
        null = silent_directions(regression, evidence, (name, *slopes_in(terms)))
        silent = moves(np.eye(design.size)[design.blocks[name].columns], null)
        spoken &= ~(regression.matrix[treated][:, design.blocks[name].columns] @ silent).astype(bool)
    return spoken
