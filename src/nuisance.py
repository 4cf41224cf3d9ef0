"""Estimate what the likelihood needs to know of the errors before effects are sampled.

    y_it = alpha_i + lambda_t + x_it'beta + z_it'theta + sum over shock groups of u_{k(i) t} + eps_it
    eps_i ~ Normal(0, scale_i^2 W^-1/2 R_i W^-1/2),     R_i[t, s] = rho^|t - s|
    scale_i^2 ~ scaled-inverse-chi^2(nu, s0),           s0 of ever-treated and never-treated units apart
    u_k ~ Normal(0, sd^2 Q),                            Q[t, s] = phi^|t - s|

`theta` are the columns of all effects, under Normal priors that do not depend on the model. Each pass

1. solves for all coefficients at the current nuisance parameters, and draws from their posterior, so that the residual
   r_i carries its own uncertainty: E_i = E[r_i r_i']; the spreads of pooled terms follow by expected likelihood;
2. maximises over rho, nu and s0 the firm-level multivariate-t likelihood with alpha_i integrated out,

       sum_i l_i + lnG((nu + p_i) / 2) - lnG(nu / 2) + nu/2 ln(nu s0) - (nu + p_i)/2 ln(nu s0 + q_i),

   q_i = tr(M_i E_i), l_i = -(log|R_i| + log 1'R_i^-1 1) / 2, p_i = rows - 1: restricted likelihood in kind, because
   the profile estimate of rho is biased by about -(1 + rho)/T;
3. regresses on what differences between levels and units amount to in the adoption period, for their share m that is
   there already: effects ramp up, and differences that are read off the jump at adoption would come out too small;
4. updates each shock's phi by its expected likelihood, over-relaxed because that creeps where shocks are seen dimly,
   and its variance by MacKay's fixed point, sd^2 = sum u'Q^-1 u / (cells - tr(Q^-1 Cov u) / sd^2 - 3), the 3 turning
   the mode into the mean under a flat prior.

Then weights w_i = E[(nu + p_i) / (nu s0 + r_i'M_i r_i)] over those draws, times (nu + p_i) / (nu + p_i + 2): the
information about location in a p-variate t is that much smaller than the plug-in weights suggest.

Source: Harville (1977) for restricted likelihood; MacKay (1992) for the update; Lange, Little & Taylor (1989) for the
multivariate t and its information. Measured in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy import optimize
from scipy.special import gammaln

from models.inputs import BY
from src.design import NUISANCE, Regression
from src.kernel import BLOCKS
from src.panel import Panel, first_rows
from src.products import (
    BlockConditional,
    ar1_bands,
    ar1_precision,
    centred_within,
    eliminate_blocks,
    within_products,
)

PASSES, SETTLED = 60, 0.002
ENTRIES, LEAST_DRAWS, MOST_DRAWS = 500_000, 32, 200
MOST_RHO = 0.98
LEAST_PHI, MOST_PHI = -0.5, 0.95
STRIDE = 1.7  # a step in phi goes further by this factor; below 2, so that the fixed point stays the same and stable
ONSET, MOST_ONSET = 0.5, 2.0
NU = (1.0, 200.0)
LEAST_UNITS = 10  # ever- or never-treated units that can tell a scale of their own
LEAST_SD = 1e-3
WEAK = {
    "mu": 10.0,
    "exposure": 5.0,
    "time": 1e4,
    "fixed": 1e4,
    "covariate": 1e4,
}  # prior SDs in units of s; 1 for all else
FIXED = ("mu", "path", "cohort", "exposure", "difference", "time", "fixed", "covariate")  # the others' are estimated
BESIDE = ("exposure", "difference", *BLOCKS, *NUISANCE)  # beside tau
LEAST_LEVELS = 5  # from which on a spread is estimated
TYPICAL = 0.5  # spread that one more level would have


@dataclass(frozen=True)
class Errors:
    """What the likelihood allows errors to do.

    Attributes
    ----------
    serial : {"none", "ar1"}
    scale : {"common", "unit", "none"}
        "none", of counts alone, is no disturbance at all.
    shocks : tuple of str
        Exposures or groups whose levels have shocks of their own in every period.
    events : bool
        The outcome is a count, and all of this concerns its log mean.
    """

    serial: str = "none"
    scale: str = "common"
    shocks: tuple[str, ...] = ()
    events: bool = False

    @property
    def plain(self) -> bool:
        """Independent errors of one scale: nothing to estimate beforehand."""
        return self.serial == "none" and self.scale == "common" and not self.shocks

    @property
    def conditional(self) -> bool:
        """Counts are Poisson given the total of their unit."""
        return self.events and self.scale == "none"


@dataclass(frozen=True)
class Shock:
    """Shocks to every level of a classification in every period.

    Attributes
    ----------
    code : array of int, shape (unit,)
    levels : int
    sd : float
        In units of s.
    phi : float
        Autocorrelation from one period to the next.
    """

    code: np.ndarray
    levels: int
    sd: float = 0.3
    phi: float = 0.3

    def record(self, s: float, periods: int) -> dict:
        """The values for diagnostics.json, the SD in units of the outcome."""
        return {"sd": self.sd * s, "phi": self.phi, "cells": self.levels * periods}


@dataclass(frozen=True)
class Nuisance:
    """Estimated nuisance parameters, scales in units of s.

    Attributes
    ----------
    rho : float
    nu : float
        inf where all units have one scale.
    never, ever : float
        Typical scale of never-treated and of ever-treated units, sqrt(s0).
    weight : array, shape (unit,)
        (s / scale_i)^2, information factor included.
    log_scale : array, shape (unit,)
        Shrunken log(scale_i / s).
    shocks : dict of str to Shock
    spreads : dict of str to float
        Prior SD of the coefficients of each block of the design.
    onset : float
        Share of the differences in effect between levels and units that is there in the adoption period.
    passes : int
    settled : bool
    """

    rho: float
    nu: float
    never: float
    ever: float
    weight: np.ndarray
    log_scale: np.ndarray
    shocks: dict[str, Shock]
    spreads: dict[str, float]
    onset: float = 1.0
    passes: int = 0
    settled: bool = True

    def record(self, s: float, periods: int) -> dict:
        """The values for diagnostics.json, scales in units of the outcome."""
        shocks = {name: shock.record(s, periods) for name, shock in self.shocks.items()}
        return {
            "rho": self.rho,
            "nu": self.nu if np.isfinite(self.nu) else None,
            "scale_never": self.never * s,
            "scale_ever": self.ever * s,
            "shocks": shocks,
            "onset": self.onset,
            "passes": self.passes,
            "settled": self.settled,
        }


def estimate(regression: Regression, errors: Errors, s: float) -> Nuisance:
    """Nuisance parameters of the errors of a regression.

    Parameters
    ----------
    regression : Regression
    errors : Errors
    s : float
        Residual SD of the saturated fit.

    Notes
    -----
    The same random numbers serve every pass and every call, so that equal data give equal estimates.
    """
    panel = regression.panel
    work = Workspace.of(regression, errors, s)
    now = starting(work, errors)
    if errors.plain:
        return now
    for done in range(1, PASSES + 1):
        before = now
        coefficients = solve(work, now)
        felt = work.first @ coefficients
        residual = residuals(work, coefficients, felt, now.onset)
        now = replace(update_units(work, residual, now, errors), onset=update_onset(work, residual, felt, now))
        now = update_spreads(work, coefficients, update_shocks(work, coefficients, now))
        moved = distance(before, now)
        if moved < SETTLED and done > 2:
            break
    now = replace(now, passes=done, settled=bool(moved < SETTLED))
    if errors.scale == "unit":
        rows = np.bincount(panel.unit)
        now = replace(now, weight=now.weight * (now.nu + rows - 1) / (now.nu + rows + 1))
    return now


def starting(work: Workspace, errors: Errors) -> Nuisance:
    """What the first pass starts from."""
    units = len(work.panel.units)
    return Nuisance(
        rho=0.3 if errors.serial == "ar1" else 0.0,
        nu=4.0 if errors.scale == "unit" else np.inf,
        never=1.0,
        ever=1.0,
        weight=np.ones(units),
        log_scale=np.zeros(units),
        shocks=work.shocks,
        spreads={name: WEAK.get(name, 1.0) for name in work.blocks},
    )


def distance(a: Nuisance, b: Nuisance) -> float:
    """Largest change from one pass to the next, each parameter on the scale on which it matters."""
    changes = [b.rho - a.rho, np.log(b.never / a.never), np.log(b.ever / a.ever)]
    for name, shock in b.shocks.items():
        changes += [shock.sd - a.shocks[name].sd, 0.2 * (shock.phi - a.shocks[name].phi)]
    if np.isfinite(b.nu):
        changes.append(0.2 * np.log(b.nu / a.nu))
    changes.append(0.1 * (b.onset - a.onset))
    return float(np.max(np.abs(changes)))


@dataclass(frozen=True)
class Workspace:
    """What every pass uses, outcome in units of s.

    Attributes
    ----------
    panel : Panel
    columns : sparse array, shape (row, column)
        Shocks (the classification with most levels first), then effects, exposures, covariates and periods.
    first : sparse array, shape (row, column)
        Those of the differences between levels and units, in the adoption period alone.
    outcome : array, shape (row,)
        Less its mean within the unit.
    shocks : dict of str to Shock
        In the order of their columns.
    gaps : array, shape (period - 1,)
        Calendar distance from one period to the next.
    blocks : dict of str to slice
        Where each block of the design stands among the columns.
    ever : array of bool, shape (unit,)
        Ever treated here, where both kinds have units enough to tell a scale of their own.
    start : array of int, shape (unit,)
        First row of each unit.
    root : array, shape (row,)
        Square root of the panel's weights.
    draws : int
        From the posterior of the coefficients, in every pass.
    still : array of bool, shape (unit,)
        Units whose outcome never changes. They tell no scale of their own: nothing but zeros, on a scale that ends
        there, is not a sign of small errors. Theirs is the typical one.
    """

    panel: Panel
    columns: sp.csr_array
    first: sp.csr_array
    outcome: np.ndarray
    shocks: dict[str, Shock]
    gaps: np.ndarray
    blocks: dict[str, slice]
    ever: np.ndarray
    start: np.ndarray
    root: np.ndarray
    draws: int
    still: np.ndarray

    @classmethod
    def of(cls, regression: Regression, errors: Errors, s: float, terms: tuple[str, ...] = ()) -> Workspace:
        """The workspace of a regression with the blocks `terms` of tau; with all pooled ones where none is given."""
        panel, design = regression.panel, regression.design
        shocks = shocks_of(panel, errors.shocks)
        beside = [name for name in design.blocks if name in BESIDE or name.startswith(BY)]
        kept = {*terms, *beside} if terms else set(design.blocks) - {"group_cell", "lead"}
        names = tuple(name for name in design.blocks if name in kept)
        pieces = [shock_columns(panel, shock) for shock in shocks.values()]
        columns = sp.csr_array(sp.hstack([*pieces, regression.matrix[:, design.columns(names)]], format="csr"))
        ends = np.cumsum([sum(piece.shape[1] for piece in pieces), *(design.blocks[name].size for name in names)])
        blocks = {name: slice(a, b) for name, a, b in zip(names, ends[:-1].tolist(), ends[1:].tolist(), strict=True)}
        ramping = np.zeros(columns.shape[1])
        for name in (*design.groups, *design.interactions, "unit"):
            if name in blocks:
                ramping[blocks[name]] = 1.0
        onset = sp.diags_array((panel.event_time == 0).astype(float))
        adopters = np.isin(np.arange(len(panel.units)), panel.unit[panel.treated])
        enough = min(adopters.sum(), (~adopters).sum()) >= LEAST_UNITS
        return cls(
            panel,
            columns,
            sp.csr_array(onset @ columns @ sp.diags_array(ramping)),
            centred_within(panel.outcome, panel.unit) / s,
            shocks,
            np.diff(panel.periods),
            blocks,
            adopters & enough,
            first_rows(panel.unit),
            np.sqrt(panel.weight),
            int(np.clip(ENTRIES // len(panel.unit), LEAST_DRAWS, MOST_DRAWS)),
            unchanging(panel),
        )

    @property
    def shocked(self) -> int:
        """Number of columns of shocks, which come first."""
        return min((block.start for block in self.blocks.values()), default=0)

    def columns_at(self, onset: float) -> sp.csr_array:
        """The columns where differences have the share `onset` in the adoption period."""
        return self.columns + (onset - 1) * self.first


def unchanging(panel: Panel) -> np.ndarray:
    """Units that are seen more than once and whose outcome never changes, shape (unit,)."""
    most, least = np.full(len(panel.units), -np.inf), np.full(len(panel.units), np.inf)
    np.maximum.at(most, panel.unit, panel.outcome)
    np.minimum.at(least, panel.unit, panel.outcome)
    return (most == least) & (np.bincount(panel.unit, minlength=len(panel.units)) > 1)


def shocks_of(panel: Panel, names: tuple[str, ...]) -> dict[str, Shock]:
    """Classifications of the units by name, an exposure's before a group's, most levels first."""
    found = {}
    for name in names:
        members = panel.roster.members[name][panel.roster.position] if name in panel.roster.members else None
        _, code = np.unique(panel.groups[name].code if members is None else members, return_inverse=True)
        found[name] = Shock(code, int(code.max()) + 1)
    return dict(sorted(found.items(), key=lambda item: -item[1].levels))


def shock_columns(panel: Panel, shock: Shock) -> sp.csr_array:
    """Indicator of every level x period, a level's periods together, shape (row, level * period)."""
    periods = panel.periods
    column = shock.code[panel.unit] * len(periods) + np.searchsorted(periods, panel.time)
    rows = np.arange(len(column))
    return sp.csr_array((np.ones(len(rows)), (rows, column)), shape=(len(rows), shock.levels * len(periods)))


