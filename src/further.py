"""Rows of models of several outcomes, in the sections that a reader wants: through mediators, on other outcomes."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from models.inputs import OUTCOME
from src.compare import KEYS, keyed
from src.panel import LESS, OVER
from src.system import MARK

FEW_LEVELS = 5  # of a group whose levels are shown one by one
PARTS = ("natural_direct", "natural_indirect")
KINDS = ("att", "att_by", "contrast", "spill_per_pp")


def is_further(rows: pd.DataFrame) -> pd.Series:
    """Whether a row is one that a model of a single outcome does not have."""
    names = ("proportion_mediated", "mediator_slope", "effect_correlation")
    return rows["estimand"].str.contains(MARK) | rows["estimand"].str.startswith((*PARTS, *names))


def sections(table: pd.DataFrame, scale: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Titles and rows, each on the scale of the page where it has it, else as modelled; nothing where there are none.

    Parameters
    ----------
    table : DataFrame
        Columns of `estimands.csv`, perhaps more.
    scale : str
        Of the page.
    """
    rows = keyed(table)
    rows = rows[is_further(rows)]
    if rows.empty:
        return
    rows = rows.assign(other=rows["scale"] != scale).sort_values("other", kind="stable").drop_duplicates(KEYS)
    rows = rows.sort_index()
    equation = rows["estimand"].where(rows["estimand"].str.contains(MARK), "").str.partition(MARK)[0]
    kind = rows["estimand"].str.rpartition(MARK)[2]
    plain = rows["group"].eq("")
    of_mediators = kind.isin(PARTS) & plain | kind.isin(["proportion_mediated", "mediator_slope"])
    yield "What goes through mediators, and what does not", rows[of_mediators]
    by = rows[kind.isin([f"{part}_by" for part in PARTS]) & equation.eq("") & is_short(rows)]
    for group, part in by.groupby("group", sort=False):
        yield f"The same by {group}", part
    effects = rows[kind.isin(KINDS) & equation.ne("") & is_short(rows)]
    for name, part in effects.groupby(equation, sort=False):
        yield heading(str(name)), part
    yield "Correlation of the effects on two outcomes across levels", rows[kind.eq("effect_correlation")]


def heading(name: str) -> str:
    """Of the effects on an outcome, or on two compared."""
    if name.endswith(f"{OVER}{OUTCOME}"):
        return f"Effects on the share of {name}, in percent of the share"
    return f"Effects on one outcome less those on another: {name}" if LESS in name else f"Effects on {name}"


def is_short(rows: pd.DataFrame) -> pd.Series:
    """Whether a row is of a group with few levels, or of none."""
    levels = rows.groupby(["estimand", "group"])["level"].transform("nunique")
    return ~rows["group"].str.contains(":") & (levels <= FEW_LEVELS)


def label(row: pd.Series, scale: str) -> str:
    """A row in words, with its unit where that is not the page's."""
    own = row["scale"] != scale and row["estimand"] not in ("proportion_mediated", "effect_correlation")
    return " ".join(part for part in (row["estimand"], row["group"], row["level"]) if part) + ", as modelled" * own
