"""The synthetic panel: firms, 2010-2023, in the shape of China's intelligent-manufacturing pilots, truth kept.

    y_it = alpha_i + lambda_t + x_it'beta + u_kt + v_ct + eps_it                            untreated outcome
         + D_it tau_it + (1 - D_it) S_it'delta_control + D_it S_it'delta_treated            adoption, spillovers

    m_it = its own level and year + a (u_kt + v_ct + eps_it) + c (others like them) + D_it tau^m_it    mediators

such that what an outcome varies beyond its design is b'm and something unrelated (`loadings`): b tau^m of its effect
goes through m. In a world of `events` the outcome is Poisson with the exponential of that as its mean, and given their
number those of a kind (`parts`) are binomial, log odds like the outcome, with noise and effects of their own.

Numbers live in data/synthetic/parameters.yaml, each with its source. Every part of the world draws from a stream of its
own, so that worlds which differ in one option share all other draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy import stats
from scipy.special import expit, logit

from src.chance import of_kind
from src.config import SyntheticConfig, exposure_entries
from src.encode import Known, encode
from src.exposure import leave_one_out_share
from src.panel import Panel, PanelError

ROOT = Path(__file__).parents[1]
STREAMS = ("firms", "listing", "covariates", "outcomes", "selection", "effects", "events", "mediators", "parts")


@dataclass(frozen=True)
class World:
    """A drawn panel and what is true in it.

    Attributes
    ----------
    frame : DataFrame
        Firm-year rows sorted by firm, then year; `tau_<outcome>` is the effect of own adoption at zero exposure, in log
        points (0 on untreated rows); in a world of events `mean_<outcome>` is the expected count without any adoption,
        `variance_<outcome>` the variance of the logarithm of the mean that it is drawn with.
    known : Known
        Where the truth of the chosen outcome is; slopes in log points per unit share of each exposure. Of the other
        outcomes and the mediators likewise.
    """

    frame: pd.DataFrame
    known: Known


def load(data: SyntheticConfig) -> Panel:
    """Draw the panel and encode it with its truth.

    Raises
    ------
    PanelError
        See `draw` and `src.encode.encode`.
    """
    world = draw(data)
    return encode(world.frame, data, sha256_of(world.frame), world.known)


def sha256_of(frame: pd.DataFrame) -> str:
    """Of the values of a drawn frame, which has no file."""
    return hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()).hexdigest()


def draw(data: SyntheticConfig) -> World:
    """Draw a world.

    Identification holds by construction under `selection=traits`: (1) pilots are picked on fixed traits and mean size,
    so untreated trends are parallel given covariates; (2) nobody anticipates; (3) others matter only through the
    leave-one-out shares of district and industry. `selection=growth` breaks (1).

    Parameters
    ----------
    data : SyntheticConfig

    Returns
    -------
    World

    Raises
    ------
    PanelError
        No file of parameters, an outcome that the world does not have, or a transform (the truth is on the log scale).
    """
    parameters = read_parameters(data)
    rng = dict(zip(STREAMS, np.random.default_rng(data.seed).spawn(len(STREAMS)), strict=True))
    years = np.arange(parameters["years"]["first"], parameters["years"]["last"] + 1)
    firms = draw_firms(parameters, data.size, rng["firms"])
    spell = draw_spells(parameters, len(firms), years, rng["listing"])
    covariates = draw_covariates(parameters, firms, spell, years, rng["covariates"])
    untreated, noise, mean, variance = draw_untreated(
        parameters, firms, covariates, years, data.errors, data.selection, rng["outcomes"]
    )
    if parameters["events"]:
        idle = parameters["idle"]
        less = idle["gap"] * (rng["events"].random(len(firms)) < idle["share"])[:, None]
        untreated, mean = untreated - less, mean * np.exp(-less)
    cohort = draw_cohorts(parameters, firms, spell, untreated, years, data.size, data.selection, rng["selection"])
    reported = np.log1p([said["att"] for said in parameters["outcomes"].values()])
    normal = partial(joint_normal, rng["effects"], parameters)
    tau = draw_effects(parameters, firms, spell.listed, cohort, years, reported, normal)
    outcomes = untreated + tau + spill(parameters, firms, cohort[:, None] <= years, data.spillover)

    firm, year = np.nonzero(spell.listed)
    frame = firms.drop(columns=["mean_size", "volatility"]).take(firm).reset_index(drop=True)
    frame.insert(1, "year", years[year])
    frame.insert(2, "first_treated", np.where(np.isinf(cohort), np.nan, cohort)[firm])
    frame = frame.assign(**{name: values[firm, year] for name, values in covariates.items()})
    for position, outcome in enumerate(parameters["outcomes"]):
        drawn = outcomes[position, firm, year]
        frame[outcome] = rng["events"].poisson(np.exp(drawn)) if parameters["events"] else drawn
        frame[f"tau_{outcome}"] = tau[position, firm, year]
        if parameters["events"]:
            frame[f"mean_{outcome}"] = mean[position, firm, year]
            frame[f"variance_{outcome}"] = variance[position, firm, year]
    if parameters["events"]:
        told = (parameters, firms, frame, spell.listed, cohort, years, data.errors, rng["parts"])
        frame = frame.assign(**draw_parts(*told))
    mediators = {} if parameters["events"] else parameters["mediators"]
    if mediators:
        values, effects = draw_mediators(
            parameters, firms, spell.listed, noise[0], cohort, years, data.errors, rng["mediators"]
        )
        for position, name in enumerate(mediators):
            frame[name], frame[f"tau_{name}"] = values[position, firm, year], effects[position, firm, year]
    return World(frame, known_of(parameters, data, mediators))


def draw_parts(
    parameters: dict[str, Any],
    firms: pd.DataFrame,
    frame: pd.DataFrame,
    listed: np.ndarray,
    cohort: np.ndarray,
    years: np.ndarray,
    errors: str,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Events of each kind, and what is true of their number, shape (row,) each.

    The effect on it is the logarithm of the ratio of its expectations with and without own adoption, over the noise of
    the log odds.
    """
    columns: dict[str, np.ndarray] = {}
    for name, law in parameters["parts"].items():

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal((1, *shape))

        pieces, (variance,) = draw_noise(parameters, firms, years, errors, np.array([law["disturbance"]]), normal)
        expected = (logit(law["share"]) + law["firm_sd"] * normal(len(firms)).T)[:, [0] * len(years)]
        (on_odds,) = draw_effects(parameters, firms, listed, cohort, years, np.array([law["effect"]]), normal)
        odds = sum((piece[0] for piece in pieces), expected)
        odds, expected, on_odds, variance = (x[listed] for x in (odds, expected, on_odds, variance))
        without, adopted = of_kind(expected, variance), of_kind(expected + on_odds, variance)
        columns[name] = rng.binomial(frame[law["of"]], expit(odds + on_odds))
        columns[f"tau_{name}"] = frame[f"tau_{law['of']}"] + np.log(adopted / without)
        columns[f"mean_{name}"] = frame[f"mean_{law['of']}"] * without
    return columns


