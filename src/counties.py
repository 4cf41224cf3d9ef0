"""Worlds of spillovers between places: the counties of the United States, some of which adopt on one date.

    y_it = alpha_i + lambda_t + effect D_it + (1 - D_it) spill_it + eps_it,    eps_it ~ Normal(0, sd^2) independent
    spill_it = c max_j k(d_ij)  or  c sum_j k(d_ij)   over adopters j,         k(d) = exp(-decay d) 1{near < d <= far}

with c such that spill is `spill` on average over all counties; adopters receive nothing. Distances are great circles
between centroids, in miles. Because the panel is balanced and there is one date, two-way fixed effects are a regression
of the change in a county's mean, which is how the estimators below run:

    oracle           the true spill as a regressor
    near_rings       indicators that the nearest adopter is in a ring
    additive_rings   the number of adopters in every ring

Source: Butts (2021, *Difference-in-Differences Estimation with Spatial Spillovers*), whose simulation this is, with
centroids from the shapes in `plotly_geo`.
"""

from __future__ import annotations

import warnings
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from src.config import CountiesConfig, DataConfig, ExposureConfig
from src.contiguity import counties
from src.coverage import EXPLAINED
from src.encode import Known, encode
from src.estimators import Estimator
from src.frequentist import COLUMNS
from src.panel import Panel, PanelError
from src.synthetic import sha256_of
from src.ties import kilometres, on_sphere

KILOMETRES = 1.609344  # in a mile
FIRST = 2000  # first period
RINGS = (0, 20, 30, 40, 60, 80)  # miles


@cache
def centroids() -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of every county, in degrees, in the order of their FIPS codes."""
    places = counties()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Geometry is in a geographic CRS")  # near enough at this size
        centre = places.geometry.centroid
    return centre.y.to_numpy(), centre.x.to_numpy()


@cache
def miles() -> np.ndarray:
    """Distances of all counties, shape (county, county)."""
    points = on_sphere(*centroids())
    apart = np.sqrt(np.maximum(2 - 2 * points @ points.T, 0))
    return kilometres(apart) / KILOMETRES


def miles_to(adopters: np.ndarray) -> np.ndarray:
    """Miles from every county to every adopter, shape (county, adopter); inf from an adopter to itself."""
    apart = miles()[:, adopters]
    apart[adopters, np.arange(len(adopters))] = np.inf
    return apart


def draw(world: CountiesConfig, design_seed: int, outcome_seed: int) -> Panel:
    """One panel of a world, encoded as a user's file would be, with its truth.

    Parameters
    ----------
    world : CountiesConfig
    design_seed, outcome_seed : int
        The first says who adopts.

    Raises
    ------
    PanelError
        A world that cannot be.
    """
    check_world(world)
    latitude, longitude = centroids()
    units, periods = len(latitude), world.periods
    adopters = np.random.default_rng([design_seed, 1]).choice(units, world.adopters, replace=False)
    spill = spillover(world, adopters)
    rng = np.random.default_rng([outcome_seed, 2])
    alpha = world.unit_effect_sd * rng.standard_normal(units)
    outcome = alpha[:, None] + rng.standard_normal(periods) + world.sd * rng.standard_normal((units, periods))
    after = np.arange(1, periods + 1) >= world.start
    adopts = np.isin(np.arange(units), adopters)
    outcome += after * (world.effect * adopts + spill * ~adopts)[:, None]
    rows = pd.DataFrame(
        {
            "county": np.repeat(np.arange(units), periods),
            "year": np.tile(FIRST + np.arange(1, periods + 1), units),
            "first": np.repeat(np.where(adopts, FIRST + world.start, np.nan), periods),
            "latitude": np.repeat(latitude, periods),
            "longitude": np.repeat(longitude, periods),
            "y": outcome.ravel(),
            "tau": world.effect,
            "spill": (spill[:, None] * after).ravel(),
        }
    )
    near = ExposureConfig(
        kernel="learned", latitude="latitude", longitude="longitude", cutoff=world.cutoff * KILOMETRES
    )
    data = DataConfig(
        name=world.name, unit="county", time="year", cohort="first", outcome="y", exposures={"near": near}
    )
    return encode(rows, data, sha256_of(rows), Known("tau", spill="spill"))


def check_world(world: CountiesConfig) -> None:
    """Refuse numbers that do not go together.

    Raises
    ------
    PanelError
    """
    if not 2 <= world.start <= world.periods:
        raise PanelError(f"generator.start={world.start} is to be a period from 2 to {world.periods}")
    if len(world.within) != 2 or not 0 <= world.within[0] < world.within[1]:
        raise PanelError(f"generator.within={world.within} is to be two distances in miles, as in [0, 40]")


def spillover(world: CountiesConfig, adopters: np.ndarray) -> np.ndarray:
    """What every county would receive as an untreated one, shape (county,); zero on adopters' own account."""
    near, far = world.within
    apart = miles_to(adopters)
    inside = (apart > near) & (apart <= far)
    kernel = inside * np.exp(-world.decay * np.where(inside, apart, 0.0))
    felt = kernel.max(axis=1) if world.law == "nearest" else kernel.sum(axis=1)
    untreated = felt.copy()
    untreated[adopters] = 0.0
    return world.spill * felt / untreated.mean()


