"""Draw from the posterior with NUTS.

A compiled model serves every model of the same structure: the same names, shapes and constants, other data.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from src.stopwatch import stopwatch
from src.terminal import quiet

RIVAL = 4  # draws for one of a rival


def draw_posterior(
    model: pm.Model,
    rival: pm.Model | None = None,
    *,
    backend: str = "nutpie",
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int = 2,
    target_accept: float = 0.95,
    target_accept_again: float = 0.99,
    seed: int = 1,
    progress: bool = False,
    seconds: dict[str, float] | None = None,
) -> xr.DataTree:
    """Posterior, sampler statistics and prior draws of a model.

    Parameters
    ----------
    model : pm.Model
    rival : pm.Model, optional
        Of the same structure, on other evidence; a fraction of the draws, as only its mean and interval are wanted.
    backend : {"nutpie", "pymc"}
    draws, tune, chains, cores : int
    target_accept : float
    target_accept_again : float
        Of a second attempt, which is made once where transitions of the first diverge, and kept where fewer of its own
        do; none where it is not above `target_accept`.
    seed : int
    progress : bool
        Show a progress bar.
    seconds : dict, optional
        Receives "compile" and "sample" (tuning and a second attempt included).

    Returns
    -------
    xr.DataTree
        Groups posterior, sample_stats and prior, in units of s; `rival` with the posterior of the rival. Attribute
        `diverged`, of the model: divergent transitions of each attempt, as text.
    """
    seconds = {} if seconds is None else seconds
    sampler = with_nutpie if backend == "nutpie" else with_pymc
    models = [model] if rival is None else [model, rival]
    options = (draws, tune, chains, cores)
    trees = sampler(models, *options, target_accept, seed, progress, seconds)
    diverged = [divergences(trees[0])]
    if diverged[0] and target_accept_again > target_accept:
        second = sampler(models[:1], *options, target_accept_again, seed, progress, seconds)[0]
        diverged.append(divergences(second))
        if diverged[1] < diverged[0]:
            trees[0] = second
    groups = {
        "posterior": trees[0]["posterior"].to_dataset(),
        "sample_stats": scalar_statistics(trees[0]["sample_stats"].to_dataset()),
        "prior": draw_prior(model, seed),
    }
    if rival is not None:
        groups["rival"] = trees[1]["posterior"].to_dataset()
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["diverged"] = " ".join(map(str, diverged))
    return tree


def divergences(tree: xr.DataTree) -> int:
    """Number of divergent transitions."""
    return int(tree["sample_stats"]["diverging"].sum())


def with_nutpie(models, draws, tune, chains, cores, target_accept, seed, progress, seconds) -> list[xr.DataTree]:
    """NUTS in Rust, compiled through Numba once for models of one structure."""
    with stopwatch(seconds, "compile"):
        compiled = compile_model(models[0])
    with stopwatch(seconds, "sample"):
        lengths = [(draws, tune), (max(draws // RIVAL, 100), max(tune // 2, 100))]
        return [
            draw_compiled(with_data_of(compiled, model), *length, chains, cores, target_accept, seed, progress)
            for model, length in zip(models, lengths, strict=False)
        ]


def compile_model(model: pm.Model, names: tuple[str, ...] | None = None) -> Any:
    """The model's density and gradient as machine code, its data left open to change; see `with_data_of`.

    Parameters
    ----------
    model : pm.Model
    names : tuple of str, optional
        The variables to keep draws of, all where not given: the fewer, the less there is to compile.
    """
    from src.machine import compiled_model

    return compiled_model(model, names)


def is_compiled(model: pm.Model, backend: str) -> bool:
    """Whether machine code for models of this structure is kept from an earlier fit."""
    if backend != "nutpie":
        return False
    from src.machine import is_kept

    return is_kept(model)


def with_data_of(compiled: Any, model: pm.Model) -> Any:
    """What was compiled for another model of the same structure, with the data and the coordinates of this one.

    Parameters
    ----------
    compiled
        From `compile_model`.
    model : pm.Model
        Of the same structure: what differs may only be the values of its `pm.Data` and its coordinates.

    Raises
    ------
    ValueError
        Data or coordinates of another size: machine code would read beyond their end.
    """
    held = {variable.name: compiled.shared_data[key] for variable, key in compiled.shared_var_keys.items()}
    # data that the density does not depend on have no place in the machine code
    news = {v.name: v.get_value() for v in model.data_vars if v.name in held}
    coords = {name: pd.Index(levels) for name, levels in model.coords.items() if levels is not None}
    other = [name for name, value in news.items() if np.shape(value) != held[name].shape]
    other += [name for name, levels in coords.items() if len(levels) != len(compiled.coords.get(name, ()))]
    if other:
        raise ValueError(f"compiled for a model with other sizes of {', '.join(other)}")
    return replace(compiled.with_data(**news), _coords=compiled.coords | coords)


def draw_compiled(compiled, draws, tune, chains, cores, target_accept, seed, progress) -> xr.DataTree:
    """Draws from the posterior of a compiled model."""
    import nutpie

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


def with_pymc(models, draws, tune, chains, cores, target_accept, seed, progress, seconds) -> list[xr.DataTree]:
    """PyMC's own NUTS; its compilation is part of sampling."""
    seconds.setdefault("compile", 0.0)
    trees = []
    with stopwatch(seconds, "sample"), quiet("pymc", logging.WARNING):
        for model in models:
            with model:
                tree = pm.sample(
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
            trees.append(tree)
    return trees


def draw_prior(model: pm.Model, seed: int, draws: int = 500) -> xr.Dataset:
    """Draws from the prior of every variable, dims chain and draw first."""
    names = [v.name for v in model.free_RVs + model.deterministics]
    with quiet("pymc", logging.WARNING), model, warnings.catch_warnings():
        # the evidence is a Potential: it belongs to the likelihood, so prior draws rightly ignore it
        warnings.filterwarnings("ignore", message=".*[Pp]otential.*")
        tree = pm.sample_prior_predictive(
            draws, var_names=names, random_seed=seed, compile_kwargs={"mode": "FAST_COMPILE"}
        )  # 500 draws: machine code would take longer to write than to run
    return tree["prior"].to_dataset()


def scalar_statistics(statistics: xr.Dataset) -> xr.Dataset:
    """The sampler statistics with one number a draw (no vectors over unnamed dims, no text)."""
    kept = [
        name
        for name, v in statistics.data_vars.items()
        if v.dims == ("chain", "draw") and v.dtype.kind in "bif" and np.isfinite(v.to_numpy().astype(float)).all()
    ]
    return statistics[kept]
