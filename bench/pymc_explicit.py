"""Every firm a parameter, PyMC's own NUTS."""

import time

import numpy as np
import pymc as pm
from exchange import give_up, hand_back, plan, read, seconds_a_gradient, watch
from explicit import build, kept


def main() -> None:
    """Sample until the budget is spent. PyMC starts a process for each chain, hence no code at the top."""
    job, data = read()
    model = build(data)
    start = time.perf_counter()
    density = model.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    size = sum(int(np.prod(value.shape)) for value in model.initial_point().values())
    density(np.zeros(size))  # machine code is written when it is first called
    compiling = time.perf_counter() - start
    tune, _ = plan(job, seconds_a_gradient(lambda: density(np.zeros(size))))
    moments, callback = watch(job)
    start = time.perf_counter()
    with model:
        try:
            tree = pm.sample(
                draws=job["draws"],
                tune=tune,
                chains=job["chains"],
                cores=job["cores"],
                random_seed=job["seed"],
                progressbar=False,
                nuts_sampler="pymc",
                var_names=kept(model),
                compute_convergence_checks=False,
                callback=callback,
            )
        except ValueError as error:  # nothing but tuning
            give_up(job, f"{job['budget']:g} s ended while tuning ({error}): give a larger budget")
    posterior = tree["posterior"].to_dataset()
    found = {name: posterior[name].to_numpy() for name in kept(model)}
    # PyMC compiles and starts its processes before the first draw
    compiling, spent = compiling + moments["first"] - start, moments["last"] - moments["first"]
    hand_back(job, found, compile=compiling, sample=spent, tune=tune)


if __name__ == "__main__":
    main()
