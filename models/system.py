"""Several outcomes at once, each given the ones before it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from models import effects, hier, likelihoods, spillovers
from models.inputs import OUTCOME, Block, CrossProducts, Design, Priors

ETA = 2.0  # of the LKJ prior: correlations near 0 are somewhat likelier


def build(
    designs: Mapping[str, Design],
    evidence: Mapping[str, CrossProducts],
    widths: Mapping[str, float],
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
    go through the outcomes before it, and c carries the correlation of residuals. The equation of a share of the first
    outcome has nothing on its right-hand side: its theta is the effect on the log odds of the share. Each equation has
    a hierarchy of its own, in units of its own s; variables of all but the equation named "" bear its name, as in
    "sa::mu".

    Parameters
    ----------
    designs : dict of str to Design
        By the name of the equation, in their order; block "earlier" has the outcomes before.
    evidence : dict of str to CrossProducts
        In units of the s of each equation, outcomes before in units of theirs.
    widths : dict of str to float
        Residual SD without the outcomes before, in units of s: the scale of what does not know of them.
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
        labels = tuple(name or OUTCOME for name in designs)
        pairs = tuple(f"{a}:{b}" for a, b in combinations(labels, 2))
        coords |= {"equation": labels, "equation_beside": labels, "equation_pair": pairs}
    with pm.Model(coords=coords) as model:
        shared: dict[str, Shared] = {}
        for at, (name, design) in enumerate(designs.items()):
            deviations = partial(effects.pooled, priors=priors, tails=tails)
            with pm.Model(name=name) if name else nullcontext():
                slopes = earlier_slopes(design, priors, widths[name])
                if together:
                    deviations = partial(
                        correlated,
                        at=at,
                        equations=len(designs),
                        width=widths[name],
                        slopes=slopes,
                        earlier=None if slopes is None else design.blocks["earlier"].dim,
                        priors=priors,
                        tails=tails,
                        shared=shared,
                    )
                terms = hier.effects_of(design, priors, path, late, interactions, unit, deviations)
                terms |= spillovers.slopes(design, priors)
                if slopes is not None:
                    terms["earlier"] = slopes
                likelihoods.gaussian(design, terms, evidence[name], priors)
        for name, one in shared.items():
            pm.Deterministic(f"{name}_correlation", one.correlation, dims=("equation", "equation_beside"))
    return model


def earlier_slopes(design: Design, priors: Priors, width: float):
    """Slopes c of the outcomes before, Normal(0, priors.mu width); None where there are none."""
    if "earlier" not in design.blocks:
        return None
    scale = pm.Data("width", width)  # data, not a constant: one compiled model serves every panel
    return pm.Normal("earlier_slope", 0.0, priors.mu * scale, dims=design.blocks["earlier"].dim)


@dataclass
class Shared:
    """What the equations of a term have in common.

    Attributes
    ----------
    factor : tensor, shape (equation, equation)
        L.
    offsets : tensor, shape (equation, level)
        Correlated raw deviations, L raw.
    theta : list of tensor, shape (level,)
        Deviations in every equation so far, whatever way they go.
    loadings : list of tensor, shape (equation,)
        Of theta on raw, likewise.
    """

    factor: Any
    offsets: Any
    theta: list[Any] = field(default_factory=list)
    loadings: list[Any] = field(default_factory=list)

    @property
    def correlation(self):
        """Of theta across equations, over what it could be, shape (equation, equation)."""
        loadings = pt.stack(self.loadings)
        covariance = pt.dot(loadings, loadings.T)
        sd = pt.sqrt(pt.diag(covariance))
        return covariance / pt.outer(sd, sd)


def correlated(
    block: Block,
    taken: int,
    at: int,
    equations: int,
    width: float,
    slopes: Any,
    earlier: str | None,
    priors: Priors,
    tails: str,
    shared: dict[str, Shared],
):
    """Deviations of the levels of a term in one equation, correlated with those in the others.

        theta_j = own_j + sum over l < j of tied_jl c_jl theta_l,    tied_jl ~ Uniform(0, 1)
        own_j = sd_j sum over l <= j of L_jl raw_l,    L L' ~ LKJ(ETA),    sd_j ~ half-Student-t(3, priors.sd width_j)
        phi_j = theta_j - sum over l < j of c_jl theta_l

    Effects are tied as errors are where `tied` is 1, and not at all where it is 0: with it 1, differences of effects
    that are not tied would come out too sure, and with it 0, effects known to differ by little would be drawn to zero
    twice, once on either outcome. L is for what errors do not tell. The correlation that is kept is that of theta,
    sqrt(b_j'b_j b_l'b_l)^-1 b_j'b_l with b the loadings of theta on raw. Of a share, which has no outcome on its
    right-hand side, phi is own.

    A term too small to tell its spread tells no correlation either: its phi stands alone.

    Parameters
    ----------
    block : Block
    taken : int
        As of `effects.pooled`.
    at, equations : int
        Position of the equation, and how many there are.
    width : float
        As of `build`.
    slopes : tensor, shape (earlier,), or None
        c.
    earlier : str, optional
        Dim of the outcomes before.
    priors : Priors
    tails : {"normal", "student_t"}
    shared : dict of str to Shared
        By term; receives those that it lacks.

    Returns
    -------
    tensor, shape (level,)
        phi; theta is kept as the effect of the term.
    """
    name = block.name
    if block.size - taken < priors.min_levels:
        return effects.pooled(block, priors, tails, taken)
    if name not in shared:
        factor = lkj_factor(name, equations)
        shared[name] = Shared(factor, pt.dot(factor, effects.offsets(name, ("equation", block.dim), tails)))
    mine = shared[name]
    scale = 1.0 if slopes is None else pm.Data(f"{name}_width", width)
    sd = pm.HalfStudentT(f"sd_{name}", nu=3, sigma=priors.sd * scale)
    own = sd * mine.offsets[at]
    if block.predictor is not None:
        own = own + effects.predicted(block, priors.predictor * scale)
    theta, loading = own, sd * mine.factor[at]
    if slopes is not None:
        tied = pm.Uniform(f"{name}_tied", 0.0, 1.0, dims=earlier)
        for k in range(at):
            theta = theta + tied[k] * slopes[k] * mine.theta[k]
            loading = loading + tied[k] * slopes[k] * mine.loadings[k]
    phi = theta if slopes is None else theta - sum(slopes[k] * mine.theta[k] for k in range(at))
    mine.theta.append(pm.Deterministic(f"{name}_effect", theta, dims=block.dim))
    mine.loadings.append(loading)
    return phi


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
