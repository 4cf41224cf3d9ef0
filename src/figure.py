"""What the run found, as pictures that stand on their own: subgroups, event time, spillovers, the sampler's chains.

Estimates are drawn on the percent scale where there is one. The model is dark blue, the classical estimate of the same
estimand orange, the classical pooled estimate grey, the truth (known for generated data) a black diamond.
"""

from __future__ import annotations

import json
import logging
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from scipy.stats import rankdata

from src.compare import KEYS, is_fixed, keyed, readable_scale
from src.fonts import fonts_for, no_font
from src.terminal import quiet
from src.trace import whole

MODEL, CLASSICAL, POOLED, TRUTH = "#1f3b73", "#e07b1a", "#8a8a8a", "black"
WIDTH, DPI = 8.0, 150  # inches
MOST_LEVELS, MOST_EXPOSURES, MOST_PARAMETERS = 30, 10, 10
LONGEST_LABEL, LONGEST_TITLE, BINS, FEW_PERIODS = 34, 52, 20, 6
WIDE = 3  # times the median width of an interval
ENDS = ["estimate", "low", "high"]
MEANING = {
    "direct": "own adoption alone,\non adopters (direct)",
    "spill_treated": "others' adoption,\non adopters (spill_treated)",
    "total_treated": "own and others' adoption,\non adopters (total_treated)",
    "switching": "own adoption, others as they are,\non adopters (switching)",
    "spill_control": "others' adoption,\non exposed untreated (spill_control)",
    "overall": "own and others' adoption,\non all rows (overall)",
}
ARMS = {"control": "on the untreated", "treated": "on adopters", "difference": "adopters minus untreated"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "text.parse_math": False,  # a label may hold dollar signs
}


@dataclass(frozen=True)
class Results:
    """Identified estimates on one scale.

    Attributes
    ----------
    name : str
        Of the model.
    model, classical : DataFrame
        Columns estimand, group, level (text, empty where not applicable), estimate, low, high; `model` has n_units,
        n_obs and truth as well, `classical` has estimator.
    levels : dict of str to int
        Levels of each group, also those that are not identified.
    unit : str
        Of the effects, in words.
    prob : float
        Mass of the intervals.
    """

    name: str
    model: pd.DataFrame
    classical: pd.DataFrame
    levels: dict[str, int]
    unit: str
    prob: float

    def of(self, *estimands: str) -> pd.DataFrame:
        """The model's rows of these estimands."""
        return self.model[self.model["estimand"].isin(estimands)].reset_index(drop=True)

    def twins(self, rows: pd.DataFrame, estimator: str) -> pd.DataFrame:
        """What `estimator` says about each of `rows`, in their order; NaN where it is silent."""
        theirs = self.classical.loc[self.classical["estimator"] == estimator, [*KEYS, *ENDS]]
        return rows[KEYS].merge(theirs, on=KEYS, how="left")

    def first(self, rows: pd.DataFrame, *estimators: str) -> str:
        """The first of the estimators that says anything about such estimands as `rows`, else the last."""
        told = set(self.classical.loc[self.classical["estimand"].isin(rows["estimand"]), "estimator"])
        return next((name for name in estimators if name in told), estimators[-1])


def draw_all(
    folder: Path,
    tree: xr.DataTree,
    table: pd.DataFrame,
    comparison: pd.DataFrame,
    others: dict[str, Callable[[], Figure | None]] | None = None,
    already: Sequence[Path] = (),
) -> tuple[list[Path], list[str]]:
    """Draw every figure that the run has estimates for.

    Parameters
    ----------
    folder : Path
        Created where it does not exist.
    tree : DataTree
        With group posterior.
    table : DataFrame
        Columns of `estimands.csv`.
    comparison : DataFrame
        Columns of `comparison.csv`.
    others : dict of str to callable, optional
        Further figures by name.
    already : sequence of Path
        What `draw_chains` drew.

    Returns
    -------
    drawn : list of Path
        subgroups.png, event_study.png, spillovers.png, distances.png, the others, trace.png: those that were drawn, in
        this order.
    notes : list of str
        One line where labels have letters that no installed font has.
    """
    results = read(tree, table, comparison)
    families, lacking = fonts_for(letters(results, tree))
    makers = {
        "subgroups": lambda: subgroups(results),
        "event_study": lambda: event_study(results),
        "spillovers": lambda: spillovers(results),
        "distances": lambda: distances(results),
        **(others or {}),
    }
    drawn = written(folder, makers, families)
    return [*drawn, *(already or draw_chains(folder, tree))], no_font(lacking)


