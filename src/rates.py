"""Effects on counts: in events, in proportion to the events that there would be without any adoption, and in margins.

    m_it = alpha_i E[exp(z_it + shocks)] exp(lambda_t + x_it'beta) offset_it        expected count, nobody adopts
    percent = 100 sum over rows m_it (exp(high_it) - exp(low_it)) / sum over rows m_it
    outcome = sum over rows m_it (exp(high_it) - exp(low_it)) / number of rows      events a unit and period
    log     = mean over rows (high_it - low_it)                                     the row average, in log points

with, in the terms of `src.estimand`,

    att, att_by, att_event, att_cohort, att_gt, direct      high = tau                       low = 0
    total_treated, spill_control, overall                   high = tau + S'delta             low = 0
    spill_treated                                           high = tau + S'delta_treated     low = tau
    switching                                               high = tau + S'delta_treated     low = S'delta_control

so that total_treated = direct + spill_treated draw by draw, in events and in percent. Large units count for more than
small ones, unlike in `log`: a note says how many of equal size a number is worth. A unit without any event has
alpha_i = 0: it is in the number of rows, and adds nothing to either sum.

`total_events` is outcome times the number of rows. Own adoption moves whether there is any event, and how many there
are where there is any. With p(m, V) the probability that a count is not zero if the logarithm of its mean has variance
V about log m - V / 2, and P_d = sum over treated rows of p(m_it exp(d tau_it), V_it),

    att_any         outcome: (P_1 - P_0) / rows               percent: 100 (P_1 / P_0 - 1)
    att_given_any   outcome: M_1 / P_1 - M_0 / P_0            percent: 100 ((M_1 / P_1) / (M_0 / P_0) - 1)

with M_d the sum of m_it exp(d tau_it), so that in percent (1 + att) = (1 + att_any) (1 + att_given_any) draw by draw.
A unit's level is known from its own few events, and p is concave in it: with q_it the share of the row in what f
expects of the unit, m_it / (1 - q_it) in the place of m_it makes p right on average, because for Poisson counts of
total n with alpha_i ~ Gamma(n) the probability of none becomes (1 - q_it)^n.

A part of a count is expected to have m_it times the share that is of its kind,

    m_it exp(tau_it) E[1 / (1 + exp(-(a_i + lambda_t + x_it'beta + phi_it + z_it + shocks)))]

with what is felt, tau and phi, as above in either. What it has grown by in logarithms is no linear map of coefficients
then: the row average is that of the logarithm of the share with over that without, beside that of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import xarray as xr

from models.inputs import BY
from src.average import ENDS, FIXED, MARGINS, OWN, Average
from src.chance import MOST_LOG, Probabilities, any_event, of_kind
from src.collapse import Collapsed
from src.design import NUISANCE, Regression
from src.estimand import Scale, Scales, percent
from src.kernel import BLOCKS
from src.levels import Levels
from src.tally import own_map, placed

CHUNK = 8_000_000  # numbers at a time
STRIDE = 1_000_000  # between the seeds of factors
MOST_SHARE = 0.9  # of one row in its unit
SLOPES = ("spill_per_pp", "spill_by", "spill_at", "lead")  # ratios of means by themselves
BY_GROUP = {"att": "", "att_event": "event_time", "att_cohort": "cohort"}  # group of the companions of an estimand
SUMMED = ("total_treated", "spill_treated", "spill_control", "overall")  # also as totals, under their own names


@dataclass(frozen=True)
class Felt:
    """Log points that each row feels, as linear maps of the coefficients, sparse of shape (row, column).

    Attributes
    ----------
    own : sparse array
        tau at zero exposure, on treated rows.
    others : sparse array
        S'delta_control.
    more : sparse array
        S'difference, on treated rows.
    """

    own: sp.csr_array
    others: sp.csr_array
    more: sp.csr_array

    @classmethod
    def of(cls, regression: Regression) -> Felt:
        """Those of a regression."""
        design, treated = regression.design, regression.panel.treated.astype(float)
        of_others = [name for name in design.blocks if name in ("exposure", *BLOCKS) or name.startswith(BY)]
        is_other = np.isin(np.arange(design.size), positions(regression, of_others)).astype(float)
        others = sp.csr_array(regression.matrix @ sp.diags_array(is_other))
        more = sp.csr_array(others.shape)
        if "difference" in design.blocks:
            share = treated[:, None] * regression.shares / regression.exposure_sd
            more = placed(share, design.blocks["difference"].columns, design.size)
        return cls(own_map(regression, np.arange(len(treated))), others, more)


def positions(regression: Regression, names: list[str]) -> np.ndarray:
    """Columns of the named blocks."""
    return regression.design.columns(tuple(names)) if names else np.zeros(0, dtype=int)


def count_scales(factor: Factor, found: list[Average], draws: np.ndarray, seed: int) -> Scales:
    """Draws, truths and notes of every estimand by scale: events, percent, and row averages in log points.

    Parameters
    ----------
    factor : Factor
    found : list of Average
    draws : array, shape (chain, draw, estimand)
        Row averages.
    seed : int
        Of the draws of levels, periods and covariates.
    """
    ((sums, carried),) = drawn_sums([factor], found, seed)
    return scales_of(sums, true_sums(factor.collapsed.regression, found), carried, found, draws)


def scales_of(sums: Sums, true: Sums, carried: list[str], found: list[Average], draws: np.ndarray) -> Scales:
    """The estimands whose sums are drawn, and known, by scale; `found` and `draws` as of `count_scales`."""
    truth = np.array([average.truth for average in found])
    margins = not np.isnan(sums.most).all()
    scales = on_scales(sums, found, draws.reshape(-1, len(found)), margins)
    known = on_scales(true, found, truth[None], margins)
    alone = "no number of events: a ratio by itself"
    of_events = [alone if average.estimand in SLOPES else c for average, c in zip(found, carried, strict=True)]
    said = {"outcome": of_events, "percent": carried}
    together = {}
    for name, (averages, values) in scales.items():
        silent = [not average.identified for average in averages]
        values[:, silent] = np.nan
        companions = [""] * (len(averages) - len(found))
        together[name] = Scale(
            averages, values.reshape(*draws.shape[:2], len(averages)), known[name][1][0], said[name] + companions
        )
    return together | {"log": Scale(found, draws, truth, [""] * len(found))}


@dataclass(frozen=True)
class Factor:
    """What an expected count is a product of: of a part of a count the whole, then the share of the part.

    Attributes
    ----------
    collapsed : Collapsed
    theta : DataArray, dims (chain, draw, column)
        In log points.
    """

    collapsed: Collapsed
    theta: xr.DataArray


@dataclass(frozen=True)
class Sums:
    """Sums over the rows of every estimand, shape (draw, estimand); NaN where nothing is summed.

    Attributes
    ----------
    base, start, gain : array
        Of m_it, of m_it exp(low), and of m_it (exp(high) - exp(low)).
    least, most : array
        Of the probabilities of any event without and with own adoption; of estimands of own adoption alone, and of the
        whole.
    grown : array
        Of the logarithm of what the share of a part has grown by, divided by `size`.
    size : array, shape (estimand,)
        Weighted number of rows.
    """

    base: np.ndarray
    start: np.ndarray
    gain: np.ndarray
    least: np.ndarray
    most: np.ndarray
    grown: np.ndarray
    size: np.ndarray

    @classmethod
    def empty(cls, draws: int, estimands: int) -> Sums:
        """To be filled in."""
        base, start, gain, least, most, grown = np.full((6, draws, estimands), np.nan)
        return cls(base, start, gain, least, most, grown, np.full(estimands, np.nan))


def on_scales(
    sums: Sums, found: list[Average], log: np.ndarray, margins: bool
) -> dict[str, tuple[list[Average], np.ndarray]]:
    """The estimands in events and in percent, and their values, shape (draw, estimand).

    `log`, of that shape, has row averages in log points: what slopes of exposures and leads are in percent. With
    `margins` also whether there is any event, and how many where there is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = sums.base / sums.least, (sums.base + sums.gain) / sums.most
        rates = {
            "outcome": sums.gain / sums.size,
            "percent": 100 * np.where(sums.base > 0, sums.gain / sums.base, np.nan),
        }
        companions = {
            "outcome": {
                "total_events": sums.gain,
                "att_any": (sums.most - sums.least) / sums.size,
                "att_given_any": after - before,
            },
            "percent": {
                "att_any": 100 * (sums.most / sums.least - 1),
                "att_given_any": 100 * (after / before - 1),
            },
        }
    slopes = [average.estimand in SLOPES for average in found]
    rates["percent"][:, slopes] = percent(log[:, slopes])
    scales = {}
    for name, values in rates.items():
        contrasts(values, found, name == "percent")
        averages, columns = list(found), [values]
        for estimand, of_companion in companions[name].items():
            if estimand in MARGINS and not margins:
                continue
            mine = companions_of(found, estimand)
            averages += list(mine.values())
            columns.append(of_companion[:, list(mine)])
        scales[name] = averages, np.hstack(columns)
    return scales


