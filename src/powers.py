"""How much does the prior say? Power-scaling: what an answer becomes as prior or likelihood is raised to a power.

    p_a(x | y)  proportional to  p(y | theta) p(theta)^a,    and  p(y | theta)^a p(theta),    a near 1

    sensitivity = d D(p_1, p_a) / d log2 a

with D the cumulative Jensen-Shannon distance between the laws of an estimand, from importance weights p^(a - 1) of the
draws that there are: nothing is sampled again. Raised are the priors of top-level variables alone (see src.density).

    prior    likelihood
    small    any          the answer follows the data
    large    large        the prior moves it, and so do the data: they may disagree, or neither settles it
    large    small        the data say little

Large is `THRESHOLD` or more: about a mean that moves by a quarter of its SD as the prior is squared. Raising all of the
likelihood of an estimand that is known by it alone gives about .08.

Assumes nothing of the model but its densities. What was estimated before sampling (errors, s) stays as it is; where
effects of single units are integrated out, their part in an estimand does not feel the power of the likelihood.

Source: Kallioinen, Paananen, Bürkner & Vehtari (2024), by the functions of ArviZ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats

from src.average import FIXED
from src.estimand import Scale
from src.panel import count, some
from src.system import MARK

THRESHOLD = 0.05
POWERS = (0.99, 1.01)
RELIABLE = 0.7  # Pareto k
NOTHING = 1e-9  # of a log density, whose spread does not move any weight
KEYS = ["estimand", "group", "level"]
COLUMNS = [*KEYS, "prior", "likelihood", "diagnosis"]
DATA, CONFLICT, WEAK, UNTOLD = "follows the data", "prior and data may disagree", "the data say little", "not told"
MAIN = (
    *("att", "total_treated", "switching", "spill_treated", "spill_control", "overall", "contrast", "spill_per_pp"),
    *("att_by", "natural_direct", "natural_indirect"),
)
NAMED = 3  # estimands that a sentence names
REMEDY = "See what it is under other priors: python -m src.fit -m experiment=priors."


@dataclass(frozen=True)
class Sensitivity:
    """What power-scaling finds.

    Attributes
    ----------
    table : DataFrame
        `COLUMNS`, a row for each estimand that the data and the priors can move.
    pareto_k : float
        Largest of the weights'.
    limit : float
        Pareto k beyond which weights cannot be relied on with so many draws.
    """

    table: pd.DataFrame
    pareto_k: float
    limit: float

    def record(self) -> dict:
        """For diagnostics.json."""
        told = self.table.dropna(subset="prior").sort_values("prior", ascending=False, kind="stable")
        above = told[told["diagnosis"] != DATA]
        return {
            "prior_sensitivity": {
                "threshold": THRESHOLD,
                "largest": {label(row): float(row["prior"]) for _, row in told[:1].iterrows()},
                "above": [label(row) for _, row in above.iterrows()],
                "pareto_k": self.pareto_k if np.isfinite(self.pareto_k) else None,
            }
        }


def sensitivity(scale: Scale, log_prior: xr.Dataset, log_likelihood: xr.Dataset) -> Sensitivity:
    """Power-scaling of the estimands on a scale on which they add up.

    Parameters
    ----------
    scale : Scale
        Draws of shape (chain, draw, estimand). Left out is what is not identified, what the model fixes, and leads,
        which are no function of the same draws.
    log_prior, log_likelihood : Dataset, dims (chain, draw)
    """
    moving = np.isfinite(scale.draws).all(axis=(0, 1)) & (np.ptp(scale.draws, axis=(0, 1)) > 0)
    at = [k for k, a in enumerate(scale.found) if moving[k] and a.estimand != "lead" and not a.note.startswith(FIXED)]
    values = np.moveaxis(scale.draws[..., at], -1, 0)
    each = [total(density, values.shape[1:]) for density in (log_prior, log_likelihood)]
    k, limit = max(map(pareto_k, each)), min(1 - 1 / np.log10(each[0].size), RELIABLE)
    prior, likelihood = (moved(values, density) for density in each)
    if k > limit:
        prior, likelihood = np.full_like(prior, np.nan), np.full_like(likelihood, np.nan)
    found = [scale.found[j] for j in at]
    keys = {key: [getattr(average, key) or None for average in found] for key in KEYS}
    said = [diagnosis(p, q) for p, q in zip(prior, likelihood, strict=True)]
    table = pd.DataFrame(keys | {"prior": prior, "likelihood": likelihood, "diagnosis": said}, columns=COLUMNS)
    return Sensitivity(table, k, limit)


def total(densities: xr.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over variables, about its mean, shape (chain, draw)."""
    whole = sum(
        (values.transpose("chain", "draw").to_numpy() for values in densities.data_vars.values()), np.zeros(shape)
    )
    return whole - whole.mean()


