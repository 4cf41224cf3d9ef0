"""What an estimate of the errors does with rows: one block of units at a time, results that add up over blocks.

    forms    q_i = tr(M_i E_i) of every unit as a function of rho, what is there of differences at first
    weighed  weights of the units, and cross-products under them

with E_i = E[r_i r_i'] over the posterior of the coefficients: their mean first, then draws of their deviations from it.
Where effects of single units are integrated out, unit i adds f_i u_i to its rows, u_i ~ Normal(0, spread^2) and f_i the
rows that it has adopted in; then u_i given the rest is Normal((m_i - c_i'theta) / (d_i + tau), 1 / (d_i + tau)) with
d_i = f_i'M_i f_i, c_i = X_i'M_i f_i, m_i = y_i'M_i f_i, tau = spread^-2, which is local to the unit. What the unit
says of the spread and of its own error scale is in d_i, E[b_i^2] with b_i = m_i - c_i'theta, and its quadratic form
before u_i is taken out, all at scale 1: see `src.nuisance.spread_of_effects`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from models.inputs import BY
from src.design import MEAN, NUISANCE, Regression, own_rows, ramps, reached
from src.errors import FULL, Errors, Nuisance, Shock, shock_columns, shocks_of
from src.kernel import BLOCKS
from src.panel import Panel, first_rows
from src.products import Compensated, ar1_bands, ar1_precision, centred_within
from src.within import Indicators, Own, of_own, projected, within_products

ENTRIES, LEAST_DRAWS, MOST_DRAWS = 500_000, 32, 200
MANY, FEW_DRAWS = 1_000_000, 8  # rows over which chance averages out
LEAST_UNITS = 10  # ever- or never-treated units that can tell a scale of their own
BESIDE = ("exposure", "difference", "earlier", *BLOCKS, *NUISANCE)  # beside tau


@dataclass(frozen=True)
class Layout:
    """What every pass works on, without the rows.

    Attributes
    ----------
    names : tuple of str
        Blocks of the design whose columns follow those of the shocks.
    blocks : dict of str to slice
        Where each stands among the columns.
    shocks : dict of str to Shock
        In the order of their columns; codes over all units.
    periods : array of int, shape (period,)
    enough : bool
        Ever- and never-treated units are both enough to tell a scale of their own.
    own : bool
        Effects of single units are integrated out.
    draws : int
        From the posterior of the coefficients, in every pass.
    s : float
    """

    names: tuple[str, ...]
    blocks: dict[str, slice]
    shocks: dict[str, Shock]
    periods: np.ndarray
    enough: bool
    own: bool
    draws: int
    s: float

    @classmethod
    def of(cls, regression: Regression, errors: Errors, s: float, terms: tuple[str, ...] = ()) -> Layout:
        """The layout of a regression with the blocks `terms` of tau; with all pooled ones where none is given."""
        design, adopters = regression.design, regression.adopters
        shocks = shocks_of(regression.panel, errors.shocks)
        periods = regression.frame.periods
        beside = [name for name in design.blocks if name in BESIDE or name.startswith(BY)]
        kept = {*terms, *beside} if terms else set(design.blocks) - {"group_cell", "lead", "trait", "trait_late", MEAN}
        names = tuple(name for name in design.blocks if name in kept)
        sizes = [sum(shock.levels * len(periods) for shock in shocks.values())]
        ends = np.cumsum([*sizes, *(design.blocks[name].size for name in names)]).tolist()
        draws = np.clip(ENTRIES // regression.rows, FEW_DRAWS if regression.rows > MANY else LEAST_DRAWS, MOST_DRAWS)
        return cls(
            names,
            {name: slice(a, b) for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)},
            shocks,
            periods,
            bool(min(adopters.sum(), (~adopters).sum()) >= LEAST_UNITS),
            regression.integrated,
            int(draws),
            s,
        )

    @property
    def shocked(self) -> int:
        """Number of columns of shocks, which come first."""
        return sum(shock.levels * len(self.periods) for shock in self.shocks.values())

    @property
    def gaps(self) -> np.ndarray:
        """Calendar distance from one period to the next, shape (period - 1,)."""
        return np.diff(self.periods)

    @property
    def codes(self) -> dict[str, np.ndarray]:
        """Level of every unit in the classification of each shock."""
        return {name: shock.code for name, shock in self.shocks.items()}


@dataclass(frozen=True)
class Workspace:
    """Rows as every pass uses them, outcome in units of s.

    Attributes
    ----------
    layout : Layout
    panel : Panel
    shocks : list of Shock
        With the levels of these units.
    columns : sparse array, shape (row, column)
        Shocks (the classification with most levels first), then effects, exposures, covariates and periods.
    early : sparse array, shape (row, column)
        Those of the differences between levels and units, at event times of which only a share of them may be there.
    outcome : array, shape (row,)
        Less its mean within the unit.
    adopters : array of bool, shape (unit,)
        Ever treated here.
    start : array of int, shape (unit,)
        First row of each unit.
    root : array, shape (row,)
        Square root of the panel's weights.
    still : array of bool, shape (unit,)
        Units whose outcome never changes. They tell no scale of their own: nothing but zeros, on a scale that ends
        there, is not a sign of small errors. Theirs is the typical one.
    """

    layout: Layout
    panel: Panel
    shocks: list[Shock]
    columns: sp.csr_array
    early: sp.csr_array
    outcome: np.ndarray
    adopters: np.ndarray
    start: np.ndarray
    root: np.ndarray
    still: np.ndarray

    @classmethod
    def of(cls, regression: Regression, errors: Errors, s: float, terms: tuple[str, ...] = ()) -> Workspace:
        """The workspace of a regression; parameters as of `Layout.of`."""
        layout = Layout.of(regression, errors, s, terms)
        return cls.on(regression, layout, layout.codes)

    @classmethod
    def on(cls, regression: Regression, layout: Layout, codes: dict[str, np.ndarray]) -> Workspace:
        """The workspace of a regression, or of a block of one with `codes` of its units."""
        panel, design = regression.panel, regression.design
        shocks = [replace(shock, code=codes[name]) for name, shock in layout.shocks.items()]
        pieces = [shock_columns(panel, shock, layout.periods) for shock in shocks]
        columns = sp.csr_array(sp.hstack([*pieces, regression.matrix[:, design.columns(layout.names)]], format="csr"))
        ramping = np.zeros(columns.shape[1])
        for name, block in layout.blocks.items():
            ramping[block] = ramps(name, panel)
        early = sp.diags_array(at_event_times(panel).sum(axis=0))
        return cls(
            layout,
            panel,
            shocks,
            columns,
            sp.csr_array(early @ columns @ sp.diags_array(ramping)),
            centred_within(panel.outcome, panel.unit) / layout.s,
            regression.adopters,
            first_rows(panel.unit),
            np.sqrt(panel.weight),
            unchanging(panel),
        )

    def columns_at(self, onset: tuple[float, ...]) -> sp.csr_array:
        """The columns where shares `onset` of the differences are there at event times 0, 1, ..."""
        missing = sp.diags_array(1 - reached(self.panel.event_time, onset))
        return sp.csr_array(self.columns - missing @ self.early)

    @property
    def ever(self) -> np.ndarray:
        """Ever treated, where both kinds of units are enough to tell a scale of their own, shape (unit,)."""
        return self.adopters & self.layout.enough


@dataclass(frozen=True)
class Forms:
    """What units say of their errors at the present coefficients; those of other units are put after them.

    Attributes
    ----------
    q : array, shape (unit, node)
        tr(M_i E_i) at some values of rho.
    rows : array of int, shape (unit,)
    ever, told : array of bool, shape (unit,)
        Ever treated, where that matters; with an outcome that changes.
    log : array, shape (node,)
        Sum over the units that are told of l_i.
    own : array, shape (event time, event time)
    cross : array, shape (event time,)
        Of the shares of differences that are there at first, see `src.nuisance.onset_beyond`.
    effects : array, shape (adopter, 4)
        Where effects of single units are integrated out, of shape (0, 4) elsewhere: d_i, E[b_i^2], q_i with the effect
        in it, all at scale 1, and p_i; without adopters whose outcome never changes.
    """

    q: np.ndarray
    rows: np.ndarray
    ever: np.ndarray
    told: np.ndarray
    log: np.ndarray
    own: np.ndarray
    cross: np.ndarray
    effects: np.ndarray

    def __add__(self, other: Forms) -> Forms:
        return Forms(
            np.concatenate([self.q, other.q]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.ever, other.ever]),
            np.concatenate([self.told, other.told]),
            self.log + other.log,
            self.own + other.own,
            self.cross + other.cross,
            np.concatenate([self.effects, other.effects]),
        )


@dataclass(frozen=True)
class Weighed:
    """Weights of the units, those of other units after them, and cross-products under them, which add up.

    Attributes
    ----------
    weight : array, shape (unit,)
    products : Compensated
        Sparse of shape (column, column), the outcome last.
    """

    weight: np.ndarray
    products: Compensated

    def __add__(self, other: Weighed) -> Weighed:
        return Weighed(np.r_[self.weight, other.weight], self.products + other.products)


@dataclass(frozen=True)
class Residuals:
    """What is left of the rows at the coefficients, and what of it the shares of differences at first decide.

    Attributes
    ----------
    centre : array, shape (row,)
    deviation : array, shape (row, draw)
    felt : array, shape (row, 1 + draw)
        What all of the differences between levels and units would be, at the event times of those shares.
    noise : array, shape (row, 0 or 1)
        SD of what the effect of the unit itself adds, given all else.
    of_noise : array, shape (row, 0 or 1)
        Its part in `felt`.
    effects : array, shape (unit, 3)
        d_i, E[b_i^2] and the variance of the effect given all else.
    """

    centre: np.ndarray
    deviation: np.ndarray
    felt: np.ndarray
    noise: np.ndarray
    of_noise: np.ndarray
    effects: np.ndarray

    @property
    def all(self) -> np.ndarray:
        """Columns whose squares add up to expected squares, shape (row, 1 + draw, or one more)."""
        return np.column_stack([self.centre, self.deviation, self.noise])


def residuals(work: Workspace, weight: np.ndarray, coefficients: np.ndarray, now: Nuisance) -> Residuals:
    """Residuals under the nuisance parameters that the coefficients were solved at.

    Parameters
    ----------
    work : Workspace
    weight : array, shape (unit,)
    coefficients : array, shape (column, 1 + draw)
        Their mean, then deviations from it.
    now : Nuisance
    """
    felt = work.early @ coefficients
    left = (1 - reached(work.panel.event_time, now.onset))[:, None] * felt - work.columns @ coefficients
    left[:, 0] += work.outcome
    nothing = np.zeros((len(left), 0))
    if not work.layout.own:
        return Residuals(left[:, 0], left[:, 1:], felt, nothing, nothing, np.zeros((0, 3)))
    f, unit = own_rows(work.panel, now.onset), work.panel.unit
    pulled, known = of_own(f, unit, precision_of(work.panel, weight, now.rho))
    variance = 1 / (known + now.own**-2.0)
    own = np.add.reduceat(pulled[:, None] * left, work.start, axis=0)
    effects = np.column_stack([known, (own**2).sum(axis=1), variance])
    effect = variance[:, None] * own
    left -= f[:, None] * effect[unit]
    early = at_event_times(work.panel).sum(axis=0)
    spread = np.sqrt(variance)[unit]
    return Residuals(
        left[:, 0],
        left[:, 1:],
        felt + early[:, None] * effect[unit],
        (-f * spread)[:, None],
        (early * spread)[:, None],
        effects,
    )


def forms(work: Workspace, weight: np.ndarray, *, coefficients: np.ndarray, now: Nuisance, nodes: np.ndarray) -> Forms:
    """The forms of the units of a workspace at the values `nodes` of rho; see `Forms`."""
    left = residuals(work, weight, coefficients, now)
    at, told = expected_forms(work, left.all), ~work.still
    q = np.column_stack([at(rho) for rho in nodes])
    log = np.array([log_determinant(work, rho, told) for rho in nodes])
    precision = precision_of(work.panel, weight, now.rho)
    felt = np.column_stack([left.felt, left.of_noise])
    own, cross = shares_told(work.panel, felt, left.all, lambda x: projected(x, work.panel.unit, precision))
    rows = np.bincount(work.panel.unit)
    effects = of_effects(work, left, weight, rows - 1, at(now.rho)) if work.layout.own else np.zeros((0, 4))
    return Forms(q, rows, work.ever, told, log, own, cross, effects)


def at_event_times(panel: Panel) -> np.ndarray:
    """1 on the rows at event times 0, 1, ... of which only a share of the differences may be there, else 0.

    Shape (event time, row).
    """
    return (panel.event_time == np.arange(len(FULL))[:, None]).astype(float)


def shares_told(
    panel: Panel, felt: np.ndarray, left: np.ndarray, pull: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """E[(F_e u)'M F_f u] and E[(F_e u)'M r], shapes (event time, event time) and (event time,).

    Parameters
    ----------
    panel : Panel
    felt, left : array, shape (row, draw)
        F u at all of those event times, and r; expectations are sums over draws.
    pull : callable
        x -> M x.
    """
    masks = at_event_times(panel)
    pulled = [pull(mask[:, None] * felt) for mask in masks]
    own = np.array([[float((one * mask[:, None] * felt).sum()) for mask in masks] for one in pulled])
    return own, np.array([float((one * left).sum()) for one in pulled])


def of_effects(
    work: Workspace, left: Residuals, weight: np.ndarray, free: np.ndarray, without: np.ndarray
) -> np.ndarray:
    """What adopters say of the spread of their effects, as in `Forms`.

    With e the effect's mean given all else, q before it is taken out is q after it, less the part of its variance, plus
    2 e b - e^2 d, in expectation.

    Parameters
    ----------
    work : Workspace
    left : Residuals
    weight, free, without : array, shape (unit,)
        Weights, rows - 1, and the expected quadratic forms after effects are taken out.
    """
    d, square, variance = left.effects.T
    d, square = d / weight, square / weight**2
    of_mean = variance * weight
    q = without - d * variance + of_mean * (2 - of_mean * d) * square
    return np.column_stack([d, square, q, free])[work.adopters & ~work.still]


def weighed(
    work: Workspace,
    weight: np.ndarray,
    *,
    coefficients: np.ndarray | None,
    before: Nuisance,
    now: Nuisance,
    last: bool = False,
) -> Weighed:
    """Weights under new nuisance parameters, and the cross-products under both.

    Parameters
    ----------
    work : Workspace
    weight : array, shape (unit,)
        Those that the coefficients were solved at.
    coefficients : array, shape (column, 1 + draw), optional
        None before the first pass: the weights stay.
    before, now : Nuisance
        Where the coefficients were solved, and what has been learned from them.
    last : bool
        Leave the cross-products out: nothing is solved any more.
    """
    if coefficients is not None:
        weight = new_weights(work, weight, coefficients, before, now)
    if last:
        return Weighed(weight, Compensated.of(sp.csr_array((1, 1))))
    columns = sp.csr_array(sp.hstack([work.columns_at(now.onset), sp.csr_array(work.outcome[:, None])], format="csr"))
    own = Own(own_rows(work.panel, now.onset), now.own) if work.layout.own else None
    precision = precision_of(work.panel, weight, now.rho)
    time = work.layout.blocks.get("time")
    indicators = indicators_of(work.panel, work.shocks, work.layout.periods, time)
    return Weighed(weight, Compensated.of(within_products(columns, work.panel.unit, precision, own, indicators)))


def new_weights(
    work: Workspace, weight: np.ndarray, coefficients: np.ndarray, before: Nuisance, now: Nuisance
) -> np.ndarray:
    """w_i = E[(nu + p_i) / (nu s0 + r_i'M_i r_i)] over draws of the coefficients, 1 / s0 where all scales are equal."""
    s0 = np.where(work.ever, now.ever, now.never) ** 2
    if not np.isfinite(now.nu):
        return 1 / s0
    left = residuals(work, weight, coefficients, before)
    drawn = left.centre[:, None] + np.sqrt(left.deviation.shape[1]) * left.deviation
    q = quadratic_forms(work, np.column_stack([drawn, left.noise]), now.rho)
    q[:, : drawn.shape[1]] += q[:, drawn.shape[1] :].sum(axis=1, keepdims=True)
    q = np.where(work.still[:, None], 0.0, q[:, : drawn.shape[1]])
    free = np.where(work.still, 0.0, np.bincount(work.panel.unit) - 1.0)
    return np.mean((now.nu + free)[:, None] / ((now.nu * s0)[:, None] + q), axis=1)


def indicators_of(panel: Panel, shocks: list[Shock], periods: np.ndarray, time: slice | None) -> Indicators:
    """Which columns of rows are indicators: those of shocks, and those of all periods but the first at `time`."""
    codes, levels = tuple(shock.code for shock in shocks), tuple(shock.levels for shock in shocks)
    return Indicators(codes, levels, np.searchsorted(periods, panel.time), len(periods), time)


def precision_of(panel: Panel, weight: np.ndarray, rho: float) -> sp.csr_array:
    """Precision of the errors, shape (row, row), in units of 1 / s^2, from the weights of the units."""
    return ar1_precision(panel.unit, panel.time, panel.weight * weight[panel.unit], rho)


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


def unchanging(panel: Panel) -> np.ndarray:
    """Units that are seen more than once and whose outcome never changes, shape (unit,)."""
    most, least = np.full(len(panel.units), -np.inf), np.full(len(panel.units), np.inf)
    np.maximum.at(most, panel.unit, panel.outcome)
    np.minimum.at(least, panel.unit, panel.outcome)
    return (most == least) & (np.bincount(panel.unit, minlength=len(panel.units)) > 1)
