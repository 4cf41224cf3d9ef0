"""What a person sees while a command runs and at its end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from src.config import Config
from src.panel import Panel

MOST_ROWS = 24


def is_person() -> bool:
    """Whether somebody is watching."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output; wide enough for the table where it is not a terminal."""
    return Console(highlight=False) if is_person() else Console(highlight=False, width=120)


def opening(panel: Panel, notes: list[str], config: Config) -> None:
    """The panel in one line, what was handled, and what starts."""
    out = console()
    adopters = np.isfinite(panel.cohort).sum()
    out.print(
        f"[bold]{panel.name}[/bold]: {len(panel.outcome):,} rows, {len(panel.units):,} units, "
        f"{len(panel.periods)} periods, {adopters:,} adopters, {panel.treated.sum():,} treated rows"
    )
    for note in notes:
        out.print(f"  · {note}", markup=False)
    out.print(f"{config.model.name}: compiling and sampling {config.sampler.chains} × {config.sampler.draws} draws …")


def reused(folder: Path) -> None:
    """Say that a kept posterior is used."""
    console().print(f"the posterior of these settings is kept in {folder}: tables and figures are rebuilt from it")


def closing(table: pd.DataFrame, comparison: pd.DataFrame, diagnostics: dict, folder: Path) -> None:
    """The subgroups, the classical twin, warnings in plain words, seconds and paths."""
    out = console()
    out.print(subgroups(table, comparison))
    for problem in diagnostics["problems"]:
        out.print(f"[bold red]warning[/bold red]: {problem}")
    spent = "  ".join(f"{stage} {value:.1f}" for stage, value in diagnostics["seconds"].items())
    out.print(f"seconds: {spent}")
    for name in ("posterior.nc", "estimands.csv", "comparison.csv", "diagnostics.json", "figures", "report.html"):
        if (folder / name).exists():
            out.print(f"  {folder / name}", markup=False, soft_wrap=True)


def subgroups(table: pd.DataFrame, comparison: pd.DataFrame) -> Table:
    """Main effects and subgroups on the most readable scale, the classical estimate of the same beside each."""
    scale = "percent" if (table["scale"] == "percent").any() else "outcome"
    mine = table[(table["scale"] == scale) & table["mean"].notna()]
    main = ["att", "total_treated", "direct", "switching", "spill_treated", "spill_control", "contrast", "spill_per_pp"]
    rows = mine[mine["estimand"].isin([*main, "att_by", "att_event"])]
    by = rows[(rows["estimand"] == "att_by") & ~rows["group"].fillna("").str.contains(":")]
    shown = pd.concat([rows[rows["estimand"].isin(main)], by.nlargest(MOST_ROWS, "n_units").sort_index()])
    prob = f"{table['prob'].iloc[0]:.0%}"
    printed = Table(
        title=f"effects in {'percent' if scale == 'percent' else 'units of the outcome'}", title_justify="left"
    )
    known = shown["truth"].notna().any()
    headings = ["mean", f"{prob} interval", *(["truth"] if known else []), "P(>0)", "units", "classical", "interval"]
    printed.add_column("", no_wrap=True)
    for heading in headings:
        printed.add_column(heading, justify="right")
    for _, row in shown.iterrows():
        printed.add_row(
            " ".join(str(row[k]) for k in ("estimand", "group", "level") if pd.notna(row[k])),
            f"{row['mean']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            *([f"{row['truth']:.2f}"] if known else []),
            f"{row['p_positive']:.2f}",
            f"{row['n_units']:,}",
            *classical(row, comparison),
        )
    left = len(by) - min(len(by), MOST_ROWS)
    printed.caption = f"{left} smaller levels are in estimands.csv" if left else None
    return printed


def classical(row: pd.Series, comparison: pd.DataFrame) -> tuple[str, str]:
    """First frequentist twin of an estimand that has an estimate, and its interval."""
    key = [row[k] if pd.notna(row[k]) else "" for k in ("estimand", "group", "level", "scale")]
    same = (comparison[["estimand", "group", "level", "scale"]].fillna("") == key).all(axis=1)
    twins = comparison[
        same & comparison["estimate"].notna() & comparison["estimator"].isin(["etwfe", "twfe_exposures", "twfe"])
    ]
    if twins.empty:
        return "", ""
    order = twins["estimator"].map({"twfe_exposures": 0, "etwfe": 1, "twfe": 2})
    twin = twins.iloc[int(order.argmin())]
    return f"{twin['estimate']:.2f} {twin['estimator']}", f"{twin['low']:.2f} to {twin['high']:.2f}"
