"""Who is exposed to whom: what others' adoption amounts to for a unit in a period.

    share      S_it = sum_j w_ij D_j,t-lag / sum_j w_ij          of the others, in [0, 1]
    additive   S_it = sum_j w_ij D_j,t-lag
    nearest    S_it = max_j w_ij D_j,t-lag
    learned    S_it = 1 where there is a tie to an adopter at all; what it amounts to is learned, see src.kernel

over j other than i, with ties w_ij within the level of a classification (then w_ij is the size of j), between units or
between levels. Between levels, w_ij D_j is the tie of i's level to another one, times the treated share of that level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from src.panel import Mapping, Panel, count, some

NAMED = 5  # exposures named in a note
FLAT = 1e-6  # of the range of an exposure
PER_POINT = 0.01  # step of a share: a percentage point


def leave_one_out_share(treated: np.ndarray, members: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Treated share among the other members of each unit's group.

    S[i, t] = (sum of w[j] D[j, t] over j in group(i), j != i) / (sum of w[j] over j in group(i), j != i)

    Parameters
    ----------
    treated : array, shape (unit, time)
        Adoption D, 0 or 1.
    members : array of int, shape (unit,)
        Group of each unit ever in the file; fixed over time, and adopters count from their cohort on even in periods
        where they have no row, so that entry and exit cannot move a share by themselves.
    weights : array, shape (unit,), optional
        Weight w of each unit; ones where not given.

    Returns
    -------
    array, shape (unit, time)
        Share in [0, 1]; NaN where a unit is alone in its group, or the others all have weight 0 (no one to be
        exposed to).
    """
    weight = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=float)
    adopted = np.asarray(treated, dtype=float) * weight[:, None]
    groups = members.max() + 1
    adopted_in_group = np.zeros((groups, adopted.shape[1]))
    np.add.at(adopted_in_group, members, adopted)
    others = np.bincount(members, weight, groups)[members] - weight
    no_one = others[:, None] == 0
    share = (adopted_in_group[members] - adopted) / np.where(no_one, 1.0, others[:, None])
    return np.where(no_one, np.nan, np.clip(share, 0.0, 1.0))


def row_shares(panel: Panel) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every exposure on the rows of the panel.

    Parameters
    ----------
    panel : Panel

    Returns
    -------
    shares : dict of str to array, shape (row,)
        0 for a unit that nobody could expose.
    notes : list of str
        One line, where there are such units: how many, by exposure.
    """
    shares, alone = shares_and_alone(panel, panel.periods)
    return shares, nobody_else(alone)


def shares_and_alone(panel: Panel, periods: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Every exposure on the rows of the panel, and the number of units that nobody could expose.

    Parameters
    ----------
    panel : Panel
        Or a block of one, whose roster has the sums of all others.
    periods : array of int, shape (period,)
        Of the whole panel.
    """
    roster = panel.roster
    period = np.searchsorted(periods, panel.time)
    shares, alone = {}, {}
    for name, mapping in roster.mappings.items():
        if mapping.adopted is None:
            adopted = roster.cohort[:, None] + mapping.lag <= periods[None, :]
            exposure = exposures_of(mapping, adopted)[roster.position]
            alone[name] = int(np.isnan(exposure[:, 0]).sum())
            shares[name] = np.nan_to_num(exposure)[panel.unit, period]
        else:
            shares[name], alone[name] = shares_within(panel, mapping, period)
    return shares, alone


def shares_within(panel: Panel, mapping: Mapping, period: np.ndarray) -> tuple[np.ndarray, int]:
    """`leave_one_out_share` on the rows of a block, from sums over all units of every level; 0 where there is nobody.

    Parameters
    ----------
    panel : Panel
    mapping : Mapping
        With those sums.
    period : array of int, shape (row,)
    """
    assert mapping.adopted is not None
    members, size, in_level = sized(mapping)
    roster = panel.roster
    level, own = members[roster.position], size[roster.position]
    others = in_level[level] - own
    felt = mapping.adopted[level[panel.unit], period]
    felt = felt - own[panel.unit] * (roster.cohort[roster.position][panel.unit] + mapping.lag <= panel.time)
    if mapping.form == "share":
        reached = others > 0
        felt = np.clip(felt / np.where(reached, others, 1.0)[panel.unit], 0.0, 1.0) * reached[panel.unit]
    return felt, int((others == 0).sum())


