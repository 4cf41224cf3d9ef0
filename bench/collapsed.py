"""Firms integrated out beforehand, the project's own sampler: `python -m bench.collapsed`.

`sample` is the sampler's time, tuning included; `before` what it took to get from the panel to the cross-products.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.panels import world_of
from src import sample
from src.collapse import collapse
from src.design import build_design
from src.fit import build_model, errors_of, load, needs_units, unpooled
from src.stopwatch import stopwatch
from src.system import only


def main() -> None:
    """Sample the job's world and model, and hand the draws back."""
    job = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        config = world_of(job["firms"], job["adopters"], Path(folder), *job["overrides"])
        panel, shares, _ = load(config)
    seconds: dict[str, float] = {}
    with stopwatch(seconds, "before"):
        regression, _ = build_design(panel, shares, needs_units(config))
        collapsed = collapse(regression, errors_of(config, regression), unpooled(config, regression))
    model = build_model(config, only(collapsed), None)
    options = {name: value for name, value in asdict(config.sampler).items() if name != "name"}
    tree = sample.draw_posterior(model, **options, seed=job["seed"], seconds=seconds)
    posterior = tree["posterior"].to_dataset()
    kept = [name for name in posterior if name in ("theta", "sigma") or str(name).startswith("sd_")]
    found = {str(name): posterior[name].transpose("chain", "draw", ...).to_numpy() for name in kept}
    np.savez(job["out"] + ".npz", **found, labels=posterior["column"].to_numpy().astype(str))
    facts = {
        "draws": config.sampler.draws,
        "tune": config.sampler.tune,
        "chains": config.sampler.chains,
        "columns": int(posterior.sizes["column"]),
    }
    Path(job["out"] + ".json").write_text(json.dumps(seconds | facts))


if __name__ == "__main__":
    main()
