"""What the likelihood allows errors to do, and what has been estimated of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from src.panel import Panel
from src.products import BlockConditional, ar1_bands, eliminate_blocks

FULL = (1.0, 1.0)  # differences between levels and units that are all there from adoption on


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
    onset : tuple of float
        Share of the differences in effect between levels and units that is there at event times 0, 1, ...; all of them
        are later.
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
    onset: tuple[float, ...] = FULL
    passes: int = 0
    settled: bool = True

    @property
    def bare(self) -> Nuisance:
        """Without what there is of units, which goes to blocks apart."""
        nothing = np.zeros(0)
        return replace(self, weight=nothing, log_scale=nothing, shocks=without_codes(self.shocks))

    @property
    def own(self) -> float:
        """Spread of the effects of single units."""
        return self.spreads.get("unit", 0.0)

    def record(self, s: float, periods: int) -> dict:
        """The values for diagnostics.json, scales in units of the outcome."""
        shocks = {name: shock.record(s, periods) for name, shock in self.shocks.items()}
        return {
            "rho": self.rho,
            "nu": self.nu if np.isfinite(self.nu) else None,
            "scale_never": self.never * s,
            "scale_ever": self.ever * s,
            "shocks": shocks,
            "onset": list(self.onset),
            "passes": self.passes,
            "settled": self.settled,
        }


def shocks_of(panel: Panel, names: tuple[str, ...]) -> dict[str, Shock]:
    """Classifications of the units by name, an exposure's before a group's, most levels first."""
    found = {}
    for name in names:
        members = panel.roster.members[name][panel.roster.position] if name in panel.roster.members else None
        _, code = np.unique(panel.groups[name].code if members is None else members, return_inverse=True)
        found[name] = Shock(code, int(code.max()) + 1)
    return dict(sorted(found.items(), key=lambda item: -item[1].levels))


def without_codes(shocks: dict[str, Shock]) -> dict[str, Shock]:
    """The shocks without the level of any unit."""
    return {name: replace(shock, code=np.zeros(0, dtype=int)) for name, shock in shocks.items()}


def shock_columns(panel: Panel, shock: Shock, periods: np.ndarray) -> sp.csr_array:
    """Indicator of every level x period, a level's periods together, shape (row, level * period)."""
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