def pareto_k(density: np.ndarray) -> float:
    """The larger Pareto k of the weights under both powers, which are as smooth as can be where nothing moves them."""
    if np.ptp(density) < NOTHING:
        return -np.inf
    return max(float(array_stats.pareto_khat((power - 1) * density, log_weights=True)) for power in POWERS)


def moved(values: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Sensitivity of each estimand.

    Parameters
    ----------
    values : array, shape (estimand, chain, draw)
    density : array, shape (chain, draw)
        Log of what is raised to a power.
    """
    if not len(values) or np.ptp(density) < NOTHING:
        return np.zeros(len(values))
    weights = [np.exp(array_stats.power_scale_lw(density, alpha=power, axis=(0, 1))) for power in POWERS]
    lower, upper = (np.broadcast_to(weight, values.shape) for weight in weights)
    return np.asarray(array_stats.power_scale_sense(values, lower, upper, *POWERS))


def diagnosis(prior: float, likelihood: float) -> str:
    """What a pair of sensitivities says."""
    if not np.isfinite(prior):
        return UNTOLD
    if prior < THRESHOLD:
        return DATA
    return CONFLICT if likelihood >= THRESHOLD else WEAK


def in_words(found: Sensitivity) -> Iterator[str]:
    """How many estimates follow the data, and what moves the average effect."""
    told = found.table.dropna(subset="prior")
    if told.empty:
        return
    few = int((told["diagnosis"] == DATA).sum())
    yield (
        f"Of {count(len(told), 'estimate')}, {few} follow the data: raising the prior to a power moves them by less "
        f"than {THRESHOLD:g} (Jensen-Shannon distance for each doubling of the power)."
    )
    for _, row in told[told["estimand"] == "att"].iterrows():
        sizes = (f"{row[name]:.2g}" for name in ("prior", "likelihood"))
        yield "The average effect moves by {} with the prior and by {} with the data.".format(*sizes)


def sentences(found: Sensitivity) -> Iterator[str]:
    """Warnings in plain words, of the estimands that answer the questions; none where their answers follow the data."""
    table = found.table
    main = table[np.array([is_main(row) for _, row in table.iterrows()], dtype=bool)]
    if (table["diagnosis"] == UNTOLD).any():
        yield (
            f"How much the prior says cannot be told: weights of the draws rest on few of them (Pareto k "
            f"{found.pareto_k:.2f} > {found.limit:.2f}); raise sampler.draws, or compare fits: "
            "python -m src.fit -m experiment=priors."
        )
    for verdict, what in (
        (CONFLICT, "and so do the data: the two may disagree, or neither settles it"),
        (WEAK, "and the data say little"),
    ):
        mine = main[main["diagnosis"] == verdict].sort_values("prior", ascending=False, kind="stable")
        if len(mine):
            yield (
                f"The prior speaks loudly of {some([label(row) for _, row in mine.iterrows()], NAMED)}, {what} "
                f"(sensitivity to the prior up to {mine['prior'].max():.2g}, from {THRESHOLD:g} on it is large; "
                f"powers.csv). {REMEDY}"
            )


def is_main(row: pd.Series) -> bool:
    """Whether an estimand answers a question of its own: interactions of groups, cells and periods do not."""
    return row["estimand"].rpartition(MARK)[2] in MAIN and ":" not in str(row["group"])


def label(row: pd.Series) -> str:
    """An estimand in words, as "att_by industry C39"."""
    return " ".join(str(row[key]) for key in KEYS if pd.notna(row[key]))
