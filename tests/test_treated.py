"""Effects in single treated rows: averaged as the estimands are, they are the estimands."""

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf

from src.command import UserError
from src.errors import FULL
from src.treated import treated_effects


@pytest.fixture(scope="module")
def tau(small_run):
    return treated_effects(small_run)


@pytest.fixture(scope="module")
def tree(small_run):
    with xr.open_datatree(small_run / "posterior.nc") as tree:
        return tree.load()


def test_rows_alike_are_the_estimands_draw_by_draw(tau, tree):
    effects = tree["estimand"]
    assert tau["known"].all()
    np.testing.assert_allclose(tau.weighted(tau["weight"]).mean("obs"), effects["att"], atol=1e-10)
    for name, of in {"industry": "att_by_industry", "ownership": "att_by_ownership", "event_time": "att_event"}.items():
        np.testing.assert_allclose(tau.groupby(name).mean(), effects[of], atol=1e-10)
    np.testing.assert_allclose(tau.groupby("cohort").mean(), effects["att_cohort"], atol=1e-10)


def test_two_later_rows_of_a_unit_differ_by_path_and_cell(tau, tree):
    """By labels alone: all else of tau is the same once differences are there in full."""
    theta = tree["posterior"]["theta"]
    unit = str(tau["unit"].isel(obs=int(np.argmax(tau["event_time"].to_numpy()))).item())
    mine = tau.isel(obs=(tau["unit"] == unit) & (tau["event_time"] >= len(FULL)))
    assert mine.sizes["obs"] > 3

    def moving(row):
        g, t, e = (int(mine[name][row]) for name in ("cohort", "time", "event_time"))
        return theta.sel(column=f"path[{e}]") + theta.sel(column=f"cell[{g}@{t}]")

    for row in range(1, mine.sizes["obs"]):
        wanted = (moving(row) - moving(0)).to_numpy()
        np.testing.assert_allclose((mine.isel(obs=row) - mine.isel(obs=0)).to_numpy(), wanted, atol=1e-10)


def test_rows_are_those_of_the_data(tau, tree):
    seen = tree["observed_data"].to_dataset().to_dataframe()
    treated = seen[seen["time"] >= seen["cohort"]]
    found = set(zip(tau["unit"].to_numpy(), tau["time"].to_numpy(), strict=True))
    assert found == set(zip(treated["unit"], treated["time"], strict=True))
    assert tau.sizes["obs"] == len(treated)


def test_fewer_draws_are_some_of_them(small_run, tau):
    few = treated_effects(small_run / "posterior.nc", draws=7)
    assert few.sizes["draw"] == 7
    np.testing.assert_array_equal(few, tau.sel(draw=few["draw"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"data": {"seed": 1}}, "data of this run have changed"), ({"model": {"name": "joint"}}, "several outcomes")],
)
def test_what_cannot_be_taken_apart_is_refused(change, said, small_run, tmp_path):
    (tmp_path / ".hydra").mkdir()
    kept = OmegaConf.load(small_run / ".hydra" / "config.yaml")
    if "model" in change:
        kept.model, change = OmegaConf.create({"name": "joint", "beside": "outcomes"}), {}
    OmegaConf.save(OmegaConf.merge(kept, change), tmp_path / ".hydra" / "config.yaml")
    (tmp_path / "posterior.nc").write_bytes((small_run / "posterior.nc").read_bytes())
    with pytest.raises(UserError, match=said):
        treated_effects(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        treated_effects(tmp_path)
