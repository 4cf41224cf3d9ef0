"""What others' adoption does, as linear maps of the coefficients: totals over rows, and the slope of each exposure.

Where the kernel of an exposure is learned (src.kernel), f_it stands beside S_it'delta_control on untreated rows. It has
no slope to report; `spill_at` says what one adopter at a distance does to an untreated unit that no other reaches. What
others' adoption does to adopters then counts into the effect of their own, so `spill_treated` cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.inputs import BY
from src.average import NO_ROWS, Average, extrapolation, join, level_averages
from src.design import Regression
from src.exposure import flat_exposures, from_each, is_share
from src.identify import moves
from src.kernel import BLOCKS, STEPS
from src.panel import count
from src.tally import Felt, Own, Sets, felt

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


def received(regression: Regression, felt: Felt) -> Received:
    """What is received on average by a set of rows."""
    panel, design, surface = regression.panel, regression.design, regression.surface
    total = felt.weight or 1.0
    weights, learned, more = np.zeros((3, design.size))
    truth = truth_treated = 0.0 if panel.truth is not None else np.nan
    if regression.exposures:
        mean = felt.shares / total
        weights[design.blocks["exposure"].columns] = mean / regression.exposure_sd
        more[design.blocks["difference"].columns] = mean / regression.exposure_sd
        for name, block in design.blocks.items():
            if name.startswith(BY):
                weights[block.columns] = felt.by[name] / total
        if panel.truth is not None:
            truth += float(mean @ [panel.truth.slope_control[name] for name in regression.exposures])
            truth_treated += float(mean @ [panel.truth.slope_treated[name] for name in regression.exposures])
    if surface is not None:
        learned[design.columns(BLOCKS)] = felt.learned / total
        truth += felt.truth / total
    return Received(weights, learned, more, float(truth), float(truth_treated))


def spillover_effects(regression: Regression, sums: Own, sets: Sets) -> Iterator[Average]:
    """What others' adoption does: totals over treated and untreated rows, and the slope of each exposure.

    Parameters
    ----------
    regression : Regression
    sums : Own
        Over treated rows.
    sets : Sets
        Over the sets of rows that this is about.
    """
    panel, design, surface, felt = regression.panel, regression.design, regression.surface, sets.felt
    if not regression.exposures and surface is None:
        return
    own = replace(next(level_averages(regression, "att", "mu", sums)), estimand="direct")
    flat = [k for k, told in enumerate(regression.frame.told) if not told]
    of_others = np.zeros((design.size, len(flat)))  # one direction for each exposure that fixed effects absorb
    for j, k in enumerate(flat):
        of_others[design.blocks["exposure"].start + k, j] = 1.0
    here = rows_of_sets(regression)

    def average(estimand, weights, rows: Felt, truth, group="", level="", note="", given=True, of="") -> Average:
        enough = bool(rows.rows) and given
        reason = note if rows.rows else "not identified: no such row is exposed"
        if enough and flat and moves(weights, of_others):
            why = "; ".join(flat_exposures(panel, regression.share_of).values())
            enough, reason = False, f"not identified: {why}"
        counts = (rows.units, rows.rows)
        mine = here.get(of, NO_ROWS)
        return Average(estimand, group, level, weights, *counts, float(truth), reason, enough, rows=mine)

    treated, control = felt["treated"], felt["control"]
    far = extrapolation(regression, sums)
    by_treated, by_control = received(regression, treated), received(regression, control)
    spill = by_treated.weights + by_treated.more
    to_control = by_control.weights + by_control.learned
    identified = {"given": own.identified, "of": "treated"}
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
        yield average("spill_treated", spill, treated, by_treated.truth_treated, note=far, of="treated")
    else:
        reason = f"not identified: {IN_OWN}, where a kernel is learned"
        yield average("spill_treated", spill, treated, np.nan, note=reason, given=False, of="treated")
    if control.rows:
        of_places = "" if surface is None else rests_on(regression, surface.name, felt["reached"])
        yield average("spill_control", to_control, control, by_control.truth, note=of_places, of="control")
    everyone = felt["all"]
    adopters, others = treated.weight / everyone.weight, control.weight / everyone.weight
    yield average(
        "overall",
        adopters * (own.weights + spill) + others * to_control,
        everyone,
        adopters * total + others * by_control.truth,
        note=own.note,
        given=own.identified,
        of="all",
    )
    yield from (average(*row) for row in slopes(regression, sets))
    if surface is not None:
        yield from (average(*row) for row in at_distances(regression))


def rows_of_sets(regression: Regression) -> dict[str, np.ndarray]:
    """Positions of treated, of untreated exposed and of all rows; nothing where the rows are not here."""
    if regression.blocks is not None:
        return {}
    panel, surface = regression.panel, regression.surface
    exposed = regression.shares.any(axis=1) | (surface is not None and surface.reached)
    return {
        "treated": np.flatnonzero(panel.treated),
        "control": np.flatnonzero(~panel.treated & exposed),
        "all": np.arange(len(panel.unit)),
    }


def slopes(regression: Regression, sets: Sets) -> Iterator[tuple]:
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
        control, treated = sets.felt[f"control {name}"], sets.felt[f"treated {name}"]
        unit = step / regression.exposure_sd[k]
        arms = {
            "control": (to_control + unit * levels_of(regression, name, control), control, truth[0]),
            "treated": (to_control + unit * levels_of(regression, name, treated) + to_treated, treated, truth[1]),
            "difference": (to_treated, treated, truth[1] - truth[0]),
        }
        for level, (weights, rows, value) in arms.items():
            note = join(about, rests_on(regression, name, rows))
            yield "spill_per_pp", weights, rows, value, name, level, note
        by = panel.roster.mappings[name].by
        for level in design.blocks[BY + name].levels if BY + name in design.blocks else ():
            rows = sets.felt[f"control {name} {level}"]
            weights = to_control + unit * levels_of(regression, name, rows)
            note = join(about, rests_on(regression, name, rows))
            yield "spill_by", weights, rows, truth[0], f"{name}:{by}", level, note


def levels_of(regression: Regression, name: str, rows: Felt) -> np.ndarray:
    """Share of the rows at each level over which the slope of an exposure differs, over all columns of the design."""
    block = regression.design.blocks.get(BY + name)
    shares = np.zeros(regression.design.size)
    if block is not None and rows.rows:
        shares[block.columns] = rows.by[f"{BY + name} rows"] / rows.weight
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
        rows = felt(regression, ~panel.treated & (nearest == ring))
        yield "spill_at", weights, rows, np.nan, surface.name, f"{distance:.4g} km"


def rests_on(regression: Regression, name: str, rows: Felt) -> str:
    """Of how many adopters an exposure of some rows is made, and how many of equal weight they are worth."""
    part = from_each(regression.panel, name, rows.reach[name], regression.frame.periods)
    part = part[part > 0]
    if not len(part):
        return ""
    effective = part.sum() ** 2 / (part**2).sum()
    return f"rests on {count(len(part), 'adopter')} to whom others are exposed, worth {effective:.1f} of equal weight"
