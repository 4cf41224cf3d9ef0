"""Every cell its own effect: tau_it = cell_gt, or the cell of the unit's groups."""

from __future__ import annotations

import pymc as pm

from models import effects, likelihoods, spillovers
from models.inputs import CrossProducts, Design, Priors


def build(design: Design, evidence: CrossProducts, priors: Priors, cells: str = "cohort_time") -> pm.Model:
    """Extended two-way fixed effects as a posterior (Wooldridge 2021): flat effects, nothing borrowed.

    Parameters
    ----------
    design : Design
    evidence : CrossProducts
    priors : Priors
    cells : {"cohort_time", "groups"}
        What a cell is: cohort x period, or a combination of the levels of all groups (none: all adopters).
    """
    name = "cell" if cells == "cohort_time" else "group_cell" if design.groups else "mu"
    with pm.Model(coords=likelihoods.coords(design)) as model:
        terms = {name: effects.flat(design.blocks[name], priors)} | spillovers.slopes(design, priors)
        likelihoods.gaussian(design, terms, evidence, priors)
    return model
