"""A small frame of unit-period rows that every test of the loader starts from, with what it becomes."""

import dataclasses

import numpy as np
import pandas as pd

from src.config import DataConfig
from src.encode import encode
from src.panel import Panel

INF = float("inf")


def tiny(**columns) -> pd.DataFrame:
    """Units a (2002), b (2003), c and d (never) in 2000-2004; row 1 is a in 2000, row 6 is b in 2000, and so on."""
    frame = pd.DataFrame({"firm": np.repeat(list("abcd"), 5), "year": np.tile(np.arange(2000, 2005), 4)})
    frame["first"] = frame["firm"].map({"a": 2002.0, "b": 2003.0})
    frame["y"] = np.random.default_rng(0).normal(5, 1, 20).round(6)
    frame["x"] = np.arange(20.0) ** 2
    frame["ind"] = frame["firm"].map({"a": "01", "b": "NA", "c": "01", "d": "None"})
    frame["z"] = frame["ind"].map({"01": 1.0, "NA": 0.0, "None": 2.0})
    frame["w"] = 1.0 + frame["year"] - 2000
    return frame.assign(**columns)


def settings(**changes) -> DataConfig:
    return DataConfig(**{"name": "tiny", "unit": "firm", "time": "year", "cohort": "first", "outcome": "y", **changes})


def coded(frame: pd.DataFrame, **changes) -> Panel:
    return encode(frame, settings(**changes), "0")


def changed(column: str, values: dict[int, object], dtype: object = None) -> pd.DataFrame:
    """The tiny panel with other values in some rows, counted from 1."""
    frame = tiny()
    frame[column] = frame[column].astype(dtype or frame[column].dtype)
    for row, value in values.items():
        frame.loc[row - 1, column] = value
    return frame


def adoption(a=0, b=0, c=0, d=0) -> np.ndarray:
    """A 0/1 column that each unit turns on after so many periods from the end (0 never)."""
    return np.concatenate([np.r_[np.zeros(5 - n), np.ones(n)] for n in (a, b, c, d)])


def rising(**firms) -> pd.DataFrame:
    return tiny(first=lambda f: f["firm"].map(firms).astype(float))


def same_panel(left: Panel, right: Panel) -> None:
    for field in dataclasses.fields(Panel):
        if field.name not in {"sha256", "name"}:
            np.testing.assert_equal(as_plain(getattr(left, field.name)), as_plain(getattr(right, field.name)))


def as_plain(value):
    if dataclasses.is_dataclass(value):
        return {name: as_plain(part) for name, part in vars(value).items()}
    return {key: as_plain(part) for key, part in value.items()} if isinstance(value, dict) else value
