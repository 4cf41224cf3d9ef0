"""The main effects as a table for a paper: LaTeX by great-tables, and Markdown."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from great_tables import GT

from src.compare import is_fixed, readable_scale, with_twins
from src.trace import write

MAIN = ("att", "total_treated", "switching", "spill_treated", "spill_control", "overall", "contrast", "spill_per_pp")
HEADS = ["effect", "posterior mean", "interval", "P(> 0)", "units", "classical", "interval (classical)", "estimator"]


def effects(table: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """The main effects and those by level of a group as text, the classical estimate of the same beside each.

    Parameters
    ----------
    table : DataFrame
        Columns of `estimands.csv`.
    comparison : DataFrame
        Columns of `comparison.csv`.
    """
    scale = readable_scale(table)
    digits = 1 if scale == "percent" else 3
    known = with_twins(table, comparison, scale).dropna(subset="mean")
    known = known[~is_fixed(known)]
    by = (known["estimand"] == "att_by") & ~known["group"].str.contains(":", regex=False)
    rows = []
    for _, row in known[known["estimand"].isin(MAIN) | by].iterrows():
        name = " ".join(row[key] for key in ("estimand", "group", "level") if row[key])
        mine = [f"{row['mean']:.{digits}f}", f"[{row['low']:.{digits}f}, {row['high']:.{digits}f}]"]
        theirs = ["", "", ""]
        if np.isfinite(row["estimate"]):
            ends = f"[{row['low_classical']:.{digits}f}, {row['high_classical']:.{digits}f}]"
            theirs = [f"{row['estimate']:.{digits}f}", ends, str(row["estimator"])]
        rows.append([name, *mine, f"{row['p_positive']:.2f}", f"{row['n_units']:,}", *theirs])
    return pd.DataFrame(rows, columns=HEADS)


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    lines = [table.columns.tolist(), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def latex(table: pd.DataFrame, caption: str) -> str:
    """The table in LaTeX; its preamble needs booktabs and caption."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on options of the look that LaTeX has no counterpart of
        return GT(table).tab_header(caption).as_latex()


def write_tables(folder: Path, table: pd.DataFrame, comparison: pd.DataFrame, caption: str) -> None:
    """Write effects.md and effects.tex into a folder."""
    found = effects(table, comparison)
    folder.mkdir(parents=True, exist_ok=True)
    write(markdown(found), folder / "effects.md")
    write(latex(found, caption), folder / "effects.tex")
