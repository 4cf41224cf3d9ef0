"""What stands beside the posterior: classical estimates, what they average, the prior's part, leads, violations,
replicates of the data.

Answer, Panel ─▶ comparison ─▶ agreement, weights;  densities ─▶ powers;  leads ─▶ sensitivity;  replicates
─▶ tables, sentences, figures
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from src import agree, compare, events, powers, predictive, prior, residuals, sensitivity, weights
from src.answer import Answer
from src.collapse import Collapsed
from src.errors import Errors
from src.estimand import Scale
from src.panel import Panel, in_one_line
from src.twins import RefusedError, Twins

Figures = dict[str, Callable[[], Figure | None]]


@dataclass(frozen=True)
class Scrutiny:
    """Tables, what they say, and their pictures.

    Attributes
    ----------
    tables : dict of str to DataFrame
        By file: comparison, agreement, powers, weights, bacon, sensitivity, predictive.
    said : dict of str to list of str
        Sentences by subject: agreement, weights, trends, replicates, before, prior, asked; warnings, which come first
        wherever they are shown; handled, what could not be had.
    record : dict
        For diagnostics.json.
    figures : dict of str to callable
        That draw a figure of this name, or nothing.
    """

    tables: dict[str, pd.DataFrame]
    said: dict[str, list[str]] = field(default_factory=dict)
    record: dict = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)

    @property
    def comparison(self) -> pd.DataFrame:
        """The table that the others start from."""
        return self.tables["comparison"]


@dataclass(frozen=True)
class Given:
    """What everything beside the posterior starts from.

    Attributes
    ----------
    answer : Answer
    prior : DataArray, dims (chain, draw, column)
        Draws of the coefficients from their prior, in units of the outcome.
    densities : (Dataset, Dataset), dims (chain, draw)
        Log prior and log likelihood of every draw.
    collapsed : Collapsed
    twins : Twins
        What classical estimators find.
    errors : Errors
    slope_sd : float
        SD of the slope of violations at adoption, in units of s.
    prob : float
    seed : int
    """

    answer: Answer
    prior: xr.DataArray
    densities: tuple[xr.Dataset, xr.Dataset]
    collapsed: Collapsed
    twins: Twins
    errors: Errors
    slope_sd: float
    prob: float
    seed: int

    @property
    def panel(self) -> Panel:
        """The panel."""
        return self.collapsed.regression.panel

    @property
    def additive(self) -> Scale:
        """The estimands on the scale on which effects add up."""
        return self.answer.scales["log" if self.errors.events else "outcome"]


def scrutinise(given: Given) -> Scrutiny:
    """Everything that a run says beside its posterior; what cannot be had is said, and the rest goes on."""
    found = compared(given)
    # warnings come in this order: what else could explain the numbers, whether the model fits, how much it adds itself
    others: dict[str, Callable[[Given], Scrutiny]] = {
        "violations of parallel trends": violations,
        "replicates of the data": replicated,
        "what was believed before": believed,
        "sensitivity to the prior": powered,
    }
    others |= {} if given.errors.events else {"what two-way fixed effects average": averaged}
    for subject, piece in others.items():
        found = together(found, attempted(subject, piece, given))
    return found if given.answer.beside is None else together(found, given.answer.beside)


def attempted(subject: str, piece: Callable[[Given], Scrutiny], given: Given) -> Scrutiny:
    """The piece, or a line on why it could not be had: a library may refuse what the model does not."""
    try:
        return piece(given)
    except RefusedError as refused:
        reason = str(refused)
    except Exception as error:
        reason = in_one_line(error)
    return Scrutiny({}, {"handled": [f"{subject}: could not be computed ({reason})"]})


def together(one: Scrutiny, two: Scrutiny) -> Scrutiny:
    """Both."""
    said = {subject: [*one.said.get(subject, []), *two.said.get(subject, [])] for subject in (one.said | two.said)}
    return Scrutiny(one.tables | two.tables, said, one.record | two.record, one.figures | two.figures)


def compared(given: Given) -> Scrutiny:
    """Classical estimates, and whether they agree."""
    answer, panel, model = given.answer, given.panel, next(iter(given.answer.tables))
    comparison = compare.compare(answer.tables, given.twins.estimates)
    agreement = agree.agreement(comparison, model)
    said = {
        "agreement": list(agree.in_words(agreement, comparison, model)),
        "warnings": nobody_left(panel),
    }
    tables = {"comparison": comparison, "agreement": agreement}
    return Scrutiny(tables, said, figures={"comparison": lambda: agree.draw(comparison, model)})


def replicated(given: Given) -> Scrutiny:
    """Outcomes drawn from the model: of data.outcome, where there are several."""
    collapsed, answer = given.collapsed, given.answer
    if collapsed.regression.blocks is not None:
        return Scrutiny({}, {"handled": ["replicates of the data: none, as its rows are not in memory"]})
    if given.errors.events:
        check = events.check(collapsed, answer.theta, given.seed)
    else:
        check = residuals.check(collapsed, given.errors, answer.theta, answer.sigma, given.seed)
    record = predictive.record(check)
    figures: Figures = {"predictive": lambda: predictive.draw(check)}
    said = {"replicates": [predictive.in_words(check)], "warnings": record["surprises"]}
    return Scrutiny({"predictive": check.summary}, said, record, figures)


def averaged(given: Given) -> Scrutiny:
    """What the two-way fixed effects coefficient averages."""
    cells, pairs, coefficient = given.twins.average_or_refusal()
    said = {"weights": list(weights.sentences(cells, pairs, coefficient))}
    figures: Figures = {"weights": lambda: weights.draw(cells, pairs, coefficient)}
    return Scrutiny({"weights": cells, "bacon": pairs}, said, figures=figures)


def violations(given: Given) -> Scrutiny:
    """Leads, and the average effect where trends are not parallel; empty where no lead is identified."""
    leads, collapsed = given.answer.leads, given.collapsed
    att = given.additive.found[0]
    if leads is None or not att.identified:
        return Scrutiny({})
    if "-2" not in [average.level for average in leads.found if average.identified]:
        return Scrutiny(
            {}, {"handled": ["violations of parallel trends: no lead two periods before adoption is identified"]}
        )
    event_times = np.array([int(a.level) for a in given.additive.found if a.estimand == "att_event"])
    share, slope_sd = collapsed.regression.design.rows_per_event_time, given.slope_sd * collapsed.s
    draws = sensitivity.violated(leads, event_times, share, collapsed.s, slope_sd, given.seed)
    table, breakdown = sensitivity.table(*draws, given.prob)
    unit = "units of the outcome"
    if given.errors.events or given.panel.is_log:
        unit = "log points, every row alike" if given.errors.events else "log points"
    said = {"trends": [leads.in_words(), *sensitivity.in_words(table, breakdown, unit)]}
    # a conditional Poisson is too sure of everything
    said["warnings"] = [leads.in_words()] if leads.speaks_against() and not given.errors.conditional else []
    if not given.errors.events:
        classical = attempted("HonestDiD", bounded, given)
        table = pd.concat([table, *classical.tables.values()], ignore_index=True)
        said |= classical.said
    record = leads.record() | {"breakdown_kappa": None if np.isinf(breakdown) else breakdown}
    figures: Figures = {"sensitivity": lambda: sensitivity.draw(table, breakdown, unit)}
    return Scrutiny({"sensitivity": table}, said, record, figures)


def bounded(given: Given) -> Scrutiny:
    """The classical counterpart."""
    return Scrutiny({"bounds": given.twins.bounds_or_refusal()})


def believed(given: Given) -> Scrutiny:
    """What the prior says of the average effect, where that is one of coefficients."""
    att = given.additive.found[0]
    if not given.answer.direct or not att.identified:
        return Scrutiny({})
    return Scrutiny({}, {"before": [prior.average_in_words(given.prior, given.collapsed, att, given.prob)]})


def powered(given: Given) -> Scrutiny:
    """How much the prior says."""
    found = powers.sensitivity(given.additive, *given.densities)
    said = {"prior": list(powers.in_words(found)), "warnings": list(powers.sentences(found))}
    return Scrutiny({"powers": found.table}, said, found.record())


def nobody_left(panel: Panel) -> list[str]:
    """A warning where every unit adopts in the end."""
    if not np.isfinite(panel.cohort).all():
        return []
    return [
        "Every unit adopts in the end: effects are told from who adopts later, those long after adoption from hardly "
        "anybody, and a trend over event time common to all cohorts is not told from a trend over time."
    ]
