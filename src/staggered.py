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

from src.average import join
from src.design import last_before
from src.frequentist import (
    FEW_UNITS,
    Effect,
    combine,
    group_labels,
    is_weighted,
    left_out,
    mean,
    quantile_of,
    regress,
    standard_covariates,
    standardised,
    tabulate,
    treated_levels,
    treated_sets,
)
from src.panel import Panel, in_one_line, of_rows

DRAWS = 999  # of the multiplier bootstrap
Sets = dict[tuple[str, str | None], np.ndarray]
Numbers = dict[tuple[str, str | None], tuple[float, float]]  # estimate and standard error by (estimand, level)


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
    note = join(
        "covariates are left out" if panel.covariate_names else "",
        fixed_effects_left_out(panel),
        "nobody never adopts: the last cohort stands in" if control == "nevertreated" and everybody else "",
        "repeated cross-sections, because units are not seen in every period" if is_unbalanced(panel) else "",
        left_out(exposures),
    )
    cells = group_times(panel, control)
    path, cohorts = aggregate(cells, "dynamic"), aggregate(cells, "group")
    numbers: Numbers = {
        ("att", None): of_aggregate(cells),
        **{
            ("att_gt", f"{g:.0f}@{t:.0f}"): (att, se)
            for g, t, att, se in zip(cells.groups, cells.times, cells.att_gt, cells.se_gt, strict=True)
        },
        **{
            ("att_event" if e >= 0 else "lead", f"{e:.0f}"): (att, se)
            for e, att, se in zip(path.event_times, path.att_by_event, path.se_by_event, strict=True)
            if e != -1
        },
        **{
            ("att_cohort", f"{g:.0f}"): (att, se)
            for g, att, se in zip(cohorts.event_times, cohorts.att_by_event, cohorts.se_by_event, strict=True)
        },
    }
    splits = by_splits(panel, lambda part: of_aggregate(group_times(from_adoption(part), control)))
    effects = rescaled([*effects_of(numbers, event_sets(panel)), *splits], spread)
    table = tabulate(panel, effects, estimator, prob, note)
    if estimator != "cs":
        return table
    band = aggregate(cells, "dynamic", boot=True, cband=True, biters=DRAWS, alpha=1 - prob, random_state=0)
    wide, usual = float(np.max(band.critical_values)), quantile_of(panel, prob)
    wider = [
        Effect(e.estimand, None, e.level, e.estimate, e.se * wide / usual, e.rows)
        for e in effects
        if e.estimand in ("lead", "att_event")
    ]
    whole = f"the band of all of these together: {wide:.2f} standard errors"
    bands = tabulate(panel, wider, "cs_uniform", prob, whole).assign(se=np.nan)
    return pd.concat([table, bands], ignore_index=True)


def from_adoption(panel: Panel) -> Panel:
    """Rows from the last period before the first adoption on, where effects and their average compare no other.

    All rows where the library weighs cells by something in earlier ones: weights, or adopters who leave before that.
    """
    before = panel.periods[panel.periods < panel.cohort.min()]
    later = panel.time >= before.max(initial=panel.periods.min())
    adopters = np.flatnonzero(np.isfinite(panel.cohort))
    if is_weighted(panel) or not np.isin(adopters, panel.unit[later]).all():
        return panel
    return of_rows(panel, later)


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
    effects = [
        combine(fit, estimand, None, level, averaged(cells, rows, panel.weight), rows)
        for (estimand, level), rows in event_sets(panel).items()
        if level != "-1"
    ]

    def average(part: Panel) -> tuple[float, float]:
        if np.isfinite(part.cohort).all():
            raise ValueError("no unit never adopts, and the last adopters of a level are treated in these periods")
        columns = relative_cells(part)
        weights = averaged(columns, part.treated, part.weight)
        whole = combine(regress(part, columns), "att", None, None, weights, part.treated)
        return whole.estimate, whole.se

    effects += list(by_splits(panel, average))
    return tabulate(panel, effects, "sunab", prob, left_out(exposures).removeprefix("; "))


def relative_cells(panel: Panel) -> dict[str, np.ndarray]:
    """Rows of every cohort in every period but its last one before adoption, shape (row,) each."""
    cohorts = np.unique(panel.cohort[np.isfinite(panel.cohort)])
    if np.isfinite(panel.cohort).all():
        cohorts = cohorts[:-1]
    cells: dict[str, np.ndarray] = {}
    base = last_before(panel)
    for g in cohorts:
        mine = (panel.row_cohort == g) & (panel.time != base)
        cells |= {f"{g:.0f}@{t}": mine & (panel.time == t) for t in np.unique(panel.time[mine])}
    return cells


def averaged(cells: dict[str, np.ndarray], rows: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Share of each cell in the `rows`, of those that have any."""
    return {name: mean(inside, rows, weight) for name, inside in cells.items() if (inside & rows).any()}


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

    whole = result(panel, "all")
    numbers: Numbers = {("att", None): (whole.overall_att, whole.overall_se)}
    for estimand, table in (("att_event", whole.event_study_effects), ("att_cohort", whole.group_effects)):
        numbers |= {(estimand, f"{level:.0f}"): (row["effect"], row["se"]) for level, row in (table or {}).items()}
    effects = rescaled([*effects_of(numbers, treated_sets(panel)), *by_splits(panel, average)], spread)
    return tabulate(panel, effects, estimator, prob, join(fixed_effects_left_out(panel), left_out(exposures)))


def effects_of(numbers: Numbers, sets: Sets) -> list[Effect]:
    """Those of the numbers that the panel has rows of."""
    return [
        Effect(estimand, None, level, float(estimate), float(se), (sets[estimand, level],))
        for (estimand, level), (estimate, se) in numbers.items()
        if (estimand, level) in sets
    ]


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
    for group, label in group_labels(panel).items():
        for level, rows in treated_levels(panel, label).items():
            if len(np.unique(panel.unit[rows])) < FEW_UNITS:
                reason = f"not run: fewer than {FEW_UNITS} adopters in the level"
                yield Effect("att_by", group, level, np.nan, np.nan, (rows,), reason)
                continue
            try:
                yield Effect("att_by", group, level, *average(of_rows(panel, never | (label == level))), (rows,))
            except Exception as error:
                reason = f"could not run: {in_one_line(error)}"
                yield Effect("att_by", group, level, np.nan, np.nan, (rows,), reason)


def fixed_effects_left_out(panel: Panel) -> str:
    """What an estimator without effects of level and period says where the data have them."""
    return "fixed effects by period are left out" if panel.fixed else ""


def is_unbalanced(panel: Panel) -> bool:
    """Some unit is not seen in some period."""
    return len(panel.unit) < len(panel.units) * len(panel.periods)
