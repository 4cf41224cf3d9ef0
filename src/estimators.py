"""The classical estimators by name, and what each of them says of a panel; a new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from src.clusters import twfe_clusters
from src.frequentist import COLUMNS, Effect, etwfe, etwfe_groups, tabulate, twfe, twfe_exposures
from src.panel import Panel, PanelError, in_one_line
from src.poisson import poisson_etwfe, poisson_twfe, poisson_twfe_cr3, poisson_twfe_exposures
from src.rings import rings
from src.staggered import bjs, cs, cs_never, did2s, sunab

Estimator = Callable[[Panel, dict[str, np.ndarray], float], pd.DataFrame]
ESTIMATORS: dict[str, Estimator] = {
    "twfe": twfe,
    "twfe_exposures": twfe_exposures,
    "etwfe": etwfe,
    "etwfe_groups": etwfe_groups,
    "rings": rings,
    "cs": cs,
    "cs_never": cs_never,
    "sunab": sunab,
    "bjs": bjs,
    "did2s": did2s,
    "twfe_clusters": twfe_clusters,
    "poisson_twfe": poisson_twfe,
    "poisson_twfe_exposures": poisson_twfe_exposures,
    "poisson_etwfe": poisson_etwfe,
    "poisson_twfe_cr3": poisson_twfe_cr3,
}


def estimate(
    panel: Panel,
    exposures: dict[str, np.ndarray],
    prob: float,
    names: Iterable[str],
    known: Mapping[str, Estimator] | None = None,
) -> pd.DataFrame:
    """Rows of the named estimators; one that cannot run says why in its note and the others go on.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
    prob : float
        Mass of the intervals.
    names : iterable of str
        Keys of `known`.
    known : dict of str to callable, optional
        `ESTIMATORS` where not given.

    Raises
    ------
    PanelError
        A name is unknown.
    """
    names, known = list(names), ESTIMATORS if known is None else known
    if unknown := [name for name in names if name not in known]:
        raise PanelError(f"unknown estimators {unknown}: choose from {list(known)}")
    tables = []
    for name in names:
        try:
            tables.append(known[name](panel, exposures, prob))
        except Exception as error:
            reason = f"could not run: {in_one_line(error)}"
            absent = Effect("att", None, None, np.nan, np.nan, (panel.treated,), reason)
            tables.append(tabulate(panel, [absent], name, prob).head(1))
    rows = [row for table in tables for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=COLUMNS)
