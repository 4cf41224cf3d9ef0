"""Effects on several outcomes at once, and how they differ: averages of a system whose subgroup effects are correlated.

    y_1 = X theta_1 + errors_1,    y_2 = X phi_2 + c y_1 + errors_2,  theta_2 = phi_2 + c theta_1

Draw by draw, over the same rows as every other average of effects, the contrast of two outcomes is

    theta_2 - theta_1        of outcomes in logs: by how much more the one has grown, percent of a ratio

whose interval knows of the correlation of their errors, through c, and of what one outcome says of the other's effects,
through the correlation of the levels of every pooled term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import xarray as xr

from models.inputs import OUTCOME
from src import estimand
from src.answer import Answer
from src.average import Average
from src.channels import named
from src.config import JointConfig
from src.equations import Effects, effects
from src.estimand import Scale, Scales
from src.further import LESS
from src.system import Equation

ASSUMPTION = ""  # none beyond those of a single outcome
OF_TERM = "_correlation"  # how the name of what is kept of a term ends


def answer(tree: xr.DataTree, system: Sequence[Equation], model: JointConfig, prob: float, seed: int) -> Answer:
    """The tables of a run of `model=joint`; other parameters as of `src.answer.answer`."""
    each = effects(tree["posterior"].to_dataset(), system, seed)
    found, draws = estimands(each)
    is_log = system[0].collapsed.regression.panel.is_log
    tied, values = correlations(tree, found[0])
    scales = scales_of([*found, *tied], np.concatenate([draws, values], axis=-1), len(found) if is_log else 0)
    return Answer({model.name: estimand.table(scales, prob)}, scales, None, None)


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


def correlations(tree: xr.DataTree, base: Average) -> tuple[list[Average], np.ndarray]:
    """Correlation across outcomes of the effects of the levels of every pooled term, and their draws.

    Estimand `effect_correlation`, group the term, level the two outcomes.
    """
    posterior = tree["posterior"].to_dataset()
    found, draws = [], [np.zeros((posterior.sizes["chain"], posterior.sizes["draw"], 0))]
    for name in (str(name) for name in posterior.data_vars if str(name).endswith(OF_TERM)):
        matrix = posterior[name].transpose("chain", "draw", "equation", "equation_beside")
        labels = [str(label) for label in matrix["equation"].to_numpy()]
        for (i, a), (j, b) in combinations(enumerate(labels), 2):
            about = ("effect_correlation", name.removesuffix(OF_TERM), f"{b}{LESS}{a}")
            note = "of the levels' deviations; LKJ(2) a priori, about 0"
            nowhere = np.zeros_like(base.weights)
            found.append(Average(*about, nowhere, base.n_units, base.n_obs, np.nan, note))
            draws.append(matrix.to_numpy()[..., [i], j])
    return found, np.concatenate(draws, axis=-1)


def scales_of(found: list[Average], draws: np.ndarray, in_logs: int) -> Scales:
    """Draws by scale: as modelled, and of the first so many in percent, where these are effects on logarithms."""
    truth, said = np.array([average.truth for average in found]), [""] * len(found)
    scales = {"outcome": Scale(found, draws, truth, said)}
    if in_logs:
        of_log = estimand.percent(draws[..., :in_logs]), estimand.percent(truth[:in_logs])
        scales["percent"] = Scale(found[:in_logs], *of_log, said[:in_logs])
    return scales
