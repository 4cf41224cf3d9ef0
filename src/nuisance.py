"""Estimate what the likelihood needs to know of the errors before effects are sampled.

    y_it = alpha_i + lambda_t + x_it'beta + z_it'theta + sum over shock groups of u_{k(i) t} + eps_it
    eps_i ~ Normal(0, scale_i^2 W^-1/2 R_i W^-1/2),     R_i[t, s] = rho^|t - s|
    scale_i^2 ~ scaled-inverse-chi^2(nu, s0),           s0 of ever-treated and never-treated units apart
    u_k ~ Normal(0, sd^2 Q),                            Q[t, s] = phi^|t - s|

`theta` are the columns of all effects, under Normal priors that do not depend on the model. Each pass

1. solves for all coefficients at the current nuisance parameters, and draws from their posterior, so that the residual
   r_i carries its own uncertainty: E_i = E[r_i r_i']; the spreads of pooled terms follow by expected likelihood, that
   of integrated effects of single units by marginal likelihood (`spread_of_effects`);
2. maximises over rho, nu and s0 the firm-level multivariate-t likelihood with alpha_i integrated out,

       sum_i l_i + lnG((nu + p_i) / 2) - lnG(nu / 2) + nu/2 ln(nu s0) - (nu + p_i)/2 ln(nu s0 + q_i),

   q_i = tr(M_i E_i), l_i = -(log|R_i| + log 1'R_i^-1 1) / 2, p_i = rows - 1: restricted likelihood in kind, because
   the profile estimate of rho is biased by about -(1 + rho)/T;
3. regresses on what differences between levels and units amount to in the adoption period and in the one after it, for
   their shares m that are there already: effects ramp up, and differences that are read off the jump at adoption would
   come out too small;
4. updates each shock's phi by its expected likelihood, over-relaxed because that creeps where shocks are seen dimly,
   and its variance by MacKay's fixed point, sd^2 = sum u'Q^-1 u / (cells - tr(Q^-1 Cov u) / sd^2 - 3), the 3 turning
   the mode into the mean under a flat prior.

Then weights w_i = E[(nu + p_i) / (nu s0 + r_i'M_i r_i)] over those draws, times (nu + p_i) / (nu + p_i + 2): the
information about location in a p-variate t is that much smaller than the plug-in weights suggest.

Rows are seen through `src.passes` alone, a block of units at a time.

Source: Harville (1977) for restricted likelihood; MacKay (1992) for the update; Lange, Little & Taylor (1989) for the
multivariate t and its information. Measured in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.polynomial import chebyshev
from scipy import optimize
from scipy.special import digamma, gammaln

from src.blocks import Blocks
from src.design import Regression
from src.errors import Errors, Nuisance, Shock, prior_of_the_rest, shock_precision, without_first_shocks
from src.passes import Forms, Layout, Workspace, forms, weighed
from src.products import ar1_bands

PASSES, LEAST_PASSES, SETTLED = 60, 3, 0.002
MOST_RHO = 0.98
REACHES = ((0.02, 5, 0.05), (np.inf, 11, 0.25))  # moved less in the last pass: units are asked at so many values so far
LEAST_PHI, MOST_PHI = -0.5, 0.95
STRIDE = 1.7  # a step in phi goes further by this factor; below 2, so that the fixed point stays the same and stable
ONSET, MOST_ONSET = 0.5, 2.0
NU = (1.0, 200.0)
LEAST_SD = 1e-3
WEAK = {
    "mu": 10.0,
    "exposure": 5.0,
    "time": 1e4,
    "fixed": 1e4,
    "covariate": 1e4,
    "earlier": 1e4,
}  # prior SDs in units of s; 1 for all else
# the spreads of all others are estimated
FIXED = ("mu", "path", "cohort", "exposure", "difference", "earlier", "time", "fixed", "covariate")
LEAST_LEVELS = 5  # from which on a spread is estimated
TYPICAL = 0.5  # spread that one more level would have
MOST_SPREAD = np.array([1e-4, 1e2])  # of the effects of single units, the least first
MOST_TOLD = 100_000  # of whom the spread is known to within a per cent
SCALES, NODES_FROM = 31, 5.0  # nodes of an integral over the scale of a unit, to so many SDs of its logarithm


def estimate(regression: Regression, errors: Errors, s: float, start: Nuisance | None = None) -> Nuisance:
    """Nuisance parameters of the errors of a regression.

    Parameters
    ----------
    regression : Regression
    errors : Errors
    s : float
        Residual SD of the saturated fit.
    start : Nuisance, optional
        Of the same regression under other errors, from which the passes start.

    Notes
    -----
    The same random numbers serve every pass and every call, so that equal data give equal estimates. Where there are
    many blocks of rows, a few of them are settled first, which spares all the others most of the passes.
    """
    layout = Layout.of(regression, errors, s)
    now = starting(layout, errors, len(regression.panel.units))
    if start is not None:
        now = replace(now, rho=start.rho, shocks=start.shocks, spreads=now.spreads | start.spreads)
    if errors.plain:
        return now
    if regression.blocks is None:
        rows: Workspace | Blocks = Workspace.on(regression, layout, layout.codes)
        return settled(rows, layout, errors, now, None)[0]
    rows, coefficients = regression.blocks.with_layout(layout), None
    some = rows.sample()
    if some is not None:
        mine = some.of_units
        known, coefficients = settled(some, layout, errors, replace(now, weight=now.weight[mine]), None)
        now = replace(known, weight=now.weight)
    return settled(rows, layout, errors, now, coefficients)[0]


def settled(
    rows: Workspace | Blocks, layout: Layout, errors: Errors, now: Nuisance, coefficients: np.ndarray | None
) -> tuple[Nuisance, np.ndarray]:
    """Passes over the rows until nothing moves, and the coefficients of the last one.

    Parameters
    ----------
    rows : Workspace or Blocks
        In memory, or not.
    layout : Layout
    errors : Errors
    now : Nuisance
        What the first pass starts from.
    coefficients : array, shape (column, 1 + draw), optional
        That weights follow from, where some are known.
    """
    found = run(rows, partial(weighed, coefficients=coefficients, before=now.bare, now=now.bare), now.weight)
    # where coefficients are known already, so is about everything
    slid, least = (np.inf, LEAST_PASSES) if coefficients is None else (0.0, 1)
    for done in range(1, PASSES + 1):
        before = replace(now, weight=found.weight)
        coefficients = posterior(layout, before, found.products.value)
        del found  # of the size of what the next pass brings
        nodes = nodes_about(before.rho, slid) if errors.serial == "ar1" else np.array([before.rho])
        said = run(rows, partial(forms, coefficients=coefficients, now=before.bare, nodes=nodes), before.weight)
        now = replace(update_units(said, nodes, before, errors), onset=onset_beyond(before.onset, said.own, said.cross))
        now = update_spreads(layout, coefficients, update_shocks(layout, coefficients, now), said.effects)
        moved, slid = distance(before, now, layout.own), abs(now.rho - before.rho)
        last = (moved < SETTLED and done >= least) or done == PASSES
        further = partial(weighed, coefficients=coefficients, before=before.bare, now=now.bare, last=last)
        found = run(rows, further, before.weight)
        if last:
            break
    assert coefficients is not None
    now = replace(now, passes=done, settled=bool(moved < SETTLED), log_scale=-0.5 * np.log(found.weight))
    known = (now.nu + said.rows - 1) / (now.nu + said.rows + 1) if errors.scale == "unit" else 1.0
    return replace(now, weight=found.weight * known), coefficients


def run(rows: Workspace | Blocks, function: Callable, *of_units: np.ndarray) -> Any:
    """The function of rows and of what there is of their units, added up over blocks."""
    return function(rows, *of_units) if isinstance(rows, Workspace) else rows.total(function, *of_units)


def starting(layout: Layout, errors: Errors, units: int) -> Nuisance:
    """What the first pass starts from."""
    spreads = {name: WEAK.get(name, 1.0) for name in (*layout.blocks, *(["unit"] if layout.own else []))}
    return Nuisance(
        rho=0.3 if errors.serial == "ar1" else 0.0,
        nu=4.0 if errors.scale == "unit" else np.inf,
        never=1.0,
        ever=1.0,
        weight=np.ones(units),
        log_scale=np.zeros(units),
        shocks=layout.shocks,
        spreads=spreads,
    )


def distance(a: Nuisance, b: Nuisance, integrated: bool = False) -> float:
    """Largest change from one pass to the next, each parameter on the scale on which it matters; the spread of effects
    of single units among them where these are integrated out, and nothing later estimates it again.
    """
    changes = [b.rho - a.rho, np.log(b.never / a.never), np.log(b.ever / a.ever)]
    for name, shock in b.shocks.items():
        changes += [shock.sd - a.shocks[name].sd, 0.2 * (shock.phi - a.shocks[name].phi)]
    if np.isfinite(b.nu):
        changes.append(0.2 * np.log(b.nu / a.nu))
    changes += [0.1 * (after - before) for before, after in zip(a.onset, b.onset, strict=True)]
    if integrated:
        changes.append(0.5 * np.log(b.own / a.own))
    return float(np.max(np.abs(changes)))


def posterior(layout: Layout, now: Nuisance, products: sp.csr_array) -> np.ndarray:
    """Posterior of all coefficients given their cross-products and the outcome's, shape (column, 1 + draw).

    The mean comes first; the draws are deviations from it, divided by the square root of their number, so that sums of
    squares over columns are posterior second moments.
    """
    periods = len(layout.gaps) + 1
    shocks = list(now.shocks.values())
    first = shocks[0].levels * periods if shocks else 0
    rest, blocks = without_first_shocks(products, layout.gaps, shocks)
    gram, moment = rest[:-1, :-1].copy(), rest[:-1, -1]
    prior = prior_of_the_rest(layout.gaps, shocks)
    gram[: len(prior), : len(prior)] += prior
    for name, block in layout.blocks.items():
        own = np.arange(block.start - first, block.stop - first)
        gram[own, own] += now.spreads[name] ** -2.0
    lower = scipy.linalg.cholesky(gram, lower=True)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(gram), layout.draws)) / np.sqrt(layout.draws)
    mean = scipy.linalg.cho_solve((lower, True), moment)
    others = np.column_stack([mean, scipy.linalg.solve_triangular(lower, noise, lower=True, trans="T")])
    if blocks is None:
        return others
    pull = blocks.cross.reshape(first, -1) @ others
    noise = rng.standard_normal((first, layout.draws)) / np.sqrt(layout.draws)
    target = np.column_stack([blocks.moment.ravel(), noise]) - pull
    drawn = blocks.factor @ target.reshape(shocks[0].levels, periods, -1)
    return np.vstack([drawn.reshape(first, -1), others])


def nodes_about(rho: float, slid: float = np.inf) -> np.ndarray:
    """Chebyshev nodes between the values that rho may take next, shape (node,); `slid` is how far it went last."""
    number, reach = next((number, reach) for most, number, reach in REACHES if slid <= most)
    low, high = max(rho - reach, -MOST_RHO), min(rho + reach, MOST_RHO)
    return (low + high) / 2 + (high - low) / 2 * chebyshev.chebpts1(number)


def between(nodes: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the values at the nodes in the polynomial through them, and in its derivative, shape (node,)."""
    low, high = nodes.min(), nodes.max()
    if low == high:
        return np.ones(len(nodes)), np.zeros(len(nodes))
    degree, place = len(nodes) - 1, (2 * rho - low - high) / (high - low)
    inverse = np.linalg.inv(chebyshev.chebvander((2 * nodes - low - high) / (high - low), degree))
    slopes = [chebyshev.chebval(place, chebyshev.chebder(row)) for row in np.eye(degree + 1)]
    return chebyshev.chebvander(np.array([place]), degree)[0] @ inverse, np.array(slopes) @ inverse * 2 / (high - low)


