"""Units left out: densities against dense algebra, weights against exact refits, the command and what it refuses."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from scipy import integrate, stats

from src import command, fit, heldout, loo, trace
from src.collapse import collapse
from src.command import UserError
from src.config import LooConfig
from src.design import MEAN, build_design, regression_of
from src.errors import Nuisance, Shock, shock_columns, shock_precision
from src.heldout import Draws
from src.passes import precision_of
from tests.test_command import composed
from tests.test_fit import call
from tests.worlds import panel_of

RHO, ONSET, SPREAD = 0.6, (0.5, 0.9), 0.8


@pytest.fixture(scope="module")
def panel():
    """Eleven units with gaps, weights and a unit of one row, in two classifications."""
    rng = np.random.default_rng(2)
    seen = [[1, 2, 4, 5], [1, 2, 3, 4, 5], [2], [1, 3, 4], [1, 2], [1, 2, 3], [2, 3, 4, 5], [1, 2, 3, 4, 5], [2, 3, 5],
            [1, 4, 5], [1, 2, 3, 4]]  # fmt: skip
    unit, time = np.repeat(np.arange(11), [len(t) for t in seen]), np.concatenate(seen)
    cohort = np.array([3, np.inf, np.inf, 3, np.inf, 3, 4, np.inf, 3, np.inf, 4])
    weight = rng.uniform(0.5, 2.0, len(unit))
    groups = {"industry": np.arange(11) % 3, "ownership": np.arange(11) % 2}
    return panel_of(unit, time, cohort, rng.normal(size=len(unit)), groups, weight=weight / weight.mean())


def made(panel, shocks: int, nu: float, integrated: bool):
    """A collapsed regression with errors that are given, and draws of its coefficients."""
    collapsed = collapse(build_design(panel, {})[0])
    codes = {name: factor.code for name, factor in list(panel.groups.items())[:shocks]}
    given = {name: Shock(code, int(code.max()) + 1, 0.7, 0.4) for name, code in codes.items()}
    weight = np.linspace(0.5, 2.0, 11)
    nuisance = Nuisance(RHO, nu, 0.9, 1.2, weight, np.zeros(11), given, {"unit": SPREAD}, onset=ONSET)
    regression = regression_of(panel, {}, None, True, None, ONSET, integrated=integrated)
    collapsed = replace(collapsed, regression=regression, nuisance=nuisance)
    coefficients = 0.4 * np.random.default_rng(4).normal(size=(3, regression.design.size))
    if integrated:
        coefficients[:, regression.design.blocks[MEAN].columns] = 0.0
    sigma = np.array([0.8, 1.0, 1.3])
    return collapsed, Draws(coefficients, sigma, SPREAD * sigma if integrated else np.array([0.5, 0.9, 0.0]))


def own_of(panel):
    return panel.treated * np.select([panel.event_time == 0, panel.event_time == 1], ONSET, 1.0)


def contrasts(panel, units):
    """Orthonormal contrasts within units, shape (contrast, row)."""
    blocks = []
    for i in units:
        rows = np.flatnonzero(panel.unit == i)
        block = np.zeros((len(rows) - 1, len(panel.unit)))
        if len(rows) > 1:
            block[:, rows] = scipy.linalg.helmert(len(rows))
        blocks.append(block)
    return np.vstack(blocks)


def by_force(collapsed, draws, d, i, scale, integrated):
    """log p of the contrasts of unit i given those of all others, by dense algebra, its scale given."""
    panel, nuisance = collapsed.regression.panel, collapsed.nuisance
    weight = nuisance.weight.copy()
    weight[i] = 1 / scale
    cover = np.linalg.inv(precision_of(panel, weight, RHO).toarray())
    periods = collapsed.regression.frame.periods
    for shock in nuisance.shocks.values():
        columns = shock_columns(panel, shock, periods).toarray()
        prior = np.linalg.inv(shock_precision(np.diff(periods), shock))
        cover += columns @ np.kron(np.eye(shock.levels), prior) @ columns.T
    f, design = own_of(panel), collapsed.regression.design
    mine = panel.unit == i
    left = panel.outcome - collapsed.regression.matrix @ draws.coefficients[d]
    if integrated:
        cover += SPREAD**2 * np.outer(f, f) * np.equal.outer(panel.unit, panel.unit)
    else:
        cover += (draws.spread[d] / draws.sigma[d]) ** 2 * np.outer(f * mine, f * mine)
        block = design.blocks["unit"]
        if panel.units[i] in block.levels:
            left = left + f * mine * draws.coefficients[d, block.start + block.levels.index(panel.units[i])]
    others = contrasts(panel, [j for j in range(11) if j != i])
    inside = contrasts(panel, [i])
    cover = draws.sigma[d] ** 2 * cover
    known, both = others @ cover @ others.T, inside @ cover @ others.T
    mean = both @ np.linalg.solve(known, others @ left)
    rest = inside @ cover @ inside.T - both @ np.linalg.solve(known, both.T)
    return stats.multivariate_normal(mean, rest).logpdf(inside @ left)


@pytest.mark.parametrize("shocks", [0, 1, 2])
@pytest.mark.parametrize("integrated", [False, True])
def test_densities_are_those_of_dense_algebra(panel, shocks, integrated):
    collapsed, draws = made(panel, shocks, 4.0, integrated)
    units = np.array([0, 1, 6])
    products = heldout.products_of(collapsed)
    density, plugged = heldout.log_densities(collapsed, products, draws, units, inside=True)
    for k, i in enumerate(units):
        typical = (1.2 if np.isfinite(panel.cohort[i]) else 0.9) ** 2
        prior = stats.invgamma(2.0, scale=2.0 * typical)
        for d in range(3):
            at = 1 / collapsed.nuisance.weight[i]
            assert plugged[d, k] == pytest.approx(by_force(collapsed, draws, d, i, at, integrated), abs=1e-8)
        log_scale = np.linspace(-7, 9, 161)
        values = [
            np.exp(by_force(collapsed, draws, 1, i, np.exp(x), integrated)) * prior.pdf(np.exp(x)) * np.exp(x)
            for x in log_scale
        ]
        assert density[1, k] == pytest.approx(np.log(integrate.trapezoid(values, log_scale)), abs=1e-5)


@pytest.mark.parametrize("integrated", [False, True])
def test_a_unit_is_taken_out_as_if_it_had_not_been_there(panel, integrated):
    collapsed, draws = made(panel, 2, 4.0, integrated)
    products = heldout.products_of(collapsed)
    units = np.array([0, 1, 6])
    inside, _ = heldout.log_densities(collapsed, products, draws, units, inside=True)
    for k, i in enumerate(units):
        smaller, rest = heldout.without(collapsed, products, np.array([i]))
        alone, _ = heldout.log_densities(collapsed, rest, draws, np.array([i]), inside=False)
        np.testing.assert_allclose(alone[:, 0], inside[:, k], atol=1e-8)
        keep = np.flatnonzero(np.arange(11) != i)
        again = heldout.products_of(collapsed, keep)
        np.testing.assert_allclose(rest.toarray(), again.toarray(), atol=1e-9)
        assert smaller.evidence.dof <= collapsed.evidence.dof


def test_one_scale_for_all_needs_no_integral(panel):
    collapsed, draws = made(panel, 1, np.inf, False)
    products = heldout.products_of(collapsed)
    density, plugged = heldout.log_densities(collapsed, products, draws, np.array([0, 1]), inside=True)
    np.testing.assert_array_equal(density, plugged)


def test_weights_give_what_exact_refits_give():
    """A conjugate model: the marginal likelihood of all units over that of all but one."""
    rng = np.random.default_rng(3)
    unit, time = np.repeat(np.arange(40), 5), np.tile(np.arange(1, 6), 40)
    cohort = np.where(np.arange(40) < 12, 3.0, np.inf)
    panel = panel_of(unit, time, cohort, rng.normal(size=200) + 0.5 * (time >= cohort[unit]))
    collapsed = collapse(build_design(panel, {})[0])
    design, panel = collapsed.regression.design, collapsed.regression.panel
    columns = design.columns(("mu", "time"))
    x = collapsed.regression.matrix[:, columns].toarray()
    within = scipy.linalg.block_diag(*[scipy.linalg.helmert(5)] * 40)
    y, x = within @ panel.outcome, within @ x
    cover = np.eye(len(y)) + 4.0 * x @ x.T
    of = np.repeat(np.arange(40), 4)
    exact = [
        stats.multivariate_normal(np.zeros(160), cover).logpdf(y)
        - stats.multivariate_normal(np.zeros(156), cover[np.ix_(of != i, of != i)]).logpdf(y[of != i])
        for i in range(40)
    ]
    precision = x.T @ x + np.eye(len(columns)) / 4
    mean, lower = np.linalg.solve(precision, x.T @ y), np.linalg.cholesky(np.linalg.inv(precision))
    coefficients = np.zeros((4000, design.size))
    coefficients[:, columns] = mean + rng.standard_normal((4000, len(columns))) @ lower.T
    draws = Draws(coefficients, np.ones(4000), np.zeros(4000))
    products = heldout.products_of(collapsed)
    density, plugged = heldout.log_densities(collapsed, products, draws, np.arange(40), inside=True)
    found = loo.weighted(SimpleNamespace(panel=panel), np.arange(40), density, plugged, 4)
    assert found.pareto_k.max() < 0.5
    np.testing.assert_allclose(found.elpd_i, exact, atol=0.05)
    assert found.elpd == pytest.approx(sum(exact), abs=0.1)
    better = loo.with_exact(found, np.array([3]), np.array([exact[3]]))
    assert better.elpd_i.to_numpy()[3] == exact[3]
    assert better.elpd == pytest.approx(found.elpd - float(found.elpd_i[3]) + exact[3])


def command_of(*words) -> int:
    before = sys.argv
    sys.argv = ["loo", *loo.with_runs([str(word) for word in words])]
    try:
        with pytest.raises(SystemExit) as stopped:
            command.command(loo.loo, config_name="loo")
    finally:
        sys.argv = before
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two kept runs of the same rows, and one of others."""
    place = tmp_path_factory.mktemp("runs")
    few = ["model=pooled", "sampler.draws=300", "sampler.tune=300", "figures=false", "estimators=[twfe]"]
    each = {
        "full": ["data.size=small"],
        "white": ["data.size=small", "likelihood.serial=none", "likelihood.scale=common", "likelihood.shocks=[]"],
        "others": ["data=mpdta"],
    }
    for name, more in each.items():
        assert call(fit.fit, *few, *more, f"hydra.run.dir={place / name}") in (0, 3)
    return {name: place / name for name in each}


