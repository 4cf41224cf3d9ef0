"""A compiled model serves other data of the same structure, and only those."""

import numpy as np
import pymc as pm
import pytest

from models import hier, nopool, pooled
from src import sample
from src.collapse import collapse
from src.design import build_design
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from src.replicate import structure
from tests.test_generate import world
from tests.worlds import WEAK

SMALL = {"units": 150, "periods": 7, "starts": [3, 5], "adopters": [20, 20], "industries": 6, "districts": 8}
UNEQUAL = Errors("ar1", "unit", ("district", "industry"))


def collapsed_of(outcome_seed: int, **changes):
    panel = draw(world(**SMALL | changes), 0, outcome_seed)
    shares, _ = row_shares(panel)
    return collapse(build_design(panel, shares, units=True)[0], UNEQUAL)


@pytest.fixture(scope="module")
def two():
    return collapsed_of(0), collapsed_of(1)


def build(collapsed, function=pooled.build, **options) -> pm.Model:
    return function(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), WEAK, **options)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (pooled.build, {}),
        (nopool.build, {}),
        (nopool.build, {"cells": "groups"}),
        (hier.build, {"unit": True}),
        (hier.build, {"path": "gaussian_process", "tails": "student_t"}),
    ],
)
def test_nothing_but_named_data_tells_models_of_one_structure_apart(two, function, options):
    one, other = (build(collapsed, function, **options) for collapsed in two)
    keys = [structure(collapsed.regression.design, collapsed.evidence) for collapsed in two]
    assert keys[0] == keys[1]
    point = other.initial_point(0)
    wanted = other.compile_logp(mode="FAST_COMPILE")(point)
    density = one.compile_logp(mode="FAST_COMPILE")
    before = density(point)
    for data in one.data_vars:
        data.set_value(other[data.name].get_value())
    after = density(point)
    assert abs(before - wanted) > 1e-3
    assert after == pytest.approx(wanted, rel=1e-12)


def simple(values, levels: list[str]) -> pm.Model:
    with pm.Model(coords={"level": levels}) as model:
        theta = pm.Normal("theta", dims="level")
        pm.Potential("evidence", -pm.math.sum((theta - pm.Data("values", values)) ** 2))
    return model


OPTIONS = {"draws": 100, "tune": 100, "chains": 2, "cores": 1, "target_accept": 0.9, "seed": 3, "progress": False}


@pytest.fixture(scope="module")
def compiled():
    return sample.compile_model(simple([1.0, 2.0], ["a", "b"]))


def test_draws_of_a_compiled_model_with_other_data_are_those_of_the_other_model(compiled):
    other = simple([5.0, -5.0], ["c", "d"])
    reused = sample.draw_compiled(sample.with_data_of(compiled, other), **OPTIONS)["posterior"]["theta"]
    fresh = sample.draw_compiled(sample.compile_model(other), **OPTIONS)["posterior"]["theta"]
    first = sample.draw_compiled(compiled, **OPTIONS)["posterior"]["theta"]
    np.testing.assert_array_equal(reused, fresh)
    assert reused["level"].to_numpy().tolist() == ["c", "d"]
    assert first["level"].to_numpy().tolist() == ["a", "b"]  # what was compiled keeps its own
    assert first.mean() > 0.5
    assert abs(fresh.mean()) < 0.5


def test_other_sizes_are_refused(compiled):
    with pytest.raises(ValueError, match="other sizes of values, level"):
        sample.with_data_of(compiled, simple([1.0, 2.0, 3.0], ["a", "b", "c"]))


@pytest.mark.parametrize("backend", ["nutpie", "pymc"])
def test_where_transitions_diverge_it_is_sampled_again_more_carefully(backend):
    with pm.Model() as funnel:
        log_scale = pm.Normal("log_scale", 0.0, 3.0)
        pm.Normal("x", 0.0, pm.math.exp(log_scale / 2), shape=6)
    options = {"backend": backend, "draws": 300, "tune": 300, "chains": 2, "cores": 1, "target_accept": 0.6}
    once = sample.draw_posterior(funnel, **options, target_accept_again=0.6)
    twice = sample.draw_posterior(funnel, **options, target_accept_again=0.995)
    first, second = map(int, twice.attrs["diverged"].split())
    assert once.attrs["diverged"] == str(first)
    assert sample.divergences(once) == first > 0
    assert sample.divergences(twice) == min(first, second)
    assert backend == "pymc" or second < first
