"""Studies of calibration side by side: `python -m src.overview traces/recover` prints the tables of the docs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from src.coverage import ALL, SMALL

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
    "any event": ("att_any", "", ""),
    "mean given any": ("att_given_any", "", ""),
}
ABSENT = "–"
MARGIN = 0.03  # that a coverage may be off, beyond its Monte Carlo error
SURE = 1.96  # Monte Carlo errors
PANELS = ("ATT", "contrast", "industries", "cells", "district slope", "industry slope")  # of the figure


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


def is_off(row: pd.Series, mass: int) -> bool:
    """Coverage differs from the nominal mass by more than .03 beyond Monte Carlo error."""
    return abs(row[f"coverage_{mass}"] - mass / 100) > MARGIN + SURE * row[f"mc_{mass}"]


def covered(row: pd.Series | None) -> str:
    """Coverage of 90% and 95% intervals, each in bold where it is off."""
    if row is None:
        return ABSENT
    shares = {mass: f"{row[f'coverage_{mass}']:.2f}" for mass in (90, 95)}
    return " / ".join(f"**{share}**" if is_off(row, mass) else share for mass, share in shares.items())


def coverage(studies: list[pd.DataFrame], estimator: str) -> Iterator[str]:
    """Lines of a table: how often 90% and 95% intervals hold the truth, a study a line."""
    asked = asked_of(studies)
    yield f"| world | n | {' | '.join(asked)} | worst industry |"
    yield "|---" * (len(asked) + 3) + "|"
    for study in studies:
        rows = [row_of(study, estimator, question) for question in asked]
        if all(row is None for row in rows):
            continue
        industries = row_of(study, estimator, "industries")
        worst = ABSENT if industries is None else f"{industries['worst_coverage']:.2f}"
        n = next(row for row in rows if row is not None)["replications"]
        yield f"| {name_of(study)} | {n} | {' | '.join(covered(row) for row in rows)} | {worst} |"


def errors(studies: list[pd.DataFrame]) -> Iterator[str]:
    """Lines of a table: root mean square error of every estimator by question, a study a line."""
    names = estimators_of(studies)
    asked = asked_of(studies)
    yield f"| world | {' | '.join(asked)} | industries of {SMALL} adopters or fewer | P(ATT > 0) below .05, above .95 |"
    yield "|---" * (len(asked) + 3) + "|"
    for study in studies:
        cells = [side_by_side(study, names, question, "rmse") for question in asked]
        cells.append(side_by_side(study, names, "industries", "rmse_small"))
        att = row_of(study, names[0], "ATT")
        signs = ABSENT if att is None else f"{att['p_below_05']:.2f}, {att['p_above_95']:.2f}"
        yield f"| {name_of(study)} | {' | '.join(cells)} | {signs} |"
    yield ""
    yield f"Each cell: {' / '.join(names)}."


def asked_of(studies: list[pd.DataFrame]) -> list[str]:
    """The questions that any estimator of any study answers."""
    names = estimators_of(studies)
    return [q for q in QUESTIONS if any(row_of(study, name, q) is not None for study in studies for name in names)]


def oracles(tables: list[pd.DataFrame]) -> Iterator[str]:
    """Lines of a table: every estimator against the one that is told the spillover, an estimator and world a line."""
    yield "| world | n | estimator | bias less the oracle's | MSE over the oracle's | explained | 95% intervals hold |"
    yield "|---" * 7 + "|"
    for row in pd.concat(tables).to_dict("records"):
        yield (
            f"| {row['generator']} | {row['replications']} | {row['estimator']} | {row['bias']:+.3f} ± "
            f"{row['mc_bias']:.3f} | {row['mse']:.2f} ± {row['mc_mse']:.2f} | {row['explained']:.3f} | "
            f"{row['coverage_95']:.3f} ± {row['mc_95']:.3f} |"
        )


def side_by_side(study: pd.DataFrame, names: list[str], question: str, column: str) -> str:
    """One number of every estimator, three digits."""
    found = [row_of(study, name, question) for name in names]
    return " / ".join(ABSENT if row is None or pd.isna(row[column]) else f"{row[column]:.3g}" for row in found)


def name_of(study: pd.DataFrame) -> str:
    """The world of a study, with a star where it breaks an assumption."""
    return study["generator"].iloc[0] + (" *" if study["note"].ne("").any() else "")


def estimators_of(studies: list[pd.DataFrame]) -> list[str]:
    """Names of all estimators, in the order in which they come."""
    return list(dict.fromkeys(name for study in studies for name in study["estimator"]))


def draw(studies: list[pd.DataFrame], path: Path) -> None:
    """Coverage of 90% intervals in every world, a panel a question, with Monte Carlo error, written to `path`."""
    import matplotlib
    from matplotlib.figure import Figure

    from src.coverage import colours_of
    from src.figure import DPI, STYLE
    from src.trace import whole

    names = estimators_of(studies)
    colours = colours_of(names)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 1.6 + 0.34 * len(studies)), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for axis, question in zip(axes, PANELS, strict=True):
            axis.axvspan(0.9 - MARGIN, 0.9 + MARGIN, color="#e6e6e6", linewidth=0)
            axis.axvline(0.9, color="black", linewidth=0.8)
            for j, name in enumerate(names):
                found = {at: row_of(study, name, question) for at, study in enumerate(studies)}
                known = {at: row for at, row in found.items() if row is not None}
                if not known:
                    continue
                held = [row["coverage_90"] for row in known.values()]
                reach = [SURE * row["mc_90"] for row in known.values()]
                height = [at + 0.16 * (j - (len(names) - 1) / 2) for at in known]
                axis.errorbar(held, height, xerr=reach, fmt="o", markersize=4, color=colours[name], label=name)
            axis.set(title=question, xlim=(0.3, 1.0), xlabel="share that holds")
        axes[0].set_yticks(range(len(studies)), [name_of(study) for study in studies])
        axes[0].invert_yaxis()
        labelled = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        entries = [(labelled[name], name) for name in names if name in labelled]
        figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=len(entries))
        figure.suptitle("How often 90% intervals hold the truth (* breaks an assumption)", x=0.01, ha="left")
        with whole(path) as part:
            figure.savefig(part, format="png")


def main(arguments: list[str] | None = None) -> int:
    """Print both tables for every estimator, and draw the figure where one is asked for; 2 where there is no study."""
    parser = argparse.ArgumentParser(prog="python -m src.overview", description="Studies of calibration side by side.")
    parser.add_argument("root", nargs="?", type=Path, default=Path("traces/recover"), help="folder that holds studies")
    parser.add_argument("--figure", type=Path, help="also draw the coverage of all worlds, as a .png")
    given = parser.parse_args(arguments)
    found = studies(given.root) if given.root.is_dir() else []
    if not found:
        print(f"error: no study beneath {given.root}: make one with python -m src.recover", file=sys.stderr)
        return 2
    for name in estimators_of(found):
        print(f"\n### {name}: share of 90% / 95% intervals that hold the truth\n")
        print("\n".join(coverage(found, name)))
    print("\n### Root mean square error\n")
    print("\n".join(errors(found)))
    print(f"\nBold: off by more than {MARGIN:.2f} beyond Monte Carlo error ({SURE} of its standard errors).")
    if told := [pd.read_csv(path) for path in sorted(given.root.rglob("oracle.csv"))]:
        print("\n### Against the estimator that is told the spillover\n")
        print("\n".join(oracles(told)))
    if worlds := list(dict.fromkeys(broken(found))):
        print("\n\\* breaks an assumption: " + "; ".join(worlds))
    if given.figure:
        draw(found, given.figure)
    return 0


def broken(studies: list[pd.DataFrame]) -> Iterator[str]:
    """Worlds that break an assumption, each with the assumption."""
    for study in studies:
        for note in study["note"][study["note"] != ""].unique():
            yield f"{study['generator'].iloc[0]} ({note.removeprefix('assumption broken: ')})"


if __name__ == "__main__":
    sys.exit(main())
