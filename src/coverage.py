"""What replications add up to: bias, error and coverage of every estimator, as a table and as a picture.

Rows of replications come from `src.replicate`; each holds one estimator's say on one estimand in one replication.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from src.compare import KEYS
from src.figure import DPI, STYLE
from src.trace import whole

ALL = "(all)"
MOST_LEVELS = 5  # a group with more is one row
OWN_ROWS = ("att_event", "contrast")  # but for these, each of which is a question of its own
SMALL = 4  # adopters in a small cell, at most
FAIR_SHARE = 0.5  # of the replications that a level must be in to be called the worst
COLUMNS = [
    *["generator", "estimator", *KEYS, "replications", "missing", "bias", "mc_bias", "rmse", "rmse_small"],
    *["sd_of_estimates", "mean_se", "coverage_90", "mc_90", "coverage_95", "mc_95", "width_90", "width_95"],
    *["p_below_05", "p_above_95", "worst_level", "worst_coverage", "note"],
]
ORACLE, EXPLAINED = "oracle", "explained"  # estimator that is told the spillover; share of its variance explained
AGAINST = [
    "generator",
    "estimator",
    "replications",
    "bias",
    "mc_bias",
    "mse",
    "mc_mse",
    "explained",
    "coverage_95",
    "mc_95",
]
MAIN = ("att", "total_treated", "switching", "contrast", "spill_per_pp")
MODELS = ("#1f3b73", "#4f9bd0", "#7a5aa6", "#2b8a6e")
CLASSICAL = {
    "twfe": "#c7a42b",
    "twfe_exposures": "#e07b1a",
    "etwfe": "#b5403a",
    "etwfe_groups": "#7d2b26",
    "rings": "#d9828f",
}
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
SIZES = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1025)  # first size of each class of cells


def recovered(rows: pd.DataFrame, generator: str, breaks: str = "") -> pd.DataFrame:
    """Performance of every estimator on every estimand.

        bias       mean of (estimate - truth)
        rmse       root mean square of (estimate - truth)
        coverage   share of equal-tailed intervals that hold the truth

    The truth may differ between replications. A Monte Carlo error is the standard error of a mean over replications,
    clustered by replication where a row pools several levels; it does not know how other designs would have done.

    Parameters
    ----------
    rows : DataFrame
        Columns of `replicate.replicate`.
    generator : str
    breaks : str
        The assumption that the generator breaks, empty where it breaks none.

    Returns
    -------
    DataFrame
        `COLUMNS`. rmse_small is over cells of at most four adopters. sd_of_estimates is the SD of (estimate - truth),
        which mean_se, the mean posterior SD or standard error, should match. A row for each level where there are at
        most five (and for each event time); groups with more have one with level "(all)", which names the level that
        fares worst among those that are in at least half of the replications. p_below_05 and p_above_95, for `att`
        only, are the shares of replications in which P(effect > 0) is below .05 and above .95. `missing` counts rows
        without an estimate.

    Notes
    -----
    Source: Morris, White & Crowther (2019), *Statistics in Medicine* 38(11), table 6.
    """
    note = f"assumption broken: {breaks}" if breaks else ""
    rows = rows[rows["estimand"] != EXPLAINED]
    found = []
    for (estimator, estimand, group), family in rows.groupby(["estimator", *KEYS[:2]], sort=False):
        head = {"generator": generator, "estimator": estimator, "estimand": estimand, "group": group, "note": note}
        found += [head | row for row in rows_of_family(family)]
    return pd.DataFrame(found, columns=COLUMNS)


def against_oracle(rows: pd.DataFrame, generator: str) -> pd.DataFrame:
    """The ATT of every estimator beside that of the estimator that is told the spillover, replication by replication.

    Parameters
    ----------
    rows : DataFrame
        Columns of `replicate.replicate`.
    generator : str

    Returns
    -------
    DataFrame
        `AGAINST`: mean of (estimate - oracle's), mean square error over the oracle's, mean share of the variance of
        the true spillover that is explained, coverage of 95% intervals, and Monte Carlo errors of three of them; no
        row where there is no oracle.
    """
    att = rows[rows["estimand"] == "att"].pivot_table(
        index="replication", columns="estimator", values=["truth", "estimate", "low_95", "high_95"]
    )
    if ORACLE not in att.columns.get_level_values("estimator"):
        return pd.DataFrame(columns=AGAINST)
    explained = rows[rows["estimand"] == EXPLAINED].groupby("estimator")["estimate"].mean()
    truth, told = att["truth"][ORACLE], att["estimate"][ORACLE]
    best = (told - truth) ** 2
    found = []
    for name in dict.fromkeys(rows["estimator"]):
        estimate, n = att["estimate"][name], len(att)
        ratio = float(((estimate - truth) ** 2).mean() / best.mean())
        spread = ((estimate - truth) ** 2 - ratio * best).std() / best.mean()
        inside = (att["low_95"][name] <= truth) & (truth <= att["high_95"][name])
        numbers = [float((estimate - told).mean()), float((estimate - told).std() / np.sqrt(n))]
        numbers += [ratio, float(spread / np.sqrt(n)), float(explained.get(name, np.nan))]
        numbers += [float(inside.mean()), float(inside.std() / np.sqrt(n))]
        found.append(dict(zip(AGAINST, [generator, name, n, *numbers], strict=True)))
    return pd.DataFrame(found, columns=AGAINST)


def rows_of_family(family: pd.DataFrame) -> Iterator[dict]:
    """Performance at each level of an estimand, or at all levels together."""
    levels = {level: performance(mine) for level, mine in family.groupby("level", sort=False)}
    estimand = family["estimand"].iloc[0]
    signs = shares_by_sign(family) if estimand == "att" else {}
    if len(levels) <= MOST_LEVELS or estimand in OWN_ROWS:
        yield from ({"level": level} | row | signs for level, row in levels.items())
    if len(levels) > MOST_LEVELS:
        fair = FAIR_SHARE * family["replication"].nunique()
        common = {level: row["coverage_90"] for level, row in levels.items() if row["replications"] >= fair}
        worst = min(common, key=lambda level: common[level], default="")
        worst_of_all = {"worst_level": worst, "worst_coverage": common.get(worst, np.nan)}
        yield {"level": ALL} | performance(family) | worst_of_all


def performance(rows: pd.DataFrame) -> dict:
    """Performance over the rows of one estimator that have an estimate and a standard error."""
    known = rows.dropna(subset=["estimate", "se", "truth"])
    replication, truth = known["replication"].to_numpy(), known["truth"].to_numpy()
    error = known["estimate"].to_numpy() - truth
    found = {
        "replications": known["replication"].nunique(),
        "missing": len(rows) - len(known),
        "bias": mean(error),
        "mc_bias": monte_carlo_error(error, replication),
        "rmse": np.sqrt(mean(error**2)),
        "rmse_small": np.sqrt(mean(error[known["n_units"].to_numpy() <= SMALL] ** 2)),
        "sd_of_estimates": np.std(error, ddof=1) if len(error) > 1 else np.nan,
        "mean_se": mean(known["se"].to_numpy()),
    }
    for mass in (90, 95):
        low, high = known[f"low_{mass}"].to_numpy(), known[f"high_{mass}"].to_numpy()
        inside = (low <= truth) & (truth <= high)
        found[f"coverage_{mass}"] = mean(inside)
        found[f"mc_{mass}"] = monte_carlo_error(inside, replication)
        found[f"width_{mass}"] = mean(high - low)
    return found


def shares_by_sign(rows: pd.DataFrame) -> dict:
    """Share of replications that are nearly sure that the effect is negative, and that it is positive."""
    p = rows["p_positive"].dropna().to_numpy()
    return {"p_below_05": mean(p < 0.05), "p_above_95": mean(p > 0.95)}


def mean(x: np.ndarray) -> float:
    """Mean of x; NaN where there is nothing."""
    return float(np.mean(x)) if len(x) else float("nan")


def monte_carlo_error(x: np.ndarray, replication: np.ndarray) -> float:
    """Standard error of the mean of x, whose values within a replication may depend on each other.

    sqrt(sum over replications of (sum of x - mean)^2) / rows: sqrt(p (1 - p) / rows) where each has one 0 or 1.
    """
    if not len(x):
        return float("nan")
    _, code = np.unique(replication, return_inverse=True)
    return float(np.sqrt((np.bincount(code, x - np.mean(x)) ** 2).sum()) / len(x))


def printed(table: pd.DataFrame, title: str, notes: list[str]) -> Table:
    """The rows that a person looks at first."""
    few = table["level"] != ALL
    main = table["estimand"].isin(MAIN) | ((table["estimand"] == "att_by") & few) | ~few
    shown = table[main & (table["level"] != "difference") & (table["replications"] > 0)].copy()
    shown["what"] = [" ".join(word for word in words if word) for words in shown[KEYS].to_numpy()]
    order = {what: k for k, what in enumerate(dict.fromkeys(shown["what"]))}
    shown = shown.sort_values("what", key=lambda what: what.map(order), kind="stable")
    grid = Table(
        title=title,
        caption="\n".join(notes) or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in ("", "estimator"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("bias", "RMSE", "SD", "mean s.e.", "90% holds", "95% holds", "width 90%"):
        grid.add_column(heading, justify="right", no_wrap=True)
    before = ""
    for row in shown.to_dict("records"):
        digits = decimals(row["rmse"])
        numbers = [f"{row[name]:.{digits}f}" for name in ("bias", "rmse", "sd_of_estimates", "mean_se")]
        held = [f"{row[f'coverage_{mass}']:.2f} ± {row[f'mc_{mass}']:.2f}" for mass in (90, 95)]
        what = "" if row["what"] == before else row["what"]
        grid.add_row(what, row["estimator"], *numbers, *held, f"{row['width_90']:.{digits}f}")
        before = row["what"]
    return grid


def decimals(size: float) -> int:
    """Decimals that show two digits of a number of this size, three at least."""
    return max(3, 1 - int(np.floor(np.log10(size)))) if size > 0 else 3


def draw(rows: pd.DataFrame, title: str, path: Path) -> None:
    """Coverage over all interval masses, and RMSE against the size of the cell, written to `path`.

    Parameters
    ----------
    rows : DataFrame
        Columns of `replicate.replicate`.
    title : str
    path : Path
        A .png.
    """
    known = rows.dropna(subset=["estimate", "se", "truth"])
    families = {name: mine for name, mine in families_of(known).items() if len(mine)}
    colours = colours_of(list(dict.fromkeys(rows["estimator"])))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(families) + 4.4, 4.3), dpi=DPI, layout="constrained")
        widths = [1.0] * len(families) + [1.25]
        axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        for axis, (name, mine) in zip(axes, families.items(), strict=False):
            coverage_curve(axis, mine, colours)
            axis.set_title(name)
        axes[0].set_ylabel("share of intervals that hold the truth")
        for axis in axes[1:-1]:
            axis.tick_params(labelleft=False)
        error_by_size(axes[-1], cells_of(known), colours)
        labelled = {label: h for axis in axes[::-1] for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        names = [*colours, *(label for label in labelled if label not in colours)]
        entries = [(labelled[name], name) for name in names if name in labelled]
        figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=len(entries))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        with whole(path) as part:
            figure.savefig(part, format="png")


def families_of(known: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows behind each coverage curve: the overall effect, spillover slopes, effects by group (or else by cell)."""
    estimand, single = known["estimand"], ~known["group"].str.contains(":", regex=False)
    groups = known[(estimand == "att_by") & single]
    by = {"effects by group (att_by)": groups} if len(groups) else {"cells (att_gt)": known[estimand == "att_gt"]}
    slopes = known[(estimand == "spill_per_pp") & (known["level"] != "difference")]
    return {"adopters (att)": known[estimand == "att"], "spillovers (spill_per_pp)": slopes} | by


def cells_of(known: pd.DataFrame) -> pd.DataFrame:
    """Rows of the group with most levels, or of cohort x period cells where there is no group."""
    groups = known[(known["estimand"] == "att_by") & ~known["group"].str.contains(":", regex=False)]
    if not len(groups):
        return known[known["estimand"] == "att_gt"]
    return groups[groups["group"] == groups.groupby("group", sort=False)["level"].nunique().idxmax()]


def colours_of(estimators: list[str]) -> dict[str, str]:
    """Models in blues, frequentist estimators in warm colours."""
    models = iter(MODELS * len(estimators))
    return {name: CLASSICAL.get(name) or next(models) for name in estimators}


def coverage_curve(axis: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """Actual against nominal coverage; |pit - 1/2| <= mass / 2 where the interval of that mass holds the truth."""
    masses = np.linspace(0, 1, 101)
    n = rows["replication"].nunique()
    band = 1.96 * np.sqrt(masses * (1 - masses) / n)
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="as promised")
    axis.fill_between(
        masses,
        np.clip(masses - band, 0, 1),
        np.clip(masses + band, 0, 1),
        color="#dddddd",
        linewidth=0,
        label=f"chance in {n:,} independent intervals (95%)",
    )
    for name, mine in rows.groupby("estimator", sort=False):
        reach = np.sort(2 * np.abs(mine["pit"].to_numpy() - 0.5))
        held = np.searchsorted(reach, masses, side="right") / len(reach)
        axis.plot(masses, held, color=colours[str(name)], label=str(name), linewidth=1.8, **style(str(name)))
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="nominal mass of the interval")
    axis.set_xticks(QUARTERS, [f"{quarter:g}" for quarter in QUARTERS])
    axis.set_yticks(QUARTERS)


