"""Settings: one dataclass a group, so that a typo dies before anything is read.

Only the commands (`src.fit` and its sisters) see a `Config`; everything below receives plain arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def choice(*options: str, default: str = MISSING) -> Any:
    """A field that takes one of a few words."""
    return field(default=default, metadata={"options": options})


def number(default: Any, above: float | None = None, least: float | None = None, below: float | None = None) -> Any:
    """A field with bounds: value > above, >= least, < below."""
    return field(default=default, metadata={"above": above, "least": least, "below": below})


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
    exposures: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    weigh_exposures: bool = False
    membership: str = choice("error", "first", "before", default="error")


@dataclass
class SyntheticConfig(DataConfig):
    """The synthetic panel: its world and how much of it."""

    parameters: str = MISSING
    seed: int = number(0, least=0)
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


@dataclass
class GaussianConfig:
    """Gaussian errors, unit effects integrated out."""

    name: str = "gaussian"


@dataclass
class PriorConfig:
    """Scales in units of s, the residual SD of the saturated fit; see models.inputs.Priors."""

    name: str = MISSING
    mu: float = number(MISSING, above=0)
    sd: float = number(MISSING, above=0)
    fixed: float = number(MISSING, above=0)
    min_levels: int = number(MISSING, least=2)
    path: float = number(MISSING, above=0)
    predictor: float = number(MISSING, above=0)
    exposure: float = number(MISSING, above=0)
    difference: float = number(MISSING, above=0)
    cell: float = number(MISSING, above=0)
    sigma: float = number(MISSING, above=0)


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


@dataclass
class Replacement:
    """Dictionaries given on the command line: they replace what a preset says (Hydra alone would merge them)."""

    groups: Any = None
    predictors: Any = None
    exposures: Any = None


@dataclass
class Config:
    """Everything that `python -m src.fit` can be told."""

    data: Any = MISSING
    model: Any = MISSING
    likelihood: Any = MISSING
    prior: PriorConfig = MISSING
    sampler: SamplerConfig = MISSING
    seed: int = number(1, least=0)
    prob: float = number(0.95, above=0, below=1)
    estimators: list[str] = field(default_factory=lambda: ["twfe", "twfe_exposures", "etwfe"])
    figures: bool = True
    progress: bool = True
    refit: bool = False
    replace: Replacement = field(default_factory=Replacement)
