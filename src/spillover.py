"""What others' adoption does, as linear maps of the coefficients: totals over rows, and the slope of each exposure.

Where the kernel of an exposure is learned (src.kernel), f_it stands beside S_it'delta_control on untreated rows. It has
no slope to report; `spill_at` says what one adopter at a distance does to an untreated unit that no other reaches. What
others' adoption does to adopters then counts into the effect of their own, so `spill_treated` cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.inputs import BY
from src.average import NO_ROWS, Average, extrapolation, join, subset_averages
from src.design import Regression
from src.exposure import flat_exposures, is_share, sources
from src.identify import moves
from src.kernel import BLOCKS, STEPS
from src.panel import Panel, count

PER_SD = "per SD of the exposure"  # begins the note of a slope that is not per percentage point
TOTALS = ("direct", "total_treated", "switching", "spill_treated", "spill_control", "overall")  # over rows
IN_OWN = "what others' adoption does to adopters counts into the effect of their own"


@dataclass(frozen=True)
class Received:
    """What others' adoption amounts to on a set of rows, and what is true of it.

    Attributes
    ----------
    weights : array, shape (column,)
        Of the mean over the rows of S'delta_control.
    learned : array, shape (column,)
        Of the mean of f; zero where no kernel is learned.
    more : array, shape (column,)
        Of the mean of S'difference.
    truth, truth_treated : float
        Of the mean of S'delta_control (and f), and of S'delta_treated; NaN where not known.
    """

    weights: np.ndarray
    learned: np.ndarray
    more: np.ndarray
    truth: float
    truth_treated: float


def received(regression: Regression, share: np.ndarray) -> Received:
    """What is received on average by rows that count as `share` says, shape (row,), non-negative."""
    panel, design, surface = regression.panel, regression.design, regression.surface
    part = share / share.sum() if share.any() else share
    weights, learned, more = np.zeros((3, design.size))
    truth = truth_treated = 0.0 if panel.truth is not None else np.nan
    if regression.exposures:
        mean = part @ regression.shares
        weights[design.blocks["exposure"].columns] = mean / regression.exposure_sd
        more[design.blocks["difference"].columns] = mean / regression.exposure_sd
        for name, block in design.blocks.items():
            if name.startswith(BY):
                weights[block.columns] = part @ regression.matrix[:, block.columns]
        if panel.truth is not None:
            truth += mean @ [panel.truth.slope_control[name] for name in regression.exposures]
            truth_treated += mean @ [panel.truth.slope_treated[name] for name in regression.exposures]
    if surface is not None:
        learned[design.columns(BLOCKS)] = part @ surface.columns
        felt = panel.truth.spill if panel.truth is not None else None
        truth += np.nan if felt is None else part @ felt
    return Received(weights, learned, more, float(truth), float(truth_treated))


def spillover_effects(regression: Regression, spoken: np.ndarray) -> Iterator[Average]:
    """What others' adoption does: totals over treated and untreated rows, and the slope of each exposure.

    Parameters
    ----------
    regression : Regression
    spoken : array of bool, shape (treated row,)
        Rows of whose effect of own adoption the data speak.
    """
    panel, design, surface = regression.panel, regression.design, regression.surface
    if not regression.exposures and surface is None:
        return
    own = next(subset_averages(regression, "direct", "", np.full(int(panel.treated.sum()), ""), spoken))
    flat = flat_exposures(panel, regression.share_of)
    of_others = np.zeros((design.size, len(flat)))  # one direction for each exposure that fixed effects absorb
    for j, name in enumerate(flat):
        of_others[design.blocks["exposure"].start + regression.exposures.index(name), j] = 1.0

    def average(estimand, weights, rows, truth, group="", level="", note="", given=True) -> Average:
        n_units = len(np.unique(panel.unit[rows]))
        enough = bool(rows.any()) and given
        reason = note if rows.any() else "not identified: no such row is exposed"
        if enough and flat and moves(weights, of_others):
            enough, reason = False, "not identified: " + "; ".join(flat.values())
        return Average(
            *(estimand, group, level, weights, n_units, int(rows.sum()), float(truth), reason, enough),
            rows=np.flatnonzero(rows) if estimand in TOTALS else NO_ROWS,
        )

    exposed = regression.shares.any(axis=1) | (surface is not None and surface.reached)
    treated, control = panel.treated, ~panel.treated & exposed
    far = extrapolation(regression)
    by_treated = received(regression, panel.weight * treated)
    by_control = received(regression, panel.weight * control)
    spill = by_treated.weights + by_treated.more
    to_control = by_control.weights + by_control.learned
    identified = {"given": own.identified}
    yield (
        own
        if surface is None
        else average("direct", own.weights, treated, own.truth, note=join(own.note, IN_OWN), **identified)
    )
    total = own.truth + by_treated.truth_treated
    yield average("total_treated", own.weights + spill, treated, total, note=own.note, **identified)
    about = "" if own.identified else own.note
    gained = total - by_treated.truth
    switching = own.weights + by_treated.more - by_treated.learned
    yield average("switching", switching, treated, gained, note=about, **identified)
    if surface is None:
        yield average("spill_treated", spill, treated, by_treated.truth_treated, note=far)
    else:
        reason = f"not identified: {IN_OWN}, where a kernel is learned"
        yield average("spill_treated", spill, treated, np.nan, note=reason, given=False)
    if control.any():
        of_places = "" if surface is None else rests_on(panel, surface.name, ~panel.treated & surface.reached)
        yield average("spill_control", to_control, control, by_control.truth, note=of_places)
    everywhere = np.ones(len(panel.unit), dtype=bool)
    adopters, others = (float(panel.weight[rows].sum() / panel.weight.sum()) for rows in (treated, control))
    yield average(
        "overall",
        adopters * (own.weights + spill) + others * to_control,
        everywhere,
        adopters * total + others * by_control.truth,
        note=own.note,
        **identified,
    )
    yield from (average(*row) for row in slopes(regression))
    if surface is not None:
        yield from (average(*row) for row in at_distances(regression))


def slopes(regression: Regression) -> Iterator[tuple]:
    """Slope of each exposure on the untreated, on the treated, and the difference: arguments of `average`."""
    panel, design = regression.panel, regression.design
    for k, name in enumerate(regression.exposures):
        step = regression.exposure_step[k]
        to_control, to_treated = np.zeros(design.size), np.zeros(design.size)
        to_control[design.blocks["exposure"].start + k] = step / regression.exposure_sd[k]
        to_treated[design.blocks["difference"].start + k] = step / regression.exposure_sd[k]
        truth = (np.nan, np.nan)
        if panel.truth is not None:
            truth = (panel.truth.slope_control[name] * step, panel.truth.slope_treated[name] * step)
        about = "" if is_share(panel, name) else f"{PER_SD} ({step:.3g}), which is no share"
        mine = regression.shares[:, k] > 0
        control, treated = ~panel.treated & mine, panel.treated & mine
        unit = step / regression.exposure_sd[k]
        arms = {
            "control": (to_control + unit * levels_of(regression, name, control), control, truth[0]),
            "treated": (to_control + unit * levels_of(regression, name, treated) + to_treated, treated, truth[1]),
            "difference": (to_treated, treated, truth[1] - truth[0]),
        }
        for level, (weights, rows, value) in arms.items():
            note = join(about, rests_on(panel, name, rows))
            yield "spill_per_pp", weights, rows, value, name, level, note
        by = panel.roster.mappings[name].by
        for level in design.blocks[BY + name].levels if BY + name in design.blocks else ():
            rows = control & (panel.row_labels(panel.groups[by]) == level)
            weights = to_control + unit * levels_of(regression, name, rows)
            yield "spill_by", weights, rows, truth[0], f"{name}:{by}", level, join(about, rests_on(panel, name, rows))


def levels_of(regression: Regression, name: str, rows: np.ndarray) -> np.ndarray:
    """Share of the rows at each level over which the slope of an exposure differs, over all columns of the design."""
    panel, block = regression.panel, regression.design.blocks.get(BY + name)
    shares = np.zeros(regression.design.size)
    if block is not None and rows.any():
        level = panel.groups[panel.roster.mappings[name].by].code[panel.unit[rows]]
        shares[block.columns] = np.bincount(level, panel.weight[rows], block.size) / panel.weight[rows].sum()
    return shares


def at_distances(regression: Regression) -> Iterator[tuple]:
    """Effect of one adopter in the middle of every ring of a learned kernel: arguments of `average`.

    Rows are untreated ones whose nearest adopter is in that ring.
    """
    panel, design, surface = regression.panel, regression.design, regression.surface
    assert surface is not None
    middle = surface.cutoff * (np.arange(STEPS) + 0.5) / STEPS
    alone = surface.alone(middle)
    nearest = surface.nearest
    for ring, distance in enumerate(middle):
        weights = np.zeros(design.size)
        weights[design.columns(BLOCKS)] = alone[ring]
        rows = ~panel.treated & (nearest == ring)
        yield "spill_at", weights, rows, np.nan, surface.name, f"{distance:.4g} km"


def rests_on(panel: Panel, name: str, rows: np.ndarray) -> str:
    """Of how many adopters an exposure of some rows is made, and how many of equal weight they are worth."""
    felt = sources(panel, name, rows)
    felt = felt[felt > 0]
    if not len(felt):
        return ""
    effective = felt.sum() ** 2 / (felt**2).sum()
    return f"rests on {count(len(felt), 'adopter')} to whom others are exposed, worth {effective:.1f} of equal weight"
