"""Blocks of the effect of own adoption, tau_it = mu + path_e + cohort_g + cell_gt + group terms.

Each function adds random variables to the model on the context stack and returns one coefficient a level.
Everything is in units of s.
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from models.inputs import Block, Design, Priors


def average(priors: Priors):
    """Average effect, mu ~ Normal(priors.centre, priors.mu)."""
    return pm.Normal("mu", priors.centre, priors.mu)


def slope(name: str, priors: Priors):
    """Slope of the effect on a standardised trait of the unit, Normal(0, priors.predictor)."""
    return pm.Normal(f"{name}_slope", 0.0, priors.predictor)


def flat(block: Block, priors: Priors):
    """Every level its own effect, Normal(0, priors.cell): nothing is borrowed."""
    return pm.Normal(f"{block.name}_effect", 0.0, priors.cell, dims=block.dim or None)


def pooled(block: Block, priors: Priors, tails: str = "normal", taken: int = 0):
    """Deviations of the levels of one term, shrunk towards their mean.

        effect_l = slope z_l + sd_<term> offset_l,    sum_l offset_l = 0,    sd_<term> ~ half-Student-t(3, priors.sd)

    A term with fewer than `priors.min_levels` levels cannot tell its own spread, so its deviations have the fixed SD
    priors.fixed.

    Parameters
    ----------
    block : Block
    priors : Priors
    tails : {"normal", "student_t"}
        Distribution of the offsets; Student-t has 4 degrees of freedom and lets single levels stand out.
    taken : int
        Levels' worth of contrasts that other terms take: a spread is estimated from what they leave.
    """
    name, dim = block.name, block.dim
    if block.size - taken < priors.min_levels:
        deviation = pm.ZeroSumNormal(f"{name}_deviation", sigma=priors.fixed, dims=dim)
    else:
        sd = pm.HalfStudentT(f"sd_{name}", nu=3, sigma=priors.sd)
        deviation = sd * offsets(name, (dim,), tails)
    if block.predictor is not None:
        deviation = deviation + predicted(block, priors.predictor)
    return pm.Deterministic(f"{name}_effect", deviation, dims=dim)


def predicted(block: Block, sd):
    """What the group-level predictor of a term says of its levels; its slope Normal(0, sd)."""
    predictor = pm.Data(f"{block.name}_predictor", block.predictor)
    return pm.Normal(f"{block.name}_slope", 0.0, sd) * predictor


def offsets(name: str, dims: tuple[str, ...], tails: str):
    """Raw deviations of a term over the last of `dims`: zero-sum normal, or Student-t(4) about their mean."""
    if tails == "normal":
        return pm.ZeroSumNormal(f"{name}_offset", dims=dims)
    raw = pm.StudentT(f"{name}_offset", nu=4, mu=0.0, sigma=1.0, dims=dims)
    return raw - pt.mean(raw, axis=-1, keepdims=True)


def path(design: Design, priors: Priors, kind: str = "increments"):
    """Path over event time, zero on average over the treated rows.

    Parameters
    ----------
    design : Design
    priors : Priors
    kind : {"increments", "random_walk", "gaussian_process"}
        increments: path_e - path_{e-1} ~ Normal(0, priors.path), a fixed wide scale; random_walk: the same with
        sd_path estimated (pulls the path towards flat); gaussian_process: squared exponential over event time with
        estimated spread and length.
    """
    block = design.blocks["path"]
    gaps = np.sqrt(np.diff(np.asarray(block.levels, dtype=float)))
    if kind == "gaussian_process":
        sd = pm.HalfStudentT("sd_path", nu=3, sigma=priors.path)
        length = pm.LogNormal("path_length", np.log(3.0), 0.5)
        distance = np.subtract.outer(block.levels, block.levels).astype(float)
        covariance = pt.exp(-0.5 * (distance / length) ** 2) + 1e-6 * np.eye(block.size)
        raw = pm.Normal("path_offset", dims="event_time")
        level = sd * pt.dot(pt.linalg.cholesky(covariance), raw)
    else:
        sd = pm.HalfStudentT("sd_path", nu=3, sigma=priors.path) if kind == "random_walk" else priors.path
        raw = pm.Normal("path_offset", dims="event_time_step")
        level = pt.concatenate([[0.0], pt.cumsum(sd * gaps * raw)])
    rows = pm.Data("rows_per_event_time", design.rows_per_event_time)
    return pm.Deterministic("path_effect", level - pt.dot(rows, level), dims="event_time")