def draw_chains(folder: Path, tree: xr.DataTree) -> list[Path]:
    """Draw trace.png, which the posterior is enough for."""
    families, _ = fonts_for(set("".join(top_level(tree["posterior"].to_dataset()))))
    return written(folder, {"trace": lambda: chains(tree)}, families)


def written(folder: Path, makers: dict[str, Callable[[], Figure | None]], families: list[str]) -> list[Path]:
    """Files of the figures that there are."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    fonts = matplotlib.rc_context(STYLE | {"font.family": families})
    # a font that was found for its letters may lack a weight
    with fonts, quiet("matplotlib.font_manager", logging.ERROR), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # said once, in the note
        for name, make in makers.items():
            picture = make()
            if picture is not None:
                drawn.append(folder / f"{name}.png")
                with whole(drawn[-1]) as part:
                    picture.savefig(part, format="png", dpi=DPI)
    return drawn


def clear(folder: Path, drawn: list[Path]) -> None:
    """Remove the pictures that an earlier run left and this one did not draw, and the folder where none remain."""
    for path in set(folder.glob("*.png")) - set(drawn):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def letters(results: Results, tree: xr.DataTree) -> set[str]:
    """Every letter of the labels that come from the data or the settings."""
    parameters = top_level(tree["posterior"].to_dataset())
    return set("".join([results.name, *results.model["group"], *results.model["level"], *parameters]))


def read(tree: xr.DataTree, table: pd.DataFrame, comparison: pd.DataFrame) -> Results:
    """Identified estimates on the most readable scale; what the model fixes is no finding and is left out."""
    scale = readable_scale(table)
    rows = table[(table["scale"] == scale) & ~is_fixed(table)].rename(columns={"mean": "estimate"})
    others = comparison[(comparison["scale"] == scale) & np.isfinite(comparison["estimate"])]
    by = rows[rows["estimand"] == "att_by"]
    config = json.loads(tree.attrs.get("config", "{}"))
    return Results(
        name=config.get("model", {}).get("name", "model"),
        model=keyed(rows[np.isfinite(rows["estimate"])]),
        classical=keyed(others),
        levels={str(group): int(n) for group, n in by.groupby("group", sort=False).size().items()},
        unit="percent" if scale == "percent" else "units of the outcome",
        prob=float(table["prob"].iloc[0]),
    )


def subgroups(results: Results) -> Figure | None:
    """Forest of the effect in each level of each group: partially pooled, unpooled, and pooled."""
    by = results.of("att_by")
    groups = [name for name, n in results.levels.items() if n > 1 and ":" not in name and (by["group"] == name).any()]
    if not groups:
        return None
    estimator = results.first(by, "twfe_exposures", "twfe", "poisson_twfe_exposures", "poisson_twfe")
    panels = {}
    for name in groups:
        mine = by[by["group"] == name].nlargest(MOST_LEVELS, "n_units").sort_values("n_obs", ascending=False)
        panels[name] = mine.reset_index(drop=True)
    shown = pd.concat(panels.values(), ignore_index=True)
    twins = results.twins(shown, estimator)
    pooled = results.twins(results.of("att"), estimator).dropna()
    limits = sensible_limits(shown, twins, pooled)
    figure, axes = canvas([len(mine) for mine in panels.values()])
    clipped = False
    for axis, (name, mine) in zip(axes, panels.items(), strict=True):
        labels = [f"{shorten(level)} ({n:,})" for level, n in zip(mine["level"], mine["n_units"], strict=True)]
        unpooled = f"unpooled (one interaction a level, {estimator})"
        clipped |= forest(axis, results, mine, results.twins(mine, estimator), labels, unpooled, limits)
        for estimate, low, high in pooled[ENDS].to_numpy(dtype=float):
            axis.axvspan(*np.clip([low, high], *limits), color=POOLED, alpha=0.2, linewidth=0, zorder=0.5)
            if limits[0] <= estimate <= limits[1]:
                axis.axvline(estimate, color=POOLED, linestyle="--", label=f"pooled ({estimator})")
        found, total = int((by["group"] == name).sum()), results.levels[name]
        details = [
            f"the {len(mine)} largest of {found} levels" if len(mine) < found else f"{found} levels",
            *([f"{total - found} not identified and left out"] if found < total else []),
        ]
        axis.set_title(textwrap.fill(f"by {shorten(name)}: {', '.join(details)}", LONGEST_TITLE))
    axes[-1].set_xlabel(f"effect of own adoption on adopters, {results.unit}")
    note = (
        "In brackets: adopting units; most treated rows first. Grey band: interval of the pooled estimate. Confidence "
        "intervals that rest on one or a few units are far too narrow."
    )
    return finish(figure, axes, "For whom did adoption work?", f"{source(results, clipped)} {note}")


def event_study(results: Results) -> Figure | None:
    """Effect by time since adoption, beside extended two-way fixed effects, over the number of units behind it."""
    rows = results.of("lead", "att_event")
    if rows.empty:
        return None
    rows = rows.assign(at=rows["level"].astype(int)).sort_values("at", ignore_index=True)
    estimator = results.first(rows, "etwfe", "poisson_etwfe")
    twins = results.twins(rows, estimator)
    at = rows["at"].to_numpy()
    limits = sensible_limits(rows, twins)
    figure, upper, lower = above_units(at, rows["n_units"], 0.6, limits)
    offset = 0.13 if twins["estimate"].notna().any() else 0.0
    clipped = intervals(upper, at - offset, rows, limits, MODEL, model_label(results), vertical=True)
    clipped |= intervals(
        upper, at + offset, twins, limits, CLASSICAL, f"extended TWFE ({estimator})", "s", vertical=True
    )
    upper.plot(at, rows["truth"], "D", color=TRUTH, markersize=4.5, label=truth_label(rows), zorder=4)
    pad = max(0.6, 0.5 * (FEW_PERIODS - len(at)))  # a few bars do not fill the page
    upper.set_xlim(at.min() - pad, at.max() + pad)
    upper.set_ylabel(f"effect of own adoption,\n{results.unit}")
    lower.xaxis.set_major_locator(FixedLocator(at.tolist()) if len(at) <= 20 else MaxNLocator(20, integer=True))
    lower.set_xlabel("periods since adoption (0: first treated period)")
    spills = (
        f" The model is at zero exposure; {estimator} leaves spillovers out." if len(results.of("spill_per_pp")) else ""
    )
    return finish(figure, [upper], "How did the effect unfold after adoption?", source(results, clipped) + spills)


def above_units(
    at: np.ndarray, units: pd.Series, width: float, limits: tuple[float, float]
) -> tuple[Figure, Axes, Axes]:
    """An empty axis about zero for effects, over bars of how many units are behind each; the bars `width` wide."""
    figure = Figure(figsize=(WIDTH, 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.axhline(0, color="black", linewidth=0.8)
    upper.set_ylim(*limits)
    lower.bar(at, units, width=width, color="#b9c2d6")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.set_ylabel("units\nobserved")
    return figure, upper, lower


def spillovers(results: Results) -> Figure | None:
    """Slope of each exposure in each arm, and what own and others' adoption add up to."""
    slopes, totals = results.of("spill_per_pp"), results.of(*MEANING)
    if slopes.empty and totals.empty:
        return None
    names = list(dict.fromkeys(slopes["group"]))
    slopes = slopes[slopes["group"].isin(names[:MOST_EXPOSURES])].reset_index(drop=True)
    first = f" The first {MOST_EXPOSURES} of {len(names)} exposures." if len(names) > MOST_EXPOSURES else ""
    order = totals["estimand"].map(list(MEANING).index)
    totals = totals.loc[order.sort_values().index].reset_index(drop=True)
    labels = [f"{shorten(k)}:\n{ARMS.get(arm, arm)}" for k, arm in zip(slopes["group"], slopes["level"], strict=True)]
    panels = {
        "One step more of exposure to adopters": (slopes, labels, "per percentage point (per SD of what is no share)"),
        "Own and others' adoption together": (totals, [MEANING[name] for name in totals["estimand"]], "average effect"),
    }
    panels = {title: panel for title, panel in panels.items() if len(panel[0])}
    figure, axes = canvas([1.5 * len(rows) for rows, _, _ in panels.values()])
    clipped = False
    for axis, (title, (rows, ticks, quantity)) in zip(axes, panels.items(), strict=True):
        estimator = results.first(rows, "twfe_exposures", "poisson_twfe_exposures")
        twins = results.twins(rows, estimator)
        limits = sensible_limits(rows, twins)
        label = f"two-way fixed effects with exposures ({estimator})"
        clipped |= forest(axis, results, rows, twins, ticks, label, limits)
        axis.set_title(title)
        axis.set_xlabel(f"{quantity}, {results.unit}")
    return finish(figure, axes, "What did adoption do to the others?", source(results, clipped) + first)


