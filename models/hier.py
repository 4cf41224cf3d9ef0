"""Effects partially pooled over event time, cohorts, cells, groups and their interactions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pymc as pm

from models import effects, likelihoods, spillovers
from models.inputs import CrossProducts, Design, Priors


def build(
    design: Design,
    evidence: CrossProducts,
    priors: Priors,
    path: str = "increments",
    tails: str = "normal",
    late: bool = True,
    interactions: bool = True,
    unit: bool = False,
) -> pm.Model:
    """Hierarchical staggered difference-in-differences.

        tau_it = mu + path_e + cohort_g + cell_gt + m_e (industry_k + ownership_o + (industry:ownership)_ko + unit_i
                 + 1{e >= 1} (industry_late_k + ownership_late_o)) + (trait + 1{e >= 1} trait_late) z_i

    with m_e = 1 but for the adoption period and the one after it, where the design's columns have the shares that were
    estimated.

    Parameters
    ----------
    design : Design
    evidence : CrossProducts
    priors : Priors
    path : {"increments", "random_walk", "gaussian_process"}
    tails : {"normal", "student_t"}
        Of the pooled deviations.
    late : bool
        Group effects after the adoption period may differ from those in it.
    interactions : bool
        Pairwise interactions of the groups.
    unit : bool
        Units differ in their effect (by a column for each, unless that has been integrated out), also with z_i, a
        standardised trait, where there is one: the log error scale of Gaussian outcomes, because precision weights
        average effects by 1 / scale_i^2 and the estimands by rows, or the log size of counts, because proportional
        effects average by events.

    Notes
    -----
    Limits: all spreads to 0 give `pooled`; without groups, fixed spreads to infinity give `nopool`.
    Assumes that the levels of a term are exchangeable given its predictor, and parallel trends.
    """
    with pm.Model(coords=likelihoods.coords(design)) as model:
        deviations = partial(effects.pooled, priors=priors, tails=tails)
        terms = effects_of(design, priors, path, late, interactions, unit, deviations)
        likelihoods.gaussian(design, terms | spillovers.slopes(design, priors), evidence, priors)
    return model


def effects_of(
    design: Design, priors: Priors, path: str, late: bool, interactions: bool, unit: bool, deviations: Callable
) -> dict:
    """The terms of tau, one coefficient a level, for the model on the context stack; parameters as of `build`.

    `deviations` gives those of a pooled term, of its block and the contrasts that other terms take.
    """
    several_cohorts = design.blocks["cohort"].size > 1
    names = [
        *(["cohort", "cell"] if several_cohorts else []),
        *design.groups,
        *(design.interactions if interactions else ()),
        *(f"{name}_late" for name in design.groups if late and f"{name}_late" in design.blocks),
        *(["unit"] if unit and "unit" in design.blocks else []),
    ]
    terms = {"mu": effects.average(priors)}
    if design.blocks["path"].size > 1:
        terms["path"] = effects.path(design, priors, path)
    for name in ("trait", "trait_late"):
        if unit and name in design.blocks:
            terms[name] = effects.slope(name, priors)
    for name in names:
        if design.blocks[name].size > 1:
            taken = design.blocks["cohort"].size + design.blocks["path"].size - 2 if name == "cell" else 0
            terms[name] = deviations(design.blocks[name], taken=taken)
    return terms
