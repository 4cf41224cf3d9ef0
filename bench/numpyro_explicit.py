"""Every firm a parameter, NUTS compiled through XLA: NumPyro. A thread and a device for every chain."""

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from exchange import hand_back, is_over, plan, read, seconds_a_gradient
from numpyro.infer import NUTS
from numpyro.infer.util import initialize_model

KEPT = ("exposure", "coefficient", "spread", "sigma")

job, data = read()
numpyro.enable_x64()
numpyro.set_host_device_count(job["chains"])
unit, period, group = (jnp.asarray(data[name]) for name in ("unit", "time", "spread"))
units, periods, wide = int(data["unit"].max()) + 1, int(data["time"].max()) + 1, float(data["wide"])
covariates, exposures, effects, treated, y = (
    jnp.asarray(data[name]) for name in ("covariates", "exposures", "effects", "treated", "y")
)


def model() -> None:
    """The same as in explicit.py."""
    sigma = numpyro.sample("sigma", dist.LogNormal(0.0, float(data["sigma_sd"])))
    alpha = numpyro.sample("alpha", dist.Normal(jnp.zeros(units), wide).to_event(1))
    later = numpyro.sample("lambda_", dist.Normal(jnp.zeros(periods - 1), wide).to_event(1))
    fit = alpha[unit] + jnp.concatenate([jnp.zeros(1), later])[period]
    if covariates.shape[1]:
        fit += covariates @ numpyro.sample("beta", dist.Normal(jnp.zeros(covariates.shape[1]), wide).to_event(1))
    if exposures.shape[1]:
        fit += exposures @ numpyro.sample("exposure", dist.Normal(0.0, jnp.asarray(data["exposure_sd"])).to_event(1))
    coefficient = numpyro.sample("raw", dist.Normal(0.0, jnp.asarray(data["effect_sd"])).to_event(1))
    if len(data["spread_scale"]):
        scale = jnp.asarray(data["spread_scale"])
        spread = numpyro.sample("spread", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, scale)).to_event(1))
        coefficient = coefficient * jnp.concatenate([jnp.ones(1), spread])[group + 1]
    numpyro.deterministic("coefficient", coefficient)
    fit = fit.at[treated].add(effects @ coefficient)
    numpyro.sample("y", dist.Normal(fit, sigma), obs=y)


start = time.perf_counter()
key = jax.random.PRNGKey(job["seed"])
info = initialize_model(key, model)
gradient = jax.jit(jax.grad(info.potential_fn))
jax.block_until_ready(gradient(info.param_info.z))
tune, draws = plan(job, seconds_a_gradient(lambda: jax.block_until_ready(gradient(info.param_info.z))))
kernel = NUTS(model)
states = [kernel.init(k, tune, None, (), {}) for k in jax.random.split(key, job["chains"])]
step = jax.jit(lambda state: kernel.sample(state, (), {}))
states = [jax.device_put(state, device) for state, device in zip(states, jax.devices(), strict=False)]
constrained = jax.jit(lambda z: {k: v for k, v in kernel.postprocess_fn((), {})(z).items() if k in KEPT})
for state in states:
    jax.block_until_ready(constrained(step(state).z))  # compiled; the step is not kept
compiling = time.perf_counter() - start


def chain(state) -> list[dict]:
    """Draws of one chain until there are enough or the budget is spent."""
    found: list[dict] = []
    for i in range(tune + job["draws"]):
        if is_over(job, time.perf_counter() - start, i - tune):
            break
        state = jax.block_until_ready(step(state))
        if i >= tune:
            found.append({name: np.asarray(value) for name, value in constrained(state.z).items()})
    return found


start = time.perf_counter()
with ThreadPoolExecutor(job["cores"]) as pool:
    chains = list(pool.map(chain, states))
spent = time.perf_counter() - start
kept = min(len(found) for found in chains)
names = chains[0][0] if kept else {}
stacked = {name: np.stack([np.stack([d[name] for d in found[:kept]]) for found in chains]) for name in names}
hand_back(job, stacked, compile=compiling, sample=spent, tune=tune)
