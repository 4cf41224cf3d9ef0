"""One effect for all adopters: tau_it = mu."""

from __future__ import annotations

import pymc as pm

from models import effects, likelihoods, spillovers
from models.inputs import CrossProducts, Design, Priors


def build(design: Design, evidence: CrossProducts, priors: Priors) -> pm.Model:
    """Two-way fixed effects as a posterior: with wide priors and no exposure, mu is the TWFE coefficient.

    Parameters
    ----------
    design : Design
    evidence : CrossProducts
    priors : Priors

    Notes
    -----
    Assumes that the effect is the same for every adopter at every time; where it is not, mu is a variance-weighted
    average in which late periods of early adopters may enter negatively (Goodman-Bacon 2021).
    """
    with pm.Model(coords=likelihoods.coords(design)) as model:
        terms = {"mu": effects.average(priors)} | spillovers.slopes(design, priors)
        likelihoods.gaussian(design, terms, evidence, priors)
    return model