def exposures_of(mapping: Mapping, adopted: np.ndarray) -> np.ndarray:
    """Exposure of every unit of the roster, shape (member, period); NaN where nobody could expose it.

    Parameters
    ----------
    mapping : Mapping
    adopted : array of bool, shape (member, period)
        Who counts as an adopter for the others.
    """
    if mapping.members is None:
        return between_units(mapping, adopted)
    size = np.ones(len(adopted)) if mapping.size is None else mapping.size
    if mapping.ties is not None:
        return between_levels(mapping, adopted, size)
    share = leave_one_out_share(adopted, mapping.members, size)
    if mapping.form == "share":
        return share
    others = np.bincount(mapping.members, size)[mapping.members] - size
    return share * others[:, None]


def between_units(mapping: Mapping, adopted: np.ndarray) -> np.ndarray:
    """Exposure through ties between units; parameters and returns as of `exposures_of`."""
    assert mapping.ties is not None
    assert mapping.total is not None
    reached = np.where(mapping.total > 0, 1.0, np.nan)[:, None]
    if mapping.form == "nearest":
        return reached * np.column_stack([strongest(mapping.ties, adopted[:, t]) for t in range(adopted.shape[1])])
    felt = mapping.ties @ adopted.astype(float)
    if mapping.form == "learned":
        return reached * (felt > 0)
    return reached * (felt if mapping.form == "additive" else felt / np.maximum(mapping.total, 1e-300)[:, None])


def strongest(ties: sp.csr_array, adopted: np.ndarray) -> np.ndarray:
    """Strongest tie of each unit to an adopter, shape (unit,); 0 where it has none."""
    return (ties @ sp.diags_array(adopted.astype(float))).max(axis=1).toarray().ravel()


