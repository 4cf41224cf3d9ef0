"""What counts the model would have us see, beside those that were counted; see `src.predictive`.

    y_i | n_i ~ Multinomial(n_i, p_i),    p_it proportional to exp(f_it + u_kt + v_ct + z_it) over the rows of unit i
    z_i ~ Normal(0, omega_i R(rho))       omega_i from its posterior, z and shocks drawn anew

n_i is the unit's own total. The flat prior on a_i makes the likelihood that of the counts given n_i, so replicates keep
it: what is checked is how a unit's events spread over its periods, which is all that the effects are read from. Units
without any event say nothing, and are left out of data and replicates alike.

With y_i. the unit's mean and r_it = (y_it - y_i.) / sqrt(y_i.), over the units that ever adopt (`treated`) and the
others (`control`):

    zeros         share of rows without an event
    dispersion    sum of r_it^2 / sum over units of (rows - 1): variance to mean within units, 1 for pure Poisson
    maximum       largest count
    lag1          correlation of r_it with that of the unit's next row
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from src.collapse import Collapsed
from src.noise import disturbance, picked, shocks
from src.predictive import KINDS, REPLICATES, Check, Statistics, check_of, spaced, stacked
from src.rates import all_coefficients
from src.sites import Counts

WORDS = {
    "zeros": "share of zeros",
    "dispersion": "variance to mean within units",
    "maximum": "largest count",
    "lag1": "lag-1 correlation within units",
}
NOTE = (
    "every unit with its own total, spread over its periods as the model has it. Units without any event are left out."
)


def check(collapsed: Collapsed, theta: xr.DataArray, seed: int) -> Check:
    """Statistics of the data beside those of replicates.

    Parameters
    ----------
    collapsed : Collapsed
        Of counts.
    theta : DataArray, dims (chain, draw, column)
        In log points.
    seed : int
    """
    panel = collapsed.regression.panel
    counts = Counts.of(panel.outcome, panel.unit, panel.time)
    ever = collapsed.regression.adopters[counts.unit]
    kinds = {name: mine for name, mine in zip(KINDS, (ever, ~ever), strict=False) if mine.any()}
    draw = replicator(collapsed, counts, theta, seed)
    drawn = stacked([of_kinds(draw(r), counts, kinds) for r in range(REPLICATES)])
    seen = {name: np.repeat(value, REPLICATES) for name, value in of_kinds(counts.count, counts, kinds).items()}
    units = {kind: int(mine.sum()) for kind, mine in kinds.items()}
    return check_of(drawn, seen, units, WORDS, {}, "Counts", NOTE)


def replicator(collapsed: Collapsed, counts: Counts, theta: xr.DataArray, seed: int) -> Callable[[int], np.ndarray]:
    """A function that draws the r-th replicate of the counts, shape (slot, unit), from a draw of the posterior."""
    regression, nuisance, levels = collapsed.regression, collapsed.nuisance, collapsed.levels
    assert levels is not None
    coefficients = all_coefficients(collapsed, spaced(theta, REPLICATES), seed)
    rng = np.random.default_rng([seed, 9])
    share = levels.share[counts.unit]
    total = counts.count.sum(axis=0).astype(np.int64)
    step = counts.padded(np.r_[0, np.diff(regression.panel.time)])[1:]

    def draw(r: int) -> np.ndarray:
        felt = regression.matrix @ coefficients[r] + regression.panel.log_offset
        for shock in nuisance.shocks.values():
            felt += collapsed.s * shocks(regression.panel, shock, 1, rng)[:, 0]
        omega = levels.omega[picked(share, rng)]
        power = counts.padded(felt) + np.sqrt(omega) * disturbance(step, nuisance.rho, rng)
        chance = np.exp(power - power.max(axis=0)) * counts.real
        # the last category takes what rounding leaves over: the first slot, in which every unit has a row
        found = rng.multinomial(total, (chance / chance.sum(axis=0))[::-1].T)
        return found.T[::-1].astype(float)

    return draw


def of_kinds(count: np.ndarray, counts: Counts, kinds: dict[str, np.ndarray]) -> Statistics:
    """The statistics of counts, shape (slot, unit), of each kind of units, by kind and statistic."""
    return {
        (kind, name): np.array([value])
        for kind, mine in kinds.items()
        for name, value in statistics(count[:, mine], counts.real[:, mine]).items()
    }


def statistics(count: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The statistics of counts, shape (slot, unit), where there is a row."""
    mean = count.sum(axis=0) / real.sum(axis=0)
    deviation = np.where(real, (count - mean) / np.sqrt(mean), 0.0)
    here, ahead = deviation[:-1] * real[1:], deviation[1:]
    spread = np.sqrt((here**2).sum() * (ahead**2).sum())
    return {
        "zeros": float((count[real] == 0).mean()),
        "dispersion": float((deviation**2).sum() / max(real.sum() - real.shape[1], 1)),
        "maximum": float(count.max()),
        "lag1": float((here * ahead).sum() / spread) if spread > 0 else 0.0,
    }
