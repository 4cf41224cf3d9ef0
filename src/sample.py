"""Draw from the posterior with NUTS."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pymc as pm
import xarray as xr

from src.terminal import quiet


@contextmanager
def stopwatch(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Write the seconds that the block takes into `seconds[stage]`."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def draw_posterior(
    model: pm.Model,
    *,
    backend: str = "nutpie",
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int = 2,
    target_accept: float = 0.95,
    seed: int = 1,
    progress: bool = False,
    seconds: dict[str, float] | None = None,
) -> xr.DataTree:
    """Posterior, sampler statistics and prior draws of a model.

    Parameters
    ----------
    model : pm.Model
    backend : {"nutpie", "pymc"}
    draws, tune, chains, cores : int
    target_accept : float
    seed : int
    progress : bool
        Show a progress bar.
    seconds : dict, optional
        Receives "compile" and "sample" (tuning included).

    Returns
    -------
    xr.DataTree
        Groups posterior, sample_stats and prior, in units of s.
    """
    seconds = {} if seconds is None else seconds
    sampler = with_nutpie if backend == "nutpie" else with_pymc
    tree = sampler(model, draws, tune, chains, cores, target_accept, seed, progress, seconds)
    prior = draw_prior(model, seed)
    return xr.DataTree.from_dict(
        {
            "posterior": tree["posterior"].to_dataset(),
            "sample_stats": scalar_statistics(tree["sample_stats"].to_dataset()),
            "prior": prior,
        }
    )


def with_nutpie(model, draws, tune, chains, cores, target_accept, seed, progress, seconds) -> xr.DataTree:
    """NUTS in Rust, the model compiled through Numba."""
    import nutpie

    with stopwatch(seconds, "compile"):
        compiled = nutpie.compile_pymc_model(model, freeze_model=False)
    with stopwatch(seconds, "sample"):
        return nutpie.sample(
            compiled,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            seed=seed,
            target_accept=target_accept,
            progress_bar=progress,
            save_warmup=False,
        )


def with_pymc(model, draws, tune, chains, cores, target_accept, seed, progress, seconds) -> xr.DataTree:
    """PyMC's own NUTS; its compilation is part of sampling."""
    seconds["compile"] = 0.0
    with stopwatch(seconds, "sample"), quiet("pymc", logging.WARNING), model:
        return pm.sample(
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            random_seed=seed,
            target_accept=target_accept,
            progressbar=progress,
            nuts_sampler="pymc",
            compute_convergence_checks=False,
        )


def draw_prior(model: pm.Model, seed: int, draws: int = 500) -> xr.Dataset:
    """Draws from the prior of every variable, dims chain and draw first."""
    names = [v.name for v in model.free_RVs + model.deterministics]
    with quiet("pymc", logging.WARNING), model, warnings.catch_warnings():
        # the evidence is a Potential: it belongs to the likelihood, so prior draws rightly ignore it
        warnings.filterwarnings("ignore", message=".*[Pp]otential.*")
        tree = pm.sample_prior_predictive(draws, var_names=names, random_seed=seed)
    return tree["prior"].to_dataset()


def scalar_statistics(statistics: xr.Dataset) -> xr.Dataset:
    """The sampler statistics with one number a draw (no vectors over unnamed dims, no text)."""
    kept = [
        name
        for name, v in statistics.data_vars.items()
        if v.dims == ("chain", "draw") and v.dtype.kind in "bif" and np.isfinite(v.values.astype(float)).all()
    ]
    return statistics[kept]