def companions_of(found: list[Average], estimand: str) -> dict[int, Average]:
    """A total or a margin beside those of `found` that have one, by their position."""
    companions = {}
    for k, average in enumerate(found):
        group = BY_GROUP.get(average.estimand, average.group if average.estimand == "att_by" else None)
        if estimand == "total_events" and average.estimand in SUMMED:
            group = average.estimand
        if group is not None and ":" not in group:
            note = "" if average.note.startswith(FIXED) else average.note
            companions[k] = replace(average, estimand=estimand, group=group, note=note)
    return companions


@dataclass(frozen=True)
class Plan:
    """Estimands that compare the same two worlds.

    Attributes
    ----------
    mine : list of int
        Their positions among all estimands.
    rows : array of int, shape (row,)
        Rows of the panel that any of them sums over.
    into : sparse array, shape (estimand, row)
        Weight of each row in each sum.
    high, low : sparse array, shape (row, column)
        What is felt in the two worlds.
    own : bool
        Own adoption alone is compared with none.
    """

    mine: list[int]
    rows: np.ndarray
    into: sp.csr_array
    high: sp.csr_array
    low: sp.csr_array
    own: bool


def plans_of(regression: Regression, found: list[Average]) -> list[Plan]:
    """The estimands that sum over rows, by the worlds that they compare."""
    felt, weight = Felt.of(regression), regression.panel.weight
    worlds = {
        "none": sp.csr_array(felt.own.shape),
        "own": felt.own,
        "others": felt.others,
        "all": felt.own + felt.others + felt.more,
    }
    plans = []
    for high, low in dict.fromkeys(ENDS.values()):
        mine = [k for k, average in enumerate(found) if len(average.rows) and ENDS[average.estimand] == (high, low)]
        if mine:
            each = [found[k].rows for k in mine]
            rows, place = np.unique(np.concatenate(each), return_inverse=True)
            sums = np.repeat(np.arange(len(mine)), [len(part) for part in each])
            into = sp.csr_array((weight[np.concatenate(each)], (sums, place)), shape=(len(mine), len(rows)))
            plans.append(Plan(mine, rows, into, worlds[high][rows], worlds[low][rows], (high, low) == ENDS["att"]))
    return plans


