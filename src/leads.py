"""Effects before adoption: what adopters were off the others by, and what that says of parallel trends.

    y_it = ... + sum over leads e of 1{e_it = e} lead_e + ...,    lead_e ~ Normal(0, priors.lead),    base: none

The base is the last period before adoption in which a cohort is seen. The model itself has no leads: its effects
compare with all periods before adoption. Its posterior is therefore one given lead = 0, and what it would be with leads
follows from draws of theta without sampling again. With G and m the evidence of leads and theta and
a = G_lead,theta theta,

    lead | y          ~ Normal(Q^-1 (m - E[a]), Q^-1),    Q = G_lead,lead + 1 / priors.lead^2 - Cov[a]
    w'theta | lead, y ~ Normal(E[w'theta] - Cov[w'theta, a] lead, Var[w'theta])

where the posterior given lead = 0 is close to Normal. Errors, and of counts the sites, are estimated without leads.
Rows farther ahead than the first lead belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from models.inputs import Priors
from src import tally
from src.average import Average
from src.blocks import over
from src.collapse import Collapsed
from src.identify import moves, silent_directions, slopes_in

UNLIKELY = 0.95  # mass of the region that zero leads lie outside of


@dataclass(frozen=True)
class Leads:
    """The joint posterior of leads and of the effect by event time, once leads are in the model.

    Attributes
    ----------
    found : list of Average
        Of estimand "lead", farthest from adoption first.
    mean : array, shape (lead,)
    covariance : array, shape (lead, lead)
    path : array, shape (event time,)
        Mean of the effect at each event time, in the order of the design.
    slope : array, shape (event time, lead)
        What a lead takes from each.
    path_covariance : array, shape (event time, event time)
        Given leads.
    """

    found: list[Average]
    mean: np.ndarray
    covariance: np.ndarray
    path: np.ndarray
    slope: np.ndarray
    path_covariance: np.ndarray

    def draws(self, chains: int, draws: int, seed: int) -> np.ndarray:
        """Draws of the leads, shape (chain, draw, lead); NaN where not identified."""
        rng = np.random.default_rng([seed, 11])
        drawn = rng.multivariate_normal(self.mean, self.covariance, (chains, draws), method="cholesky")
        drawn[..., [not average.identified for average in self.found]] = np.nan
        return drawn

    def surprise(self) -> float:
        """Posterior mass of the leads that are more plausible than none at all: near 1 if trends were not parallel."""
        told = [k for k, average in enumerate(self.found) if average.identified]
        if not told:
            return float("nan")
        z = np.linalg.solve(self.covariance[np.ix_(told, told)], self.mean[told])
        return float(stats.chi2.cdf(self.mean[told] @ z, len(told)))

    def speaks_against(self) -> bool:
        """Whether leads are plainly not zero."""
        return self.surprise() > UNLIKELY

    def record(self) -> dict:
        """For diagnostics.json."""
        return {"leads": {"number": len(self.found), "surprise": self.surprise()}}

    def in_words(self) -> str:
        """What leads say of parallel trends, in a sentence."""
        mass = self.surprise()
        if np.isnan(mass):
            return "No period but the last before adoption tells anything of trends before it."
        verdict = (
            "the data speak against parallel trends"
            if self.speaks_against()
            else "the data do not speak against parallel trends, which is not to say that these hold after adoption"
        )
        return (
            f"Before adoption ({len(self.found)} leads against the last period before it), {mass:.0%} of the posterior "
            f"is where leads are more plausible than none: {verdict}."
        )


def leads_of(
    collapsed: Collapsed, theta: xr.DataArray, effects: np.ndarray, priors: Priors, sigma: float
) -> Leads | None:
    """Leads of the panel and the effect by event time beside them; None where there is no lead or a kernel is learned.

    Parameters
    ----------
    collapsed : Collapsed
    theta : DataArray, dims (chain, draw, column)
        Of the model without leads, in units of the outcome.
    effects : array, shape (chain, draw, event time)
        Of the same draws.
    priors : Priors
    sigma : float
        Residual SD, in units of the outcome.
    """
    regression = collapsed.regression
    design = regression.design
    if "lead" not in design.blocks or regression.surface is not None:
        return None
    block = design.blocks["lead"]
    used = design.positions(theta["column"].to_numpy())
    own = np.arange(block.start, block.start + block.size)
    gram, moment = collapsed.evidence.gram / sigma**2, collapsed.evidence.moment / sigma**2
    draws = theta.transpose("chain", "draw", "column").to_numpy().reshape(-1, len(used))
    path = effects.reshape(len(draws), -1)
    pulled = draws @ gram[np.ix_(used, own)]
    joint, lead = np.cov(np.hstack([pulled, path]).T), slice(block.size)
    rest = slice(block.size, None)
    precision = gram[np.ix_(own, own)] + np.eye(block.size) / (priors.lead * collapsed.s) ** 2 - joint[lead, lead]
    covariance = np.linalg.inv((precision + precision.T) / 2)
    mean = covariance @ (moment[own] - pulled.mean(axis=0))
    beside = slopes_in(tuple(design.blocks))
    seen = over(regression, tally.first)
    null = silent_directions(design, collapsed.evidence, seen.mass, ("lead", "path", *beside))
    known = ~moves(np.eye(design.size)[own], null)
    found = []
    for k, level in enumerate(block.levels):
        note = "and all earlier periods" if k == 0 and seen.lead.earlier[k] else ""
        note = note if known[k] else "not identified: collinear with units, periods or effects after adoption"
        counts = (int(seen.lead.units[k]), int(seen.lead.rows[k]))
        found.append(
            Average("lead", "", str(level), np.zeros(design.size), *counts, note=note, identified=bool(known[k]))
        )
    return Leads(found, mean, covariance, path.mean(axis=0), joint[rest, lead], joint[rest, rest])
