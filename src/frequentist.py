"""Classical difference-in-differences twins of the estimands.

    Panel ──regress──▶ Fit ──combine──▶ Effect ──tabulate──▶ DataFrame, one tidy row a number

An estimator is a function `(panel, exposures, prob) -> DataFrame`; src.estimators lists them.
Standard errors are clustered by unit (CRV1), those of averages follow from the covariance of the coefficients by the
delta method, and intervals use Student's t with (units - 1) degrees of freedom. Like the model's, an average counts
treated rows (times sampling weights), and `n_obs` is the number of rows that the estimand averages over.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from src.average import join
from src.design import cell_labels, joint_labels
from src.exposure import flat_exposures, step_of
from src.panel import Panel

COLUMNS = [
    *("estimand", "group", "level", "scale", "estimator", "estimate", "se", "low", "high", "prob", "n_obs", "note")
]
CONTRAST_LEVELS = range(2, 6)
FEW_UNITS = 5
UNRELIABLE = "unreliable"
MOST_CELLS = 1000  # of one regression of `etwfe_groups`
STALLED = "demean_by_groups .* did not converge"  # diff-diff's warning that its numbers may be inaccurate


@dataclass(frozen=True)
class Fit:
    """Least squares with unit and period effects.

    Attributes
    ----------
    names : tuple of str, length (column,)
    coefficients : array, shape (column,)
        Zero where a column was dropped because the ones before it explain it.
    covariance : array, shape (column, column)
        Clustered by unit.
    null : array, shape (direction, column)
        Unit vectors along which coefficients can move without changing any fitted value; a combination of
        coefficients is identified if it is orthogonal to all of them.
    """

    names: tuple[str, ...]
    coefficients: np.ndarray
    covariance: np.ndarray
    null: np.ndarray


@dataclass(frozen=True)
class Effect:
    """An estimated number and the rows that it averages over.

    Attributes
    ----------
    estimand, group, level
        Its name in the tables; None where not applicable.
    estimate, se : float
        On the outcome scale; NaN where not identified.
    rows : tuple of array of bool, shape (row,)
        The rows averaged over; two sets for a contrast.
    note : str
    """

    estimand: str
    group: str | None
    level: str | None
    estimate: float
    se: float
    rows: tuple[np.ndarray, ...]
    note: str = ""


def twfe(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-way fixed effects: one adoption dummy, or one for each level of a group.

        y_it = alpha_i + lambda_t + x_it'beta + D_it tau + eps_it

    The coefficient is the average effect if effects are the same in all cohorts and periods; otherwise it weighs them
    by the variance of D, some of them negatively (de Chaisemartin & D'Haultfoeuille 2020; Goodman-Bacon 2021).

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals.

    Returns
    -------
    DataFrame
        `att`, `att_by` for each group and pairwise interaction, `contrast` for groups with two to five levels.
    """
    treated = panel.treated
    fit = regress(panel, {"D": treated})
    effects = [combine(fit, "att", None, None, {"D": 1.0}, treated), *effects_by_group(panel, {})]
    weighing = "averages with the variance weights of the regression, some possibly negative"
    note = join(weighing, left_out(exposures))
    return tabulate(panel, effects, "twfe", prob, note)


