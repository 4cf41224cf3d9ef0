"""Plugging estimated errors in against sampling them: the full model in plain PyMC (`pytest -m slow -s`)."""

import numpy as np
import nutpie
import pytest
import xarray as xr

from models import hier
from src import estimand, sample
from src.collapse import collapse
from src.config import GeneratorConfig
from src.design import build_design, standardised, with_traits
from src.errors import FULL, Errors
from src.exposure import row_shares
from src.generate import draw
from src.trace import terms
from tests.oracles import explicit, latent
from tests.worlds import WEAK

WORLD = {
    **{"units": 500, "periods": 9, "starts": [4, 5, 6], "adopters": [30, 30, 30]},
    **{"industries": 10, "districts": 20, "covariates": 1},
}
COUNTS = {
    **{"units": 300, "periods": 8, "starts": [4, 5], "adopters": [40, 40], "industries": 8, "districts": 10},
    **{"covariates": 1, "exposed": False, "industry_shock": 0.0, "district_shock": 0.0, "events": True},
    **{"level": 1.8, "unit_effect_sd": 0.5, "late_entry": 0.0, "early_exit": 0.0},
}
ATT = ("att", "", "")
CONTRAST = ("contrast", "ownership", "private - state")
SLOPE = ("spill_per_pp", "district", "control")
ERRORS = Errors("ar1", "unit", ("district", "industry"))
EVENTS = Errors("ar1", "unit", (), events=True)


def of_errors(collapsed):
    return explicit.build(collapsed.regression, collapsed.nuisance.log_scale, ERRORS, collapsed.s, WEAK)


def of_counts(collapsed):
    panel = collapsed.regression.panel
    assert (np.bincount(panel.unit, panel.outcome) > 0).all()
    return latent.build(collapsed.regression, collapsed.levels.height, collapsed.s, WEAK)


@pytest.mark.parametrize(("full", "world", "errors"), [(of_errors, WORLD, ERRORS), (of_counts, COUNTS, EVENTS)])
def test_the_full_models_have_the_coefficients_of_the_collapsed_one(full, world, errors):
    small = world | {"units": 100, "adopters": [8] * len(world["adopters"]), "industries": 5, "districts": 5}
    panel = draw(GeneratorConfig(name="oracle", **small), 0, 0)
    collapsed = collapse(build_design(panel, row_shares(panel)[0], units=True)[0], errors)
    collapsed_model = hier.build(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), WEAK, unit=True)
    model = full(collapsed)
    size = model["theta"].eval().size
    assert size == collapsed_model["theta"].eval().size
    assert size > 40


@pytest.mark.slow
def test_estimated_errors_change_the_posterior_of_the_average_effect_little():
    """Over three panels: means within .1 posterior SD on average, SDs within 10%, of the fully sampled model."""
    shifts, ratios = against(of_errors, WORLD, ERRORS, (ATT, CONTRAST, SLOPE))
    assert np.sqrt(np.mean([shift[ATT] ** 2 for shift in shifts])) < 0.1
    assert np.mean([ratio[ATT] for ratio in ratios]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_approximated_counts_have_the_posterior_of_the_latent_model():
    """Over three panels: means within .2 posterior SD on average, SDs within 15%, of the model in plain PyMC."""
    shifts, ratios = against(of_counts, COUNTS, EVENTS, (ATT, CONTRAST))
    assert np.sqrt(np.mean([shift[ATT] ** 2 for shift in shifts])) < 0.2
    assert np.mean([ratio[ATT] for ratio in ratios]) == pytest.approx(1.0, abs=0.15)
    by_industry = [ratio.xs("industry", level="group").median() for ratio in ratios]
    assert np.mean(by_industry) == pytest.approx(1.0, abs=0.15)


def against(full, world, errors, shown):
    """Shifts of the means in posterior SDs, and ratios of the SDs, of collapsed and full model on three panels."""
    shifts, ratios = [], []
    for seed in range(3):
        panel = draw(GeneratorConfig(name="oracle", **world), 0, seed)
        collapsed = collapse(build_design(panel, row_shares(panel)[0], units=True)[0], errors)
        model = hier.build(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), WEAK, unit=True)
        tree = sample.draw_posterior(model, draws=1500, tune=500, target_accept=0.9, seed=seed)
        theta = tree["posterior"]["theta"]
        compiled = nutpie.compile_pymc_model(full(collapsed), freeze_model=True)
        drawn = nutpie.sample(
            compiled, draws=1000, tune=600, chains=4, cores=2, seed=1, target_accept=0.85, progress_bar=False
        )
        other = xr.DataArray(
            drawn["posterior"]["theta"].to_numpy(), dims=theta.dims, coords={"column": theta["column"]}
        )
        quick = table(collapsed, theta * collapsed.s, collapsed.nuisance.onset)
        whole = table(collapsed, other * collapsed.s, drawn["posterior"]["onset"].to_numpy())
        shifts.append((quick["mean"] - whole["mean"]) / whole["sd"])
        ratios.append(quick["sd"] / whole["sd"])
        print(seed, "rho", collapsed.nuisance.rho, "sampled", float(drawn["posterior"]["rho"].mean()))
        for key in shown:
            one, two = quick.loc[key], whole.loc[key]
            print(seed, *key, f"collapsed {one['mean']:.4f} ({one['sd']:.4f}) full {two['mean']:.4f} ({two['sd']:.4f})")
    return shifts, ratios


def table(collapsed, theta, onset):
    """Estimands at the shares of differences that are there at event times 0 and 1, given or one a draw."""
    labels = collapsed.regression.design.all_labels
    of_units = collapsed.nuisance.log_scale if collapsed.levels is None else collapsed.levels.height
    trait = standardised(of_units, collapsed.regression.adopters)
    ends = []
    for shares in (FULL, *map(tuple, 1 - np.eye(len(FULL)))):
        found = estimand.averages(with_traits(collapsed.regression, trait, shares), collapsed.evidence, terms(theta))
        ends.append(estimand.draw_estimands(theta, labels, found))
    draws = ends[0]
    for e, end in enumerate(ends[1:]):
        draws = draws + (np.array(onset)[..., [e]] - 1) * (ends[0] - end)
    rows = estimand.table(estimand.linear_scales(draws, found, is_log=False), 0.9).fillna({"group": "", "level": ""})
    return rows.set_index(["estimand", "group", "level"])
