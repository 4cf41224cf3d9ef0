"""What others' adoption would amount to if some units adopted next: exposures under a hypothetical date of adoption.

    S_j(A)  exposure of unit j where the set A has adopted at `start`, besides all who have by then
    w(A)    = sum over units j present of the mean over periods of what enters the regression under A, less the same
              under nobody more:
                  exposure    S_j(A) - S_j(0)
                  difference  D_j(A) (S_j(A) - Sbar) - D_j(0) (S_j(0) - Sbar)
              in SDs of the exposure, so that w(A)'theta is what A changes beside the adopters' own tau

A share, and any other exposure that adds up over adopters, is linear in A, so w(A) is a sum over pairs:

    w(A) = sum over i in A of w({i}) + sum over i, j in A, i != j of the part of S_j that is due to i   (difference)

Only the nearest adopter's is not: there w(A) is computed anew for every set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from models.inputs import BY
from src.config import ExposureConfig
from src.design import Regression
from src.exposure import exposures_of
from src.panel import Mapping, Panel, PanelError, count
from src.ties import mapping_of

BATCH = 256  # candidates whose exposures are computed at a time
NOBODY = np.zeros(0, dtype=int)


@dataclass(frozen=True)
class Hypothesis:
    """Who may adopt next, when, and whom it can reach.

    Attributes
    ----------
    panel : Panel
    mappings : dict of str to Mapping
        Of every exposure that has slopes, with ties to all who may adopt.
    periods : array of int, shape (period,)
        Over which effects are averaged; adoption is in the first.
    candidates : array of int, shape (candidate,)
        Positions among the panel's units: never treated, and present.
    present : array of int, shape (present,)
        Units with a row in one of the last periods.
    """

    panel: Panel
    mappings: dict[str, Mapping]
    periods: np.ndarray
    candidates: np.ndarray
    present: np.ndarray

    @property
    def event_times(self) -> np.ndarray:
        """Periods since adoption, shape (period,)."""
        return self.periods - self.periods[0]

    @property
    def place(self) -> np.ndarray:
        """Position of each candidate among the units present, shape (candidate,)."""
        return np.searchsorted(self.present, self.candidates)


@dataclass(frozen=True)
class Responses:
    """What each candidate's adoption changes, alone and in pairs.

    Attributes
    ----------
    alone : array, shape (candidate, column)
        w({i}) without the candidate's own standing, over all columns of the design.
    standing : array, shape (candidate, column)
        S_i(0) - Sbar of the candidate itself, on the columns of `difference`.
    pairs : dict of int to sparse array, shape (candidate, candidate)
        By column of `difference`: part of the row's exposure that is due to the column's adoption, in SDs.
    linear : bool
        w is a sum over pairs.
    """

    alone: np.ndarray
    standing: np.ndarray
    pairs: dict[int, sp.csr_array]
    linear: bool


def hypothesis_of(
    panel: Panel, entries: dict[str, ExposureConfig], names: tuple[str, ...], horizon: int, recent: int
) -> Hypothesis:
    """Adoption in the period after the last, by units that never adopted and have a row in one of the last periods.

    Parameters
    ----------
    panel : Panel
    entries : dict of str to ExposureConfig
        What each exposure is.
    names : tuple of str
        Exposures that have slopes.
    horizon : int
        Periods after that of adoption.
    recent : int
        Last periods in one of which a unit has to have a row.

    Raises
    ------
    PanelError
        Nobody is left who could adopt, or ties to them cannot be rebuilt.
    """
    calendar = panel.periods
    step = int(np.gcd.reduce(np.diff(calendar)))
    present = np.unique(panel.unit[panel.time >= calendar[-recent:][0]])
    candidates = present[np.isinf(panel.cohort[present])]
    if not len(candidates):
        raise PanelError(
            f"no untreated unit has a row in the last {count(recent, 'period')}: nobody is left to be chosen; raise "
            "recent"
        )
    mappings = {name: with_candidates(panel, name, entries[name]) for name in names}
    periods = calendar[-1] + step * np.arange(1, horizon + 2)
    return Hypothesis(panel, mappings, periods, candidates, present)


def with_candidates(panel: Panel, name: str, entry: ExposureConfig) -> Mapping:
    """The mapping with ties to units that never adopted, too: of units, a panel keeps only those to adopters.

    Raises
    ------
    PanelError
        Ties are learned, or depend on sizes that are not kept.
    """
    mapping = panel.roster.mappings[name]
    if mapping.form == "learned":
        raise PanelError(
            f"data.exposures.{name} has a learned kernel, whose effect of several new adopters at once is not computed "
            "here: fit with a ring or a kernel of a given scale"
        )
    if mapping.members is not None or mapping.ties is None:
        return mapping
    never = ~np.isfinite(panel.roster.cohort)
    labels = np.array([f"\0{k}" for k in range(len(never))], dtype=object)  # units without rows have no name here
    labels[panel.roster.position] = panel.units
    places = np.zeros((len(never), 2)) if mapping.places is None else mapping.places
    member = dict(zip((entry.latitude or "", entry.longitude or ""), places.T, strict=True))
    known = replace(entry, size=None)
    found = mapping_of(name, known, member, labels.astype(str), np.zeros(len(never)), None, [])
    assert found.ties is not None
    assert found.total is not None
    named = np.isin(np.arange(len(never)), panel.roster.position) | (mapping.places is not None)
    if not np.allclose(found.total[named], (mapping.total if mapping.total is not None else found.total)[named]):
        raise PanelError(
            f"data.exposures.{name} counts units by size, and its ties to units that never adopted are not kept: leave "
            "size and data.weigh_exposures out, or use shares within a column"
        )
    more = sp.csr_array(found.ties @ sp.diags_array(never.astype(float)))
    return replace(mapping, ties=sp.csr_array(mapping.ties + more))


def missing_ties(entries: dict[str, ExposureConfig]) -> list[str]:
    """Files of ties that are no longer there."""
    files = [entry.weights for entry in entries.values() if entry.weights]
    return [file for file in files if not Path(file).expanduser().is_file()]


def exposures_under(hypothesis: Hypothesis, chosen: np.ndarray) -> np.ndarray:
    """Exposures of the units present where `chosen` adopt, shape (exposure, present, period).

    Parameters
    ----------
    hypothesis : Hypothesis
    chosen : array of int
        Positions among the units.
    """
    roster = hypothesis.panel.roster
    cohort = roster.cohort.copy()
    cohort[roster.position[chosen]] = hypothesis.periods[0]
    here = roster.position[hypothesis.present]
    found = [np.zeros((0, len(here), len(hypothesis.periods)))]
    for mapping in hypothesis.mappings.values():
        adopted = cohort[:, None] + mapping.lag <= hypothesis.periods
        found.append(np.nan_to_num(exposures_of(mapping, adopted)[here])[None])
    return np.concatenate(found)


def treated_under(hypothesis: Hypothesis, chosen: np.ndarray) -> np.ndarray:
    """Adoption of the units present where `chosen` adopt, shape (present, period)."""
    cohort = hypothesis.panel.cohort.copy()
    cohort[chosen] = hypothesis.periods[0]
    return cohort[hypothesis.present][:, None] <= hypothesis.periods


def weights_under(hypothesis: Hypothesis, regression: Regression, chosen: np.ndarray) -> np.ndarray:
    """w(A) over all columns of the design, shape (column,), computed anew from the exposures of everybody.

    Parameters
    ----------
    hypothesis : Hypothesis
    regression : Regression
        For the units and the centres of its columns.
    chosen : array of int
        Positions among the units: A.
    """
    found = np.zeros(regression.design.size)
    if not hypothesis.mappings:
        return found
    sd, centre = regression.exposure_sd[:, None, None], regression.exposure_centre[:, None, None]
    before, after = (exposures_under(hypothesis, who) for who in (NOBODY, chosen))
    untreated, treated = (treated_under(hypothesis, who) for who in (NOBODY, chosen))
    change = ((after - before) / sd).mean(axis=2)  # (exposure, present)
    gained = (treated * (after - centre) - untreated * (before - centre)) / sd
    blocks = regression.design.blocks
    found[blocks["exposure"].columns] = change.sum(axis=1) * regression.frame.told
    found[blocks["difference"].columns] = gained.mean(axis=2).sum(axis=1)
    for k, name in enumerate(hypothesis.mappings):
        if BY + name in blocks:
            level = level_of(hypothesis, name)
            found[blocks[BY + name].columns] = np.bincount(level, change[k], blocks[BY + name].size)
    return found


def level_of(hypothesis: Hypothesis, name: str) -> np.ndarray:
    """Level, of the group over which the slope of an exposure differs, of the units present."""
    panel = hypothesis.panel
    return panel.groups[hypothesis.mappings[name].by].code[hypothesis.present]


def responses_of(hypothesis: Hypothesis, regression: Regression) -> Responses:
    """What the adoption of each candidate changes, one at a time, for all exposures.

    Every batch of candidates is a set of columns of hypothetical adoption, one candidate more in each.
    """
    candidates, design = hypothesis.candidates, regression.design
    alone = np.zeros((len(candidates), design.size))
    standing = np.zeros((len(candidates), design.size))
    pairs: dict[int, sp.csr_array] = {}
    before = exposures_under(hypothesis, NOBODY)
    for k, name in enumerate(hypothesis.mappings):
        own = before[k, hypothesis.place].mean(axis=1) - regression.exposure_centre[k]
        column = design.blocks["difference"].start + k
        standing[:, column] = own / regression.exposure_sd[k]
        pairs[column] = respond(hypothesis, regression, k, name, alone)
    linear = all(mapping.form != "nearest" for mapping in hypothesis.mappings.values())
    return Responses(alone, standing, pairs, linear)


def respond(hypothesis: Hypothesis, regression: Regression, k: int, name: str, alone: np.ndarray) -> sp.csr_array:
    """Fill in w({i}) of one exposure; the parts of the candidates' own exposures, shape (candidate, candidate).

    Parameters
    ----------
    hypothesis, regression
    k, name : int, str
        Of the exposure.
    alone : array, shape (candidate, column)
        Receives what the exposure adds.
    """
    mapping, roster, blocks = hypothesis.mappings[name], hypothesis.panel.roster, regression.design.blocks
    here, who = roster.position[hypothesis.present], roster.position[hypothesis.candidates]
    told, unit = regression.frame.told[k], regression.exposure_sd[k]
    treated = treated_under(hypothesis, NOBODY)
    adopted = roster.cohort[:, None] + mapping.lag <= hypothesis.periods
    felt = hypothesis.periods[0] + mapping.lag <= hypothesis.periods
    by = level_of(hypothesis, name) if BY + name in blocks else None
    kept = []
    for start in range(0, len(who), BATCH):
        batch = np.arange(start, min(start + BATCH, len(who)))
        parts = sp.csr_array((len(who), len(batch)))
        for share, period in phases(adopted, treated, felt):
            scenario = np.repeat(adopted[:, [period]], len(batch), axis=1)
            baseline = np.nan_to_num(exposures_of(mapping, scenario[:, :1])[here])
            scenario[who[batch], np.arange(len(batch))] = True
            change = share * (np.nan_to_num(exposures_of(mapping, scenario)[here]) - baseline) / unit
            alone[batch, blocks["exposure"].start + k] += told * change.sum(axis=0)
            alone[batch, blocks["difference"].start + k] += treated[:, period] @ change
            if by is not None:
                columns = np.arange(regression.design.size)[blocks[BY + name].columns]
                indicator = by[:, None] == np.arange(len(columns))
                alone[np.ix_(batch, columns)] += change.T @ indicator
            parts = parts + sp.csr_array(change[hypothesis.place])
        kept.append(parts)
    return sp.csr_array(sp.hstack(kept, format="csr"))


def phases(adopted: np.ndarray, treated: np.ndarray, felt: np.ndarray) -> list[tuple[float, int]]:
    """Periods in which new adoption is felt, those that are alike once: the share of all periods, and one of them."""
    alike: dict[bytes, list[int]] = {}
    for period in np.flatnonzero(felt):
        alike.setdefault(adopted[:, period].tobytes() + treated[:, period].tobytes(), []).append(int(period))
    return [(len(same) / len(felt), same[0]) for same in alike.values()]
