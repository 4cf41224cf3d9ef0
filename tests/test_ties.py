"""Ties from places and files against loops over pairs, with distances by the haversine formula."""

import subprocess
import sys
from math import asin, cos, exp, radians, sin, sqrt

import numpy as np
import pandas as pd
import pytest

from src import ties
from src.config import DataConfig, ExposureConfig
from src.encode import encode
from src.exposure import row_shares, sources
from src.panel import PanelError
from src.ties import EARTH, distance_ties, neighbour_ties, read_ties, ring
from src.trace import ROOT

UNITS, PERIODS = 30, 5


def haversine(a, b) -> float:
    """Kilometres between two (latitude, longitude) in degrees."""
    (f, x), (g, y) = ([radians(v) for v in p] for p in (a, b))
    h = sin((g - f) / 2) ** 2 + cos(f) * cos(g) * sin((y - x) / 2) ** 2
    return 2 * EARTH * asin(sqrt(h))


def frame() -> pd.DataFrame:
    """Units in a square of about 110 by 90 km, a third of which adopt; the last two stand at the same place."""
    rng = np.random.default_rng(3)
    latitude, longitude = 30 + rng.random(UNITS), 120 + rng.random(UNITS)
    latitude[-1], longitude[-1] = latitude[-2], longitude[-2]
    first = np.where(np.arange(UNITS) % 3 == 0, rng.integers(2, PERIODS + 1, UNITS), 0)
    unit, time = np.repeat(np.arange(UNITS), PERIODS), np.tile(np.arange(1, PERIODS + 1), UNITS)
    return pd.DataFrame(
        {
            "id": np.char.add("u", np.char.zfill(unit.astype(str), 2)), "t": time, "g": first[unit],
            "y": rng.normal(size=len(unit)), "lat": latitude[unit], "lon": longitude[unit],
            "assets": (1 + unit % 4) * 1.5**time, "sector": np.array(list("abc"))[unit % 3 - (unit % 5 == 0)],
        }
    )  # fmt: skip


def exposed(**settings) -> tuple[np.ndarray, list[str]]:
    """The exposure that the settings describe, shape (unit, period), and what is said of it."""
    names = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y")
    names.exposures = {"near": ExposureConfig(**settings)}
    panel = encode(frame(), names, "")
    shares, notes = row_shares(panel)
    return shares["near"].reshape(UNITS, PERIODS), notes


def by_loops(tie, form: str, lag: int = 0, size=None) -> np.ndarray:
    """Exposure with w_ij = tie(kilometres) size_j, one pair after the other; 0 where nobody is in reach."""
    rows = frame()
    at = rows[["lat", "lon"]].to_numpy()[::PERIODS]
    g = rows["g"].to_numpy()[::PERIODS]
    size = np.ones(UNITS) if size is None else size
    found = np.zeros((UNITS, PERIODS))
    for i in range(UNITS):
        w = np.array([0.0 if j == i else tie(haversine(at[i], at[j])) * size[j] for j in range(UNITS)])
        for t in range(1, PERIODS + 1):
            felt = w * ((g > 0) & (g + lag <= t))
            found[i, t - 1] = felt.max() if form == "nearest" else felt.sum()
        if form == "share":
            found[i] /= max(w.sum(), 1e-300)
    return found


PLACES = {"latitude": "lat", "longitude": "lon"}


@pytest.mark.parametrize("form", ["share", "additive", "nearest"])
@pytest.mark.parametrize(
    ("settings", "tie"),
    [
        ({"ring": [0.0, 25.0]}, lambda d: float(d <= 25)),
        ({"ring": [15.0, 40.0]}, lambda d: float(15 < d <= 40)),
        ({"kernel": "exponential", "scale": 12.0}, lambda d: exp(-d / 12) * (d <= 60)),
        ({"kernel": "gaussian", "scale": 20.0, "cutoff": 35.0}, lambda d: exp(-0.5 * (d / 20) ** 2) * (d <= 35)),
        ({"kernel": "triangular", "scale": 30.0}, lambda d: max(1 - d / 30, 0)),
    ],
)
def test_rings_and_kernels_are_loops_over_pairs(settings, tie, form, monkeypatch):
    monkeypatch.setattr(ties, "CHUNK", 7)  # so that the last chunk is a short one
    found, _ = exposed(**settings, **PLACES, form=form)
    np.testing.assert_allclose(found, by_loops(tie, form), atol=1e-9)
    assert found.max() > 0


