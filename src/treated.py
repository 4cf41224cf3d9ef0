"""Effects of own adoption in single treated rows, to be averaged with weights of one's own.

    tau_it = (mu + path_e + cohort_g + cell_gt + sum of group terms + unit_i) at zero exposure, draw by draw

The estimands of a run average tau by the rows that there are. Any other average, by employees, by firms instead of
rows, in a region, is a mean of the same draws with other weights:

    sum of w_it tau_it / sum of w_it

Assumes that w is known, not estimated. Partial pooling draws rows towards each other: the interval of a mean over few
of them is theirs given the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from src import tally, trace
from src.blocks import over
from src.collapse import Collapsed
from src.command import UserError
from src.identify import known_effects
from src.kept import folder_of_run, recollapsed, settings_of
from src.kernel import BLOCKS

EXAMPLE = 'treated_effects("traces/<data>/<model>/<run_id>")'


def treated_effects(run: str | Path, draws: int | None = None) -> xr.DataArray:
    """Draws of the effect of own adoption in every treated row of a run.

    Parameters
    ----------
    run : str or Path
        Folder of a run of `src.fit`; its data must be where they were.
    draws : int, optional
        Of each chain, evenly spaced; all where not given.

    Returns
    -------
    DataArray, dims (chain, draw, obs)
        On the scale of the model: of the outcome as transformed, for counts of the log mean. Coordinates along obs:
        unit, time, cohort, event_time, the levels of every group, weight (of the data, 1 where there are none) and
        known, whether the data speak of the row: elsewhere the model alone does.

    Raises
    ------
    UserError
        There is no such run, it is of several outcomes, its rows are not in memory, its data have changed, or the
        effects of single units are integrated out.
    """
    folder = folder_of_run(run, EXAMPLE)
    settings = settings_of(folder)
    if getattr(settings.model, "beside", ""):
        raise UserError(f"model={settings.model.name} is of several outcomes: ask a run of model=hier of one at a time")
    with xr.open_datatree(folder / "posterior.nc", engine="h5netcdf") as tree:
        theta, attributes = trace.theta(tree).load(), tree.attrs
    collapsed, _ = recollapsed(settings, attributes)
    if collapsed.regression.integrated:
        raise UserError("effects of so many adopters are integrated out: only averages of them are kept, in the group "
                        "estimand of posterior.nc")  # fmt: skip
    most = theta.sizes["draw"] if draws is None else min(draws, theta.sizes["draw"])
    chosen = np.unique(np.linspace(0, theta.sizes["draw"] - 1, most).round().astype(int))
    return effects_of_rows(collapsed, theta.isel(draw=chosen))


def effects_of_rows(collapsed: Collapsed, theta: xr.DataArray) -> xr.DataArray:
    """Draws of tau in the treated rows of a panel; see `treated_effects`.

    Parameters
    ----------
    collapsed : Collapsed
    theta : DataArray, dims (chain, draw, column)
        In units of the outcome, over labelled columns.
    """
    regression = collapsed.regression
    panel, design = regression.panel, regression.design
    rows = np.flatnonzero(panel.treated)
    place = pd.Index(design.all_labels).get_indexer(pd.Index(theta["column"].to_numpy()))
    if (place < 0).any():
        raise UserError("the posterior has columns that these data and settings do not give: fit again with refit=true")
    maps = tally.own_map(regression, rows)[:, place]
    given = theta.transpose("chain", "draw", "column").to_numpy()
    values = (maps @ given.reshape(-1, len(place)).T).T.reshape(*given.shape[:2], len(rows))
    unit = panel.unit[rows]
    about: dict[str, np.ndarray] = {name: np.array(of.levels)[of.code[unit]] for name, of in panel.groups.items()}
    about |= {
        "unit": panel.units[unit].astype(str),
        "time": panel.time[rows],
        "cohort": panel.row_cohort[rows].astype(int),
        "event_time": panel.event_time[rows].astype(int),
        "weight": panel.weight[rows],
        "known": spoken(collapsed, trace.terms(theta)),
    }
    coordinates = {name: ("obs", values_of) for name, values_of in about.items()}
    dims = ("chain", "draw", "obs")
    return xr.DataArray(
        values, dims=dims, coords={**coordinates, "chain": theta["chain"], "draw": theta["draw"]}, name="tau"
    )


def spoken(collapsed: Collapsed, terms: tuple[str, ...]) -> np.ndarray:
    """Whether the data speak of each treated row, given the blocks that the model uses, shape (treated row,)."""
    regression = collapsed.regression
    used = tuple(name for name in terms if name not in BLOCKS)
    seen = over(regression, tally.first)
    return tally.spoken_rows(regression, known_effects(regression.design, collapsed.evidence, seen, used))
