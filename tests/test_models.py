"""Gradient, graph, limits and oracles of the model family."""

import ast
from dataclasses import replace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from models import hier, likelihoods, nopool, pooled
from src import estimand, sample
from src.collapse import collapse, least_squares
from src.design import build_design
from src.exposure import row_shares
from src.trace import ROOT, terms
from tests.worlds import WEAK, panel_of, staggered

VARIANTS = [
    (pooled.build, {}),
    (nopool.build, {}),
    (nopool.build, {"cells": "groups"}),
    (hier.build, {}),
    (hier.build, {"path": "random_walk"}),
    (hier.build, {"path": "gaussian_process", "tails": "student_t"}),
    (hier.build, {"late": False, "interactions": False}),
]


def collapsed_of(panel):
    return collapse(build_design(panel, row_shares(panel)[0])[0])


@pytest.fixture(scope="module")
def collapsed():
    return collapsed_of(staggered(units=150, seed=1))


def build(collapsed, function, priors=WEAK, **options):
    return function(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), priors, **options)


def effects_of(collapsed, function, priors=WEAK, draws=1000, seed=1, **options):
    """Draws of every estimand and their keys."""
    compiled = sample.compile_model(build(collapsed, function, priors, **options), ("theta",))
    tree = sample.draw_compiled(compiled, draws, 600, 4, 2, 0.9, seed, False)
    theta = tree["posterior"]["theta"] * collapsed.s
    found = estimand.averages(collapsed.regression, collapsed.evidence, terms(theta))
    draws = estimand.draw_estimands(theta, collapsed.regression.design.all_labels, found)
    table = estimand.table(estimand.linear_scales(draws, found, is_log=False), 0.95).fillna({"group": "", "level": ""})
    return table.set_index(["estimand", "group", "level"])


@pytest.mark.parametrize(("function", "options"), VARIANTS)
def test_gradient_is_finite_at_the_start(collapsed, function, options):
    model = build(collapsed, function, **options)
    density, gradient = model.compile_fn([model.logp(), model.dlogp()], mode="FAST_COMPILE")(model.initial_point())
    assert np.isfinite(density)
    assert np.isfinite(gradient).all()


def test_gradient_at_the_start_is_the_slope_of_the_density(collapsed):
    model = build(collapsed, hier.build)
    logp, point = model.compile_logp(mode="FAST_COMPILE"), model.initial_point()
    point = {name: value + 0.05 for name, value in point.items()}
    gradient = model.compile_dlogp(mode="FAST_COMPILE")(point)
    direction = np.random.default_rng(0).normal(size=len(gradient))
    step, start, moved = 1e-6, 0, [{}, {}]
    for name, value in point.items():
        part = direction[start : start + value.size].reshape(value.shape)
        moved[0][name], moved[1][name] = value - step * part, value + step * part
        start += value.size
    slope = (logp(moved[1]) - logp(moved[0])) / (2 * step)
    assert slope == pytest.approx(gradient @ direction, rel=1e-5)


@pytest.mark.parametrize(("function", "options"), VARIANTS)
def test_every_vector_has_named_dims_and_offsets_only_where_non_centred(collapsed, function, options):
    model = build(collapsed, function, **options)
    for variable in [*model.free_RVs, *model.deterministics]:
        assert len(model.named_vars_to_dims.get(variable.name, ())) == variable.ndim, variable.name
    names = {variable.name for variable in model.free_RVs}
    for name in names:
        if name.endswith("_offset") and name != "path_offset":
            assert f"sd_{name.removesuffix('_offset')}" in names
    assert "theta" in model.named_vars


def test_few_levels_get_a_fixed_spread(collapsed):
    names = {variable.name for variable in build(collapsed, hier.build).free_RVs}
    assert "sd_industry" in names
    assert "sd_ownership" not in names
    assert "ownership_deviation" in names
    assert "cohort_deviation" in names


def test_the_same_estimands_in_every_model(collapsed):
    keys = [
        [(a.estimand, a.group, a.level) for a in estimand.averages(collapsed.regression, collapsed.evidence, terms)]
        for terms in (("mu",), ("cell",), tuple(collapsed.regression.design.blocks))
    ]
    assert keys[0] == keys[1] == keys[2]


def test_pooled_with_wide_priors_is_two_way_fixed_effects():
    collapsed = collapsed_of(staggered(units=120, seed=2, groups=False, exposed=False))
    columns = collapsed.regression.design.columns(("mu",))
    expected, covariance, _ = least_squares(collapsed.evidence.take(columns))
    row = effects_of(collapsed, pooled.build, replace(WEAK, mu=100)).loc[("att", "", "")]
    assert abs(row["mean"] - expected[0]) < 4 * row["mcse_mean"]
    assert row["sd"] == pytest.approx(np.sqrt(covariance[0, 0]), rel=0.06)


def test_nopool_is_extended_two_way_fixed_effects():
    collapsed = collapsed_of(staggered(units=120, seed=2, groups=False, exposed=False))
    block = collapsed.regression.design.blocks["cell"]
    expected, covariance, _ = least_squares(collapsed.evidence.take(collapsed.regression.design.columns(("cell",))))
    table = effects_of(collapsed, nopool.build)
    for k, level in enumerate(block.levels):
        row = table.loc[("att_gt", "", level)]
        assert abs(row["mean"] - expected[k]) < 4.5 * row["mcse_mean"], level
        assert row["sd"] == pytest.approx(np.sqrt(covariance[k, k]), rel=0.12)


