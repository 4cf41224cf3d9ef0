"""Every firm a parameter, as a formula: Bambi, which samples with PyMC's NUTS. One effect for all adopters alone."""

import time

import bambi as bmb
import numpy as np
import pandas as pd
from exchange import give_up, hand_back, plan, read, seconds_a_gradient, watch

NARROW = 1e-6  # Bambi wants a prior of the spread of firms: one that leaves it nowhere to go


def main() -> None:
    """Sample until the budget is spent. PyMC starts a process for each chain, hence no code at the top."""
    job, data = read()
    wide = float(data["wide"])
    effects = np.zeros((len(data["y"]), len(data["effect_sd"])))
    effects[data["treated"]] = data["effects"]
    later = data["time"][:, None] == np.arange(1, data["time"].max() + 1)
    named = {"e": effects, "s": data["exposures"], "x": data["covariates"], "t": later.astype(float)}
    scales = {"e": data["effect_sd"], "s": data["exposure_sd"]}
    frame, priors = pd.DataFrame({"y": data["y"], "unit": data["unit"].astype(str)}), {}
    for letter, columns in named.items():
        for j, column in enumerate(columns.T):
            frame[f"{letter}{j}"] = column
            sd = scales[letter][j] if letter in scales else wide
            priors[f"{letter}{j}"] = bmb.Prior("Normal", mu=0, sigma=float(sd))
    formula = f"y ~ 0 + {' + '.join(priors)} + (1|unit)"
    fixed = bmb.Prior("Uniform", lower=wide * (1 - NARROW), upper=wide * (1 + NARROW))
    priors |= {"1|unit": bmb.Prior("Normal", mu=0, sigma=fixed)}
    priors |= {"sigma": bmb.Prior("LogNormal", mu=0, sigma=float(data["sigma_sd"]))}
    start = time.perf_counter()
    model = bmb.Model(formula, frame, priors=priors, noncentered=False, center_predictors=False, auto_scale=False)
    model.build()
    inner = model.backend.model
    density = inner.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    size = sum(int(np.prod(value.shape)) for value in inner.initial_point().values())
    density(np.zeros(size))  # machine code is written when it is first called
    compiling = time.perf_counter() - start
    tune, _ = plan(job, seconds_a_gradient(lambda: density(np.zeros(size))))
    moments, callback = watch(job)
    start = time.perf_counter()
    try:
        tree = model.fit(
            draws=job["draws"],
            tune=tune,
            chains=job["chains"],
            cores=job["cores"],
            random_seed=job["seed"],
            progressbar=False,
            compute_convergence_checks=False,
            callback=callback,
        )
    except ValueError as error:  # nothing but tuning
        give_up(job, f"{job['budget']:g} s ended while tuning ({error}): give a larger budget")
    posterior = tree["posterior"]

    def stacked(letter: str, count: int) -> np.ndarray:
        return np.stack([posterior[f"{letter}{j}"].to_numpy() for j in range(count)], axis=-1)

    found = {"coefficient": stacked("e", effects.shape[1]), "sigma": posterior["sigma"].to_numpy()}
    if len(data["exposure_sd"]):
        found["exposure"] = stacked("s", len(data["exposure_sd"]))
    # PyMC compiles and starts its processes before the first draw
    compiling, spent = compiling + moments["first"] - start, moments["last"] - moments["first"]
    hand_back(job, found, compile=compiling, sample=spent, tune=tune)


if __name__ == "__main__":
    main()
