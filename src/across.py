"""Effects on several outcomes at once, and how they differ: averages of a system whose subgroup effects are correlated.

    y_1 = X theta_1 + errors_1,    y_2 = X phi_2 + c y_1 + errors_2,  theta_2 = phi_2 + c theta_1

Draw by draw, over the same rows as every other average of effects, the contrast of two outcomes is

    theta_2 - theta_1        of outcomes in logs: by how much more the one has grown, percent of a ratio

whose interval knows of the correlation of their errors, through c, and of what one outcome says of the other's effects,
through the correlation of the levels of every pooled term. Of a count and a part of it,

    (part / whole) with / (part / whole) without - 1        by how much the share has grown, in percent
    (part / whole) with - (part / whole) without            the same in percentage points

of expected counts summed over the same rows in the two worlds that an estimand compares; see `src.rates`. Slopes of
exposures and leads are ratios by themselves: of a part and a share they are those of log odds, which no table has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import xarray as xr

from models.inputs import OUTCOME
from src import estimand
from src.answer import Answer, sigma_of
from src.average import Average, join
from src.channels import named
from src.config import JointConfig
from src.equations import Effects, effects
from src.estimand import Scale, Scales
from src.panel import LESS, OVER
from src.rates import SLOPES, Factor, Sums, contrasts, drawn_sums, scales_of, true_sums
from src.system import MARK, Equation

ASSUMPTION = ""  # none beyond those of a single outcome
OF_TERM = "_correlation"  # how the name of what is kept of a term ends


def answer(tree: xr.DataTree, system: Sequence[Equation], model: JointConfig, prob: float, seed: int) -> Answer:
    """The tables of a run of `model=joint`; other parameters as of `src.answer.answer`."""
    each = effects(tree["posterior"].to_dataset(), system, seed)
    if system[-1].is_share:
        scales = of_counts(each, seed)
    else:
        found, draws = estimands(each)
        scales = estimand.linear_scales(draws, found, system[0].collapsed.regression.panel.is_log)
    tied, values = correlations(tree, system, each[0].found[0])
    more = {"outcome": [Scale(tied, values, np.full(len(tied), np.nan), [""] * len(tied))]}
    scales = {name: beside(scale, *more.get(name, ())) for name, scale in scales.items()}
    return Answer({model.name: estimand.table(scales, prob)}, scales, each[0].theta, None, sigma=sigma_of(tree))


def beside(one: Scale, *others: Scale) -> Scale:
    """Estimands of one or several, one after the other."""
    each = (one, *others)
    return Scale(
        [average for scale in each for average in scale.found],
        np.concatenate([scale.draws for scale in each], axis=-1),
        np.concatenate([scale.truth for scale in each]),
        [said for scale in each for said in scale.said],
    )


def of_counts(each: list[Effects], seed: int) -> Scales:
    """Effects on a count, on a part of it, and on the share of the part, by scale."""
    drawn = drawn_sums([Factor(one.equation.collapsed, one.theta) for one in each], each[0].found, seed)
    known = [true_sums(one.equation.collapsed.regression, one.found) for one in each]
    whole, part = each
    grown = grown_of(drawn[1][0], part)
    log = [whole.total, whole.total + grown]
    of_whole, of_part = (
        scales_of(sums, true, carried, one.found, draws)
        for one, (sums, carried), true, draws in zip(each, drawn, known, log, strict=True)
    )
    of_share = share_scales(whole, part, [sums for sums, _ in drawn], grown, known, drawn[1][1])
    name, scales = part.equation.name, {}
    for scale, first in of_whole.items():
        second = replace(of_part[scale], found=[named(name, average) for average in of_part[scale].found])
        scales[scale] = beside(first, without_slopes(second), without_slopes(of_share[scale]))
    return scales


def grown_of(sums: Sums, part: Effects) -> np.ndarray:
    """Row averages of what the share has grown by in logarithms, shape (chain, draw, estimand)."""
    grown = sums.grown.copy()
    contrasts(grown, part.found, False)
    grown[:, [not average.identified for average in part.found]] = np.nan
    return grown.reshape(part.apart.shape)


def without_slopes(scale: Scale) -> Scale:
    """The estimands that sum over rows."""
    kept = [k for k, average in enumerate(scale.found) if average.estimand.rpartition(MARK)[2] not in SLOPES]
    return Scale(
        [scale.found[k] for k in kept], scale.draws[..., kept], scale.truth[kept], [scale.said[k] for k in kept]
    )


def share_scales(
    whole: Effects, part: Effects, drawn: list[Sums], grown: np.ndarray, known: list[Sums], carried: list[str]
) -> Scales:
    """Effects on the share of a part, by scale: in points of the share, in percent of it, and row averages of its log.

    `drawn` and `known` are of the whole, then of the part; `grown` is from `grown_of`, and `carried` says what carries
    each effect on the part.
    """
    name = f"{part.equation.name}{OVER}{OUTCOME}"
    truth = np.array([mine.truth - theirs.truth for mine, theirs in zip(part.found, whole.found, strict=True)])
    values = on_share(drawn, part.found, grown.reshape(-1, len(truth)))
    true = on_share(known, part.found, truth[None])
    level, scales = levels_in_words(drawn), {}
    for scale, on_scale in values.items():
        mine = [named(name, replace(average, truth=one)) for average, one in zip(part.found, truth, strict=True)]
        on_scale[:, [not average.identified for average in part.found]] = np.nan
        said = [join(*both) if scale != "log" else "" for both in zip(level, carried, strict=True)]
        scales[scale] = Scale(mine, on_scale.reshape(part.apart.shape), true[scale][0], said)
    return scales


def levels_in_words(sums: Sequence[Sums]) -> list[str]:
    """From what to what each effect moves the share, on average over draws; empty where nothing is summed."""
    whole, part = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = [part.start / whole.start, (part.start + part.gain) / (whole.start + whole.gain)]
    before, after = (end.mean(axis=0) for end in ends)
    return [f"from {a:.1%} to {b:.1%}" if np.isfinite(a) else "" for a, b in zip(before, after, strict=True)]


def on_share(sums: Sequence[Sums], found: list[Average], log: np.ndarray) -> dict[str, np.ndarray]:
    """Effects on the share, shape (draw, estimand), by scale.

    `sums` are of the whole and of the part; `log` has row averages of the effect on the logarithm of the share.
    """
    whole, part = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = part.start / whole.start, (part.start + part.gain) / (whole.start + whole.gain)
        points, percent = 100 * (after - before), 100 * (after / before - 1)
    for values, relative in ((points, False), (percent, True)):
        contrasts(values, found, relative)
    return {"outcome": points, "percent": percent, "log": log}


def estimands(each: list[Effects]) -> tuple[list[Average], np.ndarray]:
    """Effects on every outcome, those beside the first under their names, and every difference between two of them.

    Returns
    -------
    list of Average
    array, shape (chain, draw, estimand)
    """
    found, draws = list(each[0].found), [each[0].total]
    for one in each[1:]:
        found += [named(one.equation.name, average) for average in one.found]
        draws.append(one.total)
    for a, b in combinations(each, 2):
        pair = f"{b.equation.name}{LESS}{a.equation.name or OUTCOME}"
        for mine, theirs in zip(b.found, a.found, strict=True):
            identified = mine.identified and theirs.identified
            difference = replace(mine, truth=mine.truth - theirs.truth, identified=identified)
            found.append(named(pair, difference))
        draws.append(b.total - a.total)
    return found, np.concatenate(draws, axis=-1)


def correlations(tree: xr.DataTree, system: Sequence[Equation], base: Average) -> tuple[list[Average], np.ndarray]:
    """Correlation across outcomes of the effects of the levels of every pooled term, and their draws.

    Estimand `effect_correlation`, group the term, level the two outcomes, or the share and the outcome.
    """
    names = [f"{one.name}{OVER}{OUTCOME}" if one.is_share else one.name or OUTCOME for one in system]
    posterior = tree["posterior"].to_dataset()
    found, draws = [], [np.zeros((posterior.sizes["chain"], posterior.sizes["draw"], 0))]
    for name in (str(name) for name in posterior.data_vars if str(name).endswith(OF_TERM)):
        matrix = posterior[name].transpose("chain", "draw", "equation", "equation_beside")
        for (i, a), (j, b) in combinations(enumerate(names), 2):
            about = ("effect_correlation", name.removesuffix(OF_TERM), f"{b}{LESS}{a}")
            about_what = "0" if system[j].is_share else "any share of that of the errors"
            note = f"of the levels' deviations; LKJ(2) a priori, about {about_what}"
            nowhere = np.zeros_like(base.weights)
            found.append(Average(*about, nowhere, base.n_units, base.n_obs, np.nan, note))
            draws.append(matrix.to_numpy()[..., [i], j])
    return found, np.concatenate(draws, axis=-1)
