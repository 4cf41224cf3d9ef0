"""Counts, collapsed or with every disturbance a parameter (tests/oracles/latent.py): `python -m bench.counts`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import nutpie

from bench.exchange import ended, give_up, hand_back, plan, seconds_a_gradient
from bench.panels import configured
from models import hier
from models.inputs import Priors
from src import sample
from src.collapse import collapse
from src.config import GeneratorConfig
from src.design import build_design
from src.exposure import row_shares
from src.fit import priors_of
from src.generate import draw
from src.nuisance import Errors
from src.stopwatch import stopwatch
from tests.oracles import latent

PERIODS = 8


def world(units: int) -> GeneratorConfig:
    """A world of counts with events in every unit, a quarter of them adopters."""
    adopters = units // 8
    return GeneratorConfig(
        name="counts",
        units=units,
        periods=PERIODS,
        starts=[4, 5],
        adopters=[adopters, adopters],
        industries=8,
        districts=10,
        covariates=1,
        exposed=False,
        industry_shock=0.0,
        district_shock=0.0,
        events=True,
        level=1.8,
        unit_effect_sd=0.5,
        late_entry=0.0,
        early_exit=0.0,
    )


def main() -> None:
    """Sample the job's world in the one way or the other."""
    job = json.loads(Path(sys.argv[1]).read_text())
    priors = priors_of(configured())
    panel = draw(world(job["firms"]), 0, 0)
    regression, _ = build_design(panel, row_shares(panel)[0], units=True)
    seconds: dict[str, float] = {}
    with stopwatch(seconds, "before"):
        collapsed = collapse(regression, Errors("ar1", "unit", (), events=True))
    (in_full if job["full"] else in_short)(job, collapsed, priors, seconds)


def in_short(job: dict, collapsed, priors: Priors, seconds: dict[str, float]) -> None:
    """The collapsed posterior."""
    model = hier.build(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), priors, unit=True)
    tree = sample.draw_posterior(
        model, draws=job["draws"], tune=job["tune"], chains=job["chains"], cores=job["cores"], seed=job["seed"],
        seconds=seconds,
    )  # fmt: skip
    theta = tree["posterior"].to_dataset()["theta"].transpose("chain", "draw", "column").to_numpy()
    panel = collapsed.regression.panel
    hand_back(job, {"theta": theta}, tune=job["tune"], rows=len(panel.outcome), firms=len(panel.units), **seconds)


def in_full(job: dict, collapsed, priors: Priors, seconds: dict[str, float]) -> None:
    """The posterior of everything, as much of it as fits into the budget."""
    model = latent.build(collapsed.regression, collapsed.levels.height, collapsed.s, priors)
    with stopwatch(seconds, "compile"):
        compiled = nutpie.compile_pymc_model(model, freeze_model=True, var_names=["theta"])
    density = model.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    tune, _ = plan(job, seconds_a_gradient(lambda: density(np.zeros(compiled.n_dim))))
    options = {"draws": job["draws"], "tune": tune, "chains": job["chains"], "cores": job["cores"], "seed": job["seed"]}
    start = time.perf_counter()
    sampler = nutpie.sample(compiled, **options, save_warmup=False, progress_bar=False, blocking=False)
    tree = ended(sampler, job, "theta")
    spent = time.perf_counter() - start
    if "theta" not in tree["posterior"]:
        give_up(job, f"{job['budget']:g} s ended while tuning: give a larger budget")
    theta = tree["posterior"].to_dataset()["theta"].to_numpy()
    whole = np.isfinite(theta).all(axis=(0, 2))
    hand_back(job, {"theta": theta[:, whole]}, tune=tune, compile=seconds["compile"], sample=spent)


if __name__ == "__main__":
    main()