def twfe_exposures(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-way fixed effects with spillovers on the untreated and on the treated.

        y_it = alpha_i + lambda_t + x_it'beta + D_it tau + S_it'delta + D_it S_it'difference + eps_it

    An exposure that fixed effects absorb has no delta.

    So tau is the effect of own adoption at zero exposure, and the slope of the treated is delta + difference. Assumes
    that exposure works through S alone, linearly, and is as good as random given unit and period effects.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Treated share of the others.
    prob : float
        Mass of the intervals.

    Returns
    -------
    DataFrame
        `att` (= `direct`), `att_by`, `contrast`, `spill_per_pp`, `spill_control`, `spill_treated`, `total_treated`,
        `switching`, `overall`; no rows where there are no exposures.
    """
    if not exposures:
        return tabulate(panel, [], "twfe_exposures", prob)
    treated = panel.treated
    exposed = np.any([share > 0 for share in exposures.values()], axis=0)
    flat = flat_exposures(panel, exposures)
    others = {f"S[{name}]": share for name, share in exposures.items() if name not in flat}
    adopters = {f"D:S[{name}]": treated * share for name, share in exposures.items()}
    fit = regress(panel, {"D": treated, **others, **adopters})

    def at_mean(rows: np.ndarray, *prefixes: str) -> dict[str, float]:
        means = {name: mean(share, rows, panel.weight) for name, share in exposures.items()}
        return {f"{prefix}[{name}]": value for prefix in prefixes for name, value in means.items()}

    direct = {"D": 1.0}
    spill = at_mean(treated, "S", "D:S")
    everyone = np.ones(len(treated), dtype=bool)
    share_treated = mean(treated.astype(float), everyone, panel.weight)
    on_all = at_mean(everyone, "S") | {k: share_treated * v for k, v in at_mean(treated, "D:S").items()}
    effects = [
        combine(fit, "att", None, None, direct, treated),
        *effects_by_group(panel, others | adopters),
        combine(fit, "direct", None, None, direct, treated),
        combine(fit, "total_treated", None, None, direct | spill, treated),
        combine(fit, "switching", None, None, direct | at_mean(treated, "D:S"), treated),
        combine(fit, "spill_treated", None, None, spill, treated),
        combine(fit, "spill_control", None, None, at_mean(~treated & exposed, "S"), ~treated & exposed),
        combine(fit, "overall", None, None, {"D": share_treated} | on_all, everyone),
    ]
    for name, share in exposures.items():
        step = step_of(panel, name, share)
        slopes = {
            "control": ({f"S[{name}]": step}, ~treated),
            "treated": ({f"S[{name}]": step, f"D:S[{name}]": step}, treated),
            "difference": ({f"D:S[{name}]": step}, treated),
        }
        for level, (weights, rows) in slopes.items():
            effects.append(combine(fit, "spill_per_pp", name, level, weights, rows & (share > 0)))
    return tabulate(panel, effects, "twfe_exposures", prob)


def etwfe(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Extended two-way fixed effects: every cohort x period cell its own effect, averaged by rows.

        y_it = alpha_i + lambda_t + x_it'beta + sum over t >= g of 1{i in cohort g, period t} tau_gt + eps_it

    Assumes parallel trends and no anticipation, not equal effects (Wooldridge 2025, *Empirical Economics* 69(5)).
    Covariates enter additively, as in the model. By diff-diff where there are neither covariates nor weights and it
    can estimate every cell, else by the same regression in pyfixest; the two agree.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals.

    Returns
    -------
    DataFrame
        `att`, `att_gt`, `att_event`, `att_cohort`.
    """
    effects: list[Effect] = []
    if not panel.covariate_names and not is_weighted(panel) and not panel.fixed:
        effects = etwfe_library(panel)
    if not effects or np.isnan([effect.estimate for effect in effects]).any():
        effects = etwfe_regression(panel)
    return tabulate(panel, effects, "etwfe", prob, left_out(exposures))


def etwfe_groups(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Extended two-way fixed effects within the levels of each group, averaged by rows: nothing is borrowed.

        y_it = alpha_i + lambda_t + x_it'beta + sum over t >= g of 1{i in cohort g, level k, period t} tau_gkt + eps_it

    One regression a group. Assumes what `etwfe` assumes; period effects are common to all levels.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals.

    Returns
    -------
    DataFrame
        `att_by` for each group, `contrast` for groups with two to five levels; NaN for a group with too many cells.
    """
    treated = panel.treated
    at = cell_labels(panel.row_cohort[treated].astype(int), panel.time[treated])
    effects = []
    for group, label in group_labels(panel).items():
        rows = treated_levels(panel, label)
        finest = np.full(len(treated), "", dtype=object)
        finest[treated] = joint_labels(at, label[treated])
        cells = {str(cell): finest == cell for cell in np.unique(finest[treated])}
        if len(cells) > MOST_CELLS:
            reason = f"not run: {len(cells):,} cells of cohort, period and {group} are more than {MOST_CELLS:,}"
            effects += [Effect("att_by", group, level, np.nan, np.nan, (mask,), reason) for level, mask in rows.items()]
            continue
        fit = regress(panel, cells)
        weights = {
            level: {cell: mean(inside, mask, panel.weight) for cell, inside in cells.items() if (inside & mask).any()}
            for level, mask in rows.items()
        }
        effects += effects_of_levels(fit, group, rows, weights, len(rows) in CONTRAST_LEVELS)
    return tabulate(panel, effects, "etwfe_groups", prob, left_out(exposures))


def regress(panel: Panel, columns: dict[str, np.ndarray]) -> Fit:
    """Regression of the outcome on `columns` and covariates with unit and period effects, weighted by `panel.weight`.

    Parameters
    ----------
    panel : Panel
    columns : dict of str to array, shape (row,)
        Regressors whose coefficients matter, by name.
    """
    effects = [f"x{j}" for j in range(len(columns))]
    frame, regressors, scale = frame_of(panel, columns)
    slopes, covariance = least_squares(frame, "y", regressors)
    dropped = [name for name in regressors if name not in slopes.index]
    null = np.zeros((len(dropped), len(effects)))
    for direction, name in zip(null, dropped, strict=True):
        explained, _ = least_squares(frame, name, list(slopes.index))
        direction[:] = explained.reindex(effects, fill_value=0.0) - (np.array(effects) == name)
        direction /= max(1.0, float(np.linalg.norm(direction)))
    return Fit(
        tuple(columns),
        scale * slopes.reindex(effects, fill_value=0.0).to_numpy(),
        scale**2 * covariance.reindex(index=effects, columns=effects, fill_value=0.0).to_numpy(),
        null,
    )


def frame_of(panel: Panel, columns: dict[str, np.ndarray]) -> tuple[pd.DataFrame, list[str], float]:
    """The regression as pyfixest takes it.

    Returns
    -------
    frame : DataFrame
        y (the outcome in units of its spread), unit, time, f0, f1, ... (`level_periods`), weight (where rows differ in
        it), x0, x1, ... (the columns) and z0, z1, ... (covariates).
    regressors : list of str
        Names of the latter two.
    scale : float
        The spread.
    """
    outcome, scale = standardised(panel)
    regressors = {f"x{j}": column for j, column in enumerate(columns.values())} | standard_covariates(panel)
    frame = pd.DataFrame(
        {"y": outcome, "unit": panel.unit, "time": panel.time}
        | level_periods(panel)
        | ({"weight": panel.weight} if is_weighted(panel) else {})
        | {name: column.astype(float) for name, column in regressors.items()}
    )
    return frame, list(regressors), scale


def standard_covariates(panel: Panel) -> dict[str, np.ndarray]:
    """Covariates as columns z0, z1, ..., less their mean, over their SD.

    Their coefficients are not reported; one unit for all keeps the check for collinearity free of scale.
    """
    spread = panel.covariates.std(axis=0)
    standard = (panel.covariates - panel.covariates.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return {f"z{j}": column for j, column in enumerate(standard.T)}


def level_periods(panel: Panel) -> dict[str, np.ndarray]:
    """Cells of level and period of the fixed effects as columns f0, f1, ..."""
    return {f"f{j}": period_cells(panel, factor.code) for j, factor in enumerate(panel.fixed.values())}


def period_cells(panel: Panel, code: np.ndarray) -> np.ndarray:
    """Cell of level and period of each row, shape (row,), for a classification of the units, `code` shape (unit,)."""
    return code[panel.unit] * len(panel.periods) + np.searchsorted(panel.periods, panel.time)


def standardised(panel: Panel) -> tuple[np.ndarray, float]:
    """The outcome less unit means, in units of its spread, and the spread.

    Coefficients beside unit effects are those of the outcome over the spread, and no library's tolerance can mistake
    a large outcome for one that has not converged, or a small one for one that has.

    Returns
    -------
    outcome : array, shape (row,)
    spread : float
        1 where the outcome never varies within a unit.
    """
    rows = np.maximum(np.bincount(panel.unit), 1)
    within = panel.outcome - (np.bincount(panel.unit, panel.outcome) / rows)[panel.unit]
    spread = float(within.std()) or 1.0
    return within / spread, spread


def least_squares(
    frame: pd.DataFrame, left: str, right: list[str], cluster: str = "unit"
) -> tuple[pd.Series, pd.DataFrame]:
    """Coefficients that pyfixest keeps, and their covariance clustered by unit, or by what contains units.

    The small-sample factor is G / (G - 1) * (n - 1) / (n - K), with G units and K slopes and period effects; unit
    effects, being nested in the clusters, do not count. Its second part is applied here: pyfixest 0.60 takes the fixed
    effects from a set, so that the hash seed of the process decides which of them it believes to be nested.

    Parameters
    ----------
    frame : DataFrame
        Columns unit, time and those named; weight where rows are weighted.
    left : str
        Outcome.
    right : list of str
        Regressors, of which those are left out that the ones before them explain.
    cluster : str
        Column of the clusters; "a+b" clusters by both.
    """
    fit = feols(frame, left, right, cluster)
    with np.errstate(invalid="ignore", divide="ignore"):  # t values of what has no variance
        slopes = fit.coef()
    n = len(frame)
    free = n - len(slopes) - frame["time"].nunique() - sum(frame[name].nunique() - 1 for name in level_columns(frame))
    factor = (n - 1) / free if free > 0 else np.nan
    return slopes, pd.DataFrame(factor * fit._vcov, slopes.index, slopes.index)


def level_columns(frame: pd.DataFrame) -> list[str]:
    """Columns of level x period."""
    return [name for name in frame.columns if re.fullmatch(r"f\d+", name)]


def feols(frame: pd.DataFrame, left: str, right: list[str], cluster: str = "unit", lean: bool = True):
    """pyfixest's regression with unit and period effects; parameters as of `least_squares`.

    `lean` leaves out residuals and all else that is of the size of the frame.
    """
    import pyfixest

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # pyfixest 0.60 calls what pandas 3.1 deprecates, and announces the columns that `Fit.null` accounts for
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        warnings.filterwarnings("ignore", message=r"\s*\d+ variables dropped due to multicollinearity")
        return pyfixest.feols(
            f"{left} ~ {' + '.join(right) or '1'} | {' + '.join(['unit', 'time', *level_columns(frame)])}",
            frame,
            vcov={"CRV1": cluster},
            ssc=pyfixest.ssc(k_adj=False),
            weights="weight" if "weight" in frame else None,
            fixef_rm="none",
            # alternating projections stall where units are seen in few and different periods, as in rotating panels
            demeaner=pyfixest.LsmrDemeaner(fixef_atol=1e-12, fixef_btol=1e-12),
            lean=lean,
        )


def combine(
    fit: Fit, estimand: str, group: str | None, level: str | None, weights: dict[str, float], *rows: np.ndarray
) -> Effect:
    """A linear combination of coefficients with its delta-method standard error, NaN where not identified.

    Parameters
    ----------
    fit : Fit
    estimand, group, level
        Its name in the tables.
    weights : dict of str to float
        By name of the column; zero for the others.
    *rows : array of bool, shape (row,)
        What it averages over.
    """
    absent = [name for name, weight in weights.items() if weight and name not in fit.names]
    if absent:
        return Effect(estimand, group, level, np.nan, np.nan, rows, f"not identified: no {', '.join(absent)} beside it")
    w = np.array([weights.get(name, 0.0) for name in fit.names])
    if not all(mask.any() for mask in rows):
        return Effect(estimand, group, level, np.nan, np.nan, rows, "not identified: no such rows")
    moves = np.abs(fit.null @ w) > 1e-6 * np.linalg.norm(w)
    if moves.any():
        involved = np.abs(fit.null[moves]).max(axis=0) > 1e-6
        names = [name for name, hit in zip(fit.names, involved, strict=True) if hit]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return Effect(estimand, group, level, np.nan, np.nan, rows, f"not identified: {shown} collinear")
    se = float(np.sqrt(max(w @ fit.covariance @ w, 0.0)))
    return Effect(estimand, group, level, float(w @ fit.coefficients), se, rows)


def effects_by_group(panel: Panel, others: dict[str, np.ndarray]) -> list[Effect]:
    """One regression a group and pairwise interaction, adoption interacted with its levels.

    Parameters
    ----------
    panel : Panel
    others : dict of str to array, shape (row,)
        Further columns of the regression.

    Returns
    -------
    list of Effect
        `att_by` for levels with treated rows; `contrast` "a - b" for groups (not interactions) with two to five.
    """
    labels = labels_of_levels(panel)
    effects = []
    for group, label in labels.items():
        rows = treated_levels(panel, label)
        fit = regress(panel, {f"D[{level}]": mask for level, mask in rows.items()} | others)
        weights = {level: {f"D[{level}]": 1.0} for level in rows}
        contrasted = group in panel.groups and len(rows) in CONTRAST_LEVELS
        effects += effects_of_levels(fit, group, rows, weights, contrasted)
    return effects


def group_labels(panel: Panel) -> dict[str, np.ndarray]:
    """Level of every group in each row, shape (row,)."""
    return {name: panel.row_labels(factor) for name, factor in panel.groups.items()}


def labels_of_levels(panel: Panel) -> dict[str, np.ndarray]:
    """Level of every group and pairwise interaction in each row, shape (row,)."""
    labels = group_labels(panel)
    return labels | {f"{a}:{b}": joint_labels(labels[a], labels[b]) for a, b in combinations(panel.groups, 2)}


def treated_levels(panel: Panel, label: np.ndarray) -> dict[str, np.ndarray]:
    """Treated rows of every level that has any, as masks of shape (row,); `label` has shape (row,)."""
    return {str(level): panel.treated & (label == level) for level in np.unique(label[panel.treated])}


def effects_of_levels(
    fit: Fit, group: str, rows: dict[str, np.ndarray], weights: dict[str, dict[str, float]], contrasted: bool
) -> list[Effect]:
    """`att_by` for each level of a group and, if `contrasted`, the difference of each pair of them.

    Parameters
    ----------
    fit : Fit
    group : str
    rows : dict of str to array of bool, shape (row,)
        Treated rows of each level.
    weights : dict of str to dict
        Combination of coefficients that is the effect of each level.
    contrasted : bool
    """
    effects = [combine(fit, "att_by", group, level, weights[level], mask) for level, mask in rows.items()]
    for a, b in combinations(rows, 2) if contrasted else ():
        less = {name: -value for name, value in weights[b].items()}
        effects.append(combine(fit, "contrast", group, f"{a} - {b}", weights[a] | less, rows[a], rows[b]))
    return effects


def treated_sets(panel: Panel) -> dict[tuple[str, str | None], np.ndarray]:
    """Treated rows behind each (estimand, level) of the extended regression, as masks of shape (row,)."""
    treated = panel.treated
    cohort, time = panel.row_cohort[treated].astype(int), panel.time[treated]
    sets: dict[tuple[str, str | None], np.ndarray] = {("att", None): treated}
    keys = {"att_gt": cell_labels(cohort, time), "att_event": time - cohort, "att_cohort": cohort}
    for estimand, key in keys.items():
        for level in np.unique(key):
            mask = treated.copy()
            mask[treated] = key == level
            sets[estimand, str(level)] = mask
    return sets


def etwfe_regression(panel: Panel) -> list[Effect]:
    """Extended two-way fixed effects as a regression on cell dummies, with covariates and weights."""
    sets = treated_sets(panel)
    cells = {level: mask for (estimand, level), mask in sets.items() if estimand == "att_gt" and level is not None}
    fit = regress(panel, cells)
    effects = []
    for (estimand, level), mask in sets.items():
        weights = {cell: mean(rows, mask, panel.weight) for cell, rows in cells.items()}
        effects.append(combine(fit, estimand, None, level, weights, mask))
    return effects


def etwfe_library(panel: Panel) -> list[Effect]:
    """Extended two-way fixed effects by diff-diff, without covariates and weights; NaN for cells that it leaves out.

    Empty where its alternating projections do not converge.
    """
    from diff_diff import WooldridgeDiD

    cohort = np.where(np.isfinite(panel.row_cohort), panel.row_cohort, 0).astype(int)
    outcome, scale = standardised(panel)
    frame = pd.DataFrame({"y": outcome, "unit": panel.unit, "time": panel.time, "cohort": cohort})
    with warnings.catch_warnings():
        # diff-diff 3.13 fills a frame column by column, suggests a count model for outcomes that are whole numbers, and
        # announces cohorts and periods that it leaves out, which are NaN below
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        for message in (
            r"WooldridgeDiD\(method='ols'\): outcome",
            r"Cohort\(s\) .* have no pre-treatment period",
            r"Cohort\(s\) .* have NO estimated cells",
            r"Dropped \d+ of \d+ observations",
        ):
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("error", message=STALLED)
        try:
            result = WooldridgeDiD(method="ols", rank_deficient_action="silent").fit(
                frame, outcome="y", unit="unit", time="time", first_treat="cohort"
            )
        except UserWarning as warning:
            if not re.match(STALLED, str(warning)):
                raise
            return []
        result.aggregate("event_study").aggregate("group")
    found: dict[tuple[str, str | None], tuple[float, float]] = {("att", None): (result.att, result.se)}
    for estimand, table, keys in (
        ("att_gt", "gt", ["cohort", "time"]),
        ("att_event", "event_study", ["relative_period"]),
        ("att_cohort", "group", ["cohort"]),
    ):
        for row in result.to_dataframe(table).to_dict("records"):
            found[estimand, "@".join(str(row[key]) for key in keys)] = (row["att"], row["se"])
    absent = (np.nan, np.nan)
    return [
        Effect(estimand, None, level, scale * effect, scale * se, (mask,))
        for (estimand, level), mask in treated_sets(panel).items()
        for effect, se in [found.get((estimand, level), absent)]
    ]


def tabulate(
    panel: Panel, effects: list[Effect], estimator: str, prob: float, note: str = "", dof: int | None = None
) -> pd.DataFrame:
    """Tidy rows in the order of `COLUMNS`, a percent row after each outcome row where effects are log points.

    percent = 100 (exp(effect) - 1): its standard error by the delta method, its interval by transforming the endpoints.
    Student's t has `dof` degrees of freedom, (units - 1) where not given.
    """
    quantile = quantile_of(panel, prob, dof)
    records = []
    for effect in effects:
        estimate, se = effect.estimate, effect.se
        numbers = {"outcome": (estimate, se, estimate - quantile * se, estimate + quantile * se)}
        if panel.is_log:
            with np.errstate(over="ignore"):
                ends = [float(100 * np.expm1(x)) for x in (numbers["outcome"][0], *numbers["outcome"][2:])]
                numbers["percent"] = (ends[0], float(100 * np.exp(estimate) * se), ends[1], ends[2])
        named = {"estimand": effect.estimand, "group": effect.group, "level": effect.level}
        n_obs = sum(int(mask.sum()) for mask in effect.rows)
        notes = join(effect.note, note, few_units(panel, effect))
        for scale, (middle, spread, low, high) in numbers.items():
            values = {"estimate": middle, "se": spread, "low": low, "high": high, "prob": prob}
            records.append(named | {"scale": scale, "estimator": estimator} | values | {"n_obs": n_obs, "note": notes})
    return pd.DataFrame(records, columns=COLUMNS)


def quantile_of(panel: Panel, prob: float, dof: int | None = None) -> float:
    """Half an interval in standard errors: Student's t with `dof` degrees of freedom, (units - 1) where not given."""
    return float(stdtrit(len(np.unique(panel.unit)) - 1 if dof is None else dof, (1 + prob) / 2))


def few_units(panel: Panel, effect: Effect) -> str:
    """A warning where a clustered standard error rests on few units, which as a rule makes it far too small."""
    units = min(len(np.unique(panel.unit[mask])) for mask in effect.rows)
    if not 0 < units < FEW_UNITS or np.isnan(effect.estimate):
        return ""
    return f"clustered standard error rests on {units} unit{'s' if units > 1 else ''} and is {UNRELIABLE}"


def left_out(exposures: dict[str, np.ndarray]) -> str:
    """What an estimator without exposures says where the model has them."""
    return "spillovers are left out" if exposures else ""


def is_weighted(panel: Panel) -> bool:
    """Sampling weights differ between rows."""
    return bool(np.ptp(panel.weight) > 0)


def mean(x: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean of `x` over `rows`; NaN without rows."""
    return float(np.average(x[rows], weights=weight[rows])) if rows.any() else float("nan")
