"""Classical twins for counts: fixed-effects Poisson by pyfixest, with the offset, clustered by unit.

    E[y_it] = exp(alpha_i + lambda_t + x_it'beta + sum over cells c of 1{it in c} tau_c) offset_it

An average effect is reported as the proportional one,

    percent = 100 (sum over rows m_it exp(tau_c) / sum over rows m_it - 1),    m_it the mean at tau = 0

and, in log points, as the row average of tau. Because the fitted means of a cell add up to its events, the logarithm of
the ratio moves by the share of each cell in sum m_it: its standard error follows by the delta method, and the interval
by transforming the endpoints.
"""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from src.frequentist import (
    COLUMNS,
    CONTRAST_LEVELS,
    labels_of_levels,
    left_out,
    level_periods,
    standard_covariates,
    treated_levels,
    treated_sets,
)
from src.panel import Panel

NO_EVENTS = (
    "not identified: some of these rows belong to a cell without events, or to units without any before adoption"
)


def poisson_twfe(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Fixed-effects Poisson with one adoption dummy, or one for each level of a group.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals.
    """
    records = averages(panel, {"D": panel.treated}, [("att", None, None, panel.treated)], prob)
    for group, label in labels_of_levels(panel).items():
        rows = treated_levels(panel, label)
        wanted = [("att_by", group, level, mask) for level, mask in rows.items()]
        pairs = combinations(rows, 2) if group in panel.groups and len(rows) in CONTRAST_LEVELS else ()
        records += averages(panel, rows, wanted, prob, [(group, a, b) for a, b in pairs])
    note = "one effect for all, with the weights of the regression" + left_out(exposures)
    return tabulated(records, "poisson_twfe", note)


def poisson_etwfe(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Extended two-way fixed effects Poisson: one dummy for each cohort x period cell (Wooldridge 2023).

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals.
    """
    sets = treated_sets(panel)
    cells = {str(level): mask for (estimand, level), mask in sets.items() if estimand == "att_gt"}
    wanted = [(estimand, None, level, mask) for (estimand, level), mask in sets.items()]
    return tabulated(averages(panel, cells, wanted, prob), "poisson_etwfe", left_out(exposures).removeprefix("; "))


def averages(
    panel: Panel, cells: dict[str, np.ndarray], wanted: list[tuple], prob: float, pairs: list[tuple] | None = None
) -> list[dict]:
    """Proportional effects and row averages over sets of treated rows from one regression on dummies of cells.

    Parameters
    ----------
    panel : Panel
    cells : dict of str to array of bool, shape (row,)
        Partition of the treated rows.
    wanted : list of (estimand, group, level, rows)
    prob : float
    pairs : list of (group, level, level), optional
        Contrasts of two cells.
    """
    tau, covariance, mean = regress(panel, cells)
    inside = np.array(list(cells.values()), dtype=float)
    quantile = float(stdtrit(len(np.unique(panel.unit)) - 1, (1 + prob) / 2))
    known = np.isfinite(tau)
    filled = np.where(known, tau, 0.0)
    base = mean * np.exp(-filled @ inside)
    records = []

    def record(estimand, group, level, n_obs, average, share, ratio) -> None:
        se = float(np.sqrt(max(share @ covariance @ share, 0.0)))
        told = bool(np.isfinite(ratio)) and not average[~known].any()
        values = ratio if told else np.nan
        key = {"estimand": estimand, "group": group, "level": level, "prob": prob, "n_obs": n_obs}
        note = "" if told else NO_EVENTS
        ends = np.array([values, values - quantile * se, values + quantile * se])
        with np.errstate(over="ignore"):
            percent = 100 * np.expm1(ends)
        of_percent = {"estimate": percent[0], "se": 100 * np.exp(values) * se, "low": percent[1], "high": percent[2]}
        records.append(key | of_percent | {"scale": "percent", "note": note})
        se = float(np.sqrt(max(average @ covariance @ average, 0.0)))
        point = float(average @ filled) if told else np.nan
        of_log = {"estimate": point, "se": se if told else np.nan}
        of_log |= {"low": point - quantile * se, "high": point + quantile * se}
        records.append(key | of_log | {"scale": "log", "note": note})

    for estimand, group, level, rows in wanted:
        weights = inside[:, rows].sum(axis=1)
        part = inside[:, rows] @ base[rows]
        total = part.sum()
        share = part / total if total > 0 else np.full(len(part), np.nan)
        ratio = float(np.log(share @ np.exp(filled))) if total > 0 else np.nan
        average = weights / max(weights.sum(), 1.0)
        record(estimand, group, level, int(rows.sum()), average, np.nan_to_num(share), ratio)
    names = list(cells)
    for group, a, b in pairs or ():
        share = np.zeros(len(names))
        share[names.index(a)], share[names.index(b)] = 1.0, -1.0
        n_obs = int(cells[a].sum() + cells[b].sum())
        record("contrast", group, f"{a} - {b}", n_obs, share, share, float(share @ filled))
    return records


def regress(panel: Panel, cells: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tau of each cell, NaN where it is not identified, their covariance clustered by unit, and the fitted means.

    Rows that say nothing, because all counts of a unit are zero or its cell has no finite tau, have mean 0.

    Returns
    -------
    tau : array, shape (cell,)
    covariance : array, shape (cell, cell)
        Zero where tau is not identified.
    mean : array, shape (row,)
    """
    import pyfixest as pf

    regressors = {f"x{j}": mask.astype(float) for j, mask in enumerate(cells.values())} | standard_covariates(panel)
    empty = [f"x{j}" for j, mask in enumerate(cells.values()) if not is_told(panel, mask)]
    frame = pd.DataFrame(
        {"row": np.arange(len(panel.unit)), "y": panel.outcome, "unit": panel.unit, "time": panel.time}
        | level_periods(panel)
        | {"offset": panel.log_offset}
        | regressors
    )
    # a cell without a finite tau says nothing of anything else, nor does a unit without any event
    silent = np.any([frame[name] > 0 for name in empty], axis=0) if empty else np.zeros(len(frame), dtype=bool)
    frame = frame[~silent]
    frame = frame[frame.groupby("unit")["y"].transform("sum") > 0]
    used = [name for name in regressors if name not in empty]
    absorbed = ["unit", *(f"f{j}" for j in range(len(panel.fixed))), *([] if panel.fixed else ["time"])]
    with warnings.catch_warnings():
        # pyfixest says how many rows it drops as separated and which collinear columns; both are in the result
        warnings.simplefilter("ignore")
        fit = pf.fepois(
            f"y ~ {' + '.join(used)} | {' + '.join(absorbed)}", frame, vcov={"CRV1": "unit"}, offset="offset"
        )
    found = fit.coef().reindex([f"x{j}" for j in range(len(cells))])
    told = found.notna().to_numpy()
    covariance = np.zeros((len(cells), len(cells)))
    positions = [list(fit.coef().index).index(name) for name in found.index[told]]
    covariance[np.ix_(told, told)] = np.asarray(fit._vcov)[np.ix_(positions, positions)]
    mean = np.zeros(len(panel.unit))
    mean[fit._data["row"].to_numpy()] = np.asarray(fit.predict(type="response")).ravel()
    return found.to_numpy(dtype=float), covariance, mean


def is_told(panel: Panel, cell: np.ndarray) -> bool:
    """Whether tau of a cell is finite: there is an event in it, and one of its units while untreated."""
    before = ~panel.treated & np.isin(panel.unit, panel.unit[cell])
    return bool(panel.outcome[cell].any() and panel.outcome[before].any())


def tabulated(records: list[dict], estimator: str, note: str) -> pd.DataFrame:
    """Tidy rows in the order of `COLUMNS`."""
    joined = [
        record | {"estimator": estimator, "note": "; ".join(part for part in (record["note"], note) if part)}
        for record in records
    ]
    return pd.DataFrame(joined, columns=COLUMNS)
