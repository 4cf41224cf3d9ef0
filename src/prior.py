"""What does the prior say before the data do? `python -m src.prior model=hier data=synthetic prior=weak`.

    panel ─▶ design, errors ─▶ model ──draws from its prior──▶ estimands ─▶ prior.csv, prior.png, a sentence a line
                                                          └─▶ outcomes of treated rows beside those that were seen

Units, periods and covariates have flat priors, so that an outcome has a prior only given what its unit was before:

    y_it = mean of unit i before adoption + effect_it + s e_it,    e ~ Normal(0, 1)              Gaussian
    y_it ~ Poisson(mean of unit i before adoption, half an event at least, times exp(effect_it))    counts

An effect is absurd beyond -90% or +900%, or, where there is no percent scale, beyond three SDs of the outcome.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.command import CONF, UserError, command, home
from src.config import Config, PriorConfig

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table

    from src.average import Average
    from src.collapse import Collapsed
    from src.estimand import Scales
    from src.panel import Panel

DRAWS = 2000
ABSURD = (-90.0, 900.0)  # percent
MANY_SD = 3.0  # of the outcome
MUCH = 0.05  # prior mass on absurd effects that is worth a sentence
SHOWN = ("att", "contrast", "total_treated", "spill_control", "overall", "spill_per_pp")
COLUMNS = [
    *["estimand", "group", "level", "scale", "mean", "sd", "median", "low", "high", "prob", "p_positive"],
    *["absurdly_low", "absurdly_high", "n_units", "n_obs", "note"],
]


@dataclass(frozen=True)
class Said:
    """What the prior says.

    Attributes
    ----------
    table : DataFrame
        `COLUMNS`.
    scales : Scales
    seen, drawn : array
        Outcomes of treated rows: as they were, shape (row,), and from the prior, shape (draw, row).
    """

    table: pd.DataFrame
    scales: Scales
    seen: np.ndarray
    drawn: np.ndarray


def prior(config: Config) -> int:
    """Draw from the prior, print what it says of effects and outcomes, write the folder."""
    from src import fit, trace
    from src.priorfigure import draw
    from src.terminal import console

    if len(fit.order_of(config)) > 1:
        raise UserError(f"model={config.model.name}: the prior of one outcome is looked at: use model=hier")
    with ExitStack() as stack:
        regression, shares, _ = fit.rows_of(config, stack)
        if regression.blocks is not None:
            raise UserError("src.prior looks at single rows: raise engine.rows_in_memory, or give a part of the units")
        errors = fit.errors_of(config, regression)
        system = fit.collapsed_system(config, regression, shares, errors)
        collapsed = system[0].collapsed
        model = fit.build_model(config, system, fit.learned_kernel(config, collapsed))
    said = looked_at(model, collapsed, config.prob, config.seed)
    folder = home("prior", config.data.name, config.model.name, run_of(config, collapsed.regression.panel))
    folder.mkdir(parents=True, exist_ok=True)
    trace.write(said.table.to_csv(index=False), folder / "prior.csv")
    heading = f"{config.data.name}, model {config.model.name}, prior {config.prior.name}: before the data"
    draw(said, heading, unit_of(collapsed), folder / "prior.png")
    out = console()
    out.print(printed(said.table, heading))
    for line in (*in_words(said, collapsed), "", *lines_of(config.prior, collapsed)):
        out.print(line, soft_wrap=True)
    for file in ("prior.csv", "prior.png"):
        out.print(f"  {folder / file}", soft_wrap=True)
    return 0


def run_of(config: Config, panel: Panel) -> str:
    """Hash of what determines the prior's folder."""
    from src import fit, trace

    return trace.run_id(fit.posterior_settings(config) | {"prob": config.prob}, panel.sha256)


