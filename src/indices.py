"""Columns computed from raw ones, before anything else is done with them: `data.derive`.

    frame ──derive──▶ frame with a column for each entry, and notes on what is mechanical about it

| index | value of a row |
|---|---|
| `sa` | −0.737 Size + 0.043 Size² − 0.040 Age, Size = ln(assets in millions), Age in years since foundation |
| `uncertainty` | SD of sales about their trend over t − 4 … t, over their mean, over its median in industry, period |
| `winsorised` | the column, values beyond two of its quantiles put at these |
| `log1p` | ln(1 + column) |
| `share` | column / of |

A row in which an ingredient is missing, or in which the index is not defined (assets or sales that are not positive,
too short a window, a denominator of zero), has none: rows with a missing covariate or outcome are left out and counted
where the panel is read.

Source: Hadlock & Pierce (2010) for `sa`: higher is more constrained. Ghosh & Olsen (2009) for `uncertainty`, with the
median of the industry as in the literature on Chinese listed firms: higher is more uncertain, 1 is usual.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from src.config import DataConfig, DeriveConfig
from src.panel import PanelError, count
from src.read import labels, numbers
from src.validate import check_named

SIZE, SIZE_SQUARED, AGE = -0.737, 0.043, -0.040
FLAT = -SIZE / (2 * SIZE_SQUARED)  # log of assets in millions at which SA does not move with them
LEAST_SPREAD = 1e-12
type Found = tuple[np.ndarray, list[str]]


def derived(frame: pd.DataFrame, data: DataConfig) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the columns of `data.derive`, in their order, so that one may be made of another.

    Parameters
    ----------
    frame : DataFrame
        Rows of units and periods; left as it is.
    data : DataConfig

    Returns
    -------
    frame : DataFrame
    notes : list of str

    Raises
    ------
    PanelError
        An entry that lacks an ingredient, or names a column that is not there or that would be overwritten.
    """
    notes: list[str] = []
    for name, entry in data.derive.items():
        if name in frame.columns:
            raise PanelError(f"data.derive.{name}: the data have a column of this name: give another")
        check_ingredients(name, entry, frame, data)
        values, said = INDICES[entry.index](frame, entry, data)
        frame = frame.assign(**{name: values})
        missing = int(np.isnan(values).sum())
        if missing == len(frame):
            raise PanelError(f"data.derive.{name}: no row has a value: check that its columns hold numbers")
        lacking = [f"missing in {count(missing, 'row')}"] if missing else []
        notes += [f"{name} ({entry.index}): {words}" for words in (*lacking, *said)]
    return frame, notes


def check_ingredients(name: str, entry: DeriveConfig, frame: pd.DataFrame, data: DataConfig) -> None:
    """Refuse an entry without what its index needs.

    Raises
    ------
    PanelError
    """
    absent = [word for word in NEEDED[entry.index] if getattr(entry, word) is None]
    if absent:
        raise PanelError(f"data.derive.{name}: index={entry.index} needs {', '.join(absent)}")
    own = [(f"data.derive.{name}.{word}", getattr(entry, word)) for word in COLUMNS if getattr(entry, word)]
    check_named(frame, [("data.unit", data.unit), ("data.time", data.time), *own])
    if entry.index == "winsorised" and entry.lower >= entry.upper:
        raise PanelError(f"data.derive.{name}: lower={entry.lower:g} is to be below upper={entry.upper:g}")


def sa(frame: pd.DataFrame, entry: DeriveConfig, data: DataConfig) -> Found:
    """Size-age index of financing constraints; higher is more constrained.

    Assets over the deflator, where there is one, times `millions` are in millions of the currency; Size and Age are
    capped at `most_size` and `most_age` where given (Hadlock & Pierce: ln 4,500 and 37).
    """
    assets = numbers(frame[entry.assets]) * entry.millions
    if entry.deflator is not None:
        assets = assets / numbers(frame[entry.deflator])
    size = np.log(np.where(assets > 0, assets, np.nan))
    age = numbers(frame[data.time]) - numbers(frame[entry.founded])
    age = np.where(age >= 0, age, np.nan)
    if entry.most_size is not None:
        size = np.minimum(size, entry.most_size)
    if entry.most_age is not None:
        age = np.minimum(age, entry.most_age)
    said = [
        "under unit and period effects Age is absorbed, and what is left moves only through "
        f"{SIZE_SQUARED} (Size - {FLAT:.2f})^2, which is flat near assets of {np.exp(FLAT):,.0f} million"
    ]
    near = float(np.mean(np.abs(size[np.isfinite(size)] - FLAT) < 1)) if np.isfinite(size).any() else 0.0
    if near > 0:
        said.append(f"{100 * near:.0f}% of rows are within a factor of e of that")
    return SIZE * size + SIZE_SQUARED * size**2 + AGE * age, said