@dataclass(frozen=True)
class Drawn:
    """Draws of what a factor is made of.

    Attributes
    ----------
    regression : Regression
    levels : Levels
    known : array, shape (draw, column)
        Coefficients of all columns.
    shared : float
        Variance of the shocks.
    plans : list of Plan
    is_share : bool
    table : Probabilities
        That an event is of a kind, of a share, or that there is any.
    rng : Generator
        For levels.
    """

    regression: Regression
    levels: Levels
    known: np.ndarray
    shared: float
    plans: list[Plan]
    is_share: bool
    table: Probabilities
    rng: np.random.Generator

    @classmethod
    def of(cls, factor: Factor, found: list[Average], seed: int) -> Drawn:
        """Of a factor."""
        collapsed, regression = factor.collapsed, factor.collapsed.regression
        levels = collapsed.levels
        assert levels is not None
        known = all_coefficients(collapsed, factor.theta.transpose("chain", "draw", "column"), seed)
        shared = float(sum((shock.sd * collapsed.s) ** 2 for shock in collapsed.nuisance.shocks.values()))
        is_share = regression.panel.whole is not None
        table = Probabilities.of(of_kind if is_share else any_event, levels.omega + shared)
        plans, rng = plans_of(regression, found), np.random.default_rng([seed, 7])
        return cls(regression, levels, known, shared, plans, is_share, table, rng)

    def expected(self, felt: np.ndarray, omega: np.ndarray) -> np.ndarray:
        """The factor, shape (draw, row), where `felt` is all but disturbance and shocks, of variance number `omega`."""
        if self.is_share:
            return self.table.at(felt, omega)
        return np.exp(np.minimum(felt + (self.levels.omega[omega] + self.shared) / 2, MOST_LOG))


