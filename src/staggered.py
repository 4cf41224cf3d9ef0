"""Estimators made for staggered adoption: Callaway-Sant'Anna, Sun-Abraham, imputation, two-stage.

Each compares adopters with units that are not treated yet, and none with units treated before, unlike a regression on
one adoption dummy. By level of a group the panel is split: adopters of the level stand beside all units that never
adopt, and adopters of other levels are left out.

| | by | compares with | averages |
|---|---|---|---|
| `cs`, `cs_never` | moderndid, as R's `did` | not yet treated; never treated | cells, by numbers of units |
| `sunab` | regression on cohort x event time | never treated | the same cells, by rows |
| `bjs` | diff-diff | regression on untreated rows | rows |
| `did2s` | diff-diff | the same | rows |

Source: Callaway & Sant'Anna (2021); Sun & Abraham (2021); Borusyak, Jaravel & Spiess (2024); Gardner (2022).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from src.frequentist import (
    FEW_UNITS,
    Effect,
    combine,
    is_weighted,
    labels_of_levels,
    left_out,
    mean,
    regress,
    standard_covariates,
    standardised,
    tabulate,
    treated_levels,
    treated_sets,
)
from src.panel import Panel, of_rows

DRAWS = 999  # of the multiplier bootstrap
Sets = dict[tuple[str, str | None], np.ndarray]


def cs(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Callaway & Sant'Anna with units not yet treated, without covariates.

        ATT(g, t) = E[y_t - y_{g-1} | cohort g] - E[y_t - y_{g-1} | not treated by t]

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float
        Mass of the intervals; `cs_uniform` has bands that hold a whole path with that probability, by multiplier
        bootstrap over units.

    Returns
    -------
    DataFrame
        `att`, `att_gt`, `att_event`, `att_cohort`, `lead`, `att_by`.
    """
    return callaway(panel, exposures, prob, "notyettreated", "cs")


