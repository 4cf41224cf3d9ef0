"""Log prior and log likelihood of every draw, as the model has them: what power-scaling starts from.

    pm.Model, posterior in units of s ─▶ log_prior, one a top-level variable; log_likelihood, one an outcome

A density of a variable times s differs by a constant from that of the variable, and constants move no weight: both are
taken in units of s, as the model is, and mean the same beside a posterior in units of the outcome.
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pytensor.compile.mode import Mode
from pytensor.graph.replace import vectorize_graph

from models.inputs import OUTCOME, CrossProducts
from src.system import MARK

RAW, SPREAD = "_offset", "sd_"
EVIDENCE = "evidence"  # name of the likelihood
ALL_AT_ONCE = Mode("py", "merge")  # one call for all draws: machine code would take longer to write than to run


def densities(model: pm.Model, posterior: xr.Dataset) -> dict[str, xr.Dataset]:
    """Groups log_prior and log_likelihood of a posterior, in units of s.

    Parameters
    ----------
    model : pm.Model
    posterior : Dataset, dims chain and draw first
        All variables of the model, in units of s.
    """
    return {"log_prior": log_prior(model, posterior), "log_likelihood": log_likelihood(model, posterior)}


def top_level(model: pm.Model) -> list[str]:
    """The variables whose prior was chosen: spreads, slopes, lengths, correlations, and what has a fixed scale.

    Without raw draws whose scale is estimated: the law of sd x offset follows from sd, and to make it narrower would
    change the hierarchy and not what was believed about it (Kallioinen et al. 2024, section 3.2).
    """
    names = [str(variable.name) for variable in model.free_RVs]
    return [name for name in names if not (name.endswith(RAW) and spread_of(name) in names)]


def spread_of(raw: str) -> str:
    """Name of the spread that a raw draw is multiplied by, where that is estimated: "sa::sd_industry"."""
    equation, mark, name = raw.rpartition(MARK)
    return f"{equation}{mark}{SPREAD}{name.removesuffix(RAW)}"


def log_prior(model: pm.Model, posterior: xr.Dataset) -> xr.Dataset:
    """Log density of each top-level variable, summed over its levels, dims (chain, draw).

    On the scale of the variable, without the Jacobian of the sampler's: a prior is what was written down.
    """
    names = top_level(model)
    values = {name: model[name].type(name=name) for name in names}
    batches = {name: pt.tensor(name, shape=(None, *model[name].type.shape), dtype=model[name].dtype) for name in names}
    each = [pm.logp(model[name], values[name]).sum() for name in names]
    whole = vectorize_graph(each, {values[name]: batches[name] for name in names})
    found = pytensor.function([batches[name] for name in names], whole, mode=ALL_AT_ONCE)(
        *(flat(posterior[name]).astype(model[name].dtype) for name in names)
    )
    return per_draw(dict(zip(names, found, strict=True)), posterior)


def log_likelihood(model: pm.Model, posterior: xr.Dataset) -> xr.Dataset:
    """Log likelihood of all data of each outcome, up to a constant, dims (chain, draw); see `models.likelihoods`.

        -dof log sigma - (square - 2 moment'theta + theta'gram theta) / (2 sigma^2)

    with unit effects, shocks, periods and covariates integrated out. Of several outcomes, each given those before it,
    the log likelihood is the sum. Of counts it is that of their sites.
    """
    found = {}
    for potential in model.potentials:
        equation = str(potential.name).removesuffix(EVIDENCE)
        data = {
            name: model[equation + name].get_value()
            for name in ("gram", "moment", "square", "dof", "log_weight")
            if equation + name in model.named_vars
        }
        evidence = CrossProducts(**data)
        sigma = equation + "sigma"
        spread = flat(posterior[sigma]) if sigma in posterior else np.ones(1)
        found[equation + OUTCOME] = collapsed_density(evidence, flat(posterior[equation + "theta"]), spread)
    return per_draw(found, posterior)


def collapsed_density(evidence: CrossProducts, theta: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Log likelihood of theta, shape (draw, column), and sigma, shape (draw,) or (1,), up to a constant."""
    gram = np.atleast_3d(evidence.gram.T).T  # (description, column, column)
    moment = np.atleast_2d(evidence.moment)
    bent = np.column_stack([np.einsum("ni,ni->n", theta @ one, theta) for one in gram])
    fit = -(evidence.square - 2 * theta @ moment.T + bent) / (2 * sigma[:, None] ** 2)
    if evidence.log_weight is not None:
        fit = fit + evidence.log_weight
    most = fit.max(axis=1)
    whole = most + np.log(np.exp(fit - most[:, None]).sum(axis=1))
    return whole - evidence.dof * np.log(sigma)


def flat(values: xr.DataArray) -> np.ndarray:
    """Draws of all chains one after the other, shape (draw, ...)."""
    found = values.transpose("chain", "draw", ...).to_numpy()
    return found.reshape(-1, *found.shape[2:])


def per_draw(values: dict[str, np.ndarray], posterior: xr.Dataset) -> xr.Dataset:
    """One number a draw, dims (chain, draw)."""
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    variables = {name: (("chain", "draw"), one.reshape(shape)) for name, one in values.items()}
    return xr.Dataset(variables, coords={dim: posterior[dim] for dim in ("chain", "draw")})