def error_by_size(axis: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """Root mean square error of the cells of each size, sizes in doubling classes."""
    group = rows["group"].iloc[0] if len(rows) else ""
    kind = np.searchsorted(SIZES, rows["n_units"], side="right") - 1
    for name, mine in rows.assign(kind=kind).groupby("estimator", sort=False):
        rmse = np.sqrt(((mine["estimate"] - mine["truth"]) ** 2).groupby(mine["kind"]).mean())
        colour = colours[str(name)]
        axis.plot(
            sorted(set(mine["kind"])), rmse, color=colour, marker="o", markersize=4, label=str(name), **style(str(name))
        )
    present = range(min(kind, default=0), max(kind, default=0) + 1)
    axis.set_xticks(list(present), [size_class(k) for k in present])
    axis.set(ylim=(0, None), xlabel="adopters in the cell", ylabel="RMSE")
    axis.set_title(f"error by size of the {group}" if group else "error by size of the cell")


def size_class(k: int) -> str:
    """Label of a class of sizes: "1", "5-8"."""
    if k + 1 == len(SIZES):
        return f"{SIZES[k]} and more"
    first, last = SIZES[k], SIZES[k + 1] - 1
    return f"{first}" if first == last else f"{first}–{last}"


def style(estimator: str) -> dict[str, Any]:
    """Models solid, frequentist estimators dashed."""
    return {"linestyle": "--" if estimator in CLASSICAL else "-"}
