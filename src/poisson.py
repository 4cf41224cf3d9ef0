"""Classical twins for counts: fixed-effects Poisson by pyfixest, with the offset, clustered by unit.

    E[y_it] = exp(alpha_i + lambda_t + x_it'beta + sum over cells c of 1{it in c} tau_c) offset_it

An average effect is reported as the proportional one,

    percent = 100 (sum over rows m_it exp(tau_c) / sum over rows m_it - 1),    m_it the mean at tau = 0

and, in log points, as the row average of tau. Because the fitted means of a cell add up to its events, the logarithm of
the ratio moves by the share of each cell in sum m_it: its standard error follows by the delta method, and the interval
by transforming the endpoints.

`poisson_twfe_cr3` has the jackknife by units instead of the sandwich of their scores, in one Newton step for each unit
that is left out (`src.scores`): wider where few units carry the estimate.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from src.average import ENDS, join
from src.exposure import flat_exposures, step_of
from src.frequentist import (
    COLUMNS,
    CONTRAST_LEVELS,
    Effect,
    few_units,
    labels_of_levels,
    left_out,
    level_periods,
    quantile_of,
    standard_covariates,
    treated_levels,
    treated_sets,
)
from src.frequentist import regress as linear
from src.panel import Panel
from src.scores import information, scores

NO_EVENTS = (
    "not identified: some of these rows belong to a cell without events, or to units without any before adoption"
)

ONE = "one effect for all, with the weights of the regression"
COLLINEAR = "not identified: collinear"
ALONE = "no jackknife: one unit alone tells it"


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
    note = join(ONE, left_out(exposures))
    return tabulated(of_dummies(panel, prob, jackknife=False), "poisson_twfe", note)


def poisson_twfe_cr3(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """The same with the jackknife by units (CR3); parameters as there."""
    note = join(ONE, "jackknife by units", left_out(exposures))
    return tabulated(of_dummies(panel, prob, jackknife=True), "poisson_twfe_cr3", note)


def of_dummies(panel: Panel, prob: float, jackknife: bool) -> list[dict]:
    """One adoption dummy, and one for each level of every group."""
    whole = {"D": panel.treated}
    fit = regress(panel, whole, {}, jackknife)
    records = averages(panel, fit, whole, [("att", None, None, panel.treated)], prob)
    return [*records, *of_levels(panel, prob, {}, jackknife)]


def of_levels(panel: Panel, prob: float, beside: dict[str, np.ndarray], jackknife: bool) -> list[dict]:
    """One regression a group and pairwise interaction, a dummy for each level, `beside` other columns."""
    records = []
    for group, label in labels_of_levels(panel).items():
        rows = treated_levels(panel, label)
        wanted = [("att_by", group, level, mask) for level, mask in rows.items()]
        contrasted = group in panel.groups and len(rows) in CONTRAST_LEVELS
        pairs = [(group, a, b) for a, b in combinations(rows, 2)] if contrasted else []
        records += averages(panel, regress(panel, rows, beside, jackknife), rows, wanted, prob, pairs)
    return records


def poisson_twfe_exposures(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Fixed-effects Poisson with spillovers on the untreated and on the treated.

        E[y_it] = exp(alpha_i + lambda_t + x_it'beta + D_it tau + S_it'delta + D_it S_it'difference) offset_it

    tau is the effect of own adoption at zero exposure. Effects that sum over rows are as in `src.rates`, with the
    fitted means as expected counts; their standard errors take these as known. An exposure that fixed effects absorb
    has no delta.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
    prob : float
    """
    if not exposures:
        return tabulated([], "poisson_twfe_exposures", "")
    flat, treated = flat_exposures(panel, exposures), panel.treated
    others = {f"S[{name}]": share for name, share in exposures.items() if name not in flat}
    adopters = {f"D:S[{name}]": treated * share for name, share in exposures.items()}
    columns, whole = {"D": treated.astype(float)} | others | adopters, {"D": treated}
    fit = regress(panel, whole, others | adopters)
    records = averages(panel, fit, whole, [("att", None, None, treated)], prob)
    records += of_levels(panel, prob, others | adopters, jackknife=False)
    names, matrix = list(columns), np.column_stack(list(columns.values()))
    coefficients, unknown = np.nan_to_num(fit.coefficients), np.isnan(fit.coefficients)
    null = linear(panel, columns).null  # collinear as columns are, whatever the likelihood
    into = {
        "own": np.array([name == "D" for name in names]),
        "others": np.array([name in others for name in names]),
        "none": np.zeros(len(names), dtype=bool),
        "all": np.ones(len(names), dtype=bool),
    }
    base = fit.mean * np.exp(-matrix @ coefficients)
    quantile = quantile_of(panel, prob)
    exposed = np.any([share > 0 for share in exposures.values()], axis=0)
    of_rows = {"spill_control": ~treated & exposed, "overall": np.ones(len(treated), dtype=bool)}

    def record(estimand: str, group: str | None, level: str | None, n_obs: int, parts: dict) -> None:
        key = {"estimand": estimand, "group": group, "level": level, "prob": prob, "n_obs": n_obs}
        for scale, (value, gradient) in parts.items():
            told = not parts["log"][1][unknown].any()
            moves = np.abs(null @ gradient).max(initial=0.0) > 1e-6 * np.linalg.norm(gradient)
            note = COLLINEAR if moves else "" if told else NO_EVENTS
            value = np.nan if note else value
            records.append(
                key | {"note": note} | on_scale(scale, value, standard_error(gradient, fit.covariance), quantile)
            )

    for estimand, (above, below) in ENDS.items():
        rows = of_rows.get(estimand, treated)
        if estimand.startswith("att") or not rows.any():
            continue
        share = base[rows] / max(base[rows].sum(), np.finfo(float).tiny)
        ends = [(matrix[rows] * into[end], matrix[rows] * into[end] @ coefficients) for end in (above, below)]
        ratios = [share @ np.exp(felt) for _, felt in ends]
        slopes = [(share * np.exp(felt)) @ x for x, felt in ends]
        ratio = 1 + ratios[0] - ratios[1]
        relative = np.log(ratio) if ratio > 0 else np.nan, (slopes[0] - slopes[1]) / ratio
        average = (ends[0][0] - ends[1][0]).mean(axis=0)
        parts = {"percent": relative, "log": (float(average @ coefficients), average)}
        record(estimand, None, None, int(rows.sum()), parts)
    for name, share in exposures.items():
        step = step_of(panel, name, share)
        control, difference = (step * np.array([label == f"{arm}[{name}]" for label in names]) for arm in ("S", "D:S"))
        arms = {"control": (control, ~treated), "treated": (control + difference, treated)}
        for level, (weights, rows) in (arms | {"difference": (difference, treated)}).items():
            if level == "difference" or name not in flat:
                value = float(weights @ coefficients)
                n_obs = int((rows & (share > 0)).sum())
                record("spill_per_pp", name, level, n_obs, dict.fromkeys(("percent", "log"), (value, weights)))
    return tabulated(records, "poisson_twfe_exposures", ONE)


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
    fit = regress(panel, cells, {})
    return tabulated(averages(panel, fit, cells, wanted, prob), "poisson_etwfe", left_out(exposures))


