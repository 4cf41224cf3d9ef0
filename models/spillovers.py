"""Slopes of the outcome on the exposure to others' adoption."""

from __future__ import annotations

import pymc as pm

from models import effects
from models.inputs import BY, Design, Priors


def slopes(design: Design, priors: Priors) -> dict:
    """Spillover slopes on untreated and treated rows, per SD of each exposure, in units of s.

        delta_control ~ Normal(0, priors.exposure),    difference ~ Normal(0, priors.difference)
        delta_treated = delta_control + difference

    The slope of an exposure may differ between the levels of a group, zero-sum and partially pooled, on untreated and
    treated rows alike: delta_control + deviation_k, blocks "spill_<exposure>".

    Whether `difference` is zero is the condition under which a difference-in-differences without exposures is
    biased or not, hence its own prior.

    Returns
    -------
    dict of str to tensor, shape (exposure,)
        Coefficients of the blocks "exposure", "difference" and "spill_<exposure>"; empty where nothing is exposed.
    """
    if "exposure" not in design.blocks:
        return {}
    control = pm.Normal("delta_control", 0.0, priors.exposure, dims="exposure")
    difference = pm.Normal("difference", 0.0, priors.difference, dims="exposure")
    pm.Deterministic("delta_treated", control + difference, dims="exposure")
    by_level = {name: effects.pooled(block, priors) for name, block in design.blocks.items() if name.startswith(BY)}
    return {"exposure": control, "difference": difference} | by_level
