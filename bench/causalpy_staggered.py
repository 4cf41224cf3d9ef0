"""Staggered difference-in-differences by imputation, a dummy for every firm: CausalPy. Another posterior, own priors.

Fitted to untreated rows alone, so that its average effect is that of a saturated model; exposures are left out.
"""

import time

import causalpy as cp
import numpy as np
import pandas as pd
import xarray as xr
from exchange import give_up, hand_back, plan, read, seconds_a_gradient, watch


def gradient_of(rows: int, columns: int):
    """Gradient of CausalPy's regression of that size: what it costs does not depend on the numbers in the matrix."""
    model = cp.pymc_models.LinearRegression()
    coords = {"obs_ind": np.arange(rows), "coeffs": np.arange(columns), "treated_units": ["unit_0"]}
    matrix = xr.DataArray(np.ones((rows, columns)), dims=("obs_ind", "coeffs"))
    outcome = xr.DataArray(np.ones((rows, 1)), dims=("obs_ind", "treated_units"))
    model.priors = {**model.priors_from_data(matrix, outcome), **model.priors}
    model.build_model(matrix, outcome, coords)
    density = model.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    size = sum(int(np.prod(value.shape)) for value in model.initial_point().values())
    return lambda: density(np.zeros(size))


def main() -> None:
    """Sample until the budget is spent. PyMC starts a process for each chain, hence no code at the top."""
    job, data = read()
    rows, units = len(data["y"]), int(data["unit"].max()) + 1
    names = [f"x{j}" for j in range(data["covariates"].shape[1])]
    frame = pd.DataFrame({"y": data["y"], "firm": data["unit"], "time": data["time"], "start": data["start"]})
    frame[names] = data["covariates"]
    frame["treated"] = (frame["time"] >= frame["start"]).astype(int)
    tune, draws = plan(job, seconds_a_gradient(gradient_of(rows, units + len(names) + int(data["time"].max()))))
    moments, callback = watch(job)
    options = {
        "draws": draws,
        "tune": tune,
        "chains": job["chains"],
        "cores": job["cores"],
        "random_seed": job["seed"],
        "progressbar": False,
        "compute_convergence_checks": False,
        "callback": callback,
    }
    start = time.perf_counter()
    try:
        found = cp.StaggeredDifferenceInDifferences(
            frame,
            formula=f"y ~ 0 + C(firm) + C(time){''.join(f' + {name}' for name in names)}",
            unit_variable_name="firm",
            time_variable_name="time",
            treated_variable_name="treated",
            treatment_time_variable_name="start",
            model=cp.pymc_models.LinearRegression(sample_kwargs=options),
        )
    except ValueError as error:  # nothing but tuning
        give_up(job, f"{job['budget']:g} s ended while tuning ({error}): give a larger budget")
    whole = time.perf_counter() - start
    mean = found.y_pred.isel(treated_units=0).transpose("chain", "draw", ...).to_numpy()
    treated = frame["treated"].to_numpy() == 1
    att = (frame["y"].to_numpy() - mean)[..., treated].mean(axis=-1)
    compiling, spent = moments["first"] - start, moments["last"] - moments["first"]
    hand_back(job, {"att": att}, compile=compiling, sample=spent, tune=tune, after=whole - compiling - spent)


if __name__ == "__main__":
    main()
