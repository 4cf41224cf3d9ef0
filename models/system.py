"""Several outcomes at once, each given the ones before it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from itertools import combinations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from models import effects, hier, likelihoods, spillovers
from models.inputs import Block, CrossProducts, Design, Priors

ETA = 2.0  # of the LKJ prior: correlations near 0 are somewhat likelier
FIRST = "outcome"  # what the equation named "" is called where equations are levels


def build(
    designs: Mapping[str, Design],
    evidence: Mapping[str, CrossProducts],
    priors: Priors,
    path: str = "increments",
    tails: str = "normal",
    late: bool = True,
    interactions: bool = True,
    unit: bool = False,
    together: bool = False,
) -> pm.Model:
    """A triangular system: equation j has the outcomes before it on its right-hand side.

        y_j = X phi_j + sum over l < j of c_jl y_l + errors_j,    errors of different equations independent

    so that theta_j = phi_j + sum c_jl theta_l is the effect on y_j whatever way it goes, phi_j the part that does not
    go through the outcomes before it, and c carries the correlation of residuals. Each equation has a hierarchy of its
    own, in units of its own s; variables of all but the equation named "" bear its name, as in "sa::mu".

    Parameters
    ----------
    designs : dict of str to Design
        By the name of the equation, in their order; block "earlier" has the outcomes before.
    evidence : dict of str to CrossProducts
        In units of the s of each equation, outcomes before in units of theirs.
    priors : Priors
    path, tails, late, interactions, unit
        As of `models.hier.build`.
    together : bool
        Levels of pooled terms are correlated across equations, the one named "" being the first; see `correlated`.

    Notes
    -----
    Limits: with c = 0, and not `together`, each equation is `hier` by itself.
    """
    coords: dict[str, tuple] = {}
    for design in designs.values():
        coords |= likelihoods.coords(design)
    if together:
        labels = tuple(name or FIRST for name in designs)
        pairs = tuple(f"{a}:{b}" for a, b in combinations(labels, 2))
        coords |= {"equation": labels, "equation_beside": labels, "equation_pair": pairs}
    with pm.Model(coords=coords) as model:
        slopes: list = []
        factors: dict = {}
        for at, (name, design) in enumerate(designs.items()):
            offset = partial(correlated, at=at, equations=len(designs), tails=tails, factors=factors)
            deviations = partial(effects.pooled, priors=priors, tails=tails, offset=offset if together else None)
            with pm.Model(name=name) if name else nullcontext():
                terms = hier.effects_of(design, priors, path, late, interactions, unit, deviations)
                terms |= spillovers.slopes(design, priors)
                if "earlier" in design.blocks:
                    terms["earlier"] = pm.Normal("earlier_slope", 0.0, priors.mu, dims=design.blocks["earlier"].dim)
                likelihoods.gaussian(design, terms, evidence[name], priors)
            slopes.append(terms.get("earlier"))
        for term, (factor, _) in factors.items():
            sd = pt.stack([model[f"{name}::sd_{term}" if name else f"sd_{term}"] for name in designs])
            of_effects = pt.dot(through(slopes), sd[:, None] * factor)
            covariance = pt.dot(of_effects, of_effects.T)
            scale = pt.sqrt(pt.diagonal(covariance))
            dims = ("equation", "equation_beside")
            pm.Deterministic(f"{term}_correlation", covariance / pt.outer(scale, scale), dims=dims)
    return model


def correlated(block: Block, at: int, equations: int, tails: str, factors: dict):
    """Offsets of the levels of a term in one equation, correlated with those in the others.

        offset_j = sum over l <= j of L_jl raw_l,    L L' ~ LKJ(ETA)

    Parameters
    ----------
    block : Block
    at : int
        Position of the equation; the variables that all share are made with the first.
    equations : int
    tails : {"normal", "student_t"}
    factors : dict
        Of each term L and its product with the raw deviations; receives those that it lacks.
    """
    if block.name not in factors:
        factor = lkj_factor(block.name, equations)
        factors[block.name] = factor, pt.dot(factor, effects.offsets(block.name, ("equation", block.dim), tails))
    return factors[block.name][1][at]


def lkj_factor(name: str, size: int):
    """Lower triangular L of a correlation matrix L L' ~ LKJ(ETA), from partial correlations along a canonical vine.

        p_ij ~ 2 Beta(b, b) - 1, b = ETA + (size - 2 - i) / 2,    L_ji = p_ij prod over k < i of sqrt(1 - p_kj^2)

    Source: Lewandowski, Kurowicka & Joe (2009).
    """
    pairs = list(combinations(range(size), 2))
    shape = np.array([ETA + (size - 2 - i) / 2 for i, _ in pairs])
    partial_of = 2 * pm.Beta(f"{name}_partial", shape, shape, dims="equation_pair") - 1
    at = {pair: k for k, pair in enumerate(pairs)}
    rows = []
    for j in range(size):
        left, row = pt.constant(1.0), []
        for i in range(j):
            p = partial_of[at[i, j]]
            row.append(p * left)
            left = left * pt.sqrt(1 - p**2)
        rows.append(pt.stack([*row, left, *([pt.constant(0.0)] * (size - 1 - j))]))
    return pt.stack(rows)


def through(slopes: list):
    """(I - C)^-1 for the slopes C of each equation in those before it: theta = (I - C)^-1 phi."""
    rows: list = []
    for j, slope in enumerate(slopes):
        row = np.eye(len(slopes))[j]
        rows.append(row + sum(slope[k] * rows[k] for k in range(j)) if j else pt.constant(row))
    return pt.stack(rows)