def looked_at(model, collapsed: Collapsed, prob: float, seed: int) -> Said:
    """Estimands and outcomes under draws from the prior of a model.

    Parameters
    ----------
    model : pm.Model
        In units of s.
    collapsed : Collapsed
    prob : float
        Mass of the intervals.
    seed : int
    """
    from src import estimand, sample, trace
    from src.rates import Factor, count_scales

    regression = collapsed.regression
    theta = trace.in_outcome_units(sample.draw_prior(model, seed, DRAWS), collapsed.s)["theta"]
    found = estimand.averages(regression, collapsed.evidence, trace.terms(theta))
    draws = estimand.draw_estimands(theta, regression.design.all_labels, found)
    if collapsed.levels is None:
        scales = estimand.linear_scales(draws, found, regression.panel.is_log)
    else:
        scales = count_scales(Factor(collapsed, theta), found, draws, seed)
    table = estimand.table(scales, prob, converged=False)
    absurd = pd.concat([shares_of_absurd(scales, name, collapsed) for name in scales], ignore_index=True)
    rows, drawn = outcomes(theta, collapsed, seed)
    return Said(table.join(absurd).reindex(columns=COLUMNS), scales, regression.panel.outcome[rows], drawn)


def shares_of_absurd(scales: Scales, name: str, collapsed: Collapsed) -> pd.DataFrame:
    """Prior mass below and above what is absurd of every estimand on one scale; NaN on scales without such ends."""
    draws = scales[name].draws.reshape(-1, len(scales[name].found))
    is_read = name == "percent" or "percent" not in scales
    low, high = ends_of(collapsed) if is_read else (np.nan, np.nan)
    known = np.isfinite(draws).all(axis=0) | (name == "percent")
    found = {"absurdly_low": (draws < low).mean(axis=0), "absurdly_high": (draws > high).mean(axis=0)}
    identified = np.array([average.identified for average in scales[name].found])
    return pd.DataFrame({key: np.where(known & identified & np.isfinite(low), v, np.nan) for key, v in found.items()})


def ends_of(collapsed: Collapsed) -> tuple[float, float]:
    """Beyond which an effect is absurd, in the unit in which effects are read."""
    if unit_of(collapsed) == "percent":
        return ABSURD
    most = MANY_SD * collapsed.regression.frame.outcome[1]
    return -most, most


