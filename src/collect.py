"""One table across runs: `python -m src.collect traces/`.

Reads every run folder beneath a root, writes `collected.csv` there and prints the main effects of each run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
from rich.table import Table

from src.terminal import console
from src.trace import write

MAIN = ("att", "total_treated", "spill_treated", "spill_control")


def collect(root: Path) -> pd.DataFrame:
    """The estimands of every run beneath `root`, with the run's data, model, name and verdict in front.

    Parameters
    ----------
    root : Path

    Returns
    -------
    DataFrame
        Columns data, model, run_id, ok, then those of estimands.csv; empty where there is no run.
    """
    parts = []
    for path in sorted(root.rglob("estimands.csv")):
        settings = path.parent / ".hydra" / "config.yaml"
        diagnostics = path.parent / "diagnostics.json"
        if not (settings.is_file() and diagnostics.is_file()):
            continue  # a run that is still going, or was killed
        from omegaconf import OmegaConf

        config = OmegaConf.load(settings)
        table = pd.read_csv(path, dtype={"group": str, "level": str}, keep_default_na=False, na_values=[""])
        ok = json.loads(diagnostics.read_text())["ok"]
        front = {"data": config.data.name, "model": config.model.name, "run_id": path.parent.name, "ok": ok}
        parts.append(table.assign(**front)[[*front, *table.columns]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


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
    table = collect(root) if root.is_dir() else pd.DataFrame()
    if table.empty:
        print(f"error: no finished run beneath {root}: fit one with python -m src.fit", file=sys.stderr)
        return 2
    write(table.to_csv(index=False), root / "collected.csv")
    console().print(main_effects(table))
    console().print(root / "collected.csv", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
