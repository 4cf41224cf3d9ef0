"""Ranks are uniform where all is right, and not where an error is planted."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from hydra import compose, initialize_config_dir

from src import calibrate, command, counts, fit, noise, redraw, simulate
from src.command import CONF, UserError, settings
from src.config import CalibrateConfig
from src.counts import Known
from src.errors import FULL, Errors
from src.simulate import Plan
from src.system import first

FEW = 40


def config_of(*overrides) -> CalibrateConfig:
    command.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings(compose("calibrate", ["sampler.draws=500", "sampler.tune=300", *overrides]))


def plan_of(*overrides) -> Plan:
    return simulate.planned(config_of("data.size=small", *overrides))


def ranks(plan: Plan, n: int = FEW) -> pd.DataFrame:
    return calibrate.uniform(pd.concat([simulate.simulated(plan, r) for r in range(n)], ignore_index=True))


def call(*arguments: str) -> int:
    """The command, as typed."""
    before = sys.argv
    sys.argv = ["calibrate", *arguments]
    try:
        with pytest.raises(SystemExit) as stopped:
            command.command(calibrate.calibrate, config_name="calibrate")
    finally:
        sys.argv = before
    return int(stopped.value.code or 0)


POOLED = ("model=pooled", "likelihood.shocks=[]")


@pytest.mark.parametrize("errors", [(), ("likelihood.serial=none", "likelihood.scale=common")])
def test_ranks_of_what_is_right_are_uniform(errors):
    table = ranks(plan_of(*POOLED, *errors), 3 * FEW)
    assert (table["p_adjusted"] > calibrate.LEVEL).all()
    assert set(simulate.OF_DATA) < set(table["quantity"])
    assert ("sigma" in set(table["quantity"])) == bool(errors)
    assert table["held_90"].mean() == pytest.approx(0.9, abs=0.05)  # quantities go together


def test_a_prior_of_another_scale_is_found(monkeypatch):
    honest = simulate.drawn

    def wider(plan, setting, r):
        found = honest(plan, setting, r)
        return found.assign(theta=2.5 * found["theta"])

    monkeypatch.setattr(simulate, "drawn", wider)
    assert ranks(plan_of(*POOLED, "prior.mu=0.1", "prior.exposure=0.1"))["p_adjusted"].min() < calibrate.LEVEL


def test_adoption_a_period_late_is_found(monkeypatch):
    honest = redraw.with_outcome

    def late(collapsed, *rest):
        regression = collapsed.regression
        panel = regression.panel
        before = np.r_[0, np.arange(len(panel.unit) - 1)]
        mine = np.r_[False, panel.unit[1:] == panel.unit[:-1]]
        shifted = regression.matrix[np.where(mine, before, 0)]
        return honest(replace(collapsed, regression=replace(regression, matrix=shifted)), *rest)

    monkeypatch.setattr(redraw, "with_outcome", late)
    table = ranks(plan_of(*POOLED))
    assert table["p_adjusted"].min() < calibrate.LEVEL
    assert "log_likelihood" in set(table["quantity"][table["p_adjusted"] < calibrate.LEVEL])


def test_a_jacobian_that_is_missing_is_found(monkeypatch):
    """The density of log(sd) taken for that of sd: a spread is drawn to nothing."""
    honest = fit.build_model

    def without(config, system, learned):
        model = honest(config, system, learned)
        with model:
            pm.Potential("jacobian", -pm.math.log(model["sd_industry"]))
        return model

    monkeypatch.setattr(simulate, "build_model", without)
    table = ranks(
        plan_of("likelihood.shocks=[]", "model.interactions=false", "model.late=false", "model.unit=false"), 40
    )
    bad = table[table["p_adjusted"] < calibrate.LEVEL]
    assert "sd_industry" in set(bad["quantity"])
    assert table.set_index("quantity").loc["sd_industry", "mean"] > 0.6  # drawn values are larger than the draws


def test_errors_are_drawn_with_the_precision_that_the_evidence_takes():
    plan = plan_of(*POOLED)
    setting = simulate.setting_of(plan.config)
    panel, rng = first(setting.system).collapsed.regression.panel, np.random.default_rng(0)
    drawn = noise.serial(panel, 0.6, 4000, rng).T
    rows = np.flatnonzero(panel.unit == 3)
    gaps = np.abs(np.subtract.outer(panel.time[rows], panel.time[rows]))
    np.testing.assert_allclose(np.cov(drawn[:, rows].T), 0.6**gaps, atol=0.08)


def test_p_values_are_adjusted_for_their_number():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        [(r, f"q{k}", "", "", rng.random() ** (3.0 if k == 0 else 1.0)) for r in range(100) for k in range(40)],
        columns=simulate.COLUMNS,
    )
    table = calibrate.uniform(rows)
    assert table["quantity"].iloc[0] == "q0"
    assert (table["p_adjusted"] < calibrate.LEVEL).sum() == 1
    p = np.sort(table["p"])
    assert table["p_adjusted"].iloc[1] == pytest.approx(min(1.0, max(40 * p[0], 39 * p[1])))
    assert "q0 foremost" in calibrate.verdict(table)
    assert "Ranks of all 39 quantities are uniform" in calibrate.verdict(table.iloc[1:].assign(p_adjusted=0.5))


def test_around_data_the_posterior_is_given_both():
    plan = plan_of(*POOLED, "around=posterior")
    setting = simulate.setting_of(plan.config)
    assert setting.data
    frame = simulate.simulated(plan, 0)
    assert frame["pit"].between(0, 1).all()
    table = ranks(plan)
    assert (table["p_adjusted"] > calibrate.LEVEL).all()


def test_the_command_goes_on_where_it_was(tmp_path, capsys):
    folder = tmp_path / "study"
    arguments = [
        "data.size=small", "model=pooled", "likelihood.serial=none", "likelihood.scale=common", "likelihood.shocks=[]",
        "engine.cores=1",
        "sampler.draws=200", "progress=false", f"hydra.run.dir={folder}",
    ]  # fmt: skip
    assert call(*arguments, "n=20") in (0, 3)
    first = {path.name: path.stat().st_mtime_ns for path in (folder / "replications").iterdir()}
    assert call(*arguments, "n=22") in (0, 3)
    assert "20 are kept in" in capsys.readouterr().out
    again = {path.name: path.stat().st_mtime_ns for path in (folder / "replications").iterdir()}
    assert len(again) == 22
    assert first.items() < again.items()
    assert {"calibrated.csv", "calibrated.png", "study.json"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "study.json").read_text())["settings"]["around"] == "prior"
    assert list(pd.read_csv(folder / "calibrated.csv").columns) == calibrate.COLUMNS
    other = [*(a for a in arguments if "draws" not in a), "sampler.draws=210", "n=20"]
    assert call(*other) == 2
    assert "holds another study" in capsys.readouterr().err


def test_another_file_is_another_study(tmp_path, capsys):
    arguments = [
        "data=csv", f"data.path={tmp_path / 'panel.csv'}", "data.unit=unit", "data.time=year", "data.cohort=first",
        "data.outcome=y", "data.groups={}", "data.exposures={}", "model=pooled",
    ]  # fmt: skip
    rows = [(unit, year, 3 if unit < 4 else 0) for unit in range(9) for year in range(6)]
    frame = pd.DataFrame(rows, columns=["unit", "year", "first"])
    names = []
    for seed in (0, 1, 1):
        values = np.random.default_rng(seed).standard_normal(len(frame))
        frame.assign(y=values).to_csv(tmp_path / "panel.csv", index=False)
        names.append(simulate.planned(config_of(*arguments)).name)
    assert names[0] != names[1] == names[2]
    frame.drop(columns="first").to_csv(tmp_path / "panel.csv", index=False)
    folder = tmp_path / "study"
    assert call(*arguments, f"hydra.run.dir={folder}") == 2
    assert "first" in capsys.readouterr().err
    assert not folder.exists()


FEW_TERMS = ("model.late=false", "model.interactions=false", "model.unit=false")
COUNTS = ("data=synthetic_counts", "likelihood=poisson_lognormal", "likelihood.shocks=[]")


@pytest.mark.parametrize(
    ("settings", "quantities"),
    [
        ((*COUNTS, "model=pooled"), {"att", "treated_fit"}),
        pytest.param(("model=joint", *FEW_TERMS), {"earlier_slope", "industry_correlation"}, marks=pytest.mark.slow),
        pytest.param(
            (*COUNTS, "model=joint", *FEW_TERMS), {"green_inventions::att", "sd_industry"}, marks=pytest.mark.slow
        ),
        pytest.param(("model=mediation", *FEW_TERMS), {"sa::att", "earlier_slope"}, marks=pytest.mark.slow),
    ],
)
def test_every_likelihood_and_several_outcomes_are_simulated(settings, quantities):
    frame = simulate.simulated(plan_of(*settings), 0)
    assert frame["pit"].between(0, 1).all()
    assert {name.removeprefix("ln_green_quality::") for name in frame["quantity"]} >= quantities


def test_ranks_of_counts_are_uniform():
    table = ranks(plan_of(*COUNTS, "model=pooled"), 30)
    assert (table["p_adjusted"] > calibrate.LEVEL).all()


def test_counts_whose_levels_are_conditioned_on_wrongly_are_found(monkeypatch):
    """Evidence of counts that are a fifth too large after adoption."""
    honest = redraw.with_outcome

    def larger(collapsed, errors, outcome, *rest):
        treated = collapsed.regression.panel.treated
        return honest(collapsed, errors, np.where(treated, np.round(1.5 * outcome), outcome), *rest)

    monkeypatch.setattr(redraw, "with_outcome", larger)
    assert ranks(plan_of(*COUNTS, "model=pooled"), 12)["p_adjusted"].min() < calibrate.LEVEL


def test_what_is_known_of_counts_is_not_estimated():
    plan = plan_of(*COUNTS, "model=pooled")
    setting = simulate.setting_of(plan.config)
    collapsed = first(setting.system).collapsed
    levels = collapsed.levels
    share = np.eye(len(levels.omega))[np.full(len(levels.share), 3)]
    known = Known(replace(collapsed.nuisance, rho=0.4, onset=FULL), share)
    found = counts.estimate(collapsed.regression, setting.errors, 0.5, setting.terms, known)
    for name in ("rho", "nu", "never", "ever", "shocks", "spreads", "onset"):
        assert getattr(found.nuisance, name) == getattr(known.nuisance, name)
    assert (found.levels.share[levels.total > 0] == share[levels.total > 0]).all()


def test_what_cannot_be_simulated():
    with pytest.raises(UserError, match=r"needs data\.outcomes"):
        calibrate.check(config_of("model=joint", "data=mpdta"))


def test_shocks_are_drawn_where_the_likelihood_has_them():
    setting = simulate.setting_of(plan_of("model=pooled").config)
    assert setting.errors == Errors("ar1", "unit", tuple(setting.errors.shocks))
    assert first(setting.system).collapsed.nuisance.shocks