def uncertainty(frame: pd.DataFrame, entry: DeriveConfig, data: DataConfig) -> Found:
    """Environmental uncertainty: how far sales are from their own trend, beside the usual firm of the industry.

    With v_it the SD (divisor rows - 1) of the residuals of a regression of sales on the period and a constant over the
    unit's rows in t - window + 1 ... t, over the mean of sales in these,

        v_it / median of v_jt over units j of the industry of i in t
    """
    window = entry.window
    unit = pd.factorize(labels(frame[data.unit]), use_na_sentinel=False)[0]
    time, sales = numbers(frame[data.time]), numbers(frame[entry.sales])
    at = pd.Series(sales, index=pd.MultiIndex.from_arrays([unit, time]))
    if at.index.has_duplicates:
        raise PanelError("an index over several periods needs one row for each unit and period")
    back = np.arange(window)[::-1]
    values = np.column_stack([at.reindex(pd.MultiIndex.from_arrays([unit, time - k])).to_numpy() for k in back])
    seen = np.isfinite(values)
    rows = seen.sum(axis=1)
    known = np.where(seen, values, 0.0)
    mean = known.sum(axis=1) / np.maximum(rows, 1)
    period = np.where(seen, -back, 0.0)
    centred = np.where(seen, period - (period.sum(axis=1) / np.maximum(rows, 1))[:, None], 0.0)
    left = np.where(seen, values - mean[:, None], 0.0)
    slope = (centred * left).sum(axis=1) / np.maximum((centred**2).sum(axis=1), LEAST_SPREAD)
    residual = left - slope[:, None] * centred
    enough = (rows >= max(entry.least, 3)) & np.isfinite(sales) & (mean > 0)
    spread = np.sqrt((residual**2).sum(axis=1) / np.maximum(rows - 1, 1))
    variation = np.where(enough, spread / np.where(enough, mean, 1.0), np.nan)
    usual = (
        pd.Series(variation).groupby([labels(frame[entry.industry]).to_numpy(), time]).transform("median").to_numpy()
    )
    said = [
        f"windows of {window} periods straddle adoption before event time {window - 1}: a jump at adoption is itself "
        "uncertainty there"
    ]
    return variation / np.where(usual > 0, usual, np.nan), said


def winsorised(frame: pd.DataFrame, entry: DeriveConfig, data: DataConfig) -> Found:
    """A column whose values beyond two quantiles of all rows are put at these."""
    values = numbers(frame[entry.column])
    low, high = np.nanquantile(values, [entry.lower, entry.upper])
    beyond = int(((values < low) | (values > high)).sum())
    return np.clip(values, low, high), [f"{count(beyond, 'value')} put at {low:.6g} or {high:.6g}"]


def log1p(frame: pd.DataFrame, entry: DeriveConfig, data: DataConfig) -> Found:
    """ln(1 + x); its effects are no percentages where x is often zero."""
    values = numbers(frame[entry.column])
    zeros = float(np.mean(values[np.isfinite(values)] == 0)) if np.isfinite(values).any() else 0.0
    said = [f"{100 * zeros:.0f}% are zeros: effects depend on the unit of the column, and are no percentages"]
    return np.log1p(np.where(values > -1, values, np.nan)), said if zeros > 0.1 else []


def share(frame: pd.DataFrame, entry: DeriveConfig, data: DataConfig) -> Found:
    """One column over another; none where the other is zero."""
    part, whole = numbers(frame[entry.column]), numbers(frame[entry.of])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole != 0, part / whole, np.nan), []


INDICES: dict[str, Callable[[pd.DataFrame, DeriveConfig, DataConfig], Found]] = {
    "sa": sa,
    "uncertainty": uncertainty,
    "winsorised": winsorised,
    "log1p": log1p,
    "share": share,
}
NEEDED: dict[str, tuple[str, ...]] = {
    "sa": ("assets", "founded"),
    "uncertainty": ("sales", "industry"),
    "winsorised": ("column",),
    "log1p": ("column",),
    "share": ("column", "of"),
}
COLUMNS = ("assets", "founded", "deflator", "sales", "industry", "column", "of")