def shock_precision(gaps: np.ndarray, shock: Shock) -> np.ndarray:
    """Prior precision of the shocks of one level, (sd^2 Q)^-1, shape (period, period), in units of s."""
    diagonal, beside, _ = ar1_bands(np.zeros(len(gaps) + 1, dtype=int), np.r_[0, np.cumsum(gaps)], shock.phi)
    return (np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)) / shock.sd**2


def without_first_shocks(
    products: sp.csr_array, gaps: np.ndarray, shocks: list[Shock]
) -> tuple[np.ndarray, BlockConditional | None]:
    """Cross-products without the shocks that come first, integrated out level by level because levels share no row.

    Parameters
    ----------
    products : sparse array, shape (column, column)
        Shocks in the order given, other columns, the outcome.
    gaps : array, shape (period - 1,)
    shocks : list of Shock

    Returns
    -------
    array, shape (other, other)
    BlockConditional
        None where there are no shocks.
    """
    if not shocks:
        return products.toarray(), None
    return eliminate_blocks(products, shocks[0].levels, len(gaps) + 1, shock_precision(gaps, shocks[0]))


def prior_of_the_rest(gaps: np.ndarray, shocks: list[Shock]) -> np.ndarray:
    """Prior precision of all shocks but the first, shape (column, column), block-diagonal over levels."""
    blocks = [block for shock in shocks[1:] for block in [shock_precision(gaps, shock)] * shock.levels]
    return scipy.linalg.block_diag(*blocks) if blocks else np.zeros((0, 0))


