"""A spillover whose law of distance is learned, from the nearest adopter alone to the sum over all of them.

What others' adoption does to an untreated unit i in period t is

    f_it = slope E_it / mean(E) + sum over r of any_r 1{N_it(r) > 0} + number_r N_it(r) / mean(N)

    E_it = (sum over adopters j of k(d_ij)^(1/a))^a,    k(d) = exp(-rho d / cutoff) 1{d <= reach cutoff}

with N(r) adopters within r, so that a -> 0 is the nearest adopter and a = 1 the sum; a, rho and reach are on a small
grid. The steps any_r and number_r over twenty distances r up to the cutoff say what no kernel of the grid does: each
set is absent, Normal at all distances, or Normal at every fourth. A choice of (a, rho, reach) and of both sets is a
*description*:

    p(y | theta) = sum over descriptions h of p(h) integral p(y | theta, f) p(f | h) df

slope ~ Normal(0, priors.exposure), steps ~ Normal(0, priors.ring), descriptions alike. The integrals are closed forms
of the cross-products, so all descriptions cost one pass over the data; NUTS sees the likeliest ones, and a
description and its f are drawn for each draw of theta afterwards. Everything in f is a column of the design and every
estimand stays linear in them.

The kernel speaks of untreated rows. What others' adoption does to adopters counts into the effect of their own.

Source: Butts (2021, *Difference-in-Differences Estimation with Spatial Spillovers*) for the worlds on which it is
measured, in docs/spillovers.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import scipy.sparse as sp
import xarray as xr
from scipy.special import logsumexp

from models.inputs import CrossProducts, Design, Priors
from src.panel import Panel
from src.products import Conditional, eliminate

BLOCKS = ("kernel", "kernel_any", "kernel_number")
BLENDS = (0.0, 0.5, 1.0)  # a
DECAYS = (0.0, 1.0, 2.0, 4.0)  # rho
REACHES = (0.2, 0.4, 0.8)  # of the cutoff
KERNELS = tuple(product(BLENDS, DECAYS, REACHES))
SHAPE = ("kernel_a", "kernel_rho", "kernel_reach")
STEPS = 20  # distances up to the cutoff
COARSE = 4  # every so many of them
ENTRIES = 500_000  # numbers in the matrices of all descriptions: NUTS sees all of them where they are no more
MOST = 64  # else it sees the likeliest ones, so many at most
ENOUGH = 0.999  # of the posterior mass
VAGUE = 2.0  # prior SD of theta in units of s, where descriptions are compared


@dataclass(frozen=True)
class Surface:
    """What adopters within reach amount to on the rows, one column for everything that f may consist of.

    Attributes
    ----------
    name : str
        Of the exposure.
    cutoff : float
        Kilometres.
    columns : sparse array, shape (row, column)
        E of every kernel, then the indicators and the numbers at every distance, in their units; zero where nobody is
        within the cutoff.
    units : array, shape (column,)
        Unit of each column: the mean of E or of the number within the cutoff over untreated rows that are reached; 1
        for indicators.
    """

    name: str
    cutoff: float
    columns: sp.csr_array
    units: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """Kilometres at which the steps are, shape (step,)."""
        return self.cutoff * np.arange(1, STEPS + 1) / STEPS

    @property
    def reached(self) -> np.ndarray:
        """Whether an adopter is within the cutoff, shape (row,)."""
        return np.diff(self.columns.indptr) > 0

    @property
    def nearest(self) -> np.ndarray:
        """Ring of the nearest adopter, shape (row,); -1 where nobody is within the cutoff."""
        within = self.columns[:, len(KERNELS) : len(KERNELS) + STEPS]
        return np.where(self.reached, STEPS - np.diff(within.indptr), -1)

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Labels of the columns of each block."""
        kernels = tuple(f"a={a:g} rho={rho:g} reach={reach:g}" for a, rho, reach in KERNELS)
        rings = tuple(f"{r:.4g} km" for r in self.distances)
        return dict(zip(BLOCKS, (kernels, rings, rings), strict=True))

    def alone(self, distance: np.ndarray) -> np.ndarray:
        """Columns of a unit with one adopter at a distance in kilometres and no other, shape (distance, column)."""
        d = np.asarray(distance, dtype=float)
        ring = ring_of(d, self.cutoff)
        number = (ring[:, None] == np.arange(STEPS)).astype(float)
        sums = {(a, rho, reach): kernel_of(d / self.cutoff, rho, reach) for a, rho, reach in KERNELS}
        return columns_of(d / self.cutoff, number, sums) / self.units


