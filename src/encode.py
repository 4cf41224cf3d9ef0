"""From a DataFrame of unit-period rows to a Panel.

    file ──read──▶ DataFrame ──encode──▶ Panel

What is wrong ends in a `PanelError`; what can be handled is handled and said in `Panel.notes`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from src.config import DataConfig, exposure_entries
from src.examine import examine, judge, kept_rows, roll_of
from src.indices import derived
from src.panel import Factor, Panel, PanelError, Roster, Truth, count, some
from src.read import read
from src.ties import mapping_of
from src.validate import check_columns, check_joint_labels, check_outcome, check_settings, range_of


@dataclass(frozen=True)
class Known:
    """Where a frame has what a generator knows of its outcome.

    Attributes
    ----------
    tau : str
        Column with the true effect of own adoption.
    control, treated : dict of str to float
        True effect per unit share of each exposure.
    spill : str, optional
        Column with the true effect of others' adoption on untreated rows, where no slope says it.
    mean : str, optional
        Column with the expected count without any adoption.
    variance : str, optional
        Column with the variance of the logarithm of the mean that a count is drawn with.
    others : dict of str to Known
        Of outcomes beside the first.
    through : dict of str to float
        True slope of the outcome in each of those that it is caused by.
    """

    tau: str
    control: dict[str, float] = field(default_factory=dict)
    treated: dict[str, float] = field(default_factory=dict)
    spill: str | None = None
    mean: str | None = None
    variance: str | None = None
    others: dict[str, Known] = field(default_factory=dict)
    through: dict[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        mine = [name for name in (self.tau, self.spill, self.mean, self.variance) if name]
        return tuple(dict.fromkeys([*mine, *(name for other in self.others.values() for name in other.columns)]))

    def truth(self, rows: dict[str, np.ndarray], treated: np.ndarray) -> Truth:
        """What is true of rows; columns by name, and which rows are treated, shape (row,)."""
        spill, mean, variance = (rows[name] if name else None for name in (self.spill, self.mean, self.variance))
        others = {name: other.truth(rows, treated) for name, other in self.others.items()}
        tau = np.where(treated, rows[self.tau], 0.0)
        return Truth(tau, dict(self.control), dict(self.treated), spill, mean, variance, others, dict(self.through))


def load(data: DataConfig) -> Panel:
    """The panel that `data` describes: `read`, then `encode`."""
    frame, sha256 = read(data)
    return encode(frame, data, with_ties(sha256, data))


def with_ties(sha256: str, data: DataConfig) -> str:
    """The hash of the data and of the files of ties that they are read with; as given where there are none."""
    files = [Path(entry.weights).expanduser() for entry in exposure_entries(data).values() if entry.weights]
    digest = hashlib.sha256(sha256.encode())
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest() if files else sha256


def encode(
    frame: pd.DataFrame,
    data: DataConfig,
    sha256: str,
    known: Known | None = None,
) -> Panel:
    """The panel of a frame of unit-period rows.

    Columns of `data.derive` are computed before all else. Checked in this order: settings, columns, values, duplicates,
    adoption, memberships, the rows that the likelihood can use, their outcome, the labels of interactions (see
    src.examine). Rows left out, each kind with a note: weight 0; outcome, covariate or treatment status missing;
    always-treated units; periods in which nobody is untreated. The roster keeps every unit.

    Parameters
    ----------
    frame : DataFrame
        Left as it is. Messages count its rows from 1.
    data : DataConfig
    sha256 : str
    known : Known, optional
        What a generator knows.

    Returns
    -------
    Panel

    Raises
    ------
    PanelError
        What a user can mend: the problem, the rows, the remedy.
    """
    check_settings(data)
    frame, derivations = derived(frame, data)
    check_columns(frame, data)
    seen = examine(frame.set_axis(np.arange(len(frame))), data, known.columns if known else ())
    judged = judge(seen.census, data)
    keep = kept_rows(seen, judged)
    check_outcome(range_of(seen.outcome[keep], seen.unit[keep]), data.outcome)
    stays = np.unique(seen.unit[keep])
    notes = [*derivations, *seen.census.notes(data), *judged.notes, *roll_of(seen, keep).notes(judged.last)]
    groups = {name: factor(name, seen.member[source][stays]) for name, source in data.groups.items()}
    check_joint_labels(groups)
    truth = None
    if known is not None:
        extra = {name: values[keep] for name, values in seen.extra.items()}
        truth = known.truth(extra, (seen.time >= seen.cohort[seen.unit])[keep])
    sizes = seen.size if data.weigh_exposures else None
    mappings = {
        name: replace(mapping_of(name, entry, seen.member, seen.units, seen.cohort, sizes, notes), by=entry.by or "")
        for name, entry in exposure_entries(data).items()
    }
    weight = seen.weight[keep]
    return Panel(
        name=data.name,
        unit=np.searchsorted(stays, seen.unit[keep]),
        time=seen.time[keep],
        outcome=seen.outcome[keep],
        weight=weight / weight.mean(),
        covariates=seen.covariates[keep],
        covariate_names=tuple(data.covariates),
        others={name: values[keep] for name, values in seen.others.items()},
        units=seen.units[stays],
        cohort=seen.cohort[stays],
        groups=groups,
        predictors={
            name: predictor_of_levels(seen.spans[name], groups[name], source)
            for name, source in data.predictors.items()
        },
        roster=Roster(seen.cohort, mappings, stays),
        is_log=data.is_log or data.transform in ("log", "log1p"),
        sha256=sha256,
        notes=tuple(notes),
        truth=truth,
        fixed={name: factor(name, seen.member[name][stays]) for name in data.fixed_effects},
        offset=None if seen.offset is None else seen.offset[keep],
    )


def factor(name: str, level: np.ndarray) -> Factor:
    """A classification of the units kept, `level` shape (unit,); only levels that occur."""
    code, levels = pd.factorize(level, sort=True)
    return Factor(name, tuple(str(label) for label in levels), code)


def predictor_of_levels(span: pd.DataFrame, group: Factor, name: str) -> np.ndarray:
    """Group-level predictor of each level, shape (level,).

    Parameters
    ----------
    span : DataFrame, index level, columns min and max
        Of the predictor in the rows of each level.
    group : Factor
    name : str
        Column, for the message.

    Raises
    ------
    PanelError
        It varies within a level.
    """
    varies = span[span["min"] != span["max"]]
    if len(varies):
        cases = [f"{level}: {low:g} to {high:g}" for level, low, high in varies.itertuples()]
        raise PanelError(
            f"data.predictors.{group.name}: column {name!r} varies within {count(len(varies), 'level')} of "
            f"{group.name} ({some(cases)}): give every level one number"
        )
    return span["min"].reindex(list(group.levels)).to_numpy()