def precision_of(panel: Panel, nuisance: Nuisance) -> sp.csr_array:
    """Precision of the errors, shape (row, row), in units of 1 / s^2."""
    return ar1_precision(panel.unit, panel.time, panel.weight * nuisance.weight[panel.unit], nuisance.rho)


def solve(work: Workspace, now: Nuisance) -> np.ndarray:
    """Posterior of all coefficients at given nuisance parameters, as of `posterior`."""
    stacked = sp.csr_array(sp.hstack([work.columns_at(now.onset), sp.csr_array(work.outcome[:, None])], format="csr"))
    return posterior(work, now, within_products(stacked, work.panel.unit, precision_of(work.panel, now)))


def posterior(work: Workspace, now: Nuisance, products: sp.csr_array) -> np.ndarray:
    """Posterior of all coefficients given their cross-products and the outcome's, shape (column, 1 + draw).

    The mean comes first; the draws are deviations from it, divided by the square root of their number, so that sums of
    squares over columns are posterior second moments.
    """
    periods = len(work.gaps) + 1
    shocks = list(now.shocks.values())
    first = shocks[0].levels * periods if shocks else 0
    rest, blocks = without_first_shocks(products, work.gaps, shocks)
    gram, moment = rest[:-1, :-1].copy(), rest[:-1, -1]
    prior = prior_of_the_rest(work.gaps, shocks)
    gram[: len(prior), : len(prior)] += prior
    for name, block in work.blocks.items():
        own = np.arange(block.start - first, block.stop - first)
        gram[own, own] += now.spreads[name] ** -2.0
    lower = scipy.linalg.cholesky(gram, lower=True)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(gram), work.draws)) / np.sqrt(work.draws)
    mean = scipy.linalg.cho_solve((lower, True), moment)
    others = np.column_stack([mean, scipy.linalg.solve_triangular(lower, noise, lower=True, trans="T")])
    if blocks is None:
        return others
    pull = blocks.cross.reshape(first, -1) @ others
    noise = rng.standard_normal((first, work.draws)) / np.sqrt(work.draws)
    target = np.column_stack([blocks.moment.ravel(), noise]) - pull
    drawn = blocks.factor @ target.reshape(shocks[0].levels, periods, -1)
    return np.vstack([drawn.reshape(first, -1), others])


