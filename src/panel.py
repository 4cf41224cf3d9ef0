"""The panel: plain records, and the words in which the rest speaks of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

LESS, OVER = " - ", " in "  # between the names of two outcomes: effects on one less those on another; on a share


class PanelError(ValueError):
    """A user's mistake: the problem, the rows, the remedy, in one message."""


@dataclass(frozen=True)
class Factor:
    """A classification of units that does not change over time.

    Attributes
    ----------
    name : str
        Name of the group or exposure, e.g. "industry".
    levels : tuple of str
        Sorted labels.
    code : array of int, shape (unit,)
        Level of each unit, as a position in `levels`.
    """

    name: str
    levels: tuple[str, ...]
    code: np.ndarray


@dataclass(frozen=True)
class Mapping:
    """Who is exposed to whom, and from when on: what S_it is computed from; see src.exposure.

    Attributes
    ----------
    members : array of int, shape (member,), optional
        Level of each unit, where exposure runs within or between the levels of a classification.
    ties : sparse array, shape (member, member) or (level, level), optional
        Tie of the row's unit to the column's, or of the row's level to the column's; of units, only ties to those that
        ever adopt are kept. Without ties, every member of the same level is tied to every other alike.
    total : array, shape (member,), optional
        Sum of the ties of a unit to all others, adopters or not.
    size : array, shape (member,), optional
        How much each unit counts; ones where not given.
    form : {"share", "additive", "nearest", "learned"}
        Ties are distances in kilometres where it is learned what others' adoption amounts to; see src.kernel.
    lag : int
        Periods from adoption until others are exposed to it.
    cutoff : float
        Kilometres beyond which a kernel is zero, where one was given; that is where steps of a learned one end.
    by : str
        Group over whose levels the slope differs; empty where it is one.
    places : array, shape (member, 2), optional
        Latitude and longitude in degrees, where ties follow from distances.
    in_level : array, shape (level,), optional
        Sum of the sizes of all units of a level, where the roster is that of a block of units alone.
    adopted : array, shape (level, period), optional
        Sum of the sizes of those that have adopted, likewise.
    edges : tuple of float
        Kilometres by which a classical twin tells distances apart: the two ends of a ring, fifths of the cutoff of a
        learned kernel, empty for all else.
    """

    members: np.ndarray | None = None
    ties: sp.csr_array | None = None
    total: np.ndarray | None = None
    size: np.ndarray | None = None
    form: str = "share"
    lag: int = 0
    cutoff: float = float("nan")
    places: np.ndarray | None = None
    edges: tuple[float, ...] = ()
    by: str = ""
    in_level: np.ndarray | None = None
    adopted: np.ndarray | None = None


@dataclass(frozen=True)
class Roster:
    """Every unit ever in the file, also those that the likelihood leaves out: who can expose others.

    Attributes
    ----------
    cohort : array of float, shape (member,)
        First treated period; inf where never treated.
    mappings : dict of str to Mapping
        Of each exposure.
    position : array of int, shape (unit,)
        Where each unit of the panel stands in the roster.
    """

    cohort: np.ndarray
    mappings: dict[str, Mapping]
    position: np.ndarray

    @property
    def members(self) -> dict[str, np.ndarray]:
        """Level of each unit for every exposure that is built on a classification, shape (member,)."""
        return {name: m.members for name, m in self.mappings.items() if m.members is not None}


@dataclass(frozen=True)
class Truth:
    """What a generator knows.

    Attributes
    ----------
    tau : array, shape (row,)
        Effect of own adoption at zero exposure, for treated rows (0 elsewhere).
    slope_control, slope_treated : dict of str to float
        Effect per unit share of each exposure.
    spill : array, shape (row,), optional
        Effect of others' adoption on untreated rows, where no slope of an exposure says it.
    mean : array, shape (row,), optional
        Expected count without any adoption, where the outcome is a count.
    variance : array, shape (row,), optional
        Of the logarithm of the mean that a count is drawn with, shocks and disturbance together.
    others : dict of str to Truth
        Of outcomes beside the first.
    through : dict of str to float
        Slope of the outcome in each of those that it is caused by.
    """

    tau: np.ndarray
    slope_control: dict[str, float]
    slope_treated: dict[str, float]
    spill: np.ndarray | None = None
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None
    others: dict[str, Truth] = field(default_factory=dict)
    through: dict[str, float] = field(default_factory=dict)

    def of_rows(self, keep: np.ndarray) -> Truth:
        """What is true of the rows of `keep`, shape (row,)."""
        spill, mean, variance = (
            None if values is None else values[keep] for values in (self.spill, self.mean, self.variance)
        )
        others = {name: truth.of_rows(keep) for name, truth in self.others.items()}
        return replace(self, tau=self.tau[keep], spill=spill, mean=mean, variance=variance, others=others)