def test_rings_and_kernels_add_up_where_no_form_is_given():
    found, _ = exposed(ring=[0.0, 25.0], **PLACES)
    np.testing.assert_allclose(found, by_loops(lambda d: float(d <= 25), "additive"))


def test_a_mapping_remembers_places_and_the_ends_of_a_ring():
    names = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y")
    entries = {
        "near": {"ring": [15.0, 40.0]},
        "fading": {"kernel": "gaussian", "scale": 9.0},
        "next": {"neighbours": 3},
    }
    names.exposures = {name: ExposureConfig(**entry, **PLACES) for name, entry in entries.items()}
    names.exposures["sector"] = ExposureConfig(share="sector")
    mappings = encode(frame(), names, "").roster.mappings
    for name in entries:
        np.testing.assert_array_equal(mappings[name].places, frame()[["lat", "lon"]].to_numpy()[::PERIODS])
    assert mappings["sector"].places is None
    assert {name: m.edges for name, m in mappings.items() if m.edges} == {"near": (15.0, 40.0)}


def test_sizes_are_of_the_first_period_and_lags_shift_adoption():
    size = 1.5 * (1 + np.arange(UNITS) % 4)
    found, _ = exposed(kernel="exponential", scale=10.0, size="assets", lag=2, form="share", **PLACES)
    tie = lambda d: exp(-d / 10) * (d <= 50)  # noqa: E731
    np.testing.assert_allclose(found, by_loops(tie, "share", lag=2, size=size), atol=1e-9)


def test_neighbours_are_the_nearest_others():
    rows = frame()
    at, g = rows[["lat", "lon"]].to_numpy()[::PERIODS], rows["g"].to_numpy()[::PERIODS]
    found, _ = exposed(neighbours=4, **PLACES)
    for i in range(UNITS):
        near = sorted((j for j in range(UNITS) if j != i), key=lambda j: haversine(at[i], at[j]))[:4]
        for t in range(1, PERIODS + 1):
            assert found[i, t - 1] == pytest.approx(np.mean([0 < g[j] <= t for j in near]))


def test_a_unit_crowded_out_of_its_own_place_is_not_its_own_neighbour():
    latitude, longitude = np.full(9, 30.0), np.full(9, 120.0)
    found, total = neighbour_ties(latitude, longitude, np.ones(9, dtype=bool), 3, np.ones(9))
    assert not found.diagonal().any()
    assert (total == 3).all()


def test_shares_within_a_column_by_size_and_as_numbers():
    rows = frame()
    sector, g = rows["sector"].to_numpy()[::PERIODS], rows["g"].to_numpy()[::PERIODS]
    size = 1.5 * (1 + np.arange(UNITS) % 4)
    share, _ = exposed(share="sector", size="assets", lag=1)
    number, _ = exposed(share="sector", form="additive")
    for i in range(UNITS):
        others = (sector == sector[i]) & (np.arange(UNITS) != i)
        for t in range(1, PERIODS + 1):
            late = (g > 0) & (g + 1 <= t) & others
            assert share[i, t - 1] == pytest.approx(size[late].sum() / size[others].sum())
            assert number[i, t - 1] == pytest.approx(((g > 0) & (g <= t) & others).sum())


