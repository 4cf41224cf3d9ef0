"""What a person sees while a command runs and at its end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from src.config import Config
from src.panel import Panel

MOST_ROWS = 24
MAIN = ("att", "total_treated", "switching", "spill_treated", "spill_control", "contrast", "spill_per_pp")
CLOSEST_FIRST = ("twfe_exposures", "etwfe", "twfe")


def is_person() -> bool:
    """Whether somebody is watching."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output; wide enough for the table where it is not a terminal."""
    return Console(highlight=False) if is_person() else Console(highlight=False, width=128)


def opening(panel: Panel, notes: list[str]) -> None:
    """The panel in one line, and what was handled."""
    out = console()
    adopters = np.isfinite(panel.cohort).sum()
    out.print(
        f"[bold]{escape(panel.name)}[/bold]: {len(panel.outcome):,} rows, {len(panel.units):,} units, "
        f"{len(panel.periods)} periods, {adopters:,} adopters, {panel.treated.sum():,} treated rows"
    )
    for note in notes:
        out.print(f"  · {note}", markup=False)


def starting(config: Config) -> None:
    """Say that sampling starts, and where the first wait comes from."""
    sampler = config.sampler
    console().print(f"{config.model.name}: compiling, then {sampler.chains} chains of {sampler.draws} draws …")


def reused(folder: Path) -> None:
    """Say that a kept posterior is used."""
    console().print(f"the posterior of these settings is kept in {folder}: tables and figures are rebuilt from it")


def closing(table: pd.DataFrame, comparison: pd.DataFrame, diagnostics: dict, folder: Path) -> None:
    """The subgroups, the classical twin, warnings in plain words, seconds and paths."""
    out = console()
    out.print(subgroups(table, comparison))
    out.print(
        "errors are taken as independent with one scale: where they are not, the model's intervals are too narrow",
        style="yellow",
    )
    for problem in diagnostics["problems"]:
        out.print(f"[bold red]warning[/bold red]: {escape(problem)}")
    spent = "  ".join(f"{stage} {value:.1f}" for stage, value in diagnostics["seconds"].items())
    out.print(f"seconds: {spent}")
    for name in ("posterior.nc", "estimands.csv", "comparison.csv", "diagnostics.json", "figures", "report.html"):
        if (folder / name).exists():
            out.print(f"  {folder / name}", markup=False, soft_wrap=True)


def subgroups(table: pd.DataFrame, comparison: pd.DataFrame) -> Table:
    """Main effects and subgroups on the most readable scale, the classical estimate of the same beside each."""
    scale = "percent" if (table["scale"] == "percent").any() else "outcome"
    digits = 1 if scale == "percent" else 3
    mine = table[(table["scale"] == scale) & table["mean"].notna()]
    levels = mine[(mine["estimand"] == "att_by") & ~mine["group"].fillna("").str.contains(":")]
    largest = levels.nlargest(MOST_ROWS, "n_units").sort_index()
    shown = pd.concat([mine[mine["estimand"].isin(MAIN)], largest])
    known = shown["truth"].notna().any()
    printed = Table(
        title=f"effects in {'percent' if scale == 'percent' else 'units of the outcome'}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    printed.add_column("", min_width=16)
    prob = f"{table['prob'].iloc[0]:.0%}"
    headings = [
        "mean",
        f"{prob} interval",
        *(["truth"] if known else []),
        "P(>0)",
        "units",
        "classical",
        f"{prob} interval",
    ]
    for heading in headings:
        printed.add_column(heading, justify="right", no_wrap=True)
    printed.add_column("", no_wrap=True)
    for _, row in shown.iterrows():
        printed.add_row(
            escape(" ".join(str(row[k]) for k in ("estimand", "group", "level") if pd.notna(row[k]))),
            f"{row['mean']:.{digits}f}",
            f"{row['low']:.{digits}f} to {row['high']:.{digits}f}",
            *([f"{row['truth']:.{digits}f}"] if known else []),
            f"{row['p_positive']:.2f}",
            f"{row['n_units']:,}",
            *classical(row, comparison, digits),
        )
    left = len(levels) - len(largest)
    printed.caption = f"{left} smaller levels are in estimands.csv" if left else None
    return printed


def classical(row: pd.Series, comparison: pd.DataFrame, digits: int) -> tuple[str, str, str]:
    """Estimate, interval and name of the closest frequentist twin of an estimand; empty where there is none."""
    key = [row[k] if pd.notna(row[k]) else "" for k in ("estimand", "group", "level", "scale")]
    same = (comparison[["estimand", "group", "level", "scale"]].fillna("") == key).all(axis=1)
    twins = comparison[same & comparison["estimate"].notna()].set_index("estimator")
    for name in CLOSEST_FIRST:
        if name in twins.index:
            twin = twins.loc[name]
            return f"{twin['estimate']:.{digits}f}", f"{twin['low']:.{digits}f} to {twin['high']:.{digits}f}", name
    return "", "", ""