def distances(results: Results) -> Figure | None:
    """Effect of one adopter at a distance, over the number of untreated units whose nearest adopter is there."""
    rows = results.of("spill_at")
    if rows.empty:
        return None
    at = rows["level"].str.removesuffix(" km").astype(float).to_numpy()
    limits = sensible_limits(rows)
    figure, upper, lower = above_units(at, rows["n_units"], 0.7 * float(np.diff(at).min(initial=2 * at[0])), limits)
    clipped = intervals(upper, at, rows, limits, MODEL, model_label(results), vertical=True)
    upper.set_ylabel(f"effect on an untreated unit,\n{results.unit}")
    lower.set_xlim(0, None)
    lower.set_xlabel("kilometres to the one adopter in reach")
    return finish(figure, [upper], "How far does adoption reach?", source(results, clipped))


def chains(tree: xr.DataTree) -> Figure | None:
    """Trace and rank histogram of the top-level parameters: chains that agree look alike."""
    parameters = top_level(tree["posterior"].to_dataset())
    if not parameters:
        return None
    figure = Figure(figsize=(WIDTH, 1.1 * len(parameters) + 0.5))
    grid = figure.subplots(len(parameters), 2, squeeze=False, sharex="col", width_ratios=[3, 2])
    for (left, right), (name, draws) in zip(grid, parameters.items(), strict=True):
        ranks = rankdata(draws).reshape(draws.shape)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(draws)))
        for k, colour in enumerate(colours):
            left.plot(draws[k], color=colour, linewidth=0.4, alpha=0.8)
            counts, edges = np.histogram(ranks[k], bins=BINS, range=(0.5, draws.size + 0.5))
            right.stairs(counts, edges / draws.size, baseline=None, color=colour, label=f"chain {k}")
        right.axhline(draws.shape[1] / BINS, color="black", linewidth=0.8, linestyle=":")
        right.set_ylim(0, None)
        left.set_title(name, fontsize=10)
        for axis in (left, right):
            axis.yaxis.set_major_locator(MaxNLocator(3))
    grid[0, 1].set_title("draws a bin", fontsize=10)
    grid[-1, 0].set_xlabel("draw after tuning")
    grid[-1, 1].set_xlabel("rank among all chains, share")
    note = (
        "Left: parameter, in units of the outcome. Right: draws of each chain by rank among all chains; good chains "
        "are noise around the dotted line, and none keeps to one side."
    )
    return finish(figure, [grid[0, 1]], "Do the sampler's chains agree?", note)