def update_units(said: Forms, nodes: np.ndarray, now: Nuisance, errors: Errors) -> Nuisance:
    """Maximise the unit-level likelihood over rho, then over nu and the typical scales.

    Between the nodes (1 - rho^2) q_i and l less its part in log(1 - rho^2) are polynomials to many digits.
    """
    told = said.told if errors.scale == "unit" else np.ones(len(said.told), dtype=bool)
    free = np.where(told, said.rows - 1.0, 0.0)
    smooth = np.where(told[:, None], said.q, 0.0) * (1 - nodes**2)
    log = said.log + 0.5 * free.sum() * np.log(1 - nodes**2)

    def expected(rho: float) -> np.ndarray:
        return np.maximum(smooth @ between(nodes, rho)[0], 0.0) / (1 - rho**2)

    def loss(rho: float) -> float:
        likelihood = t_likelihood(expected(rho), free, said.ever, now.nu, now.never**2, now.ever**2)
        return -float(log @ between(nodes, rho)[0]) + 0.5 * free.sum() * np.log(1 - rho**2) - likelihood

    def slope(rho: float) -> float:
        q, steeper = expected(rho), between(nodes, rho)[1]
        moved = (smooth @ steeper + 2 * rho * q) / (1 - rho**2)
        s0 = np.where(said.ever, now.ever, now.never) ** 2
        pull = 1 / s0 if np.isinf(now.nu) else (now.nu + free) / (now.nu * s0 + q)
        return -float(log @ steeper) - free.sum() * rho / (1 - rho**2) + 0.5 * float(pull @ moved)

    rho = now.rho
    if errors.serial == "ar1" and (free >= 2).any():
        within = (nodes.min(), nodes.max())
        rho = optimize.minimize_scalar(loss, bounds=within, method="bounded", options={"xatol": 1e-4}).x
        low, high = max(rho - 0.01, within[0]), min(rho + 0.01, within[1])
        if slope(low) < 0 < slope(high):  # to the last digits, so that the order of sums does not show
            rho = optimize.brentq(slope, low, high, xtol=1e-15)
    nu, never, ever = typical_scales(expected(float(rho)), free, said.ever, errors.scale)
    return replace(
        now,
        rho=float(rho),
        nu=nu,
        never=float(np.sqrt(never)),
        ever=float(np.sqrt(ever if said.ever.any() else never)),
    )


