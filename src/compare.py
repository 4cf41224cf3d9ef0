"""The model's estimates beside their classical twins, in one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from src.average import FIXED
from src.estimators import ESTIMATORS
from src.frequentist import COLUMNS
from src.panel import count

KEYS = ["estimand", "group", "level"]
TWINS = [*KEYS, "scale"]
# to the model's estimand; other estimators follow
CLOSEST_FIRST = [
    *["twfe_exposures", "rings", "etwfe", "etwfe_groups", "twfe"],
    *["poisson_twfe_exposures", "poisson_etwfe", "poisson_twfe"],
]
COMMON = "_common_scale"  # ends the name of the model's rows under one error scale for all units
DISAGREE = 0.5  # posterior SDs


def compare(estimands: dict[str, pd.DataFrame], classical: pd.DataFrame) -> pd.DataFrame:
    """Stack the model's rows over those of classical estimators and bring twins together.

    Parameters
    ----------
    estimands : dict of str to DataFrame
        Tables in the columns of `estimands.csv` by the name that their rows bear as `estimator`, the model's first:
        posterior mean and SD become `estimate` and `se`.
    classical : DataFrame
        Columns of `comparison.csv`.

    Returns
    -------
    DataFrame
        Columns of `comparison.csv`; all rows of both, also those without a twin.
    """
    posterior = [
        table.rename(columns={"mean": "estimate", "sd": "se"}).assign(estimator=name)[COLUMNS]
        for name, table in estimands.items()
    ]
    rows = [row for table in (*posterior, classical) for row in table.to_dict("records")]
    return beside(pd.DataFrame(rows, columns=COLUMNS))


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows so that twins stand together: estimand, group, level and scale in the order of their first row."""
    keys = table[TWINS].fillna("")
    order = [keys.groupby(TWINS[: depth + 1], sort=False).ngroup().to_numpy() for depth in range(len(TWINS))]
    return table.iloc[np.lexsort(order[::-1])].reset_index(drop=True)


def with_twins(table: pd.DataFrame, comparison: pd.DataFrame, scale: str) -> pd.DataFrame:
    """The estimands on one scale, the closest classical estimate of the same beside each.

    Parameters
    ----------
    table : DataFrame
        Columns of `estimands.csv`.
    comparison : DataFrame
        Columns of `comparison.csv`.
    scale : str

    Returns
    -------
    DataFrame
        Columns of the table, group and level as text, and estimator, estimate, low_classical, high_classical,
        note_classical; missing where no estimator has the estimand.
    """
    order = [*CLOSEST_FIRST, *(name for name in ESTIMATORS if name not in CLOSEST_FIRST)]
    of_scale = (comparison["scale"] == scale) & np.isfinite(comparison["estimate"])
    others = keyed(comparison[of_scale & comparison["estimator"].isin(order)])
    nearest = closest(others, order)
    columns = [*KEYS, "estimator", "estimate", "low", "high", "note"]
    mine = keyed(table[table["scale"] == scale])
    return mine.merge(nearest[columns], on=KEYS, how="left", suffixes=("", "_classical"))


def closest(rows: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Of the rows of each estimand those of the estimator that comes first in `order`, which has all of theirs."""
    ordered = rows.sort_values("estimator", key=lambda name: name.map(order.index), kind="stable")
    return ordered.drop_duplicates(KEYS)


def unequal_weights(comparison: pd.DataFrame) -> str:
    """A sentence where one error scale for all units would move the average effect; empty where it would not.

    Scales of their own give precise units more weight. The unit term makes up for effects that go with the scale, but
    where the two answers are far apart, the weights matter.
    """
    rows = comparison[(comparison["estimand"] == "att") & (comparison["scale"] == readable_scale(comparison))]
    rivals = rows[rows["estimator"].str.endswith(COMMON) & np.isfinite(rows["estimate"])]
    if rivals.empty:
        return ""
    rival = rivals.iloc[0]
    own = rows[rows["estimator"] == rival["estimator"].removesuffix(COMMON)].iloc[0]
    if abs(rival["estimate"] - own["estimate"]) < DISAGREE * own["se"]:
        return ""
    digits = 1 if own["scale"] == "percent" else 3
    return (
        f"with one error scale for all units, att would be {rival['estimate']:.{digits}f} "
        f"({rival['low']:.{digits}f} to {rival['high']:.{digits}f}) instead of {own['estimate']:.{digits}f}: units "
        "with small errors count for more here, and the answer depends on that"
    )


def is_fixed(table: pd.DataFrame) -> pd.Series:
    """Whether a row is what the model has it be whatever the data say: nothing found, so nothing to show.

    Under one effect for all, every level has the effect of all and every contrast is exactly zero.
    """
    note = table["note"].astype(object).where(table["note"].notna(), "").astype(str)
    return note.str.startswith(FIXED) | (table["sd"] == 0)


def what_is_fixed(n: int) -> str:
    """One line on the rows that are not shown because the model fixes them; empty where there are none."""
    if not n:
        return ""
    return f"{count(n, 'estimate')} {'is' if n == 1 else 'are'} fixed by the model, not found: see estimands.csv"


def readable_scale(table: pd.DataFrame) -> str:
    """Percent where the table has it, else the scale of the outcome."""
    return "percent" if (table["scale"] == "percent").any() else "outcome"


def read_table(path: Path) -> pd.DataFrame:
    """A table of a run from its file: group and level as text, missing where they are empty and nowhere else."""
    return pd.read_csv(path, dtype={"group": str, "level": str}, keep_default_na=False, na_values=[""])


def keyed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with group and level as text, empty where they do not apply."""
    text = {key: frame[key].astype(object).where(frame[key].notna(), "").astype(str) for key in ("group", "level")}
    return frame.assign(**text)
