"""All that a model may read: the columns, the evidence about their coefficients, and the priors.

The consumer owns the contract: `src` fills these records, `models` only reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

OUTCOME = "outcome"  # what the equation of data.outcome, named "", is called beside others
UNITLESS = ("_offset", "_length", "_partial", "_tied", "_correlation")  # ends the name of what is not in units of s
BY = "spill_"  # begins the block of an exposure's slopes by the levels of a group


@dataclass(frozen=True)
class Block:
    """A named run of design columns that share one dimension.

    Attributes
    ----------
    name : str
        Term of the model: "mu", "path", "cohort", "cell", a group, "a:b", "<group>_late", "unit", "trait",
        "trait_late", "lead", "exposure", "difference", "spill_<exposure>", "kernel", "kernel_any", "kernel_number",
        "earlier", "covariate", "time".
    dim : str
        Dimension of its coefficients, "" for a scalar.
    levels : tuple of str or int, length (level,)
        Coordinate of that dimension.
    start : int
        Position of its first column in the design.
    predictor : array, shape (level,), optional
        Group-level predictor that shifts the mean of the term, centred over levels.
    """

    name: str
    dim: str
    levels: tuple
    start: int
    predictor: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.levels)

    @property
    def columns(self) -> slice:
        """Positions of its columns in the design."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Design:
    """Columns of the regression by name, without their rows.

    Attributes
    ----------
    blocks : dict of str to Block
        Every term that the data can carry; a model uses those it believes in.
    rows_per_event_time : array, shape (event_time,)
        Share of treated rows at each event time, to centre the path.
    """

    blocks: dict[str, Block]
    rows_per_event_time: np.ndarray
    groups: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of columns of all blocks."""
        return sum(block.size for block in self.blocks.values())

    @property
    def interactions(self) -> tuple[str, ...]:
        """Names of the pairwise interactions of groups, in design order."""
        return tuple(name for name in self.blocks if name.count(":") == 1)

    @property
    def all_labels(self) -> list[str]:
        """One label for every column of the design."""
        return self.labels(tuple(self.blocks))

    def columns(self, names: tuple[str, ...]) -> np.ndarray:
        """Positions of the columns of the named blocks, in the order of `names`."""
        return np.concatenate([np.arange(self.size)[self.blocks[name].columns] for name in names])

    def positions(self, labels: Iterable) -> np.ndarray:
        """Positions in the design of single columns, given their labels, shape (label,)."""
        place = {label: k for k, label in enumerate(self.all_labels)}
        return np.array([place[str(label)] for label in labels], dtype=int)

    def labels(self, names: tuple[str, ...]) -> list[str]:
        """One label a column, "term[level]", or "term" for a scalar."""
        return [
            f"{name}[{level}]" if self.blocks[name].dim else name
            for name in names
            for level in self.blocks[name].levels
        ]


@dataclass(frozen=True)
class CrossProducts:
    """Evidence about a coefficient vector theta, after unit effects are integrated out.

    Up to a constant, with sigma the residual SD (s where the weights already carry every scale),

        log p(y | theta, sigma) = -dof log sigma - (square - 2 moment'theta + theta'gram theta) / (2 sigma^2)

    or, where one of several descriptions of the spillover is true and has been integrated out,

        log p(y | theta, sigma) = log sum_h exp(log_weight_h + the same with square_h, moment_h, gram_h)

    Attributes
    ----------
    gram : array, shape (column, column), or (description, column, column)
        X'MX.
    moment : array, shape (column,), or (description, column)
        X'My.
    square : float, or array of shape (description,)
        y'My.
    dof : float
        Observations less what has been integrated out under flat priors.
    sigma_known : bool
        The weights carry the scales of all units, relative to s: sigma = s.
    log_weight : array, shape (description,), optional
        None where there is nothing to choose from.

    Notes
    -----
    Records over disjoint sets of units add up, as long as there is nothing to choose from.
    """

    gram: np.ndarray
    moment: np.ndarray
    square: float | np.ndarray
    dof: float
    sigma_known: bool = False
    log_weight: np.ndarray | None = None

    def __add__(self, other: CrossProducts) -> CrossProducts:
        assert self.log_weight is None
        assert other.log_weight is None
        return replace(
            self,
            gram=self.gram + other.gram,
            moment=self.moment + other.moment,
            square=self.square + other.square,
            dof=self.dof + other.dof,
        )

    def take(self, columns: np.ndarray) -> CrossProducts:
        """The evidence where only `columns` enter (all other coefficients are zero)."""
        gram = self.gram[..., columns[:, None], columns]
        return replace(self, gram=gram, moment=self.moment[..., columns])

    def rescale(self, s: float) -> CrossProducts:
        """The evidence about theta / s, the outcome measured in units of `s`."""
        return replace(self, moment=self.moment / s, square=self.square / s**2)


@dataclass(frozen=True)
class Priors:
    """Scales of the priors in units of s, the residual SD of the saturated fit.

    Attributes
    ----------
    mu : float
        SD of the Normal prior of the average effect, about `centre`.
    sd : float
        Scale of the half-Student-t(3) prior of every estimated spread `sd_<term>`.
    fixed : float
        SD of the deviations of a term whose spread is not estimated.
    min_levels : int
        A term with fewer levels gets the fixed SD.
    path : float
        SD of an increment of the effect from one event time to the next.
    predictor : float
        SD of the slope of a group-level predictor.
    exposure : float
        SD of a spillover slope, per SD of the exposure over exposed rows.
    difference : float
        SD of (slope of the treated - slope of the others), same unit.
    ring : float
        SD of the step that a learned kernel takes from one distance to the next.
    cell : float
        SD of an unpooled cell: wide enough to be flat.
    lead : float
        SD of an effect before adoption, where leads are looked at.
    sigma : float
        SD of log(sigma / s).
    centre : float
        Mean of the prior of the average effect.
    """

    mu: float
    sd: float
    fixed: float
    min_levels: int
    path: float
    predictor: float
    exposure: float
    difference: float
    ring: float
    cell: float
    lead: float
    sigma: float
    centre: float = 0.0