def onset_beyond(onset: tuple[float, ...], own: np.ndarray, cross: np.ndarray) -> tuple[float, ...]:
    """Shares of the differences that are there at event times 0, 1, ..., one over-relaxed step of expected likelihood.

    With F_e u what all of the differences would be at event time e and r the residual at the present shares m,

        m + (E[(F_e u)'M F_f u])^-1 E[(F_e u)'M r],    drawn towards Normal(1, ONSET^2)

    Parameters
    ----------
    onset : tuple of float
        m.
    own : array, shape (event time, event time)
        E[(F_e u)'M F_f u].
    cross : array, shape (event time,)
        E[(F_e u)'M r].
    """
    m = np.array(onset)
    step = np.linalg.solve(own + np.eye(len(m)) / ONSET**2, cross - (m - 1) / ONSET**2)
    return tuple(np.clip(m + STRIDE * step, 0.0, MOST_ONSET).tolist())


def t_likelihood(q: np.ndarray, free: np.ndarray, ever: np.ndarray, nu: float, never: float, treated: float) -> float:
    """Log likelihood of unit-level quadratic forms, less what does not depend on rho, nu or s0."""
    s0 = np.where(ever, treated, never)
    if np.isinf(nu):
        return float(-0.5 * (free * np.log(s0) + q / s0).sum())
    sizes, units = np.unique(free, return_counts=True)
    counted = float(units @ (gammaln((nu + sizes) / 2) - gammaln(nu / 2)))
    return counted + float((nu / 2 * np.log(nu * s0) - (nu + free) / 2 * np.log(nu * s0 + q)).sum())


