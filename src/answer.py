"""From a posterior to the tables of its estimands: averages draw by draw, on every scale, leads beside them.

tree, Collapsed ─▶ averages, draws ─▶ scales ─▶ tables by the name that their rows bear
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from models.inputs import Priors
from src import compare, estimand, sandwich, trace
from src.collapse import Collapsed
from src.design import MEAN
from src.errors import Errors
from src.estimand import Scales
from src.leads import Leads, leads_of
from src.rates import Factor, count_scales

if TYPE_CHECKING:
    from src.scrutiny import Scrutiny


@dataclass(frozen=True)
class Answer:
    """What the posterior says.

    Attributes
    ----------
    tables : dict of str to DataFrame
        In the columns of `estimands.csv`, the model's first; others are the model's under other errors.
    scales : Scales
        From which the first was made.
    theta : DataArray, dims (chain, draw, column)
        In units of the outcome.
    leads : Leads, optional
    beside : Scrutiny, optional
        What else there is to say, of a model that answers a question of its own.
    sigma : array, shape (chain, draw), optional
        Residual SD in units of the outcome, where it was sampled.
    direct : bool
        Effects are averages of theta, and do not go through other outcomes.
    """

    tables: dict[str, pd.DataFrame]
    scales: Scales
    theta: xr.DataArray
    leads: Leads | None
    beside: Scrutiny | None = None
    sigma: np.ndarray | None = None
    direct: bool = True

    @property
    def table(self) -> pd.DataFrame:
        """That of the model."""
        return next(iter(self.tables.values()))


def answer(
    tree: xr.DataTree, collapsed: Collapsed, errors: Errors, priors: Priors, name: str, prob: float, seed: int
) -> Answer:
    """The tables of a run.

    Parameters
    ----------
    tree : DataTree
        With group posterior, and common_scale where the coefficients under one error scale were drawn.
    collapsed : Collapsed
    errors : Errors
    priors : Priors
    name : str
        Of the model.
    prob : float
    seed : int
    """
    theta, labels = trace.theta(tree), collapsed.regression.design.all_labels
    complete = with_means(theta, collapsed, seed)
    is_log = collapsed.regression.panel.is_log
    own = found = estimand.averages(collapsed.regression, collapsed.evidence, trace.terms(theta))
    draws = estimand.draw_estimands(complete, labels, own)
    events = [replace(average, identified=True) for average in own if average.estimand == "att_event"]
    path = estimand.draw_estimands(complete, labels, events)  # what is not identified weighs in the average, too
    leads = leads_of(collapsed, theta, path, priors, residual_sd(tree, collapsed))
    if leads is not None:
        found = [*own, *leads.found]
        chains, per_chain = draws.shape[:2]
        draws = np.concatenate([draws, leads.draws(chains, per_chain, seed)], axis=-1)
    if errors.events:
        scales = count_scales(Factor(collapsed, theta), found, draws, seed)
    else:
        scales = estimand.linear_scales(draws, found, is_log)
    tables = {name: estimand.table(scales, prob)}
    if errors.conditional:
        clustered = sandwich.with_clustered_errors(tables[name], scales, collapsed, theta, prob, seed)
        # leads are no function of the draws of the coefficients
        tables[name + sandwich.CLUSTERED] = clustered[clustered["estimand"] != "lead"]
    if "common_scale" in tree.children:
        rival = estimand.draw_estimands(trace.theta(tree, "common_scale"), labels, own)
        tables[name + compare.COMMON] = estimand.table(
            estimand.linear_scales(rival, own, is_log), prob, converged=False
        )
    return Answer(tables, scales, theta, leads, sigma=sigma_of(tree))


def with_means(theta: xr.DataArray, collapsed: Collapsed, seed: int) -> xr.DataArray:
    """The coefficients, and the mean effects of single units over the rows of every level drawn given them.

    As they are where the effects of single units are not integrated out; see `src.within.Own`.

    Parameters
    ----------
    theta : DataArray, dims (chain, draw, column)
        In units of the outcome.
    collapsed : Collapsed
    seed : int
    """
    regression, evidence = collapsed.regression, collapsed.evidence
    if not regression.integrated:
        return theta
    labels = regression.design.all_labels
    means = regression.design.columns((MEAN,))
    used = pd.Index(labels).get_indexer(pd.Index(theta["column"].to_numpy()))
    given = theta.transpose("chain", "draw", "column").to_numpy()
    centre = evidence.moment[means] - given @ evidence.gram[np.ix_(used, means)]
    values, vectors = np.linalg.eigh(-evidence.gram[np.ix_(means, means)])
    factor = collapsed.s * vectors * np.sqrt(np.maximum(values, 0.0))
    noise = np.random.default_rng([seed, 13]).standard_normal(centre.shape) @ factor.T
    drawn = xr.DataArray(
        centre + noise, dims=("chain", "draw", "column"), coords={"column": [labels[k] for k in means]}
    )
    return xr.concat([theta, drawn.assign_coords(chain=theta["chain"], draw=theta["draw"])], "column")


def sigma_of(tree: xr.DataTree) -> np.ndarray | None:
    """Draws of the residual SD of data.outcome in units of the outcome, shape (chain, draw); None where it is s."""
    posterior = tree["posterior"].to_dataset()
    return posterior["sigma"].transpose("chain", "draw").to_numpy() if "sigma" in posterior else None


def residual_sd(tree: xr.DataTree, collapsed: Collapsed) -> float:
    """sigma in units of the outcome: its posterior mean where it was sampled, else s."""
    sigma = sigma_of(tree)
    return collapsed.s if sigma is None else float(sigma.mean())