def known_of(parameters: dict[str, Any], data: SyntheticConfig, mediators: dict[str, Any]) -> Known:
    """What is known of the chosen outcome, of the others, and of the mediators."""
    shares = {name: entry.share or "" for name, entry in exposure_entries(data).items()}

    def of(outcome: str) -> Known:
        slope = slopes(parameters, outcome, data.spillover)
        control = {name: slope[column] for name, column in shares.items() if column in slope}
        treated = {name: parameters["spillover"]["ratio"] * value for name, value in control.items()}
        counted = (f"mean_{outcome}", f"variance_{outcome}") if parameters["events"] else (None, None)
        return Known(f"tau_{outcome}", control, treated, None, *counted)

    nothing = dict.fromkeys(shares, 0.0)
    others = {name: of(name) for name in parameters["outcomes"]}
    others |= {name: Known(f"tau_{name}", nothing, nothing) for name in mediators}
    for name, law in parameters["parts"].items() if parameters["events"] else ():
        others[name] = replace(others[law["of"]], tau=f"tau_{name}", mean=f"mean_{name}")
    tied = 1.0 if data.outcome == next(iter(parameters["outcomes"])) else parameters["correlation"]
    through = {name: tied * law["slope"] for name, law in mediators.items()}
    return replace(of(data.outcome), others=others, through=through)