def test_the_command_compares_and_reminds(runs, tmp_path, capsys):
    place = tmp_path / "loo"
    assert command_of(runs["white"], runs["full"], "draws=400", "refits=1", f"folder={place}") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Prediction is not identification" in said
    table = pd.read_csv(place / "compare.csv")
    assert list(table["run"]) == ["full", "white"]  # what the world has errors do is found
    assert list(table["run_id"]) == [trace.kept_run_id(runs[name] / "posterior.nc") for name in table["run"]]
    assert table.loc[1, "elpd_diff"] < -4 * table.loc[1, "dse"]
    assert table["weight"].sum() == pytest.approx(1, abs=1e-6)
    units = pd.read_csv(place / "loo.csv")
    assert list(units.columns) == loo.COLUMNS
    sums = units.groupby("run")["elpd"].sum()
    np.testing.assert_allclose(table.set_index("run")["elpd"], sums[table["run"]])
    adopters = units[units["adopter"]].groupby("run")["elpd"].sum()
    np.testing.assert_allclose(table.set_index("run")["elpd_adopters"], adopters[table["run"]])
    assert (place / "loo.png").stat().st_size > 10_000


@pytest.mark.slow
def test_folds_agree_with_weights(runs, tmp_path):
    told = {"single": ["refits=0"], "units": ["folds=10"], "industries": ["folds=3", "by=industry"]}
    elpd = {}
    for name, words in told.items():
        assert command_of(runs["full"], "draws=400", *words, f"folder={tmp_path / name}") == 0
        elpd[name] = pd.read_csv(tmp_path / name / "compare.csv")["elpd"][0]
    assert elpd["units"] == pytest.approx(elpd["single"], abs=25)
    assert elpd["industries"] < elpd["units"] - 50  # shocks of a level are not told by other levels
    assert set(pd.read_csv(tmp_path / "units" / "loo.csv")["how"]) == {"fold"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a run"),
        (["full", "others"], "have not the same rows"),
        (["full", "full"], "named twice"),
        (["full", "by=industry"], "give their number too"),
        (["full", "folds=1"], "leaves nobody"),
        (["full", "folds=3", "by=colour"], "is no group of the data: choose from unit, industry, ownership"),
        (["full", "folds=500"], "more than there are of unit"),
        (["nowhere"], "holds no finished run"),
    ],
)
def test_mistakes_end_in_a_message(words, said, runs, capsys):
    given = [runs.get(word, word) for word in words]
    assert command_of(*given) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data=synthetic_counts", "likelihood=poisson_lognormal"], "brings counts to their evidence"),
        (["model=joint"], "is of several outcomes"),
        (["model.tails=student_t"], "has no closed form"),
    ],
)
def test_what_has_no_density_is_refused(settings, said, tmp_path):
    with pytest.raises(UserError, match=said):
        loo.refuse(composed(*settings), tmp_path)


def test_paths_become_runs():
    assert loo.with_runs(["a/b", "folds=3", "it's"]) == ["folds=3", "runs=['a/b','it\\'s']"]
    assert LooConfig().runs == []
