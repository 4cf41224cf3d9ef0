"""Several outcomes in one posterior: a triangular system whose equations are collapsed one by one.

    panel ──alone──▶ panel of each equation, given the outcomes before it ──collapse──▶ evidence ──▶ models.system

    y_j = X phi_j + sum over l < j of c_jl y_l + errors_j

The outcomes before enter as columns, in units of the s of their own equation. As errors of different equations are
independent by construction, the likelihood is the product of the equations', each of which is collapsed exactly as that
of a single outcome, with errors (serial correlation, scales of units, shocks) of its own. The effect of adoption on y_j
whatever way it goes is, for every average of effects alike,

    theta_j = phi_j + sum over l < j of c_jl theta_l

Assumes that shocks and serially correlated errors of an outcome are tied to those of the outcomes before by the same c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.collapse import Collapsed, collapse
from src.design import build_design
from src.errors import Errors
from src.panel import Panel, PanelError

MARK = "::"  # between the name of an equation and that of what is in it
FIRST = ""  # name of the equation of data.outcome
OUTCOME = "outcome"  # what it is called on the right-hand side of others


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
    """

    name: str
    collapsed: Collapsed
    scale: np.ndarray

    @property
    def earlier(self) -> tuple[str, ...]:
        """Names of the outcomes before."""
        return tuple(self.collapsed.regression.panel.given)

    def named(self, thing: str) -> str:
        """The name of something in this equation."""
        return f"{self.name}{MARK}{thing}" if self.name else thing


def only(collapsed: Collapsed) -> tuple[Equation, ...]:
    """The system of a single outcome."""
    return (Equation(FIRST, collapsed, np.zeros(0)),)


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
        scale = np.array([equation.collapsed.s for equation in found])
        before = {one.name or OUTCOME: outcomes[one.name] / one.collapsed.s for one in found}
        regression, _ = build_design(alone(panel, name, before, alike), dict(shares), units)
        try:
            collapsed = collapse(regression, errors, own=own)
        except PanelError as error:
            raise PanelError(f"{name or 'data.outcome'}: {error}") from None
        found.append(Equation(name, collapsed, scale))
    return tuple(found)


def alone(panel: Panel, name: str, before: dict[str, np.ndarray], alike: bool) -> Panel:
    """The panel of one outcome, with the ones before it, shape (row,) each, on the right-hand side.

    Of its truth, the effects are those on the outcome whatever way they go.
    """
    if not name:
        return replace(panel, others={}, given=before)
    truth = None if panel.truth is None else panel.truth.others.get(name)
    outcome, is_log = panel.others[name], panel.is_log and alike
    return replace(panel, outcome=outcome, others={}, given=before, truth=truth, is_log=is_log)