def loadings(mediators: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What a mediator has of the noise of the outcome, and of other noise like it, shape (mediator,) each.

        m = a e + c nu,  e and nu alike:  the regression of e on m has slopes b  if  a = D b c^2,  D = 1 + sum (a / c)^2

    so D solves D = 1 + D^2 sum (b c)^2, which it does where sum (b c)^2 <= 1/4.
    """
    b, c = (np.array([law[word] for law in mediators.values()], dtype=float) for word in ("slope", "noise"))
    explained = float(np.sum((b * c) ** 2))
    whole = (1 - np.sqrt(1 - 4 * explained)) / (2 * explained) if explained else 1.0
    return whole * b * c**2, c


def draw_mediators(
    parameters: dict[str, Any],
    firms: pd.DataFrame,
    listed: np.ndarray,
    noise: np.ndarray,
    cohort: np.ndarray,
    years: np.ndarray,
    errors: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mediators and the effects of own adoption on them, shape (mediator, firm, year) each.

    `noise` is that of the first outcome, shape (firm, year): shocks and errors.
    """
    laws = parameters["mediators"]
    a, c = loadings(laws)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((len(laws), *shape))

    level = np.array([law["mean"] for law in laws.values()])[:, None] + c[:, None] * normal(len(firms))
    year = 0.1 * c[:, None] * normal(len(years))
    alike = sum(draw_noise(parameters, firms, years, errors, np.ones(len(laws)), normal)[0])
    noise = a[:, None, None] * noise + c[:, None, None] * alike
    reported = np.array([law["effect"] for law in laws.values()])
    effects = draw_effects(parameters, firms, listed, cohort, years, reported, normal)
    return level[:, :, None] + year[:, None, :] + noise + effects, effects


def read_parameters(data: SyntheticConfig) -> dict[str, Any]:
    """Parameters of the world as plain dictionaries; a relative path starts at the root of the repository."""
    path = ROOT / data.parameters
    if not path.is_file():
        raise PanelError(f"there is no file {path}: set data.parameters to the YAML file of the synthetic world")
    parameters: Any = OmegaConf.to_container(OmegaConf.load(path))
    if "like" in parameters:  # another file has what this one does not say
        base: Any = OmegaConf.to_container(OmegaConf.load(path.parent / parameters["like"]))
        parameters = base | parameters
    if data.outcome not in parameters["outcomes"]:
        raise PanelError(
            f"the synthetic panel has no outcome {data.outcome!r}: use one of {list(parameters['outcomes'])}"
        )
    if data.transform != "none":
        raise PanelError(
            "the outcomes of the synthetic panel, and their truth, are counts or in logs: use data.transform=none"
        )
    return parameters


def codes(column: pd.Series) -> np.ndarray:
    """Levels of a column as positions in their sorted order, shape (row,)."""
    return np.unique(column.to_numpy(dtype=str), return_inverse=True)[1]


def allocate(total: int, weights: list[float] | np.ndarray, least: int = 0) -> np.ndarray:
    """Split `total` in proportion to `weights` by largest remainders, `least` for each beforehand; shape (level,)."""
    spare = total - least * len(weights)
    quota = spare * np.asarray(weights, dtype=float) / np.sum(weights)
    count = np.floor(quota).astype(int)
    count[np.argsort(count - quota, kind="stable")[: spare - count.sum()]] += 1
    return count + least


def ar1(normal: np.ndarray, rho: float) -> np.ndarray:
    """Stationary AR(1) of unit variance along the last axis, from standard normal innovations of the same shape."""
    series = normal.copy()
    for t in range(1, series.shape[-1]):
        series[..., t] = rho * series[..., t - 1] + np.sqrt(1 - rho**2) * normal[..., t]
    return series


def joint_normal(rng: np.random.Generator, parameters: dict[str, Any], *shape: int) -> np.ndarray:
    """Standard normals, correlated across outcomes; shape (outcome, *shape)."""
    count = len(parameters["outcomes"])
    correlation = np.full((count, count), parameters["correlation"]) + (1 - parameters["correlation"]) * np.eye(count)
    return np.tensordot(np.linalg.cholesky(correlation), rng.standard_normal((count, *shape)), axes=1)


def draw_firms(parameters: dict[str, Any], size: str, rng: np.random.Generator) -> pd.DataFrame:
    """Fixed traits, one row a firm: industry, ownership, province, district, polluting, mean_size, volatility.

    `mean_size` and `volatility` (log error scale beyond size) are standard normal. Industry and district sizes are
    fixed, who belongs where is random; districts are nested in provinces.
    """
    here = parameters["sizes"][size]
    count = here["firms"]
    industries = dict(list(parameters["industries"].items())[: here["industries"]])
    provinces = dict(list(parameters["provinces"].items())[: here["provinces"]])

    per_province = allocate(here["districts"], list(provinces.values()), least=1)
    province = np.repeat(list(provinces), per_province)
    rank = np.concatenate([np.arange(1, n + 1) for n in per_province])
    weight = np.repeat(list(provinces.values()), per_province) * rank ** -float(parameters["districts"]["tail"])
    per_district = allocate(count, weight, parameters["districts"]["least"])
    home = rng.permutation(np.repeat(np.arange(len(rank)), per_district))
    district = np.array([f"{name}-{k:02d}" for name, k in zip(province, rank, strict=True)])

    industry = rng.permutation(np.repeat(list(industries), allocate(count, list(industries.values()))))
    return pd.DataFrame(
        {
            "firm": [f"F{i:04d}" for i in range(1, count + 1)],
            "industry": industry,
            "ownership": rng.choice(list(parameters["ownership"]), count, p=list(parameters["ownership"].values())),
            "province": province[home],
            "district": district[home],
            "polluting": np.isin(industry, parameters["polluting"]).astype(int),
            "mean_size": rng.standard_normal(count),
            "volatility": rng.standard_normal(count),
        }
    )


@dataclass(frozen=True)
class Spells:
    """When firms are listed.

    Attributes
    ----------
    entry, last : array of int, shape (firm,)
        First and last listed year; `last` may lie beyond the panel.
    listed : array of bool, shape (firm, year)
        Rows of the panel: the spell less single gaps.
    """

    entry: np.ndarray
    last: np.ndarray
    listed: np.ndarray


def draw_spells(parameters: dict[str, Any], count: int, years: np.ndarray, rng: np.random.Generator) -> Spells:
    """Entries, exits at a constant hazard, and single gaps strictly inside some spells; unrelated to all else."""
    law = parameters["listing"]
    late = rng.integers(years[0] + 1, law["last_entry"] + 1, count)
    entry = np.where(rng.random(count) < law["at_start"], years[0], late)
    last = entry + law["least_years"] - 2 + rng.geometric(law["delisting"], count)
    inside = np.minimum(last, years[-1]) - entry - 1
    gap = entry + 1 + np.floor(rng.random(count) * inside)
    gap[(rng.random(count) >= law["gaps"]) | (inside < 1)] = 0
    listed = (years >= entry[:, None]) & (years <= last[:, None]) & (years != gap[:, None])
    return Spells(entry, last, listed)


def draw_covariates(
    parameters: dict[str, Any], firms: pd.DataFrame, spell: Spells, years: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Covariates, each of shape (firm, year), also for years without a row.

    A Gaussian copula: a firm component and AR(1) variation within the firm, standardised over the rows and mapped to
    the marginal law. Age counts the years since foundation.
    """
    values = {}
    for name, law in parameters["covariates"].items():
        between = rng.standard_normal(len(firms)) if name != "size" else firms["mean_size"].to_numpy()
        within = ar1(rng.standard_normal((len(firms), len(years))), parameters["within_rho"])
        if law["law"] == "age":
            at_entry = np.rint(np.exp(law["entry_mean"] + law["entry_sd"] * between))
            values[name] = np.log(np.maximum(at_entry[:, None] + years - spell.entry[:, None], 1.0))
        else:
            score = np.sqrt(law["firm"]) * between[:, None] + np.sqrt(1 - law["firm"]) * within
            rows = score[spell.listed]
            values[name] = from_normal((score - rows.mean()) / rows.std(), law)
    return values


def from_normal(score: np.ndarray, law: dict[str, Any]) -> np.ndarray:
    """Map standard normal scores to the law (normal, lognormal above `lower`, beta between bounds) of that mean, SD."""
    mean, sd = law["mean"], law["sd"]
    if law["law"] == "normal":
        return mean + sd * score
    above = mean - law["lower"]
    if law["law"] == "lognormal":
        spread = np.sqrt(np.log1p((sd / above) ** 2))
        return law["lower"] + above * np.exp(spread * score - spread**2 / 2)
    width = law["upper"] - law["lower"]
    share = above / width
    weight = share * (1 - share) * (width / sd) ** 2 - 1
    return law["lower"] + width * stats.beta.ppf(stats.norm.cdf(score), share * weight, (1 - share) * weight)


def draw_untreated(
    parameters: dict[str, Any],
    firms: pd.DataFrame,
    covariates: dict[str, np.ndarray],
    years: np.ndarray,
    errors: str,
    selection: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes without any adoption, their noise (u, v and eps), the mean of their exponential over it, its variance,
    all of shape (outcome, firm, year), also for years without a row.

    alpha_i + lambda_t + (x_it - mean)'beta + u_kt + v_ct + eps_it: alpha correlated with mean size, u and v AR(1) over
    years, eps AR(1) with log-normal firm scales; a firm's own trend where `selection` has one.
    """
    size = firms["mean_size"].to_numpy()
    intercept = np.array([said["intercept"] for said in parameters["outcomes"].values()])
    firm_sd = np.array([said["firm_sd"] for said in parameters["outcomes"].values()])
    on_size = parameters["firm_on_size"]
    alpha = on_size * size + np.sqrt(1 - on_size**2) * joint_normal(rng, parameters, len(firms))
    since = years - years.mean()
    lambda_ = parameters["year"]["drift"] * since + parameters["year"]["sd"] * joint_normal(rng, parameters, len(years))
    trend = parameters["selection"][selection]["trend"] * joint_normal(rng, parameters, len(firms))
    observed = sum(law["beta"] * (covariates[name] - law["mean"]) for name, law in parameters["covariates"].items())

    outcome = (intercept[:, None] + firm_sd[:, None] * alpha)[:, :, None] + lambda_[:, None, :]
    outcome += trend[:, :, None] * since + observed
    larger = np.array([said.get("disturbance", 1.0) for said in parameters["outcomes"].values()])
    pieces, variance = draw_noise(parameters, firms, years, errors, larger, partial(joint_normal, rng, parameters))
    noise = sum(pieces, np.zeros(outcome.shape))
    return sum(pieces, outcome), noise, np.exp(outcome + variance / 2), variance


def draw_noise(
    parameters: dict[str, Any],
    firms: pd.DataFrame,
    years: np.ndarray,
    errors: str,
    larger: np.ndarray,
    normal: Callable[..., np.ndarray],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Shocks of every classification and errors, and the variance of all together, shape (series, firm, year) each.

    u_kt, v_ct and eps_it: u and v AR(1) over years, eps AR(1) with log-normal firm scales, those of a series `larger`
    times as large; `normal` draws standard normals of shape (series, *shape).
    """
    law, size = parameters["errors"][errors], firms["mean_size"].to_numpy()
    variance = np.zeros((len(larger), len(firms), len(years)))
    pieces = []
    for column, shock in law["shocks"].items():
        variance += shock["sd"] ** 2
        group = codes(firms[column])
        pieces.append(shock["sd"] * ar1(normal(group.max() + 1, len(years)), shock["rho"])[:, group])
    log_scale = law["spread"] * firms["volatility"].to_numpy() + law["on_size"] * size
    scale = law["sd"] * np.exp(log_scale - law["spread"] ** 2 - law["on_size"] ** 2)
    scales = larger[:, None, None] * scale[:, None]
    pieces.append(scales * ar1(normal(len(firms), len(years)), law["rho"]))
    return pieces, variance + scales**2


def draw_cohorts(
    parameters: dict[str, Any],
    firms: pd.DataFrame,
    spell: Spells,
    untreated: np.ndarray,
    years: np.ndarray,
    size: str,
    selection: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """First treated year of each firm, shape (firm,); inf where never treated.

    Pilots are drawn without replacement among firms listed throughout the selection years, with odds exp(score)
    (Gumbel maxima); their numbers by cohort are fixed.
    """
    law, window = parameters["selection"][selection], parameters["pilots"]["listed"]
    start, end = np.searchsorted(years, parameters["growth_years"])
    growth = untreated[0, :, end] - untreated[0, :, start]
    industry = codes(firms["industry"])
    score = (
        law["section"] * firms["industry"].str[0].isin(parameters["pilots"]["sections"]).to_numpy()
        + law["private"] * (firms["ownership"] == "private").to_numpy()
        + law["size"] * firms["mean_size"].to_numpy()
        + law["industry_sd"] * rng.standard_normal(industry.max() + 1)[industry]
        + law["growth"] * growth
        + rng.gumbel(size=len(firms))
    )
    score[(spell.entry > window["from"]) | (spell.last < window["to"])] = -np.inf
    per_cohort = allocate(parameters["sizes"][size]["pilots"], list(parameters["pilots"]["cohorts"].values()))
    pilots = np.argsort(-score, kind="stable")[: per_cohort.sum()]
    cohort = np.full(len(firms), np.inf)
    cohort[rng.permutation(pilots)] = np.repeat([float(g) for g in parameters["pilots"]["cohorts"]], per_cohort)
    return cohort


def draw_effects(
    parameters: dict[str, Any],
    firms: pd.DataFrame,
    listed: np.ndarray,
    cohort: np.ndarray,
    years: np.ndarray,
    reported: np.ndarray,
    normal: Callable[..., np.ndarray],
) -> np.ndarray:
    """Effect of own adoption at zero exposure, shape (outcome, firm, year); 0 before adoption.

    tau_it = c * ramp(e) * (1 + ownership + polluting + industry_k + firm_i), with c such that the mean over the treated
    rows is the `reported` effect exactly, shape (outcome,); `normal` as of `draw_noise`.
    """
    law = parameters["effect"]
    industry = codes(firms["industry"])
    own = normal(len(firms)) * np.sqrt(1 - law["on_scale"] ** 2)
    relative = (
        1.0
        + firms["ownership"].map(law["ownership"]).to_numpy(dtype=float)
        + law["polluting"] * firms["polluting"].to_numpy()
        + law["industry_sd"] * normal(industry.max() + 1)[:, industry]
        + law["firm_sd"] * (own + law["on_scale"] * firms["volatility"].to_numpy())
    )
    adopted = cohort[:, None] <= years
    event_time = np.where(adopted, years - np.where(np.isinf(cohort), years[-1], cohort)[:, None], 0).astype(int)
    ramp = np.asarray(law["ramp"])[np.minimum(event_time, len(law["ramp"]) - 1)] * adopted
    tau = relative[:, :, None] * ramp
    return tau * (reported / tau[:, adopted & listed].mean(axis=1))[:, None, None]


def slopes(parameters: dict[str, Any], outcome: str, reading: str) -> dict[str, float]:
    """Spillover on the untreated, log points per unit share, by the column whose leave-one-out share it belongs to."""
    reported = parameters["outcomes"][outcome]["spillover"]
    return {column: parameters["spillover"][reading] * float(np.log1p(value)) for column, value in reported.items()}


def spill(parameters: dict[str, Any], firms: pd.DataFrame, adopted: np.ndarray, reading: str) -> np.ndarray:
    """Spillovers, shape (outcome, firm, year): slope times exposure, times `ratio` once a firm has adopted itself.

    A firm that is alone in its group has no one to be exposed to: 0.
    """
    received = np.zeros((len(parameters["outcomes"]), *adopted.shape))
    for position, outcome in enumerate(parameters["outcomes"]):
        for column, slope in slopes(parameters, outcome, reading).items():
            received[position] += slope * np.nan_to_num(leave_one_out_share(adopted, codes(firms[column])))
    return received * np.where(adopted, parameters["spillover"]["ratio"], 1.0)
