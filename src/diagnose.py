"""Did the sampler do its work? In numbers, and in plain sentences with the remedy."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import arviz_stats as az
import numpy as np
import pandas as pd
import xarray as xr

from src.panel import count
from src.system import MARK

RHAT, ESS, BFMI = 1.01, 400, 0.3
NEARLY_ONE = 0.95  # an autocorrelation from which on errors are hardly told from a random walk
FEW_CELLS = 100  # of level and period, that hardly tell the variance of shocks
DEEP = 0.01  # of the transitions, that may be cut short
PARAMETER_RHAT = 1.05  # a spread may mix slowly where no estimand notices


PARAMETERS = ["parameter", "level", "mean", "sd", "r_hat", "ess_bulk", "ess_tail"]
MOST_DEPTH = ("maxdepth_reached", "reached_max_treedepth")  # as nutpie, PyMC call it


def diagnose(tree: xr.DataTree, estimands: pd.DataFrame) -> dict:
    """Convergence of every estimand, scale and parameter.

    Parameters
    ----------
    tree : DataTree
        With groups posterior and sample_stats.
    estimands : DataFrame
        The table of `estimand.table`.

    Returns
    -------
    dict
        ok, problems, rhat_max, ess_bulk_min, ess_tail_min (over estimands and scales), parameter_rhat_max,
        divergences, cut_short (share of transitions that reached the largest tree depth), bfmi_min, peak_memory_mb.
    """
    statistics = tree["sample_stats"].to_dataset()
    divergences = int(statistics["diverging"].sum()) if "diverging" in statistics else 0
    bfmi = float(np.min(fraction_of_missing_information(statistics["energy"].to_numpy())))
    parameters = tree["posterior"].to_dataset()
    varying = [name for name in map(str, parameters) if is_judged_alone(name)]
    worst = {name: float(np.nanmax(az.rhat(parameters[name]).to_numpy())) for name in varying}
    found = {
        "rhat_max": float(estimands["r_hat"].max()),
        "ess_bulk_min": float(estimands["ess_bulk"].min()),
        "ess_tail_min": float(estimands["ess_tail"].min()),
        "parameter_rhat_max": max(worst.values(), default=1.0),
        "divergences": divergences,
        "cut_short": max((float(statistics[name].mean()) for name in MOST_DEPTH if name in statistics), default=0.0),
        "bfmi_min": bfmi,
    }
    problems = list(sentences(found, estimands, max(worst, key=lambda name: worst[name], default="")))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ok": not problems, "problems": problems, **found, "peak_memory_mb": round(memory, 1)}


def parameters(tree: xr.DataTree) -> pd.DataFrame:
    """Moments and convergence of every parameter that varies, a row for each of its levels: `PARAMETERS`."""
    posterior = tree["posterior"].to_dataset()
    measures: dict[str, Callable] = {
        "r_hat": az.rhat,
        "ess_bulk": az.ess,
        "ess_tail": partial(az.ess, method="tail", prob=0.9),
    }
    parts = []
    for name, values in posterior.data_vars.items():
        levels = [dim for dim in values.dims if dim not in ("chain", "draw")]
        flat = values.transpose("chain", "draw", *levels).to_numpy().reshape(*values.shape[:2], -1)
        labels = [":".join(map(str, at)) for at in product(*(values[dim].to_numpy() for dim in levels))]
        moving = np.isfinite(flat).all(axis=(0, 1)) & (np.ptp(flat, axis=(0, 1)) > 0)
        if not moving.any():
            continue
        data = xr.Dataset({"x": (("chain", "draw", "level"), flat[..., moving])})
        part = {name: of(data)["x"].to_numpy() for name, of in measures.items()}
        moments = {"mean": flat[..., moving].mean(axis=(0, 1)), "sd": flat[..., moving].std(axis=(0, 1), ddof=1)}
        parts.append(pd.DataFrame({"parameter": name, "level": np.array(labels)[moving]} | moments | part))
    return pd.concat(parts, ignore_index=True)[PARAMETERS]


def attempts(tree: xr.DataTree) -> list[str]:
    """A sentence on a second attempt at sampling; none where there was none."""
    diverged = [int(number) for number in str(tree.attrs.get("diverged", "")).split()]
    if len(diverged) < 2:
        return []
    sampler = json.loads(tree.attrs["config"])["sampler"]
    kept = "" if diverged[1] < diverged[0] else ": the first attempt is kept"
    return [
        f"{count(diverged[0], 'transition')} diverged at sampler.target_accept={sampler['target_accept']:g}, so it was "
        f"sampled again at {sampler['target_accept_again']:g}, where {diverged[1] or 'none'} did{kept}"
    ]


def is_judged_alone(name: str) -> bool:
    """Whether a parameter means something by itself: spreads, slopes, lengths, sigma.

    Levels of terms do not: the sum of mu, path, cohort and cell is known where the single ones are hardly more than
    prior, and the estimands, which average that sum, are judged. A parameter of a further outcome bears its name.
    """
    bare = name.rpartition(MARK)[2]
    return bare.startswith(("sd_", "delta_")) or bare.endswith(("_slope", "_length")) or bare in ("sigma", "difference")


def fraction_of_missing_information(energy: np.ndarray) -> np.ndarray:
    """E-BFMI of each chain, mean squared step of the energy over its variance (Betancourt 2016), shape (chain,)."""
    return np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)


def sentences(found: dict, estimands: pd.DataFrame, worst: str):
    """Yield one sentence for each thing that is wrong, with its remedy."""
    if found["divergences"]:
        yield (
            f"{found['divergences']} divergent transitions: parts of the posterior were not reached, so intervals may "
            "be too narrow; raise sampler.target_accept (to .99), or simplify the model (model.late=false)."
        )
    if found["cut_short"] > DEEP:
        yield (
            f"{found['cut_short']:.1%} of the transitions were cut short at the largest tree depth: the posterior is "
            "drawn slowly where coefficients are nearly collinear; look for exposures that move together, or give a "
            "tighter prior (prior=tight)."
        )
    if found["rhat_max"] > RHAT:
        row = estimands.iloc[int(estimands["r_hat"].argmax())]
        yield (
            f"the chains disagree about {name(row)} (R-hat {found['rhat_max']:.3f} > {RHAT}); raise sampler.tune and "
            "sampler.draws."
        )
    elif found["parameter_rhat_max"] > PARAMETER_RHAT:
        yield (
            f"the chains disagree about the parameter {worst} (R-hat {found['parameter_rhat_max']:.3f} > "
            f"{PARAMETER_RHAT}); raise sampler.tune and sampler.draws."
        )
    for column, what in (("ess_bulk", "centre"), ("ess_tail", "interval ends")):
        if found[f"{column}_min"] < ESS:
            row = estimands.iloc[int(estimands[column].argmin())]
            yield (
                f"the {what} of {name(row)} rests on {found[f'{column}_min']:.0f} effective draws (fewer than {ESS}); "
                "raise sampler.draws."
            )
    if found["bfmi_min"] < BFMI:
        yield (
            f"E-BFMI is {found['bfmi_min']:.2f} (< {BFMI}): the sampler explores the tails slowly; raise sampler.tune."
        )


def name(row: pd.Series) -> str:
    """An estimand in words, as "att_by industry C39"."""
    return " ".join(str(row[k]) for k in ("estimand", "group", "level") if pd.notna(row[k]))


def errors_in_words(nuisance: dict) -> str:
    """What the likelihood allowed errors to do, and the values estimated for it, in one sentence.

    Parameters
    ----------
    nuisance : dict
        As in diagnostics.json.
    """
    shocks = [
        f"{of} (SD {shock['sd']:.3g}, autocorrelation {shock['phi']:.2f})" for of, shock in nuisance["shocks"].items()
    ]
    if nuisance.get("likelihood") == "poisson":
        return "Poisson given the level of the unit, nothing else"
    of_counts = is_of_counts(nuisance)
    of_unit, of_all = ("a variance", "one variance") if of_counts else ("an error scale", "one error scale")
    parts = [
        *(["a log-normal disturbance of every mean"] if of_counts else []),
        f"autocorrelation {nuisance['rho']:.2f} within units" if nuisance["rho"] else "independent over time",
        f"{of_unit} for every unit" if nuisance["nu"] else f"{of_all} for all units",
        f"shocks by period to each {' and '.join(shocks)}" if shocks else "no shocks shared by units",
    ]
    return "; ".join(parts)


def is_of_counts(nuisance: dict) -> bool:
    """Whether the nuisance is that of a likelihood of counts."""
    return str(nuisance.get("likelihood")).startswith("poisson")


def doubts(nuisance: dict) -> Iterator[str]:
    """Why intervals may be too narrow, seen from the errors of every outcome."""
    first = list(doubts_of(nuisance))
    yield from first
    for name, further in nuisance.get("equations", {}).items():
        yield from (f"{name}: {doubt}" for doubt in doubts_of(further) if doubt not in first)


def doubts_of(nuisance: dict) -> Iterator[str]:
    """Why intervals of one outcome may be too narrow."""
    if nuisance.get("likelihood") == "poisson":
        yield (
            "Counts are taken as Poisson given the level of their unit: where they are overdispersed or correlated "
            "over time, as in most panels, intervals are far too narrow (likelihood=poisson_lognormal)."
        )
        return
    what = "Disturbances" if is_of_counts(nuisance) else "Errors"
    if not nuisance["rho"]:
        yield (
            f"{what} are taken as independent over time: where they are correlated within a unit, as in most panels, "
            "intervals are too narrow (likelihood.serial=ar1)."
        )
    if not nuisance["nu"]:
        yield (
            f"All units share one scale of {what.lower()}: where those of adopters are larger, intervals are too "
            "narrow (likelihood.scale=unit)."
        )
    if abs(nuisance["rho"]) >= NEARLY_ONE:
        yield (
            f"{what} of a unit are correlated by {nuisance['rho']:.2f} from one period to the next, hardly told from "
            "a random walk: effects long after adoption rest on parallel trends more than on data."
        )
    for of, shock in nuisance["shocks"].items():
        if shock["cells"] < FEW_CELLS:
            yield (
                f"The variance of shocks to {of} rests on {shock['cells']} cells: intervals of spillovers may be too "
                "narrow."
            )
    if not nuisance["settled"]:
        yield f"The estimates of {what.lower()} had not settled after {nuisance['passes']} passes."
