"""Machine code is the model's density, and is written once for all data and processes."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pymc as pm
import pytest

from models import hier, pooled
from src import machine
from src.collapse import collapse
from src.design import build_design
from src.exposure import row_shares
from src.generate import draw
from src.nuisance import Errors
from tests.test_generate import world
from tests.worlds import WEAK

SMALL = {"periods": 7, "starts": [3, 5], "adopters": [20, 20], "industries": 6, "districts": 8}


def collapsed_of(units: int, seed: int = 0):
    panel = draw(world(units=units, **SMALL), 0, seed)
    shares, _ = row_shares(panel)
    return collapse(build_design(panel, shares, units=True)[0], Errors("ar1", "unit", ("district", "industry")))


@pytest.fixture(scope="module")
def two():
    return collapsed_of(150), collapsed_of(600, 1)


def build(collapsed, function=pooled.build, priors=WEAK, **options) -> pm.Model:
    return function(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), priors, **options)


def simple(values=(1.0, 2.0), sd=1.0, name="theta") -> pm.Model:
    with pm.Model(coords={"level": ["a", "b"]}) as model:
        theta = pm.Normal(name, 0, sd, dims="level")
        pm.Potential("evidence", -pm.math.sum((theta - pm.Data("values", list(values))) ** 2))
    return model


def test_rows_and_data_are_no_part_of_the_code(two):
    few, many = (build(collapsed) for collapsed in two)
    assert not np.allclose(few["gram"].get_value(), many["gram"].get_value())
    assert machine.structure(few) == machine.structure(many)
    assert machine.structure(simple([1.0, 2.0])) == machine.structure(simple([3.0, 4.0]))


def test_priors_names_options_and_kept_variables_are(two):
    keys = [machine.structure(simple(**changes)) for changes in ({}, {"sd": 2.0}, {"name": "phi"})]
    keys.append(machine.structure(simple(), ("theta",)))
    keys += [machine.structure(build(two[0], hier.build, tails=tails)) for tails in ("normal", "student_t")]
    assert len(set(keys)) == len(keys)


def test_density_and_gradient_are_those_of_the_model(two):
    model = build(two[0], hier.build, unit=True)
    compiled = machine.compiled_model(model)
    point = model.initial_point(0)
    flat = np.concatenate([np.ravel(value) for value in point.values()]) + 0.1 * np.sin(np.arange(compiled.n_dim))
    start, moved = 0, {}
    for name, value in point.items():
        moved[name] = flat[start : start + value.size].reshape(value.shape)
        start += value.size
    gradient, density = np.empty(compiled.n_dim), np.empty(())
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4)
    arrays = (flat, gradient, density, compiled.user_data)
    code = compiled.compiled_logp_func.address
    assert function(code)(compiled.n_dim, *(array.ctypes.data for array in arrays)) == 0
    assert float(density) == pytest.approx(float(model.compile_logp(mode="FAST_COMPILE")(moved)), rel=1e-10)
    np.testing.assert_allclose(gradient, model.compile_dlogp(mode="FAST_COMPILE")(moved), rtol=1e-8, atol=1e-8)


IN_ANOTHER = """
from src import machine, sample
from tests.test_machine import simple
written, write = [], machine.write_code
machine.write_code = lambda *given: written.append(given) or write(*given)
model = simple()
known = sample.is_compiled(model, "nutpie")
tree = sample.draw_compiled(machine.compiled_model(model), 50, 50, 2, 1, 0.9, 3, False)
print(machine.structure(model), known, len(written), repr(float(tree["posterior"]["theta"].mean())))
"""


def test_another_process_finds_the_code_of_the_first_and_draws_the_same(tmp_path):
    said = []
    for hash_seed in ("1", "2"):
        flags = {"PYTENSOR_FLAGS": f"base_compiledir={tmp_path}", "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER], env=os.environ | flags, capture_output=True, text=True, check=True
        )
        said.append(ran.stdout.split())
    assert [words[1:3] for words in said] == [["False", "1"], ["True", "0"]]
    assert said[0][0] == said[1][0] == machine.structure(simple())
    assert said[0][3] == said[1][3]


def test_damaged_code_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "folder", lambda: tmp_path)
    machine.machine_of(simple())
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-10])
    assert machine.read(kept) is None
    machine.machine_of(simple())
    assert machine.read(kept) is not None


def test_code_that_has_not_been_used_for_longest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "folder", lambda: tmp_path)
    monkeypatch.setattr(machine, "MOST", 1)
    for sd in (1.0, 2.0):
        machine.machine_of(simple(sd=sd))
    assert [path.stem for path in tmp_path.iterdir()] == [machine.structure(simple(sd=2.0))]
