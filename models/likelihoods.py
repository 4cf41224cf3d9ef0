"""The likelihood of the coefficient vector, a function of the evidence alone."""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph

from models.inputs import CrossProducts, Design, Priors


def coords(design: Design) -> dict[str, tuple]:
    """Coordinates of every dimension, made once."""
    found: dict[str, tuple] = {block.dim: block.levels for block in design.blocks.values() if block.dim}
    found["event_time_step"] = design.blocks["path"].levels[1:]
    return found


def gaussian(design: Design, terms: dict, evidence: CrossProducts, priors: Priors):
    """Gaussian likelihood of theta with unit effects, periods and covariates integrated out.

        log p = -dof log sigma - (square - 2 moment'theta + theta'gram theta) / (2 sigma^2)
        log sigma ~ Normal(0, priors.sigma), in units of s; sigma = 1 where the evidence carries the scales of all units

    Where the evidence has several descriptions of the spillover, the likelihood is their mean with their weights.

    Parameters
    ----------
    design : Design
    terms : dict of str to tensor
        Coefficients of each block of the design that the model uses.
    evidence : CrossProducts
        Over all columns of the design's effects and exposures, outcome in units of s.

    Returns
    -------
    tensor, shape (column,)
        theta, a Deterministic over the labelled columns.
    """
    names = tuple(terms)
    used = evidence.take(design.columns(names))
    model = pm.modelcontext(None)
    dim = f"{model.name}::column" if model.name else "column"
    model.add_coord(dim, design.labels(names))
    theta = pm.Deterministic("theta", pt.concatenate([pt.atleast_1d(term) for term in terms.values()]), dims=dim)
    sigma = pt.constant(1.0) if evidence.sigma_known else pm.LogNormal("sigma", 0.0, priors.sigma)
    # as data, not constants: one compiled model then serves every panel of the same structure
    gram, moment = pm.Data("gram", used.gram), pm.Data("moment", used.moment)
    square, dof = pm.Data("square", used.square), pm.Data("dof", used.dof)
    if used.log_weight is None:
        fit = -(square - 2 * pt.dot(moment, theta) + quadratic(gram, theta)) / (2 * sigma**2)
    else:
        fits = -(square - 2 * pt.dot(moment, theta) + quadratic(gram, theta)) / (2 * sigma**2)
        fit = pt.logsumexp(pm.Data("log_weight", used.log_weight) + fits)
    pm.Potential("evidence", -dof * pt.log(sigma) + fit)
    return theta


def quadratic(gram, theta):
    """theta'gram theta, its slope 2 gram theta taken from the same product.

    Differentiated by rule, it would be multiplied once more by the transpose of gram, which is gram: the product is
    nearly all that an evaluation costs.

    Parameters
    ----------
    gram : tensor, shape (column, column), or (description, column, column)
        Symmetric.
    theta : tensor, shape (column,)

    Returns
    -------
    tensor, scalar, or of shape (description,)
    """
    matrix, vector = gram.type(), theta.type()
    product = pt.dot(matrix, vector)
    both = OpFromGraph([matrix, vector], [pt.dot(product, vector), product], inline=True, pullback=slope)
    return both.make_node(gram, theta).outputs[0]


def slope(inputs: list, outputs: list, upstream: list) -> list:
    """Slopes of `quadratic` along gram and theta."""
    theta, product = inputs[1], outputs[1]
    return [upstream[0][..., None, None] * pt.outer(theta, theta), 2 * pt.dot(upstream[0], product)]
