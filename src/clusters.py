"""The two-way fixed effects coefficient with other standard errors: clustered by a classification, or by two.

Where shocks hit all units of a level, errors that are clustered by unit are too small. With few levels, clustering by
them is too optimistic as well: the note then has the p value of a wild cluster bootstrap under the null of no effect.

Source: Cameron, Gelbach & Miller (2008, 2011) for the bootstrap and for two ways.
"""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pandas as pd

from src.frequentist import Effect, feols, frame_of, is_weighted, least_squares, left_out, tabulate
from src.panel import Panel, partition

FEW = 50  # clusters, below which the bootstrap is run
DRAWS = 999
LEAST = 5  # clusters, for any standard error at all


def twfe_clusters(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """The coefficient of `twfe` once for every classification by which units are grouped, and for pairs of two.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals, Student's t with (clusters - 1) degrees of freedom.

    Returns
    -------
    DataFrame
        `att` of estimators `twfe_by_<name>` and `twfe_by_<name>+<name>`.
    """
    known = classifications(panel)
    frame, regressors, scale = frame_of(panel, {"D": panel.treated})
    names = {f"c{j}": name for j, name in enumerate(known)}
    frame = frame.assign(**{column: known[name][panel.unit] for column, name in names.items()})
    parts = []
    for ways in [*((column,) for column in names), *combinations(names, 2)]:
        clusters = min(frame[column].nunique() for column in ways)
        slopes, covariance = least_squares(frame, "y", regressors, "+".join(ways))
        if "x0" not in slopes.index:
            continue
        said = [f"clustered by {' and '.join(names[column] for column in ways)}: {clusters} clusters"]
        if len(ways) == 1 and clusters < FEW and not is_weighted(panel):
            said.append(f"wild cluster bootstrap p = {wild(frame, regressors, ways[0]):.3f}")
        se = scale * float(np.sqrt(np.maximum(covariance.to_numpy()[0, 0], 0.0)))
        effect = Effect("att", None, None, scale * float(slopes["x0"]), se, (panel.treated,), "; ".join(said))
        name = f"twfe_by_{'+'.join(names[column] for column in ways)}"
        parts.append(tabulate(panel, [effect], name, prob, left_out(exposures), clusters - 1))
    return pd.concat(parts, ignore_index=True) if parts else tabulate(panel, [], "twfe_clusters", prob)


def classifications(panel: Panel) -> dict[str, np.ndarray]:
    """Code of every unit in each of the panel's groups and exposures, those that are the same once, shape (unit,)."""
    everything = {name: factor.code for name, factor in panel.groups.items()}
    everything |= {name: code[panel.roster.position] for name, code in panel.roster.members.items()}
    found: dict[bytes, tuple[str, np.ndarray]] = {}
    for name, code in everything.items():
        if LEAST <= len(np.unique(code)) < len(panel.units):
            found.setdefault(partition(code), (name, code))
    return dict(found.values())


def wild(frame: pd.DataFrame, regressors: list[str], cluster: str) -> float:
    """p value of no effect by a wild cluster bootstrap with Rademacher weights, the null imposed."""
    fit = feols(frame, "y", regressors, cluster, lean=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on deprecated calls inside of the library
        return float(fit.wildboottest(param="x0", reps=DRAWS, seed=1)["Pr(>|t|)"])