def test_levels_are_exposed_through_an_input_output_table(tmp_path):
    table = pd.DataFrame([("a", "a", 2.0), ("a", "b", 1.0), ("b", "c", 4.0)], columns=["from", "to", "weight"])
    table.to_csv(tmp_path / "io.csv", index=False)
    found, notes = exposed(weights=str(tmp_path / "io.csv"), between="sector")
    rows = frame()
    sector, g = rows["sector"].to_numpy()[::PERIODS], rows["g"].to_numpy()[::PERIODS]

    def treated(level: str, t: int, but: int) -> float:
        members = [j for j in range(UNITS) if sector[j] == level and j != but]
        return float(np.mean([0 < g[j] <= t for j in members]))

    for i in range(UNITS):
        for t in range(1, PERIODS + 1):
            expected = {"a": (2 * treated("a", t, i) + treated("b", t, i)) / 3, "b": treated("c", t, i), "c": 0.0}
            assert found[i, t - 1] == pytest.approx(expected[sector[i]])
    assert "out of reach" in notes[0]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".gal", ".gwt"])
def test_ties_between_units_from_every_kind_of_file(ending, tmp_path):
    path = tmp_path / f"ties{ending}"
    edges = [("u00", "u03", 1.0), ("u01", "u00", 1.0), ("u01", "u02", 1.0), ("u02", "u01", 1.0), ("u03", "u02", 1.0)]
    if ending == ".gal":
        path.write_text("4\nu00 1\nu03\nu01 2\nu00 u02\nu02 1\nu01\nu03 1\nu02\n")
    elif ending == ".gwt":
        path.write_text("0 4 units id\n" + "".join(f"{a} {b} {w}\n" for a, b, w in edges))
    else:
        table = pd.DataFrame(edges, columns=["from", "to", "weight"])
        table.to_csv(path, index=False) if ending == ".csv" else table.to_parquet(path)
    found, _ = exposed(weights=str(path), form="share")
    g = frame()["g"].to_numpy()[::PERIODS]
    for t in range(1, PERIODS + 1):
        assert found[0, t - 1] == (0 < g[3] <= t)
        assert found[1, t - 1] == 0.5 * (0 < g[0] <= t)  # u02 never adopts
    assert not found[2:].any()


def test_what_a_file_of_ties_can_get_wrong(tmp_path):
    labels = np.array(["a", "b"])
    wrong = {
        "from,to,weight\ny,z,1\n": "ties none of the units",
        "from,to,weight\na,b,x\n": "row 1",
        "from,to,weight\na,b,-1\n": "negative",
        "from,to,weight\na,b,1\na,b,2\n": "a to b",
        "a,b\n1,2\n": "no column",
    }
    for text, said in wrong.items():
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(PanelError, match=said):
            read_ties(tmp_path / "t.csv", labels, "units")
    (tmp_path / "t.txt").write_text("a b 1")
    for name, said in (("t.txt", "unknown ending"), ("absent.csv", "no file")):
        with pytest.raises(PanelError, match=said):
            read_ties(tmp_path / name, labels, "units")


def test_those_whom_the_data_do_not_have_are_left_out_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text("from,to\na,b\nb,z\nz,y\n")
    found, strangers = read_ties(tmp_path / "t.csv", np.array(["a", "b"]), "units")
    np.testing.assert_array_equal(found.toarray(), [[0, 1], [0, 0]])
    assert strangers == 2


def test_too_many_ties_are_refused_before_they_are_held(monkeypatch):
    monkeypatch.setattr(ties, "MOST_TIES", 10)
    rng = np.random.default_rng(0)
    with pytest.raises(PanelError, match="smaller"):
        distance_ties(rng.random(20), rng.random(20), np.ones(20, dtype=bool), ring((0, 500)), 500, np.ones(20))


