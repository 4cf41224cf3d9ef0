"""What a person sees while a command runs and at its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from src import further
from src.average import MARGINS
from src.compare import KEYS, is_fixed, readable_scale, unequal_weights, what_is_fixed, with_twins
from src.config import Config
from src.diagnose import doubts, errors_in_words
from src.panel import count

if TYPE_CHECKING:
    from src.design import Regression
    from src.scrutiny import Scrutiny

MOST_ROWS = 24
MAIN = (
    "att",
    "total_treated",
    "switching",
    "spill_treated",
    "spill_control",
    "overall",
    "contrast",
    "spill_per_pp",
    "spill_at",
)


def is_person() -> bool:
    """Whether somebody is watching."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output, for text as it is: labels and paths may hold what Rich takes for markup or emoji.

    Wide enough for the table where it is not a terminal.
    """
    return Console(highlight=False, markup=False, emoji=False, width=None if is_person() else 128)


@contextmanager
def quiet(library: str, least: int) -> Iterator[None]:
    """Keep log lines of a library below a level away from whoever is watching, while the block runs."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(least)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def following(show: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Say how far the reading of rows has come: a function of a stage, how much of it is done, and of how much."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console(),
        transient=True,
        disable=not show,
    )
    task: list[TaskID] = []

    def tell(stage: str, done: int, of: int) -> None:
        if not task or bar.tasks[-1].description != stage:
            for old in task:
                bar.remove_task(old)
            task[:] = [bar.add_task(stage, total=of)]
        bar.update(task[0], completed=done, total=of or None)

    with bar:
        yield tell


def opening(regression: Regression, notes: list[str], assumption: str = "") -> None:
    """What the answer rests on beyond parallel trends, the panel in one line, and what was handled."""
    out, panel = console(), regression.panel
    if assumption:
        out.print(assumption, style="yellow")
    adopters = np.isfinite(panel.cohort).sum()
    facts = (
        f": {regression.rows:,} rows, {len(panel.units):,} units, {len(regression.frame.periods)} periods, "
        f"{adopters:,} adopters, {regression.frame.treated:,} treated rows"
    )
    out.print(Text.assemble((panel.name, "bold"), facts))
    handled(notes)


def handled(notes: list[str]) -> None:
    """What was handled, a line each."""
    for note in notes:
        console().print(f"  · {note}")


def starting(config: Config, compiled: bool) -> None:
    """Say that sampling starts, and where the first wait comes from; `compiled` where its code is kept already."""
    sampler = config.sampler
    before = "" if compiled else "compiling, for the first time for a model of this structure on this machine, then "
    console().print(f"{config.model.name}: {before}{sampler.chains} chains of {sampler.draws} draws …")


def reused(folder: Path) -> None:
    """Say that a kept posterior is used."""
    console().print(f"the posterior of these settings is kept in {folder}: tables and figures are rebuilt from it")


def closing(table: pd.DataFrame, beside: Scrutiny, diagnostics: dict, folder: Path) -> None:
    """The subgroups, the classical twin, warnings in plain words, seconds and paths."""
    out = console()
    comparison = beside.comparison
    out.print(subgroups(table, comparison))
    if (beyond := of_further(table)) is not None:
        out.print(beyond)
    for line in in_events(table):
        out.print(line)
    out.print(f"errors: {errors_in_words(diagnostics['nuisance'])}")
    out.print("averages are over the adopters in these data: for others like them, intervals are too narrow")
    if said := unequal_weights(comparison):
        out.print(said)
    for sentence in (*beside.said.get("agreement", ()), *beside.said.get("channels", ())[1:]):
        out.print(sentence)
    for doubt in (*doubts(diagnostics["nuisance"]), *beside.said.get("warnings", ())):
        out.print(doubt, style="yellow")
    for problem in diagnostics["problems"]:
        out.print(Text.assemble(("warning", "bold red"), f": {problem}"))
    spent = "  ".join(f"{stage} {value:.1f}" for stage, value in diagnostics["seconds"].items())
    out.print(f"seconds: {spent}")
    for name in ("posterior.nc", "estimands.csv", "comparison.csv", "diagnostics.json", "figures", "report.html"):
        if (folder / name).exists():
            out.print(f"  {folder / name}", soft_wrap=True)