def top_level(posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Draws of scalar parameters and slopes of exposures, each of shape (chain, draw), at most `MOST_PARAMETERS`."""
    scalars = {str(name): v.to_numpy() for name, v in posterior.data_vars.items() if v.dims == ("chain", "draw")}
    slopes = {
        f"{name}[{label}]": posterior[name].sel(exposure=label).to_numpy()
        for name in ("delta_control", "difference")
        if name in posterior
        for label in posterior["exposure"].to_numpy()
    }
    first = {name: scalars[name] for name in ("mu", "sigma") if name in scalars}
    return dict(list((first | slopes | scalars).items())[:MOST_PARAMETERS])


def canvas(sizes: list[float] | list[int]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel under the other, heights by the number of rows in each."""
    height = sum(0.3 * size + 0.75 for size in sizes)
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=[size + 1 for size in sizes])
    return figure, list(grid[:, 0])


def forest(
    axis: Axes,
    results: Results,
    mine: pd.DataFrame,
    twins: pd.DataFrame,
    labels: list[str],
    classical: str,
    limits: tuple[float, float],
) -> bool:
    """Draw one row for each estimate, the classical twin beneath it; True where an interval leaves the axis."""
    at = np.arange(len(mine))
    offset = 0.17 if twins["estimate"].notna().any() else 0.0
    clipped = intervals(axis, at - offset, mine, limits, MODEL, model_label(results))
    clipped |= intervals(axis, at + offset, twins, limits, CLASSICAL, classical, "s")
    axis.plot(mine["truth"], at, "D", color=TRUTH, markersize=4.5, label=truth_label(mine), zorder=4)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(at, labels)
    axis.set_ylim(len(mine) - 0.4, -0.6)
    axis.set_xlim(*limits)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    return clipped


