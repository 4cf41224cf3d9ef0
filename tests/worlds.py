"""Small panels whose truth or structure is known, shared by the tests."""

import numpy as np
from omegaconf import OmegaConf

from models.inputs import Priors
from src.config import SyntheticConfig
from src.panel import Factor, Mapping, Panel, Roster, Truth
from src.trace import ROOT

WEAK = Priors(
    mu=10,
    sd=0.5,
    fixed=2,
    min_levels=5,
    path=1,
    predictor=1,
    exposure=5,
    difference=1,
    ring=0.2,
    cell=100.0,
    lead=2.0,
    sigma=1,
)


def synthetic_config(**changes) -> SyntheticConfig:
    """The preset conf/data/synthetic.yaml as a dataclass."""
    preset = OmegaConf.load(ROOT / "conf" / "data" / "synthetic.yaml")
    del preset["defaults"]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SyntheticConfig), preset, changes))


def panel_of(
    unit, time, cohort, outcome, groups=None, members=None, weight=None, covariates=None, tau=None, is_log=True
) -> Panel:
    """A Panel from plain arrays: `cohort` and the codes in `groups` and `members` have one entry a unit."""
    unit, time = np.asarray(unit), np.asarray(time)
    units = len(cohort)
    factors = {}
    for name, code in (groups or {}).items():
        labels, position = np.unique(np.asarray(code).astype(str), return_inverse=True)
        factors[name] = Factor(name, tuple(labels.tolist()), position)
    no_slope = dict.fromkeys(members or {}, 0.0)
    covariates = np.zeros((len(unit), 0)) if covariates is None else np.asarray(covariates, dtype=float)
    return Panel(
        name="world",
        unit=unit,
        time=time,
        outcome=np.asarray(outcome, dtype=float),
        weight=np.ones(len(unit)) if weight is None else np.asarray(weight, dtype=float),
        covariates=covariates,
        covariate_names=tuple(f"x{j}" for j in range(covariates.shape[1])),
        units=np.array([f"u{i:04d}" for i in range(units)]),
        cohort=np.asarray(cohort, dtype=float),
        groups=factors,
        predictors={},
        roster=Roster(
            np.asarray(cohort, dtype=float),
            {name: Mapping(np.asarray(code)) for name, code in (members or {}).items()},
            np.arange(units),
        ),
        is_log=is_log,
        sha256="0",
        truth=None if tau is None else Truth(np.asarray(tau, dtype=float), no_slope, no_slope),
    )


def staggered(units=60, periods=8, seed=0, missing=0.2, groups=True, exposed=True, effect=0.6) -> Panel:
    """Unbalanced iid panel: two covariates, cohorts 3, 5 and 7 of periods 1..T, effect that ramps up."""
    rng = np.random.default_rng(seed)
    cohort = rng.choice([3, 5, 7, np.inf], units, p=[0.15, 0.15, 0.15, 0.55])
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    keep = (rng.random(len(unit)) > missing) | (time <= 2)
    unit, time = unit[keep], time[keep]
    treated = time >= cohort[unit]
    covariates = rng.normal(size=(len(unit), 2))
    tau = np.where(treated, effect * (1 - 0.5 ** np.maximum(time - cohort[unit] + 1, 0)), 0.0)
    outcome = 3 + rng.normal(size=units)[unit] + 0.1 * time + covariates @ [0.4, -0.2] + tau
    outcome = outcome + 0.5 * rng.normal(size=len(unit))
    sector, owner, place = rng.integers(0, 7, units), rng.integers(0, 2, units), rng.integers(0, 5, units)
    return panel_of(
        unit,
        time,
        cohort,
        outcome,
        groups={"industry": [f"C{k}" for k in sector], "ownership": owner} if groups else {},
        members={"county": place, "industry": sector} if exposed else {},
        covariates=covariates,
        tau=tau,
    )