def t_slopes(
    q: np.ndarray, free: np.ndarray, ever: np.ndarray, nu: float, never: float, treated: float
) -> tuple[float, float, float]:
    """Derivatives of `t_likelihood` in log nu and in the logarithms of the two s0."""
    s0 = np.where(ever, treated, never)
    sizes, units = np.unique(free, return_counts=True)
    part = (nu + free) / (nu * s0 + q)
    counted = float(units @ (digamma((nu + sizes) / 2) - digamma(nu / 2))) / 2
    of_nu = counted + 0.5 * float((np.log(nu * s0) + 1 - np.log(nu * s0 + q) - part * s0).sum())
    of_scale = nu / 2 * (1 - part * s0)
    return nu * of_nu, float(of_scale[~ever].sum()), float(of_scale[ever].sum())


def typical_scales(q: np.ndarray, free: np.ndarray, ever: np.ndarray, scale: str) -> tuple[float, float, float]:
    """nu and s0 of never-treated and ever-treated units, the latter's equal to the former's where none is apart."""
    if scale == "common":
        s0 = float(q.sum() / free.sum())
        return np.inf, s0, s0
    several = bool(ever.any())
    units = len(q)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        nu, never, treated = np.exp(x[0]), np.exp(x[1]), np.exp(x[-1])
        slope = np.array(t_slopes(q, free, ever, nu, never, treated)[: len(x)])
        return -t_likelihood(q, free, ever, nu, never, treated) / units, -slope / units

    middle = np.log(max(np.median(q[free > 0] / free[free > 0]), 1e-9))
    start = np.array([np.log(5.0), *[middle] * (1 + several)])
    bounds = [(np.log(NU[0]), np.log(NU[1]))] + [(middle - 8, middle + 8)] * (1 + several)
    best = optimize.minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds).x
    nu, never, treated = np.exp(polished(lambda x: loss(x)[1], best, np.array(bounds)))[[0, 1, -1]]
    return float(nu), float(never), float(treated)