def quadratic_forms(work: Workspace, residual: np.ndarray, rho: float) -> np.ndarray:
    """r'M_i r of every unit and column at a given rho, shape (unit, column), scales and shocks apart.

    Parameters
    ----------
    work : Workspace
    residual : array, shape (row, column)
    rho : float
    """
    diagonal, beside, _ = ar1_bands(work.panel.unit, work.panel.time, rho)
    weighted = work.root[:, None] * residual
    ahead = np.vstack([weighted[1:], np.zeros((1, weighted.shape[1]))])
    own = np.add.reduceat(weighted * (diagonal[:, None] * weighted + 2 * beside[:, None] * ahead), work.start, axis=0)
    ones, total = weighted_ones(work, rho)
    sums = np.add.reduceat(ones[:, None] * weighted, work.start, axis=0)
    return np.maximum(own - sums**2 / total[:, None], 0.0)


def expected_forms(work: Workspace, residual: np.ndarray) -> Callable[[float], np.ndarray]:
    """tr(M_i E_i) as a function of rho, shape (unit,): `quadratic_forms` summed over the columns of `residual`.

    What does not depend on rho is summed once.
    """
    weighted = work.root[:, None] * residual
    square = np.einsum("rj,rj->r", weighted, weighted)
    ahead = np.r_[np.einsum("rj,rj->r", weighted[:-1], weighted[1:]), 0.0]
    rows, units = len(weighted), len(work.start)

    def at(rho: float) -> np.ndarray:
        diagonal, beside, _ = ar1_bands(work.panel.unit, work.panel.time, rho)
        ones, total = weighted_ones(work, rho)
        own = np.add.reduceat(diagonal * square + 2 * beside * ahead, work.start)
        sums = sp.csr_array((ones, np.arange(rows), np.r_[work.start, rows]), shape=(units, rows)) @ weighted
        return np.maximum(own - np.einsum("ij,ij->i", sums, sums) / total, 0.0)

    return at


