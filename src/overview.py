"""Studies of calibration side by side: `python -m src.overview traces/recover` prints the tables of the docs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from src.coverage import ALL

QUESTIONS = {  # heading: estimand, group, level
    "ATT": ("att", "", ""),
    "switching": ("switching", "", ""),
    "private": ("att_by", "ownership", "private"),
    "state": ("att_by", "ownership", "state"),
    "contrast": ("contrast", "ownership", "private - state"),
    "industries": ("att_by", "industry", ALL),
    "cells": ("att_gt", "", ALL),
    "district slope": ("spill_per_pp", "district", "control"),
    "industry slope": ("spill_per_pp", "industry", "control"),
}
ABSENT = "–"


def studies(root: Path) -> list[pd.DataFrame]:
    """The table of every study beneath `root`, group and level as text."""
    paths = sorted(root.rglob("recovered.csv"))
    text = {"group": str, "level": str, "note": str, "worst_level": str}
    return [pd.read_csv(path, dtype=text).fillna({"group": "", "level": "", "note": ""}) for path in paths]


def row_of(study: pd.DataFrame, estimator: str, question: str) -> pd.Series | None:
    """What a study found for one estimator and question; None where it did not ask."""
    estimand, group, level = QUESTIONS[question]
    keys = study[["estimator", "estimand", "group", "level"]] == [estimator, estimand, group, level]
    found = study[keys.all(axis=1)]
    return None if found.empty else found.iloc[0]


def coverage(studies: list[pd.DataFrame], estimator: str) -> Iterator[str]:
    """Lines of a table: how often 90% and 95% intervals hold the truth, a study a line."""
    yield f"| world | n | {' | '.join(QUESTIONS)} | worst industry |"
    yield "|---" * (len(QUESTIONS) + 3) + "|"
    for study in studies:
        rows = [row_of(study, estimator, question) for question in QUESTIONS]
        if all(row is None for row in rows):
            continue
        cells = [ABSENT if row is None else f"{row['coverage_90']:.2f} / {row['coverage_95']:.2f}" for row in rows]
        industries = rows[list(QUESTIONS).index("industries")]
        worst = ABSENT if industries is None else f"{industries['worst_coverage']:.2f}"
        star = " *" if study["note"].ne("").any() else ""
        n = next(row for row in rows if row is not None)["replications"]
        yield f"| {study['generator'].iloc[0]}{star} | {n} | {' | '.join(cells)} | {worst} |"


def errors(studies: list[pd.DataFrame]) -> Iterator[str]:
    """Lines of a table: root mean square error of every estimator by question, a study a line."""
    names = list(dict.fromkeys(name for study in studies for name in study["estimator"]))
    asked = [q for q in QUESTIONS if any(row_of(study, name, q) is not None for study in studies for name in names)]
    yield f"| world | {' | '.join(asked)} | P(ATT > 0) below .05, above .95 |"
    yield "|---" * (len(asked) + 2) + "|"
    for study in studies:
        cells = []
        for question in asked:
            found = [row_of(study, name, question) for name in names]
            cells.append(" / ".join(ABSENT if row is None else f"{row['rmse']:.3g}" for row in found))
        att = row_of(study, names[0], "ATT")
        signs = ABSENT if att is None else f"{att['p_below_05']:.2f}, {att['p_above_95']:.2f}"
        yield f"| {study['generator'].iloc[0]} | {' | '.join(cells)} | {signs} |"
    yield ""
    yield f"Each cell: {' / '.join(names)}."


def main(arguments: list[str] | None = None) -> int:
    """Print both tables for every estimator; 2 where there is no study."""
    parser = argparse.ArgumentParser(prog="python -m src.overview", description="Studies of calibration side by side.")
    parser.add_argument("root", nargs="?", type=Path, default=Path("traces/recover"), help="folder that holds studies")
    root = parser.parse_args(arguments).root
    found = studies(root) if root.is_dir() else []
    if not found:
        print(f"error: no study beneath {root}: make one with python -m src.recover", file=sys.stderr)
        return 2
    for name in dict.fromkeys(name for study in found for name in study["estimator"]):
        print(f"\n### {name}: share of 90% / 95% intervals that hold the truth\n")
        print("\n".join(coverage(found, name)))
    print("\n### Root mean square error\n")
    print("\n".join(errors(found)))
    if worlds := list(dict.fromkeys(broken(found))):
        print("\n\\* breaks an assumption: " + "; ".join(worlds))
    return 0


def broken(studies: list[pd.DataFrame]) -> Iterator[str]:
    """Worlds that break an assumption, each with the assumption."""
    for study in studies:
        for note in study["note"][study["note"] != ""].unique():
            yield f"{study['generator'].iloc[0]} ({note.removeprefix('assumption broken: ')})"


if __name__ == "__main__":
    sys.exit(main())
