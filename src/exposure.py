"""Who is exposed to whom: the share of the other members of a group that have adopted."""

from __future__ import annotations

import numpy as np

from src.panel import Panel, count, some

NAMED = 5  # exposures named in a note


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


def row_shares(panel: Panel, weigh: bool = False) -> tuple[dict[str, np.ndarray], list[str]]:
    """Leave-one-out share of every exposure on the rows of the panel.

    Parameters
    ----------
    panel : Panel
    weigh : bool
        Weigh members by the roster's weights.

    Returns
    -------
    shares : dict of str to array, shape (row,)
        Share in [0, 1]; 0 for a unit that is alone in its group.
    notes : list of str
        One line, where there are units alone in their group: how many, by exposure.
    """
    roster, periods = panel.roster, panel.periods
    adopted = roster.cohort[:, None] <= periods[None, :]
    period = np.searchsorted(periods, panel.time)
    shares, alone = {}, {}
    for name, members in roster.members.items():
        share = leave_one_out_share(adopted, members, roster.weight if weigh else None)[roster.position]
        alone[name] = int(np.isnan(share[:, 0]).sum())
        shares[name] = np.where(np.isnan(share), 0.0, share)[panel.unit, period]
    return shares, nobody_else({name: n for name, n in alone.items() if n})


def nobody_else(alone: dict[str, int]) -> list[str]:
    """What is said of units alone in their group: one line however many exposures there are; none without such units.

    Parameters
    ----------
    alone : dict of str to int
        Units alone in their group, for each exposure that has any.
    """
    if not alone:
        return []
    most = sorted(alone.items(), key=lambda item: -item[1])
    where = some((f"{name} ({count(n, 'unit')})" for name, n in most), NAMED)
    return [f"alone in their group, so with nobody to be exposed to (exposure 0): {where}"]