def drawn_sums(factors: Sequence[Factor], found: list[Average], seed: int) -> list[tuple[Sums, list[str]]]:
    """Draws of the sums of every estimand, and what carries each of them: of the first factor, then times the next.

    Parameters
    ----------
    factors : sequence of Factor
    found, seed
        As of `count_scales`.
    """
    drawn = [Drawn.of(factor, found, seed + STRIDE * k) for k, factor in enumerate(factors)]
    panel, plans, draws = drawn[0].regression.panel, drawn[0].plans, len(drawn[0].known)
    each = [Sums.empty(draws, len(found)) for _ in drawn]
    totals = [[np.zeros(len(plan.rows)) for plan in plans] for _ in drawn]
    step = max(CHUNK // len(panel.unit), 1)
    for start in range(0, draws, step):
        some = slice(start, start + step)
        levels = [unit_levels(one.regression, one.levels, one.known[some], one.rng) for one in drawn]
        for k, plan in enumerate(plans):
            unit = panel.unit[plan.rows]
            base, before, after = np.ones((3, len(levels[0][0]), len(plan.rows)))
            for one, sums, total, (log_level, chosen) in zip(drawn, each, totals, levels, strict=True):
                mine, known, omega = one.plans[k], one.known[some], chosen[:, unit]
                untreated = plain(one.regression, known, mine.rows) + log_level[:, unit]
                high, low = (np.minimum((world @ known.T).T, MOST_LOG) for world in (mine.high, mine.low))
                without, most = (one.expected(untreated + felt, omega) for felt in (0.0, high))
                least = one.expected(untreated + low, omega) if mine.low.nnz else without
                base, before, after = base * without, before * least, after * most
                sums.base[some, plan.mine] = (plan.into @ base.T).T
                sums.start[some, plan.mine] = (plan.into @ before.T).T
                sums.gain[some, plan.mine] = (plan.into @ (after - before).T).T
                total[k] += base.sum(axis=0)
                if one.is_share:
                    sums.grown[some, plan.mine] = (plan.into @ np.log(most / least).T).T
                elif plan.own:
                    lonely = untreated - np.log1p(-share_of_unit(one.regression, known, plan.rows))
                    for into, felt in ((sums.least, low), (sums.most, high)):
                        into[some, plan.mine] = (plan.into @ one.table.at(lonely + felt, omega).T).T
    for sums in each:
        for plan in plans:
            sums.size[plan.mine] = plan.into.sum(axis=1)
            sums.grown[:, plan.mine] /= sums.size[plan.mine]
    return [(sums, carriers(plans, total, panel.unit, len(found))) for sums, total in zip(each, totals, strict=True)]


def carriers(plans: list[Plan], total: list[np.ndarray], unit: np.ndarray, estimands: int) -> list[str]:
    """What carries each estimand; `total` has the expected counts of the rows of each plan."""
    carried = [""] * estimands
    for plan, mean in zip(plans, total, strict=True):
        units, of_row = np.unique(unit[plan.rows], return_inverse=True)
        into_units = sp.csr_array((mean, (np.arange(len(mean)), of_row)), shape=(len(mean), len(units)))
        of_units = sp.csr_array(plan.into @ into_units)
        for position, k in enumerate(plan.mine):
            carried[k] = what_carries(of_units[[position]].data)
    return carried


def share_of_unit(regression: Regression, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """q_it, the share of each of the `rows` without adoption in what f expects of its unit, shape (draw, row)."""
    panel = regression.panel
    units, of_row = np.unique(panel.unit[rows], return_inverse=True)
    every = np.flatnonzero(np.isin(panel.unit, units))
    into = sp.csr_array((np.ones(len(every)), (np.searchsorted(units, panel.unit[every]), np.arange(len(every)))))
    felt = (regression.matrix[every] @ known.T).T + panel.log_offset[every]
    top = felt.max(axis=1, keepdims=True)
    total = (into @ np.exp(felt - top).T).T
    return np.minimum(np.exp(plain(regression, known, rows) - top) / total[:, of_row], MOST_SHARE)


def what_carries(share: np.ndarray) -> str:
    """How many units of equal size a sum of expected counts is worth, and how much of it the largest unit has.

    Parameters
    ----------
    share : array, shape (unit,)
        Expected counts of each unit.
    """
    share = share[share > 0]
    if not len(share):
        return "no events: the units averaged have none in any period"
    worth = share.sum() ** 2 / (share**2).sum()
    return f"worth {worth:.1f} units of equal size, the largest is {share.max() / share.sum():.0%}"


def in_design(collapsed: Collapsed, draws: xr.DataArray) -> np.ndarray:
    """Draws at their columns of the design, shape (draw, column); zero where the model has none."""
    design = collapsed.regression.design
    flat = draws.to_numpy().reshape(-1, draws.sizes["column"])
    known = np.zeros((len(flat), design.size))
    known[:, design.positions(draws["column"].to_numpy())] = flat
    return known


def all_coefficients(
    collapsed: Collapsed, draws: xr.DataArray, seed: int, sigma: np.ndarray | None = None
) -> np.ndarray:
    """Draws of the coefficients of all columns of the design, those that were integrated out too, shape (draw, column).

    In units of the outcome, log points of counts. Columns that the model does not use are zero. `sigma`, shape (draw,),
    is s where not given.
    """
    design = collapsed.regression.design
    nuisance = tuple(name for name in NUISANCE if name in design.blocks)
    known = in_design(collapsed, draws)
    if nuisance:
        out = design.columns(nuisance)
        kept = design.columns(tuple(name for name in design.blocks if name not in nuisance))
        sigma = np.full(len(known), collapsed.s) if sigma is None else sigma
        known[:, out] = collapsed.conditional.draw(known[:, kept], sigma, np.random.default_rng([seed, 8]))
    return known


def unit_levels(
    regression: Regression, levels: Levels, known: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """a_i drawn given the coefficients, -inf where no count tells it, and the position of each unit's omega.

    Both of shape (draw, unit).
    """
    panel = regression.panel
    units = len(levels.total)
    within = sp.csr_array((levels.weight, (panel.unit, np.arange(len(panel.unit)))), shape=(units, len(panel.unit)))
    felt = ((within @ regression.matrix) @ known.T).T + within @ panel.log_offset
    some = levels.total > 0
    total = np.where(some, levels.total, 1.0)
    drawn = (levels.pull - felt) / total + rng.standard_normal(felt.shape) / np.sqrt(total)
    reached = np.cumsum(levels.share, axis=1)[:, :-1]
    chance = rng.random(felt.shape)
    omega = np.zeros(felt.shape, dtype=np.int8)
    for bound in reached.T:
        omega += chance > bound
    return np.where(some, drawn, -np.inf), omega


def plain(regression: Regression, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """f without adoption, shape (draw, row): periods, fixed effects, covariates and the offset."""
    design = regression.design
    nuisance = positions(regression, [name for name in NUISANCE if name in design.blocks])
    return (regression.matrix[rows][:, nuisance] @ known[:, nuisance].T).T + regression.panel.log_offset[rows]


def contrasts(values: np.ndarray, found: list[Average], relative: bool) -> None:
    """Fill the contrasts in: the difference of two levels of `att_by` in events, the ratio of ratios in percent."""
    place = {(a.group, a.level): k for k, a in enumerate(found) if a.estimand == "att_by"}
    pairs = {(group, f"{a} - {b}"): (a, b) for group, a in place for other, b in place if group == other and a != b}
    for k, average in enumerate(found):
        if average.estimand == "contrast":
            levels = pairs[average.group, average.level]
            of_first, of_second = (values[..., place[average.group, level]] for level in levels)
            if relative:
                values[..., k] = 100 * ((1 + of_first / 100) / (1 + of_second / 100) - 1)
            else:
                values[..., k] = of_first - of_second


def truths(regression: Regression, found: list[Average]) -> np.ndarray:
    """What is true of every estimand in percent; NaN where it is not known, shape (estimand,)."""
    truth = np.array([[average.truth for average in found]])
    return on_scales(true_sums(regression, found), found, truth, True)["percent"][1][0, : len(found)]


def true_sums(regression: Regression, found: list[Average]) -> Sums:
    """The sums in a world that is known, one draw."""
    sums = Sums.empty(1, len(found))
    panel = regression.panel
    truth = panel.truth
    if truth is None or truth.mean is None or truth.variance is None:
        return sums
    by = {"none": np.zeros(len(panel.unit)), "own": np.where(panel.treated, truth.tau, 0.0)}
    slopes = [
        np.array([slope.get(name, np.nan) for name in regression.exposures])
        for slope in (truth.slope_control, truth.slope_treated)
    ]
    received = [regression.shares @ slope if len(slope) else np.zeros(len(panel.unit)) for slope in slopes]
    by["others"] = received[0]
    by["all"] = by["own"] + np.where(panel.treated, received[1], received[0])
    for k, average in enumerate(found):
        rows = average.rows
        if len(rows):
            weight = panel.weight[rows]
            high, low = (by[end][rows] for end in ENDS[average.estimand])
            sums.base[0, k] = weight @ truth.mean[rows]
            sums.start[0, k] = weight @ (truth.mean[rows] * np.exp(low))
            sums.gain[0, k] = weight @ (truth.mean[rows] * (np.exp(high) - np.exp(low)))
            sums.size[k] = weight.sum()
            if average.estimand in OWN:
                alone = np.log(truth.mean[rows]) - truth.variance[rows] / 2
                sums.least[0, k] = weight @ any_event(alone, truth.variance[rows])
                sums.most[0, k] = weight @ any_event(alone + high, truth.variance[rows])
    return sums
