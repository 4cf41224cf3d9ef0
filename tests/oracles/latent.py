"""The full latent model of counts in plain PyMC: nothing collapsed, nothing approximated, nothing estimated beforehand.

    y_it ~ Poisson(exp(alpha_i + lambda_t + x_it'beta + z_it'theta + d_it))
    d_i ~ AR(1) of correlation rho at calendar distance, variance omega_i;  log omega_i ~ Normal(m, v^2)

with alpha_i, d_it, omega_i, rho, m (of ever- and never-treated units), v and the shares of the differences between
levels and units that are there at event times 0 and 1 sampled. An oracle for a few hundred units, each with events.
"""

from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from models import effects, hier, likelihoods, spillovers
from src.design import standardised, with_traits
from src.errors import FULL
from src.nuisance import MOST_ONSET, ONSET


def build(regression, trait, s: float, priors, **options) -> pm.Model:
    regression, *others = (
        with_traits(regression, standardised(trait, regression.adopters), onset)
        for onset in (FULL, *map(tuple, 1 - np.eye(len(FULL))))
    )
    panel, design = regression.panel, regression.design
    units = len(panel.units)
    first = np.r_[True, panel.unit[1:] != panel.unit[:-1]]
    slot = np.arange(len(first)) - np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
    step = np.where(first, 1, np.r_[1, np.diff(panel.time)])
    adopters = np.isin(np.arange(units), panel.unit[panel.treated]).astype(int)
    options = {"path": "increments", "tails": "normal", "late": True, "interactions": True, "unit": True} | options
    with pm.Model(coords=likelihoods.coords(design)) as model:
        deviations = partial(effects.pooled, priors=priors, tails=options.pop("tails"))
        terms = hier.effects_of(design, priors, **options, deviations=deviations) | spillovers.slopes(design, priors)
        names = tuple(terms)
        columns = regression.matrix[:, design.columns(names)]
        early = [columns - other.matrix[:, design.columns(names)] for other in others]
        rows = np.flatnonzero(np.diff(columns.indptr))
        m = pm.TruncatedNormal("onset", 1.0, ONSET, lower=0.0, upper=MOST_ONSET, shape=len(FULL))
        theta = pt.concatenate([pt.atleast_1d(term) for term in terms.values()])
        pm.Deterministic("theta", theta)
        nuisance = tuple(name for name in ("time", "covariate") if name in design.blocks)
        flat = pm.Normal("flat", 0, 30, shape=len(design.columns(nuisance)))
        alpha = pm.Normal("alpha", 0, 30, shape=units)
        fit = alpha[panel.unit] + pt.dot(regression.matrix[:, design.columns(nuisance)].toarray(), flat)
        effect = pt.dot(columns[rows].toarray(), s * theta)
        for e, x in enumerate(early):
            effect = effect + (m[e] - 1) * pt.dot(x[rows].toarray(), s * theta)
        fit = pt.inc_subtensor(fit[rows], effect)
        rho = pm.Uniform("rho", -0.98, 0.98)
        centre = pm.Normal("log_omega", -1, 2, shape=2)[adopters]
        omega = pt.exp(centre + pm.HalfNormal("spread", 1) * pm.Normal("omega_offset", shape=units))
        raw = pm.Normal("raw", shape=len(first))
        series = pt.zeros(len(first))
        for t in range(slot.max() + 1):
            here = np.flatnonzero(slot == t)
            if t == 0:
                value = raw[here]
            else:
                a = rho ** step[here]
                value = a * series[here - 1] + pt.sqrt(1 - a**2) * raw[here]
            series = pt.set_subtensor(series[here], value)
        mean = fit + pt.sqrt(omega)[panel.unit] * series + panel.log_offset
        pm.Potential("counts", pt.sum(panel.outcome * mean - pt.exp(mean)))
    return model
