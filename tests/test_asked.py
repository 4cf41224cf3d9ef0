"""What has been asked of a run since it was fitted finds its way into the report, and what was asked of others not."""

import json

import pandas as pd
import pytest

from src import asked
from src.scrutiny import Scrutiny

SETTINGS = {
    "data": {"name": "mine", "groups": ["a"]},
    "model": {"name": "hier"},
    "likelihood": {"name": "gaussian"},
    "prior": {"name": "weak", "mu": 5},
    "sampler": {"draws": 1000},
    "seed": 1,
}


def compared(folder, mine: str = "abc"):
    """A comparison of three runs, the best first."""
    (folder / "loo").mkdir(exist_ok=True)
    pd.DataFrame(
        {
            "run": ["hier", "pooled", "nopool"],
            "run_id": [mine, "b", "c"],
            "elpd": [-1500.0, -1510.5, -1600.0],
            "se": [40.0, 41.0, 42.0],
            "elpd_diff": [0.0, -10.5, -100.0],
            "dse": [0.0, 4.0, 9.0],
            "pareto_bad": [0, 2, 0],
            "units": [240, 240, 240],
        }
    ).to_csv(folder / "loo" / "compare.csv", index=False)


def study(folder, name: str, smallest: float, around: str = "prior", sha256: str = "hash", **other):
    """A study of ranks."""
    place = folder / name
    place.mkdir(parents=True)
    settings = SETTINGS | {"around": around, "sha256": sha256, "sampler": {"draws": 300}, "seed": 7} | other
    (place / "study.json").write_text(json.dumps({"study": name, "settings": settings}))
    pd.DataFrame(
        {
            "quantity": ["att", "att_by"],
            "group": ["", "a"],
            "level": ["", "NA"],
            "simulations": [500, 500],
            "mean": [0.42, 0.5],
            "p": [smallest / 2, 0.5],
            "p_adjusted": [smallest, 1.0],
            "held_90": [0.86, 0.9],
        }
    ).to_csv(place / "calibrated.csv", index=False)


def found_in(folder, run_id: str = "abc") -> Scrutiny:
    return asked.asked(folder, folder / "studies", run_id, SETTINGS, "hash")


def test_nothing_is_said_where_nobody_asked(tmp_path):
    assert found_in(tmp_path).said == {"asked": [], "warnings": []}


def test_units_left_out_are_told_of_the_run_alone(tmp_path):
    compared(tmp_path)
    (best,) = found_in(tmp_path).said["asked"]
    assert "-1,500.0 (SE 40.0), the highest of 3 runs, 10.5 (SE 4.0) above the next (python -m src.loo)" in best
    assert "Pareto" not in best
    (second,) = found_in(tmp_path, "b").said["asked"]
    assert "10.5 (SE 4.0) below that of hier; 2 of 240 have a Pareto k" in second
    assert found_in(tmp_path, "of another posterior").said["asked"] == []


def test_ranks_that_are_not_uniform_are_a_warning(tmp_path):
    study(tmp_path / "studies", "fine", 0.35)
    study(tmp_path / "studies", "bad", 0.001, around="posterior")
    said = found_in(tmp_path).said
    assert len(said["asked"]) == 2
    (warning,) = said["warnings"]
    assert warning.startswith("Drawn again from the posterior (python -m src.calibrate): Ranks of 1 of 2 quantities")
    assert "att foremost" in warning


@pytest.mark.parametrize("other", [{"prior": {"name": "tight"}}, {"sha256": "of other data"}])
def test_a_study_of_other_settings_or_data_says_nothing_of_the_run(other, tmp_path):
    study(tmp_path / "studies", "other", 0.001, **other)
    assert found_in(tmp_path).said == {"asked": [], "warnings": []}


def test_a_study_that_was_stopped_says_nothing_yet(tmp_path):
    study(tmp_path / "studies", "stopped", 0.001)
    (tmp_path / "studies" / "stopped" / "calibrated.csv").unlink()
    assert found_in(tmp_path).said == {"asked": [], "warnings": []}
