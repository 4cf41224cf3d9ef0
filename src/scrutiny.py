"""What stands beside the posterior: classical estimates, what they average, leads, violations, replicates of the data.

Answer, Panel ─▶ comparison ─▶ agreement, weights;  leads ─▶ sensitivity;  replicates ─▶ tables, sentences, figures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from src import agree, compare, estimand, figure, predictive, sensitivity, weights
from src.answer import Answer
from src.collapse import Collapsed
from src.estimand import Scale
from src.panel import Panel

BEYOND = float("inf")
LOUD = 0.5  # posterior SD of the average effect over its prior SD
FAR = 2.0  # prior SDs


@dataclass(frozen=True)
class Scrutiny:
    """Tables, what they say, and their pictures.

    Attributes
    ----------
    tables : dict of str to DataFrame
        By file: comparison, agreement, weights, bacon, sensitivity, predictive.
    said : dict of str to list of str
        Sentences by subject: agreement, weights, trends, and warnings, which come first wherever they are shown.
    record : dict
        For diagnostics.json.
    figures : dict of str to callable
        That draw a figure of this name, or nothing.
    """

    tables: dict[str, pd.DataFrame]
    said: dict[str, list[str]] = field(default_factory=dict)
    record: dict = field(default_factory=dict)
    figures: dict[str, Callable[[], Figure | None]] = field(default_factory=dict)

    @property
    def comparison(self) -> pd.DataFrame:
        """The table that the others start from."""
        return self.tables["comparison"]


def scrutinise(
    answer: Answer,
    prior: xr.DataArray,
    collapsed: Collapsed,
    shares: dict[str, np.ndarray],
    estimators: Iterable[str],
    events: bool,
    slope_sd: float,
    prob: float,
    seed: int,
) -> Scrutiny:
    """Everything that a run says beside its posterior.

    Parameters
    ----------
    answer : Answer
    prior : DataArray, dims (chain, draw, column)
        Draws of the coefficients from their prior, in units of the outcome.
    collapsed : Collapsed
    shares : dict of str to array, shape (row,)
        Exposures.
    estimators : iterable of str
        Keys of `src.estimators.ESTIMATORS`.
    events : bool
        The outcome is a count.
    slope_sd : float
        SD of the slope of violations at adoption, in units of s.
    prob : float
    seed : int
    """
    panel, model = collapsed.regression.panel, next(iter(answer.tables))
    comparison = compare.compare(answer.tables, panel, shares, prob, estimators)
    agreement = agree.agreement(comparison, model)
    tables = {"comparison": comparison, "agreement": agreement}
    said = {"agreement": list(agree.in_words(agreement, comparison, panel, model))}
    said["warnings"] = [
        *loud_prior(answer.scales["log" if events else "outcome"], prior, collapsed),
        *nobody_left(panel),
    ]
    record: dict = {}
    figures: dict[str, Callable[[], Figure | None]] = {"comparison": lambda: agree.draw(comparison, model)}
    if events:
        predicted = predictive.check(collapsed, answer.theta, seed)
        tables["predictive"] = predicted[0]
        record |= predictive.record(predicted)
        said["warnings"] += record["surprises"]
        figures["predictive"] = lambda: figure.predictive(*predicted)
    else:
        cells, pairs = weights.cell_weights(panel), weights.comparisons(panel)
        tables |= {"weights": cells, "bacon": pairs}
        said["weights"] = list(weights.sentences(cells, pairs))
        figures["weights"] = lambda: weights.draw(cells, pairs)
    if answer.leads is not None and "-2" in [a.level for a in answer.leads.found if a.identified]:
        of_model = answer.scales["log" if events else "outcome"]
        event_times = np.array([int(a.level) for a in of_model.found if a.estimand == "att_event"])
        share = collapsed.regression.design.rows_per_event_time
        parallel, violated = sensitivity.violated(
            answer.leads, event_times, share, collapsed.s, slope_sd * collapsed.s, seed
        )
        table, breakdown = sensitivity.table(parallel, violated, prob)
        if not events:
            table = pd.concat([table, sensitivity.honest(panel, prob)], ignore_index=True)
        tables["sensitivity"] = table
        record |= answer.leads.record() | {"breakdown_kappa": None if breakdown == BEYOND else breakdown}
        said["trends"] = [answer.leads.in_words(), *sensitivity.in_words(table, breakdown)]
        if answer.leads.speaks_against():
            said["warnings"].append(answer.leads.in_words())
        unit = "log points" if events or panel.is_log else "units of the outcome"
        figures["sensitivity"] = lambda: sensitivity.draw(table, breakdown, unit)
    return Scrutiny(tables, said, record, figures)


def loud_prior(posterior: Scale, prior: xr.DataArray, collapsed: Collapsed) -> list[str]:
    """A warning where the prior of the average effect is narrow beside what the data say, or far from it."""
    att, labels = posterior.found[0], collapsed.regression.design.all_labels
    drawn = estimand.draw_estimands(prior, labels, [att]).ravel()
    values = posterior.draws[..., 0].ravel()
    if not att.identified or not np.isfinite(values).all():
        return []
    share, away = values.std() / drawn.std(), abs(values.mean() - drawn.mean()) / drawn.std()
    if share < LOUD and away < FAR:
        return []
    return [
        f"The prior speaks loudly: the average effect has prior SD {drawn.std():.3g} and posterior SD "
        f"{values.std():.3g}, its posterior mean is {away:.1f} prior SDs from the prior's. Compare with prior=wide."
    ]


def nobody_left(panel: Panel) -> list[str]:
    """A warning where every unit adopts in the end."""
    if not np.isfinite(panel.cohort).all():
        return []
    return [
        "Every unit adopts in the end: effects are told from who adopts later, those long after adoption from hardly "
        "anybody, and a trend over event time common to all cohorts is not told from a trend over time."
    ]