def explained(fitted: np.ndarray, panel: Panel) -> float:
    """1 - var(fitted - true) / var(true) over untreated rows from the first adoption on.

    Parameters
    ----------
    fitted : array, shape (row,)
        Spillover on the rows.
    panel : Panel
        With the truth of its spillover.
    """
    assert panel.truth is not None
    assert panel.truth.spill is not None
    rows = ~panel.treated & (panel.time >= panel.cohort.min())
    true = panel.truth.spill[rows]
    return float(1 - np.var(fitted[rows] - true) / np.var(true))


def oracle(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-way fixed effects that are told the true spillover."""
    assert panel.truth is not None
    assert panel.truth.spill is not None
    return regression(panel, "oracle", panel.truth.spill[panel.time == panel.periods[-1], None], prob)


def near_rings(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-way fixed effects with an indicator for every ring that the nearest adopter may be in."""
    nearest = to_adopters(panel).min(axis=1)
    inside = [(nearest > near) & (nearest <= far) for near, far in pairwise(RINGS)]
    return regression(panel, "near_rings", np.column_stack(inside), prob)


def additive_rings(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-way fixed effects with the number of adopters in every ring."""
    apart = to_adopters(panel)
    number = [((apart > near) & (apart <= far)).sum(axis=1) for near, far in pairwise(RINGS)]
    return regression(panel, "additive_rings", np.column_stack(number), prob)


ESTIMATORS: dict[str, Estimator] = {"oracle": oracle, "near_rings": near_rings, "additive_rings": additive_rings}


def to_adopters(panel: Panel) -> np.ndarray:
    """`miles_to` in the order of the panel's units, shape (unit, adopter)."""
    position = panel.units.astype(int)
    return miles_to(position[np.isfinite(panel.cohort)])[position]


def regression(panel: Panel, name: str, spill: np.ndarray, prob: float) -> pd.DataFrame:
    """Change of a county's mean on adoption and on what it receives; standard errors as of HC1.

    Parameters
    ----------
    panel : Panel
        Balanced, one date of adoption.
    name : str
    spill : array, shape (unit, column)
        What untreated counties may receive.
    prob : float

    Returns
    -------
    DataFrame
        Columns of `src.frequentist.COLUMNS`: att, and `explained`, the share of the true spillover that is explained.
    """
    adopts = np.isfinite(panel.cohort)
    after = panel.time >= panel.cohort.min()
    mean = [
        np.bincount(panel.unit[rows], panel.outcome[rows]) / np.bincount(panel.unit[rows]) for rows in (after, ~after)
    ]
    received = spill * ~adopts[:, None]
    x = np.column_stack([np.ones(len(adopts)), adopts, received])
    bread = np.linalg.pinv(x.T @ x)
    coefficients = bread @ x.T @ (mean[0] - mean[1])
    residual = mean[0] - mean[1] - x @ coefficients
    meat = (x * residual[:, None]).T @ (x * residual[:, None]) * len(x) / (len(x) - x.shape[1])
    se = float(np.sqrt((bread @ meat @ bread)[1, 1]))
    reach = stdtrit(len(x) - 1, (1 + prob) / 2) * se
    att = float(coefficients[1])
    share = explained((received @ coefficients[2:])[panel.unit], panel)
    blank = {"group": None, "level": None, "scale": "outcome", "estimator": name, "prob": prob, "note": ""}
    n_obs = int(panel.treated.sum())
    rows = [
        {"estimand": "att", "estimate": att, "se": se, "low": att - reach, "high": att + reach, "n_obs": n_obs} | blank,
        {"estimand": EXPLAINED, "estimate": share, "n_obs": n_obs} | blank,
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
