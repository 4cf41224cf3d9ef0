"""The main estimands under several priors, side by side: runs that differ in nothing but their prior.

run folders ─▶ sets that differ in their prior alone ─▶ priors_<data>_<model>.csv, priors_<data>_<model>.png
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.compare import KEYS, is_fixed, keyed, read_table, readable_scale
from src.figure import DPI, STYLE, TRUTH, WIDTH, finish, sensible_limits, shorten
from src.powers import is_main
from src.trace import kept_attribute, whole, write

BESIDE = ("prior", "sampler", "engine", *("estimators", "figures", "progress", "refit"))
COLOURS = ("#1f3b73", "#e07b1a", "#2b8a6e", "#8a8a8a", "#b5403a", "#7a5aa6")
MARKERS = "osD^vP"
MOST_LEVELS = 15  # of groups, those with most units
SLOPES = ("spill_per_pp",)  # on an axis of their own
COLUMNS = ["prior", *KEYS, "scale", "mean", "low", "high", "prob", "n_units", "note", "sensitivity"]


def write_all(folders: list[Path], root: Path) -> Iterator[Path]:
    """Table and figure of every set of runs that differ in their prior alone; the files that were written."""
    import matplotlib

    names: dict[str, int] = {}
    for (data, model), runs in sets(folders):
        stem = f"priors_{data}_{model}"
        names[stem] = names.get(stem, 0) + 1
        stem = stem if names[stem] == 1 else f"{stem}_{names[stem]}"
        found = table(runs)
        if found.empty:
            continue
        write(found.to_csv(index=False), root / f"{stem}.csv")
        with matplotlib.rc_context(STYLE):
            figure = draw(found, f"{data}, {model}: the same data under other priors", f"{stem}.csv")
            with whole(root / f"{stem}.png") as part:
                figure.savefig(part, format="png", dpi=DPI)
        yield from (root / f"{stem}.csv", root / f"{stem}.png")


def sets(folders: list[Path]) -> Iterator[tuple[tuple[str, str], dict[str, Path]]]:
    """Data, model and runs by their prior, tightest average effect first, of runs that differ in nothing else."""
    from omegaconf import OmegaConf

    alike: dict[str, list[tuple[dict, Path]]] = {}
    for folder in folders:
        settings: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
        known = {name: value for name, value in settings.items() if name not in BESIDE} | origin(folder)
        alike.setdefault(json.dumps(known, sort_keys=True, default=str), []).append((settings, folder))
    for runs in alike.values():
        by_prior = dict(labelled([(one["prior"], folder) for one, folder in runs]))
        if len(by_prior) > 1:
            yield (str(runs[0][0]["data"]["name"]), str(runs[0][0]["model"]["name"])), by_prior


def origin(folder: Path) -> dict[str, str]:
    """Data and code that a run rests on."""
    return {name: str(kept_attribute(folder / "posterior.nc", name)) for name in ("data_sha256", "code_version")}


def labelled(runs: list[tuple[dict, Path]]) -> list[tuple[str, Path]]:
    """Name of each prior, with what sets it apart from others of the same name, tightest average effect first."""
    found = []
    for prior, folder in sorted(runs, key=lambda run: run[0]["mu"]):
        same = [other for other, _ in runs if other["name"] == prior["name"]]
        apart = [f"{key}={value}" for key, value in prior.items() if any(other[key] != value for other in same)]
        found.append((" ".join([str(prior["name"]), *apart]), folder))
    return found


def table(runs: dict[str, Path]) -> pd.DataFrame:
    """`COLUMNS`: the main estimands of every run on the most readable scale, with their sensitivity to its prior."""
    parts = []
    for prior, folder in runs.items():
        known = read_table(folder / "estimands.csv")
        mine = keyed(known[known["scale"] == readable_scale(known)])
        mine = mine[
            np.array([is_main(row) for _, row in mine.iterrows()], dtype=bool) & mine["mean"].notna() & ~is_fixed(mine)
        ]
        parts.append(mine.assign(prior=prior).merge(sensitivities(folder), on=KEYS, how="left"))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def sensitivities(folder: Path) -> pd.DataFrame:
    """Sensitivity of each estimand to the prior of a run; nothing where the run has none."""
    path = folder / "powers.csv"
    if not path.is_file():
        return pd.DataFrame(columns=[*KEYS, "sensitivity"])
    return keyed(read_table(path)).rename(columns={"prior": "sensitivity"})[[*KEYS, "sensitivity"]]


def draw(found: pd.DataFrame, title: str, source: str) -> Figure:
    """A row for each estimand, a mark for each prior; slopes of exposures on an axis of their own."""
    first = found.drop_duplicates(KEYS)
    levels = first[first["estimand"].str.endswith("att_by")]
    left_out = set(map(tuple, levels.drop(levels.nlargest(MOST_LEVELS, "n_units").index)[KEYS].to_numpy()))
    keys = [key for key in map(tuple, first[KEYS].to_numpy()) if key not in left_out]
    panels = [[key for key in keys if (key[0] in SLOPES) == slopes] for slopes in (False, True)]
    panels = [rows for rows in panels if rows]
    priors = list(dict.fromkeys(found["prior"]))
    height = 0.18 + 0.08 * len(priors)
    figure = Figure(figsize=(WIDTH, 0.8 * len(panels) + height * sum(map(len, panels))))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[len(rows) + 1 for rows in panels])[:, 0]
    percent = (found["scale"] == "percent").all()
    for axis, rows in zip(axes, panels, strict=True):
        shown = found.set_index(KEYS).loc[rows]
        limits = sensible_limits(shown.assign(truth=np.nan))
        step = 0.7 / len(priors)
        for j, prior in enumerate(priors):
            mine = found[found["prior"] == prior].set_index(KEYS)[["mean", "low", "high"]]
            at = np.array([k - 0.35 + step * (j + 0.5) for k, key in enumerate(rows) if key in mine.index])
            values = np.array([mine.loc[key].to_numpy() for key in rows if key in mine.index])
            colour = COLOURS[j % len(COLOURS)]
            axis.hlines(at, *np.clip(values[:, 1:].T, *limits), color=colour, linewidth=1.4)
            inside = (values[:, 0] >= limits[0]) & (values[:, 0] <= limits[1])
            marker = MARKERS[j % len(MARKERS)]
            axis.plot(values[inside, 0], at[inside], marker, color=colour, markersize=4, label=f"prior={prior}")
        axis.axvline(0, color=TRUTH, linewidth=0.8)
        axis.set_yticks(range(len(rows)), [shorten(" ".join(part for part in key if part)) for key in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(*limits)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("percent" if percent else "units of the outcome")
    more = f" The {MOST_LEVELS} levels with most units." if left_out else ""
    note = (
        f"Posterior means and {100 * found['prob'].iloc[0]:g}% equal-tailed intervals of one model on the same data."
        f"{more} Intervals that leave the axis are cut. Source: {source}."
    )
    return finish(figure, list(axes), title, note)