def averages(
    panel: Panel,
    fit: Fit,
    cells: dict[str, np.ndarray],
    wanted: list[tuple],
    prob: float,
    pairs: Iterable[tuple] = (),
) -> list[dict]:
    """Proportional effects and row averages over sets of treated rows.

    Parameters
    ----------
    panel : Panel
    fit : Fit
        Of `cells`, and of other columns after them: sets of rows are then to be single cells, because their weights
        leave what others do out.
    cells : dict of str to array of bool, shape (row,)
        Partition of the treated rows.
    wanted : list of (estimand, group, level, rows)
    prob : float
    pairs : iterable of (group, level, level)
        Contrasts of two cells.
    """
    tau, covariance, mean = fit.coefficients[: len(cells)], fit.covariance[: len(cells), : len(cells)], fit.mean
    inside = np.array(list(cells.values()), dtype=float)
    quantile = quantile_of(panel, prob)
    known = np.isfinite(tau)
    filled = np.where(known, tau, 0.0)
    base = mean * np.exp(-filled @ inside)
    records = []

    def record(estimand, group, level, rows, average, share, ratio) -> None:
        told = bool(np.isfinite(ratio)) and not average[~known].any()
        n_obs = sum(int(mask.sum()) for mask in rows)
        key = {"estimand": estimand, "group": group, "level": level, "prob": prob, "n_obs": n_obs}
        effect = Effect(estimand, group, level, ratio if told else np.nan, np.nan, rows)
        key |= {"note": few_units(panel, effect) if told else NO_EVENTS}
        values = {"percent": (ratio, share), "log": (average @ filled, average)}
        for scale, (value, gradient) in values.items():
            se = standard_error(gradient, covariance)
            note = ALONE if told and np.isnan(se) else key["note"]
            records.append(key | on_scale(scale, value if told else np.nan, se, quantile) | {"note": note})

    for estimand, group, level, rows in wanted:
        weights = inside[:, rows].sum(axis=1)
        part = inside[:, rows] @ base[rows]
        total = part.sum()
        share = part / total if total > 0 else np.full(len(part), np.nan)
        ratio = float(np.log(share @ np.exp(filled))) if total > 0 else np.nan
        average = weights / max(weights.sum(), 1.0)
        record(estimand, group, level, (rows,), average, np.nan_to_num(share), ratio)
    names = list(cells)
    for group, a, b in pairs:
        share = np.zeros(len(names))
        share[names.index(a)], share[names.index(b)] = 1.0, -1.0
        record("contrast", group, f"{a} - {b}", (cells[a], cells[b]), share, share, float(share @ filled))
    return records


