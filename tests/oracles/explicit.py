"""The full Gaussian model in plain PyMC: nothing collapsed, nothing estimated beforehand.

    y_it = alpha_i + lambda_t + x_it'beta + u_kt + v_ct + z_it'theta + eps_it
    eps_i ~ AR(1) of correlation rho at calendar distance, SD scale_i;  scale_i^-2 ~ Gamma(nu/2, nu s0/2)
    u_k ~ AR(1) of correlation phi, SD sd

with rho, nu, s0 (of ever- and never-treated units), sd, phi, scale_i, alpha_i, all shocks and the shares m of the
differences between levels and units that are there at event times 0 and 1 sampled. Thousands of parameters: an oracle
for a few hundred units, outcome in units of s.
"""

from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from models import effects, hier, likelihoods, spillovers
from src.design import standardised, with_traits
from src.errors import FULL, Errors, shocks_of
from src.nuisance import MOST_ONSET, ONSET


def build(regression, log_scale, errors: Errors, s: float, priors, **options) -> pm.Model:
    regression, *others = (
        with_traits(regression, standardised(log_scale, regression.adopters), onset)
        for onset in (FULL, *map(tuple, 1 - np.eye(len(FULL))))
    )
    panel, design = regression.panel, regression.design
    units, periods = len(panel.units), panel.periods
    time = np.searchsorted(periods, panel.time)
    first = np.r_[True, panel.unit[1:] != panel.unit[:-1]]
    step = np.where(first, 1, np.r_[1, np.diff(panel.time)])
    adopters = np.isin(np.arange(units), panel.unit[panel.treated]).astype(int)
    options = {"path": "increments", "tails": "normal", "late": True, "interactions": True, "unit": True} | options
    y = panel.outcome / s
    y = y - y.mean()
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
        effect = pt.dot(columns[rows].toarray(), theta)
        for e, x in enumerate(early):
            effect = effect + (m[e] - 1) * pt.dot(x[rows].toarray(), theta)
        fit = pt.inc_subtensor(fit[rows], effect)
        for name, shock in shocks_of(panel, errors.shocks).items():
            sd, phi = pm.HalfNormal(f"sd_shock_{name}", 1), pm.Uniform(f"phi_{name}", -0.5, 0.95)
            raw = pm.Normal(f"shock_{name}", shape=(shock.levels, len(periods)))
            series = [raw[:, 0]]
            for t in range(1, len(periods)):
                a = phi ** (periods[t] - periods[t - 1])
                series.append(a * series[-1] + pt.sqrt(1 - a**2) * raw[:, t])
            fit = fit + sd * pt.stack(series, axis=1)[shock.code[panel.unit], time]
        rho = pm.Uniform("rho", -0.98, 0.98)
        nu = pm.Uniform("log_nu", 0, np.log(200))
        s0 = pm.LogNormal("s0", 0, 1, shape=2)[adopters]
        half = pt.exp(nu) / 2
        weight = pm.Gamma("weight", half, half, shape=units) / s0
        residual = y - fit
        before = pt.concatenate([[0.0], residual[:-1]])
        a = pt.switch(first, 0.0, rho**step)
        variance = (1 - a**2) / (weight[panel.unit] * panel.weight)
        whitened = residual - a * before * np.sqrt(np.r_[1.0, panel.weight[:-1]] / panel.weight)
        pm.Potential("outcome", -0.5 * pt.sum(pt.log(variance) + whitened**2 / variance))
    return model
