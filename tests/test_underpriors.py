"""Runs that differ in their prior alone stand side by side, and no others."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from src import underpriors
from src.curve import specifications
from src.figure import STYLE

MU = {"weak": 10, "tight": 1, "wide": 100}
ROWS = [
    ("att", None, None, 0.3), ("att_by", "industry", "C1", 0.4), ("att_by", "industry", "C2", 0.2),
    ("att_by", "industry:ownership", "C1:state", 0.1), ("att_gt", None, "3@4", 0.3),
    ("spill_per_pp", "county", "control", 0.01),
]  # fmt: skip


def run_of(root, name, preset, shift=0.0, **changes):
    """A run folder with what a figure of priors reads."""
    folder = root / name
    (folder / ".hydra").mkdir(parents=True)
    settings = {
        "data": {"name": "toy", "path": "a.csv", "seed": 1}, "model": {"name": "hier", "late": True},
        "prior": {"name": preset, "mu": MU[preset], "sd": 0.1 * MU[preset]}, "likelihood": {"name": "gaussian"},
        "seed": 1,
    }  # fmt: skip
    OmegaConf.save(OmegaConf.merge(settings, changes), folder / ".hydra" / "config.yaml")
    frame = pd.DataFrame(ROWS, columns=["estimand", "group", "level", "mean"])
    frame["mean"] += shift
    frame = frame.assign(scale="outcome", sd=0.1, low=frame["mean"] - 0.2, high=frame["mean"] + 0.2, prob=0.95)
    frame.assign(n_units=9, note=None).to_csv(folder / "estimands.csv", index=False)
    powers = frame[["estimand", "group", "level"]].assign(prior=0.01 + shift, likelihood=0.08, diagnosis="")
    powers.to_csv(folder / "powers.csv", index=False)
    own = frame.rename(columns={"mean": "estimate", "sd": "se"}).assign(estimator="hier")
    own.to_csv(folder / "comparison.csv", index=False)
    return folder


@pytest.fixture
def runs(tmp_path):
    return [run_of(tmp_path, prior, prior, shift) for prior, shift in (("weak", 0), ("tight", -0.1), ("wide", 0.02))]


def test_the_main_estimands_of_every_prior_tightest_first(runs, tmp_path):
    written = list(underpriors.write_all(runs, tmp_path))
    assert [path.name for path in written] == ["priors_toy_hier.csv", "priors_toy_hier.png"]
    assert all(path.is_file() for path in written)
    found = pd.read_csv(written[0])
    assert list(dict.fromkeys(found["prior"])) == ["tight", "weak", "wide"]
    assert len(found) == 3 * 4  # neither cells nor interactions
    tight = found[(found["prior"] == "tight") & (found["estimand"] == "att")].iloc[0]
    assert tight["mean"] == pytest.approx(0.2)
    assert tight["sensitivity"] == pytest.approx(-0.09)


@pytest.mark.parametrize(
    "changes",
    [
        *({"data": {"path": "b.csv"}}, {"data": {"seed": 2}}, {"model": {"late": False}}, {"likelihood": {"x": 1}}),
        *({"prob": 0.5}, {"seed": 2}),
    ],
)
def test_runs_that_differ_otherwise_are_not_set_side_by_side(runs, tmp_path, changes):
    other = run_of(tmp_path, "other", "wide", **changes)
    assert list(underpriors.sets([runs[0], other])) == []
    assert len(list(underpriors.sets([*runs, other]))) == 1


def test_a_scale_that_was_changed_sets_a_prior_apart_from_its_preset(runs, tmp_path):
    other = run_of(tmp_path, "other", "weak", prior={"mu": 5})
    ((_, by_prior),) = underpriors.sets([*runs, other])
    assert list(by_prior) == ["tight", "weak mu=5", "weak mu=10", "wide"]


def test_the_figure_has_a_mark_for_every_prior_and_slopes_have_an_axis_of_their_own(runs):
    ((_, by_prior),) = underpriors.sets(runs)
    with matplotlib.rc_context(STYLE):
        figure = underpriors.draw(underpriors.table(by_prior), "toy", "priors_toy_hier.csv")
    effects, slopes = figure.axes
    assert [text.get_text() for text in effects.get_yticklabels()] == [
        "att",
        "att_by industry C1",
        "att_by industry C2",
    ]
    assert [text.get_text() for text in slopes.get_yticklabels()] == ["spill_per_pp county control"]
    marks = {line.get_label(): line.get_xdata() for line in effects.lines if line.get_label().startswith("prior=")}
    assert list(marks) == ["prior=tight", "prior=weak", "prior=wide"]
    np.testing.assert_allclose(marks["prior=tight"], [0.2, 0.3, 0.1])


def test_of_a_preset_the_curve_shows_its_name_and_not_its_scales(runs, tmp_path):
    found = specifications(runs)
    assert list(found.columns[5:]) == ["prior.name"]
    assert "prior.mu" in specifications([*runs, run_of(tmp_path, "other", "weak", prior={"mu": 5})])


def test_runs_of_other_data_or_code_are_not_set_side_by_side(runs, monkeypatch):
    origins = {folder: {"data_sha256": str(k == 1), "code_version": str(k == 2)} for k, folder in enumerate(runs)}
    monkeypatch.setattr(underpriors, "origin", origins.__getitem__)
    assert list(underpriors.sets(runs)) == []
