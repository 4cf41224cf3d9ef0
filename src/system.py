"""Several outcomes in one posterior: a triangular system whose equations are collapsed one by one.

    panel ──alone──▶ panel of each equation, given the outcomes before it ──collapse──▶ evidence ──▶ models.system

    y_j = X phi_j + sum over l < j of c_jl y_l + errors_j

The outcomes before enter as columns, in units of the s of their own equation. As errors of different equations are
independent by construction, the likelihood is the product of the equations', each of which is collapsed exactly as that
of a single outcome, with errors (serial correlation, scales of units, shocks) of its own. The effect of adoption on y_j
whatever way it goes is, for every average of effects alike,

    theta_j = phi_j + sum over l < j of c_jl theta_l

Assumes that shocks and serially correlated errors of an outcome are tied to those of the outcomes before by the same c.

Of counts, the second is a part of the first, y_2 of the y_1 events that there are:

    y_2 | y_1 ~ Binomial(y_1, p),    log p / (1 - p) = a_i + X phi_2 + z

so that phi_2 is the effect on the log odds of the share. It, and not the effect on the part, is what levels have a
prior on: two effects that are nearly known to differ by little would be drawn to zero twice. What disturbs all events
alike leaves the share as it is, and the two equations are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from models.inputs import OUTCOME, Design
from src.collapse import Collapsed, collapse, saturated
from src.design import NUISANCE, build_design
from src.errors import Errors
from src.panel import Panel, PanelError
from src.passes import precision_of, unchanging
from src.products import centred_within, cross_products, eliminate, least_squares

MARK = "::"  # between the name of an equation and that of what is in it
FIRST = ""  # name of the equation of data.outcome
LEAST_BREAD = 0.2  # of A in units of P: a single unit may not make a slope's variance endless
LEAST_LEFT = 1e-6  # of the SD of an outcome: below it, rounding
MOST_EXPLAINED = 1e5  # residual SD without the outcomes before over that with them


@dataclass(frozen=True)
class Equation:
    """One outcome given those before it.

    Attributes
    ----------
    name : str
        Column of the outcome; empty for data.outcome.
    collapsed : Collapsed
    scale : array, shape (earlier,)
        s of the outcomes before, the unit of their columns.
    width : float
        Residual SD of the saturated fit without the outcomes before, in units of s.
    ratio : array, shape (earlier,)
        SD of what is left of the outcome over SD of what is left of each of those before; see `residual_ratios`.
    """

    name: str
    collapsed: Collapsed
    scale: np.ndarray
    width: float
    ratio: np.ndarray

    @property
    def is_share(self) -> bool:
        """Whether it is a count given that of which it is a part."""
        return self.collapsed.regression.panel.whole is not None

    @property
    def earlier(self) -> tuple[str, ...]:
        """Names of the outcomes before."""
        return tuple(self.collapsed.regression.panel.given)

    def named(self, thing: str) -> str:
        """The name of something in this equation."""
        return f"{self.name}{MARK}{thing}" if self.name else thing


def only(collapsed: Collapsed) -> tuple[Equation, ...]:
    """The system of a single outcome."""
    return (Equation(FIRST, collapsed, np.zeros(0), 1.0, np.zeros(0)),)


def first(system: Sequence[Equation]) -> Equation:
    """The equation of data.outcome."""
    return next(equation for equation in system if equation.name == FIRST)


def collapse_all(
    panel: Panel,
    shares: Mapping[str, np.ndarray],
    errors: Errors,
    order: Sequence[str],
    units: bool,
    own: bool,
    alike: bool,
) -> tuple[Equation, ...]:
    """Collapse every equation given the outcomes before it.

    Parameters
    ----------
    panel : Panel
        With the other outcomes.
    shares : dict of str to array, shape (row,)
        Exposures.
    errors : Errors
    order : sequence of str
        Names of all outcomes, "" for data.outcome.
    units : bool
        Adopters have effects of their own.
    own : bool
        As of `src.collapse.collapse`.
    alike : bool
        All outcomes are on the scale of the first: in logs if it is.

    Raises
    ------
    PanelError
        An equation that cannot be told, with the name of its outcome.
    """
    found: list[Equation] = []
    outcomes = {FIRST: panel.outcome} | panel.others
    for name in order:
        said = name or "data.outcome"
        scale = np.array([equation.collapsed.s for equation in found])
        before = {one.name or OUTCOME: outcomes[one.name] / one.collapsed.s for one in found}
        regression, _ = build_design(alone(panel, name, before, alike), dict(shares), units)
        if name and unchanging(regression.panel).all():
            raise PanelError(f"{said} does not change within any unit: give an outcome that changes over time")
        try:
            collapsed = collapse(regression, errors, own=own)
        except PanelError as error:
            raise PanelError(f"{said} (as an outcome of its own): {error}") from None
        least = LEAST_LEFT * regression.frame.outcome[1]
        if name and collapsed.s < least:
            raise PanelError(f"{said} does not vary beyond units, periods, covariates and adoption: leave it out")
        if not before:
            found.append(Equation(name, collapsed, scale, 1.0, scale))
            continue
        width = width_of(collapsed)
        if width > MOST_EXPLAINED or collapsed.s < least:
            raise PanelError(
                f"{said} is a linear function of {', '.join(before)} beyond units, periods and adoption, so nothing of "
                "its own is left: name only one of them"
            )
        ratio = residual_ratios(collapsed, scale)
        found.append(Equation(name, with_clustered_slopes(collapsed), scale, width, ratio))
    return tuple(found)


def collapse_counts(
    panel: Panel, shares: Mapping[str, np.ndarray], errors: Errors, name: str, units: bool
) -> tuple[Equation, ...]:
    """Collapse a count, and a part of it given how many there are in all.

    Parameters
    ----------
    panel : Panel
        With the part beside its outcome.
    shares, errors, units
        As of `collapse_all`.
    name : str
        Of the part.

    Raises
    ------
    PanelError
        As of `src.collapse.collapse`.
    """
    regression, _ = build_design(alone(panel, FIRST, {}, False), dict(shares), units)
    whole = collapse(regression, errors)
    assert whole.levels is not None
    of_kind = replace(alone(panel, name, {}, False), whole=panel.outcome, offset=None)
    regression, _ = build_design(of_kind, dict(shares), units)
    try:
        part = collapse(regression, errors, height=whole.levels.height)  # a share amounts to as much as the whole is
    except PanelError as error:
        raise PanelError(f"{name} (as a part of data.outcome): {error}") from None
    return *only(whole), Equation(name, part, np.zeros(0), 1.0, np.zeros(0))


def alone(panel: Panel, name: str, before: dict[str, np.ndarray], alike: bool) -> Panel:
    """The panel of one outcome, with the ones before it, shape (row,) each, on the right-hand side.

    Of its truth, the effects are those on the outcome whatever way they go.
    """
    if not name:
        return replace(panel, others={}, given=before)
    truth = None if panel.truth is None else panel.truth.others.get(name)
    outcome, is_log = panel.others[name], panel.is_log and alike
    return replace(panel, outcome=outcome, others={}, given=before, truth=truth, is_log=is_log)


def width_of(collapsed: Collapsed) -> float:
    """Residual SD of the saturated fit without the outcomes before, in units of that with them."""
    design = collapsed.regression.design
    names = tuple(name for name in saturated(design) if name != "earlier")
    return least_squares(collapsed.evidence.take(design.columns(names)))[2] / collapsed.s


def residual_ratios(collapsed: Collapsed, scale: np.ndarray) -> np.ndarray:
    """SD of the errors over the SD of what the saturated regression leaves of each outcome before, shape (earlier,).

        s sqrt(dof / G_k),    G_k = sum_i x_ik'M_i x_ik of what is left of y_k, beside the other outcomes before

    as the regression sees both: filtered and weighted as its errors are.
    """
    design = collapsed.regression.design
    names = saturated(design)
    given = collapsed.evidence.take(design.columns(names))
    size = sum(design.blocks[name].size for name in names)
    last = np.arange(size - len(scale), size)
    left, _ = eliminate(given, last, np.arange(size - len(scale)))
    squares = scale**2 / np.diag(np.linalg.inv(left.gram))
    return collapsed.s * np.sqrt((left.dof - len(last)) / squares)


def with_clustered_slopes(collapsed: Collapsed) -> Collapsed:
    """The same, evidence about slopes of the outcomes before no stronger than their variance clustered by unit allows.

    A unit's weight w_i is estimated from its residuals, drawn towards those of others. Effects of adoption, the same in
    all rows of a unit, do not mind; a slope in what varies as the errors do rests on units whose errors are larger than
    their weights say, and on weights that follow the very residuals that it leaves. As a solution of

        sum_i w_i(q_i) x_i'M_i e_i = 0,    w_i = f_i / (f_i + 2) f_i / (nu + q_i),    f_i = nu + n_i - 1,
        q_i = e_i'M_i e_i over the square of the typical scale

    it has variance B / A^2 instead of 1 / P, with x, e what the saturated regression leaves and z_i = w_i x_i'M_i e_i:

        P = s^2 sum w_i x_i'M_i x_i,    B = sum z_i^2,    A = P - sum 2 (f_i + 2) / f_i^2 z_i^2

    so that P becomes F^-1/2 P F^-1/2, F = diag(max(B P / A^2, 1)), about the same slopes; what is known of all else
    given the slopes stays. Shocks of groups are left out of x and e: the factor is that of errors of units.
    """
    regression = collapsed.regression
    design = regression.design
    if "earlier" not in design.blocks:
        return collapsed
    larger = np.maximum(clustered_over_plain(collapsed), 1.0)
    evidence, kept = collapsed.evidence, positions(design)
    mine = np.isin(kept, design.columns(("earlier",)))
    at, rest = np.flatnonzero(mine), np.flatnonzero(~mine)
    left, _ = eliminate(evidence, at, rest)
    lost = left.gram - left.gram / np.sqrt(np.outer(larger, larger))
    slopes = np.linalg.solve(left.gram, left.moment)
    gram, moment = evidence.gram.copy(), evidence.moment.copy()
    gram[np.ix_(at, at)] -= lost
    moment[at] -= lost @ slopes
    square = evidence.square - float(slopes @ lost @ slopes)
    return replace(collapsed, evidence=replace(evidence, gram=gram, moment=moment, square=square))


def positions(design: Design) -> np.ndarray:
    """Positions in the design of the columns that evidence is about."""
    return design.columns(tuple(name for name in design.blocks if name not in NUISANCE))


def clustered_over_plain(collapsed: Collapsed) -> np.ndarray:
    """B P / A^2 of `with_clustered_slopes`, shape (earlier,)."""
    regression, nuisance = collapsed.regression, collapsed.nuisance
    panel, design = regression.panel, regression.design
    names = (*saturated(design), *(name for name in NUISANCE if name in design.blocks))
    columns = design.columns(names)
    mine = np.isin(columns, design.columns(("earlier",)))
    matrix = sp.csr_array(regression.matrix[:, columns])
    precision = precision_of(panel, nuisance.weight, nuisance.rho)
    outcome = centred_within(panel.outcome, panel.unit)
    cross = cross_products(matrix, outcome, panel.unit, precision)
    left, conditional = eliminate(cross, np.flatnonzero(mine), np.flatnonzero(~mine))
    slopes = np.linalg.solve(left.gram, left.moment)
    given = matrix[:, mine].toarray()
    residual = outcome - given @ slopes - matrix[:, ~mine] @ (conditional.mean - conditional.slope @ slopes)
    x = given - matrix[:, ~mine] @ conditional.slope
    ones = precision @ np.ones(len(outcome))
    size = np.bincount(panel.unit, ones)
    filtered = precision @ x
    for k in range(filtered.shape[1]):
        filtered[:, k] -= ones * (np.bincount(panel.unit, ones * x[:, k]) / size)[panel.unit]
    scores = np.column_stack([np.bincount(panel.unit, column * residual) for column in filtered.T])
    freedom = nuisance.nu + np.bincount(panel.unit) - 1.0
    moved = (2 * (freedom + 2) / freedom**2) @ scores**2 if np.isfinite(nuisance.nu) else 0.0
    plain = collapsed.s**2 * (filtered * x).sum(axis=0)
    return (scores**2).sum(axis=0) * plain / np.maximum(plain - moved, LEAST_BREAD * plain) ** 2
