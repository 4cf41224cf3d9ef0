"""One replication of a study of calibration: a panel whose truth is known, and what every estimator makes of it.

    world ──draw──▶ Panel ──collapse──▶ evidence ──draws──▶ estimands ─▶ rows ◀─ frequentist estimates of the same panel

A row is one estimator's say on one estimand. Besides estimate and standard error it keeps `pit`, the probability that
the estimator gives to values below the truth: an equal-tailed interval of mass m holds the truth exactly if
|pit - 1/2| <= m/2, so that coverage at any mass can be counted later.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import arviz_stats as az
import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from models.inputs import CrossProducts, Design
from src import across, counties, equations, estimand, rates, sample, sandwich, tally, trace
from src.average import Average, own_effects
from src.collapse import Collapsed, collapse
from src.command import UserError
from src.compare import KEYS, keyed
from src.config import (
    SEEDS,
    Config,
    CountiesConfig,
    DataConfig,
    GeneratorConfig,
    LocalConfig,
    PriorConfig,
    SamplerConfig,
)
from src.counties import explained
from src.coverage import EXPLAINED
from src.design import Regression, build_design
from src.estimators import ESTIMATORS, estimate
from src.exposure import row_shares
from src.fit import (
    build_model,
    collapsed_system,
    counts_events,
    errors_of,
    learned_kernel,
    needs_units,
    order_of,
    resolve,
    unpooled,
)
from src.kernel import completed
from src.panel import Panel, in_one_line
from src.spillover import spillover_effects
from src.stopwatch import stopwatch
from src.system import MARK, Equation, first, only

MASSES = (0.5, 0.8, 0.9, 0.95)
# beyond those that determine a posterior
SOURCES = (
    "generate",
    "counties",
    "average",
    "spillover",
    "estimand",
    "equations",
    "channels",
    "across",
    "identify",
    "frequentist",
    "rings",
    "poisson",
    "rates",
    "sandwich",
    "estimators",
    "replicate",
)
KEPT = ("theta", "sigma", equations.EARLIER)  # of the parameters
STRIDE, MOST_DESIGNS = 100_000, 1000  # seeds of one study do not reach those of the next


@dataclass(frozen=True)
class Study:
    """All that determines a replication but its number.

    Attributes
    ----------
    world : GeneratorConfig or CountiesConfig
    likelihood, prior, sampler
        As in `src.fit`.
    models : dict of str to dataclass
        Options of every model that is fitted, by name.
    estimators : tuple of str
        Keys of `src.estimators.ESTIMATORS` or `src.counties.ESTIMATORS`.
    designs : int
        Replication r has design r modulo this.
    seed : int
    """

    world: GeneratorConfig | CountiesConfig
    likelihood: Any
    prior: PriorConfig
    sampler: SamplerConfig
    models: dict[str, Any]
    estimators: tuple[str, ...]
    designs: int
    seed: int

    def settings(self) -> dict:
        """As plain values, without what cannot change a number."""
        plain = asdict(self)
        del plain["sampler"]["cores"], plain["world"]["breaks"]
        return plain

    def name(self) -> str:
        """Hash of the settings and of the code: equal studies have equal replications."""
        code = trace.code_version(*(f"src/{source}.py" for source in SOURCES))
        text = json.dumps([self.settings(), code], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def panel(self, r: int) -> Panel:
        """The panel of replication r."""
        return resolve(self.world.draw)(self.world, MOST_DESIGNS * self.seed + r % self.designs, STRIDE * self.seed + r)

    def config(self, model: str) -> Config:
        """What `src.fit` would be told to fit a model of this study."""
        world = self.world
        mediators = [f"m{k}" for k in range(len(getattr(world, "mediated", ())))]
        outcomes = [f"y{k + 1}" for k in range(len(getattr(world, "beside", ())) + (getattr(world, "share", 0) > 0))]
        return Config(
            data=DataConfig(mediators=mediators, outcomes=outcomes),
            model=self.models[model],
            likelihood=self.likelihood,
            prior=self.prior,
            sampler=self.sampler,
            engine=LocalConfig(),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Failure:
    """Why a replication could not be done: in one line, and in full."""

    reason: str
    traceback: str = ""


def attempted(study: Study, r: int) -> pd.DataFrame | Failure:
    """Rows of replication r, or why there are none: one panel that cannot be fitted is a finding, not the study's end.

    A process keeps the models that it has compiled for the study that it is at.
    """
    try:
        return replicate(study, r, compiled_models(json.dumps(study.settings(), sort_keys=True)))
    except Exception as error:
        return Failure(in_one_line(error), traceback.format_exc())


@lru_cache(maxsize=1)
def compiled_models(settings: str) -> dict:
    """Models that this process has compiled for the study with these settings, by structure."""
    return {}


def replicate(study: Study, r: int, compiled: dict) -> pd.DataFrame:
    """Rows of replication r.

    Parameters
    ----------
    study : Study
    r : int
    compiled : dict
        Compiled models by structure; receives those that it lacks.

    Returns
    -------
    DataFrame
        replication, estimator, estimand, group, level (text, empty where not applicable), n_units, truth, estimate, se,
        p_positive, pit, low_<mass>, high_<mass> for each of `MASSES`; NaN where not identified. Attributes: seconds by
        stage, and for each model its divergences and the R-hat of the ATT.
    """
    seconds: dict[str, float] = {}
    checks: dict[str, dict[str, float]] = {}
    with stopwatch(seconds, "draw"):
        panel = study.panel(r)
        shares, _ = row_shares(panel)
    parts, evidence = [], {}
    for model in study.models:
        config = study.config(model)
        units = needs_units(config)
        if several(config):
            rows, checks[model] = of_several(config, panel, shares, STRIDE * study.seed + r, compiled, seconds)
            parts.append(rows.assign(estimator=model))
            continue
        with stopwatch(seconds, f"{model} collapse"):
            if units not in evidence:
                regression, _ = build_design(panel, shares, units)
                evidence[units] = collapse(regression, errors_of(config, regression), unpooled(config, regression))
        posterior, checks[model] = sampled(config, only(evidence[units]), STRIDE * study.seed + r, compiled, seconds)
        theta = posterior["theta"]
        with stopwatch(seconds, f"{model} estimands"):
            found, draws, truth = effects(theta, evidence[units], STRIDE * study.seed + r)
            rows = model_rows(found, draws, truth)
            rows = pd.concat([rows, explained_rows(theta, evidence[units].regression)], ignore_index=True)
            parts.append(rows.assign(estimator=model))
            if errors_of(config, evidence[units].regression).conditional:
                se = sandwich.clustered(evidence[units], theta, draws, STRIDE * study.seed + r)
                parts.append(normal_rows(found, draws, truth, se).assign(estimator=model + sandwich.CLUSTERED))
            checks[model]["rhat"] = float(az.rhat(draws[..., 0]))
    with stopwatch(seconds, "estimators"):
        plain = evidence[False].regression if False in evidence else build_design(panel, shares)[0]
        parts.append(classical_rows(plain, shares, study.estimators, counts_events(study.likelihood)))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True).assign(replication=r)
    frame = frame[["replication", "estimator", *(name for name in parts[0] if name != "estimator")]]
    frame.attrs = {"seconds": seconds, "checks": checks}
    return frame


def several(config: Config) -> bool:
    """Whether the model has outcomes beside the first."""
    return len(order_of(config)) > 1


def of_several(
    config: Config, panel: Panel, shares: dict[str, np.ndarray], seed: int, compiled: dict, seconds: dict[str, float]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Rows of a model of several outcomes, and what its sampler said."""
    name = config.model.name
    with stopwatch(seconds, f"{name} collapse"):
        regression, _ = build_design(panel, shares, needs_units(config))
        system = collapsed_system(config, regression, shares, errors_of(config, regression))
    posterior, checks = sampled(config, system, seed, compiled, seconds)
    with stopwatch(seconds, f"{name} estimands"):
        each = equations.effects(posterior, system, seed % SEEDS)
        if system[-1].is_share:
            found, draws, truth = in_log_ratios(across.of_counts(each, seed % SEEDS)["percent"])
        else:
            found, draws = resolve(f"{config.model.answer.rpartition('.')[0]}.estimands")(each)
            truth = of_averages(found)
        rows = model_rows(found, draws, truth)
    return rows, checks | {"rhat": float(az.rhat(draws[..., 0]))}


