"""The effect of own adoption on units that have not adopted, draw by draw.

    tau_ie = mu + path_e + m_e (sum of group terms + unit_i + 1{e >= 1} sum of late terms)
             + (trait + 1{e >= 1} trait_late) z_i + cohort_new + cell_new,e

averaged over event times 0 to the horizon. What the data have no coefficient for is drawn from the distribution that
it belongs to, given the draw of its spread. With deviations of K levels about their own mean, another level lies
sd (1 + 1/K)^(1/2) about that mean:

    level of a group without a treated row      Normal(0, sd_<term>^2 (1 + 1/K)), one draw for all units of the level
    unit_i                                      Normal(0, sd_unit^2 (1 + 1/K)), independent between units
    cohort_new, cell_new,e                      the same of cohorts and cells, one draw for all new adopters

A term of few levels has no sampled spread. Its spread is then estimated in a second stage, as in a meta-analysis: with
m and V the posterior moments of its contrasts, its wide prior taken out,

    m | sd ~ Normal(0, V + sd^2 I),    sd ~ half-Student-t(3, priors.sd s)

Assumes that new adopters are exchangeable with those seen, given their levels and traits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.linalg import null_space

from models.inputs import Priors
from src.design import Regression, joint_labels, reached
from src.panel import PanelError, some

GRID = np.geomspace(1e-3, 40, 600)  # of a spread, in units of the scale of its prior
DEGREES = 4  # of freedom of Student-t tails, as in models.effects


@dataclass(frozen=True)
class Draws:
    """Coefficients of a posterior in units of the outcome.

    Attributes
    ----------
    theta : array, shape (draw, column)
        Over all columns of the design; zero for those that the model does not use.
    labels : frozenset of str
        Columns that it uses.
    more : dict of str to array, shape (draw,) or (draw, level)
        Spreads, slopes and deviations by the name of the variable.
    """

    theta: np.ndarray
    labels: frozenset[str]
    more: dict[str, np.ndarray]


@dataclass(frozen=True)
class Terms:
    """What the model says about adopters, beyond the average and its path.

    Attributes
    ----------
    pooled : tuple of str
        Terms by levels of groups.
    units : bool
        Units differ.
    cohorts : bool
        Cohorts, and cells of cohort and period, differ.
    tails : {"normal", "student_t"}
    priors : Priors
    s : float
        Unit of the priors.
    spread : float
        Of single units' effects where these were integrated out; NaN where they were not.
    """

    pooled: tuple[str, ...]
    units: bool
    cohorts: bool
    tails: str
    priors: Priors
    s: float
    spread: float = float("nan")


@dataclass(frozen=True)
class Newcomers:
    """Draws of the effect of own adoption on each candidate, averaged over the periods, at average exposure.

    Attributes
    ----------
    known : array, shape (draw, candidate)
        What follows from the candidate's levels and traits.
    unit : array, shape (draw, candidate)
        Its own deviation.
    cohort : array, shape (draw,)
        Deviation of the new cohort, common to all.
    unseen : dict of str to array of bool, shape (candidate,)
        By term: the candidate's level has no treated row.
    """

    known: np.ndarray
    unit: np.ndarray
    cohort: np.ndarray
    unseen: dict[str, np.ndarray]


def draws_of(posterior: xr.Dataset, regression: Regression, most: int) -> Draws:
    """At most so many draws, evenly spaced over all chains.

    Raises
    ------
    PanelError
        The posterior is of other columns.
    """
    size = posterior.sizes["chain"] * posterior.sizes["draw"]
    chosen = np.unique(np.linspace(0, size - 1, most).round().astype(int))

    def values(name: str) -> np.ndarray:
        of = posterior[name].transpose("chain", "draw", ...).to_numpy()
        return of.reshape(size, *of.shape[2:])[chosen]

    labels = [str(label) for label in posterior["column"].to_numpy()]
    columns = pd.Index(regression.design.all_labels)
    place = columns.get_indexer(pd.Index(labels))
    if (place < 0).any():
        strange = [label for label, k in zip(labels, place, strict=True) if k < 0]
        raise PanelError(
            f"the posterior has columns that these data and settings do not give ({some(strange)}): it was made by "
            "another version; fit again with refit=true"
        )
    theta = np.zeros((len(chosen), len(columns)))
    theta[:, place] = values("theta")
    names = [str(name) for name in posterior.data_vars]
    kept = [name for name in names if name.startswith("sd_") or name.endswith(("_slope", "_deviation"))]
    more = {name: values(name) for name in kept}
    return Draws(theta, frozenset(labels), more)


def newcomers(
    draws: Draws,
    regression: Regression,
    terms: Terms,
    trait: np.ndarray,
    candidates: np.ndarray,
    event_times: np.ndarray,
    rng: np.random.Generator,
) -> Newcomers:
    """Draws of the effect of own adoption on each candidate.

    Parameters
    ----------
    draws : Draws
    regression : Regression
    terms : Terms
    trait : array, shape (unit,)
        z of every unit, standardised among adopters.
    candidates : array of int, shape (candidate,)
        Positions among the units.
    event_times : array of int, shape (period,)
    rng : Generator

    Raises
    ------
    PanelError
        The horizon goes beyond the event times that were seen.
    """
    later = float((event_times >= 1).mean())
    there = reached(event_times, regression.onset)
    ramp, late_ramp = float(there.mean()), float((there * (event_times >= 1)).mean())
    labels = labels_of(regression, candidates)
    known = np.repeat(average_path(draws, regression, event_times)[:, None], len(candidates), axis=1)
    for name, share in (("trait", 1.0), ("trait_late", later)):
        if name in draws.labels:
            known += share * coefficient(draws, regression, name)[:, [0]] * trait[candidates]
    unseen = {}
    for term in terms.pooled:
        share = late_ramp if term.endswith("_late") else ramp
        if share:
            of_levels, new = level_effects(draws, regression, terms, term, labels[term.removesuffix("_late")], rng)
            known += share * of_levels
            unseen[term] = new
    unit = np.zeros_like(known)
    if terms.units:
        sd, levels = spread_of_units(draws, regression, terms, rng)
        unit = ramp * deviations(sd[:, None], levels, terms.tails, known.shape, rng)
    return Newcomers(known, unit, new_cohort(draws, regression, terms, event_times, rng), unseen)


def labels_of(regression: Regression, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """Label of each candidate in every group and pair of groups, shape (candidate,)."""
    panel = regression.panel
    found = {name: np.array(of.levels)[of.code[candidates]] for name, of in panel.groups.items()}
    for name in regression.design.interactions:
        a, b = name.split(":")
        found[name] = joint_labels(found[a], found[b])
    return found


def cells_of_candidates(regression: Regression, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Combination of the levels of all groups of each candidate, and whether nobody in it was ever treated."""
    if not regression.panel.groups:
        return np.full(len(candidates), "all"), np.zeros(len(candidates), dtype=bool)
    groups = [np.array(of.levels)[of.code[candidates]] for of in regression.panel.groups.values()]
    cell = groups[0].astype(str)
    for other in groups[1:]:
        cell = joint_labels(cell, other)
    return cell, ~np.isin(cell, np.array(regression.frame.levels["group_cell"], dtype=str))


