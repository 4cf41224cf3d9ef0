"""Gaussian approximations to what the counts of a unit say, unit by unit, whatever the model of effects.

    y_it ~ Poisson(exp(f_it + u_it)),    u_it = a_i + z_it,    a_i flat,    z_i ~ Normal(0, V),  V = omega R
    R[t, s] = rho^|t - s|, exact across gaps; omega on a grid, because units are disturbed unequally

With a_i integrated out u_i has precision Q = V^-1 - V^-1 11'V^-1 / (1'V^-1 1). Given f and omega the best Gaussian
approximation Normal(u, S) to the posterior of u_i solves

    mu = exp(f + u + diag(S) / 2),    S = (Q + diag mu)^-1,    y - mu - Q u = 0

and its evidence lower bound is

    y'(f + u) - 1'mu - u'Q u / 2 - tr(Q S) / 2 + log|S| / 2 - (log|V| + log 1'V^-1 1) / 2

The bound's slope in f is y - mu, its curvature -W with W = diag mu - diag(mu) S diag(mu), which annihilates constants:
with W zeta = W(f + u) + (y - mu) - diag(mu) S (y - mu) it is locally -(f - zeta)'W(f - zeta) / 2, the evidence of a
Gaussian outcome zeta. omega = 0 is the Poisson with a unit effect, conditional on the unit's total:
mu = total * softmax(f), W = diag mu - mu mu' / total.

f is not known, but Normal(f, C) by what all counts and the prior say. As f moves by c, u moves by -S diag(mu) c, so
that the best approximation to f and u together has

    mu = exp(f + u + (diag(S) + diag(A C A')) / 2),    A = 1 - S diag(mu)

and bound and evidence are those at this mu, the bound less tr(Q S diag(mu) C diag(mu) S) / 2, what is spent. Without
C the evidence would be a parabola at the mode of a density that falls off more steeply above it than below, and effects
would come out too high wherever few events tell them: log y of a count y, in the place of log y - 1 / (2y).

A part of n events, y ~ Binomial(n, s(f + u)) with s the logistic function, s_1, s_2 and s_3 its derivatives, has on
average over Normal(f + u, diag(S) + diag(A C A'))

    m = n E[s],    w = n E[s_1],    I = 1'w

Under a level that is flat in the log odds effects would come out too large, by a factor of about 1 + 2 / N for a unit
with N events. Given the total of the part no level matters; and none does where it is flat in the number 1'm that the
unit is expected to have of the part (to the accuracy of a saddlepoint), so that log I is added to the likelihood, and
in the places of the mean and of diag mu stand

    mean = m - n E[s_2] / I,    weight = w - n E[s_3] / I

What log I bends by beyond that, an outer product, matters to steps alone: it moves what is known of a unit's level, and
information about f by less than 4%. log I is taken at the means of its terms, so that the bound is one but for that.
Units whose events are all of the part, or none, say nothing of f. Levels of shares are another matter (`src.levels`).

R^-1 is tridiagonal, so a pass costs a number of operations in proportion to the rows. Units lie along an axis of their
own and are padded to equal length: arrays have shape (slot, unit, grid point). A padding slot has mu = 0, R = 1 and no
part in the constant.

Source: Opper & Archambeau (2009) for the Gaussian variational approximation; a level that is flat in its expected
number is the saddlepoint approximation of the conditional likelihood (Davison 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from src.chance import normal_quadrature
from src.products import ar1_bands

MOST_LOG = 30.0  # of a mean: a step that overshoots must not overflow
STEP = 2.0  # largest change of u in one pass
DAMPING = 0.5
LITTLE = 1e-3  # of a variance of f, in all rows or times the events there: as good as none
MOST_SLACK = 4.0  # a variance: what no event tells is as wide as its prior, and flat under a flat one
NODES = 7  # of an average over log odds: weights are exact to .2% where their variance is 2, to 2% where it is 4
LEAST_LEFT = 0.5  # of w, where the prior of the level takes from it: for one event of a kind that is rare


@dataclass(frozen=True)
class Counts:
    """Counts of the units that have any, padded to equal length.

    Attributes
    ----------
    row : array of int, shape (slot, unit)
        Row of the panel; -1 in padding.
    unit : array of int, shape (unit,)
        Position of each unit in the panel.
    count : array, shape (slot, unit)
        0 in padding.
    time : array of int, shape (slot, unit)
    whole : array, shape (slot, unit), optional
        Number of events of which the count is a part.
    """

    row: np.ndarray
    unit: np.ndarray
    count: np.ndarray
    time: np.ndarray
    whole: np.ndarray | None = None

    @classmethod
    def of(cls, count: np.ndarray, unit: np.ndarray, time: np.ndarray, whole: np.ndarray | None = None) -> Counts:
        """Of counts on rows sorted by unit, then time, shape (row,); units that say nothing are left out."""
        rows, events = np.bincount(unit), np.bincount(unit, count)
        some = np.flatnonzero(events > 0 if whole is None else (events > 0) & (events < np.bincount(unit, whole)))
        first = np.r_[0, np.cumsum(rows)[:-1]][some]
        slot = np.arange(rows[some].max())[:, None]
        row = np.where(slot < rows[some], first + slot, -1)
        real = row >= 0
        mine, when = np.where(real, count[row], 0.0), np.where(real, time[row], 0)
        return cls(row, some, mine, when, None if whole is None else np.where(real, whole[row], 0.0))

    @property
    def real(self) -> np.ndarray:
        """Where there is a row, shape (slot, unit)."""
        return self.row >= 0

    def padded(self, values: np.ndarray) -> np.ndarray:
        """Values on the rows, shape (row, ...), with 0 in padding, shape (slot, unit, ...)."""
        found = values[self.row]
        found[~self.real] = 0.0
        return found


@dataclass(frozen=True)
class Prior:
    """R^-1 of every unit at one rho: tridiagonal.

    Attributes
    ----------
    diagonal, beside : array, shape (slot, unit)
        `beside` ties a slot to the next one.
    log_det : array, shape (unit,)
        log|R|.
    ones : array, shape (slot, unit)
        R^-1 1, 0 in padding.
    total : array, shape (unit,)
        1'R^-1 1.
    """

    diagonal: np.ndarray
    beside: np.ndarray
    log_det: np.ndarray
    ones: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, counts: Counts, rho: float) -> Prior:
        """The prior of the units of `counts`."""
        real = counts.real
        unit = np.broadcast_to(np.arange(real.shape[1]), real.shape)
        # in the order of units, then slots, as the bands want it
        parts = ar1_bands(unit.T[real.T], counts.time.T[real.T], rho)
        diagonal, beside, innovation = np.ones(real.shape), np.zeros(real.shape), np.ones(real.shape)
        for array, part in zip((diagonal, beside, innovation), parts, strict=True):
            array.T[real.T] = part
        before = np.vstack([np.zeros((1, real.shape[1])), beside[:-1]])
        ones = real * (diagonal + beside + before)
        return cls(diagonal, beside, np.log(innovation).sum(axis=0), ones, ones.sum(axis=0))

    def of_units(self, some: np.ndarray) -> Prior:
        """Of some of the units."""
        return Prior(
            self.diagonal[:, some], self.beside[:, some], self.log_det[some], self.ones[:, some], self.total[some]
        )

    def times(self, x: np.ndarray) -> np.ndarray:
        """R^-1 x, shape (slot, unit, grid point)."""
        found = self.diagonal[..., None] * x
        found[:-1] += self.beside[:-1, :, None] * x[1:]
        found[1:] += self.beside[:-1, :, None] * x[:-1]
        return found


@dataclass(frozen=True)
class Expected:
    """The likelihood on average over Normal(f + u, diag(S) + slack).

    Attributes
    ----------
    mean, weight : array, shape (slot, unit, grid point)
        0 in padding; mu both, but for a part.
    common : array, shape (slot, unit, grid point), optional
        n E[s_2] / I of a part: log I bends by its outer product, too.
    """

    mean: np.ndarray
    weight: np.ndarray
    common: np.ndarray | None = None


@dataclass(frozen=True)
class Sites:
    """Approximations of every unit at every omega, shape (slot, unit, grid point).

    Attributes
    ----------
    u, variance : array
        Mean and diag(S).
    slack : array
        diag(A C A'), what uncertainty about f adds.
    """

    u: np.ndarray
    variance: np.ndarray
    slack: np.ndarray

    @classmethod
    def start(cls, counts: Counts, f: np.ndarray, points: int) -> Sites:
        """Every unit at its average; f has shape (slot, unit)."""
        events = counts.count.sum(axis=0)
        if counts.whole is None:
            level = np.log(events / (np.exp(np.minimum(f, MOST_LOG)) * counts.real).sum(axis=0))
        else:
            whole = counts.whole.sum(axis=0)
            level = np.log(events / (whole - events)) - (counts.whole * f).sum(axis=0) / whole
        u = np.repeat((level * counts.real)[..., None], points, axis=2)
        return cls(u, np.zeros_like(u), np.zeros_like(u))

    def expected(self, counts: Counts, f: np.ndarray) -> Expected:
        """The likelihood on average."""
        centre, variance = f[..., None] + self.u, self.variance + self.slack
        if counts.whole is None:
            mu = np.exp(np.minimum(centre + variance / 2, MOST_LOG)) * counts.real[..., None]
            return Expected(mu, mu)
        mean, weight, second, third = of_events(counts.whole, centre, variance, derivatives)
        information = weight.sum(axis=0)
        common, left = second / information, np.maximum(weight - third / information, LEAST_LEFT * weight)
        return Expected(mean - common, left, common)

    def loss(self, counts: Counts, f: np.ndarray) -> np.ndarray:
        """What the logarithm of the likelihood is less than y'(f + u) on average, shape (unit, grid point)."""
        if counts.whole is None:
            return self.expected(counts, f).mean.sum(axis=0)
        centre, variance = f[..., None] + self.u, self.variance + self.slack
        lost, weight = of_events(counts.whole, centre, variance, losses)
        return lost.sum(axis=0) - np.log(weight.sum(axis=0))


def derivatives(odds: np.ndarray) -> Iterator[np.ndarray]:
    """s, s_1, s_2 and s_3."""
    rest = np.exp(-np.abs(odds))
    over = 1 / (1 + rest)
    share, slope = np.where(odds > 0, over, rest * over), rest * over * over
    yield from (share, slope, slope * (1 - 2 * share), slope * (1 - 6 * slope))


def losses(odds: np.ndarray) -> Iterator[np.ndarray]:
    """log(1 + exp(odds)) and s_1."""
    rest = np.exp(-np.abs(odds))
    yield from (np.log1p(rest) + np.maximum(odds, 0.0), rest / (1 + rest) ** 2)


def of_events(
    whole: np.ndarray,
    centre: np.ndarray,
    variance: np.ndarray,
    functions: Callable[[np.ndarray], Iterator[np.ndarray]],
) -> list[np.ndarray]:
    """Sums over `whole` events, shape (slot, unit), of functions of log odds on average over Normal(centre, variance).

    Returns
    -------
    list of array, shape (slot, unit, grid point)
    """
    some = whole > 0
    nodes, weights = normal_quadrature(NODES)
    odds = centre[some] + nodes[:, None, None] * np.sqrt(variance[some])
    found = []
    for values in functions(odds):
        found.append(np.zeros_like(centre))
        found[-1][some] = whole[some][:, None] * np.tensordot(weights, values, axes=1)
    return found


@dataclass(frozen=True)
class Solved:
    """S = (Q + diag mu)^-1 in factors: the inverse of a tridiagonal matrix plus a rank-one term; mu the weight.

    Attributes
    ----------
    ratio : array, shape (slot, unit, grid point)
        l of B = L D L', B = R^-1 / omega + diag mu.
    pivot : array, shape (slot, unit, grid point)
        D.
    spike : array, shape (slot, unit, grid point)
        B^-1 R^-1 1.
    room : array, shape (unit, grid point)
        omega 1'R^-1 1 - (R^-1 1)'spike, above 0.
    """

    ratio: np.ndarray
    pivot: np.ndarray
    spike: np.ndarray
    room: np.ndarray

    @classmethod
    def of(cls, prior: Prior, omega: np.ndarray, mu: np.ndarray) -> Solved:
        """The factors at given means; at omega = 0 the limit, S = 11' / 1'mu."""
        wide = np.where(omega > 0, omega, 1.0)
        diagonal = prior.diagonal[..., None] / wide + mu
        beside = prior.beside[..., None] / wide
        pivot, ratio = np.empty_like(mu), np.zeros_like(mu)
        pivot[0] = diagonal[0]
        for j in range(len(mu) - 1):
            ratio[j] = beside[j] / pivot[j]
            pivot[j + 1] = diagonal[j + 1] - beside[j] * ratio[j]
        bare = cls(ratio, pivot, np.zeros_like(mu), np.ones(mu.shape[1:]))
        ones = np.broadcast_to(prior.ones[..., None], mu.shape)
        spike = bare.times(ones)
        room = wide * prior.total[:, None] - dot(ones, spike)
        none = omega == 0
        ratio[..., none], pivot[..., none] = 0.0, np.inf
        spike[..., none], room[:, none] = (prior.ones != 0)[..., None], mu.sum(axis=0)[:, none]
        return cls(ratio, pivot, spike, room)

    def of_units(self, some: np.ndarray) -> Solved:
        """Of some of the units."""
        return Solved(self.ratio[:, some], self.pivot[:, some], self.spike[:, some], self.room[some])

    def times(self, x: np.ndarray) -> np.ndarray:
        """S x."""
        found = np.empty_like(self.pivot)
        found[0] = x[0]
        for j in range(len(x) - 1):
            found[j + 1] = x[j + 1] - self.ratio[j] * found[j]
        found /= self.pivot
        for j in range(len(x) - 2, -1, -1):
            found[j] -= self.ratio[j] * found[j + 1]
        return found + self.spike * (dot(self.spike, x) / self.room)

    def diagonal(self) -> np.ndarray:
        """diag(S)."""
        found = 1 / self.pivot
        for j in range(len(found) - 2, -1, -1):
            found[j] += self.ratio[j] ** 2 * found[j + 1]
        return found + self.spike**2 / self.room

    def rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """Row j of S from its diagonal on, shape (slots from j on, unit, grid point); the last row first."""
        bare = np.zeros_like(self.pivot)
        for j in range(len(bare) - 1, -1, -1):
            below = bare[j + 1].copy() if j + 1 < len(bare) else 0.0
            bare[j + 1 :] *= -self.ratio[j]
            bare[j] = 1 / self.pivot[j] + self.ratio[j] ** 2 * below
            yield j, bare[j:] + self.spike[j] * self.spike[j:] / self.room

    def half_log_det(self, prior: Prior, omega: np.ndarray) -> np.ndarray:
        """log|S| / 2 - (log|V| + log 1'V^-1 1) / 2, shape (unit, grid point)."""
        wide = np.where(omega > 0, omega, 1.0)
        with np.errstate(divide="ignore"):
            log_det = np.log(self.pivot).sum(axis=0) + len(self.pivot) * np.log(wide)
        log_det = log_det + prior.log_det[:, None] - 2 * np.log(wide) + np.log(self.room)
        return -0.5 * np.where(omega > 0, log_det, np.log(self.room))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products over slots, shape (unit, grid point)."""
    return np.einsum("tug,tug->ug", a, b)


def pull_of_prior(prior: Prior, omega: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Q u; 0 at omega = 0, where u does not vary within units."""
    centred = prior.times(u) - prior.ones[..., None] * (np.einsum("tu,tug->ug", prior.ones, u) / prior.total[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(omega > 0, centred / omega, 0.0)


def improved(
    sites: Sites, counts: Counts, prior: Prior, omega: np.ndarray, f: np.ndarray, passes: int, damped: int = 0
) -> Sites:
    """Newton steps for u, and the variance that goes with it.

    Parameters
    ----------
    sites : Sites
    counts : Counts
    prior : Prior
    omega : array, shape (grid point,)
    f : array, shape (slot, unit)
    passes : int
    damped : int
        So many passes change the variance by half only; all do of a part, whose weight is about what a rare count is
        more than one: with the variance as its inverse it would go to and fro.
    """
    real = counts.real[..., None]
    for done in range(passes):
        at = sites.expected(counts, f)
        solved = Solved.of(prior, omega, at.weight)
        step = solved.times(counts.count[..., None] - at.mean - pull_of_prior(prior, omega, sites.u))
        if at.common is not None:
            beside = solved.times(at.common)
            step -= beside * (dot(at.common, step) / (1 + dot(at.common, beside)))
        share = DAMPING if done < damped or at.common is not None else 1.0
        variance = (1 - share) * sites.variance + share * solved.diagonal() * real
        sites = replace(sites, u=sites.u + np.clip(step, -STEP, STEP) * real, variance=variance)
    return sites


def bound(sites: Sites, counts: Counts, prior: Prior, omega: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Evidence lower bound of each unit at each omega up to a constant of the unit, shape (unit, grid point).

    Less what is `spent`. That of Normal(u, S) with S of the present means: a bound wherever the sites
    stand, and stationary where they end.
    """
    weight = sites.expected(counts, f).weight
    solved = Solved.of(prior, omega, weight)
    variance = solved.diagonal() * counts.real[..., None]
    loss = replace(sites, variance=variance).loss(counts, f)
    fit = np.einsum("tu,tug->ug", counts.count, f[..., None] + sites.u) - loss
    penalty = dot(sites.u, pull_of_prior(prior, omega, sites.u)) - dot(weight, variance)
    return fit - 0.5 * penalty + solved.half_log_det(prior, omega)


@dataclass(frozen=True)
class Follows:
    """How far u goes down as f goes up by a factor c of its covariance: S diag(mu) c.

    Attributes
    ----------
    unit : array of int, shape (unit,)
        Those whose f this moves to speak of.
    u : array, shape (slot, unit, grid point)
    """

    unit: np.ndarray
    u: np.ndarray


def roots(counts: Counts, spread: np.ndarray) -> np.ndarray:
    """As many deviations of f as there are slots, with the same outer products: C of each unit in factors.

    Parameters
    ----------
    counts : Counts
    spread : array, shape (row, draw)
        Deviations of f over draws, whose outer products sum to C.

    Returns
    -------
    array, shape (slot, unit, factor)
    """
    padded = counts.padded(spread)
    if padded.shape[2] <= len(padded):
        return padded
    of_units = padded.swapaxes(0, 1)
    values, vectors = np.linalg.eigh(of_units @ of_units.swapaxes(1, 2))
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None]).swapaxes(0, 1)


def loosened(
    sites: Sites, counts: Counts, prior: Prior, omega: np.ndarray, f: np.ndarray, loose: np.ndarray
) -> tuple[Sites, list[Follows]]:
    """The sites with what uncertainty about f adds to their means, and how u follows f.

    Parameters
    ----------
    loose : array, shape (slot, unit, factor)
        From `roots`.
    """
    weight = sites.expected(counts, f).weight
    solved = Solved.of(prior, omega, weight)
    slack, follows = np.zeros_like(weight), []
    moves = np.einsum("tuk,tu->uk", loose**2, 1 + weight.max(axis=2)) > LITTLE
    for k, moved in enumerate(moves.T):
        some = np.flatnonzero(moved)
        one = loose[:, some, k, None]
        follows.append(Follows(some, solved.of_units(some).times(weight[:, some] * one)))
        slack[:, some] += (one - follows[-1].u) ** 2
    return replace(sites, slack=np.minimum(slack, MOST_SLACK) * counts.real[..., None]), follows


def spent(follows: list[Follows], prior: Prior, omega: np.ndarray) -> np.ndarray:
    """What each unit's bound pays at each omega for u that follows f, shape (unit, grid point)."""
    cost = np.zeros((len(prior.total), len(omega)))
    for one in follows:
        cost[one.unit] += dot(one.u, pull_of_prior(prior.of_units(one.unit), omega, one.u))
    return cost / 2


def evidence(
    sites: Sites, counts: Counts, prior: Prior, omega: np.ndarray, f: np.ndarray, share: np.ndarray, rows: int
) -> tuple[sp.csr_array, np.ndarray]:
    """W, sparse of shape (row, row), and W zeta, shape (row,), averaged over omega; 0 for units without any event.

    Parameters
    ----------
    share : array, shape (unit, grid point)
        Posterior probability of each omega.
    rows : int
        Of the panel.
    """
    at = sites.expected(counts, f)
    mu, solved = at.weight, Solved.of(prior, omega, at.weight)
    lengths = len(mu)
    weight = np.zeros((lengths, lengths, mu.shape[1]))
    for j, row in solved.rows():
        weight[j, j:] = -np.einsum("tug,tug,ug->tu", mu[j] * mu[j:], row, share)
        weight[j:, j] = weight[j, j:]
        weight[j, j] += np.einsum("ug,ug->u", mu[j], share)
    surprise = counts.count[..., None] - at.mean
    felt = f[..., None] + sites.u
    # W x = diag(mu) (x - S diag(mu) x)
    pull = mu * (felt - solved.times(mu * felt)) + surprise - mu * solved.times(surprise)
    moment = np.zeros(rows)
    real = counts.real
    moment[counts.row[real]] = np.einsum("tug,ug->tu", pull, share)[real]
    both = real[:, None] & real[None]
    first = np.broadcast_to(counts.row[:, None], both.shape)[both]
    second = np.broadcast_to(counts.row[None], both.shape)[both]
    return sp.csr_array((weight[both], (first, second)), shape=(rows, rows)), moment


def level(
    sites: Sites, counts: Counts, prior: Prior, omega: np.ndarray, f: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the counts say of a_i given f, averaged over omega: w, shape (slot, unit), and w'zeta, shape (unit,).

    The bound is in a_i and f as of a Gaussian outcome zeta with precision W = (V + 1 / diag mu)^-1, so that
    a_i | f ~ Normal((w'zeta - w'f) / 1'w, 1 / 1'w) with w = W 1 = mu B^-1 R^-1 1 / omega.
    """
    at = sites.expected(counts, f)
    solved = Solved.of(prior, omega, at.weight)
    part = np.where(omega > 0, solved.spike / np.where(omega > 0, omega, 1.0), counts.real[..., None])
    weight = at.weight * part
    pull = dot(weight, f[..., None] + sites.u) + dot(part, counts.count[..., None] - at.mean)
    return np.einsum("tug,ug->tu", weight, share), np.einsum("ug,ug->u", pull, share)
