"""From coefficients to the effects that people ask for: averages over the treated rows of the data, draw by draw.

Every estimand is a linear map of theta. With tau the effect of own adoption at zero exposure and S the exposure,

    direct         = mean over treated rows of tau                       (= att)
    spill_treated  = mean over treated rows of S'delta_treated
    total_treated  = direct + spill_treated                              mu(1, S) - mu(0, 0)
    switching      = mean over treated rows of tau + S'(delta_treated - delta_control)
    spill_control  = mean over untreated exposed rows of S'delta_control
    overall        = mean over all rows of D (tau + S'delta_treated) + (1 - D) S'delta_control
    spill_per_pp   = slope of one exposure / 100 (of one that is no share: per SD)

Weights are counts of rows (times the data's sampling weights), never estimated precisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import arviz as az
import numpy as np
import pandas as pd
import scipy.sparse as sp
import xarray as xr

from models.inputs import CrossProducts
from src.design import NUISANCE, Regression, cell_labels, in_order, joint_labels
from src.exposure import flat_exposures, is_share, sources
from src.identify import moves, silent_directions, slopes_in, spoken_rows
from src.panel import Panel, count

MOST_CONTRASTED = 5
NEAR_ZERO = 0.25
FEW = 0.05
LEAST_SUPPORT = 0.01  # of the rows of a stratum that are near zero exposure
MOST_SILENT = 0.5
PER_SD = "per SD of the exposure"  # begins the note of a slope that is not per percentage point
BEYOND = "not computed: too large for a percentage; is the outcome in logs?"
# the classification by which an estimand is told apart; att_by and contrast bear the name of theirs
FAMILY = {"att_event": "path", "att_cohort": "cohort", "att_gt": "cell", "spill_per_pp": "mu"}

COLUMNS = [
    *["estimand", "group", "level", "scale", "mean", "sd", "median", "low", "high", "prob", "p_positive"],
    *["ess_bulk", "ess_tail", "r_hat", "mcse_mean", "n_units", "n_obs", "truth", "note"],
]


@dataclass(frozen=True)
class Average:
    """One estimand as a linear map of the coefficients.

    Attributes
    ----------
    estimand, group, level : str
        Key in the tables; `group` and `level` are empty where they do not apply.
    weights : array, shape (column,)
        Over all columns of the design.
    n_units, n_obs : int
        Units and rows that are averaged.
    truth : float
        NaN for real data.
    note : str
    identified : bool
        False where the data say nothing: the estimate is then NaN and `note` says why.
    """

    estimand: str
    group: str
    level: str
    weights: np.ndarray
    n_units: int
    n_obs: int
    truth: float = float("nan")
    note: str = ""
    identified: bool = True


def averages(regression: Regression, evidence: CrossProducts, terms: tuple[str, ...]) -> list[Average]:
    """Every estimand of the panel, with what the data cannot identify marked.

    Identified is what a regression on adoption by the estimand's own classification would identify (with the exposures
    that the model has), provided that the data speak of at least half of the rows averaged. Where the model gives
    every cell a coefficient of its own, that coefficient must be identified too.

    Parameters
    ----------
    regression : Regression
    evidence : CrossProducts
        Over the effect and exposure columns of the design, in its order.
    terms : tuple of str
        Blocks that the model uses.

    Returns
    -------
    list of Average
        att, direct and its companions (where exposures are modelled), att_by, contrast, att_event, att_cohort, att_gt,
        spill_per_pp.
    """
    spoken = spoken_rows(regression, evidence, terms)
    found = [*own_effects(regression, spoken), *spillover_effects(regression, spoken)]
    own_cells = [] if "mu" in terms else [terms]
    families = [FAMILY.get(a.estimand, a.group or "mu") for a in found]
    null = {}
    for family in dict.fromkeys(families):
        bases = [(family, *slopes_in(terms)), *own_cells]
        null[family] = np.hstack([silent_directions(regression, evidence, basis) for basis in bases])
    marked = [mark(average, null[family]) for average, family in zip(found, families, strict=True)]
    return [mark_structural(a, marked[0], regression.design.columns(terms)) for a in marked]


def own_effects(regression: Regression, spoken: np.ndarray) -> Iterator[Average]:
    """Averages of tau, the effect of own adoption at zero exposure, over subsets of the treated rows.

    Parameters
    ----------
    regression : Regression
    spoken : array of bool, shape (treated row,)
        Rows of whose effect the data speak.
    """
    panel = regression.panel
    rows = np.flatnonzero(panel.treated)
    event_time = panel.event_time[rows].astype(int)
    cohort = panel.row_cohort[rows].astype(int)
    labels = {name: np.array(f.levels)[f.code][panel.unit[rows]] for name, f in panel.groups.items()}

    def averaged(estimand: str, group: str, label: np.ndarray) -> Iterator[Average]:
        return subset_averages(regression, estimand, group, label, spoken)

    yield from averaged("att", "", np.full(len(rows), ""))
    for name, level in labels.items():
        by_level = list(averaged("att_by", name, level))
        yield from by_level
        if 2 <= len(by_level) <= MOST_CONTRASTED:
            yield from (difference(a, b) for a, b in combinations(by_level, 2))
    for a, b in combinations(labels, 2):
        yield from averaged("att_by", f"{a}:{b}", joint_labels(labels[a], labels[b]))
    yield from averaged("att_event", "", event_time)
    yield from averaged("att_cohort", "", cohort)
    yield from averaged("att_gt", "", cell_labels(cohort, panel.time[rows]))


def subset_averages(
    regression: Regression, estimand: str, group: str, labels: np.ndarray, spoken: np.ndarray
) -> Iterator[Average]:
    """Average of tau over the treated rows of each label, in sorted order.

    Parameters
    ----------
    regression : Regression
    estimand, group : str
    labels : array, shape (treated row,)
    spoken : array of bool, shape (treated row,)
    """
    panel, design = regression.panel, regression.design
    rows = np.flatnonzero(panel.treated)
    levels, code = in_order(labels)
    weight = panel.weight[rows]
    share = sp.csr_array((weight, (code, np.arange(len(rows)))), shape=(len(levels), len(rows)))
    total = np.bincount(code, weight)
    weights = (share @ regression.matrix[rows]).toarray() / total[:, None]
    for name in ("exposure", *NUISANCE):
        if name in design.blocks:
            weights[:, design.blocks[name].columns] = 0.0
    if "difference" in design.blocks:
        weights[:, design.blocks["difference"].columns] = -regression.exposure_centre / regression.exposure_sd
    truth = np.full(len(levels), np.nan)
    if panel.truth is not None:
        truth = np.bincount(code, weight * panel.truth.tau[rows]) / total
    silent = np.bincount(code, weight * ~spoken) / total
    near, far = rows_near_zero(regression), extrapolation(regression)
    for k, level in enumerate(levels):
        mine = code == k
        units = np.unique(panel.unit[rows][mine])
        n_units = len(units)
        unsupported = without_support(near, panel, units)
        identified = bool(silent[k] <= MOST_SILENT) and not unsupported
        note = unsupported or join(about_silence(panel, rows[mine], spoken[mine], silent[k]), far)
        yield Average(
            estimand, group, str(level), weights[k], n_units, int(mine.sum()), float(truth[k]), note, identified
        )


def about_silence(panel: Panel, rows: np.ndarray, spoken: np.ndarray, share: float) -> str:
    """What to say where the data are silent about some of the `rows`, `share` of their weight."""
    if spoken.all():
        return ""
    units = len(np.unique(panel.unit[rows]))
    lost = units - len(np.unique(panel.unit[rows][spoken]))
    which = f"{share:.0%} of these rows ({lost} of {units} units wholly)"
    if share > MOST_SILENT:
        return f"not identified: nothing untreated in the data compares with {which}"
    return f"nothing untreated in the data compares with {which}: there the model alone speaks"


def difference(a: Average, b: Average) -> Average:
    """Contrast of two levels of a group, `a` minus `b`."""
    return Average(
        "contrast",
        a.group,
        f"{a.level} - {b.level}",
        a.weights - b.weights,
        a.n_units + b.n_units,
        a.n_obs + b.n_obs,
        a.truth - b.truth,
        next((x.note for x in (a, b) if not x.identified), ""),
        a.identified and b.identified,
    )


def spillover_effects(regression: Regression, spoken: np.ndarray) -> Iterator[Average]:
    """What others' adoption does: totals over treated and untreated rows, and the slope of each exposure."""
    panel, design = regression.panel, regression.design
    if not regression.exposures:
        return
    own = next(subset_averages(regression, "direct", "", np.full(int(panel.treated.sum()), ""), spoken))
    yield own
    exposed = regression.shares.any(axis=1)
    control_rows, treated_rows = ~panel.treated & exposed, panel.treated
    sd, centre = regression.exposure_sd, regression.exposure_centre
    known = panel.truth is not None
    names = regression.exposures
    to_control = np.array([panel.truth.slope_control[n] for n in names]) if panel.truth else np.zeros(len(names))
    to_treated = np.array([panel.truth.slope_treated[n] for n in names]) if panel.truth else np.zeros(len(names))

    def slopes(on_control: np.ndarray, on_difference: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
        weights = np.zeros(design.size) if base is None else base.copy()
        weights[design.blocks["exposure"].columns] += on_control / sd
        weights[design.blocks["difference"].columns] += on_difference / sd
        return weights

    flat = flat_exposures(panel, regression.share_of)
    of_others = np.zeros((design.size, len(flat)))  # one direction for each exposure that fixed effects absorb
    for j, name in enumerate(flat):
        of_others[design.blocks["exposure"].start + names.index(name), j] = 1.0

    def average(estimand: str, weights: np.ndarray, rows: np.ndarray, truth, group="", level="", note="", given=True):
        n_units = len(np.unique(panel.unit[rows]))
        enough = bool(rows.any()) and given
        reason = note if rows.any() else "not identified: no such row is exposed"
        value = float(truth) if known else float("nan")
        if enough and flat and moves(weights, of_others):
            enough, reason = False, "not identified: " + "; ".join(flat.values())
        return Average(estimand, group, level, weights, n_units, int(rows.sum()), value, reason, enough)

    far = extrapolation(regression)
    none = np.zeros(len(names))
    on_treated = regression.shares * treated_rows[:, None]
    total = slopes(centre, centre, own.weights)
    yield average(
        "total_treated", total, treated_rows, own.truth + centre @ to_treated, note=own.note, given=own.identified
    )
    switch = slopes(none, centre, own.weights)
    gained = own.truth + centre @ (to_treated - to_control)
    about = "" if own.identified else own.note
    yield average("switching", switch, treated_rows, gained, note=about, given=own.identified)
    spill = slopes(centre, centre)
    yield average("spill_treated", spill, treated_rows, centre @ to_treated, note=far)
    if control_rows.any():
        mean = np.average(regression.shares[control_rows], axis=0, weights=panel.weight[control_rows])
        yield average("spill_control", slopes(mean, none), control_rows, mean @ to_control)
    of_all = slopes(*(np.average(x, axis=0, weights=panel.weight) for x in (regression.shares, on_treated)))
    treated_share = float(np.average(treated_rows, weights=panel.weight))
    everywhere = np.ones(len(panel.unit), dtype=bool)
    yield average(
        "overall",
        of_all + treated_share * own.weights,
        everywhere,
        treated_share * (own.truth + centre @ to_treated)
        + np.average(regression.shares * ~treated_rows[:, None], axis=0, weights=panel.weight) @ to_control,
        note=own.note,
        given=own.identified,
    )
    for k, name in enumerate(names):
        unit = regression.exposure_step[k] * np.eye(len(names))[k]
        about = "" if is_share(panel, name) else f"{PER_SD} ({unit[k]:.3g}), which is no share"
        mine = regression.shares[:, k] > 0
        control, treated = ~panel.treated & mine, panel.treated & mine
        arms = {
            "control": (slopes(unit, none), control, unit @ to_control),
            "treated": (slopes(unit, unit), treated, unit @ to_treated),
            "difference": (slopes(none, unit), treated, unit @ (to_treated - to_control)),
        }
        for level, (weights, rows, truth) in arms.items():
            note = join(about, rests_on(panel, name, rows))
            yield average("spill_per_pp", weights, rows, truth, group=name, level=level, note=note)


def rests_on(panel: Panel, name: str, rows: np.ndarray) -> str:
    """Of how many adopters an exposure of some rows is made, and how many of equal weight they are worth."""
    felt = sources(panel, name, rows)
    felt = felt[felt > 0]
    if not len(felt):
        return ""
    effective = felt.sum() ** 2 / (felt**2).sum()
    return f"rests on {count(len(felt), 'adopter')} to whom others are exposed, worth {effective:.1f} of equal weight"


def rows_near_zero(regression: Regression) -> np.ndarray:
    """Whether a row has all exposures near zero, shape (row,)."""
    return (regression.shares <= NEAR_ZERO * regression.exposure_sd).all(axis=1)


def without_support(near: np.ndarray, panel: Panel, units: np.ndarray) -> str:
    """Why effects at zero exposure cannot be told of some units; empty where they can.

    They are never seen near it, whether treated or not: what they would do there is another's word, not theirs.

    Parameters
    ----------
    near : array of bool, shape (row,)
    panel : Panel
    units : array of int
    """
    share = near[np.isin(panel.unit, units)].mean()
    if share >= LEAST_SUPPORT:
        return ""
    return f"not identified: {share:.1%} of all rows of these units have exposures near zero, where it is evaluated"


def extrapolation(regression: Regression) -> str:
    """What stands between the data and effects at zero exposure: hardly any treated row near it, or fixed effects."""
    if not regression.exposures:
        return ""
    absorbed = flat_exposures(regression.panel, regression.share_of)
    names = " and ".join(absorbed)
    less = f"less the slope of {names} on the untreated over the number of others, which is not known" if names else ""
    near = rows_near_zero(regression)[regression.panel.treated].mean()
    far = f"linear extrapolation: {near:.0%} of treated rows have exposures near zero" if near < FEW else ""
    return join(less, far)


def mark(average: Average, null: np.ndarray) -> Average:
    """The average, marked where it moves along a direction about which the evidence is silent."""
    if average.identified and moves(average.weights, null):
        return replace(average, identified=False, note="not identified: collinear with units, periods or covariates")
    return average


def mark_structural(average: Average, overall: Average, used: np.ndarray) -> Average:
    """The average, with a note where the model makes it equal to the overall effect, or a contrast zero.

    Parameters
    ----------
    average, overall : Average
    used : array of int
        Columns that the model uses.
    """
    is_part = average.estimand.startswith("att_") and average.n_obs != overall.n_obs
    fixed = overall.weights[used] if is_part else 0.0
    of_own = is_part or average.estimand == "contrast"
    if average.identified and of_own and np.allclose(average.weights[used], fixed):
        return replace(average, note=join("fixed by the model: one effect for all", average.note))
    return average


def join(*parts: str) -> str:
    """Notes in one string."""
    return "; ".join(part for part in parts if part)


def draw_estimands(theta: xr.DataArray, labels: list[str], found: list[Average]) -> np.ndarray:
    """Draws of every estimand on the outcome scale, shape (chain, draw, estimand); NaN where not identified.

    Parameters
    ----------
    theta : DataArray, dims (chain, draw, column)
        In units of the outcome.
    labels : list of str
        Of all columns of the design; those missing in theta have coefficient zero.
    found : list of Average
    """
    position = pd.Index(labels).get_indexer(pd.Index(theta["column"].to_numpy()))
    weights = np.array([average.weights[position] for average in found])
    draws = theta.transpose("chain", "draw", "column").to_numpy() @ weights.T
    draws[..., [not average.identified for average in found]] = np.nan
    return draws


def percent(effect: np.ndarray) -> np.ndarray:
    """Proportional effect of an effect in log points, 100 (exp(effect) - 1); inf beyond the range of numbers."""
    with np.errstate(over="ignore"):
        return 100 * np.expm1(effect)


def dataset(draws: np.ndarray, found: list[Average]) -> xr.Dataset:
    """The draws as named variables, one for each estimand and group, dims chain and draw first."""
    dims = {"att_event": "event_time", "att_cohort": "cohort", "att_gt": "cell", "spill_per_pp": "arm"}
    variables: dict[str, xr.DataArray] = {}
    keys = [(average.estimand, average.group) for average in found]
    for estimand, group in dict.fromkeys(keys):
        mine = [k for k, key in enumerate(keys) if key == (estimand, group)]
        name = f"{estimand}_{group}" if group else estimand
        levels = [found[k].level for k in mine]
        if levels == [""]:
            variables[name] = xr.DataArray(draws[..., mine[0]], dims=("chain", "draw"))
            continue
        dim = dims.get(estimand, f"{group}_contrast" if estimand == "contrast" else group)
        coordinate = [int(level) for level in levels] if dim in ("event_time", "cohort") else levels
        variables[name] = xr.DataArray(draws[..., mine], dims=("chain", "draw", dim), coords={dim: coordinate})
    counts = {"chain": np.arange(draws.shape[0]), "draw": np.arange(draws.shape[1])}
    return xr.Dataset(variables).assign_coords(counts)


def table(draws: np.ndarray, found: list[Average], prob: float, is_log: bool) -> pd.DataFrame:
    """Summary of every estimand and scale in the columns of the contract, equal-tailed intervals of mass `prob`."""
    scales = {"outcome": draws} | ({"percent": percent(draws)} if is_log else {})
    parts = []
    for scale, values in scales.items():
        known = np.array([average.truth for average in found])
        beyond = np.isinf(values).any(axis=(0, 1))
        notes = [join(a.note, BEYOND if far else "") for a, far in zip(found, beyond, strict=True)]
        part = pd.DataFrame(
            {
                "estimand": [average.estimand for average in found],
                "group": [average.group or None for average in found],
                "level": [average.level or None for average in found],
                "scale": scale,
                **summary(np.where(beyond, np.nan, values), prob),
                "n_units": [average.n_units for average in found],
                "n_obs": [average.n_obs for average in found],
                "truth": known if scale == "outcome" else percent(known),
                "note": [note or None for note in notes],
            }
        )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def summary(values: np.ndarray, prob: float) -> dict[str, np.ndarray]:
    """Moments, interval and convergence of draws of shape (chain, draw, estimand).

    NaN stays NaN; what never varies (a contrast under one effect for all) has no convergence to speak of.
    """
    tail = (1 - prob) / 2
    known = np.isfinite(values).all(axis=(0, 1))
    moving = known & (np.ptp(values, axis=(0, 1)) > 0)
    flat = values.reshape(-1, values.shape[-1])
    low, median, high = np.quantile(flat[:, known], [tail, 0.5, 1 - tail], axis=0)
    data = xr.Dataset({"x": (("chain", "draw", "estimand"), values[..., moving])})
    of_known = {
        "mean": flat[:, known].mean(axis=0),
        "sd": flat[:, known].std(axis=0, ddof=1),
        "median": median,
        "low": low,
        "high": high,
        "p_positive": (flat[:, known] > 0).mean(axis=0),
    }
    of_moving = {
        "ess_bulk": az.ess(data, method="bulk"),
        "ess_tail": az.ess(data, method="tail", prob=0.9),
        "r_hat": az.rhat(data),
        "mcse_mean": az.mcse(data, method="mean"),
    }
    found = {name: np.full(values.shape[-1], np.nan) for name in [*of_known, *of_moving]}
    for name, value in of_known.items():
        found[name][known] = value
    for name, result in of_moving.items():
        found[name][moving] = result["x"].to_numpy()
    return found | {"prob": np.full(values.shape[-1], prob)}
