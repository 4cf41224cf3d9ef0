"""Worlds for the recovery study: small panels whose truth is known, each from a few numbers in conf/generator/.

    y_it = alpha_i + lambda_t + x_it'beta + u_kt + v_ct + eps_it                            untreated outcome
         + D_it tau_it + (1 - D_it) S_it'delta_control + D_it S_it'delta_treated            adoption, spillovers

    and where `events` are counted, the outcome is Poisson with the exponential of that as its mean

    m_it = alpha^m_i + lambda^m_t + x_it'beta + u^m_kt + v^m_ct + eps^m_it + D_it tau^m_it      mediators
    y_it as above + sum of slope m_it without adoption: slope tau^m_it of tau_it goes through m

    further outcomes: like y, all that is random correlated with the same in y
    events of a kind: Binomial(y_it, q_it), log odds of q_it like y above, intercepts, errors and effects their own

    tau_it = ramp(e) (mean + ownership_o + industry_k + cohort_g + unit_sd z_i) + cell_gt

Who belongs where, who adopts when, who is seen when and the covariates are the *design*; intercepts, errors, shocks
and effects are the *outcome*. Each has a seed of its own, so that several outcomes can be drawn over one design: the
columns of the regression, and with them the compiled model, then stay the same. Effects and untreated outcomes draw
from streams of their own, so that worlds that differ in their effects alone share their untreated outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from src.chance import of_kind
from src.config import DataConfig, GeneratorConfig
from src.encode import Known, encode
from src.exposure import leave_one_out_share
from src.panel import Panel, PanelError
from src.synthetic import allocate, ar1, sha256_of

FIRST = 2001
OWNERSHIP = ("private", "state")
PART, PART_SD = "y1", 0.4  # events of a kind; SD of the errors of their log odds
MOST_LOG = 30.0  # of an expected count: in worlds that do not count it is a number that nobody reads


@dataclass(frozen=True)
class Frame:
    """A design: who is where, adopts when and is seen when.

    Attributes
    ----------
    cohort : array, shape (unit,)
        Position of the first treated period; inf where never treated.
    industry, district, ownership : array of int, shape (unit,)
    seen : array of bool, shape (unit, period)
    covariates : array, shape (covariate, unit, period)
    """

    cohort: np.ndarray
    industry: np.ndarray
    district: np.ndarray
    ownership: np.ndarray
    seen: np.ndarray
    covariates: np.ndarray

    @property
    def treated(self) -> np.ndarray:
        """D, shape (unit, period)."""
        return np.arange(self.seen.shape[1]) >= self.cohort[:, None]


def draw(world: GeneratorConfig, design_seed: int, outcome_seed: int) -> Panel:
    """One panel of a world, encoded as a user's file would be, with its truth.

    Parameters
    ----------
    world : GeneratorConfig
    design_seed, outcome_seed : int

    Raises
    ------
    PanelError
        A world that cannot be.
    """
    check_world(world)
    frame = draw_design(world, np.random.default_rng([design_seed, 1]))
    volatility = np.random.default_rng([outcome_seed, 2]).standard_normal(world.units)
    of_untreated = np.random.default_rng([outcome_seed, 4])
    size = of_untreated.standard_normal(world.units)
    tau = draw_effects(world, frame, volatility, size, np.random.default_rng([outcome_seed, 3]))
    untreated, mean, variance = draw_untreated(world, frame, volatility, size, of_untreated)
    felt = spillovers(world, frame) if world.exposed else np.zeros(tau.shape)
    others = [*draw_mediators(world, frame, volatility, size, outcome_seed)]
    for slope, one in zip(slopes_in(world), others, strict=True):
        untreated = untreated + slope * one.untreated
    outcome = tau + untreated
    if world.exposed:
        outcome += felt
    others += draw_beside(world, frame, volatility, size, tau, untreated, outcome_seed)
    if world.events:
        outcome = np.random.default_rng([outcome_seed, 5]).poisson(np.exp(outcome)).astype(float)
    columns = {one.name: one.columns(felt) for one in others}
    if world.share:
        columns[PART] = draw_part(world, frame, volatility, size, tau, outcome, mean, outcome_seed)
    rows = tabulate(frame, outcome, tau, mean, variance, columns)
    names = [f"x{j}" for j in range(len(frame.covariates))]
    data = DataConfig(
        name=world.name, unit="firm", time="year", cohort="first", outcome="y", is_log=False, covariates=names,
        groups={"industry": "industry", "ownership": "ownership"} if world.grouped else {},
        exposures={"district": "district", "industry": "industry"} if world.exposed else {},
        mediators=[one.name for one in others if one.mediates],
        outcomes=[*(one.name for one in others if not one.mediates), *([PART] if world.share else [])],
    )  # fmt: skip
    control = {"district": world.spill_district, "industry": world.spill_industry} if world.exposed else {}
    treated = {name: world.spill_ratio * slope for name, slope in control.items()}
    mean_of, variance_of = ("mean", "variance") if world.events else (None, None)
    nothing = dict.fromkeys(control, 0.0)
    beside = {
        one.name: Known(f"tau_{one.name}", *((nothing, nothing) if one.mediates else (control, treated)))
        for one in others
    }
    through = dict(zip(beside, world.mediated, strict=False))
    if world.share:
        beside[PART] = Known(f"tau_{PART}", control, treated, None, f"mean_{PART}", variance_of)
    known = Known("tau", control, treated, None, mean_of, variance_of, beside, through)
    return encode(rows, data, sha256_of(rows), known)


@dataclass(frozen=True)
class Other:
    """An outcome beside the first.

    Attributes
    ----------
    name : str
    untreated, tau : array, shape (unit, period)
        Without any adoption; effect of own adoption.
    mediates : bool
        Others' adoption does nothing to it.
    """

    name: str
    untreated: np.ndarray
    tau: np.ndarray
    mediates: bool

    def columns(self, felt: np.ndarray) -> dict[str, np.ndarray]:
        """As in a file, with the truth; `felt` is what others' adoption does."""
        value = self.untreated + self.tau + (0.0 if self.mediates else felt)
        return {self.name: value, f"tau_{self.name}": self.tau}


