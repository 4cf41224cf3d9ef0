"""Systems of outcomes: the evidence of each equation, the model, what is kept of it, and the limits."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
import xarray as xr

from models import hier, system
from models.inputs import OUTCOME
from src import equations
from src.collapse import collapse
from src.config import GeneratorConfig
from src.design import build_design
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from src.panel import PanelError
from src.products import eliminate, least_squares
from src.system import FIRST, alone, clustered_over_plain, collapse_all, first, only, with_clustered_slopes
from tests.worlds import WEAK, staggered

EVERYTHING = {"errors": Errors(), "units": False, "own": True, "alike": False}


def with_others(panel, seed=5):
    """The panel with two other outcomes, the second of which moves with the first."""
    rng = np.random.default_rng(seed)
    one = 0.5 * panel.treated + rng.normal(size=len(panel.unit))
    two = 0.4 * one - 0.3 * panel.treated + rng.normal(size=len(panel.unit))
    return replace(panel, outcome=panel.outcome + 0.7 * one - 0.2 * two, others={"one": one, "two": two})


def collapsed_system(panel, order):
    return collapse_all(panel, row_shares(panel)[0], order=order, **EVERYTHING)


@pytest.fixture(scope="module")
def panel():
    return with_others(staggered(units=120, seed=2))


@pytest.fixture(scope="module")
def found(panel):
    return collapsed_system(panel, ("one", "two", FIRST))


def test_slopes_of_outcomes_before_are_those_of_a_regression_with_them(panel, found):
    """Dummies for units and periods, cells and exposures, by dense least squares."""
    equation = first(found)
    collapsed = equation.collapsed
    design = collapsed.regression.design
    names = ("cell", "exposure", "difference", "earlier")
    mine, _, sigma = least_squares(collapsed.evidence.take(design.columns(names)))
    kept = design.columns((*names, "covariate", "time"))
    columns = collapsed.regression.matrix.toarray()[:, kept]
    dummies = np.eye(len(panel.units))[panel.unit]
    theirs, *_ = np.linalg.lstsq(np.hstack([columns, dummies]), panel.outcome, rcond=None)
    at = slice(len(mine) - 2, len(mine))
    np.testing.assert_allclose(mine[at], theirs[at], rtol=1e-8)
    np.testing.assert_allclose(mine[at] / equation.scale, [0.7, -0.2], atol=0.15)
    assert sigma == pytest.approx(collapsed.s)


def test_total_effects_are_those_of_the_regression_without_the_outcomes_before(panel, found):
    """Least squares with the same columns: phi + c theta is what the reduced form finds, to the last digit."""

    def effects(collapsed, *more):
        names = ("cell", "exposure", "difference", *more)
        return least_squares(collapsed.evidence.take(collapsed.regression.design.columns(names)))[0]

    one, two, outcome = (equation.collapsed for equation in found)
    theta = effects(one)
    size = len(theta)
    of_two = effects(two, "earlier")
    theta_two = of_two[:size] + of_two[size] / one.s * theta
    of_outcome = effects(outcome, "earlier")
    slopes = of_outcome[size:] / [one.s, two.s]
    total = of_outcome[:size] + slopes[0] * theta + slopes[1] * theta_two
    reduced = collapse(build_design(replace(panel, others={}), row_shares(panel)[0])[0])
    np.testing.assert_allclose(total, effects(reduced), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        theta_two, effects(collapse(build_design(alone(panel, "two", {}, False), row_shares(panel)[0])[0])), atol=1e-8
    )


def model_of(found, **options):
    designs = {e.name: e.collapsed.regression.design for e in found}
    evidence = {e.name: e.collapsed.evidence.rescale(e.collapsed.s) for e in found}
    return system.build(designs, evidence, {e.name: e.width for e in found}, WEAK, **options)


def log_density(model, point):
    return float(model.compile_logp(jacobian=False)({name: point[name] for name in map(str, model.initial_point())}))


def test_without_slopes_equations_are_models_of_their_own(panel):
    """At c = 0 and apart, the density is that of two `hier`, but for the prior of c and y1 in the evidence."""
    found = collapsed_system(panel, ("one", FIRST))
    whole = model_of(found)
    rng = np.random.default_rng(0)
    point = {name: 0.3 * rng.normal(size=np.shape(value)) for name, value in whole.initial_point().items()}
    point["earlier_slope"] = np.zeros(1)
    parts = 0.0
    for equation in found:
        collapsed = equation.collapsed
        design = collapsed.regression.design
        evidence = collapsed.evidence.rescale(collapsed.s)
        if equation.earlier:
            kept = np.array([k for k in range(len(evidence.moment)) if k not in design.columns(("earlier",))])
            evidence = evidence.take(kept)
            blocks = {name: block for name, block in design.blocks.items() if name != "earlier"}
            shift = {name: replace(b, start=int(np.searchsorted(kept, b.start))) for name, b in blocks.items()}
            design = replace(design, blocks=shift)
        single = hier.build(design, evidence, WEAK)
        mine = {name: point[equation.named(name)] for name in single.initial_point()}
        parts += log_density(single, mine)
    prior = float(pm.logp(pm.Normal.dist(0.0, WEAK.mu * found[1].width), 0.0).eval())
    assert log_density(whole, point) == pytest.approx(parts + prior, rel=1e-10)


def test_the_vine_draws_correlation_matrices_of_the_lkj_law():
    """A correlation is 2 Beta(b, b) - 1 with b = eta + size / 2 - 1 alike: variance 1 / (2 b + 1)."""
    with pm.Model(coords={"equation_pair": range(3)}):
        factor = system.lkj_factor("x", 3)
        drawn = pm.draw(factor @ factor.T, 4000, random_seed=1)
    np.testing.assert_allclose(np.diagonal(drawn, axis1=1, axis2=2), 1.0)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert drawn[:, i, j].var() == pytest.approx(1 / (2 * (system.ETA + 0.5) + 1), rel=0.08)
        assert abs(drawn[:, i, j].mean()) < 0.03


DEVIATES = np.random.default_rng(5).normal(size=(2, 200_000))


@pytest.mark.slow
def test_levels_of_a_joint_model_are_correlated_whatever_way_their_effects_go(panel):
    """theta_2 = own_2 + tied c theta_1, own of both equations from shared offsets; the correlation of theta is kept."""
    found = collapsed_system(panel, (FIRST, "one"))
    model = model_of(found, together=True)
    terms = [name.removesuffix("_partial") for name in map(str, model.named_vars) if name.endswith("_partial")]
    assert terms
    rng = np.random.default_rng(3)
    point = {v.name: 0.5 * rng.normal(size=np.shape(model.initial_point()[v.name])) for v in model.value_vars}
    names = [f"{prefix}{kind}" for prefix in ("", "one::") for kind in ("theta", *(f"{t}_effect" for t in terms))]
    names += [f"one::sd_{t}" for t in terms] + [f"sd_{t}" for t in terms] + ["one::earlier_slope"]
    names += [f"{t}_{kind}" for t in terms for kind in ("offset", "correlation", "partial")]
    names += [f"one::{t}_tied" for t in terms]
    compiled = model.compile_fn([model[n] for n in names], inputs=model.value_vars, on_unused_input="ignore")
    values = dict(zip(names, compiled(point), strict=True))
    labels = {prefix: list(model.coords[f"{prefix}column"]) for prefix in ("", "one::")}
    for term in terms:
        r, c = 2 * values[f"{term}_partial"][0] - 1, values["one::earlier_slope"][0]
        mine, other = values[f"sd_{term}"], values[f"one::sd_{term}"]
        raw = values[f"{term}_offset"]
        (tied,) = values[f"one::{term}_tied"]
        assert 0 < tied < 1
        theta, own = mine * raw[0], other * (r * raw[0] + np.sqrt(1 - r**2) * raw[1])
        phi = own - (1 - tied) * c * theta
        np.testing.assert_allclose(values[f"{term}_effect"], theta)
        np.testing.assert_allclose(values[f"one::{term}_effect"], own + tied * c * theta)
        at = {p: [k for k, label in enumerate(labels[p]) if label.partition("[")[0] == term] for p in labels}
        np.testing.assert_allclose(values["theta"][at[""]], theta)
        np.testing.assert_allclose(values["one::theta"][at["one::"]], phi)
        covariance = np.cov(
            np.array([[mine, 0.0], [other * r + tied * c * mine, other * np.sqrt(1 - r**2)]]) @ DEVIATES
        )
        kept = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert values[f"{term}_correlation"][0, 1] == pytest.approx(kept, abs=0.01)


def test_what_is_kept_of_an_equation_bears_its_name_and_its_units(found):
    rng = np.random.default_rng(1)
    model = model_of(found)
    wanted = [v for v in model.free_RVs + model.deterministics if v.name.rpartition("::")[2] in ("mu", "theta")]
    wanted += [model["earlier_slope"], model["two::earlier_slope"]]
    dims = {v.name: model.named_vars_to_dims.get(v.name, ()) for v in wanted}
    lengths = {name: [len(model.coords[dim]) for dim in dims[name]] for name in dims}
    values = {name: rng.normal(size=(2, 3, *lengths[name])) for name in dims}
    coords = {dim: list(model.coords[dim]) for names in dims.values() for dim in names}
    drawn = xr.Dataset({name: (("chain", "draw", *dims[name]), values[name]) for name in dims}, coords=coords)
    kept = equations.in_outcome_units(drawn, found)
    one, two, outcome = (equation.collapsed.s for equation in found)
    np.testing.assert_allclose(kept["one::mu"], one * values["one::mu"])
    np.testing.assert_allclose(kept["mu"], outcome * values["mu"])
    np.testing.assert_allclose(kept["earlier_slope"], outcome * values["earlier_slope"] / [one, two])
    np.testing.assert_allclose(kept["two::earlier_slope"][..., 0], two * values["two::earlier_slope"][..., 0] / one)
    again = equations.coefficients(kept, found[1])
    np.testing.assert_allclose(again[..., :-1], two * values["two::theta"][..., :-1])
    np.testing.assert_allclose(again[..., -1], two * values["two::earlier_slope"][..., 0])
    assert list(again["column"].to_numpy())[-1] == "earlier[one]"
    assert "earlier[one]" not in kept["two::column"].to_numpy()


def test_an_equation_that_cannot_be_told_is_named(panel):
    constant = replace(panel, others={"one": np.ones(len(panel.unit))})
    with pytest.raises(PanelError, match="one does not change within any unit"):
        collapsed_system(constant, ("one", FIRST))
    adoption = replace(panel, others={"one": 1.0 * panel.treated})
    with pytest.raises(PanelError, match=r"one (does not vary|\(as an outcome of its own)"):
        collapsed_system(adoption, ("one", FIRST))
    for slope in (1.0, 2.0, -0.37):
        same = replace(panel, others={"one": slope * panel.outcome + 1})
        with pytest.raises(
            PanelError, match=r"one (is a linear function of outcome|does not vary|\(as an outcome of its own)"
        ):
            collapsed_system(same, (FIRST, "one"))


def test_width_is_what_the_outcomes_before_explain(panel, found):
    """Residual SDs of the saturated regression without and with them."""
    alone_ = collapse(build_design(alone(panel, "two", {}, False), row_shares(panel)[0])[0])
    assert found[1].width * found[1].collapsed.s == pytest.approx(alone_.s, rel=1e-6)
    assert found[1].width > 1
    assert found[0].width == 1


def test_the_first_outcome_has_a_name_on_the_right_hand_side_of_others(panel):
    found = collapsed_system(panel, (FIRST, "one", "two"))
    assert [equation.earlier for equation in found] == [(), (OUTCOME,), (OUTCOME, "one")]
    assert only(found[0].collapsed)[0].earlier == ()


def test_evidence_about_slopes_is_weakened_and_about_the_rest_is_not(panel):
    """What is known of the other coefficients given the slopes, and where the slopes are, stays."""
    collapsed = first(collapsed_system(panel, ("one", "two", FIRST))).collapsed
    larger = clustered_over_plain(collapsed)
    weaker = with_clustered_slopes(collapsed).evidence
    plain, design = collapsed.evidence, collapsed.regression.design
    names = ("cell", "exposure", "difference", "earlier")
    kept = design.columns(names)
    at = np.arange(len(kept) - 2, len(kept))
    before, after = (eliminate(e.take(kept), at, np.arange(len(kept) - 2))[0] for e in (plain, weaker))
    shrunk = np.sqrt(np.maximum(larger, 1))
    np.testing.assert_allclose(after.gram, before.gram / np.outer(shrunk, shrunk), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.solve(after.gram, after.moment), np.linalg.solve(before.gram, before.moment))
    rest = kept[:-2]
    np.testing.assert_array_equal(weaker.gram[np.ix_(rest, kept)], plain.gram[np.ix_(rest, kept)])
    np.testing.assert_array_equal(weaker.moment[rest], plain.moment[rest])
    mine, theirs = (least_squares(e.take(kept)) for e in (plain, weaker))
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-6)
    assert mine[2] == pytest.approx(theirs[2], rel=1e-8)


def test_clustered_variance_is_that_of_dense_residuals(panel):
    collapsed = first(collapsed_system(panel, ("one", FIRST))).collapsed
    regression = collapsed.regression
    design, units = regression.design, regression.panel.unit
    kept = design.columns(("cell", "exposure", "difference", "covariate", "time"))
    columns = np.hstack([regression.matrix.toarray()[:, kept], np.eye(len(regression.panel.units))[units]])
    (given,) = regression.panel.given.values()

    def left(y, x):
        return y - x @ np.linalg.lstsq(x, y, rcond=None)[0]

    x, e = left(given, columns), left(regression.panel.outcome, np.column_stack([columns, given]))
    theirs = (np.bincount(units, x * e) ** 2).sum() / (collapsed.s**2 * (x @ x))
    np.testing.assert_allclose(clustered_over_plain(collapsed), theirs)


def test_estimated_weights_make_slopes_less_certain():
    """Where what is before varies as the errors do, weights drawn towards each other overstate what is known."""
    alike = {"rho": 0.0, "industry_shock": 0.0, "district_shock": 0.0, "mediated": [0.3], "on_mediators": [0.3]}
    world = GeneratorConfig(name="w", units=400, adopters=[10, 10, 10, 10], **alike)
    found = []
    for seed in (2, 3, 4):
        panel = draw(world, 1, seed)
        own = alone(panel, FIRST, {"m0": panel.others["m0"]}, False)
        regression, _ = build_design(own, row_shares(own)[0], True)
        found.append(clustered_over_plain(collapse(regression, Errors("none", "unit", ())))[0])
    assert np.mean(found) > 1.1