def outcomes(theta, collapsed: Collapsed, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Treated rows of units that are seen before adoption, shape (row,), and their outcomes under the prior.

    The latter of shape (draw, row).
    """
    regression = collapsed.regression
    panel = regression.panel
    before = ~panel.treated
    seen = np.bincount(panel.unit[before], minlength=len(panel.units))
    rows = np.flatnonzero(panel.treated & (seen[panel.unit] > 0))
    total = np.bincount(panel.unit[before], panel.outcome[before], minlength=len(panel.units))
    level = (total / np.maximum(seen, 1))[panel.unit[rows]]
    columns = regression.design.positions(theta["column"].to_numpy())
    flat = theta.transpose("chain", "draw", "column").to_numpy().reshape(-1, len(columns))
    effect = (regression.matrix[rows][:, columns] @ flat.T).T
    rng = np.random.default_rng([seed, 17])
    if collapsed.levels is None:
        return rows, level + effect + collapsed.s * rng.standard_normal(effect.shape)
    least = 0.5 / np.maximum(seen, 1)[panel.unit[rows]]
    mean = np.maximum(level, least) * np.exp(np.clip(effect, -50, 30))
    return rows, rng.poisson(np.minimum(mean, 1e15)).astype(float)


def unit_of(collapsed: Collapsed) -> str:
    """Unit in which effects are read."""
    return "percent" if collapsed.levels is not None or collapsed.regression.panel.is_log else "units of the outcome"


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Rows on the scale on which effects are read, of the estimands that are looked at first."""
    from src.compare import readable_scale

    rows = table[(table["scale"] == readable_scale(table)) & table["mean"].notna() | table["absurdly_low"].notna()]
    rows = rows[rows["scale"] == readable_scale(table)]
    plain = rows["estimand"].isin(SHOWN) | rows["estimand"].eq("att_by") & ~rows["group"].fillna("").str.contains(":")
    return rows[plain]


def printed(table: pd.DataFrame, heading: str) -> Table:
    """What the prior says of single estimands; of a group with many levels, of the first."""
    from rich import box
    from rich.table import Table

    rows = readable(table)
    many = rows["estimand"].eq("att_by") & (rows.groupby(["estimand", "group"])["level"].transform("nunique") > 3)
    rows = rows[~many | ~rows.duplicated(["estimand", "group"])]
    found = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", pad_edge=False)
    found.add_column("")
    for name in ("median", f"{100 * table['prob'].iloc[0]:g}% interval", "absurdly low", "absurdly high"):
        found.add_column(name, justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        label = " ".join(str(row[k]) for k in ("estimand", "group", "level") if pd.notna(row[k]) and row[k])
        interval = f"{number(row['low'])} to {number(row['high'])}"
        shares = [f"{row[k]:.1%}" if pd.notna(row[k]) else "" for k in ("absurdly_low", "absurdly_high")]
        found.add_row(label, number(row["median"]), interval, *shares)
    return found


def number(value: float) -> str:
    """With three figures, plainly as far as that is readable."""
    if not np.isfinite(value):
        return "beyond"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.1e}"


def in_words(said: Said, collapsed: Collapsed) -> list[str]:
    """Sentences on what the prior would have us believe of the average effect and of outcomes."""
    rows = said.table[said.table["estimand"].eq("att") & said.table["absurdly_low"].notna()]
    lines = []
    for _, row in rows.iterrows():
        mass = row["absurdly_low"] + row["absurdly_high"]
        what = "below -90% or above +900%" if row["scale"] == "percent" else "beyond three SDs of the outcome"
        loud = mass > MUCH
        advice = " The data will have to speak: it is no prior to draw conclusions from where they are few." * loud
        lines.append(f"{mass:.1%} of the prior mass of the average effect lies {what}.{advice}")
    low, high = said.seen.min(), said.seen.max()
    outside = float(((said.drawn < low) | (said.drawn > high)).mean())
    lines.append(
        f"{outside:.1%} of the outcomes of treated rows that the prior draws lie outside of those that were seen "
        f"({number(low)} to {number(high)})."
    )
    return lines


def average_in_words(theta: xr.DataArray, collapsed: Collapsed, att: Average, prob: float) -> str:
    """What draws of the coefficients from the prior, in units of the outcome, say of the average effect."""
    from src import estimand

    draws = estimand.draw_estimands(theta, collapsed.regression.design.all_labels, [att]).ravel()
    is_percent = unit_of(collapsed) == "percent"
    sign, ends = "%" if is_percent else "", ends_of(collapsed)
    if is_percent:
        draws = estimand.percent(draws)
    low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2])
    absurd = float(((draws < ends[0]) | (draws > ends[1])).mean())
    where = "below -90% or above +900%" if is_percent else "beyond three SDs of the outcome"
    return (
        f"The prior held the average effect to lie between {number(low)}{sign} and {number(high)}{sign} with "
        f"probability {100 * prob:g}%; {absurd:.0%} of it lay {where} (python -m src.prior says more, and why each of "
        "its scales is what it is)."
    )


def lines_of(settings: PriorConfig, collapsed: Collapsed) -> list[str]:
    """A line for each scale of the prior: what it is, and why."""
    preset, reasons = Path(CONF / "prior" / f"{settings.name}.yaml"), {}
    if preset.is_file():
        reasons = dict(re.findall(r"^(\w+):.*?#\s*(.+)$", preset.read_text(encoding="utf-8"), re.MULTILINE))
    percent = unit_of(collapsed) == "percent"
    lines = [f"prior={settings.name}, s = {collapsed.s:.3g} {'log points' if percent else 'units of the outcome'}:"]
    hidden = ("name",) if settings.att is not None or settings.spread is not None else ("name", "sure")
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name not in hidden and value is not None:
            lines.append(f"  {field.name}: {value}  {reasons.get(field.name, '')}".rstrip())
    return lines


if __name__ == "__main__":
    command(prior)