@dataclass(frozen=True)
class Panel:
    """Unit-period rows sorted by unit, then time; complete in outcome and covariates.

    Attributes
    ----------
    unit : array of int, shape (row,)
        Position in `units`.
    time : array of int, shape (row,)
        Calendar period.
    outcome : array of float, shape (row,)
        After the transform.
    weight : array of float, shape (row,)
        Sampling weights with mean one over rows.
    covariates : array of float, shape (row, covariate)
    units : array of str, shape (unit,)
    cohort : array of float, shape (unit,)
        First treated period; inf where never treated.
    groups : dict of str to Factor
        Pooled factors.
    predictors : dict of str to array of float, shape (level,)
        Group-level predictor of a group, one value a level.
    roster : Roster
    is_log : bool
        Effects are log points, so a percent scale exists.
    sha256 : str
        Of the data that were read.
    notes : tuple of str
        One line for each thing that was handled.
    truth : Truth, optional
    fixed : dict of str to Factor
        Classifications whose levels have an effect of their own in every period.
    offset : array of float, shape (row,), optional
        Exposure to risk of counts, in units of what their rate is of; ones where not given.
    whole : array of float, shape (row,), optional
        Number of events of which the outcome is a part.
    others : dict of str to array of float, shape (row,)
        Outcomes beside the first, of a model of several.
    given : dict of str to array of float, shape (row,)
        Outcomes on the right-hand side of the regression; see src.system.
    """

    name: str
    unit: np.ndarray
    time: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    covariates: np.ndarray
    covariate_names: tuple[str, ...]
    units: np.ndarray
    cohort: np.ndarray
    groups: dict[str, Factor]
    predictors: dict[str, np.ndarray]
    roster: Roster
    is_log: bool
    sha256: str
    notes: tuple[str, ...] = ()
    truth: Truth | None = None
    fixed: dict[str, Factor] = field(default_factory=dict)
    offset: np.ndarray | None = None
    whole: np.ndarray | None = None
    others: dict[str, np.ndarray] = field(default_factory=dict)
    given: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def log_offset(self) -> np.ndarray:
        """Logarithm of the exposure to risk, shape (row,)."""
        return np.zeros(len(self.unit)) if self.offset is None else np.log(self.offset)

    @property
    def periods(self) -> np.ndarray:
        """Calendar periods that occur, sorted."""
        return np.unique(self.time)

    @property
    def row_cohort(self) -> np.ndarray:
        """First treated period of each row's unit, shape (row,); inf where never treated."""
        return self.cohort[self.unit]

    def row_labels(self, factor: Factor) -> np.ndarray:
        """Label of a classification in each row, shape (row,)."""
        return np.array(factor.levels)[factor.code][self.unit]

    @property
    def treated(self) -> np.ndarray:
        """D, shape (row,): True from the cohort's period on."""
        return self.time >= self.row_cohort

    @property
    def event_time(self) -> np.ndarray:
        """e = t - g, shape (row,); -inf where never treated."""
        return self.time - self.row_cohort


def of_rows(panel: Panel, keep: np.ndarray) -> Panel:
    """The panel with the rows of `keep`, shape (row,): only units and levels that remain; the same roster."""
    kept, code = np.unique(panel.unit[keep], return_inverse=True)
    predictors = {name: z[np.unique(panel.groups[name].code[kept])] for name, z in panel.predictors.items()}
    truth = None if panel.truth is None else panel.truth.of_rows(keep)
    return replace(
        panel,
        unit=code,
        time=panel.time[keep],
        outcome=panel.outcome[keep],
        weight=panel.weight[keep] / panel.weight[keep].mean(),
        covariates=panel.covariates[keep],
        units=panel.units[kept],
        cohort=panel.cohort[kept],
        groups={name: of_units(factor, kept) for name, factor in panel.groups.items()},
        fixed={name: of_units(factor, kept) for name, factor in panel.fixed.items()},
        predictors=predictors,
        roster=replace(panel.roster, position=panel.roster.position[kept]),
        truth=truth,
        offset=None if panel.offset is None else panel.offset[keep],
        whole=None if panel.whole is None else panel.whole[keep],
        others={name: values[keep] for name, values in panel.others.items()},
        given={name: values[keep] for name, values in panel.given.items()},
    )


def of_units(factor: Factor, kept: np.ndarray) -> Factor:
    """The classification of the units `kept`, only levels that remain."""
    levels, code = np.unique(factor.code[kept], return_inverse=True)
    return Factor(factor.name, tuple(factor.levels[k] for k in levels), code)


def first_rows(unit: np.ndarray) -> np.ndarray:
    """Position of the first row of each unit, shape (unit,); a unit's rows are together."""
    return np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])


def partition(code: np.ndarray) -> bytes:
    """The same for classifications that put the same units together, however their levels are numbered."""
    _, first, level = np.unique(code, return_index=True, return_inverse=True)
    return first[level].tobytes()


def in_one_line(error: Exception) -> str:
    """Kind and words of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def count(n: int | np.integer, noun: str) -> str:
    """A count with its noun: "1 unit", "1,200 rows"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def some(values: Iterable[object], show: int = 3) -> str:
    """The first few of many: "3, 7, 9 and 12 more"."""
    values = list(values)
    more = f" and {len(values) - show:,} more" if len(values) > show else ""
    return ", ".join(str(value) for value in values[:show]) + more
