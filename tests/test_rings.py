"""The twin by rings against least squares with every dummy written out, two stages by hand, and what is true."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from src import rings as module
from src.config import DataConfig, ExposureConfig
from src.encode import encode
from src.estimators import estimate
from src.exposure import row_shares
from src.frequentist import COLUMNS
from src.panel import Panel
from src.rings import rings
from tests.test_frequentist import pick
from tests.test_ties import haversine

UNITS, PERIODS = 150, 8
AT = {"latitude": "lat", "longitude": "lon"}
TWO = {"near": {"ring": [0.0, 25.0]}, "far": {"ring": [25.0, 60.0]}}
ONE = {"near": {"ring": [0.0, 40.0], "form": "nearest"}}


def frame(common: bool = False) -> pd.DataFrame:
    """Units over about 440 by 380 km, a sixth of which adopt: all in period 4, or in 4, 5 or 7."""
    rng = np.random.default_rng(11)
    latitude, longitude = 30 + 4 * rng.random(UNITS), 120 + 4 * rng.random(UNITS)
    first = np.where(np.arange(UNITS) % 6 == 0, 4 if common else rng.choice([4, 5, 7], UNITS), 0)
    unit, time = np.repeat(np.arange(UNITS), PERIODS), np.tile(np.arange(1, PERIODS + 1), UNITS)
    return pd.DataFrame(
        {
            "id": np.char.zfill(unit.astype(str), 3), "t": time, "g": first[unit],
            "y": rng.normal(size=len(unit)) + unit / 20 + time / 5, "z": rng.normal(size=len(unit)),
            "lat": latitude[unit], "lon": longitude[unit], "lat2": latitude[unit] + 1,
            "sector": unit % 7, "w": 1.0 + unit % 2,
        }
    )  # fmt: skip


def coded(rows: pd.DataFrame, entries: dict, **settings) -> tuple[Panel, dict[str, np.ndarray]]:
    """The panel with rings around its units' places, and its exposures."""
    data = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y", **settings)
    data.exposures = {
        name: ExposureConfig(**({} if "share" in entry else AT) | entry) for name, entry in entries.items()
    }
    panel = encode(rows, data, "")
    return panel, row_shares(panel)[0]


def table(rows: pd.DataFrame, entries: dict, **settings) -> pd.DataFrame:
    return rings(*coded(rows, entries, **settings), 0.95)


def nearest(rows: pd.DataFrame) -> np.ndarray:
    """Kilometres to the nearest unit that has adopted, one row and one pair after the other."""
    first = rows.drop_duplicates("id")
    adopters = [(g, (f, x)) for g, f, x in zip(first["g"], first["lat"], first["lon"], strict=True) if g]
    return np.array(
        [
            min((haversine((f, x), at) for g, at in adopters if g <= t), default=np.inf)
            for t, f, x in zip(rows["t"], rows["lat"], rows["lon"], strict=True)
        ]
    )


def regressors(rows: pd.DataFrame, edges: tuple[float, ...]) -> np.ndarray:
    """D, and whether the nearest adopter of an untreated row stands in each ring; shape (row, 1 + ring)."""
    treated, distance = ((rows["g"] > 0) & (rows["g"] <= rows["t"])).to_numpy(), nearest(rows)
    within = [~treated & (distance > a - (a == 0)) & (distance <= b) for a, b in pairwise(edges)]
    return np.column_stack([treated, *within]).astype(float)


def dummies(rows: pd.DataFrame) -> np.ndarray:
    return np.column_stack([pd.get_dummies(rows["id"]), pd.get_dummies(rows["t"])]).astype(float)


