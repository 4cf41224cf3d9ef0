"""From coefficients to the effects that people ask for: averages over the treated rows of the data, draw by draw.

Every estimand is a linear map of theta. With tau the effect of own adoption at zero exposure and S the exposure,

    direct         = mean over treated rows of tau                       (= att)
    spill_treated  = mean over treated rows of S'delta_treated
    total_treated  = direct + spill_treated                              mu(1, S) - mu(0, 0)
    switching      = mean over treated rows of tau + S'(delta_treated - delta_control)
    spill_control  = mean over untreated exposed rows of S'delta_control
    overall        = mean over all rows of D (tau + S'delta_treated) + (1 - D) S'delta_control
    spill_per_pp   = slope of one exposure / 100 (of one that is no share: per SD)
    spill_by       = the slope on untreated rows at one level of a group, where slopes may differ by it
    spill_at       = effect of one adopter at a distance on an untreated unit that no other reaches

Where a kernel is learned, its f_it stands beside S'delta_control.

Weights are counts of rows (times the data's sampling weights), never estimated precisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import arviz_stats as az
import numpy as np
import pandas as pd
import xarray as xr

from models.inputs import CrossProducts
from src import tally
from src.average import FIXED, Average, join, own_effects
from src.blocks import over
from src.design import Regression
from src.identify import known_effects, moves, silent_directions, slopes_in
from src.kernel import BLOCKS
from src.spillover import spillover_effects
from src.system import MARK

BEYOND = "not computed: too large for a percentage; is the outcome in logs?"
# the classification by which an estimand is told apart; att_by and contrast bear the name of theirs
FAMILY = {
    "att_event": "path",
    "att_cohort": "cohort",
    "att_gt": "cell",
    "spill_per_pp": "mu",
    "spill_by": "mu",
    "spill_at": "mu",
}

COLUMNS = [
    *["estimand", "group", "level", "scale", "mean", "sd", "median", "low", "high", "prob", "p_positive"],
    *["ess_bulk", "ess_tail", "r_hat", "mcse_mean", "n_units", "n_obs", "truth", "note"],
]


@dataclass(frozen=True)
class Scale:
    """Estimands on one scale.

    Attributes
    ----------
    found : list of Average
    draws : array, shape (chain, draw, estimand)
    truth : array, shape (estimand,)
    said : list of str
        What is to be said of each beside its note.
    follows : bool
        Every estimand is an increasing function of the same one on the scale before: ranks are the same.
    """

    found: list[Average]
    draws: np.ndarray
    truth: np.ndarray
    said: list[str]
    follows: bool = False


Scales = dict[str, Scale]
RANKS: dict[str, Callable] = {
    "ess_bulk": partial(az.ess, method="bulk"),
    "ess_tail": partial(az.ess, method="tail", prob=0.9),
    "r_hat": az.rhat,
}
MEANS: dict[str, Callable] = {"mcse_mean": partial(az.mcse, method="mean")}


def averages(regression: Regression, evidence: CrossProducts, terms: tuple[str, ...]) -> list[Average]:
    """Every estimand of the panel, with what the data cannot identify marked.

    Identified is what a regression on adoption by the estimand's own classification would identify (with the exposures
    that the model has), provided that the data speak of at least half of the rows averaged. Where the model gives
    every cell a coefficient of its own, that coefficient must be identified too.

    Parameters
    ----------
    regression : Regression
    evidence : CrossProducts
        Over the effect and exposure columns of the design, in its order.
    terms : tuple of str
        Blocks that the model uses.

    Returns
    -------
    list of Average
        att, direct and its companions (where exposures are modelled), att_by, contrast, att_event, att_cohort, att_gt,
        spill_per_pp, spill_by, spill_at.
    """
    terms = tuple(name for name in terms if name not in BLOCKS)  # of the untreated alone: no effect of adoption
    design, seen = regression.design, over(regression, tally.first)
    sums = over(regression, partial(tally.own, known=known_effects(design, evidence, seen, terms)))
    found = [*own_effects(regression, sums), *spillover_effects(regression, sums, over(regression, tally.sets))]
    own_cells = [] if "mu" in terms else [terms]
    families = [FAMILY.get(a.estimand, a.group or "mu") for a in found]
    null = {}
    for family in dict.fromkeys(families):
        bases = [(family, *slopes_in(terms)), *own_cells]
        null[family] = np.hstack([silent_directions(design, evidence, seen.mass, basis) for basis in bases])
    marked = [mark(average, null[family]) for average, family in zip(found, families, strict=True)]
    return [mark_structural(a, marked[0], design.columns(terms)) for a in marked]


def mark(average: Average, null: np.ndarray) -> Average:
    """The average, marked where it moves along a direction about which the evidence is silent."""
    if average.identified and moves(average.weights, null):
        return replace(average, identified=False, note="not identified: collinear with units, periods or covariates")
    return average


def mark_structural(average: Average, overall: Average, used: np.ndarray) -> Average:
    """The average, with a note where the model makes it equal to the overall effect, or a contrast zero.

    Parameters
    ----------
    average, overall : Average
    used : array of int
        Columns that the model uses.
    """
    is_part = average.estimand.startswith("att_") and average.n_obs != overall.n_obs
    fixed = overall.weights[used] if is_part else 0.0
    of_own = is_part or average.estimand == "contrast"
    if average.identified and of_own and np.allclose(average.weights[used], fixed):
        return replace(average, note=join(f"{FIXED}: one effect for all", average.note))
    return average


def draw_estimands(theta: xr.DataArray, labels: list[str], found: list[Average]) -> np.ndarray:
    """Draws of every estimand on the outcome scale, shape (chain, draw, estimand); NaN where not identified.

    Parameters
    ----------
    theta : DataArray, dims (chain, draw, column)
        In units of the outcome.
    labels : list of str
        Of all columns of the design; those missing in theta have coefficient zero.
    found : list of Average
    """
    position = pd.Index(labels).get_indexer(pd.Index(theta["column"].to_numpy()))
    weights = np.array([average.weights[position] for average in found])
    draws = theta.transpose("chain", "draw", "column").to_numpy() @ weights.T
    draws[..., [not average.identified for average in found]] = np.nan
    return draws


def percent(effect: np.ndarray) -> np.ndarray:
    """Proportional effect of an effect in log points, 100 (exp(effect) - 1); inf beyond the range of numbers."""
    with np.errstate(over="ignore"):
        return 100 * np.expm1(effect)


def log_ratio(effect: np.ndarray) -> np.ndarray:
    """The inverse of `percent`, of an effect above -100."""
    return np.log1p(np.maximum(effect / 100, -1 + 1e-12))


def dataset(scale: Scale) -> xr.Dataset:
    """The draws as named variables, one for each estimand and group, dims chain and draw first."""
    draws, found = scale.draws, scale.found
    dims = {
        "lead": "lead_time",
        "att_event": "event_time",
        "att_cohort": "cohort",
        "att_gt": "cell",
        "spill_per_pp": "arm",
        "outcome_pair": "outcome_pair",
    }
    variables: dict[str, xr.DataArray] = {}
    keys = [(average.estimand, average.group) for average in found]
    for estimand, group in dict.fromkeys(keys):
        mine = [k for k, key in enumerate(keys) if key == (estimand, group)]
        name = f"{estimand}_{group}" if group else estimand
        levels = [found[k].level for k in mine]
        if levels == [""]:
            variables[name] = xr.DataArray(draws[..., mine[0]], dims=("chain", "draw"))
            continue
        kind = estimand.rpartition(MARK)[2].replace("natural_direct", "att").replace("natural_indirect", "att")
        if kind == "effect_correlation":
            kind = "outcome_pair"
        dim = dims.get(kind, f"{group}_contrast" if kind.endswith("contrast") else group)
        coordinate = [int(level) for level in levels] if dim in ("event_time", "lead_time", "cohort") else levels
        variables[name] = xr.DataArray(draws[..., mine], dims=("chain", "draw", dim), coords={dim: coordinate})
    counts = {"chain": np.arange(draws.shape[0]), "draw": np.arange(draws.shape[1])}
    return xr.Dataset(variables).assign_coords(counts)


def draws_of(kept: xr.Dataset, estimand: str, group: str, level: str) -> np.ndarray:
    """Draws of one estimand from `dataset`, shape (chain, draw)."""
    values = kept[f"{estimand}_{group}" if group else estimand].transpose("chain", "draw", ...)
    if values.ndim > 2:
        levels = [str(one) for one in values[values.dims[-1]].to_numpy()]
        values = values[..., levels.index(level)]
    return values.to_numpy()


def linear_scales(draws: np.ndarray, found: list[Average], is_log: bool) -> Scales:
    """Draws and truths of estimands that are averages of an outcome, by scale: as modelled, and in percent of a log."""
    truth, nothing = np.array([average.truth for average in found]), [""] * len(found)
    of_log = {"percent": Scale(found, percent(draws), percent(truth), nothing, True)} if is_log else {}
    return {"outcome": Scale(found, draws, truth, nothing)} | of_log


def table(scales: Scales, prob: float, converged: bool = True) -> pd.DataFrame:
    """Summary of every estimand and scale in the columns of the contract, equal-tailed intervals of mass `prob`.

    Without `converged` the columns on convergence are empty.
    """
    parts, ranks = [], None
    for scale, on_scale in scales.items():
        found, values = on_scale.found, on_scale.draws
        beyond = np.isinf(values).any(axis=(0, 1))
        seen = np.where(beyond, np.nan, values)
        if not on_scale.follows:
            ranks = convergence(seen, RANKS) if converged else {}
        told_of = {name: np.where(beyond, np.nan, column) for name, column in (ranks or {}).items()}
        told_of |= convergence(seen, MEANS) if converged else {}
        told = zip(found, on_scale.said, beyond, strict=True)
        notes = [join(a.note, more, BEYOND if far else "") for a, more, far in told]
        part = pd.DataFrame(
            {
                "estimand": [average.estimand for average in found],
                "group": [average.group or None for average in found],
                "level": [average.level or None for average in found],
                "scale": scale,
                **summary(seen, prob),
                **told_of,
                "n_units": [average.n_units for average in found],
                "n_obs": [average.n_obs for average in found],
                "truth": on_scale.truth,
                "note": [note or None for note in notes],
            }
        )
        parts.append(part)
    return pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)


def summary(values: np.ndarray, prob: float) -> dict[str, np.ndarray]:
    """Moments and interval of draws of shape (chain, draw, estimand); NaN stays NaN."""
    tail = (1 - prob) / 2
    known = np.isfinite(values).all(axis=(0, 1))
    flat = values.reshape(-1, values.shape[-1])
    low, median, high = np.quantile(flat[:, known], [tail, 0.5, 1 - tail], axis=0)
    of_known = {
        "mean": flat[:, known].mean(axis=0),
        "sd": flat[:, known].std(axis=0, ddof=1),
        "median": median,
        "low": low,
        "high": high,
        "p_positive": (flat[:, known] > 0).mean(axis=0),
    }
    return {name: filled(value, known) for name, value in of_known.items()} | {"prob": np.full(values.shape[-1], prob)}


def convergence(values: np.ndarray, what: dict[str, Callable]) -> dict[str, np.ndarray]:
    """Convergence of draws of shape (chain, draw, estimand).

    What never varies (a contrast under one effect for all) has none to speak of, nor has what is NaN.
    """
    moving = np.isfinite(values).all(axis=(0, 1)) & (np.ptp(values, axis=(0, 1)) > 0)
    data = xr.Dataset({"x": (("chain", "draw", "estimand"), values[..., moving])})
    return {name: filled(of(data)["x"].to_numpy(), moving) for name, of in what.items()}


def filled(value: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Values in their places, NaN elsewhere."""
    found = np.full(len(where), np.nan)
    found[where] = value
    return found