def sampled(
    config: Config, system: tuple[Equation, ...], seed: int, compiled: dict, seconds: dict[str, float]
) -> tuple[xr.Dataset, dict[str, float]]:
    """Draws of the coefficients in units of the outcomes, and the number of divergences.

    Raises
    ------
    UserError
        The prior follows from statements.
    """
    if config.prior.att is not None or config.prior.spread is not None:
        raise UserError(
            "prior.att and prior.spread: scales that follow from statements differ from panel to panel, while a study "
            "compiles its model once: give the scales themselves"
        )
    name, collapsed, spent = config.model.name, first(system).collapsed, {"compile": 0.0}
    sampler = config.sampler
    options = (sampler.draws, sampler.tune, sampler.chains, 1, sampler.target_accept, seed % SEEDS, False)
    with stopwatch(seconds, f"{name} build"):
        learned = learned_kernel(config, collapsed)
        model = build_model(config, system, learned)
        descriptions = len(learned.descriptions) if learned else 0
        each = tuple(structure(e.collapsed.regression.design, e.collapsed.evidence) for e in system)
        key = (name, each, descriptions)
    if sampler.backend == "pymc":
        tree = sample.with_pymc([model], *options, spent)[0]
    else:
        with stopwatch(spent, "compile"):
            if key not in compiled:
                kept = tuple(name for name in map(str, model.named_vars) if name.rpartition(MARK)[2] in KEPT)
                compiled[key] = sample.compile_model(model, kept)
        with stopwatch(spent, "sample"):
            tree = sample.draw_compiled(sample.with_data_of(compiled[key], model), *options)
    seconds.update({f"{name} {stage}": value for stage, value in spent.items()})
    divergences = float(tree["sample_stats"]["diverging"].sum())
    posterior = tree["posterior"].to_dataset()
    if learned is not None:
        posterior = completed(posterior, learned, collapsed.regression.design, seed % SEEDS)
    return equations.in_outcome_units(posterior, system), {"divergences": divergences}