def intervals(
    axis: Axes,
    at: np.ndarray,
    rows: pd.DataFrame,
    limits: tuple[float, float],
    colour: str,
    label: str,
    marker: str = "o",
    vertical: bool = False,
) -> bool:
    """Draw points with their intervals; what leaves the axis ends in an arrow. True where there is one.

    Parameters
    ----------
    axis : Axes
    at : array, shape (row,)
        Positions on the other axis.
    rows : DataFrame
        Columns estimate, low, high; rows without estimate are skipped.
    limits : tuple of float
        Of the axis of the estimates.
    colour, label, marker : str
    vertical : bool
        Estimates are on the vertical axis.
    """
    known = rows["estimate"].notna().to_numpy()
    if not known.any():
        return False
    at, (estimate, low, high) = at[known], rows.loc[known, ENDS].to_numpy(dtype=float).T

    def mark(which: np.ndarray, where: np.ndarray, shape: str, **style) -> None:
        if which.any():  # the layout takes an empty line for a point in the corner
            pair = (at[which], where[which]) if vertical else (where[which], at[which])
            axis.plot(*pair, shape, color=colour, markersize=4.5, zorder=3, **style)

    line = axis.vlines if vertical else axis.hlines
    line(at, np.clip(low, *limits), np.clip(high, *limits), color=colour, linewidth=1.5)
    mark((estimate >= limits[0]) & (estimate <= limits[1]), estimate, marker, label=label)
    below, above = low < limits[0], high > limits[1]
    mark(below, np.full(len(at), limits[0]), "v" if vertical else "<", clip_on=False)
    mark(above, np.full(len(at), limits[1]), "^" if vertical else ">", clip_on=False)
    return bool((below | above).any())


def sensible_limits(mine: pd.DataFrame, *others: pd.DataFrame) -> tuple[float, float]:
    """Axis limits that hold zero, the truth and most intervals, and that a few enormous intervals cannot stretch.

    Fences lie one typical span beyond the typical interval of the model, from the lower quartile of its lower ends to
    the upper quartile of its upper ends; farther out where an interval of the model's is that is not much wider than
    the others.
    """
    width = mine["high"] - mine["low"]
    sharp = mine[width <= WIDE * width.median()]
    first, last = float(mine["low"].quantile(0.25)), float(mine["high"].quantile(0.75))
    span = max(last - first, 1e-12)
    first, last = min(first, float(sharp["low"].min()) + span), max(last, float(sharp["high"].max()) - span)
    ends = pd.concat([frame[["low", "high"]] for frame in (mine, *others)])
    near = mine["truth"].dropna()
    low = min(*near, 0.0, max(float(ends["low"].min()), first - span))
    high = max(*near, 0.0, min(float(ends["high"].max()), last + span))
    pad = 0.03 * (high - low)
    return low - pad, high + pad


def finish(figure: Figure, axes: list[Axes], title: str, note: str) -> Figure:
    """Make room above for the title and one legend for all panels, below for the source note."""
    entries: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    text = textwrap.fill(note, 122)
    above, below = 0.5 + 0.22 * -(-len(entries) // 2), 0.2 + 0.15 * (text.count("\n") + 1)  # inches
    height = figure.get_figheight() + above + below
    figure.set_figheight(height)
    figure.set_layout_engine(
        "constrained", w_pad=0.1, h_pad=0.09, rect=(0, below / height, 1, 1 - (above + below) / height)
    )
    figure.text(0.012, 1 - 0.1 / height, title, va="top", fontsize=14, fontweight="bold", in_layout=False)
    figure.text(0.012, 0.08 / height, text, va="bottom", fontsize=8, color="#444444", in_layout=False)
    corner = (0.0, 1 - 0.38 / height)
    legend = figure.legend(list(entries.values()), list(entries), loc="upper left", bbox_to_anchor=corner, ncols=2)
    legend.set_in_layout(False)
    return figure


def source(results: Results, clipped: bool) -> str:
    """How to read the intervals, and where the numbers are."""
    arrows = " Arrows: intervals that go on beyond the axis." if clipped else ""
    return (
        f"Points: posterior mean, or estimate. Lines: {100 * results.prob:g}% intervals (model: equal-tailed credible "
        f"interval; others: confidence interval, clustered by unit).{arrows} Source: estimands.csv, comparison.csv."
    )


def model_label(results: Results) -> str:
    """The model in the legend."""
    return f"model ({results.name})"


def truth_label(rows: pd.DataFrame) -> str:
    """The truth in the legend; hidden where it is not known."""
    return "truth (generated data)" if rows["truth"].notna().any() else "_truth"


def shorten(text: str) -> str:
    """Text that fits beside a panel."""
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