def test_spreads_to_zero_give_pooled(collapsed):
    narrow = replace(WEAK, sd=1e-4, fixed=1e-4, path=1e-4, predictor=1e-4)
    one, other = effects_of(collapsed, hier.build, narrow), effects_of(collapsed, pooled.build)
    for key in [("att", "", ""), ("att_event", "", "3"), ("att_by", "ownership", "0")]:
        error = np.hypot(one.loc[key, "mcse_mean"], other.loc[key, "mcse_mean"])
        assert abs(one.loc[key, "mean"] - other.loc[key, "mean"]) < 4 * error
        assert one.loc[key, "sd"] == pytest.approx(other.loc[key, "sd"], rel=0.08)


def test_spreads_to_infinity_without_groups_give_nopool():
    collapsed = collapsed_of(staggered(units=150, seed=5, groups=False, exposed=False))
    loose = replace(WEAK, min_levels=1000, fixed=10, path=10, mu=10)  # fifty standard errors of a cell: wide enough
    one, other = effects_of(collapsed, hier.build, loose), effects_of(collapsed, nopool.build)
    for level in collapsed.regression.design.blocks["cell"].levels:
        key = ("att_gt", "", level)
        error = np.hypot(one.loc[key, "mcse_mean"], other.loc[key, "mcse_mean"])
        assert abs(one.loc[key, "mean"] - other.loc[key, "mean"]) < 4.5 * error, level
        assert one.loc[key, "sd"] == pytest.approx(other.loc[key, "sd"], rel=0.12)


def test_exposure_zero_throughout_is_the_model_without_spillovers():
    panel = staggered(seed=6, exposed=False)
    zero = np.zeros(len(panel.unit))
    with_zero = collapse(build_design(panel, {"county": zero})[0])
    without = collapse(build_design(panel, {})[0])
    np.testing.assert_array_equal(with_zero.evidence.gram, without.evidence.gram)
    names = [{v.name for v in build(c, hier.build).free_RVs} for c in (with_zero, without)]
    assert names[0] == names[1]
    assert "delta_control" not in names[0]


def test_spillovers_left_out_bias_the_effect_by_the_known_amount():
    """Without exposures TWFE reads E[S | D = 1] delta_treated - (what controls receive) into the effect."""
    rng = np.random.default_rng(0)
    units, periods, slope = 4000, 2, 2.0
    county = rng.integers(0, 200, units)
    cohort = np.where(rng.random(units) < rng.beta(1, 3, 200)[county], 2.0, np.inf)
    unit, time = np.repeat(np.arange(units), periods), np.tile([1, 2], units)
    blank = panel_of(unit, time, cohort, np.zeros(len(unit)), members={"county": county})
    share = row_shares(blank)[0]["county"]
    treated = blank.treated
    outcome = rng.normal(size=units)[unit] + 0.3 * treated + slope * share + 0.1 * rng.normal(size=len(unit))
    panel = replace(blank, outcome=outcome)
    naive = collapse(build_design(panel, {})[0])
    estimate = least_squares(naive.evidence.take(naive.regression.design.columns(("mu",))))[0][0]
    known = slope * (share[treated].mean() - share[(time == 2) & ~treated].mean())
    assert known > 0.05
    assert estimate == pytest.approx(0.3 + known, abs=0.012)
    full = collapse(build_design(panel, {"county": share})[0])
    with_exposure = least_squares(full.evidence.take(full.regression.design.columns(("mu", "exposure"))))[0]
    assert with_exposure[0] == pytest.approx(0.3, abs=0.015)


def test_models_import_only_what_they_may():
    language = {"__future__", "collections", "contextlib", "dataclasses", "functools", "itertools", "typing"}
    allowed = language | {"numpy", "pymc", "pytensor", "models"}
    for path in (ROOT / "models").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert {name.partition(".")[0] for name in names} <= allowed, path


@pytest.mark.parametrize("descriptions", [(), (3,)])
def test_a_quadratic_form_and_its_slope_cost_one_product(descriptions):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(*descriptions, 5, 5))
    gram, theta = root + np.swapaxes(root, -1, -2), rng.normal(size=5)
    matrix, vector = pt.tensor("matrix", shape=gram.shape), pt.vector("vector", shape=(5,))
    value = likelihoods.quadratic(matrix, vector)
    total = pt.sum(pt.exp(0.1 * value))
    found = pytensor.function([matrix, vector], [value, pytensor.grad(total, vector)], mode="FAST_COMPILE")
    wanted = np.einsum("i,...ij,j->...", theta, gram, theta)
    slope = (0.2 * np.exp(0.1 * wanted)[..., None] * (gram @ theta)).reshape(-1, 5).sum(axis=0)
    for mine, known in zip(found(gram, theta), (wanted, slope), strict=True):
        np.testing.assert_allclose(mine, known, rtol=1e-12)
    kept = pytensor.function([matrix, vector], [value, pytensor.grad(total, vector)])
    products = [node for node in kept.maker.fgraph.toposort() if matrix_in(node)]
    assert len(products) == 1


def matrix_in(node) -> bool:
    """Whether an operation reads the Gram matrix."""
    return any(variable.name == "matrix" for variable in node.inputs)
