"""The sampler's verdict: sound chains pass, each fault is named with its remedy."""

import json

import arviz_stats as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from src.diagnose import attempts, diagnose, doubts, errors_in_words, fraction_of_missing_information, parameters

CHAINS, DRAWS = 4, 1000
DIMS = ("chain", "draw")


def tree_of(**changes) -> xr.DataTree:
    """Independent draws of mu, one spread and two cells, with an unremarkable sampler."""
    rng = np.random.default_rng(0)
    posterior = {
        "mu": rng.normal(size=(CHAINS, DRAWS)),
        "sd_cell": np.exp(rng.normal(size=(CHAINS, DRAWS))),
        "cell_effect": rng.normal(size=(CHAINS, DRAWS, 2)),
    }
    statistics = {"energy": rng.normal(size=(CHAINS, DRAWS)), "diverging": np.zeros((CHAINS, DRAWS), dtype=bool)}
    posterior |= {name: value for name, value in changes.items() if name in posterior}
    statistics |= {name: value for name, value in changes.items() if name in statistics}
    dims = {2: ("chain", "draw"), 3: ("chain", "draw", "cell")}
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({name: (dims[value.ndim], value) for name, value in posterior.items()}),
            "sample_stats": xr.Dataset({name: (dims[2], value) for name, value in statistics.items()}),
        }
    )


def estimands_of(**changes) -> pd.DataFrame:
    row = {"estimand": "att_by", "group": "industry", "level": "C39", "ess_bulk": 2000.0, "ess_tail": 1500.0}
    return pd.DataFrame([row | {"r_hat": 1.001} | changes])


def apart() -> np.ndarray:
    """Chains that each stay at their own place."""
    return np.random.default_rng(1).normal(size=(CHAINS, DRAWS)) + 5.0 * np.arange(CHAINS)[:, None]


def test_sound_chains_pass():
    found = diagnose(tree_of(), estimands_of())
    assert found["ok"]
    assert found["problems"] == []
    assert found["parameter_rhat_max"] < 1.01


@pytest.mark.parametrize(
    ("tree", "estimands", "words"),
    [
        ({"diverging": np.arange(CHAINS * DRAWS).reshape(CHAINS, DRAWS) < 3}, {}, "3 divergent transitions"),
        ({}, {"r_hat": 1.05}, "the chains disagree about att_by industry C39"),
        ({"sd_cell": apart()}, {}, "the chains disagree about the parameter sd_cell"),
        ({}, {"ess_bulk": 120.0}, "the centre of att_by industry C39 rests on 120 effective draws"),
        ({}, {"ess_tail": 80.0}, "the interval ends of att_by industry C39 rests on 80 effective draws"),
        ({"energy": np.cumsum(np.random.default_rng(2).normal(size=(CHAINS, DRAWS)), axis=1)}, {}, "E-BFMI"),
    ],
)
def test_each_fault_is_named(tree, estimands, words):
    found = diagnose(tree_of(**tree), estimands_of(**estimands))
    assert not found["ok"]
    assert len(found["problems"]) == 1
    assert words in found["problems"][0]


def test_transitions_that_are_cut_short_are_named():
    short = np.arange(CHAINS * DRAWS).reshape(CHAINS, DRAWS) % 50 == 0
    tree = tree_of()
    tree["sample_stats"] = xr.DataTree(tree["sample_stats"].to_dataset().assign(maxdepth_reached=(DIMS, short)))
    found = diagnose(tree, estimands_of())
    assert found["cut_short"] == pytest.approx(0.02)
    assert "2.0% of the transitions were cut short" in found["problems"][0]
    tree["sample_stats"]["maxdepth_reached"] = xr.DataArray(short & (np.arange(DRAWS) < 100), dims=DIMS)
    assert diagnose(tree, estimands_of())["ok"]


