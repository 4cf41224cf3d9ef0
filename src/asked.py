"""What has been asked of a run since it was fitted: findings of `src.loo` and `src.calibrate`, for its report.

    traces/<run>/loo/compare.csv                                        units left out, this run beside others
    traces/calibrate/<data>/<model>/<study>/{study.json, calibrated.csv} the same settings and data, drawn again

Both are read where they are; nothing is fitted. A study belongs to a run where all that determines a posterior is the
same but the sampler and the seed; the comparison where it names the run by its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from src.calibrate import LEVEL, verdict
from src.compare import read_table
from src.scrutiny import Scrutiny

OF_POSTERIOR = ("data", "model", "likelihood", "prior")  # settings that a study shares with its run


def asked(folder: Path, studies: Path, run: str, settings: dict, sha256: str) -> Scrutiny:
    """Sentences on what was found, those on ranks that are not uniform among the warnings.

    Parameters
    ----------
    folder : Path
        Of the run.
    studies : Path
        Where those of the same data and model are kept.
    run : str
        Id of the run.
    settings : dict
        That determine its posterior.
    sha256 : str
        Of its data.
    """
    uniform, other = ranks(studies, settings, sha256)
    said = [*uniform, *other, *predicted(folder / "loo" / "compare.csv", run)]
    return Scrutiny({}, {"asked": said, "warnings": other})


def predicted(path: Path, run: str) -> Iterator[str]:
    """How well a run predicts units that it has not seen, in a sentence; nothing where nobody asked."""
    if not path.is_file():
        return
    table = read_table(path)
    mine = table[table["run_id"] == run] if "run_id" in table else table[:0]
    if mine.empty:
        return
    row, best = mine.iloc[0], table.iloc[0]
    text = f"Units that it has not seen have an expected log density of {row['elpd']:,.1f} (SE {row['se']:,.1f})"
    if len(table) > 1 and row["run"] != best["run"]:
        text += f", {-row['elpd_diff']:,.1f} (SE {row['dse']:,.1f}) below that of {best['run']}"
    elif len(table) > 1:
        second = table.iloc[1]
        text += (
            f", the highest of {len(table)} runs, {-second['elpd_diff']:,.1f} (SE {second['dse']:,.1f}) above the next"
        )
    if row["pareto_bad"]:
        text += f"; {row['pareto_bad']:,.0f} of {row['units']:,.0f} have a Pareto k that is too high to say so of them"
    yield f"{text} (python -m src.loo). Prediction is not identification."


def ranks(studies: Path, settings: dict, sha256: str) -> tuple[list[str], list[str]]:
    """What studies of the machinery found under the settings of a run: sentences on uniform ranks, and on others."""
    found: tuple[list[str], list[str]] = ([], [])
    for record in sorted(studies.glob("*/study.json")):
        path = record.with_name("calibrated.csv")
        theirs = json.loads(record.read_text(encoding="utf-8"))["settings"]
        if not path.is_file() or theirs.get("sha256") != sha256 or chosen(theirs) != chosen(settings):
            continue
        table = read_table(path)
        table = table.assign(**table[["group", "level"]].fillna(""))
        drawn = "the prior" if theirs["around"] == "prior" else "the posterior"
        failed = bool((table["p_adjusted"] < LEVEL).any())
        found[failed].append(f"Drawn again from {drawn} (python -m src.calibrate): {verdict(table)}")
    return found


def chosen(settings: dict) -> dict:
    """What of settings a study shares with its run, as it is read back from a file."""
    return json.loads(json.dumps({name: settings[name] for name in OF_POSTERIOR}, default=str))
