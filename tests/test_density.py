"""Densities that are kept are those of the model, and what one would write down by hand."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor
import pytest
import scipy.sparse as sp
import xarray as xr
from scipy import integrate, stats

from models import hier, pooled
from models.inputs import Block, Design
from src import equations, sample, trace
from src.density import densities, log_likelihood, log_prior
from src.products import cross_products, independent_precision
from tests.test_models import VARIANTS, build, collapsed_of
from tests.test_system import FIRST, collapsed_system, model_of, with_others
from tests.worlds import WEAK, staggered


@pytest.fixture(scope="module")
def collapsed():
    return collapsed_of(staggered(units=150, seed=1))


def drawn(model, draws=6):
    """Draws from the prior, in the shape of a posterior of two chains."""
    found = sample.draw_prior(model, 1, 2 * draws).squeeze("chain", drop=True)
    halves = [found.isel(draw=slice(k * draws, (k + 1) * draws)).assign_coords(draw=range(draws)) for k in (0, 1)]
    return xr.concat(halves, "chain").assign_coords(chain=[0, 1])


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("function", "options"), VARIANTS)
def test_densities_are_those_of_the_model(collapsed, function, options, known):
    """Beside PyMC's own, taken draw by draw, and the likelihood that NUTS sees; raw draws of spreads are left out.

    Scales of units and counts come with a sigma that is known.
    """
    evidence = replace(collapsed.evidence, sigma_known=known)
    model = build(replace(collapsed, evidence=evidence), function, **options)
    posterior = drawn(model)
    found = densities(model, posterior)
    names = [str(variable.name) for variable in model.free_RVs]
    raw = {name for name in names if name.endswith("_offset") and f"sd_{name.removesuffix('_offset')}" in names}
    assert set(found["log_prior"]) == set(names) - raw
    tree = xr.DataTree.from_dict({"posterior": posterior})
    own = pm.stats.compute_log_prior(
        tree, model=model, progressbar=False, extend_inferencedata=False, compile_kwargs={"mode": "FAST_COMPILE"}
    )
    for name, mine in found["log_prior"].items():
        levels = [dim for dim in own[name].dims if dim not in ("chain", "draw")]
        np.testing.assert_allclose(mine, own[name].sum(levels), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(found["log_likelihood"]["outcome"], seen_by_nuts(model, posterior), rtol=1e-9)


def seen_by_nuts(model, posterior):
    """The likelihood of the model's own graph, draw by draw."""
    given = [model[name] for name in ("theta", "sigma") if name in model.named_vars]
    likelihood = pytensor.function(given, model["evidence"], mode="FAST_COMPILE")
    return [[likelihood(*(posterior[v.name].to_numpy()[c, d] for v in given)) for d in range(6)] for c in (0, 1)]


def test_the_prior_is_the_sum_of_densities_written_by_hand(collapsed):
    posterior = drawn(build(collapsed, hier.build))
    found = log_prior(build(collapsed, hier.build), posterior)
    half_t = stats.t(3, 0, WEAK.sd)
    deviation = posterior["ownership_deviation"].to_numpy()
    # two levels that sum to zero have one coordinate, sqrt(2) times the first, Normal with the SD of a level
    expected = {
        "mu": stats.norm(0, WEAK.mu).logpdf(posterior["mu"]),
        "sd_industry": np.log(2) + half_t.logpdf(posterior["sd_industry"]),
        "path_offset": stats.norm().logpdf(posterior["path_offset"]).sum(axis=-1),
        "delta_control": stats.norm(0, WEAK.exposure).logpdf(posterior["delta_control"]).sum(axis=-1),
        "difference": stats.norm(0, WEAK.difference).logpdf(posterior["difference"]).sum(axis=-1),
        "ownership_deviation": stats.norm(0, WEAK.fixed).logpdf(np.sqrt(2) * deviation[..., 0]),
        "sigma": stats.lognorm(WEAK.sigma).logpdf(posterior["sigma"]),
    }
    for name, density in expected.items():
        np.testing.assert_allclose(found[name], density, atol=1e-6, err_msg=name)  # constants in 32 bits


def test_the_likelihood_is_that_of_rows_with_unit_effects_integrated_by_brute_force():
    rng = np.random.default_rng(3)
    unit = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    x, y = (rng.random(len(unit)) < 0.5).astype(float), rng.normal(size=len(unit)) + unit
    cross = cross_products(sp.csr_array(x[:, None]), y, unit, independent_precision(np.ones(len(unit))))
    design = Design({"mu": Block("mu", "", ("",), 0), "path": Block("path", "event_time", (0,), 1)}, np.ones(1))
    posterior = drawn(model := pooled.build(design, replace(cross, dof=6.0), WEAK))

    def explicit(mu, sigma):
        total = 0.0
        for i in range(4):
            left = (y - mu * x)[unit == i]
            ends = (left.mean() - 12 * sigma, left.mean() + 12 * sigma)
            most = stats.norm.logpdf(left, left.mean(), sigma).sum()

            def density(alpha, left=left, most=most, sigma=sigma):
                return np.exp(stats.norm.logpdf(left, alpha, sigma).sum() - most)

            total += most + np.log(integrate.quad(density, *ends, points=[left.mean()], epsabs=1e-13)[0])
        return total

    found = log_likelihood(model, posterior)["outcome"].to_numpy().ravel()
    points = zip(posterior["mu"].to_numpy().ravel(), posterior["sigma"].to_numpy().ravel(), strict=True)
    gaps = found - [explicit(mu, sigma) for mu, sigma in points]
    np.testing.assert_allclose(gaps, gaps[0], rtol=0, atol=1e-7)


def test_a_likelihood_of_several_descriptions_is_the_mean_that_the_model_has(collapsed):
    evidence = collapsed.evidence.rescale(collapsed.s)
    several = replace(
        evidence,
        gram=np.stack([evidence.gram, 1.1 * evidence.gram]),
        moment=np.stack([evidence.moment, 0.9 * evidence.moment]),
        square=np.array([evidence.square, 1.01 * evidence.square]),
        log_weight=np.log([0.3, 0.7]),
    )
    model = pooled.build(collapsed.regression.design, several, WEAK)
    posterior = drawn(model)
    expected = seen_by_nuts(model, posterior)
    np.testing.assert_allclose(log_likelihood(model, posterior)["outcome"], expected, rtol=1e-9)


@pytest.mark.parametrize("together", [False, True])
def test_every_equation_keeps_its_own_under_its_name_whatever_the_units(together):
    system = collapsed_system(with_others(staggered(units=120, seed=2)), (FIRST, "one") if together else ("one", FIRST))
    model = model_of(system, together=together)
    posterior = drawn(model)
    groups = densities(model, posterior)
    names = set(groups["log_prior"])
    assert {"mu", "one::mu", "sd_industry", "one::sd_industry"} <= names
    assert ("industry_partial" in names) == together
    assert not [name for name in names if name.endswith("industry_offset")]
    assert set(groups["log_likelihood"]) == {"outcome", "one::outcome"}
    stats_group = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((2, 6), bool))})
    sampled = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats_group, "prior": posterior} | groups)
    tree = equations.assemble(sampled, system, 1, {})
    for name, group in groups.items():
        xr.testing.assert_equal(tree[name].to_dataset(), group)
    again = trace.with_estimands(tree, xr.Dataset())
    assert set(trace.DENSITIES) <= set(again.children)
