"""Settings: one dataclass a group, so that a typo dies before anything is read.

Only the commands (`src.fit` and its sisters) see a `Config`; everything below receives plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

SEEDS = 2**32  # what NumPy's and nutpie's generators take alike
ESTIMATORS = (
    "twfe",
    "twfe_exposures",
    "etwfe",
    "etwfe_groups",
    "rings",
    "cs",
    "cs_never",
    "sunab",
    "bjs",
    "did2s",
    "twfe_clusters",
    "poisson_twfe",
    "poisson_twfe_exposures",
    "poisson_etwfe",
    "poisson_twfe_cr3",
)  # keys of src.estimators.ESTIMATORS, which is slow to import
LINEAR = ("twfe", "twfe_exposures", "etwfe", "cs", "sunab", "bjs")  # twins of a Gaussian outcome
OF_COUNTS = ("poisson_twfe", "poisson_twfe_exposures", "poisson_etwfe")  # and of counts
PARTS = ("peers", "growth", "command", "counts")  # of the benchmarks
SAMPLERS = ("collapsed", "nutpie", "pymc", "numpyro", "bambi", "brms")  # src.peers.PEERS, ours first
OF_COUNTIES = ("oracle", "near_rings", "additive_rings")  # keys of src.counties.ESTIMATORS


def choice(*options: str, default: str | None = MISSING) -> Any:
    """A field that takes one of a few words."""
    return field(default=default, metadata={"options": options})


def number(default: Any, above: float | None = None, least: float | None = None, below: float | None = None) -> Any:
    """A field with bounds: value > above, >= least, < below."""
    return field(default=default, metadata={"above": above, "least": least, "below": below})


@dataclass
class ExposureConfig:
    """One entry of data.exposures: who is exposed to whom. Exactly one of share, ring, kernel, neighbours, weights."""

    share: str | None = None  # column: the others of the same level, each counting alike
    ring: list[float] | None = None  # kilometres: units farther than the first and at most as far as the second
    kernel: str | None = choice("exponential", "gaussian", "triangular", "learned", default=None)  # ties by distance
    neighbours: int | None = number(None, least=1)  # the nearest so many units
    weights: str | None = None  # file of ties: from, to, weight in a .csv or .parquet; or a .gal or .gwt
    latitude: str | None = None  # columns, in degrees
    longitude: str | None = None
    scale: float | None = number(None, above=0)  # kilometres, of the kernel
    cutoff: float | None = number(None, above=0)  # kilometres, beyond which the kernel is zero; needed to learn one
    between: str | None = None  # column whose levels the file of ties speaks of; null: units
    size: str | None = None  # column: how much a unit counts, in its first row
    form: str | None = choice("share", "additive", "nearest", default=None)  # null: additive for rings and kernels
    by: str | None = None  # group over whose levels the slope may differ, partially pooled; null: one slope
    lag: int = 0  # periods from adoption until others are exposed to it; below 0 a placebo: others' adoption to come


@dataclass
class DeriveConfig:
    """One entry of data.derive: a column computed from others; see src.indices."""

    index: str = choice("sa", "uncertainty", "winsorised", "log1p", "share")
    assets: str | None = None  # column, of sa
    founded: str | None = None  # column: year of foundation, of sa
    deflator: str | None = None  # column by which assets are divided
    millions: float = number(1.0, above=0)  # of the currency in one unit of assets
    most_size: float | None = None  # cap of ln(assets in millions)
    most_age: float | None = number(None, above=0)  # cap of the age
    sales: str | None = None  # column, of uncertainty
    industry: str | None = None  # column, of uncertainty
    window: int = number(5, least=3)  # periods, the row's own the last
    least: int = number(4, least=3)  # rows that a window needs
    column: str | None = None  # of winsorised, log1p, share
    of: str | None = None  # column: the denominator of a share
    lower: float = number(0.01, least=0, below=1)  # quantiles, of winsorised
    upper: float = number(0.99, above=0)


@dataclass
class DataConfig:
    """Which panel, and what its columns mean."""

    loader: str = "src.encode.load"
    name: str = MISSING
    path: str | None = None
    package: str | None = None
    file: str | None = None
    unit: str = MISSING
    time: str = MISSING
    cohort: str | None = None
    treated: str | None = None
    outcome: str = MISSING
    transform: str = choice("none", "log", "log1p", "asinh", default="none")
    is_log: bool = False
    groups: dict[str, str] = field(default_factory=dict)
    predictors: dict[str, str] = field(default_factory=dict)
    covariates: list[str] = field(default_factory=list)
    fixed_effects: list[str] = field(default_factory=list)  # columns whose levels have an effect in every period
    exposures: dict[str, Any] = field(default_factory=dict)  # name: column, or an ExposureConfig
    derive: dict[str, Any] = field(default_factory=dict)  # name of a new column: a DeriveConfig
    offset: str | None = None  # column: exposure to risk of counts, above 0, in the unit that rates are per
    weights: str | None = None
    weigh_exposures: bool = False
    mediators: list[str] = field(default_factory=list)  # columns through which adoption may act, of model=mediation
    outcomes: list[str] = field(default_factory=list)  # columns beside the outcome, of model=joint; same transform
    membership: str = choice("error", "first", "before", default="error")


def exposure_entries(data: DataConfig) -> dict[str, ExposureConfig]:
    """Entries of data.exposures in full: the name of a column alone is that of a share."""
    return {
        name: entry if isinstance(entry, ExposureConfig) else ExposureConfig(share=entry)
        for name, entry in data.exposures.items()
    }


@dataclass
class SyntheticConfig(DataConfig):
    """The synthetic panel: its world and how much of it."""

    parameters: str = MISSING
    seed: int = number(0, least=0, below=SEEDS)
    size: str = choice("full", "small", default="full")
    spillover: str = choice("tenth", "literal", "unit", default="tenth")
    errors: str = choice("realistic", "iid", default="realistic")
    selection: str = choice("traits", "growth", default="traits")


@dataclass
class PooledConfig:
    """One effect for all."""

    name: str = "pooled"
    build: str = "models.pooled.build"


@dataclass
class NopoolConfig:
    """Every cell its own effect, nothing borrowed."""

    name: str = "nopool"
    build: str = "models.nopool.build"
    cells: str = choice("cohort_time", "groups", default="cohort_time")


@dataclass
class HierConfig:
    """Effects partially pooled over cohorts, cells and groups."""

    name: str = "hier"
    build: str = "models.hier.build"
    path: str = choice("increments", "random_walk", "gaussian_process", default="increments")
    tails: str = choice("normal", "student_t", default="normal")
    late: bool = True
    interactions: bool = True
    unit: bool | None = None  # null: whenever likelihood.scale=unit


@dataclass
class MediationConfig(HierConfig):
    """Effects on the outcome split into what goes through mediators and what does not; see src.channels."""

    name: str = "mediation"
    build: str = "models.system.build"
    beside: str = "mediators"  # setting of data that names the other outcomes
    answer: str = "src.channels.answer"
    together: bool = False  # pooled terms are correlated across outcomes
    most: float = number(0.6, above=0, below=1)  # residual correlation up to which the sensitivity curve goes


@dataclass
class JointConfig(HierConfig):
    """Several outcomes, their subgroup effects and residuals correlated; see src.across."""

    name: str = "joint"
    build: str = "models.system.build"
    beside: str = "outcomes"
    answer: str = "src.across.answer"
    together: bool = True


@dataclass
class GaussianConfig:
    """Gaussian errors, unit effects integrated out; see src.nuisance."""

    name: str = "gaussian"
    serial: str = choice("ar1", "none", default="ar1")
    scale: str = choice("unit", "common", default="unit")
    shocks: list[str] | None = None  # exposures or groups whose levels have shocks in every period; null: all exposures


@dataclass
class PoissonLognormalConfig(GaussianConfig):
    """Poisson counts with unit effects and a log-normal disturbance, to which the rest applies; see src.counts."""

    name: str = "poisson_lognormal"


@dataclass
class PoissonConfig:
    """Poisson counts with unit effects and nothing else, conditional on the total of each unit; see src.counts."""

    name: str = "poisson"
    serial: str = choice("none", default="none")
    scale: str = choice("none", default="none")
    shocks: list[str] | None = field(default_factory=list)


@dataclass
class PriorConfig:
    """Scales in units of s, the residual SD of the saturated fit; see models.inputs.Priors, and src.elicit."""

    name: str = MISSING
    mu: float = number(MISSING, above=0)
    sd: float = number(MISSING, above=0)
    fixed: float = number(MISSING, above=0)
    min_levels: int = number(MISSING, least=2)
    path: float = number(MISSING, above=0)
    predictor: float = number(MISSING, above=0)
    exposure: float = number(MISSING, above=0)
    difference: float = number(MISSING, above=0)
    ring: float = number(MISSING, above=0)
    cell: float = number(MISSING, above=0)
    lead: float = number(MISSING, above=0)
    sigma: float = number(MISSING, above=0)
    att: list[float] | None = None  # between which the average effect lies, percent or units of the outcome
    spread: float | None = number(None, above=0)  # below which the SD of effects between levels of a group lies
    sure: float = number(0.95, above=0, below=1)  # of these two


@dataclass
class SamplerConfig:
    """How to draw from the posterior."""

    name: str = MISSING
    backend: str = choice("nutpie", "pymc", default="nutpie")
    draws: int = number(1000, least=100)
    tune: int = number(1000, least=100)
    chains: int = number(4, least=2)
    cores: int = number(2, least=1)
    target_accept: float = number(0.95, above=0, below=1)
    target_accept_again: float = number(0.99, least=0, below=1)  # of a second attempt, where transitions diverge


@dataclass
class LocalConfig:
    """A process or several on one machine; see src.engine."""

    name: str = "local"
    open: str = "src.engine.local"
    cores: int = number(1, least=1)
    rows_in_memory: int = number(2_000_000, least=0)  # Parquet files with more rows, and folders, are read in blocks
    block_rows: int = number(300_000, least=1)
    scratch: str | None = None  # folder for the blocks; null: the system's for temporary files


@dataclass
class DaskConfig:
    """Processes that a Dask scheduler knows, on this machine or on many; see src.engine."""

    name: str = "dask"
    open: str = "src.engine.dask"
    address: str | None = None  # of a scheduler; null: one of our own, on this machine
    cores: int = number(2, least=1)
    retries: int = number(3, least=0)
    rows_in_memory: int = number(2_000_000, least=0)
    block_rows: int = number(300_000, least=1)
    scratch: str | None = None  # one that all workers see


EngineConfig = LocalConfig | DaskConfig


@dataclass
class GeneratorConfig:
    """A world of the recovery study; see src.generate. Sizes of effects and errors in units of the outcome."""

    name: str = MISSING
    draw: str = "src.generate.draw"
    breaks: str = ""  # the assumption of the default model that this world breaks
    units: int = number(1000, least=10)
    periods: int = number(12, least=3)
    starts: list[int] = field(default_factory=lambda: [5, 6, 7, 8])  # first treated period of each cohort, from 1
    adopters: list[int] = field(default_factory=lambda: [28, 28, 28, 28])
    industries: int = number(20, least=2)
    districts: int = number(40, least=2)
    tail: float = number(0.7, least=0)  # sizes of industries and districts fall with rank to this power
    state_share: float = number(0.36, above=0, below=1)
    grouped: bool = True
    exposed: bool = True
    covariates: int = number(2, least=0)
    missing: float = number(0.05, least=0, below=1)
    late_entry: float = number(0.3, least=0, below=1)
    early_exit: float = number(0.15, least=0, below=1)
    unit_effect_sd: float = number(1.0, least=0)
    drift: float = 0.05
    period_sd: float = number(0.1, least=0)
    sd: float = number(0.55, above=0)
    rho: float = number(0.6, above=-1, below=1)
    serial: str = choice("ar1", "random_walk", "half_white", default="ar1")
    spread: float = number(0.5, least=0)  # SD of the log scale of a unit
    ever: float = 0.3  # log scale of adopters above that of the others
    tails: float = number(0.0, least=0)  # degrees of freedom of the innovations, 0 for normal
    industry_shock: float = number(0.12, least=0)
    district_shock: float = number(0.12, least=0)
    shock_rho: float = number(0.5, above=-1, below=1)
    effect: float = 0.4
    ramp: list[float] = field(default_factory=lambda: [0.4, 0.8, 1.0])
    ownership_gap: float = 0.15  # private less state
    industry_law: str = choice("normal", "one", "clustered", "flip", default="normal")
    industry_sd: float = number(0.15, least=0)
    unit_sd: float = number(0.2, least=0)
    on_scale: float = number(0.0, least=-1)  # correlation of a unit's effect with its log scale
    on_size: float = number(0.0, least=-1)  # and with its intercept
    cohort_effects: list[float] = field(default_factory=list)
    jump: float = number(0.0, least=0)
    spill_district: float = 0.5
    spill_industry: float = 1.0
    spill_ratio: float = 1.0
    events: bool = False  # the outcome is a count, and all of the above are parts of its log mean
    level: float = 0.0  # average intercept
    mediated: list[float] = field(default_factory=list)  # slope of the outcome in each mediator
    on_mediators: list[float] = field(default_factory=list)  # average effect of own adoption on each
    confounding: float = number(0.0, above=-1, below=1)  # correlation of the errors of the outcome and a mediator
    beside: list[float] = field(default_factory=list)  # average effect on each further outcome
    correlation: float = number(0.8, above=-1, below=1)  # of all that is random in one with the same in the first
    errors_alike: float | None = number(None, above=-1, below=1)  # of what is no effect alone; null: the same
    share: float = number(0.0, least=0, below=1)  # of events, that are of a kind; 0: kinds are not told apart
    on_share: float = 0.0  # average effect on the log odds of that kind
    share_sd: float = number(0.6, least=0)  # SD of the log odds between units


@dataclass
class CountiesConfig:
    """A world of spillovers between the counties of the United States; see src.counties. Distances in miles."""

    name: str = MISSING
    draw: str = "src.counties.draw"
    breaks: str = ""  # what a learned kernel cannot say of this world
    adopters: int = number(155, least=2, below=3000)
    periods: int = number(20, least=2)
    start: int = number(11, least=2)  # first treated period, from 1
    effect: float = 2.0
    unit_effect_sd: float = number(4.0, least=0)
    sd: float = number(4.0, above=0)
    spill: float = 0.25  # mean over all counties
    law: str = choice("nearest", "additive", default="nearest")
    within: list[float] = field(default_factory=lambda: [0.0, 40.0])  # beyond the first, not beyond the second
    decay: float = number(0.0, least=0)  # per mile
    cutoff: float = number(100.0, above=0)  # up to which the kernel is learned


@dataclass
class RecoverConfig:
    """Everything that `python -m src.recover` can be told."""

    generator: Any = MISSING
    likelihood: Any = MISSING
    prior: PriorConfig = MISSING
    engine: Any = MISSING  # before the sampler: its `cores` are the ones that are meant
    sampler: SamplerConfig = MISSING
    n: int = number(20, least=1, below=100_001)
    designs: int = number(4, least=1, below=1001)
    models: list[str] = field(default_factory=lambda: ["hier"], metadata={"files": "model"})
    estimators: list[str] = field(
        default_factory=lambda: ["twfe_exposures", "etwfe"], metadata={"each": (*ESTIMATORS, *OF_COUNTIES)}
    )
    seed: int = number(1, least=0, below=SEEDS)
    progress: bool = True
    refit: bool = False


@dataclass
class Replacement:
    """Dictionaries given on the command line: they replace what a preset says (Hydra alone would merge them)."""

    groups: Any = None
    predictors: Any = None
    exposures: Any = None
    derive: Any = None


@dataclass
class Config:
    """Everything that `python -m src.fit` can be told."""

    data: Any = MISSING
    model: Any = MISSING
    likelihood: Any = MISSING
    prior: PriorConfig = MISSING
    sampler: SamplerConfig = MISSING
    engine: Any = MISSING
    seed: int = number(1, least=0, below=SEEDS)
    prob: float = number(0.95, above=0, below=1)
    estimators: list[str] | None = field(default=None, metadata={"each": ESTIMATORS})  # null: those of the likelihood
    figures: bool = True
    progress: bool = True
    refit: bool = False
    replace: Replacement = field(default_factory=Replacement)


@dataclass
class PlaceboConfig(Config):
    """Everything that `python -m src.placebo` can be told: what `src.fit` can, and which placebo."""

    placebo: str = choice("places", "time", default="places")
    n: int = number(50, least=5, below=10_001)
    shift: int = number(2, least=1)


@dataclass
class CalibrateConfig(Config):
    """Everything that `python -m src.calibrate` can be told: what `src.fit` can, and how many simulations."""

    n: int = number(100, least=20, below=100_001)
    around: str = choice("prior", "posterior", default="prior")


@dataclass
class TargetConfig:
    """Everything that `python -m src.target` can be told."""

    run: str | None = None
    slots: int = number(100, least=1)
    horizon: int = number(3, least=0)
    recent: int = number(2, least=1)
    quotas: Any = None  # dictionary: group or column, at most so many of each of its levels
    cost: str | None = None
    budget: float | None = number(None, above=0)
    new_cohort: str = choice("drawn", "average", default="drawn")
    draws: int = number(1000, least=100)
    shuffles: int = number(100, least=10)
    folder: str | None = None
    prob: float = number(0.9, above=0, below=1)
    seed: int = number(1, least=0, below=SEEDS)


@dataclass
class ExportConfig:
    """Everything that `python -m src.export` can be told."""

    run: str | None = None
    format: str = choice("csv", "parquet", "dta", default="csv")
    folder: str | None = None


@dataclass
class LooConfig:
    """Everything that `python -m src.loo` can be told."""

    runs: list[str] = field(default_factory=list)
    draws: int = number(1000, least=100)
    refits: int = number(10, least=0)
    folds: int = number(0, least=0)
    by: str = "unit"
    folder: str | None = None
    seed: int = number(1, least=0, below=SEEDS)


@dataclass
class BenchConfig:
    """Everything that `python -m src.bench` can be told."""

    parts: list[str] = field(default_factory=lambda: list(PARTS), metadata={"each": PARTS})
    firms: list[int] = field(default_factory=lambda: [250, 1000, 4000])
    pooled: list[str] = field(default_factory=lambda: list(SAMPLERS), metadata={"each": SAMPLERS})
    hier: list[str] = field(default_factory=lambda: ["collapsed", "nutpie"], metadata={"each": SAMPLERS[:4]})
    causalpy: list[int] = field(default_factory=lambda: [100])
    budget: float = number(40.0, above=0, below=86_400)
    rows: int = number(1_000_000, least=1000, below=100_000_001)
    streamed: list[int] = field(default_factory=lambda: [1_000_000, 10_000_000])
    adopters: list[int] = field(default_factory=lambda: [65, 130, 260])
    overrides: list[str] = field(default_factory=list)
    counts: int = number(150, least=40, below=10_001)
    repeats: int = number(3, least=1, below=101)
    seed: int = number(1, least=0, below=SEEDS - 101)
    document: str = "docs/benchmarks.md"
    install: bool = False
    refit: bool = False