def surface_of(panel: Panel) -> Surface | None:
    """The surface of the exposure whose kernel is learned; None where there is none, or where it reaches nobody.

    Parameters
    ----------
    panel : Panel
    """
    name = learned_exposure(panel)
    if not name:
        return None
    mapping = panel.roster.mappings[name]
    columns = raw_columns(panel, name)
    rows = (np.diff(columns.indptr) > 0) & ~panel.treated
    if not rows.any():
        return None
    means = columns[rows].mean(axis=0)
    number = means[-1]
    units = np.r_[means[: len(KERNELS)], np.ones(STEPS), np.full(STEPS, number)]
    units[units <= 0] = 1.0
    return Surface(name, mapping.cutoff, sp.csr_array(columns @ sp.diags_array(1 / units)), units)


def learned_exposure(panel: Panel) -> str:
    """Name of the exposure whose kernel is learned, empty where there is none."""
    return next((name for name, mapping in panel.roster.mappings.items() if mapping.form == "learned"), "")


def raw_columns(panel: Panel, name: str) -> sp.csr_array:
    """E of every kernel, indicators and numbers at every distance, in their own units, shape (row, column)."""
    roster, mapping, periods = panel.roster, panel.roster.mappings[name], panel.periods
    assert mapping.ties is not None
    ties = mapping.ties.tocoo()
    when = roster.cohort[ties.col] + mapping.lag
    order = np.argsort(when, kind="stable")
    i, d, when = ties.row[order], ties.data[order] / mapping.cutoff, when[order]
    ring = ring_of(ties.data[order], mapping.cutoff)
    units = len(roster.cohort)
    near, number = np.full(units, np.inf), np.zeros((units, STEPS))
    sums = {kernel: np.zeros(units) for kernel in KERNELS if kernel[0] > 0}
    period = np.searchsorted(periods, panel.time)
    pieces, rows, done = [], [], 0
    for t, calendar in enumerate(periods):
        until = int(np.searchsorted(when, calendar, side="right"))
        new = slice(done, until)
        done = until
        np.minimum.at(near, i[new], d[new])
        np.add.at(number, (i[new], ring[new]), 1.0)
        for (a, rho, reach), total in sums.items():
            total += np.bincount(i[new], kernel_of(d[new], rho / a, reach), units)
        here = np.flatnonzero(period == t)
        member = roster.position[panel.unit[here]]
        reached = np.isfinite(near[member])
        here, member = here[reached], member[reached]
        powers = {kernel: total[member] ** kernel[0] for kernel, total in sums.items()}
        pieces.append(sp.csr_array(columns_of(near[member], number[member], powers)))
        rows.append(here)
    stacked = sp.csr_array(sp.vstack(pieces, format="csr"))
    at = np.concatenate(rows)
    back = sp.csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=(len(panel.unit), len(at)))
    return sp.csr_array(back @ stacked)


def kernel_of(d: np.ndarray, rho: float, reach: float) -> np.ndarray:
    """k at a distance in cutoffs."""
    return np.exp(-rho * d) * (d <= reach * (1 + 1e-12))


def ring_of(distance: np.ndarray, cutoff: float) -> np.ndarray:
    """Position of the first of the distances at which steps are that holds a distance in kilometres."""
    return np.clip(np.ceil(distance * STEPS / cutoff * (1 - 1e-12)).astype(int) - 1, 0, STEPS - 1)


def columns_of(near: np.ndarray, number: np.ndarray, blended: dict) -> np.ndarray:
    """Columns of units that somebody reaches, shape (unit, column).

    Parameters
    ----------
    near : array, shape (unit,)
        Distance of the nearest adopter, in cutoffs.
    number : array, shape (unit, step)
        Adopters in each ring.
    blended : dict of (a, rho, reach) to array, shape (unit,)
        E of the kernels with a > 0.
    """
    kernels = [kernel_of(near, rho, reach) if a == 0 else blended[a, rho, reach] for a, rho, reach in KERNELS]
    within = np.cumsum(number, axis=1)
    return np.column_stack([*kernels, within > 0, within])