def cs_never(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Callaway & Sant'Anna with units that are never treated; parameters as of `cs`."""
    return callaway(panel, exposures, prob, "nevertreated", "cs_never")


def callaway(panel: Panel, exposures: dict[str, np.ndarray], prob: float, control: str, estimator: str) -> pd.DataFrame:
    """Either of the two."""
    panel, spread = in_its_spread(panel)
    everybody = bool(np.isfinite(panel.cohort).all())
    notes = [
        "covariates are left out" if panel.covariate_names else "",
        *fixed_effects_left_out(panel),
        "nobody never adopts: the last cohort stands in" if control == "nevertreated" and everybody else "",
        "repeated cross-sections, because units are not seen in every period" if is_unbalanced(panel) else "",
        left_out(exposures).removeprefix("; "),
    ]
    note = "; ".join(part for part in notes if part)
    cells = group_times(panel, control)
    sets = event_sets(panel)
    effects = [Effect("att", None, None, *of_aggregate(cells), (panel.treated,))]
    for g, t, att, se in zip(cells.groups, cells.times, cells.att_gt, cells.se_gt, strict=True):
        key = ("att_gt", f"{g:.0f}@{t:.0f}")
        if key in sets:
            effects.append(Effect(*key[:1], None, key[1], float(att), float(se), (sets[key],)))
    for estimand, found in (("event", aggregate(cells, "dynamic")), ("att_cohort", aggregate(cells, "group"))):
        for level, att, se in zip(found.event_times, found.att_by_event, found.se_by_event, strict=True):
            name = estimand if estimand != "event" else "att_event" if level >= 0 else "lead"
            if (key := (name, f"{level:.0f}")) in sets and level != -1:
                effects.append(Effect(name, None, key[1], float(att), float(se), (sets[key],)))
    effects += list(by_splits(panel, lambda part: of_aggregate(group_times(part, control))))
    effects = rescaled(effects, spread)
    table = tabulate(panel, effects, estimator, prob, note)
    if estimator != "cs":
        return table
    band = aggregate(cells, "dynamic", boot=True, cband=True, biters=DRAWS, alpha=1 - prob, random_state=0)
    wide, usual = float(np.max(band.critical_values)), float(stdtrit(len(panel.units) - 1, (1 + prob) / 2))
    wider = [
        Effect(e.estimand, None, e.level, e.estimate, e.se * wide / usual, e.rows)
        for e in effects
        if e.estimand in ("lead", "att_event")
    ]
    whole = f"the band of all of these together: {wide:.2f} standard errors"
    bands = tabulate(panel, wider, "cs_uniform", prob, whole).assign(se=np.nan)
    return pd.concat([table, bands], ignore_index=True)


def group_times(panel: Panel, control: str):
    """ATT(g, t) of all cohorts and periods, base g - 1, with their influence functions."""
    import moderndid

    frame = plain_frame(panel).assign(time=panel.time.astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on small cohorts and dropped units, which the table shows by their rows
        return moderndid.att_gt(
            frame,
            yname="y",
            tname="time",
            idname="unit",
            gname="cohort",
            control_group=control,
            est_method="reg",
            base_period="universal",
            allow_unbalanced_panel=is_unbalanced(panel),
            weightsname="weight" if is_weighted(panel) else None,
        )


def aggregate(cells, kind: str, **options):
    """Averages of cells, by numbers of units."""
    import moderndid

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the bootstrap was used, which is what was asked for
        return moderndid.aggte(cells, type=kind, na_rm=True, **options)


def of_aggregate(cells) -> tuple[float, float]:
    """The overall average of cells, by numbers of units."""
    found = aggregate(cells, "simple")
    return float(found.overall_att), float(found.overall_se)


def sunab(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Sun & Abraham: a coefficient for each cohort and period but the last before adoption, averaged by rows.

        y_it = alpha_i + lambda_t + x_it'beta + sum over cohorts g, t != g - 1 of 1{i in g} tau_gt + eps_it

    Only units that never adopt, or where there are none those that adopt last, move without a coefficient.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float

    Returns
    -------
    DataFrame
        `att`, `att_gt`, `att_event`, `att_cohort`, `lead`, `att_by`.
    """
    cells = relative_cells(panel)
    fit = regress(panel, cells)

    def averaged(rows: np.ndarray, part: Panel, columns: dict[str, np.ndarray]) -> dict[str, float]:
        return {name: mean(inside, rows, part.weight) for name, inside in columns.items() if (inside & rows).any()}

    effects = [
        combine(fit, estimand, None, level, averaged(rows, panel, cells), rows)
        for (estimand, level), rows in event_sets(panel).items()
        if level != "-1"
    ]

    def average(part: Panel) -> tuple[float, float]:
        if np.isfinite(part.cohort).all():
            raise ValueError("no unit never adopts, and the last adopters of a level are treated in these periods")
        columns = relative_cells(part)
        whole = combine(regress(part, columns), "att", None, None, averaged(part.treated, part, columns), part.treated)
        return whole.estimate, whole.se

    effects += list(by_splits(panel, average))
    return tabulate(panel, effects, "sunab", prob, left_out(exposures).removeprefix("; "))


def relative_cells(panel: Panel) -> dict[str, np.ndarray]:
    """Rows of every cohort in every period but its last one before adoption, shape (row,) each."""
    cohorts = np.unique(panel.cohort[np.isfinite(panel.cohort)])
    if np.isfinite(panel.cohort).all():
        cohorts = cohorts[:-1]
    cells: dict[str, np.ndarray] = {}
    for g in cohorts:
        mine = panel.row_cohort == g
        periods = np.unique(panel.time[mine])
        base = periods[periods < g].max(initial=periods.min())
        cells |= {f"{g:.0f}@{t}": mine & (panel.time == t) for t in periods if t != base}
    return cells


def bjs(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Imputation: untreated outcomes from a regression on untreated rows, effects as what treated rows are above.

    Standard errors are the conservative ones of Borusyak, Jaravel & Spiess.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Left out here; they only decide what the note says.
    prob : float

    Returns
    -------
    DataFrame
        `att`, `att_event`, `att_cohort`, `att_by`.
    """
    from diff_diff import ImputationDiD

    return imputed(panel, exposures, prob, ImputationDiD, "bjs")


def did2s(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-stage differences (Gardner): the same estimates where rows weigh alike, other standard errors."""
    from diff_diff import TwoStageDiD

    return imputed(panel, exposures, prob, TwoStageDiD, "did2s")


def imputed(panel: Panel, exposures: dict[str, np.ndarray], prob: float, method, estimator: str) -> pd.DataFrame:
    """Either of the two."""
    panel, spread = in_its_spread(panel)

    def result(part: Panel, aggregate: str | None = None):
        from diff_diff import SurveyDesign

        covariates = standard_covariates(part)
        survey = SurveyDesign(weights="weight", psu="unit") if is_weighted(part) else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on units without untreated rows and horizons without effects: NaN below
            return method().fit(
                plain_frame(part).assign(**covariates),
                outcome="y",
                unit="unit",
                time="time",
                first_treat="cohort",
                covariates=list(covariates) or None,
                **({"survey_design": survey} if survey else {}),
                **({"aggregate": aggregate} if aggregate else {}),
            )

    def average(part: Panel) -> tuple[float, float]:
        found = result(part)
        return float(found.overall_att), float(found.overall_se)

    whole, sets = result(panel, "all"), treated_sets(panel)
    effects = [Effect("att", None, None, float(whole.overall_att), float(whole.overall_se), (panel.treated,))]
    for estimand, table in (("att_event", whole.event_study_effects), ("att_cohort", whole.group_effects)):
        for level, values in (table or {}).items():
            if (key := (estimand, f"{float(level):.0f}")) in sets:
                numbers = (float(values["effect"]), float(values["se"]))
                effects.append(Effect(estimand, None, key[1], *numbers, (sets[key],)))
    effects += list(by_splits(panel, average))
    notes = [*fixed_effects_left_out(panel), left_out(exposures).removeprefix("; ")]
    note = "; ".join(part for part in notes if part)
    return tabulate(panel, rescaled(effects, spread), estimator, prob, note)


def plain_frame(panel: Panel) -> pd.DataFrame:
    """Rows as these libraries take them: y, unit, time, cohort (0 where never treated), weight."""
    cohort = np.where(np.isfinite(panel.row_cohort), panel.row_cohort, 0).astype(int)
    columns = {"y": panel.outcome, "unit": panel.unit, "time": panel.time, "cohort": cohort, "weight": panel.weight}
    return pd.DataFrame(columns)


def in_its_spread(panel: Panel) -> tuple[Panel, float]:
    """The panel with its outcome in units of the spread within units, and the spread: libraries compare with 1e-8."""
    _, spread = standardised(panel)
    return replace(panel, outcome=panel.outcome / spread), spread


def rescaled(effects: list[Effect], spread: float) -> list[Effect]:
    """Effects in units of the outcome again."""
    return [replace(effect, estimate=spread * effect.estimate, se=spread * effect.se) for effect in effects]


def event_sets(panel: Panel) -> Sets:
    """Treated rows behind each (estimand, level), and rows before adoption behind each lead, shape (row,)."""
    sets, before = treated_sets(panel), np.isfinite(panel.row_cohort) & ~panel.treated
    lead = np.where(before, panel.event_time, 0)
    return sets | {("lead", f"{level:.0f}"): lead == level for level in np.unique(lead[before])}


def by_splits(panel: Panel, average: Callable[[Panel], tuple[float, float]]) -> Iterator[Effect]:
    """`att_by` of every level from the panel without adopters of other levels; not run for levels of few adopters."""
    never = ~np.isfinite(panel.row_cohort)
    for group, label in labels_of_levels(panel).items():
        if ":" in group:
            continue
        for level, rows in treated_levels(panel, label).items():
            if len(np.unique(panel.unit[rows])) < FEW_UNITS:
                reason = f"not run: fewer than {FEW_UNITS} adopters in the level"
                yield Effect("att_by", group, level, np.nan, np.nan, (rows,), reason)
                continue
            try:
                yield Effect("att_by", group, level, *average(of_rows(panel, never | (label == level))), (rows,))
            except Exception as error:
                reason = f"could not run: {type(error).__name__}: {' '.join(str(error).split())}"
                yield Effect("att_by", group, level, np.nan, np.nan, (rows,), reason)


def fixed_effects_left_out(panel: Panel) -> list[str]:
    """What an estimator without effects of level and period says where the data have them."""
    return ["fixed effects by period are left out"] if panel.fixed else []


def is_unbalanced(panel: Panel) -> bool:
    """Some unit is not seen in some period."""
    return len(panel.unit) < len(panel.units) * len(panel.periods)