def test_every_parameter_has_its_row():
    tree = tree_of(sd_cell=np.full((CHAINS, DRAWS), 2.0))
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().assign_coords(cell=["a@1", "a@2"]))
    rows = parameters(tree).set_index(["parameter", "level"])
    assert list(rows.index) == [("mu", ""), ("cell_effect", "a@1"), ("cell_effect", "a@2")]
    mine = tree["posterior"]["cell_effect"].sel(cell="a@2")
    assert rows.loc[("cell_effect", "a@2"), "mean"] == pytest.approx(float(mine.mean()))
    assert rows.loc[("cell_effect", "a@2"), "ess_tail"] == pytest.approx(float(az.ess(mine, method="tail", prob=0.9)))
    assert (rows["r_hat"] < 1.01).all()


@pytest.mark.parametrize(
    ("diverged", "said"),
    [("0", None), ("7", None), ("7 0", "at 0.99, where none did"), ("7 9", "where 9 did: the first attempt is kept")],
)
def test_a_second_attempt_is_said(diverged, said):
    tree = tree_of()
    sampler = {"target_accept": 0.9, "target_accept_again": 0.99}
    tree.attrs |= {"diverged": diverged, "config": json.dumps({"sampler": sampler})}
    words = attempts(tree)
    assert len(words) == (said is not None)
    assert all("7 transitions diverged at sampler.target_accept=0.9" in w and w.endswith(said) for w in words)


def test_a_model_without_spreads_or_slopes_is_judged_by_its_estimands():
    bare = tree_of()
    bare["posterior"] = xr.DataTree(bare["posterior"].to_dataset()[["mu", "cell_effect"]])
    assert diagnose(bare, estimands_of())["ok"]


def test_parameters_of_every_outcome_are_judged():
    tree = tree_of()
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().assign({"sa::sd_cell": (DIMS, apart())}))
    assert "the parameter sa::sd_cell" in diagnose(tree, estimands_of())["problems"][0]


def test_cells_are_judged_where_an_estimand_averages_them():
    """A cell that the data do not identify is prior; however its chains mix, no estimand shows it."""
    cells = np.stack([apart(), np.random.default_rng(3).normal(size=(CHAINS, DRAWS))], axis=-1)
    assert diagnose(tree_of(cell_effect=cells), estimands_of())["ok"]
    assert not diagnose(tree_of(cell_effect=cells), estimands_of(r_hat=1.2))["ok"]


def test_fraction_of_missing_information_is_two_for_independent_energies():
    energy = np.random.default_rng(4).normal(size=(2, 50_000))
    np.testing.assert_allclose(fraction_of_missing_information(energy), 2.0, rtol=0.03)


def errors_of(**changes) -> dict:
    shocks = {"district": {"sd": 0.12, "phi": 0.5, "cells": 500}}
    return {"s": 1.0, "rho": 0.6, "nu": 3.0, "shocks": shocks, "passes": 7, "settled": True} | changes


def test_errors_are_said_with_their_values():
    said = errors_in_words(errors_of())
    assert "0.60" in said
    assert "district (SD 0.12, autocorrelation 0.50)" in said
    plain = errors_in_words(errors_of(rho=0.0, nu=None, shocks={}))
    assert plain == "independent over time; one error scale for all units; no shocks shared by units"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rho": 0.0}, "independent over time"),
        ({"nu": None}, "share one scale of errors"),
        ({"rho": 0.97}, "hardly told from a random walk"),
        ({"shocks": {"district": {"sd": 0.1, "phi": 0.2, "cells": 40}}}, "rests on 40 cells"),
        ({"settled": False}, "had not settled after 7 passes"),
    ],
)
def test_each_doubt_about_the_errors_is_said(changes, words):
    assert list(doubts(errors_of())) == []
    found = list(doubts(errors_of(**changes)))
    assert len(found) == 1
    assert words in found[0]
    further = list(doubts(errors_of(equations={"sa": errors_of(**changes)})))
    assert further == [f"sa: {found[0]}"]
    assert list(doubts(errors_of(**changes, equations={"sa": errors_of(**changes)}))) == found  # once is enough
