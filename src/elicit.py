"""Scales of priors from plain statements: "95% sure that the average effect lies between -20% and +80%".

    statement ──PreliZ──▶ the Normal of largest entropy that it allows ──less what other terms add──▶ prior of mu

The average effect is mu + R, R what cohorts, cells, groups and the path add to it over the treated rows, whose prior is
drawn from the model. Its centre is that of the Normal; the SD of mu solves

    mean over draws of R of  Phi((high - centre - R) / sd) - Phi((low - centre - R) / sd) = sure

so that the statement holds of the average effect and not of one of its terms. All in log points over s, or in units of
the outcome over s.

Source: Icazatti et al. (2023) for PreliZ, whose maximum-entropy search is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from models.inputs import Priors
from src import estimand, sample, trace
from src.collapse import Collapsed
from src.command import UserError
from src.config import PriorConfig

DRAWS = 1000  # of R
LEAST = 1e-3  # SD of mu, over that of the Normal: below it nothing is left for mu to vary
TAILS = 3  # degrees of freedom of the prior of a spread


def elicited(prior: PriorConfig, priors: Priors, collapsed: Collapsed, build: Callable[[Priors], Any]) -> Priors:
    """The priors with the scales that follow from statements.

    Parameters
    ----------
    prior : PriorConfig
        With the statements.
    priors : Priors
        What it says of the other scales.
    collapsed : Collapsed
    build : callable
        The model under some priors.

    Raises
    ------
    UserError
        A statement that cannot be, or that the other priors do not allow.
    """
    check(prior, in_percent(collapsed))
    priors = with_spread(prior, priors, collapsed)
    if prior.att is None:
        return priors
    low, high = (in_units_of_s(end, collapsed) for end in prior.att)
    centre, widest = normal_between(low, high, prior.sure)
    rest = deviations(collapsed, build(replace(priors, centre=0.0)))

    def excess(sd: float) -> float:
        upper, lower = (norm.cdf((end - centre - rest) / sd) for end in (high, low))
        return float((upper - lower).mean()) - prior.sure

    if excess(LEAST * widest) < 0:
        raise UserError(
            f"prior.att={[*prior.att]}: what groups, cohorts and exposures may add to the average effect has an SD of "
            f"{rest.std():.3g} residual SDs a priori, more than the statement allows: lower prior.fixed, "
            "prior.difference, prior.spread (or prior.sd), or say less"
        )
    sd = brentq(excess, LEAST * widest, 2 * widest)
    return replace(priors, centre=centre, mu=float(sd))


def with_spread(prior: PriorConfig, priors: Priors, collapsed: Collapsed) -> Priors:
    """The priors with the scale that follows from what is said of spreads."""
    if prior.spread is None:
        return priors
    return replace(priors, sd=scale_of_spread(in_units_of_s(prior.spread, collapsed), prior.sure))


def check(prior: PriorConfig, percent: bool) -> None:
    """Refuse statements that say nothing that can be.

    Raises
    ------
    UserError
    """
    att = prior.att
    if att is not None and (len(att) != 2 or not att[0] < att[1]):
        raise UserError(
            f"prior.att={[*att]} is to be the two ends between which the average effect lies, as in [-20, 80]"
        )
    if att is not None and percent and att[0] <= -100:
        raise UserError(f"prior.att={[*att]}: an effect in percent is above -100")


def in_percent(collapsed: Collapsed) -> bool:
    """Whether statements are in percent: of an outcome in logs, or of counts."""
    return collapsed.levels is not None or collapsed.regression.panel.is_log


def in_units_of_s(effect: float, collapsed: Collapsed) -> float:
    """An effect in the unit of statements, in that of the priors."""
    return float(np.log1p(effect / 100) if in_percent(collapsed) else effect) / collapsed.s


def normal_between(low: float, high: float, mass: float) -> tuple[float, float]:
    """Mean and SD of the Normal of largest entropy with that mass between two ends."""
    import preliz

    law = preliz.Normal()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the mass is missed by a hair
        preliz.maxent(law, low, high, mass, plot=False)
    return float(law.mu), float(law.sigma)


def scale_of_spread(most: float, mass: float) -> float:
    """Scale of the half-Student-t of largest entropy with that mass below `most`."""
    import preliz

    law = preliz.HalfStudentT(nu=TAILS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preliz.maxent(law, 0, most, mass, plot=False)
    return float(law.sigma)


def deviations(collapsed: Collapsed, model: Any) -> np.ndarray:
    """Draws from the prior of the average effect less mu, in units of s, shape (draw,)."""
    theta = sample.draw_prior(model, 0, DRAWS)["theta"]
    att = estimand.averages(collapsed.regression, collapsed.evidence, trace.terms(theta))[0]
    drawn = estimand.draw_estimands(theta, collapsed.regression.design.all_labels, [replace(att, identified=True)])
    return (drawn[..., 0] - theta.sel(column="mu").to_numpy()).ravel()