def test_with_one_date_it_is_two_way_fixed_effects_with_rings():
    rows = frame(common=True)
    x = regressors(rows, (0, 25, 60))
    slopes = np.linalg.lstsq(np.column_stack([x, dummies(rows)]), rows["y"].to_numpy())[0][:3]
    found = table(rows, TWO)
    assert pick(found, "total_treated").estimate == pytest.approx(slopes[0], abs=1e-6)
    exposed = x[:, 1:].any(axis=1)
    assert pick(found, "spill_control").estimate == pytest.approx(x[exposed, 1:].mean(axis=0) @ slopes[1:], abs=1e-6)
    assert pick(found, "overall").estimate == pytest.approx(x.mean(axis=0) @ slopes, abs=1e-6)
    assert pick(found, "spill_control").n_obs == exposed.sum()


def test_staggered_it_is_two_stages_with_the_error_of_the_first():
    rows = frame()
    x, fixed, y = regressors(rows, (0, 40)), dummies(rows), rows["y"].to_numpy()
    clean = (x.sum(axis=1) == 0)[:, None] * fixed
    inverse = np.linalg.pinv(clean.T @ clean, rcond=1e-10, hermitian=True)
    left = y - fixed @ inverse @ (clean.T @ y)
    slopes = np.linalg.solve(x.T @ x, x.T @ left)
    found = table(rows, ONE)
    total, slope = pick(found, "total_treated"), pick(found, "spill_per_pp", "near", "control")
    np.testing.assert_allclose([total.estimate, slope.estimate], slopes, atol=1e-6)
    scores = clean @ (inverse @ (fixed.T @ x)) * left[:, None] - x * (left - x @ slopes)[:, None]
    sums = scores.reshape(UNITS, PERIODS, 2).sum(axis=1)
    n = len(rows)
    bread = np.linalg.inv(x.T @ x)
    covariance = bread @ (sums.T @ sums) @ bread * UNITS / (UNITS - 1) * (n - 1) / (n - 2)
    np.testing.assert_allclose([total.se, slope.se], np.sqrt(np.diag(covariance)), rtol=0.01)


@pytest.mark.parametrize("entries", [TWO, {"near": {"ring": [0.0, 60.0]}}])
def test_averages_are_the_models_where_more_adopters_do_more(entries):
    """Without noise, the outcome linear in the number of adopters within reach, effects that differ between units."""
    rows = frame()
    panel, shares = coded(rows, entries)
    treated, tau = panel.treated, 0.1 * (panel.unit % 5)
    to_control, to_treated = sum(0.3 * s for s in shares.values()), sum(-0.2 * s for s in shares.values())
    effect = np.where(treated, tau + to_treated, to_control)
    assert max(s.max() for s in shares.values()) > 1
    found = table(rows.assign(y=panel.unit / 20 + panel.time / 5 + effect), entries)
    exposed = ~treated & np.any([s > 0 for s in shares.values()], axis=0)
    expected = {"total_treated": treated, "spill_control": exposed, "overall": np.ones(len(treated), dtype=bool)}
    for estimand, mask in expected.items():
        assert pick(found, estimand).estimate == pytest.approx(effect[mask].mean(), abs=1e-7)
        assert pick(found, estimand).n_obs == mask.sum()
    assert list(found["estimand"]) == list(expected)  # a slope per adopter is not the effect of a ring


def test_the_slope_is_given_where_the_exposure_is_its_ring():
    found = table(frame(), ONE)
    slope, mean = pick(found, "spill_per_pp", "near", "control"), pick(found, "spill_control")
    assert slope.estimate == mean.estimate
    assert slope.se == mean.se
    assert "clustered by unit" in slope.note
    both = table(frame(), ONE | {"sector": {"share": "sector"}})
    assert "spill_per_pp" not in set(both["estimand"])


def test_exposures_without_rings_are_said_to_be_left_out():
    found = table(frame(), ONE | {"sector": {"share": "sector"}})
    assert list(found["estimand"]) == ["total_treated"]
    assert "exposed in other ways" in found["note"].item()
    assert found["estimate"].item() == pytest.approx(pick(table(frame(), ONE), "total_treated").estimate)
    kernel = table(frame(), ONE | {"fading": {"kernel": "exponential", "scale": 30.0, "cutoff": 40.0}})
    assert list(kernel["estimand"]) == ["total_treated", "spill_control", "overall"]  # it reaches as far as the ring
    assert not kernel["note"].str.contains("exposed in other ways").any()