def standard_error(gradient: np.ndarray, covariance: np.ndarray) -> float:
    """By the delta method; what the gradient leaves out may be unknown."""
    some = gradient != 0
    return float(np.sqrt(np.maximum(gradient[some] @ covariance[np.ix_(some, some)] @ gradient[some], 0.0)))


def on_scale(scale: str, value: float, se: float, quantile: float) -> dict:
    """Estimate, standard error and interval of something in log points, as such or in percent."""
    ends = np.array([value, value - quantile * se, value + quantile * se])
    se = se if np.isfinite(value) else np.nan
    if scale == "percent":
        with np.errstate(over="ignore"):
            ends, se = 100 * np.expm1(ends), 100 * float(np.exp(value)) * se
    return {"estimate": ends[0], "se": se, "low": ends[1], "high": ends[2], "scale": scale}


@dataclass(frozen=True)
class Fit:
    """Coefficients of the cells and of the columns beside them.

    Attributes
    ----------
    coefficients : array, shape (column,)
        NaN where not identified.
    covariance : array, shape (column, column)
        Clustered by unit; zero where not identified.
    mean : array, shape (row,)
        Fitted; 0 on rows that say nothing, because all counts of a unit are zero or its cell has no finite tau.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    mean: np.ndarray


def regress(panel: Panel, cells: dict[str, np.ndarray], beside: dict[str, np.ndarray], jackknife: bool = False) -> Fit:
    """Fixed-effects Poisson on dummies of cells, other columns beside them, covariates and what is absorbed.

    Parameters
    ----------
    panel : Panel
    cells : dict of str to array of bool, shape (row,)
    beside : dict of str to array, shape (row,)
    jackknife : bool
        CR3 instead of CR1; a coefficient that one unit alone tells has then no standard error (NaN).
    """
    import pyfixest as pf

    asked = [*cells.values(), *beside.values()]
    regressors = {f"x{j}": column.astype(float) for j, column in enumerate(asked)} | standard_covariates(panel)
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
    found = fit.coef().reindex([f"x{j}" for j in range(len(asked))])
    told = found.notna().to_numpy()
    positions = [list(fit.coef().index).index(name) for name in found.index[told]]
    mean = np.zeros(len(panel.unit))
    mean[fit._data["row"].to_numpy()] = np.asarray(fit.predict(type="response")).ravel()
    covariance = np.zeros((len(asked), len(asked)))
    every = leave_one_out(frame, list(fit.coef().index), absorbed[1:], mean) if jackknife else np.asarray(fit._vcov)
    covariance[np.ix_(told, told)] = every[np.ix_(positions, positions)]
    return Fit(found.to_numpy(dtype=float), covariance, mean)


def leave_one_out(frame: pd.DataFrame, used: list[str], absorbed: list[str], mean: np.ndarray) -> np.ndarray:
    """CR3 of the `used` columns, shape (column, column): what leaving out each unit does, in one Newton step.

    NaN for a column that is zero outside one unit.
    """
    rows = frame["row"].to_numpy()
    rows, frame = rows[mean[rows] > 0], frame[mean[rows] > 0]
    dummies = [pd.get_dummies(frame[name], drop_first=True, dtype=float).to_numpy() for name in absorbed]
    columns = np.hstack([frame[used].to_numpy(dtype=float), *dummies])
    unit, mu = frame["unit"].to_numpy(), mean[rows]
    bread = np.linalg.pinv(information(columns, mu, unit))
    moved = (scores(columns, mu, frame["y"].to_numpy() - mu, unit, bread) @ bread)[:, : len(used)]
    alone = frame[used].ne(0).groupby(unit).any().sum().to_numpy() == 1
    covariance = (len(moved) - 1) / len(moved) * moved.T @ moved
    covariance[alone], covariance[:, alone] = np.nan, np.nan
    return covariance


def is_told(panel: Panel, cell: np.ndarray) -> bool:
    """Whether tau of a cell is finite: there is an event in it, and one of its units while untreated."""
    before = ~panel.treated & np.isin(panel.unit, panel.unit[cell])
    return bool(panel.outcome[cell].any() and panel.outcome[before].any())


def tabulated(records: list[dict], estimator: str, note: str) -> pd.DataFrame:
    """Tidy rows in the order of `COLUMNS`."""
    joined = [record | {"estimator": estimator, "note": join(record["note"], note)} for record in records]
    return pd.DataFrame(joined, columns=COLUMNS)