def structure(design: Design, evidence: CrossProducts) -> tuple:
    """What is compiled into a model, beyond its name and options: everything of the design that is not data."""
    blocks = tuple((block.name, block.dim, block.size, block.predictor is None) for block in design.blocks.values())
    return blocks, design.blocks["path"].levels, evidence.sigma_known


def effects(theta: xr.DataArray, collapsed: Collapsed, seed: int) -> tuple[list[Average], np.ndarray, np.ndarray]:
    """Estimands of a panel, their draws, shape (chain, draw, estimand), and truths, shape (estimand,).

    Of counts, the logarithm of the ratio of means: log(1 + percent / 100).
    """
    regression = collapsed.regression
    found = estimand.averages(regression, collapsed.evidence, trace.terms(theta))
    draws = estimand.draw_estimands(theta, regression.design.all_labels, found)
    if collapsed.levels is None:
        return found, draws, of_averages(found)
    return in_log_ratios(rates.count_scales(rates.Factor(collapsed, theta), found, draws, seed % SEEDS)["percent"])


def in_log_ratios(scale: estimand.Scale) -> tuple[list[Average], np.ndarray, np.ndarray]:
    """Estimands of counts, their draws and truths from percent."""
    return scale.found, estimand.log_ratio(scale.draws), estimand.log_ratio(scale.truth)


