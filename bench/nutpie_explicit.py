"""Every firm a parameter, NUTS in Rust: nutpie."""

import time

import numpy as np
import nutpie
from exchange import ended, hand_back, plan, read, seconds_a_gradient
from explicit import build, kept

job, data = read()
model = build(data)
start = time.perf_counter()
compiled = nutpie.compile_pymc_model(model, freeze_model=True, var_names=kept(model))
compiling = time.perf_counter() - start
density = model.logp_dlogp_function(ravel_inputs=True)
density.set_extra_values({})
tune, _ = plan(job, seconds_a_gradient(lambda: density(np.zeros(compiled.n_dim))))
options = {"draws": job["draws"], "tune": tune, "chains": job["chains"], "cores": job["cores"], "seed": job["seed"]}
start = time.perf_counter()
sampler = nutpie.sample(compiled, **options, save_warmup=False, progress_bar=False, blocking=False)
tree = ended(sampler, job, "sigma")
spent = time.perf_counter() - start
posterior = tree["posterior"].to_dataset()
found = {name: posterior[name].to_numpy() for name in kept(model) if name in posterior}
whole = np.isfinite(found["sigma"]).all(axis=0)  # chains that were ended have not equally many draws
hand_back(job, {name: value[:, whole] for name, value in found.items()}, compile=compiling, sample=spent, tune=tune)