def test_a_ring_that_begins_farther_off_has_no_spillover_on_exactly_those_exposed():
    found = table(frame(), {"far": {"ring": [25.0, 60.0]}})
    assert list(found["estimand"]) == ["total_treated"]
    assert "0, 25 and 60 km" in found["note"].item()
    assert found["estimate"].item() == pytest.approx(pick(table(frame(), TWO), "total_treated").estimate)


def test_a_ring_in_which_nobody_stands_changes_nothing():
    finer = {"a": {"ring": [0.0, 0.001]}, "b": {"ring": [0.001, 40.0]}}
    found, plain = table(frame(), finer), table(frame(), {"near": {"ring": [0.0, 40.0]}})
    assert list(found["estimand"]) == list(plain["estimand"])
    np.testing.assert_allclose(found[["estimate", "se"]], plain[["estimate", "se"]], rtol=1e-8)


def test_longitudes_may_be_counted_from_the_date_line():
    rows = frame()
    west, east = rows.assign(lon=rows["lon"] - 300), rows.assign(lon=rows["lon"] + 60)
    np.testing.assert_allclose(table(west, ONE)["estimate"], table(east, ONE)["estimate"], rtol=1e-8)


@pytest.mark.parametrize(
    "entries", [{}, {"sector": {"share": "sector"}}, {"fading": {"kernel": "gaussian", "scale": 9.0}}]
)
def test_without_rings_there_are_no_rows(entries):
    found = table(frame(), entries)
    assert found.empty
    assert list(found.columns) == COLUMNS


@pytest.mark.parametrize(
    ("entries", "settings", "said"),
    [
        (ONE, {"covariates": ["z"]}, "no covariates"),
        (ONE, {"weights": "w"}, "no sampling weights"),
        (ONE, {"fixed_effects": ["sector"]}, "no fixed effects"),
        (ONE | {"other": {"ring": [0.0, 9.0], "latitude": "lat2"}}, {}, "one set of places"),
        ({"near": {"ring": [0.0, 2000.0]}}, {}, "farther than 2000 km from all adopters in 4, 5, 6 and 2 more"),
    ],
)
def test_where_it_cannot_run_it_says_why(entries, settings, said):
    found = table(frame(), entries, **settings)
    assert list(found["estimand"]) == ["total_treated"]
    assert np.isnan(found["estimate"].item())
    assert found["note"].item().startswith("not run: ")
    assert said in found["note"].item()


def test_rows_that_it_needs():
    rows = frame()
    assert "a row of every unit in every period" in table(rows.drop(index=3), ONE)["note"].item()
    always = rows.assign(
        g=np.where(rows["id"] == "000", 1, rows["g"])
    )  # the likelihood leaves unit 0 out, who exposes others
    assert "1 adopter that the rows leave out stand" in table(always, {"near": {"ring": [0.0, 90.0]}})["note"].item()
    remote = always.assign(lat=np.where(rows["id"] == "000", -30, rows["lat"]))
    assert np.isfinite(table(remote, ONE)["estimate"]).all()


@pytest.mark.parametrize("dense", [5_000, 0])
def test_too_much_memory_is_refused(monkeypatch, dense):
    monkeypatch.setattr(module, "DENSE", dense)
    monkeypatch.setattr(module, "MOST_MEMORY", 400.0 * UNITS * PERIODS)
    assert "GB for distances" in table(frame(), ONE)["note"].item()
    monkeypatch.setattr(module, "MOST_MEMORY", 2e9)
    assert np.isfinite(table(frame(), ONE)["estimate"]).all()


def test_it_is_one_of_the_estimators():
    panel, shares = coded(frame(), ONE)
    pd.testing.assert_frame_equal(estimate(panel, shares, 0.9, ["rings"]), rings(panel, shares, 0.9))