def between_levels(mapping: Mapping, adopted: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Exposure through ties between the levels of a classification; returns as of `exposures_of`.

    A unit's own level counts with the share of its other members, where the file ties the level to itself.
    """
    assert mapping.ties is not None
    assert mapping.members is not None
    members, levels = mapping.members, mapping.ties.shape[0]
    total = np.bincount(members, size, levels)
    treated = np.zeros((levels, adopted.shape[1]))
    np.add.at(treated, members, adopted * size[:, None])
    share = treated / np.where(total > 0, total, 1.0)[:, None]
    own = mapping.ties.diagonal()[members]
    others = (mapping.ties @ share)[members] - own[:, None] * share[members]
    felt = others + own[:, None] * np.nan_to_num(leave_one_out_share(adopted, members, size))
    sums = np.asarray(mapping.ties.sum(axis=1)).ravel()[members]
    reached = np.where(sums > 0, 1.0, np.nan)[:, None]
    return reached * (felt if mapping.form == "additive" else felt / np.maximum(sums, 1e-300)[:, None])


@dataclass(frozen=True)
class Reach:
    """From whom an exposure of a set of rows comes; adds up over blocks of units.

    Attributes
    ----------
    table : array, shape (level, period)
        Within a classification: what a member of the level adds to the exposure of all rows if it has adopted by then,
        for each unit of its size; empty where ties run otherwise.
    own : array, shape (unit,)
        What of it would be added to the unit's own rows, over the periods in which it has adopted.
    direct : array, shape (member,)
        Where ties run otherwise: how much comes from each unit of the roster.
    """

    table: np.ndarray
    own: np.ndarray
    direct: np.ndarray

    def __add__(self, other: Reach) -> Reach:
        return Reach(self.table + other.table, np.r_[self.own, other.own], self.direct + other.direct)


def reach_of(panel: Panel, name: str, rows: np.ndarray, periods: np.ndarray) -> Reach:
    """From whom an exposure of some rows comes.

    Parameters
    ----------
    panel : Panel
    name : str
    rows : array of bool, shape (row,)
    periods : array of int, shape (period,)
    """
    roster, mapping = panel.roster, panel.roster.mappings[name]
    if mapping.members is None or mapping.ties is not None:
        return Reach(np.zeros((0, 0)), np.zeros(0), direct_sources(panel, name, rows))
    members, size, in_level = sized(mapping)
    of_unit, own_size = members[roster.position], size[roster.position]
    period = np.searchsorted(periods, panel.time)
    others = (in_level[of_unit] - own_size)[panel.unit]
    mine = panel.weight / np.where(others > 0, others, np.inf) if mapping.form == "share" else panel.weight
    table = np.zeros((len(in_level), len(periods)))
    np.add.at(table, (of_unit[panel.unit[rows]], period[rows]), mine[rows])
    adopted = roster.cohort[roster.position][panel.unit] + mapping.lag <= panel.time
    return Reach(table, np.bincount(panel.unit, mine * (rows & adopted), len(panel.units)), np.zeros(0))


def from_each(panel: Panel, name: str, reach: Reach, periods: np.ndarray) -> np.ndarray:
    """How much of an exposure of a set of rows comes from each unit of the roster, shape (member,).

        a_j = size_j (sum over periods in which j has adopted of table[level of j, t], less its own rows)

    Parameters
    ----------
    panel : Panel
    name : str
    reach : Reach
        Of all rows of the set.
    periods : array of int, shape (period,)
    """
    roster, mapping = panel.roster, panel.roster.mappings[name]
    if not reach.table.size:
        return reach.direct
    members, size, _ = sized(mapping)
    later = np.column_stack([np.cumsum(reach.table[:, ::-1], axis=1)[:, ::-1], np.zeros(len(reach.table))])
    start = np.searchsorted(periods, roster.cohort + mapping.lag)  # the first period in which it counts
    found = later[members, start]
    found[roster.position] -= reach.own
    return np.maximum(size * found, 0.0)


def sized(mapping: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level and size of every unit of the roster, shape (member,), and the sum of sizes in each level."""
    assert mapping.members is not None
    size = np.ones(len(mapping.members)) if mapping.size is None else mapping.size
    in_level = np.bincount(mapping.members, size) if mapping.in_level is None else mapping.in_level
    return mapping.members, size, in_level


def sources(panel: Panel, name: str, rows: np.ndarray) -> np.ndarray:
    """How much of an exposure of some rows comes from each unit of the roster, shape (member,); sums to the exposure.

    a_j = sum over rows (i, t) of weight_it S_it's part that is due to j

    Parameters
    ----------
    panel : Panel
    name : str
    rows : array of bool, shape (row,)

    Notes
    -----
    Between levels, a unit's own level counts as if it were in it: the parts are then approximate.
    """
    return from_each(panel, name, reach_of(panel, name, rows, panel.periods), panel.periods)


def direct_sources(panel: Panel, name: str, rows: np.ndarray) -> np.ndarray:
    """`sources` where ties run between units, or between the levels of a classification."""
    roster, periods, mapping = panel.roster, panel.periods, panel.roster.mappings[name]
    member, period = roster.position[panel.unit[rows]], np.searchsorted(periods, panel.time[rows])
    felt = np.zeros((len(roster.cohort), len(periods)))
    np.add.at(felt, (member, period), panel.weight[rows])
    adopted = roster.cohort[:, None] + mapping.lag <= periods[None, :]
    if mapping.members is None:
        return from_units(mapping, felt, adopted)
    assert mapping.ties is not None
    members, size, in_level = sized(mapping)
    sums = np.asarray(mapping.ties.sum(axis=1)).ravel()
    rate = mapping.ties / sums[:, None] if mapping.form == "share" else mapping.ties
    by_level = np.zeros((len(in_level), len(periods)))
    np.add.at(by_level, members, felt)
    reached = sp.csr_array(rate).T @ by_level / np.where(in_level > 0, in_level, 1.0)[:, None]
    return (adopted * size[:, None] * reached[members]).sum(axis=1)


def from_units(mapping: Mapping, felt: np.ndarray, adopted: np.ndarray) -> np.ndarray:
    """`sources` where ties run between units; `felt` and `adopted` have shape (member, period)."""
    assert mapping.ties is not None
    assert mapping.total is not None
    if mapping.form == "nearest":
        found = np.zeros(len(felt))
        for t in range(felt.shape[1]):
            open_ties = sp.csr_array(mapping.ties @ sp.diags_array(adopted[:, t].astype(float)))
            strength = open_ties.max(axis=1).toarray().ravel()
            found += np.bincount(np.asarray(open_ties.argmax(axis=1)).ravel(), felt[:, t] * strength, len(felt))
        return found
    if mapping.form == "share":
        felt = felt / np.where(mapping.total > 0, mapping.total, np.inf)[:, None]
    ties = mapping.ties.sign() if mapping.form == "learned" else mapping.ties
    return (adopted * (ties.T @ felt)).sum(axis=1)


def flat_exposures(panel: Panel, shares: dict[str, np.ndarray]) -> dict[str, str]:
    """Exposures that fixed effects absorb, each with the reason why the level of its slope cannot be told.

    Where S_it does not vary among untreated rows of the same level and period, effects of level x period explain all
    that it does to them. Within such a cell only adopters differ, S_it = (adopters - D_it) / (others): a leave-one-out
    slope would rest on D_it / (others) alone, that is on the effect of own adoption. So the slope on the untreated is
    left out, and what a regression takes for own adoption is tau - delta / (others). What adopters feel beyond the
    untreated, `difference`, is told apart, because it moves over time with the number of adopters.

    Parameters
    ----------
    panel : Panel
    shares : dict of str to array, shape (row,)

    Returns
    -------
    dict of str to str
        Name of the exposure: the reason.
    """
    found: dict[str, str] = {}
    rows = np.flatnonzero(~panel.treated)
    period = np.searchsorted(panel.periods, panel.time[rows])
    for factor in panel.fixed.values():
        cell = factor.code[panel.unit[rows]] * len(panel.periods) + period
        order = np.argsort(cell, kind="stable")
        start = np.flatnonzero(np.r_[True, np.diff(cell[order]) > 0])
        for name, share in shares.items():
            mine = share[rows][order]
            within = np.maximum.reduceat(mine, start) - np.minimum.reduceat(mine, start)
            if within.max() <= FLAT * np.ptp(mine):
                found.setdefault(
                    name,
                    f"among the untreated, {name} does not vary within {factor.name} x period, whose fixed effects "
                    "absorb it; only the difference between adopters and others can be told",
                )
    return found


def step_of(panel: Panel, name: str, exposure: np.ndarray) -> float:
    """The step in an exposure for which its slope is given: a percentage point of a share, else its SD where exposed.

    Parameters
    ----------
    panel : Panel
    name : str
    exposure : array, shape (row,)
    """
    return PER_POINT if is_share(panel, name) else spread(exposure[exposure > 0])


def is_share(panel: Panel, name: str) -> bool:
    """Whether an exposure is a share, so that percentage points are its unit."""
    return panel.roster.mappings[name].form == "share"


def spread(x: np.ndarray) -> float:
    """SD of `x`, or its mean where it does not vary, so that a column never divides by zero."""
    sd = float(np.std(x))
    return sd if sd > 1e-9 * abs(float(np.mean(x))) else float(np.mean(x))


def nobody_else(alone: dict[str, int]) -> list[str]:
    """What is said of units that nobody could expose: one line however many exposures there are; none without them.

    Parameters
    ----------
    alone : dict of str to int
        Units alone in their group or out of reach of all others, for each exposure.
    """
    alone = {name: n for name, n in alone.items() if n}
    if not alone:
        return []
    most = sorted(alone.items(), key=lambda item: -item[1])
    where = some((f"{name} ({count(n, 'unit')})" for name, n in most), NAMED)
    return [f"alone in their group or out of reach, so with nobody to be exposed to (exposure 0): {where}"]
