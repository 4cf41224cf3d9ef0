"""All that is said beside a posterior and asks for the panel alone: classical estimates, what they average, bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from src import sensitivity, weights
from src.estimators import estimate
from src.panel import Panel, in_one_line


class RefusedError(ValueError):
    """A library could not do what was asked of it; the reason in one line."""


@dataclass(frozen=True)
class Twins:
    """What classical estimators find.

    Attributes
    ----------
    estimates : DataFrame
        Rows in the columns of `comparison.csv`.
    average : tuple of (DataFrame, DataFrame, float), optional
        Of two-way fixed effects: weights of cells, comparisons of cohorts, coefficient.
    bounds : DataFrame, optional
        HonestDiD's.
    refused : dict of str to str
        Why one of the latter two could not be had, by its name.
    """

    estimates: pd.DataFrame
    average: tuple[pd.DataFrame, pd.DataFrame, float] | None = None
    bounds: pd.DataFrame | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def average_or_refusal(self) -> tuple[pd.DataFrame, pd.DataFrame, float]:
        """What two-way fixed effects averages.

        Raises
        ------
        RefusedError
        """
        if self.average is None:
            raise RefusedError(self.refused["average"])
        return self.average

    def bounds_or_refusal(self) -> pd.DataFrame:
        """HonestDiD's bounds.

        Raises
        ------
        RefusedError
        """
        if self.bounds is None:
            raise RefusedError(self.refused["bounds"])
        return self.bounds


def twins(panel: Panel, exposures: dict[str, np.ndarray], prob: float, names: tuple[str, ...], counts: bool) -> Twins:
    """Estimates of the named estimators; of a linear model also what they average and how far trends may fail.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
    prob : float
    names : tuple of str
        Keys of `src.estimators.ESTIMATORS`.
    counts : bool
        The outcome is a count.
    """
    estimates = estimate(panel, exposures, prob, names)
    if counts:
        return Twins(estimates)
    refused: dict[str, str] = {}

    def attempted[T](name: str, piece: Callable[[], T]) -> T | None:
        try:
            return piece()
        except Exception as error:  # a library may refuse what the model does not
            refused[name] = in_one_line(error)
            return None

    average = attempted("average", lambda: averages(panel))
    return Twins(estimates, average, attempted("bounds", lambda: sensitivity.honest(panel, prob)), refused)


def averages(panel: Panel) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """What the two-way fixed effects coefficient averages."""
    return weights.cell_weights(panel), weights.comparisons(panel), weights.coefficient(panel)
