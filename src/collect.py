"""One table across runs, and how much choices matter: `python -m src.collect traces/`.

Reads every run folder beneath a root, writes `collected.csv` there and prints the main effects of each run; draws a
specification curve of all data that were fitted several times, and the main estimands side by side of runs that differ
in their prior alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from src.compare import read_table
from src.terminal import console
from src.trace import write

MAIN = ("att", "total_treated", "spill_treated", "spill_control")
SEVERAL = 3  # runs, and estimates, from which on a curve is drawn
TEXT, NUMBERS = ["estimand", "group", "level", "scale"], ["mean", "low", "high", "p_positive"]


def collect(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """The estimands of every run beneath `root`, with the run's data, model, name and verdict in front.

    Parameters
    ----------
    root : Path

    Returns
    -------
    table : DataFrame
        Columns data, model, run_id, ok, then those of estimands.csv; empty where there is no run.
    notes : list of str
        One line for each run that cannot be read.
    """
    parts, notes = [], []
    for path in sorted(root.rglob("estimands.csv")):
        try:
            parts.append(read_run(path.parent))
        except FileNotFoundError:
            continue  # a run that is still going, or was killed
        except Exception as error:  # whatever is wrong with one folder, the others are fine
            notes.append(f"{path.parent} is left out, it cannot be read: {' '.join(f'{error!r}'.split())[:120]}")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(), notes


def read_run(folder: Path) -> pd.DataFrame:
    """The estimands of one run, with its data, model, name and verdict in front.

    Raises
    ------
    FileNotFoundError
        The run is not finished.
    """
    from omegaconf import OmegaConf

    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    ok = bool(json.loads((folder / "diagnostics.json").read_text(encoding="utf-8"))["ok"])
    table = read_table(folder / "estimands.csv")
    table = table.astype(dict.fromkeys(TEXT, object) | dict.fromkeys(NUMBERS, float))
    front: dict[str, Any] = {
        "data": str(config.data.name),
        "model": str(config.model.name),
        "run_id": folder.name,
        "ok": ok,
    }
    return table.assign(**front)[[*front, *table.columns]]


def curves(root: Path, table: pd.DataFrame) -> list[Path]:
    """Draw the specification curve of all data of which there are several runs, and runs under several priors side by
    side; the files that were written.
    """
    from omegaconf import OmegaConf

    from src.curve import draw, specifications
    from src.underpriors import write_all

    written = []
    known = set(zip(table["data"], table["run_id"], strict=True))
    folders: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("comparison.csv")):
        config = path.parent / ".hydra" / "config.yaml"
        data = str(OmegaConf.load(config).data.name) if config.is_file() else ""
        if (data, path.parent.name) in known:
            folders.setdefault(data, []).append(path.parent)
    for data, mine in folders.items():
        if len(mine) < SEVERAL:
            continue
        found = specifications(mine)
        if len(found) < SEVERAL:
            continue
        written += [root / f"curve_{data}.csv", root / f"curve_{data}.png"]
        write(found.to_csv(index=False), written[-2])
        draw(found, data, written[-1])
    return [*written, *write_all([folder for mine in folders.values() for folder in mine], root)]


def main_effects(table: pd.DataFrame) -> Table:
    """The main effects of every run on the outcome scale, one line an effect."""
    printed = Table(title="effects in units of the outcome", title_justify="left")
    headings = ("data", "model", "run", "estimand", "mean", "low", "high", "P(>0)", "sampler")
    for heading in headings:
        printed.add_column(heading, no_wrap=heading == "run")
    for _, row in table[table["estimand"].isin(MAIN) & (table["scale"] == "outcome")].iterrows():
        numbers = (f"{row[k]:.3f}" for k in ("mean", "low", "high", "p_positive"))
        verdict = "ok" if row["ok"] else "see problems"
        printed.add_row(row["data"], row["model"], row["run_id"], row["estimand"], *numbers, verdict)
    return printed


def main(arguments: list[str] | None = None) -> int:
    """Collect, write, print; 2 where there is nothing to collect."""
    parser = argparse.ArgumentParser(prog="python -m src.collect", description="One table across runs.")
    parser.add_argument("root", nargs="?", type=Path, default=Path("traces"), help="folder that holds runs")
    root = parser.parse_args(arguments).root
    table, notes = collect(root)
    for note in notes:
        print(note, file=sys.stderr)
    if table.empty:
        print(f"error: no finished run beneath {root}: fit one with python -m src.fit", file=sys.stderr)
        return 2
    write(table.to_csv(index=False), root / "collected.csv")
    console().print(main_effects(table))
    for path in (root / "collected.csv", *curves(root, table)):
        console().print(str(path), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
