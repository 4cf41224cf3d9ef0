"""One simulation for a study of the machinery itself: where what was drawn ranks among draws of the posterior.

    theta ~ prior ──▶ y = X theta + shocks + errors ──▶ evidence ──▶ draws of the posterior ──▶ ranks of theta

If theta comes from the prior, and all code from the outcome to the draws is right, the rank of any function of theta
and y among the same function of the draws is uniform (Talts et al. 2018). Around data y0 the same holds with the
posterior given y0 in the place of the prior, and that given y0 and y in the place of the posterior (Säilynoja et al.
2025): faults show where the posterior is.

What the model does not draw is given to it at the values that y is drawn with: s, rho, scales of units, shocks and
onset, all as they were estimated from the data. Effects of units, periods and covariates are flat in the model, so
that they may be anything: they are zero. The functions are all estimands, spreads and slopes; the log likelihood, how
well treated rows are fitted, and the average effect times the mean treated outcome, which look at y, too (Modrák et al.
2025).
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models.inputs import CrossProducts
from src import estimand, sample, trace
from src.average import Average
from src.collapse import Collapsed, collapse, with_outcome
from src.config import SEEDS, CalibrateConfig
from src.design import build_design
from src.diagnose import is_judged_alone
from src.errors import Errors
from src.fit import build_model, errors_of, has_units, load, needs_units, posterior_settings
from src.panel import Panel, in_one_line
from src.predictive import shocks
from src.replicate import Failure
from src.system import only

BLOCK = 500  # draws from the prior at a time
RANKS = 100  # draws that a rank is among: few of many, so that they hardly depend on each other
STILL = 1e-9  # relative: what moves less is fixed by the model
STRIDE = 100_000  # seeds of one study do not reach those of the next
AROUND = (1000, 1000, 4)  # draws, tuning, chains of the posterior of the data
COLUMNS = ["simulation", "quantity", "group", "level", "pit"]
OF_DATA = ("log_likelihood", "treated_fit", "att_times_treated_mean")
SOURCES = ("estimand", "average", "spillover", "tally", "identify", "predictive", "simulate")


@dataclass(frozen=True)
class Plan:
    """All that determines a simulation but its number.

    Attributes
    ----------
    config : CalibrateConfig
    sha256 : str
        Of the data.
    """

    config: CalibrateConfig
    sha256: str

    def settings(self) -> dict:
        """As plain values, without what cannot change a number."""
        return {name: value for name, value in posterior_settings(self.config).items() if name != "n"}

    @cached_property
    def name(self) -> str:
        """Hash of the settings, of the data and of the code."""
        code = trace.code_version(*(f"src/{source}.py" for source in SOURCES))
        text = json.dumps([self.settings(), self.sha256, code], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Setting:
    """What all simulations of a plan have in common, in units of s where it concerns the model.

    Attributes
    ----------
    collapsed : Collapsed
        The data.
    errors : Errors
    model, compiled
        The model, and the machine code of its density.
    columns : array of int, shape (column,)
        Of the model's coefficients in the design.
    found : list of Average
        Identified estimands.
    data : CrossProducts, optional
        That coefficients are drawn given, where they are not drawn from the prior.
    """

    collapsed: Collapsed
    errors: Errors
    model: Any
    compiled: Any
    columns: np.ndarray
    found: list[Average]
    data: CrossProducts | None


def planned(config: CalibrateConfig) -> Plan:
    """The plan for the data as they are, whose mistakes die here and not in every simulation.

    Raises
    ------
    UserError, PanelError
        The data or settings that do not go with them.
    """
    panel, shares, _ = load(config)
    regression, _ = build_design(panel, shares, needs_units(config))
    errors_of(config, regression)
    return Plan(config, panel.sha256)


def attempted(plan: Plan, r: int) -> pd.DataFrame | Failure:
    """Ranks of simulation r, or why there are none."""
    try:
        return simulated(plan, r)
    except Exception as error:
        return Failure(in_one_line(error), traceback.format_exc())


def simulated(plan: Plan, r: int) -> pd.DataFrame:
    """Ranks of simulation r: simulation, quantity, group, level, pit; attributes with the number of divergences."""
    config, name = plan.config, plan.name
    setting = once(name, "setting", partial(setting_of, config))
    collapsed, s = setting.collapsed, setting.collapsed.s
    rng = np.random.default_rng([config.seed, r, 23])
    truth = drawn(plan, setting, r)
    outcome = outcome_of(setting, truth, rng)
    new = with_outcome(collapsed, setting.errors, outcome).evidence.rescale(s).take(setting.columns)
    whole = new if setting.data is None else new + setting.data
    given = {"gram": whole.gram, "moment": whole.moment, "square": whole.square, "dof": whole.dof}
    known = {variable.name for variable in setting.compiled.shared_var_keys}
    compiled = setting.compiled.with_data(**{name: value for name, value in given.items() if name in known})
    sampler = config.sampler
    options = (sampler.draws, sampler.tune, sampler.chains, 1, sampler.target_accept)
    tree = sample.draw_compiled(compiled, *options, (STRIDE * config.seed + r) % SEEDS, False)
    posterior = thinned(tree["posterior"].to_dataset())
    treated = treated_products(setting, outcome)
    theirs, mine = (functions(one, setting, new, treated, outcome) for one in (posterior, truth))
    pit = {
        key: (np.sum(values < mine[key]) + rng.random()) / (len(values) + 1)
        for key, values in theirs.items()
        if moves(np.append(values, mine[key]))
    }
    frame = pd.DataFrame([(r, *key, value) for key, value in pit.items()], columns=COLUMNS)
    frame.attrs = {"divergences": sample.divergences(tree)}
    return frame


@lru_cache(maxsize=1)
def kept(name: str) -> dict[str, Any]:
    """What this process keeps of the study that it is at."""
    return {}


def once(name: str, what: str, make: Callable[[], Any]) -> Any:
    """Something that a study needs in every simulation, made in the first."""
    place = kept(name)
    if what not in place:
        place[what] = make()
    return place[what]


def setting_of(config: CalibrateConfig) -> Setting:
    """The setting of a study."""
    panel, shares, _ = load(config)
    regression, _ = build_design(panel, shares, needs_units(config))
    errors = errors_of(config, regression)
    collapsed = collapse(regression, errors, own=has_units(config))
    model = build_model(config, only(collapsed), None)
    wanted = [name for name in map(str, model.named_vars) if name in ("theta", "sigma") or is_judged_alone(name)]
    compiled = sample.compile_model(model, tuple(wanted))
    labels = {label: k for k, label in enumerate(collapsed.regression.design.all_labels)}
    used = [str(label) for label in model.coords["column"] or ()]
    columns = np.array([labels[label] for label in used])
    terms = tuple(dict.fromkeys(label.partition("[")[0] for label in used))
    found = [a for a in estimand.averages(collapsed.regression, collapsed.evidence, terms) if a.identified]
    data = None
    if config.around == "posterior":
        data = collapsed.evidence.rescale(collapsed.s).take(columns)
    return Setting(collapsed, errors, model, compiled, columns, found, data)


def drawn(plan: Plan, setting: Setting, r: int) -> xr.Dataset:
    """What simulation r starts from: one draw, dims chain and draw first, in units of s."""
    seed = plan.config.seed
    if setting.data is None:
        block, position = divmod(r, BLOCK)
        make = partial(sample.draw_prior, setting.model, (STRIDE * seed + block) % SEEDS, BLOCK)
        return once(plan.name, f"prior {block}", make).isel(draw=[position])
    draws = once(plan.name, "posterior", partial(drawn_around, setting, seed))
    rng = np.random.default_rng([seed, r, 29])
    return draws.isel({dim: [int(rng.integers(draws.sizes[dim]))] for dim in ("chain", "draw")})


def drawn_around(setting: Setting, seed: int) -> xr.Dataset:
    """Draws from the posterior of the data."""
    draws, tune, chains = AROUND
    tree = sample.draw_compiled(setting.compiled, draws, tune, chains, 1, 0.95, seed, False)
    return tree["posterior"].to_dataset()


def outcome_of(setting: Setting, truth: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
    """An outcome, shape (row,): X theta, shocks to levels and periods, serially correlated errors of unequal scale."""
    collapsed, nuisance = setting.collapsed, setting.collapsed.nuisance
    panel, s = collapsed.regression.panel, collapsed.s
    theta = truth["theta"].to_numpy().ravel()
    sigma = float(truth["sigma"].to_numpy().ravel()[0]) if "sigma" in truth else 1.0
    mean = s * (collapsed.regression.matrix[:, setting.columns] @ theta)
    if setting.errors.plain:
        return mean + s * sigma * rng.standard_normal(len(mean)) / np.sqrt(panel.weight)
    for shock in nuisance.shocks.values():
        mean = mean + shocks(panel, shock, sigma * s, rng)
    scale = s * sigma / np.sqrt(nuisance.weight[panel.unit] * panel.weight)
    return mean + scale * serial_errors(panel, nuisance.rho, rng)


def serial_errors(panel: Panel, rho: float, rng: np.random.Generator) -> np.ndarray:
    """AR(1) of unit variance within units, exact across gaps, shape (row,)."""
    found = rng.standard_normal(len(panel.unit))
    first = np.flatnonzero(np.r_[True, np.diff(panel.unit) != 0])
    slot = np.arange(len(found)) - first[panel.unit]
    for k in range(1, int(slot.max()) + 1):
        rows = np.flatnonzero(slot == k)
        kept = float(rho) ** (panel.time[rows] - panel.time[rows - 1])
        found[rows] = kept * found[rows - 1] + np.sqrt(1 - kept**2) * found[rows]
    return found


def moves(values: np.ndarray) -> bool:
    """Whether there is anything to rank: a contrast under one effect for all, say, is zero in every draw."""
    return bool(np.ptp(values) > STILL * np.abs(values).max())


def thinned(posterior: xr.Dataset) -> xr.Dataset:
    """So many draws of all chains together as a rank is among, evenly spaced."""
    step = max(posterior.sizes["chain"] * posterior.sizes["draw"] // RANKS, 1)
    return posterior.isel(draw=slice(step - 1, None, step))


def treated_products(setting: Setting, outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X'X and X'y of treated rows, the outcome less the mean of its unit, over s^2."""
    regression, s = setting.collapsed.regression, setting.collapsed.s
    panel = regression.panel
    mean = np.bincount(panel.unit, outcome) / np.bincount(panel.unit)
    rows = panel.treated
    matrix, left = regression.matrix[rows][:, setting.columns], (outcome - mean[panel.unit])[rows] / s
    return (matrix.T @ matrix).toarray(), matrix.T @ left