def subgroups(table: pd.DataFrame, comparison: pd.DataFrame) -> Table:
    """Main effects and subgroups on the most readable scale, the classical estimate of the same beside each."""
    scale = readable_scale(table)
    digits = 1 if scale == "percent" else 3
    known = with_twins(table, comparison, scale).dropna(subset="mean")
    fixed = is_fixed(known)
    mine = known[~fixed]
    levels = mine[(mine["estimand"] == "att_by") & ~mine["group"].str.contains(":", regex=False)]
    largest = levels.nlargest(MOST_ROWS, "n_units").sort_index()
    whole = mine["estimand"].isin(MARGINS) & (mine["group"] == "")
    shown = pd.concat([mine[mine["estimand"].isin(MAIN) | whole], largest])
    has_truth = shown["truth"].notna().any()
    printed = Table(
        title=f"effects in {'percent' if scale == 'percent' else 'units of the outcome'}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    printed.add_column("", min_width=16)
    interval = f"{100 * table['prob'].iloc[0]:g}% interval"
    headings = [
        "mean",
        interval,
        *(["truth"] if has_truth else []),
        "P(>0)",
        "units",
        "classical",
        interval,
    ]
    for heading in headings:
        printed.add_column(heading, justify="right", no_wrap=True)
    printed.add_column("", no_wrap=True)
    for _, row in shown.iterrows():
        printed.add_row(
            " ".join(row[key] for key in KEYS if row[key]),
            f"{row['mean']:.{digits}f}",
            f"{row['low']:.{digits}f} to {row['high']:.{digits}f}",
            *([f"{row['truth']:.{digits}f}"] if has_truth else []),
            f"{row['p_positive']:.2f}",
            f"{row['n_units']:,}",
            *classical(row, digits),
        )
    left = len(levels) - len(largest)
    smaller = f"{count(left, 'smaller level')} in estimands.csv" if left else ""
    printed.caption = "\n".join(line for line in (smaller, what_is_fixed(int(fixed.sum()))) if line) or None
    return printed


def of_further(table: pd.DataFrame) -> Table | None:
    """What a model of several outcomes says beyond one of a single outcome; nothing where there is nothing."""
    scale = readable_scale(table)
    prob = f"{100 * table['prob'].iloc[0]:g}% interval"
    printed = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    printed.add_column("", min_width=16)
    truth = ["truth"] if table["truth"].notna().any() else []
    for heading in ("mean", prob, *truth, "P(>0)"):
        printed.add_column(heading, justify="right", no_wrap=True)
    for title, part in further.sections(table, scale):
        known = part[np.isfinite(part["mean"])]
        if len(known):
            printed.add_row(title, style="bold")
        for _, row in known.iterrows():
            width = row["high"] - row["low"]
            digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 5)) if width > 0 else 3
            numbers = [f"{row['mean']:.{digits}f}", f"{row['low']:.{digits}f} to {row['high']:.{digits}f}"]
            numbers += [f"{row['truth']:.{digits}f}" if np.isfinite(row["truth"]) else ""] if truth else []
            printed.add_row(f"  {further.label(row, scale)}", *numbers, f"{row['p_positive']:.2f}")
    return printed if printed.row_count else None


def in_events(table: pd.DataFrame) -> Iterator[str]:
    """What own adoption caused in all, where events are counted."""
    rows = table[(table["estimand"] == "total_events") & table["group"].isna() & np.isfinite(table["mean"])]
    for _, row in rows.iterrows():
        ends = f"{100 * row['prob']:g}% interval {row['low']:,.0f} to {row['high']:,.0f}"
        known = f"; truth {row['truth']:,.0f}" if np.isfinite(row["truth"]) else ""
        yield f"own adoption caused {row['mean']:,.0f} events over {row['n_obs']:,} treated rows ({ends}{known})"


def classical(row: pd.Series, digits: int) -> tuple[str, str, str]:
    """Estimate, interval and name of the closest frequentist twin of an estimand; empty where there is none."""
    if pd.isna(row["estimate"]):
        return "", "", ""
    interval = f"{row['low_classical']:.{digits}f} to {row['high_classical']:.{digits}f}"
    return f"{row['estimate']:.{digits}f}", interval, row["estimator"]