def slopes_in(world: GeneratorConfig) -> list[float]:
    """What the outcome varies with each mediator: its slope, and what confounds the first.

    Errors alike, one that has r / sqrt(1 - r^2) of the other beside its own is correlated with it by r.
    """
    slopes = list(world.mediated)
    if slopes:
        slopes[0] += world.confounding / np.sqrt(1 - world.confounding**2)
    return slopes


def draw_mediators(
    world: GeneratorConfig, frame: Frame, volatility: np.ndarray, size: np.ndarray, seed: int
) -> Iterator[Other]:
    """Mediators: errors as large as the outcome's own, effects of their own."""
    for k, effect in enumerate(world.on_mediators):
        rng = np.random.default_rng([seed, 6, k])
        tau = draw_effects(replace(world, effect=effect), frame, volatility, size, rng) * (effect != 0)
        yield Other(f"m{k}", draw_untreated(world, frame, volatility, size, rng)[0], tau, True)


def draw_beside(
    world: GeneratorConfig,
    frame: Frame,
    volatility: np.ndarray,
    size: np.ndarray,
    tau: np.ndarray,
    untreated: np.ndarray,
    seed: int,
) -> Iterator[Other]:
    """Further outcomes: a share of the first in all that is random, the rest their own."""
    tied = world.correlation if world.errors_alike is None else world.errors_alike
    for k, effect in enumerate(world.beside):
        rng = np.random.default_rng([seed, 7, k])
        mixed = effects_like(world, frame, volatility, size, tau, effect, rng)
        apart = draw_untreated(world, frame, volatility, size, rng)[0]
        yield Other(f"y{k + 1}", tied * untreated + np.sqrt(1 - tied**2) * apart, mixed, False)