def functions(
    draws: xr.Dataset, setting: Setting, new: CrossProducts, treated: tuple[np.ndarray, np.ndarray], outcome: np.ndarray
) -> dict[tuple[str, str, str], np.ndarray]:
    """All functions whose ranks are looked at, shape (draw,) each, by quantity, group and level."""
    theta = draws["theta"].transpose("chain", "draw", "column")
    flat = theta.to_numpy().reshape(-1, theta.sizes["column"])
    sigma = draws["sigma"].to_numpy().ravel() if "sigma" in draws else np.ones(len(flat))
    weights = np.array([average.weights[setting.columns] for average in setting.found])
    values = flat @ weights.T
    keys = [(average.estimand, average.group or "", average.level or "") for average in setting.found]
    found = dict(zip(keys, values.T, strict=True))
    for name in (name for name in map(str, draws.data_vars) if name not in ("theta",) and is_judged_alone(name)):
        variable = draws[name].transpose("chain", "draw", ...)
        levels = [dim for dim in variable.dims if dim not in ("chain", "draw")]
        labels = [str(label) for label in variable[levels[0]].to_numpy()] if levels else [""]
        for label, column in zip(labels, variable.to_numpy().reshape(len(flat), -1).T, strict=True):
            found[name, "", label] = column
    misfit = new.square - 2 * flat @ new.moment + np.einsum("di,ij,dj->d", flat, new.gram, flat)
    gram, moment = treated
    rows = setting.collapsed.regression.panel.treated
    of_data = (
        -new.dof * np.log(sigma) - misfit / (2 * sigma**2),
        (flat @ moment - np.einsum("di,ij,dj->d", flat, gram, flat) / 2) / sigma**2,
        found["att", "", ""] * outcome[rows].mean() if ("att", "", "") in found else np.zeros(len(flat)),
    )
    return found | {(name, "", ""): values for name, values in zip(OF_DATA, of_data, strict=True)}
