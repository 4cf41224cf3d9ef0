"""Counts brought to the evidence that a Gaussian outcome leaves: what is sampled afterwards is shared.

    y_it ~ Poisson(exp(a_i + f_it + z_it)),    z_i ~ Normal(0, omega_i R(rho)),    a_i flat
    f_it = log(offset_it) + lambda_t + x_it'beta + z_it'theta + sum over shock groups of u_{k(i) t}
    omega_i on a grid, with probabilities pi apart for ever- and never-treated units

    Regression ──passes──▶ rho, pi, shocks, spreads, onset ──sites──▶ W, W zeta ──products──▶ evidence

`src.sites` has the approximations of single units. Each pass

1. improves the sites at the present f and its posterior covariance C: without C omega would come out too small,
   because effects of units and shocks take what is disturbance, and effects too high where few events tell them;
2. renews pi by expectation-maximisation, and rho by a parabola through the sum over units of log sum pi exp(bound);
3. solves for all coefficients under Normal priors that do not depend on the model, and renews shocks, spreads and onset
   as `src.nuisance` does for Gaussian outcomes.

Then W_i is multiplied by (nu + p) / (nu + p + 2), p = rows - 1 and nu = 2 / Var_pi(log omega), as with Gaussian scales.
`likelihood=poisson` is omega = 0: the multinomial Poisson, conditional on the total of each unit. Units without any
event say nothing about f. A part of the events that there are is binomial given these, with its log odds in the place
of the logarithm of the mean (`src.sites`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp

from src.design import Regression
from src.errors import Errors, Nuisance
from src.levels import Levels, likely
from src.nuisance import (
    MOST_RHO,
    SETTLED,
    distance,
    onset_beyond,
    posterior,
    starting,
    update_shocks,
    update_spreads,
)
from src.panel import Panel, count
from src.passes import Workspace, at_event_times, shares_told
from src.sites import Counts, Prior, Sites, bound, evidence, improved, level, loosened, roots, spent

OMEGA = np.array([0.0, 0.01, 0.03, 0.08, 0.2, 0.4, 0.8, 1.5, 2.5])  # variances of the disturbance
PASSES, LEAST_PASSES = 40, 4
FIRST_STEPS, STEPS = 12, 2  # of the sites, before the first pass and in every pass
DAMPED = 3  # of the first steps
MASS_STEPS = 5
LOWEST = 5.0  # in the logarithm, omega = 0 stands for a fifth of the next one
MOST_NU = 200.0
FLAT = 100.0  # prior SD of what is not pooled
MOST_MOVED = 1.5  # of f in one pass
SLIDE = 0.05  # distance of the three points of the parabola in rho
MOST_SLIDE = 0.15


@dataclass(frozen=True)
class Counted:
    """What passes leave.

    Attributes
    ----------
    nuisance : Nuisance
    information : sparse array, shape (row, row)
        W.
    moment : array, shape (row,)
        W zeta, less W log(offset).
    levels : Levels
    """

    nuisance: Nuisance
    information: sp.csr_array
    moment: np.ndarray
    levels: Levels


@dataclass(frozen=True)
class Known:
    """What is known of the disturbance where nothing of it is estimated.

    Attributes
    ----------
    nuisance : Nuisance
    share : array, shape (unit, grid point)
        Probability of each omega, of all units of the panel.
    """

    nuisance: Nuisance
    share: np.ndarray


def estimate(
    regression: Regression, errors: Errors, s: float, terms: tuple[str, ...] = (), known: Known | None = None
) -> Counted:
    """Nuisance parameters of the disturbance, and the sites at them.

    Parameters
    ----------
    regression : Regression
        With counts as outcome.
    errors : Errors
    s : float
        Log points: the unit of the coefficients and of the priors that the passes use.
    terms : tuple of str
        Blocks of tau of a model that pools nothing: the sites are then taken at its own estimate, under flat priors.
        None: at an estimate that pools everything.
    known : Known, optional
        At which the sites are then taken: passes move f alone, and the spreads of what is pooled.
    """
    panel = regression.panel
    work = Workspace.of(regression, errors, 1.0, terms)
    layout = work.layout
    counts = Counts.of(panel.outcome, panel.unit, panel.time, panel.whole)
    omega = OMEGA[:1] if errors.scale == "none" else OMEGA
    serial = errors.serial == "ar1" and len(omega) > 1
    now = replace(starting(layout, errors, len(panel.units)), rho=0.3 if serial else 0.0, nu=np.inf)
    if known is not None:
        now, serial = known.nuisance, False
    elif terms:
        now = replace(now, spreads=now.spreads | dict.fromkeys(terms, FLAT))
    ever = work.ever[counts.unit]
    masses = np.full((2, len(omega)), 1 / len(omega))
    offset = panel.log_offset
    f, spread = offset, np.zeros((len(offset), 1))
    sites = Sites.start(counts, counts.padded(f), len(omega))
    sites = improved(sites, counts, Prior.of(counts, now.rho), omega, counts.padded(f), FIRST_STEPS, DAMPED)
    moved, done = np.inf, 0
    while done < PASSES and (moved > SETTLED or done < LEAST_PASSES):
        before, done, there = now, done + 1, f
        padded = counts.padded(f)
        sites, follows = loosened(sites, counts, Prior.of(counts, now.rho), omega, padded, roots(counts, spread))

        def tried(rho: float, sites: Sites, padded=padded, follows=follows) -> tuple[Sites, np.ndarray]:
            prior = Prior.of(counts, rho)
            sites = improved(sites, counts, prior, omega, padded, STEPS)
            return sites, bound(sites, counts, prior, omega, padded) - spent(follows, prior, omega)

        if serial and done > 1:
            now = replace(now, rho=better_rho(now.rho, sites, masses[ever.astype(int)], tried))
        sites, bounds = tried(now.rho, sites)
        if known is None:
            masses, share = better_masses(bounds, masses, ever, errors.scale == "common")
        else:
            share = known.share[counts.unit]
        prior = Prior.of(counts, now.rho)
        information, moment = evidence(sites, counts, prior, omega, padded, share, len(offset))
        moment = moment - information @ offset
        columns = s * work.columns_at(now.onset)
        coefficients = posterior(layout, now, products_of(columns, information, moment))
        felt = columns @ coefficients
        step = felt[:, 0] + offset - f
        step *= min(1.0, MOST_MOVED / max(np.abs(step[counts.row[counts.real]]).max(), 1e-9))
        f, spread = f + step, felt[:, 1:]
        if known is None:
            spreads = now.spreads
            now = renewed(work, coefficients, now, information, moment, felt, s)
            now = replace(now, spreads=spreads) if terms else now
        else:
            now = update_spreads(layout, coefficients, now)
        moved = float(np.abs(step[counts.row[counts.real]]).max()) / 5
        moved = moved if known is not None else max(distance(before, now), moved)
    if known is None:
        now = described(now, omega, masses, errors, s)
    now = replace(now, passes=done, settled=bool(moved <= SETTLED))
    told = np.ones(len(offset))
    if known is None and np.isfinite(now.nu):
        free = (np.bincount(panel.unit) - 1)[panel.unit]
        told = (now.nu + free) / (now.nu + free + 2)
    shocked, own = (
        s * work.columns[:, some] @ coefficients[some, 0]
        for some in (slice(layout.shocked), layout.blocks.get("unit", slice(0)))
    )
    of_units = masses[work.ever.astype(int)] if known is None else known.share.copy()
    of_units[counts.unit] = share
    levels = levels_of(sites, counts, prior, omega, there, of_units, shocked, own, panel.unit)
    if panel.whole is not None and known is None:
        levels = likely(levels, panel, panel.whole, shocked)
    return Counted(now, sp.csr_array(sp.diags_array(told) @ information), told * moment, levels)


def without_events(panel: Panel) -> list[str]:
    """A line on the units of which no event was counted; empty where there are none."""
    silent = np.bincount(panel.unit, panel.outcome) == 0
    if not silent.any():
        return []
    adopters = int((silent & np.isfinite(panel.cohort)).sum())
    return [
        f"{count(int(silent.sum()), 'unit')} without any event ({count(adopters, 'adopter')}): left out of the "
        "likelihood; in numbers of rows and in row averages, and 0 in sums of events"
    ]


def without_part(panel: Panel) -> list[str]:
    """A line on the units with events of which none, or every one, is of the kind of each further count."""
    lines = []
    whole, adopts = np.bincount(panel.unit, panel.outcome), np.isfinite(panel.cohort)
    for name, values in panel.others.items():
        part = np.bincount(panel.unit, values)
        none, every = (whole > 0) & (part == 0), (whole > 0) & (part == whole)
        if none.any() or every.any():
            told = [
                f"{count(int(some.sum()), 'unit')} ({count(int((some & adopts).sum()), 'adopter')})"
                for some in (none, every)
            ]
            lines.append(
                f"{name}: {told[0]} with events have none of it and {told[1]} nothing else: they do not say how its "
                "share moves"
            )
    return lines


def described(now: Nuisance, omega: np.ndarray, masses: np.ndarray, errors: Errors, s: float) -> Nuisance:
    """SD of the disturbance of never- and of ever-treated units, and nu, in the terms of Gaussian errors."""
    never, ever = np.sqrt(masses @ omega) / s
    if errors.scale != "unit":
        return replace(now, never=float(never), ever=float(ever))
    log = np.log(np.maximum(omega, omega[1] / LOWEST))
    variance = np.mean(masses @ log**2 - (masses @ log) ** 2)
    return replace(now, never=float(never), ever=float(ever), nu=float(2 / max(variance, 2 / MOST_NU)))


def levels_of(
    sites: Sites,
    counts: Counts,
    prior: Prior,
    omega: np.ndarray,
    f: np.ndarray,
    share: np.ndarray,
    shocked: np.ndarray,
    own: np.ndarray,
    unit: np.ndarray,
) -> Levels:
    """Levels of all units of the panel; of f, shape (row,), `shocked` are the shocks and `own` the effects of units.

    The height is taken at the effects that units share: what chance adds to a unit's events before adoption it takes
    from the unit's own effect, and a level that leaves this effect out of the events after it would go with it.
    """
    units = unit.max() + 1
    weight, pull = np.zeros(len(shocked)), np.zeros(units)
    of_slots, pull[counts.unit] = level(sites, counts, prior, omega, counts.padded(f), share[counts.unit])
    weight[counts.row[counts.real]] = of_slots[counts.real]
    pull[counts.unit] -= (of_slots * counts.padded(shocked)).sum(axis=0)
    total = np.zeros(units)
    total[counts.unit] = of_slots.sum(axis=0)
    shared = f - shocked - own
    height = np.log(0.5 / np.bincount(unit, np.exp(shared)))
    some = total > 0
    height[some] = ((pull - np.bincount(unit, weight * shared)) / np.where(some, total, 1.0))[some]
    return Levels(weight, pull, total, share, omega, height)


def renewed(
    work: Workspace,
    coefficients: np.ndarray,
    now: Nuisance,
    information: sp.csr_array,
    moment: np.ndarray,
    felt: np.ndarray,
    s: float,
) -> Nuisance:
    """Onset, shocks and spreads after a pass."""
    early = s * (work.early @ coefficients)
    own, told = shares_told(work.panel, early, felt, lambda x: information @ x)
    cross = at_event_times(work.panel) @ (early[:, 0] * moment) - told
    now = replace(now, onset=onset_beyond(now.onset, own, cross))
    return update_spreads(work.layout, coefficients, update_shocks(work.layout, coefficients, now))


def better_rho(rho: float, sites: Sites, masses: np.ndarray, tried) -> float:
    """Maximum of the parabola through the likelihood at three values of rho.

    Parameters
    ----------
    rho : float
    sites : Sites
    masses : array, shape (unit, grid point)
    tried : callable
        Sites and bounds at another rho.
    """
    points = np.clip(rho + np.array([-SLIDE, 0.0, SLIDE]), -MOST_RHO, MOST_RHO)
    with np.errstate(divide="ignore"):
        values = [float(logsumexp(np.log(masses) + tried(float(x), sites)[1], axis=1).sum()) for x in points]
    left, middle, right = values
    bend, slope = (left - 2 * middle + right) / SLIDE**2, (right - left) / (2 * SLIDE)
    step = -slope / bend if bend < 0 else np.sign(slope) * MOST_SLIDE
    return float(np.clip(rho + np.clip(step, -MOST_SLIDE, MOST_SLIDE), -MOST_RHO, MOST_RHO))


def better_masses(
    bounds: np.ndarray, masses: np.ndarray, ever: np.ndarray, common: bool
) -> tuple[np.ndarray, np.ndarray]:
    """pi, shape (2, grid point), of never-, then of ever-treated units, and each unit's, shape (unit, grid point).

    pi after some steps of expectation-maximisation; where all units have one omega, its posterior.
    """
    if common:
        together = shares(bounds.sum(axis=0, keepdims=True), np.ones((1, bounds.shape[1])))
        return np.repeat(together, 2, axis=0), np.repeat(together, len(bounds), axis=0)
    found = masses.copy()
    for treated in (0, 1):
        mine = bounds[ever == treated]
        if len(mine):
            for _ in range(MASS_STEPS):
                total = shares(mine, found[treated]).sum(axis=0)
                found[treated] = (total + 1 / len(total)) / (len(mine) + 1)
    return found, shares(bounds, found[ever.astype(int)])


def shares(bounds: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Posterior probability of each omega, shape (unit, grid point)."""
    with np.errstate(divide="ignore"):
        log = bounds + np.log(masses)
    return np.exp(log - logsumexp(log, axis=1, keepdims=True))


def products_of(columns: sp.csr_array, information: sp.csr_array, moment: np.ndarray) -> sp.csr_array:
    """Cross-products of the columns and, last, of the outcome zeta (whose own square nothing needs: 0)."""
    gram = columns.T @ (information @ columns)
    pull = sp.csr_array((columns.T @ moment)[:, None])
    return sp.csr_array(sp.block_array([[gram, pull], [pull.T, None]], format="csr"))
