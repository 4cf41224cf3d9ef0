"""What is kept is what was drawn; a killed write leaves nothing; names follow what determines the posterior."""

import ast
import json
import logging

import numpy as np
import pytest
import xarray as xr

from models import hier, pooled
from src import sample, trace
from src.collapse import collapse, least_squares
from src.design import build_design
from src.exposure import row_shares
from tests.worlds import WEAK, staggered


@pytest.fixture(scope="module")
def fitted():
    panel = staggered(units=120, seed=21)
    collapsed = collapse(build_design(panel, row_shares(panel)[0])[0])
    evidence = collapsed.evidence.rescale(collapsed.s)
    model = hier.build(collapsed.regression.design, evidence, WEAK, late=False, interactions=False)
    sampled = sample.draw_posterior(model, draws=300, tune=400, chains=2, seed=3)
    attributes = {"run_id": "abc", "seed": 3, "seconds": {"sample": 1.0}, "config": {"a": [1, 2]}}
    return collapsed, sampled, trace.assemble(sampled, collapsed, 3, attributes)


@pytest.fixture(scope="module")
def simple(fitted):
    """A model of the same evidence that is compiled in no time."""
    collapsed = fitted[0]
    return pooled.build(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), WEAK)


def test_save_and_load_are_equal(fitted, tmp_path):
    tree = fitted[2]
    trace.save(tree, tmp_path / "posterior.nc")
    again = trace.load(tmp_path / "posterior.nc")
    for name, group in tree.children.items():
        xr.testing.assert_equal(again[name].to_dataset(), group.to_dataset())
    assert again.attrs["run_id"] == "abc"
    assert json.loads(again.attrs["config"]) == {"a": [1, 2]}
    assert trace.kept_run_id(tmp_path / "posterior.nc") == "abc"


def test_a_killed_write_leaves_no_file_under_any_name(fitted, tmp_path, monkeypatch):
    def killed(self, path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(xr.DataTree, "to_netcdf", killed)
    with pytest.raises(KeyboardInterrupt):
        trace.save(fitted[2], tmp_path / "posterior.nc")
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_whole_or_not_there(tmp_path):
    path = tmp_path / "table.csv"
    trace.write("one", path)
    with pytest.raises(TypeError), trace.whole(path) as part:
        part.write_bytes("text where bytes belong")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_run_has_no_name(tmp_path):
    assert trace.kept_run_id(tmp_path / "absent.nc") is None
    (tmp_path / "broken.nc").write_bytes(b"not a file of ours")
    assert trace.kept_run_id(tmp_path / "broken.nc") is None


def test_parameters_are_in_units_of_the_outcome_but_for_raw_draws(fitted):
    collapsed, sampled, tree = fitted
    np.testing.assert_allclose(tree["posterior"]["mu"], sampled["posterior"]["mu"] * collapsed.s)
    np.testing.assert_allclose(tree["prior"]["mu"], sampled["prior"]["mu"] * collapsed.s)
    np.testing.assert_array_equal(tree["posterior"]["industry_offset"], sampled["posterior"]["industry_offset"])


def test_integrated_terms_come_back_with_their_posterior(fitted):
    collapsed, _, tree = fitted
    panel = collapsed.regression.panel
    beta = tree["posterior"]["beta"]
    assert beta.dims == ("chain", "draw", "covariate")
    assert list(tree["posterior"]["lambda_"]["time"].to_numpy()) == panel.periods.tolist()
    np.testing.assert_array_equal(tree["posterior"]["lambda_"].sel(time=panel.periods[0]), 0)
    np.testing.assert_allclose(beta.mean(("chain", "draw")), [0.4, -0.2], atol=0.08)
    np.testing.assert_allclose(beta.std(("chain", "draw")), 0.5 / np.sqrt(collapsed.evidence.dof), rtol=0.25)


def test_flat_limit_of_beta_is_least_squares():
    panel = staggered(units=120, seed=22, groups=False, exposed=False)
    collapsed = collapse(build_design(panel, {})[0])
    design = collapsed.regression.design
    coefficient, covariance, sigma = least_squares(collapsed.evidence.take(design.columns(("mu",))))
    rng = np.random.default_rng(0)
    mu = coefficient[0] + np.sqrt(covariance[0, 0]) * rng.standard_normal((2, 4000))
    labels = design.labels(("mu",))
    posterior = xr.Dataset(
        {
            "theta": xr.DataArray(mu[..., None], dims=("chain", "draw", "column"), coords={"column": labels}),
            "sigma": (("chain", "draw"), np.full(mu.shape, sigma)),
        }
    )
    found = trace.with_nuisance(posterior, collapsed, 1)
    from tests.test_collapse import feols

    columns = np.column_stack([panel.covariates, panel.treated])
    bare = type(panel)(**{**panel.__dict__, "covariates": panel.covariates[:, :0], "covariate_names": ()})
    expected, se = feols(bare, columns)
    np.testing.assert_allclose(found["beta"].mean(("chain", "draw")), expected[:2], atol=4 * se[:2].max() / 89)
    np.testing.assert_allclose(found["beta"].std(("chain", "draw")), se[:2], rtol=0.05)


def test_equal_seeds_give_equal_draws(simple):
    one, same, other = (sample.draw_posterior(simple, draws=100, tune=100, chains=2, seed=s) for s in (3, 3, 4))
    for group in ("posterior", "prior"):
        xr.testing.assert_equal(same[group].to_dataset(), one[group].to_dataset())
        assert not other[group].to_dataset().equals(one[group].to_dataset())


def test_pymc_samples_without_log_lines_and_its_logger_is_left_as_it_was(simple, caplog):
    caplog.set_level(logging.INFO, "pymc")
    sample.draw_posterior(simple, backend="pymc", draws=100, tune=100, chains=2, cores=1, seed=3)
    assert [record.message for record in caplog.records] == []
    assert logging.getLogger("pymc").level == logging.INFO


def test_no_unnamed_dims(fitted):
    for child in fitted[2].children.values():
        for name, variable in child.to_dataset().data_vars.items():
            assert not any("_dim_" in str(dim) for dim in variable.dims), name


def test_run_id_follows_settings_and_data():
    one = trace.run_id({"a": 1}, "x")
    assert one == trace.run_id({"a": 1}, "x")
    assert len({one, trace.run_id({"a": 2}, "x"), trace.run_id({"a": 1}, "y")}) == 3


def imported_by(name):
    """Modules of src that a module imports at run time."""
    tree = ast.parse((trace.ROOT / "src" / f"{name}.py").read_text())
    idle = {node for part in ast.walk(tree) if is_for_types(part) for node in ast.walk(part)}
    found = set()
    for node in set(ast.walk(tree)) - idle:
        if isinstance(node, ast.ImportFrom) and node.module == "src":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("src."):
            found.add(str(node.module).removeprefix("src."))
    return found


def is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_what_stages_import_is_a_stage_too_or_changes_no_posterior():
    elsewhere = {"config", "engine", "machine", "stopwatch", "terminal"}
    assert set().union(*map(imported_by, trace.STAGES)) - set(trace.STAGES) <= elsewhere
