"""Through which channel adoption acts: natural direct and indirect effects of a system of mediators and an outcome.

    m_k = X theta_k + errors_k            effect of adoption on mediator k, others' included
    y   = X phi + sum_k b_k m_k + errors  the outcome given the mediators

Draw by draw, over the same rows as every other average of effects (g-computation; linear, so that it is closed),

    natural_indirect through k = b_k theta_k     what y changes as m_k goes from m_k(0) to m_k(1)
    natural_direct             = phi             what it changes with all mediators held
    total (att, ...)           = natural_direct + sum of natural_indirect

under sequential ignorability: adoption is as good as random given units, periods and covariates (parallel trends), and
given these and adoption so is every mediator. The second part is an assumption about the errors of y and of m_k, which
no data can test. With r the correlation of the errors of y and of what the other mediators leave of m_k, b_k is

    b_k(r) = b_k - kappa_k r / sqrt(1 - r^2),    kappa_k = SD of what is left of y over SD of what is left of m_k

both as the regression of y sees them: after everything else in it, filtered and weighted as its errors are, so that
with one scale and one serial correlation for all these are the residual SDs. The total does not depend on r, nor do the
effects on mediators.

Assumes that slopes b_k are the same with and without adoption, and that others' adoption matters as `S` says.

Source: Imai, Keele & Yamamoto (2010), equation 10 and theorem 4; Imai & Yamamoto (2013) for several mediators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from src import estimand
from src.answer import Answer, sigma_of
from src.average import Average
from src.config import MediationConfig
from src.equations import Effects, effects
from src.estimand import Scale, Scales
from src.scrutiny import Figures, Scrutiny
from src.system import MARK, Equation

ASSUMPTION = (
    "assumed: sequential ignorability, which no data can test: given units, periods, covariates and adoption, a "
    "mediator is as good as random; how far that may fail is in channels.csv"
)
PARTS = {"att": "", "att_by": "_by", "att_event": "_event", "contrast": "_contrast"}
PROPORTION = "proportion_mediated"
CLEAR = 4.0
STEP, COARSE = 0.005, 0.05  # of the correlation: as computed, as kept
COLUMNS = ["mediator", "correlation", "mean", "low", "high", "prob", "p_positive"]


@dataclass(frozen=True)
class Channel:
    """One mediator.

    Attributes
    ----------
    name : str
    slope : array, shape (draw,)
        b_k.
    effect : array, shape (draw,)
        Average effect of own adoption on it.
    kappa : float
    """

    name: str
    slope: np.ndarray
    effect: np.ndarray
    kappa: float

    def indirect(self, r: float) -> np.ndarray:
        """Natural indirect effect through it at residual correlation r, shape (draw,)."""
        return (self.slope - self.kappa * r / np.sqrt(1 - r**2)) * self.effect


def answer(tree: xr.DataTree, system: Sequence[Equation], model: MediationConfig, prob: float, seed: int) -> Answer:
    """The tables of a run of `model=mediation`; other parameters as of `src.answer.answer`."""
    each = effects(tree["posterior"].to_dataset(), system, seed)
    found, draws = estimands(each)
    *mediators, outcome = each
    scales = scales_of(found, draws, outcome)
    tables = {model.name: estimand.table(scales, prob)}
    channels = channels_of(mediators, outcome)
    return Answer(tables, scales, outcome.theta, None, beside(channels, prob, model.most), sigma_of(tree), False)


def estimands(each: list[Effects]) -> tuple[list[Average], np.ndarray]:
    """All averages and their draws, shape (chain, draw, estimand).

    The effects on the outcome whatever way they go; those on every mediator, under its name; natural direct and
    indirect effects; slopes of the mediators; the proportion mediated.
    """
    *mediators, outcome = each
    truth = outcome.equation.collapsed.regression.panel.truth
    found, draws = list(outcome.found), [outcome.total]
    for mediator in mediators:
        found += [named(mediator.equation.name, average) for average in mediator.found]
        draws.append(mediator.total)
    parts = [j for j, average in enumerate(outcome.found) if average.estimand in PARTS]
    through = [outcome.slopes[..., [k]] * mediator.total for k, mediator in enumerate(mediators)]
    slopes = {
        m.equation.name: np.nan if truth is None else truth.through.get(m.equation.name, np.nan) for m in mediators
    }
    true = [slopes[m.equation.name] * np.array([average.truth for average in m.found]) for m in mediators]
    whole = np.array([average.truth for average in outcome.found])
    kinds: list[tuple[str, str, np.ndarray, np.ndarray]] = [
        ("", "natural_direct", outcome.apart, whole - sum(true)),
        ("", "natural_indirect", np.sum(through, axis=0), np.sum(true, axis=0)),
    ]
    if len(mediators) > 1:
        names = [mediator.equation.name for mediator in mediators]
        kinds += zip(names, ["natural_indirect"] * len(names), through, true, strict=True)
    for of, kind, value, known in kinds:
        for j in parts:
            average = outcome.found[j]
            renamed = replace(average, estimand=kind + PARTS[average.estimand], truth=float(known[j]))
            found.append(named(of, renamed) if of else renamed)
        draws.append(value[..., parts])
    for k, mediator in enumerate(mediators):
        found.append(slope_of(mediator, slopes[mediator.equation.name], outcome))
        draws.append(outcome.slopes[..., [k]])
    at = next(j for j, average in enumerate(found) if average.estimand == "natural_indirect")
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.concatenate(draws, axis=-1)[..., at] / outcome.total[..., 0]
    found.append(replace(outcome.found[0], estimand=PROPORTION, truth=float(np.sum(true, axis=0)[0] / whole[0])))
    draws.append(share[..., None])
    return told(found, np.concatenate(draws, axis=-1))


def told(found: list[Average], draws: np.ndarray) -> tuple[list[Average], np.ndarray]:
    """The same with the proportion mediated left open where the total is not clearly away from zero.

    A ratio whose denominator may be zero has neither mean nor bounds: the posterior mean of the total is to be `CLEAR`
    posterior SDs away.
    """
    total = draws[..., 0]
    if abs(total.mean()) > CLEAR * total.std():
        return found, draws
    note = f"not given: the total effect is not {CLEAR:g} posterior SDs away from zero"
    open_ = [replace(a, note=note, identified=False) if a.estimand == PROPORTION else a for a in found]
    return open_, np.where([a.estimand == PROPORTION for a in found], np.nan, draws)


def named(equation: str, average: Average) -> Average:
    """An average of effects under the name of an equation."""
    return replace(average, estimand=f"{equation}{MARK}{average.estimand}")


def slope_of(mediator: Effects, truth: float, outcome: Effects) -> Average:
    """What the outcome changes as a mediator goes up by one."""
    panel = outcome.equation.collapsed.regression.panel
    note = "outcome per unit of the mediator, given units, periods, covariates, adoption and the other mediators"
    none = np.zeros_like(outcome.found[0].weights)
    facts = (none, len(panel.units), len(panel.outcome), truth, note)
    return Average("mediator_slope", mediator.equation.name, "", *facts)


def scales_of(found: list[Average], draws: np.ndarray, outcome: Effects) -> Scales:
    """Draws by scale: as modelled, and of what is an effect on a logarithmic outcome in percent."""
    truth, said = np.array([average.truth for average in found]), [""] * len(found)
    scales = {"outcome": Scale(found, draws, truth, said)}
    if not outcome.equation.collapsed.regression.panel.is_log:
        return scales
    of_log = [
        j for j, a in enumerate(found) if a.estimand not in ("mediator_slope", PROPORTION) and on_outcome(a.estimand)
    ]
    mine = [found[j] for j in of_log]
    in_percent = estimand.percent(draws[..., of_log]), estimand.percent(truth[of_log])
    parts = ["in percent, direct and indirect effects multiply" if "natural_" in a.estimand else "" for a in mine]
    return scales | {"percent": Scale(mine, *in_percent, parts)}


def on_outcome(name: str) -> bool:
    """Whether an estimand is an effect on the outcome, and not on a mediator."""
    return MARK not in name or name.partition(MARK)[2].startswith("natural_")


def channels_of(mediators: list[Effects], outcome: Effects) -> list[Channel]:
    """The mediators, ready for other residual correlations."""
    found = zip(mediators, outcome.equation.ratio, strict=True)
    return [
        Channel(m.equation.name, outcome.slopes[..., k].ravel(), m.total[..., 0].ravel(), float(kappa))
        for k, (m, kappa) in enumerate(found)
    ]


def beside(channels: list[Channel], prob: float, most: float) -> Scrutiny:
    """How the indirect effects change with the correlation of residuals, in a table, sentences, a record, a figure."""
    table = curves(channels, prob, most)
    broken = {channel.name: breakdown(table, channel.name) for channel in channels}
    record = {"channels": {name: {"breakdown": a, "mean_is_zero": b} for name, (a, b) in broken.items()}}
    said = [
        ASSUMPTION[0].upper() + ASSUMPTION[1:] + ".",
        *(in_words(name, *ends, most) for name, ends in broken.items()),
    ]
    shown = table[np.isclose(np.round(table["correlation"] / COARSE) * COARSE, table["correlation"])]
    figures: Figures = {"channels": lambda: draw(table, broken)}
    return Scrutiny({"channels": shown.reset_index(drop=True)}, {"channels": said}, record, figures)


def curves(channels: list[Channel], prob: float, most: float) -> pd.DataFrame:
    """Average natural indirect effect through each mediator at residual correlations from -most to most.

    Returns
    -------
    DataFrame
        mediator, correlation, mean, low, high, prob, p_positive.
    """
    steps = int(np.floor(most / STEP + 1e-9))
    rows = []
    for channel in channels:
        for r in STEP * np.arange(-steps, steps + 1):
            drawn = channel.indirect(float(r))
            low, high = np.quantile(drawn, [(1 - prob) / 2, (1 + prob) / 2])
            rows.append((channel.name, r, drawn.mean(), low, high, prob, (drawn > 0).mean()))
    return pd.DataFrame(rows, columns=COLUMNS)


def breakdown(table: pd.DataFrame, mediator: str) -> tuple[float | None, float | None]:
    """The residual correlation nearest to 0 at which the interval holds zero, and that at which the mean is nearest to
    zero; None where that is beyond those looked at.
    """
    mine = table[table["mediator"] == mediator]
    at, mean = mine["correlation"].to_numpy(), mine["mean"].to_numpy()
    if not np.isfinite(mean).all():
        return float("nan"), None
    holds = at[(mine["low"] <= 0) & (mine["high"] >= 0)]
    nearest = float(holds[np.abs(holds).argmin()]) if len(holds) else None
    zero = float(at[np.abs(mean).argmin()]) if mean.min() <= 0 <= mean.max() else None
    return nearest, zero


def in_words(mediator: str, nearest: float | None, zero: float | None, most: float) -> str:
    """The breakdown value in a sentence."""
    if nearest is not None and np.isnan(nearest):
        return f"Through {mediator}: the effect on it, or the total, is not identified."
    if nearest == 0:
        return f"Through {mediator}: the interval of the indirect effect holds zero as it is."
    if nearest is None:
        return (
            f"Through {mediator}: the indirect effect is away from zero at every residual correlation up to {most:g}."
        )
    mean = "" if zero is None else f", its mean at {zero:.2f}"
    return (
        f"Through {mediator}: the interval of the indirect effect first holds zero at a residual correlation of "
        f"{nearest:.2f}{mean}."
    )


def draw(table: pd.DataFrame, broken: dict[str, tuple[float | None, float | None]]) -> Figure:
    """Indirect effect through each mediator by residual correlation."""
    from src.figure import MODEL, POOLED, WIDTH, finish  # with the figures of a run; the rest runs where none is drawn

    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.subplots(1, len(broken), squeeze=False, sharex=True)[0]
    for axis, (name, (nearest, _)) in zip(axes, broken.items(), strict=True):
        mine = table[table["mediator"] == name]
        at = mine["correlation"]
        axis.fill_between(at, mine["low"], mine["high"], color=MODEL, alpha=0.2, linewidth=0, label="interval")
        axis.plot(at, mine["mean"], color=MODEL, label="posterior mean")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axvline(0, color=POOLED, linewidth=1.2, linestyle=":", label="sequential ignorability")
        if nearest:
            axis.axvline(nearest, color=POOLED, linewidth=1.2, linestyle="--", label="interval first holds zero")
        axis.set_title(f"through {name}")
        axis.set_xlabel("correlation of residuals")
        axis.xaxis.set_major_locator(MultipleLocator(0.3 if len(broken) > 1 else 0.1))
    axes[0].set_ylabel("natural indirect effect,\nunits of the outcome")
    note = (
        "What the average indirect effect on adopters would be if the errors of mediator and outcome were correlated, "
        "as they are where something unseen moves both. The data say nothing about that. Source: channels.csv."
    )
    return finish(figure, list(axes), "How far may a mediator be confounded?", note)
