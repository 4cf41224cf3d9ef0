"""The specification curve: one estimate under every choice that runs differ in, and the choices beneath.

    run folders ─▶ choices that vary, estimates by model and classical estimators ─▶ curve_<data>.csv, curve_<data>.png

Each point is one estimator under one set of choices; classical estimates that several runs share are there once.

Source: Simonsohn, Simmons & Nelson (2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.compare import COMMON
from src.figure import CLASSICAL, DPI, MODEL, STYLE, finish, shorten
from src.sandwich import CLUSTERED
from src.trace import whole

IGNORED = (
    *("seed", "prob", "figures", "progress", "refit", "estimators", "sampler"),
    *("data.path", "data.name", "data.seed", "model.build", "model.name"),
)
MODELS_ONLY = ("likelihood", "prior", "model")  # what classical estimators do not depend on
PRESET = "prior.name"
MOST_ROWS = 40  # of choices


def specifications(folders: list[Path], estimand: str = "att") -> pd.DataFrame:
    """Estimates of one estimand under every specification.

    Parameters
    ----------
    folders : list of Path
        Finished runs of the same data.
    estimand : str
        Of those without group and level.

    Returns
    -------
    DataFrame
        estimate, low, high, is_model, then a column of text for each choice that varies ("estimator" among them; empty
        where it does not apply), sorted by estimate.
    """
    from omegaconf import OmegaConf

    rows = []
    tables = {folder: pd.read_csv(folder / "comparison.csv", dtype={"group": str, "level": str}) for folder in folders}
    percent = all((table["scale"] == "percent").any() for table in tables.values())  # one scale for all
    for folder, table in tables.items():
        settings: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
        choices = {name: str(value) for name, value in flat(settings).items() if not name.startswith(IGNORED)}
        scale = "percent" if percent else "outcome"
        mine = table[(table["estimand"] == estimand) & (table["scale"] == scale) & table["group"].isna()]
        model = str(settings["model"]["name"])
        own = mine["estimator"].str.endswith((COMMON, CLUSTERED))  # the model's under other errors: neither
        for _, row in mine[mine["estimate"].notna() & mine["se"].notna() & ~own].iterrows():
            is_model = row["estimator"] == model
            known = {k: "" if not is_model and k.startswith(MODELS_ONLY) else v for k, v in choices.items()}
            numbers = {name: float(row[name]) for name in ("estimate", "low", "high")}
            rows.append(numbers | {"is_model": is_model, "estimator": str(row["estimator"])} | known)
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    varying = [name for name in table.columns[5:] if len(set(table[name].fillna("")) - {""}) > 1]
    varying = [name for name in varying if not is_told_by_preset(table, name)]
    kept = table[["estimate", "low", "high", "is_model", "estimator", *varying]].fillna("")
    rounded = kept[["estimate", "low", "high"]].round(6).astype(str)
    kept = kept[~rounded.assign(**{name: kept[name] for name in ("estimator", *varying)}).duplicated()]
    return kept.sort_values("estimate", ignore_index=True)


def is_told_by_preset(table: pd.DataFrame, name: str) -> bool:
    """Whether the name of the prior says what this scale of a prior is: nobody chose it for itself."""
    if not name.startswith("prior.") or name == PRESET or PRESET not in table:
        return False
    return bool(table.groupby(PRESET)[name].nunique().max() == 1)


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; dictionaries of the data's columns stay whole."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        dotted = f"{before}{name}"
        if isinstance(value, Mapping) and not before:
            found |= flat(value, f"{dotted}.")
        else:
            found[dotted] = value
    return found


def draw(table: pd.DataFrame, name: str, path: Path) -> None:
    """Estimates in order, and beneath them which choice each of them made, written to `path`."""
    import matplotlib

    choices = [(column, value) for column in map(str, table.columns[4:]) for value in sorted(set(table[column]) - {""})]
    shown = choices[:MOST_ROWS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.2 + 0.19 * len(shown)), dpi=DPI)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.19 * len(shown) + 0.3])
        at = np.arange(len(table))
        for is_model, colour, label in ((True, MODEL, "model"), (False, CLASSICAL, "classical estimator")):
            mine = (table["is_model"] == is_model).to_numpy()
            upper.vlines(at[mine], table["low"][mine], table["high"][mine], color=colour, linewidth=1, alpha=0.7)
            upper.plot(at[mine], table["estimate"][mine], "o", color=colour, markersize=3, label=label)
        upper.axhline(0, color="black", linewidth=0.8)
        upper.set_ylabel("average effect on adopters")
        for k, (column, value) in enumerate(shown):
            made = np.flatnonzero(table[column] == value)
            colours = np.where(table["is_model"].to_numpy()[made], MODEL, CLASSICAL)
            lower.scatter(made, np.full(len(made), k), c=colours, s=7, marker="s")
        lower.set_yticks(
            range(len(shown)), [shorten(f"{c.removesuffix('.name').split('.')[-1]}: {v}") for c, v in shown], fontsize=7
        )
        lower.set_ylim(len(shown) - 0.5, -0.5)
        lower.set_xticks([])
        lower.set_xlabel(f"{len(table)} specifications, by their estimate")
        more = f" The first {MOST_ROWS} of {len(choices)} choices." if len(choices) > MOST_ROWS else ""
        note = f"Intervals as each run has them.{more} Source: {path.stem}.csv."
        finish(figure, [upper], f"{name}: one estimate under every choice", note)
        with whole(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