def model_rows(found: list[Average], draws: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Rows of a model; NaN where its draws never vary, because then it fixes the effect and finds nothing.

    Parameters
    ----------
    found : list of Average
    draws : array, shape (chain, draw, estimand)
    truth : array, shape (estimand,)
    """
    flat = draws.reshape(-1, len(found))
    flat = np.where(np.ptp(flat, axis=0) > 0, flat, np.nan)
    blank = np.where(np.isnan(flat).any(axis=0) | np.isnan(truth), np.nan, 0.0)
    columns = {
        "estimate": flat.mean(axis=0),
        "se": flat.std(axis=0, ddof=1),
        "p_positive": blank + (flat > 0).mean(axis=0),
        "pit": blank + (flat < truth).mean(axis=0),
    }
    for mass in MASSES:
        tails = [(1 - mass) / 2, (1 + mass) / 2]
        columns[f"low_{100 * mass:.0f}"], columns[f"high_{100 * mass:.0f}"] = np.quantile(flat, tails, axis=0)
    return pd.concat([about(found, truth), pd.DataFrame(columns)], axis=1)


def normal_rows(found: list[Average], draws: np.ndarray, truth: np.ndarray, se: np.ndarray) -> pd.DataFrame:
    """Rows of Normal intervals about the mean of the draws, with other standard errors than those of the draws."""
    estimate = np.where((se > 0) & (np.ptp(draws, axis=(0, 1)) > 0), draws.mean(axis=(0, 1)), np.nan)
    return with_intervals(about(found, truth).assign(estimate=estimate, se=se), stats.norm)


def with_intervals(rows: pd.DataFrame, law: Any) -> pd.DataFrame:
    """Rows that have an estimate and a standard error, with intervals of a law about the former."""
    middle, se = rows["estimate"].astype(float), rows["se"].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = rows.assign(p_positive=law.cdf(middle / se), pit=law.cdf((rows["truth"] - middle) / se))
    for mass in MASSES:
        reach = law.ppf((1 + mass) / 2) * se
        rows[f"low_{100 * mass:.0f}"], rows[f"high_{100 * mass:.0f}"] = middle - reach, middle + reach
    return rows


def explained_rows(theta: xr.DataArray, regression: Regression) -> pd.DataFrame:
    """How much of the true spillover the posterior mean of a learned one explains; no row where there is none."""
    surface, truth = regression.surface, regression.panel.truth
    if surface is None or truth is None or truth.spill is None:
        return pd.DataFrame()
    labels = [f"{name}[{level}]" for name, levels in surface.levels.items() for level in levels]
    mean = theta.sel(column=labels).mean(("chain", "draw")).to_numpy()
    share = explained(surface.columns @ mean, regression.panel)
    row = dict.fromkeys(KEYS, "") | {"estimand": EXPLAINED, "n_units": 0, "truth": 1.0, "estimate": share}
    return pd.DataFrame([row])


def about(found: list[Average], truth: np.ndarray) -> pd.DataFrame:
    """What the estimands are and what is true of them."""
    names = [*KEYS, "n_units"]
    return pd.DataFrame([{name: getattr(average, name) for name in names} for average in found]).assign(truth=truth)


def of_averages(found: list[Average]) -> np.ndarray:
    """What is true of averages, shape (estimand,)."""
    return np.array([average.truth for average in found])


def classical_rows(
    regression: Regression, shares: dict[str, np.ndarray], names: tuple[str, ...], events: bool
) -> pd.DataFrame:
    """Rows of the frequentist estimators, Student's t with (units - 1) degrees of freedom about the estimate.

    Parameters
    ----------
    regression : Regression
        Of the panel.
    shares : dict of str to array, shape (row,)
    names : tuple of str
    events : bool
        The outcome is a count: everything is the logarithm of a ratio of means.
    """
    panel = regression.panel
    sums, sets = tally.own(regression), tally.sets(regression)
    found = [*own_effects(regression, sums), *spillover_effects(regression, sums, sets)]
    truths = about(found, estimand.log_ratio(rates.truths(regression, found)) if events else of_averages(found))
    truths.loc[len(truths)] = dict.fromkeys(KEYS, "") | {"estimand": EXPLAINED, "n_units": 0, "truth": 1.0}
    table = keyed(estimate(panel, shares, MASSES[-1], names, ESTIMATORS | counties.ESTIMATORS))
    table = table[table["scale"] == ("percent" if events else "outcome")]
    if events:
        ratio = estimand.log_ratio(table["estimate"].to_numpy(dtype=float))
        table = table.assign(estimate=ratio, se=table["se"].astype(float) / (100 * np.exp(ratio)))
    known = truths.merge(table[[*KEYS, "estimator", "estimate", "se"]], on=KEYS)
    return with_intervals(known, stats.t(len(panel.units) - 1))
