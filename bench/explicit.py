"""The posterior of the benchmark with a parameter for every firm, in plain PyMC: nothing is integrated out.

y_it = alpha_i + lambda_t + x_it'beta + S_it'slope + effects_it'coefficient + eps_it,    eps ~ Normal(0, sigma)
"""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

KEPT = ["exposure", "coefficient", "spread", "sigma"]  # what the collapsed model has, too


def build(data: dict[str, np.ndarray]) -> pm.Model:
    """The model of the arrays that README.md of this folder lists."""
    wide = float(data["wide"])
    unit, time, treated, group = data["unit"], data["time"], data["treated"], data["spread"]
    with pm.Model() as model:
        sigma = pm.LogNormal("sigma", 0.0, float(data["sigma_sd"]))
        alpha = pm.Normal("alpha", 0.0, wide, shape=int(unit.max()) + 1)
        period = pm.Normal("lambda_", 0.0, wide, shape=int(time.max()))
        fit = alpha[unit] + pt.concatenate([[0.0], period])[time]
        if data["covariates"].shape[1]:
            fit = fit + pt.dot(data["covariates"], pm.Normal("beta", 0.0, wide, shape=data["covariates"].shape[1]))
        if len(data["exposure_sd"]):
            fit = fit + pt.dot(data["exposures"], pm.Normal("exposure", 0.0, data["exposure_sd"]))
        coefficient = pm.Normal("raw", 0.0, data["effect_sd"])
        if len(data["spread_scale"]):
            spread = pm.HalfStudentT("spread", nu=3, sigma=data["spread_scale"])
            coefficient = coefficient * pt.concatenate([[1.0], spread])[group + 1]
        coefficient = pm.Deterministic("coefficient", coefficient)
        fit = pt.inc_subtensor(fit[treated], pt.dot(data["effects"], coefficient))
        pm.Normal("y", fit, sigma, observed=data["y"])
    return model


def kept(model: pm.Model) -> list[str]:
    """The variables to hand back that the model has."""
    return [name for name in KEPT if name in model.named_vars]
