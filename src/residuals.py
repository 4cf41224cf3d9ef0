"""What outcomes a Gaussian model would have us see, beside those that were seen; see `src.predictive`.

At a draw of all coefficients, those of periods and covariates too, the model says of the data y and of a replicate

    y - X theta - alpha = e,    y_rep - X theta - alpha = e_rep,    e_rep ~ shocks + AR(1) errors (`src.noise`)

with theta, in the first, a draw from the posterior given y. If the model is right, e has the law of e_rep: to what is
left by the fit, X (theta_hat - theta) gives back what the fit took. Effects of units are flat, so that both are looked
at less their mean within the unit, r_it. The scale of a unit is drawn from its posterior given the rest, w_i ~
E[w_i] chi^2_(nu + p_i) / (nu + p_i) with p_i = rows - 1, the other nuisance parameters are as estimated. With
z_it = r_it (E[w_i] weight_it)^1/2, over the units that ever adopt (`treated`), the others (`control`), or `all`:

    lag1            sum of z_it z_i,t+1 over the product of the roots of their sums of squares: serial correlation
    tails           mean of u_it^4 over (mean of u_it^2)^2, u_it = r_it / s_i: single rows far out
    ratio           log of the SD of r_it of those that adopt over that of the others
    spread          SD over units of log s_i, s_i^2 = sum of r_it^2 / (rows - 1): how unequal scales are
    shared_<group>  mean of z_it z_jt over pairs of units of a level in a period, over the mean of z_it^2: the variance
                    that a group has in common in a year
    before          mean over cohorts and periods before adoption of (sum of z_it)^2 / rows of the cell, over that of
                    z_it^2: whether adopters moved before they adopted; a trend of theirs, or anticipation

Units whose outcome never changes have a typical scale by construction, and are left out of `tails` and `spread`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import xarray as xr

from src import noise
from src.collapse import Collapsed
from src.errors import Errors
from src.panel import Panel, partition
from src.passes import unchanging
from src.predictive import REPLICATES, Check, Statistics, check_of, spaced, stacked
from src.rates import all_coefficients

NUMBERS = 10_000_000  # residuals that are drawn in all: of long panels fewer replicates, as chance averages out
LEAST = 200  # replicates: fewer cannot be surprised
BATCH = 1_000_000  # residuals at a time
FEWEST = 3  # rows of a unit that tell tails, or a correlation: two about their mean are opposite
WORDS = {
    "lag1": "lag-1 correlation within units",
    "tails": "fourth moment within units (3 if Normal)",
    "ratio": "log of the error SD of adopters over that of others",
    "spread": "spread of the log error scales of units",
    "before": "movement of cohorts before adoption",
}
NOTE = (
    "shocks, errors and scales of units drawn anew at draws of the coefficients; the data less what these explain at "
    "the same draws, both less the mean of the unit."
)


@dataclass(frozen=True)
class Frame:
    """What statistics sum over, the same for data and replicates.

    Attributes
    ----------
    of_unit : sparse array, shape (unit, row)
        Indicator.
    rows : array of int, shape (unit,)
    last : array of bool, shape (row,)
        Last row of its unit.
    root : array, shape (row,)
        (E[w_i] weight_it)^1/2.
    kinds : dict of str to array of bool, shape (unit,)
    told : array of bool, shape (unit,)
        Units that tell a scale.
    shared : dict of str to sparse array, shape (cell, row)
        Indicator of the level and period, of each classification.
    before : sparse array, shape (cell, row)
        Indicator of the cohort and period before adoption.
    """

    of_unit: sp.csr_array
    rows: np.ndarray
    last: np.ndarray
    root: np.ndarray
    kinds: dict[str, np.ndarray]
    told: np.ndarray
    shared: dict[str, sp.csr_array]
    before: sp.csr_array

    @classmethod
    def of(cls, collapsed: Collapsed) -> Frame:
        """That of a collapsed regression."""
        panel, nuisance = collapsed.regression.panel, collapsed.nuisance
        rows = np.bincount(panel.unit)
        adopters = collapsed.regression.adopters
        kinds = {name: mine for name, mine in (("treated", adopters), ("control", ~adopters)) if mine.any()}
        width, period = len(panel.periods), np.searchsorted(panel.periods, panel.time)
        early = adopters[panel.unit] & ~panel.treated
        cohort = np.unique(panel.cohort, return_inverse=True)[1][panel.unit]
        every = sp.csr_array(sp.diags_array(early.astype(float)))
        before = sp.csr_array(indicator(cohort * width + period) @ every)
        return cls(
            indicator(panel.unit),
            rows,
            np.r_[panel.unit[1:] != panel.unit[:-1], True],
            np.sqrt(np.exp(-2 * nuisance.log_scale)[panel.unit] * panel.weight),
            kinds,
            ~unchanging(panel) & (rows >= FEWEST),
            {name: indicator(code[panel.unit] * width + period) for name, code in classifications(panel).items()},
            sp.csr_array(before[before.sum(axis=1) > 0]),
        )


def indicator(level: np.ndarray) -> sp.csr_array:
    """Indicator of each distinct level, shape (level, row)."""
    levels, code = np.unique(level, return_inverse=True)
    return sp.csr_array((np.ones(len(level)), (code, np.arange(len(level)))), shape=(len(levels), len(level)))


def classifications(panel: Panel) -> dict[str, np.ndarray]:
    """Level of every unit in what exposures are built on and in groups, each partition once, shape (unit,)."""
    members = {name: of[panel.roster.position] for name, of in panel.roster.members.items()}
    found: dict[bytes, tuple[str, np.ndarray]] = {}
    for name, given in (members | {name: factor.code for name, factor in panel.groups.items()}).items():
        code = np.unique(given, return_inverse=True)[1]
        if 1 < code.max() + 1 < len(code):
            found.setdefault(partition(code), (name, code))
    return dict(found.values())


def check(collapsed: Collapsed, errors: Errors, theta: xr.DataArray, sigma: np.ndarray | None, seed: int) -> Check:
    """Statistics of the data beside those of replicates.

    Parameters
    ----------
    collapsed : Collapsed
        Of a Gaussian outcome whose rows are in memory.
    errors : Errors
    theta : DataArray, dims (chain, draw, column)
        In units of the outcome.
    sigma : array, shape (chain, draw), optional
        Residual SD in units of the outcome; s where not given.
    seed : int
    """
    regression, nuisance = collapsed.regression, collapsed.nuisance
    panel, frame = regression.panel, Frame.of(collapsed)
    replicates = int(np.clip(NUMBERS // regression.rows, LEAST, REPLICATES))
    draws = spaced(theta, replicates)
    sd = np.full(replicates, collapsed.s)
    if sigma is not None:
        flat = sigma.ravel()
        sd = flat[np.linspace(0, len(flat) - 1, replicates).astype(int)]
    coefficients = all_coefficients(collapsed, draws, seed, sd)
    rng = np.random.default_rng([seed, 9])
    free = nuisance.nu + frame.rows - 1
    seen, drawn, step = [], [], max(BATCH // regression.rows, 1)
    for start in range(0, replicates, step):
        some = slice(start, start + step)
        weight = np.exp(-2 * nuisance.log_scale)[:, None]
        if np.isfinite(nuisance.nu):
            weight = weight * rng.chisquare(free[:, None], (len(free), len(sd[some]))) / free[:, None]
        left = panel.outcome[:, None] - regression.matrix @ coefficients[some].T
        seen.append(statistics(left, frame))
        drawn.append(statistics(noise.errors(regression, nuisance, sd[some], weight, rng), frame))
    units = {"all": len(frame.rows)} | {kind: int(mine.sum()) for kind, mine in frame.kinds.items()}
    words = WORDS | {f"shared_{name}": f"correlation of units of one {name} in a period" for name in frame.shared}
    return check_of(
        stacked(drawn),
        stacked(seen),
        units,
        words,
        remedies(errors, list(frame.shared)),
        "Outcomes",
        NOTE,
    )


def statistics(residual: np.ndarray, frame: Frame) -> Statistics:
    """The statistics of residuals, shape (row, draw), by kind and statistic, shape (draw,)."""
    unit = np.repeat(np.arange(len(frame.rows)), frame.rows)
    r = residual - (frame.of_unit @ residual / frame.rows[:, None])[unit]
    square = r**2
    of_unit = frame.of_unit @ square
    z = frame.root[:, None] * r
    z_square = frame.root[:, None] ** 2 * square
    free = np.maximum(frame.rows - 1, 1)[:, None]
    scale = np.sqrt(of_unit / free)
    sums, firsts = frame.of_unit @ z_square, np.r_[True, frame.last[:-1]]
    pairs = frame.of_unit @ np.vstack([z[:-1] * np.where(frame.last[:-1, None], 0.0, z[1:]), 0 * z[:1]])
    lasts = sums - z_square[frame.last]
    nexts = sums - z_square[firsts]
    fourth = frame.of_unit @ square**2
    found: Statistics = {}
    for kind, mine in frame.kinds.items():
        long = mine & (frame.rows >= FEWEST)
        if long.any():
            spread = np.sqrt(lasts[long].sum(axis=0) * nexts[long].sum(axis=0))
            found[kind, "lag1"] = pairs[long].sum(axis=0) / np.where(spread > 0, spread, 1.0)
        told = mine & frame.told
        if told.any():
            rows = frame.rows[told].sum()
            mean = (of_unit[told] / scale[told] ** 2).sum(axis=0) / rows
            found[kind, "tails"] = (fourth[told] / scale[told] ** 4).sum(axis=0) / rows / mean**2
    if len(frame.kinds) > 1:
        variance = [of_unit[mine].sum(axis=0) / free[mine].sum() for mine in frame.kinds.values()]
        found["all", "ratio"] = 0.5 * np.log(variance[0] / variance[1])
    if frame.told.sum() > 1:
        found["all", "spread"] = np.log(scale[frame.told]).std(axis=0, ddof=1)
    mean = sums.sum(axis=0) / len(unit)
    for name, cells in frame.shared.items():
        size = cells.sum(axis=1)
        products = ((cells @ z) ** 2).sum(axis=0) - sums.sum(axis=0)
        found["all", f"shared_{name}"] = products / max((size * (size - 1)).sum(), 1.0) / mean
    if frame.before.shape[0]:
        size = frame.before.sum(axis=1)[:, None]
        adopters = frame.kinds["treated"] if "treated" in frame.kinds else np.ones(len(frame.rows), dtype=bool)
        of_adopters = sums[adopters].sum(axis=0) / frame.rows[adopters].sum()
        found["treated", "before"] = ((frame.before @ z) ** 2 / size).mean(axis=0) / of_adopters
    return found


def remedies(errors: Errors, groups: list[str]) -> dict[tuple[str, bool], str]:
    """What can be done about a surprise, by statistic and whether the data lie above; given what errors may do."""
    serial = "dependence that no AR(1) has, as trends of units' own: trust late event times less, and look at leads"
    unequal = "intervals are off; likelihood.scale=unit"
    if errors.scale == "unit":
        unequal = "scales are of another kind than the model has; compare with data.transform"
    found = {
        ("lag1", True): serial if errors.serial == "ar1" else "intervals are too narrow; likelihood.serial=ar1",
        ("ratio", True): unequal,
        ("ratio", False): unequal,
        ("spread", True): unequal,
        ("tails", True): "few rows carry much; look for errors in the data, or compare with data.transform=asinh",
        ("before", True): "anticipation, or trends that are not parallel; look at leads (figures/sensitivity.png)",
    }
    for name in groups:
        listed = f"likelihood.shocks=[{', '.join(dict.fromkeys([*errors.shocks, name]))}]"
        more = "members move together more, or longer, than the shocks allow; compare with data.fixed_effects"
        found[f"shared_{name}", True] = more if name in errors.shocks else f"intervals may be too narrow; '{listed}'"
    return found