def test_only_ties_to_adopters_are_held_and_totals_are_of_all():
    rng = np.random.default_rng(1)
    latitude, longitude, adopts = rng.random(50), rng.random(50), np.arange(50) % 5 == 0
    some, total = distance_ties(latitude, longitude, adopts, ring((0, 60)), 60, np.ones(50))
    everyone, same = distance_ties(latitude, longitude, np.ones(50, dtype=bool), ring((0, 60)), 60, np.ones(50))
    assert set(some.nonzero()[1]) <= set(np.flatnonzero(adopts))
    np.testing.assert_allclose(total, everyone.sum(axis=1))
    np.testing.assert_allclose(total, same)


@pytest.mark.parametrize(
    "settings",
    [
        {"share": "sector"},
        {"share": "sector", "form": "additive", "size": "assets", "lag": 1},
        {"neighbours": 4, **PLACES},
        {"kernel": "exponential", "scale": 12.0, **PLACES},
        {"kernel": "exponential", "scale": 12.0, "form": "share", "size": "assets", **PLACES},
        {"ring": [0.0, 30.0], "form": "nearest", **PLACES},
    ],
)
def test_what_comes_from_each_adopter_adds_up_to_the_exposure(settings):
    names = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y")
    names.exposures = {"near": ExposureConfig(**settings)}
    panel = encode(frame(), names, "")
    exposure = row_shares(panel)[0]["near"]
    rows = np.random.default_rng(2).random(len(exposure)) < 0.6
    parts = sources(panel, "near", rows)
    assert parts.sum() == pytest.approx(exposure[rows].sum())
    assert not parts[~np.isfinite(panel.roster.cohort)].any()
    assert (parts >= -1e-12).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no kind"),
        ({"share": "sector", "neighbours": 3}, "share and neighbours"),
        ({"ring": [0.0, 80.0]}, "needs latitude and longitude"),
        ({"kernel": "gaussian", **PLACES}, "needs scale"),
        ({"ring": [80.0, 10.0], **PLACES}, "two distances"),
        ({"ring": [1.0], **PLACES}, "two distances"),
        ({"share": "sector", "scale": 3.0}, "no use for scale"),
        ({"share": "sector", "form": "nearest"}, "ties between units"),
        ({"neighbours": 30, **PLACES}, "29 other units"),
        ({"neighbours": 3, "latitude": "lat", "longitude": "far"}, "no column 'far'"),
        ({"neighbours": 3, "latitude": "assets", "longitude": "lon"}, "changes over time"),
        ({"weights": "absent.csv"}, "near: no file"),
    ],
)
def test_what_an_exposure_can_get_wrong(settings, said):
    with pytest.raises(PanelError, match=said):
        exposed(**settings)


def test_places_must_be_on_the_globe():
    rows = frame()
    rows.loc[7, "lat"] = 95.0
    names = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y")
    names.exposures = {"near": ExposureConfig(neighbours=3, **PLACES)}
    with pytest.raises(PanelError, match=r"data.exposures.near.latitude: column 'lat' is not from -90 to 90 in 1 row"):
        encode(rows, names, "")


@pytest.mark.slow
def test_hundred_thousand_units_under_a_wide_kernel_fit_in_four_gigabytes():
    """Exponential kernel of 50 km up to 250 km, 5,000 adopters: about 800 million pairs, 40 million ties."""
    script = """
import resource
import numpy as np
from src.exposure import exposures_of
from src.panel import Mapping
from src.ties import FADING, distance_ties
rng, units = np.random.default_rng(0), 100_000
town = rng.choice(60, units, p=rng.dirichlet(np.full(60, 0.7)))
at = (rng.normal(size=(60, 2)) * [5, 7] + [32, 113])[town] + rng.normal(size=(units, 2)) * [0.5, 0.6]
cohort = np.where(rng.random(units) < 0.05, rng.integers(3, 12, units), np.inf)
weight = lambda d: FADING["exponential"](d, 50.0)
ties, total = distance_ties(*at.T, np.isfinite(cohort), weight, 250.0, np.ones(units))
exposure = exposures_of(Mapping(None, ties, total, form="additive"), cohort[:, None] <= np.arange(12))
assert exposure.shape == (units, 12) and ties.nnz > 10_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4
