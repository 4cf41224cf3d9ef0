"""One simulation for a study of the machinery itself: where what was drawn ranks among draws of the posterior.

    theta ~ prior ──▶ y = X theta + shocks + errors ──▶ evidence ──▶ draws of the posterior ──▶ ranks of theta
                      (src.redraw)

If theta comes from the prior, and all code from the outcome to the draws is right, the rank of any function of theta
and y among the same function of the draws is uniform (Talts et al. 2018). Around data y0 the same holds with the
posterior given y0 in the place of the prior, and that given y0 and y in the place of the posterior (Säilynoja et al.
2025): faults show where the posterior is.

What the model does not draw is given to it at the values that y is drawn with; see src.redraw. Of several outcomes,
each is drawn given those before. The functions are all estimands, spreads, slopes and correlations; the log likelihood,
how well treated rows are fitted, and the average effect times the mean treated outcome, which look at y, too (Modrák et
al. 2025). Effects of units, periods and covariates are flat: ranks are uniform of functions that do not change as these
and the outcome move together, and so the last two take them off the outcome, as drawn given theta.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models.inputs import CrossProducts
from src import estimand, sample, trace
from src.average import Average
from src.config import SEEDS, CalibrateConfig
from src.density import collapsed_density
from src.design import build_design
from src.diagnose import is_judged_alone
from src.equations import part
from src.errors import Errors
from src.fit import build_model, collapsed_system, errors_of, load, needs_units, posterior_settings, unpooled
from src.panel import in_one_line
from src.rates import all_coefficients, in_design
from src.redraw import Redrawn, evidence_of, redrawn, treated_fit, without_nuisance
from src.replicate import Failure
from src.system import FIRST, MARK, Equation

type Key = tuple[str, str, str]

BLOCK = 500  # draws from the prior at a time
RANKS = 100  # draws that a rank is among: few of many, so that they hardly depend on each other
STILL = 1e-9  # relative: what moves less is fixed by the model
STRIDE = 100_000  # seeds of one study do not reach those of the next
AROUND = (1000, 1000, 4)  # draws, tuning, chains of the posterior of the data
COLUMNS = ["simulation", "quantity", "group", "level", "pit"]
OF_DATA = ("log_likelihood", "treated_fit", "att_times_treated_mean")
SOURCES = ("estimand", "average", "spillover", "tally", "identify", "noise", "equations", "rates", "redraw", "simulate")


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
        """As plain values, without what cannot change a number, and the hash of the data."""
        settings = {name: value for name, value in posterior_settings(self.config).items() if name != "n"}
        return settings | {"sha256": self.sha256}

    @cached_property
    def name(self) -> str:
        """Hash of the settings, of the data and of the code."""
        code = trace.code_version(*(f"src/{source}.py" for source in SOURCES))
        text = json.dumps([self.settings(), code], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Setting:
    """What all simulations of a plan have in common, in units of s where it concerns the model.

    Attributes
    ----------
    system : tuple of Equation
        The data.
    errors : Errors
    terms : tuple of str
        As of `src.collapse.collapse`.
    model, compiled
        The model, and the machine code of its density.
    columns : dict of str to array of int, shape (column,)
        Of the model's coefficients in the design of each equation.
    found : dict of str to list of Average
        Estimands in each equation, the same ones: those that are identified in all.
    data : dict of str to CrossProducts
        That coefficients are drawn given; empty where they are drawn from the prior.
    """

    system: tuple[Equation, ...]
    errors: Errors
    terms: tuple[str, ...]
    model: Any
    compiled: Any
    columns: dict[str, np.ndarray]
    found: dict[str, list[Average]]
    data: dict[str, CrossProducts]


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
    rng = np.random.default_rng([config.seed, r, 23])
    truth = drawn(plan, setting, r)
    new: dict[str, Redrawn] = {}
    for equation in setting.system:
        before = [one.outcome for one in new.values()]
        new[equation.name] = redrawn(equation, setting.errors, setting.terms, part(truth, equation), before, rng)
    sampler = config.sampler
    options = (sampler.draws, sampler.tune, sampler.chains, 1, sampler.target_accept)
    compiled = setting.compiled.with_data(**evidence_for(setting, new))
    tree = sample.draw_compiled(compiled, *options, (STRIDE * config.seed + r) % SEEDS, False)
    posterior = thinned(tree["posterior"].to_dataset())
    theirs = functions(posterior, setting, new, (STRIDE * config.seed + r) % SEEDS)
    mine = functions(truth, setting, new)
    pit = {
        key: (np.sum(values < mine[key]) + rng.random()) / (len(values) + 1)
        for key, values in theirs.items()
        if moves(np.append(values, mine[key]))
    }
    frame = pd.DataFrame([(r, *key, value) for key, value in pit.items()], columns=COLUMNS)
    unsettled = sum(not one.collapsed.nuisance.settled for one in new.values()) if setting.errors.events else 0
    frame.attrs = {"divergences": sample.divergences(tree), "unsettled": unsettled}
    return frame


def evidence_for(setting: Setting, new: dict[str, Redrawn]) -> dict[str, np.ndarray]:
    """What the compiled model is told: the new outcomes, and the data where coefficients are drawn given these."""
    known = {variable.name for variable in setting.compiled.shared_var_keys}
    told: dict[str, np.ndarray] = {}
    for equation in setting.system:
        whole = evidence_of(new[equation.name], setting.columns[equation.name])
        if setting.data:
            whole = whole + setting.data[equation.name]
        told |= {equation.named(name): getattr(whole, name) for name in ("gram", "moment", "square", "dof")}
    return {name: value for name, value in told.items() if name in known}


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
    system = collapsed_system(config, regression, shares, errors)
    model = build_model(config, system, None)
    names = [name for name in map(str, model.named_vars) if is_kept(name)]
    compiled = sample.compile_model(model, tuple(names))
    columns, every = {}, {}
    for equation in system:
        collapsed, dim = equation.collapsed, equation.named("column")
        used = [str(label) for label in model.coords[dim] or ()]
        columns[equation.name] = collapsed.regression.design.positions(used)
        terms = tuple(term for term in trace.terms_of(used) if term != "earlier")
        every[equation.name] = estimand.averages(collapsed.regression, collapsed.evidence, terms)
    told = [all(average.identified for average in one) for one in zip(*every.values(), strict=True)]
    found = {
        name: [average for average, known in zip(mine, told, strict=True) if known] for name, mine in every.items()
    }
    data = {}
    if config.around == "posterior":
        data = {one.name: one.collapsed.evidence.rescale(one.collapsed.s).take(columns[one.name]) for one in system}
    return Setting(system, errors, unpooled(config, regression), model, compiled, columns, found, data)


def is_kept(name: str) -> bool:
    """Whether draws of a variable of the model are wanted."""
    return name.rpartition(MARK)[2] in ("theta", "sigma") or is_ranked(name)


def is_ranked(name: str) -> bool:
    """Whether a variable is among the functions."""
    return is_judged_alone(name) or name.endswith(("_correlation", "_tied"))


def drawn(plan: Plan, setting: Setting, r: int) -> xr.Dataset:
    """What simulation r starts from: one draw, dims chain and draw first, in units of s."""
    seed = plan.config.seed
    if not setting.data:
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


def moves(values: np.ndarray) -> bool:
    """Whether there is anything to rank: a contrast under one effect for all, say, is zero in every draw."""
    return bool(np.ptp(values) > STILL * np.abs(values).max())


def thinned(posterior: xr.Dataset) -> xr.Dataset:
    """So many draws of all chains together as a rank is among, evenly spaced."""
    step = max(posterior.sizes["chain"] * posterior.sizes["draw"] // RANKS, 1)
    return posterior.isel(draw=slice(step - 1, None, step))


def functions(
    draws: xr.Dataset, setting: Setting, new: dict[str, Redrawn], seed: int | None = None
) -> dict[Key, np.ndarray]:
    """All functions whose ranks are looked at, shape (draw,) each, by quantity, group and level.

    Effects of periods and covariates are drawn given the others with `seed`; without one they are what outcomes are
    drawn with, zero.
    """
    found: dict[Key, np.ndarray] = {}
    means: dict[str, np.ndarray] = {}
    totals: list[np.ndarray] = []
    size = draws.sizes["chain"] * draws.sizes["draw"]
    likelihood, fit = np.zeros(size), np.zeros(size)
    for equation in setting.system:
        mine, one, columns = part(draws, equation), new[equation.name], setting.columns[equation.name]
        theta = mine["theta"].transpose("chain", "draw", "column").to_numpy().reshape(size, -1)
        sigma = mine["sigma"].to_numpy().ravel() if "sigma" in mine else np.ones(size)
        totals.append(total(equation, theta, columns, setting.found[equation.name], totals, mine))
        for average, values in zip(setting.found[equation.name], totals[-1].T, strict=True):
            found[equation.named(average.estimand), average.group or "", average.level or ""] = values
        found |= {(equation.named(name), "", level): values for (name, level), values in alone(mine, size).items()}
        evidence = evidence_of(one, columns)
        likelihood += collapsed_density(evidence, theta, sigma)
        every = with_nuisance(one, mine["theta"], sigma, seed)
        fit += treated_fit(one, setting.errors, every, sigma)
        means[equation.name] = without_nuisance(one, setting.errors, every)
    with_treated = found["att", "", ""] * means[FIRST] if ("att", "", "") in found else np.zeros(size)
    of_data = zip(OF_DATA, (likelihood, fit, with_treated), strict=True)
    return found | {(name, "", ""): values for name, values in of_data}


def with_nuisance(one: Redrawn, theta: xr.DataArray, sigma: np.ndarray, seed: int | None) -> np.ndarray:
    """Coefficients of all columns of the design, in units of the outcome, shape (draw, column)."""
    collapsed = one.collapsed
    mine = collapsed.s * theta.transpose("chain", "draw", "column")
    if seed is None:
        return in_design(collapsed, mine)
    return all_coefficients(collapsed, mine, seed, collapsed.s * sigma)


def total(
    equation: Equation,
    theta: np.ndarray,
    columns: np.ndarray,
    found: list[Average],
    before: list[np.ndarray],
    mine: xr.Dataset,
) -> np.ndarray:
    """Effects on the outcome of an equation whatever way they go, shape (draw, estimand), in its units.

    Of a share, on its log odds.

    Parameters
    ----------
    equation : Equation
    theta : array, shape (draw, column)
        In units of s.
    columns : array of int, shape (column,)
    found : list of Average
    before : list of array, shape (draw, estimand)
        The same on the outcomes before.
    mine : Dataset
        Draws of the equation.
    """
    s = equation.collapsed.s
    values = s * theta @ np.array([average.weights[columns] for average in found]).T
    if equation.earlier:
        slopes = mine["earlier_slope"].transpose("chain", "draw", ...).to_numpy().reshape(len(theta), -1)
        values = values + sum(s / scale * slopes[:, [k]] * before[k] for k, scale in enumerate(equation.scale))
    return values


def alone(mine: xr.Dataset, size: int) -> dict[tuple[str, str], np.ndarray]:
    """Spreads, slopes and correlations of an equation, shape (draw,) each, by name and level."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for name in (name for name in map(str, mine.data_vars) if is_ranked(name)):
        variable = mine[name].transpose("chain", "draw", ...)
        columns = variable.to_numpy().reshape(size, -1).T
        dims = [variable[dim].to_numpy() for dim in variable.dims[2:]]
        labels = [":".join(map(str, label)) for label in product(*dims)]
        found |= {(name, label): column for label, column in zip(labels, columns, strict=True)}
    return found