def coefficient(draws: Draws, regression: Regression, name: str) -> np.ndarray:
    """Draws of the coefficients of a block, shape (draw, level)."""
    return draws.theta[:, regression.design.blocks[name].columns]


def average_path(draws: Draws, regression: Regression, event_times: np.ndarray) -> np.ndarray:
    """mu plus the mean of the path over the event times, shape (draw,).

    Raises
    ------
    PanelError
    """
    levels = np.array(regression.design.blocks["path"].levels)
    if event_times[-1] > levels[-1]:
        raise PanelError(
            f"horizon: nobody is seen {event_times[-1]} periods after adoption, {levels[-1]} at the latest; give a "
            "smaller horizon"
        )
    at = np.maximum(np.searchsorted(levels, event_times, side="right") - 1, 0)  # the last one seen by then
    return coefficient(draws, regression, "mu")[:, 0] + coefficient(draws, regression, "path")[:, at].mean(axis=1)


def level_effects(
    draws: Draws, regression: Regression, terms: Terms, term: str, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a term for each label, shape (draw, label), and which of the labels have no treated row."""
    block = regression.design.blocks[term]
    known = {str(level): k for k, level in enumerate(block.levels)}
    names, code = np.unique(labels, return_inverse=True)
    new = np.array([name not in known for name in names])
    found = np.zeros((len(draws.theta), len(names)))
    found[:, ~new] = coefficient(draws, regression, term)[:, [known[name] for name in names[~new]]]
    if new.any():
        sd = spread(draws, regression, terms, term, rng)
        found[:, new] = deviations(sd[:, None], block.size, terms.tails, (len(found), int(new.sum())), rng)
        found[:, new] += predicted(draws, regression, term, names[new])
    return found[:, code], new[code]


def predicted(draws: Draws, regression: Regression, term: str, names: np.ndarray) -> np.ndarray:
    """What a group-level predictor says of levels, shape (draw, name); 0 without one."""
    block, panel = regression.design.blocks[term], regression.panel
    slope = draws.more.get(f"{term}_slope")
    if slope is None or block.predictor is None:
        return np.zeros((len(draws.theta), len(names)))
    of = dict(zip(panel.groups[term].levels, panel.predictors[term], strict=True))
    centre = np.mean([of[str(level)] for level in block.levels])
    return slope[:, None] * (np.array([of[str(name)] for name in names]) - centre)


def spread(draws: Draws, regression: Regression, terms: Terms, term: str, rng: np.random.Generator) -> np.ndarray:
    """Draws of the spread of a term's levels, shape (draw,)."""
    sampled = draws.more.get(f"sd_{term}")
    if sampled is not None:
        return sampled
    block, priors, s = regression.design.blocks[term], terms.priors, terms.s
    deviation = draws.more.get(f"{term}_deviation")
    if deviation is None and block.size > 1:
        deviation = coefficient(draws, regression, term)
    return second_stage(deviation, priors.fixed * s, priors.sd * s, len(draws.theta), rng)


def second_stage(
    deviation: np.ndarray | None, wide: float, scale: float, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws of the spread of levels from the posterior of their deviations under a wide prior of known SD.

    Parameters
    ----------
    deviation : array, shape (draw, level), optional
        Of zero sum; None where there is one level: then the prior speaks alone.
    wide : float
        SD of that prior, whose precision is taken out.
    scale : float
        Of the half-Student-t(3) prior of the spread.
    size : int
        Number of draws.
    rng : Generator

    Returns
    -------
    array, shape (size,)
    """
    grid = scale * GRID
    log_density = stats.t.logpdf(grid / scale, 3) + np.log(grid)
    if deviation is not None and deviation.shape[1] > 1:
        contrasts = deviation @ null_space(np.ones((1, deviation.shape[1])))
        precision, turn = np.linalg.eigh(np.linalg.inv(np.atleast_2d(np.cov(contrasts.T)) + 1e-12 * wide**2))
        told = np.maximum(precision - wide**-2, 1e-6 * precision)
        mean = precision * (turn.T @ contrasts.mean(axis=0)) / told
        variance = 1 / told[:, None] + grid**2
        log_density = log_density - 0.5 * (np.log(variance) + mean[:, None] ** 2 / variance).sum(axis=0)
    weight = np.exp(log_density - log_density.max())
    return rng.choice(grid, size, p=weight / weight.sum())


def spread_of_units(
    draws: Draws, regression: Regression, terms: Terms, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Draws of the spread of single units' effects, and the number of adopters that it rests on."""
    if np.isfinite(terms.spread):
        return np.full(len(draws.theta), terms.spread), int(regression.adopters.sum())
    return spread(draws, regression, terms, "unit", rng), regression.design.blocks["unit"].size


def deviations(sd: np.ndarray, levels: int, tails: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws of another level's deviation from the mean of `levels` others."""
    if tails == "student_t":
        mean = np.sqrt(DEGREES / (DEGREES - 2) / levels) * rng.standard_normal(shape)
        return sd * (rng.standard_t(DEGREES, shape) + mean)
    return sd * np.sqrt(1 + 1 / levels) * rng.standard_normal(shape)


def new_cohort(
    draws: Draws, regression: Regression, terms: Terms, event_times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws of what sets a new cohort apart, averaged over the periods, shape (draw,)."""
    size = len(draws.theta)
    if not terms.cohorts:
        return np.zeros(size)
    found = np.zeros(size)
    for term, shape in (("cohort", (size, 1)), ("cell", (size, len(event_times)))):
        block = regression.design.blocks[term]
        sd = spread(draws, regression, terms, term, rng)
        found += deviations(sd[:, None], block.size, terms.tails, shape, rng).mean(axis=1)
    return found
