"""Columns computed from raw ones, against the same by hand, a row at a time."""

from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest

from src.command import UserError
from src.config import DeriveConfig
from src.encode import encode, load
from src.fit import rows_of
from src.indices import derived
from src.panel import PanelError
from tests.test_command import composed


def firms():
    """Forty firms of four industries in ten years, with holes."""
    rng = np.random.default_rng(3)
    unit, year = np.repeat(np.arange(40), 10), np.tile(np.arange(2006, 2016), 40)
    industry = rng.integers(0, 4, 40)[unit]
    frame = pd.DataFrame(
        {
            "firm": np.char.add("f", unit.astype(str)),
            "year": year,
            "industry": np.char.add("C", industry.astype(str)),
            "assets": np.exp(rng.normal(21, 1.5, len(unit))),
            "founded": rng.integers(1950, 2005, 40)[unit],
            "deflator": 1 + 0.02 * (year - 2006),
            "sales": np.exp(rng.normal(3, 0.3, len(unit)) + 0.1 * (year - 2006)),
            "invention": rng.poisson(1.0, len(unit)),
            "patents": 0,
            "cohort": np.where(unit < 8, 2012.0, np.nan),
            "y": rng.normal(size=len(unit)),
        }
    )
    frame["patents"] = frame["invention"] + rng.poisson(1.0, len(unit))
    frame.loc[rng.choice(len(frame), 15, replace=False), "sales"] = np.nan
    return frame.drop(index=rng.choice(len(frame), 20, replace=False)).reset_index(drop=True)


def settings(**derive):
    data = composed(
        "data=csv", "data.path=x.csv", "data.unit=firm", "data.time=year", "data.cohort=cohort", "data.outcome=y"
    ).data
    data.derive = derive
    return data


def test_size_and_age():
    frame = firms()
    entry = DeriveConfig("sa", assets="assets", founded="founded", deflator="deflator", millions=1e-6, most_age=37)
    found, notes = derived(frame, settings(constrained=entry))
    for _, row in found.iterrows():
        size = np.log(row["assets"] / row["deflator"] / 1e6)
        age = min(row["year"] - row["founded"], 37)
        assert row["constrained"] == pytest.approx(-0.737 * size + 0.043 * size**2 - 0.040 * age)
    assert any("Age is absorbed" in note and "8.57" in note and "5,2" in note for note in notes)
    assert "constrained" not in frame


def test_sa_is_undefined_without_assets_or_before_foundation():
    frame = firms().assign(founded=2008)
    frame.loc[3, "assets"] = 0.0
    found, notes = derived(frame, settings(x=DeriveConfig("sa", assets="assets", founded="founded")))
    missing = (frame["year"] < 2008) | (frame.index == 3)
    np.testing.assert_array_equal(found["x"].isna(), missing)
    assert f"x (sa): missing in {missing.sum()} rows" in notes


def test_uncertainty_is_what_polyfit_leaves_over_the_mean_over_the_median():
    frame = firms()
    entry = DeriveConfig("uncertainty", sales="sales", industry="industry", window=5, least=4)
    found, notes = derived(frame, settings(uncertain=entry))
    raw = np.full(len(frame), np.nan)
    for k, row in frame.iterrows():
        mine = frame[(frame["firm"] == row["firm"]) & frame["year"].between(row["year"] - 4, row["year"])]
        mine = mine.dropna(subset="sales")
        if len(mine) >= 4 and np.isfinite(row["sales"]):
            trend = np.polyval(np.polyfit(mine["year"] - 2010, mine["sales"], 1), mine["year"] - 2010)
            raw[k] = np.std(mine["sales"] - trend, ddof=1) / mine["sales"].mean()
    median = pd.Series(raw).groupby([frame["industry"], frame["year"]]).transform("median")
    np.testing.assert_allclose(found["uncertain"], raw / median, rtol=1e-9)
    assert np.isfinite(raw).sum() > 100
    assert any("before event time 4" in note for note in notes)


def test_winsorised_logs_and_shares():
    frame = firms()
    data = settings(
        sales_w=DeriveConfig("winsorised", column="sales", lower=0.05, upper=0.9),
        log_patents=DeriveConfig("log1p", column="patents"),
        quality=DeriveConfig("share", column="invention", of="patents"),
        log_quality=DeriveConfig("log1p", column="quality"),
    )
    found, notes = derived(frame, data)
    low, high = np.nanquantile(frame["sales"], [0.05, 0.9])
    np.testing.assert_allclose(found["sales_w"], frame["sales"].clip(low, high))
    np.testing.assert_allclose(found["log_patents"], np.log(1 + frame["patents"]))
    none = frame["patents"] == 0
    np.testing.assert_array_equal(found["quality"].isna(), none)
    np.testing.assert_allclose(found["quality"][~none], (frame["invention"] / frame["patents"])[~none])
    np.testing.assert_allclose(found["log_quality"][~none], np.log1p(found["quality"][~none]))
    assert any(note.startswith("log_patents (log1p):") and "zeros" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("x", DeriveConfig("sa", assets="assets"), "index=sa needs founded"),
        ("x", DeriveConfig("share", column="sales", of="nothing"), "no column 'nothing'"),
        ("x", DeriveConfig("log1p", column="patent"), "did you mean 'patents'"),
        ("sales", DeriveConfig("log1p", column="sales"), "have a column of this name"),
        ("x", DeriveConfig("winsorised", column="sales", lower=0.9, upper=0.1), "lower=0.9 is to be below upper=0.1"),
        ("x", DeriveConfig("log1p", column="firm"), "no row has a value"),
    ],
)
def test_entries_that_cannot_be(name, entry, said):
    with pytest.raises(PanelError, match=said):
        derived(firms(), settings(**{name: entry}))


@pytest.mark.parametrize(
    ("frame", "told", "said"),
    [
        (firms(), "data.time=yeer", r"no column 'yeer' \(data.time; did you mean 'year'\?\)"),
        (firms().assign(more=1.0).rename(columns={"more": "assets"}), "data.time=year", "several columns are named"),
        (firms().iloc[:0], "data.time=year", "the data have no rows"),
    ],
)
def test_frames_that_cannot_be_are_refused_as_without_indices(frame, told, said):
    data = settings(x=DeriveConfig("sa", assets="assets", founded="founded"))
    data.time = told.partition("=")[2]
    with pytest.raises(PanelError, match=said):
        encode(frame, data, "")


def test_an_index_is_a_covariate_like_any_other(tmp_path):
    path = tmp_path / "firms.csv"
    firms().to_csv(path, index=False)
    told = "data.derive={constrained: {index: sa, assets: assets, founded: founded, millions: 1e-6}}"
    data = composed(
        "data=csv", f"data.path={path}", "data.unit=firm", "data.time=year", "data.cohort=cohort", "data.outcome=y",
        "data.covariates=[constrained]", told,
    ).data  # fmt: skip
    panel = load(data)
    assert panel.covariate_names == ("constrained",)
    assert any("Age is absorbed" in note for note in panel.notes)


def test_panels_by_block_take_columns_computed_beforehand(tmp_path):
    firms().to_parquet(tmp_path / "firms.parquet")
    config = composed(
        "data=csv", f"data.path={tmp_path}", "data.unit=firm", "data.time=year", "data.cohort=cohort",
        "data.outcome=y", "data.derive={w: {index: log1p, column: patents}}",
    )  # fmt: skip
    with ExitStack() as stack, pytest.raises(UserError, match="compute the columns beforehand"):
        rows_of(config, stack)
