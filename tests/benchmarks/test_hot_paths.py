"""Seconds of what a fit spends its time on, at the size of the synthetic panel (`make bench`)."""

import numpy as np
import pytest
import xarray as xr

from bench.panels import configured
from src import estimand, nuisance
from src.collapse import collapse
from src.design import build_design
from src.fit import build_model, errors_of, load, needs_units, unpooled
from src.products import ar1_precision, cross_products, independent_precision
from src.system import only

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fitted():
    config = configured()
    panel, shares, _ = load(config)
    regression, _ = build_design(panel, shares, needs_units(config))
    errors = errors_of(config, regression)
    return config, errors, collapse(regression, errors, unpooled(config, regression))


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_cross_products(benchmark, fitted, rho):
    regression = fitted[2].regression
    panel = regression.panel
    precision = ar1_precision(panel.unit, panel.time, panel.weight, rho) if rho else independent_precision(panel.weight)
    found = benchmark(cross_products, regression.matrix, panel.outcome, panel.unit, precision)
    assert found.gram.shape == (regression.design.size,) * 2


def test_nuisance(benchmark, fitted):
    """From the first pass to the last."""
    _, errors, collapsed = fitted
    found = benchmark.pedantic(nuisance.estimate, (collapsed.regression, errors, collapsed.s), rounds=3)
    assert found.settled


def test_gradient_of_the_collapsed_density(benchmark, fitted):
    config, _, collapsed = fitted
    model = build_model(config, only(collapsed), None)
    density = model.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    size = sum(int(np.prod(value.shape)) for value in model.initial_point().values())
    point = np.full(size, 0.01)
    density(point)  # compiled
    value, gradient = benchmark(density, point)
    assert np.isfinite(value)
    assert gradient.shape == (size,)


def test_estimands(benchmark, fitted):
    """Averages over the rows, then 4,000 draws of each."""
    _, _, collapsed = fitted
    design = collapsed.regression.design
    terms = tuple(name for name in design.blocks if name not in ("time", "covariate", "lead", "group_cell"))
    labels = design.labels(terms)
    draws = np.random.default_rng(0).normal(size=(4, 1000, len(labels)))
    theta = xr.DataArray(draws, dims=("chain", "draw", "column"), coords={"column": labels})

    def estimands():
        found = estimand.averages(collapsed.regression, collapsed.evidence, terms)
        return estimand.draw_estimands(theta, design.all_labels, found)

    found = benchmark.pedantic(estimands, rounds=3)
    assert found.shape[:2] == (4, 1000)
