"""A folder of Parquet files as large as asked for, rows in no order: `python -m bench.register`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir

from src.command import CONF, register, settings
from src.generate import draw
from src.panel import Panel

PERIODS, FILES = 14, 8
SHARES = {"industries": 80, "districts": 200, "missing": 0.0, "late_entry": 0.0, "early_exit": 0.0}
ADOPTERS = 0.028  # of the units, in each of four cohorts


def frame_of(panel: Panel) -> pd.DataFrame:
    """The rows of a generated panel as a file has them."""
    district = panel.roster.members["district"][panel.roster.position][panel.unit]
    return pd.DataFrame(
        {
            "firm": panel.units[panel.unit],
            "year": panel.time,
            "cohort": np.where(np.isinf(panel.row_cohort), np.nan, panel.row_cohort),
            "outcome": panel.outcome,
            "industry": panel.row_labels(panel.groups["industry"]),
            "ownership": panel.row_labels(panel.groups["ownership"]),
            "district": np.char.add("d", district.astype(str)),
            **{f"x{k}": column for k, column in enumerate(panel.covariates.T)},
        }
    )


def main() -> None:
    """Draw the panel at the job's size and write it."""
    job = json.loads(Path(sys.argv[1]).read_text())
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        world = settings(compose("recover", ["generator=realistic"])).generator
    units = max(job["rows"] // PERIODS, 1000)
    adopters = [int(ADOPTERS * units)] * 4
    panel = draw(replace(world, units=units, periods=PERIODS, adopters=adopters, **SHARES), job["seed"], job["seed"])
    frame = frame_of(panel)
    order = np.random.default_rng(job["seed"]).permutation(len(frame))
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for k, rows in enumerate(np.array_split(order, FILES)):
        frame.iloc[rows].to_parquet(folder / f"part{k}.parquet", index=False)
    size = sum(path.stat().st_size for path in folder.iterdir())
    facts = {"rows": len(frame), "bytes": size, "covariates": list(panel.covariate_names)}
    Path(job["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
