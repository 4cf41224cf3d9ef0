"""What each stage of a fit to a file takes at one size: `python -m bench.growth`.

The panel is drawn and written as Parquet beforehand. What `collapse` spends is split by the functions that it calls.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench.panels import configured, world_of
from src import answer, sample, trace
from src.collapse import collapse
from src.config import Config
from src.design import build_design
from src.fit import build_model, errors_of, load, needs_units, priors_of, unpooled
from src.stopwatch import stopwatch
from src.synthetic import draw
from src.system import only

COLUMNS = ("unit", "time", "cohort", "outcome")


def written(firms: int, adopters: int, folder: Path, overrides: list[str]) -> Config:
    """The settings of a fit to a file that holds the synthetic panel of that size."""
    world = world_of(firms, adopters, folder)
    path = folder / "panel.parquet"
    draw(world.data).frame.to_parquet(path, index=False)
    data = world.data
    named = [f"data.{name}={getattr(data, name)}" for name in COLUMNS]
    dictionaries = [
        f"data.{name}={{{', '.join(f'{k}: {v}' for k, v in getattr(data, name).items())}}}"
        for name in ("groups", "exposures")
    ]
    covariates = f"data.covariates=[{','.join(data.covariates)}]"
    return configured(
        "data=csv", f"data.path={path}", *named, *dictionaries, covariates, "data.is_log=true", *overrides
    )


def called_by(profile: cProfile.Profile, function: str) -> dict[str, float]:
    """Seconds spent in what `function` calls directly, by name, all that is beneath included."""
    spent: dict[str, float] = {}
    for (_, _, name), (*_, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        for (_, _, caller), (*_, cumulative) in callers.items():
            if caller == function:
                spent[name] = spent.get(name, 0.0) + cumulative
    return spent


def main() -> None:
    """Time the stages at the job's size."""
    job = json.loads(Path(sys.argv[1]).read_text())
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = written(job["firms"], job["adopters"], Path(folder), job["overrides"])
        with stopwatch(seconds, "load"):
            panel, shares, _ = load(config)
    profile = cProfile.Profile()
    with stopwatch(seconds, "design"):
        regression, _ = build_design(panel, shares, needs_units(config))
    errors = errors_of(config, regression)
    with stopwatch(seconds, "collapse"):
        profile.enable()
        collapsed = collapse(regression, errors, unpooled(config, regression))
        profile.disable()
    model = build_model(config, only(collapsed), None)
    options = {name: value for name, value in asdict(config.sampler).items() if name != "name"}
    sampled = sample.draw_posterior(model, **options, seed=job["seed"], seconds=seconds)
    with stopwatch(seconds, "estimand"):
        tree = trace.assemble(sampled, collapsed, job["seed"], {})
        answer.answer(tree, collapsed, errors, priors_of(config), config.model.name, config.prob, job["seed"])
    facts = {
        "rows": len(panel.outcome),
        "columns": int(sampled["posterior"].to_dataset().sizes["column"]),
        "seconds": seconds,
        "parts": called_by(profile, "collapse"),
    }
    Path(job["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
