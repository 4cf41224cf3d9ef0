"""The model's estimates beside their classical twins, in one table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from src.frequentist import COLUMNS, estimate
from src.panel import Panel

TWINS = ["estimand", "group", "level", "scale"]


def compare(
    estimands: pd.DataFrame,
    model: str,
    panel: Panel,
    exposures: dict[str, np.ndarray],
    prob: float,
    names: Iterable[str],
) -> pd.DataFrame:
    """Stack the model's rows over those of the named estimators and bring twins together.

    Parameters
    ----------
    estimands : DataFrame
        The table `estimands.csv`: posterior mean and SD become `estimate` and `se`.
    model : str
        Name that the model's rows bear as `estimator`.
    panel : Panel
    exposures : dict of str to array, shape (row,)
    prob : float
        Mass of the intervals of the classical estimators.
    names : iterable of str
        Keys of `src.frequentist.ESTIMATORS`.

    Returns
    -------
    DataFrame
        Columns of `comparison.csv`; all rows of both, also those without a twin.
    """
    posterior = estimands.rename(columns={"mean": "estimate", "sd": "se"}).assign(estimator=model)
    classical = estimate(panel, exposures, prob, names)
    rows = posterior[COLUMNS].to_dict("records") + classical.to_dict("records")
    return beside(pd.DataFrame(rows, columns=COLUMNS))


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows so that twins stand together: estimand, group, level and scale in the order of their first row."""
    keys = table[TWINS].fillna("")
    order = [keys.groupby(TWINS[: depth + 1], sort=False).ngroup().to_numpy() for depth in range(len(TWINS))]
    return table.iloc[np.lexsort(order[::-1])].reset_index(drop=True)
