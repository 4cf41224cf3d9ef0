"""Two runs compared: shifts that are known, overlaps in closed form, settings apart, what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy.stats import norm

from src import trace, versus

SHIFT = 0.1  # of every effect by ownership, in log points


@pytest.fixture(scope="module")
def other(small_run, tmp_path_factory):
    """The run with other effects by ownership, another prior and seed, without effects by event time."""
    folder = shutil.copytree(small_run, tmp_path_factory.mktemp("other") / "other")
    tree = trace.load(folder / "posterior.nc")
    estimands = tree["estimand"].to_dataset()
    estimands["att_by_ownership"] = estimands["att_by_ownership"] + SHIFT
    tree["estimand"] = tree["estimand"].assign(estimands)
    tree.attrs |= {"run_id": "0123456789ab", "code_version": "ffffffffffff"}
    trace.save(tree, folder / "posterior.nc")
    table = pd.read_csv(folder / "estimands.csv", keep_default_na=False, na_values=[""], dtype={"level": str})
    by = (table["estimand"] == "att_by") & (table["group"] == "ownership") & (table["scale"] == "outcome")
    table.loc[by, ["mean", "low", "high", "median"]] += SHIFT
    table[table["estimand"] != "att_event"].to_csv(folder / "estimands.csv", index=False)
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    config.prior.sd, config.seed, config.progress = 0.3, 7, True
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    return folder


@pytest.fixture(scope="module")
def compared(small_run, other, tmp_path_factory):
    place = tmp_path_factory.mktemp("versus")
    assert versus.main([str(small_run), str(other / "posterior.nc"), "--folder", str(place)]) == 0
    return place


def test_shifts_are_those_that_were_made(small_run, other, compared):
    table = pd.read_csv(compared / "versus.csv", keep_default_na=False, na_values=[""])
    assert list(table) == versus.COLUMNS
    assert "att_event" not in set(table["estimand"])
    moved = table[(table["estimand"] == "att_by") & (table["group"] == "ownership") & (table["scale"] == "outcome")]
    np.testing.assert_allclose(moved["shift"], SHIFT)
    np.testing.assert_allclose(moved["in_sds"], SHIFT / moved["sd_a"])
    closed = 2 * norm.cdf(-SHIFT / moved["sd_a"] / 2)
    np.testing.assert_allclose(moved["overlap"], closed, atol=0.04)
    others = table[(table["scale"] == "outcome") & ~table.index.isin(moved.index)]
    assert not others["shift"].any()
    np.testing.assert_allclose(others["overlap"], 1)
    in_percent = table[table["scale"] == "percent"].merge(
        table[table["scale"] == "outcome"], on=[*versus.KEYS[:2], "level"]
    )
    np.testing.assert_array_equal(in_percent["overlap_x"], in_percent["overlap_y"])  # the same function of both
    assert len(in_percent) > 50
    assert (compared / "versus.png").stat().st_size > 20_000


def test_settings_data_and_code_are_told_apart(small_run, other, compared, capsys):
    settings = pd.read_csv(compared / "settings.csv")
    rows = settings.set_index("setting")
    assert set(rows.index) == {"prior.sd", "seed"}  # progress is none of results
    assert rows.loc["prior.sd"].astype(float).tolist() == [0.5, 0.3]
    a, b = versus.read(small_run), versus.read(other)
    told = "\n".join(versus.said(a, b, versus.compared(a, b), versus.settings_apart(a, b)))
    assert "data: the same (" in told
    assert "code: not the same (a " in told
    assert "b ffffffffffff)" in told
    assert "the largest shift is that of att_by ownership" not in told  # its percentages were left as they are
    assert "a shift has no interval" in told


def test_a_run_is_itself(small_run):
    a = versus.read(small_run)
    table = versus.compared(a, a)
    assert not table["shift"].any()
    varies = table["sd_a"] > 0
    assert varies.sum() > 100
    np.testing.assert_allclose(table.loc[varies, "overlap"], 1)
    assert versus.settings_apart(a, a).empty
    assert "a and b are the same run" in list(versus.said(a, a, table, versus.settings_apart(a, a)))


@pytest.mark.parametrize(("distance", "scale"), [(0.0, 1.0), (0.5, 1.0), (2.0, 1.0), (8.0, 1.0), (0.0, 3.0)])
def test_overlap_is_that_of_normals(distance, scale):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=4000), rng.normal(distance, scale, size=4000)
    grid = np.linspace(-30, 30, 200_001)
    wanted = np.minimum(norm.pdf(grid), norm.pdf(grid, distance, scale)).sum() * (grid[1] - grid[0])
    assert versus.overlap(a, b) == pytest.approx(wanted, abs=0.035)
    assert versus.overlap(1e-6 * a, 1e-6 * b) == pytest.approx(versus.overlap(a, b), abs=1e-6)
    assert versus.overlap(a, b) == pytest.approx(versus.overlap(b, a))


def test_overlap_of_what_does_not_vary():
    ones, moving = np.ones(10), np.random.default_rng(0).normal(size=10)
    assert versus.overlap(ones, ones) == 1
    assert np.isnan(versus.overlap(ones, moving))
    assert np.isnan(versus.overlap(moving, np.full(10, np.nan)))


def frame(**changes) -> pd.DataFrame:
    rows = {
        "estimand": ["att", "overall"],
        "group": "",
        "level": "",
        "scale": "outcome",
        "prob_a": 0.95,
        "prob_b": 0.95,
    }
    rows |= {"mean_a": [0.2, 0.1], "mean_b": [0.3, 0.1], "in_sds": [1.5, 0.0], "overlap": [0.45, 0.97]}
    return pd.DataFrame(rows | changes)


def test_the_largest_shift_is_said_in_words():
    told = "\n".join(versus.about_shifts(frame()))
    assert "of 2 estimates that are in both runs, 1 shift by less than 0.25 posterior SDs and 1 by more than 1" in told
    assert "that of att: from 0.200 to 0.300 in units of the outcome, 1.50 posterior SDs" in told
    assert "45% in common" in told
    assert list(versus.about_shifts(frame(in_sds=np.nan))) == ["no estimate that varies is in both runs"]


def test_intervals_of_other_mass_are_said():
    assert list(versus.about_intervals(frame())) == []
    assert "95% in a and 90% in b" in next(versus.about_intervals(frame(prob_b=0.9)))


def test_effects_on_other_outcomes_are_not_passed_off_as_comparable(small_run):
    from dataclasses import replace

    a = versus.read(small_run)
    b = replace(a, settings=a.settings | {"data.transform": '"asinh"'}, ok=False)
    told = list(versus.said(a, b, versus.compared(a, a), versus.settings_apart(a, b)))
    assert any(line.startswith("not the same data.transform") for line in told)
    assert any("diagnostics of b do not pass" in line for line in told)


def test_the_table_and_the_files_are_printed(small_run, tmp_path, capsys):
    folder = shutil.copytree(small_run, tmp_path / "mine")
    assert versus.main([str(folder), str(small_run)]) == 0
    out = capsys.readouterr().out
    assert "att_by ownership private" in out
    run_id = trace.kept_run_id(small_run / "posterior.nc")
    assert str(folder / "versus" / run_id / "versus.csv") in out


@pytest.mark.parametrize("broken", ["", "posterior.nc", "estimands.csv", ".hydra/config.yaml", "diagnostics.json"])
def test_what_is_no_run_is_refused_and_nothing_is_written(broken, small_run, tmp_path, capsys):
    if broken:
        for name in ("posterior.nc", "estimands.csv", "diagnostics.json", ".hydra/config.yaml"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(small_run / name, tmp_path / name)
        (tmp_path / broken).write_bytes(b"{")
    for pair in ([tmp_path, small_run], [small_run, tmp_path]):
        assert versus.main([*map(str, pair), "--folder", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert ("cannot be read" if broken else "holds no finished run") in error
        assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_settings_are_told_under_dotted_names():
    found = dict(versus.flat({"a": {"b": 1, "c": {}}, "d": [1, "x"]}))
    assert found == {"a.b": "1", "a.c": "{}", "d": json.dumps([1, "x"])}