def effects_like(
    world: GeneratorConfig,
    frame: Frame,
    volatility: np.ndarray,
    size: np.ndarray,
    tau: np.ndarray,
    effect: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Effects of another average, whose deviations from it are correlated with those of tau, shape (unit, period)."""
    plain = replace(world, effect=1.0, ownership_gap=0.0, industry_sd=0.0, unit_sd=0.0, cohort_effects=[], jump=0.0)
    same, rest = world.correlation, np.sqrt(1 - world.correlation**2)
    shape = draw_effects(plain, frame, volatility, size, rng)
    own = draw_effects(world, frame, volatility, size, rng) - world.effect * shape
    return same * (tau - world.effect * shape) + rest * own + effect * shape


def draw_part(
    world: GeneratorConfig,
    frame: Frame,
    volatility: np.ndarray,
    size: np.ndarray,
    tau: np.ndarray,
    events: np.ndarray,
    mean: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """Events that are of a kind, and what is true of their number, shape (unit, period) each.

    Given how many there are in all, their number is binomial. The effect on it is the logarithm of the ratio of its
    expectations with and without own adoption, over errors of the log odds.

    Parameters
    ----------
    events : array, shape (unit, period)
        All of them.
    mean : array, shape (unit, period)
        Expected number of them without any adoption.
    """
    rng = np.random.default_rng([seed, 8])
    own = replace(world, level=float(logit(world.share)), unit_effect_sd=world.share_sd, sd=PART_SD, period_sd=0.05)
    odds, exponential, variance = draw_untreated(own, frame, volatility, size, rng)
    expected = np.log(exponential) - variance / 2
    on_odds = effects_like(world, frame, volatility, size, tau, world.on_share, rng)
    drawn = rng.binomial(events.astype(int), expit(odds + on_odds)).astype(float)
    without, adopted = of_kind(expected, variance), of_kind(expected + on_odds, variance)
    return {PART: drawn, f"tau_{PART}": tau + np.log(adopted / without), f"mean_{PART}": mean * without}


def potential(world: GeneratorConfig, design_seed: int, outcome_seed: int) -> tuple[Frame, np.ndarray]:
    """Who is where in the panel that `draw` draws with these seeds, and what adoption does to each, or would do.

    Returns
    -------
    frame : Frame
    level : array, shape (unit,)
        As of `draw_levels`: of those that never adopt, too. Unit f00012 of the panel is number 12.
    """
    frame = draw_design(world, np.random.default_rng([design_seed, 1]))
    volatility = np.random.default_rng([outcome_seed, 2]).standard_normal(world.units)
    size = np.random.default_rng([outcome_seed, 4]).standard_normal(world.units)
    return frame, draw_levels(world, frame, volatility, size, np.random.default_rng([outcome_seed, 3]))


def check_world(world: GeneratorConfig) -> None:
    """Refuse numbers that do not go together.

    Raises
    ------
    PanelError
    """
    starts, adopters = world.starts, world.adopters
    least = 2 * max(world.industries, world.districts)
    wrong = {
        f"starts={starts} and adopters={adopters} are to be equally long: a first treated period and a number of "
        "adopters for each cohort": len(starts) != len(adopters) or not starts,
        f"starts={starts} is to name different periods from 2 to {world.periods}, so that every adopter has a period "
        "before adoption": len(set(starts)) < len(starts) or not all(2 <= start <= world.periods for start in starts),
        f"adopters={adopters} is to have at least 1 adopter a cohort and leave some of the {world.units} units "
        "untreated": min(adopters, default=1) < 1 or sum(adopters) >= world.units,
        f"units={world.units} is too few for two units in every industry and district: give at least {least}, or fewer "
        "industries and districts": world.units < least,
        f"cohort_effects={world.cohort_effects} is to be empty or have a number for each cohort": (
            len(world.cohort_effects) not in (0, len(starts))
        ),
        "ramp is empty: give the share of the effect that is reached at event times 0, 1, ...": not world.ramp,
        f"on_scale={world.on_scale} and on_size={world.on_size} are correlations of one effect: their squares are to "
        "sum to 1 at most": world.on_scale**2 + world.on_size**2 > 1,
        f"mediated={world.mediated} and on_mediators={world.on_mediators} are to be equally long: a slope and an "
        "effect for each mediator": len(world.mediated) != len(world.on_mediators),
        "events with mediated or beside: counts have neither mediators nor further outcomes": bool(
            world.events and (world.mediated or world.beside)
        ),
        f"share={world.share} without events: only events are of a kind": bool(world.share and not world.events),
        f"tails={world.tails} has no finite variance: give more than 2 degrees of freedom, or 0 for normal": (
            0 < world.tails <= 2
        ),
    }
    for words, found in wrong.items():
        if found:
            raise PanelError(f"generator.{words}")


def draw_design(world: GeneratorConfig, rng: np.random.Generator) -> Frame:
    """Memberships of fixed sizes, adoption with odds that differ between industries, spells, covariates."""
    units, periods = world.units, world.periods
    industry = rng.permutation(np.repeat(np.arange(world.industries), zipf(units, world.industries, world.tail)))
    district = rng.permutation(np.repeat(np.arange(world.districts), zipf(units, world.districts, world.tail)))
    ownership = (rng.random(units) < world.state_share).astype(int)
    score = 0.5 * rng.standard_normal(world.industries)[industry] + rng.gumbel(size=units)
    adopters = rng.permutation(np.argsort(-score)[: sum(world.adopters)])
    cohort = np.full(units, np.inf)
    cohort[adopters] = np.repeat(np.array(world.starts, dtype=float) - 1, world.adopters)

    late = np.where(rng.random(units) < world.late_entry, rng.integers(1, periods // 2 + 1, units), 0)
    early = np.where(rng.random(units) < world.early_exit, rng.integers(periods // 2, periods, units), periods)
    early[adopters], late[adopters] = periods, np.minimum(late[adopters], cohort[adopters] - 2).clip(0)
    period = np.arange(periods)
    seen = (period >= late[:, None]) & (period < early[:, None]) & (rng.random((units, periods)) >= world.missing)
    never_seen = ~seen.any(axis=1)  # counted by nobody who reads the panel, so its neighbours' exposure would be off
    seen[never_seen, late[never_seen]] = True
    unseen_before = adopters[~(seen & (period < cohort[:, None]))[adopters].any(axis=1)]
    seen[unseen_before, cohort[unseen_before].astype(int) - 1] = True
    covariates = ar1(rng.standard_normal((world.covariates, units, periods)), 0.6)
    return Frame(cohort, industry, district, ownership, seen, covariates)


def zipf(total: int, levels: int, tail: float) -> np.ndarray:
    """Sizes of levels in proportion to rank^-tail, two at least, shape (level,)."""
    return allocate(total, np.arange(1, levels + 1) ** -tail, least=2)


def draw_untreated(
    world: GeneratorConfig, frame: Frame, volatility: np.ndarray, size: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes without any adoption, the mean over shocks and errors of their exponential, and the variance of shocks
    and errors; shape (unit, period).
    """
    units, periods = frame.seen.shape
    ever = np.isfinite(frame.cohort)
    alpha = world.level + world.unit_effect_sd * (size + 0.5 * ever)
    lambda_ = world.drift * np.arange(periods) + world.period_sd * rng.standard_normal(periods)
    slopes = 0.3 * np.where(np.arange(world.covariates) % 2, -1.0, 1.0)
    outcome = alpha[:, None] + lambda_ + np.tensordot(slopes, frame.covariates, axes=1)
    scale = world.sd * np.exp(world.spread * volatility - world.spread**2 + world.ever * ever)
    variance = scale**2 + world.industry_shock**2 + world.district_shock**2
    variance = np.repeat(variance[:, None], periods, axis=1)
    mean = np.exp(np.minimum(outcome + variance / 2, MOST_LOG))
    for code, sd in ((frame.industry, world.industry_shock), (frame.district, world.district_shock)):
        outcome += sd * ar1(rng.standard_normal((code.max() + 1, periods)), world.shock_rho)[code]
    return outcome + scale[:, None] * disturbances(world, units, rng), mean, variance


def disturbances(world: GeneratorConfig, units: int, rng: np.random.Generator) -> np.ndarray:
    """Errors of unit variance, shape (unit, period); but for a random walk, whose steps have SD .4."""
    periods = world.periods
    normal = rng.standard_normal((units, periods))
    if world.tails > 0:
        normal = rng.standard_t(world.tails, (units, periods)) / np.sqrt(world.tails / (world.tails - 2))
    if world.serial == "random_walk":
        return 0.4 * np.cumsum(normal, axis=1)
    if world.serial == "half_white":
        return np.sqrt(0.5) * (ar1(normal, 0.9) + rng.standard_normal((units, periods)))
    return ar1(normal, world.rho)


def draw_effects(
    world: GeneratorConfig, frame: Frame, volatility: np.ndarray, size: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Effect of own adoption at zero exposure, shape (unit, period); 0 before adoption."""
    periods = frame.seen.shape[1]
    level = draw_levels(world, frame, volatility, size, rng)
    for start, extra in zip(world.starts, world.cohort_effects or [0.0] * len(world.starts), strict=True):
        level = level + extra * (frame.cohort == start - 1)
    event_time = np.where(
        frame.treated, np.arange(periods) - np.where(frame.treated.any(1), frame.cohort, 0)[:, None], 0
    )
    tau = ramp_at(world, event_time) * level[:, None] + sparse_cells(world, frame, rng)
    return np.where(frame.treated, tau, 0.0)


def draw_levels(
    world: GeneratorConfig, frame: Frame, volatility: np.ndarray, size: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Effect that the adoption of each unit has, or would have, once its ramp is over, shape (unit,).

    Without what sets a cohort apart.
    """
    rest = np.sqrt(1 - world.on_scale**2 - world.on_size**2)
    own = world.on_scale * volatility + world.on_size * size + rest * rng.standard_normal(world.units)
    by_owner = world.ownership_gap * (0.5 - frame.ownership)
    return world.effect + by_owner + by_industry(world, rng)[frame.industry] + world.unit_sd * own


def ramp_at(world: GeneratorConfig, event_time: np.ndarray) -> np.ndarray:
    """Share of the effect that is reached at event times, shape as given."""
    return np.asarray(world.ramp)[np.minimum(event_time, len(world.ramp) - 1).astype(int)]


def by_industry(world: GeneratorConfig, rng: np.random.Generator) -> np.ndarray:
    """Deviations of the industries' effects, shape (industry,)."""
    levels, size = world.industries, world.industry_sd
    if world.industry_law == "one":  # the third largest is unlike the others
        return np.where(np.arange(levels) == 2, 4 * size, 0.0)
    if world.industry_law == "clustered":  # nothing in every other industry, twice the effect elsewhere
        return np.where(np.arange(levels) % 2, -size, size)
    if world.industry_law == "flip":  # a third of them is hurt as much as the others gain
        return np.where(np.arange(levels) % 3 == 1, -2 * world.effect, 0.0)
    return size * rng.standard_normal(levels)


def sparse_cells(world: GeneratorConfig, frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Effects of cohort x period cells that jump now and then, shape (unit, period): sums of sparse increments.

    An increment from one cohort to the next (the first from 0), and from one event time to the next, is non-zero with
    probability .1, of size `jump`, positive with probability .6.
    """
    periods, starts = world.periods, sorted(set(frame.cohort[np.isfinite(frame.cohort)]))
    tau = np.zeros(frame.seen.shape)
    if world.jump == 0:
        return tau

    def increments(count: int) -> np.ndarray:
        sign = np.where(rng.random(count) < 0.6, 1.0, -1.0)
        return np.where(rng.random(count) < 0.1, world.jump * sign, 0.0)

    entry = np.cumsum(increments(len(starts)))
    for start, first in zip(starts, entry, strict=True):
        path = first + np.r_[0.0, np.cumsum(increments(periods - int(start) - 1))]
        tau[np.ix_(frame.cohort == start, np.arange(int(start), periods))] = path
    return tau


def spillovers(world: GeneratorConfig, frame: Frame) -> np.ndarray:
    """Slope times exposure, times `spill_ratio` once a unit has adopted itself, shape (unit, period)."""
    slopes = ((frame.district, world.spill_district), (frame.industry, world.spill_industry))
    received = sum(slope * np.nan_to_num(leave_one_out_share(frame.treated, code)) for code, slope in slopes)
    return received * np.where(frame.treated, world.spill_ratio, 1.0)


def tabulate(
    frame: Frame,
    outcome: np.ndarray,
    tau: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    others: dict[str, dict[str, np.ndarray]],
) -> pd.DataFrame:
    """Rows of the units and periods that are seen."""
    unit, period = np.nonzero(frame.seen)
    start = np.where(np.isfinite(frame.cohort), frame.cohort + FIRST, np.nan)
    columns = {
        "firm": np.char.add("f", np.char.zfill(unit.astype(str), 5)),
        "year": FIRST + period,
        "first": start[unit],
        "industry": np.char.add("C", np.char.zfill(frame.industry[unit].astype(str), 2)),
        "ownership": np.array(OWNERSHIP)[frame.ownership[unit]],
        "district": np.char.add("d", np.char.zfill(frame.district[unit].astype(str), 3)),
        "y": outcome[unit, period],
        "tau": tau[unit, period],
        "mean": mean[unit, period],
        "variance": variance[unit, period],
    }
    columns |= {f"x{j}": values[unit, period] for j, values in enumerate(frame.covariates)}
    for values in others.values():
        columns |= {name: value[unit, period] for name, value in values.items()}
    return pd.DataFrame(columns)