def weighted_ones(work: Workspace, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """R^-1 W^1/2 1, shape (row,), and 1'W^1/2 R^-1 W^1/2 1 of every unit, shape (unit,)."""
    diagonal, beside, _ = ar1_bands(work.panel.unit, work.panel.time, rho)
    root = work.root
    ones = diagonal * root + beside * np.r_[root[1:], 0.0] + np.r_[0.0, beside[:-1] * root[:-1]]
    return ones, np.add.reduceat(ones * root, work.start)


def log_determinant(work: Workspace, rho: float, told: np.ndarray) -> float:
    """sum_i l_i = -(log|R_i| + log 1'R_i^-1 1) / 2 over the units of `told`, shape (unit,)."""
    innovation = np.log(ar1_bands(work.panel.unit, work.panel.time, rho)[2])
    each = np.add.reduceat(innovation, work.start) + np.log(weighted_ones(work, rho)[1])
    return float(-0.5 * each[told].sum())


def residuals(work: Workspace, coefficients: np.ndarray, felt: np.ndarray, onset: float) -> np.ndarray:
    """Residual at the mean of the coefficients, then its deviations over their draws, shape (row, 1 + draw).

    Parameters
    ----------
    work : Workspace
    coefficients : array, shape (column, 1 + draw)
        From `solve`.
    felt : array, shape (row, 1 + draw)
        What all of the differences between levels and units would be in the adoption period.
    onset : float
        Share of it that is there.
    """
    residual = (1 - onset) * felt - work.columns @ coefficients
    residual[:, 0] += work.outcome
    return residual


def update_units(work: Workspace, residual: np.ndarray, now: Nuisance, errors: Errors) -> Nuisance:
    """Maximise the unit-level likelihood over rho, then over nu and the typical scales; renew the weights."""
    centre, deviation = residual[:, 0], residual[:, 1:]
    of_units = expected_forms(work, residual)
    told = ~work.still if errors.scale == "unit" else np.ones(len(work.start), dtype=bool)
    free = np.where(told, np.bincount(work.panel.unit) - 1.0, 0.0)
    rho = now.rho

    def expected(candidate: float) -> np.ndarray:
        return np.where(told, of_units(candidate), 0.0)

    if errors.serial == "ar1" and (free >= 2).any():

        def loss(candidate: float) -> float:
            q = expected(candidate)
            likelihood = t_likelihood(q, free, work.ever, now.nu, now.never**2, now.ever**2)
            return -log_determinant(work, candidate, told) - likelihood

        within = (-MOST_RHO, MOST_RHO)
        rho = float(optimize.minimize_scalar(loss, bounds=within, method="bounded", options={"xatol": 1e-3}).x)
    q = expected(rho)
    nu, never, ever = typical_scales(q, free, work.ever, errors.scale)
    s0 = np.where(work.ever, ever, never)
    weight = 1 / s0
    if np.isfinite(nu):
        drawn = quadratic_forms(work, centre[:, None] + np.sqrt(deviation.shape[1]) * deviation, rho)
        drawn = np.where(told[:, None], drawn, 0.0)
        weight = np.mean((nu + free)[:, None] / ((nu * s0)[:, None] + drawn), axis=1)
    return replace(
        now,
        rho=rho,
        nu=nu,
        never=float(np.sqrt(never)),
        ever=float(np.sqrt(ever if work.ever.any() else never)),
        weight=weight,
        log_scale=-0.5 * np.log(weight),
    )


def update_onset(work: Workspace, residual: np.ndarray, felt: np.ndarray, now: Nuisance) -> float:
    """Share of the differences that is there in the adoption period, one over-relaxed step of expected likelihood.

    With F u what all of the differences would be there and r the residual at the present share m,

        m + E[(F u)'M r] / E[(F u)'M F u],    drawn towards Normal(1, ONSET^2)
    """
    precision = precision_of(work.panel, now)
    ones = precision @ np.ones(len(work.outcome))
    total = np.add.reduceat(ones, work.start)
    pulled = (
        precision @ felt
        - ones[:, None] * (np.add.reduceat(ones[:, None] * felt, work.start, axis=0) / total[:, None])[work.panel.unit]
    )
    return onset_beyond(now.onset, float((pulled * felt).sum()), float((pulled * residual).sum()))


def onset_beyond(onset: float, own: float, cross: float) -> float:
    """The step of `update_onset` from E[(F u)'M F u] and E[(F u)'M r]."""
    better = onset + (cross - (onset - 1) / ONSET**2) / (own + 1 / ONSET**2)
    return float(np.clip(onset + STRIDE * (better - onset), 0.0, MOST_ONSET))


def t_likelihood(q: np.ndarray, free: np.ndarray, ever: np.ndarray, nu: float, never: float, treated: float) -> float:
    """Log likelihood of unit-level quadratic forms, less what does not depend on rho, nu or s0."""
    s0 = np.where(ever, treated, never)
    if np.isinf(nu):
        return float(-0.5 * (free * np.log(s0) + q / s0).sum())
    return float(
        (
            gammaln((nu + free) / 2)
            - gammaln(nu / 2)
            + nu / 2 * np.log(nu * s0)
            - (nu + free) / 2 * np.log(nu * s0 + q)
        ).sum()
    )


def typical_scales(q: np.ndarray, free: np.ndarray, ever: np.ndarray, scale: str) -> tuple[float, float, float]:
    """nu and s0 of never-treated and ever-treated units, the latter's equal to the former's where none is apart."""
    if scale == "common":
        s0 = float(q.sum() / free.sum())
        return np.inf, s0, s0
    several = ever.any()

    def loss(x: np.ndarray) -> float:
        return -t_likelihood(q, free, ever, np.exp(x[0]), np.exp(x[1]), np.exp(x[-1]))

    middle = np.log(max(np.median(q[free > 0] / free[free > 0]), 1e-9))
    start = np.array([np.log(5.0), *[middle] * (1 + several)])
    bounds = [(np.log(NU[0]), np.log(NU[1]))] + [(middle - 8, middle + 8)] * (1 + several)
    best = optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
    return float(np.exp(best[0])), float(np.exp(best[1])), float(np.exp(best[-1]))


def update_shocks(work: Workspace, coefficients: np.ndarray, now: Nuisance) -> Nuisance:
    """Each shock one step on, in phi beyond the step that expected likelihood takes."""
    periods = len(work.gaps) + 1
    at, shocks = 0, {}
    for name, shock in now.shocks.items():
        mine = coefficients[at : at + shock.levels * periods].reshape(shock.levels, periods, -1)
        at += shock.levels * periods
        new = update_shock(mine, work.gaps, shock)
        further = shock.phi + STRIDE * (new.phi - shock.phi)
        shocks[name] = replace(new, phi=float(np.clip(further, LEAST_PHI, MOST_PHI)))
    return replace(now, shocks=shocks)


def update_spreads(work: Workspace, coefficients: np.ndarray, now: Nuisance) -> Nuisance:
    """Prior SDs of the terms that are pooled, by expected likelihood, as if one more level had the typical spread."""
    spreads = dict(now.spreads)
    for name, block in work.blocks.items():
        levels = block.stop - block.start
        if name not in FIXED and levels >= LEAST_LEVELS:
            spreads[name] = float(np.sqrt((np.sum(coefficients[block] ** 2) + TYPICAL**2) / (levels + 1)))
    return replace(now, spreads=spreads)


def update_shock(drawn: np.ndarray, gaps: np.ndarray, shock: Shock) -> Shock:
    """One shock group; `drawn` has shape (level, period, 1 + draw), the mean first, deviations after it."""
    levels, periods = drawn.shape[:2]
    cells = levels * periods

    def quadratic(part: np.ndarray, phi: float) -> float:
        unscaled = shock_precision(gaps, replace(shock, sd=1.0, phi=phi))
        return float(np.einsum("lpj,pq,lqj->", part, unscaled, part))

    time = np.r_[0, np.cumsum(gaps)]

    def loss(phi: float) -> float:
        innovation = ar1_bands(np.zeros(periods, dtype=int), time, phi)[2]
        return 0.5 * levels * np.log(innovation).sum() + 0.5 * cells * np.log(quadratic(drawn, phi) / cells)

    phi = float(optimize.minimize_scalar(loss, bounds=(LEAST_PHI, MOST_PHI), method="bounded").x)
    known = cells - quadratic(drawn[..., 1:], phi) / shock.sd**2 - 3
    variance = quadratic(drawn[..., :1], phi) / max(known, 0.02 * cells)
    return replace(shock, phi=phi, sd=float(max(np.sqrt(variance), LEAST_SD)))