@dataclass(frozen=True)
class Description:
    """One description of the spillover, with the posterior of its coefficients given theta.

    Attributes
    ----------
    kernel : int
        Position of its kernel's column in the design.
    steps : array of int, shape (step,)
        Positions of its steps' columns in the design.
    of_slope : Conditional
        Of the kernel's slope given theta.
    of_steps : Conditional
        Of the steps given theta and the slopes of all kernels.
    """

    kernel: int
    steps: np.ndarray
    of_slope: Conditional
    of_steps: Conditional


@dataclass(frozen=True)
class Learned:
    """Evidence with the spillover integrated out, and what is needed to draw it afterwards; all in units of s.

    Attributes
    ----------
    evidence : CrossProducts
        One record a description.
    descriptions : tuple of Description
    covered : float
        Share of the posterior mass of all descriptions that those kept carry.
    """

    evidence: CrossProducts
    descriptions: tuple[Description, ...]
    covered: float


def learn(evidence: CrossProducts, design: Design, priors: Priors) -> Learned:
    """Integrate the spillover out under every description, and keep the likeliest descriptions.

    Parameters
    ----------
    evidence : CrossProducts
        Over the columns of the design but those integrated out before, in its order, in units of s.
    design : Design
    priors : Priors

    Notes
    -----
    Where sigma is not known the integrals are taken at sigma = s.
    """
    names = tuple(
        name for name in design.blocks if name not in BLOCKS and design.blocks[name].start < len(evidence.moment)
    )
    others, kernels = design.columns(names), design.columns(("kernel",))
    sets = [sets_of_steps(evidence, design.columns((block,))) for block in BLOCKS[1:]]
    found: list[tuple[float, float, CrossProducts, Description]] = []
    for steps in (np.concatenate(pair) for pair in product(*sets)):
        rest, of_steps, gain = integrated(evidence, np.r_[others, kernels], steps, priors.ring)
        for position, kernel in enumerate(kernels, start=len(others)):
            if evidence.gram[kernel, kernel] <= 0:
                continue
            slope = np.array([position])
            known, of_slope, more = integrated(rest, np.arange(len(others)), slope, priors.exposure)
            description = Description(int(kernel), steps, of_slope, of_steps)
            found.append((gain + more, marginal(known), known, description))
    weights = np.array([weight for weight, *_ in found])
    mass = weights + np.array([fit for _, fit, *_ in found])
    mass = np.exp(mass - logsumexp(mass))
    kept = np.argsort(-mass, kind="stable")
    if len(kept) * len(others) ** 2 > ENTRIES:
        kept = kept[: min(MOST, int(np.searchsorted(np.cumsum(mass[kept]), ENOUGH)) + 1)]
    records = [found[k][2] for k in kept]
    chosen = replace(
        records[0],
        gram=np.array([record.gram for record in records]),
        moment=np.array([record.moment for record in records]),
        square=np.array([record.square for record in records]),
        log_weight=weights[kept],
    )
    return Learned(chosen, tuple(found[k][3] for k in kept), float(mass[kept].sum()))


def integrated(
    evidence: CrossProducts, keep: np.ndarray, out: np.ndarray, sd: float
) -> tuple[CrossProducts, Conditional, float]:
    """`eliminate` under independent Normal(0, sd^2), with the part of the log integral that is no function of the data:
    -log|A_oo + 1/sd^2| / 2 - log sd for each of the columns `out`.
    """
    rest, conditional = eliminate(evidence, keep, out, np.eye(len(out)) / sd**2)
    return rest, conditional, float(np.log(np.diag(conditional.factor)).sum() - len(out) * np.log(sd))


def sets_of_steps(evidence: CrossProducts, columns: np.ndarray) -> list[np.ndarray]:
    """Columns of the steps of one kind that a description may have: none, all, every fourth."""
    seen = evidence.gram[columns, columns] > 0
    coarse = np.arange(1, STEPS + 1) % COARSE == 0
    return [columns[:0], columns[seen], columns[seen & coarse]]