def polished(slope: Callable[[np.ndarray], np.ndarray], x: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """A minimum to the last digits by Newton's steps in what is not at its bounds, so that the order of sums does not
    show; as given where these lead away.
    """
    free = (x > bounds[:, 0] + 1e-6) & (x < bounds[:, 1] - 1e-6)
    found = x.copy()
    for _ in range(4):
        steps = 1e-4 * np.eye(len(x))[free]
        bend = np.array([(slope(found + h) - slope(found - h))[free] / 2e-4 for h in steps])
        if not len(bend) or np.linalg.eigvalsh(bend + bend.T).min() <= 0:
            return x
        found[free] -= np.linalg.solve(bend, slope(found)[free])
        if np.abs(found - x).max() > 0.01 or (found < bounds[:, 0]).any() or (found > bounds[:, 1]).any():
            return x
    return found


def update_shocks(layout: Layout, coefficients: np.ndarray, now: Nuisance) -> Nuisance:
    """Each shock one step on, in phi beyond the step that expected likelihood takes."""
    periods = len(layout.gaps) + 1
    at, shocks = 0, {}
    for name, shock in now.shocks.items():
        mine = coefficients[at : at + shock.levels * periods].reshape(shock.levels, periods, -1)
        at += shock.levels * periods
        new = update_shock(mine, layout.gaps, shock)
        further = shock.phi + STRIDE * (new.phi - shock.phi)
        shocks[name] = replace(new, phi=float(np.clip(further, LEAST_PHI, MOST_PHI)))
    return replace(now, shocks=shocks)


def update_spreads(
    layout: Layout, coefficients: np.ndarray, now: Nuisance, effects: np.ndarray | None = None
) -> Nuisance:
    """Prior SDs of the terms that are pooled, by expected likelihood, as if one more level had the typical spread.

    That of single units' effects by their marginal likelihood where they are integrated out: `effects` as in
    `src.passes.Forms`.
    """
    spreads = dict(now.spreads)
    for name, block in layout.blocks.items():
        levels = block.stop - block.start
        if name not in FIXED and levels >= LEAST_LEVELS:
            spreads[name] = float(np.sqrt((np.sum(coefficients[block] ** 2) + TYPICAL**2) / (levels + 1)))
    if effects is not None and len(effects):
        spreads["unit"] = spread_of_effects(effects, now.nu, now.ever**2)
    return replace(now, spreads=spreads)


def spread_of_effects(effects: np.ndarray, nu: float, s0: float) -> float:
    """Spread v^1/2 of the effects of single units, from their marginal likelihood with error scales integrated out.

        p_i(v) = integral of scaled-inverse-chi^2(w; nu, s0) w^(-p_i / 2) (1 + d_i v / w)^(-1/2)
                 exp(-(q_i - b_i^2 v / (w + d_i v)) / (2 w)) dw
        sum_i -2 log p_i(v) + log v + TYPICAL^2 / v    is least

    over the logarithm of w by the trapezoidal rule, which is good for what is smooth and vanishes at both ends: to .1%
    of the spread, .4% for units of two rows where nu is 1. Expected likelihood of the effects would creep, and scales
    held at what they are expected to be would make the spread too small: a unit with a large effect would pass for one
    with large errors.

    Parameters
    ----------
    effects : array, shape (adopter, 4)
        d_i, E[b_i^2], E[q_i] and p_i, as in `src.passes.Forms`; units with d_i = 0 tell nothing, and of very many some
        are enough.
    nu, s0 : float
        Of the scales of adopters; all equal to s0 where nu is infinite.
    """
    telling = effects[effects[:, 0] > 0]
    known, square, q, free = telling[:: len(telling) // MOST_TOLD + 1].T[:, :, None]
    if np.isfinite(nu):
        reach = NODES_FROM * np.sqrt(2 / (nu + free))
        least = np.log((nu * s0 + np.maximum(q - square / known, 0)) / (nu + free)) - reach
        most = np.log((nu * s0 + q) / (nu + free)) + reach
        log = least + (most - least) * np.linspace(0, 1, SCALES)
        scale = np.exp(log)
        base = -(nu + free) / 2 * log - (nu * s0 + q) / (2 * scale) + log / 2
    else:
        scale, base = np.full_like(q, s0), np.zeros_like(q)

    @cache  # the ends are asked for twice
    def slope(log_spread: float) -> float:
        v = np.exp(2 * log_spread)
        total = scale + known * v
        told = base - 0.5 * np.log(total) + square * v / (2 * scale * total)
        share = np.exp(told - told.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return float((share * (known * v / total - square * v / total**2)).sum() + 1 - TYPICAL**2 / v)

    low, high = np.log(MOST_SPREAD).tolist()
    if slope(low) >= 0 or slope(high) <= 0:
        return float(np.exp(low if slope(low) >= 0 else high))
    return float(np.exp(optimize.brentq(slope, low, high, xtol=1e-14)))


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