def marginal(evidence: CrossProducts) -> float:
    """log of the integral over theta under Normal(0, VAGUE^2), but for what all descriptions share."""
    gram = evidence.gram + np.eye(len(evidence.moment)) / VAGUE**2
    lower = np.linalg.cholesky(gram)
    half = np.linalg.solve(lower, evidence.moment)
    return float(0.5 * (half @ half - evidence.square) - np.log(np.diag(lower)).sum())


def completed(posterior: xr.Dataset, learned: Learned, design: Design, seed: int) -> xr.Dataset:
    """The posterior with the spillover drawn: theta with its columns, and kernel_a, kernel_rho and kernel_reach.

    Parameters
    ----------
    posterior : Dataset
        With theta, and sigma where it is not known, in units of s.
    learned : Learned
    design : Design
    seed : int
    """
    theta = posterior["theta"].transpose("chain", "draw", "column")
    sigma = posterior["sigma"].to_numpy() if "sigma" in posterior else np.ones(theta.shape[:2])
    drawn, theta = with_spillover(theta, sigma, learned, design, seed)
    kernels = np.array([KERNELS[d.kernel - design.blocks["kernel"].start] for d in learned.descriptions])[drawn]
    kernels = kernels.reshape(*sigma.shape, 3)
    found = posterior.drop_dims("column").assign(theta=theta)
    return found.assign({name: (("chain", "draw"), kernels[..., k]) for k, name in enumerate(SHAPE)})


def with_spillover(
    theta: xr.DataArray, sigma: np.ndarray, learned: Learned, design: Design, seed: int
) -> tuple[np.ndarray, xr.DataArray]:
    """Draws of theta beside draws of the coefficients of f given them, all in units of s.

    Parameters
    ----------
    theta : DataArray, dims (chain, draw, column)
    sigma : array, shape (chain, draw)
    learned : Learned
    design : Design
    seed : int

    Returns
    -------
    drawn : array of int, shape (chain * draw,)
        Description of each draw.
    theta : DataArray, dims (chain, draw, column)
        The columns of theta, then those of the blocks of f; zero where the description drawn does not have them.
    """
    evidence = learned.evidence
    labels = design.all_labels
    here = theta.reindex(column=labels[: evidence.moment.shape[-1]], fill_value=0.0).transpose(
        "chain", "draw", "column"
    )
    draws, spread = here.to_numpy().reshape(-1, here.sizes["column"]), sigma.ravel()
    rng = np.random.default_rng([seed, 11])
    assert evidence.log_weight is not None
    bent = np.column_stack([np.einsum("ni,ni->n", draws @ gram, draws) for gram in evidence.gram])
    quadratic = evidence.square - 2 * draws @ evidence.moment.T + bent
    fit = evidence.log_weight - quadratic / (2 * spread[:, None] ** 2)
    drawn = np.argmax(fit + rng.gumbel(size=fit.shape), axis=1)
    found = np.zeros((len(draws), design.size))
    kernels = design.columns(("kernel",))
    for h, description in enumerate(learned.descriptions):
        mine = np.flatnonzero(drawn == h)
        slope = description.of_slope.draw(draws[mine], spread[mine], rng)[:, 0]
        given = np.zeros((len(mine), draws.shape[1] + len(kernels)))
        given[:, : draws.shape[1]] = draws[mine]
        given[:, draws.shape[1] + np.flatnonzero(kernels == description.kernel)[0]] = slope
        found[mine, description.kernel] = slope
        found[np.ix_(mine, description.steps)] = description.of_steps.draw(given, spread[mine], rng)
    spill = design.columns(BLOCKS)
    shape = (theta.sizes["chain"], theta.sizes["draw"], len(spill))
    more = xr.DataArray(
        found[:, spill].reshape(shape),
        dims=("chain", "draw", "column"),
        coords={"chain": theta["chain"], "draw": theta["draw"], "column": [labels[k] for k in spill]},
    )
    return drawn, xr.concat([theta, more], dim="column")
