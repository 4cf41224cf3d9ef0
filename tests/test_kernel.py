"""The learned kernel against loops over pairs, and against dense Gaussian densities of every description."""

from itertools import product

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy.special import logsumexp

from models import pooled
from src import estimand, kernel
from src.collapse import collapse
from src.config import DataConfig, ExposureConfig
from src.design import build_design
from src.encode import encode
from src.exposure import row_shares
from src.kernel import BLOCKS, COARSE, KERNELS, STEPS
from tests.test_ties import PERIODS, UNITS, frame, haversine
from tests.worlds import WEAK

CUTOFF = 60.0


@pytest.fixture(scope="module")
def panel():
    data = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y")
    data.exposures = {"near": ExposureConfig(kernel="learned", latitude="lat", longitude="lon", cutoff=CUTOFF)}
    return encode(frame(), data, "")


@pytest.fixture(scope="module")
def collapsed(panel):
    return collapse(build_design(panel, row_shares(panel)[0])[0])


def by_loops(panel) -> np.ndarray:
    """E of every kernel, indicators and numbers of every row, in their own units, one pair after the other."""
    rows = frame()
    at, g = rows[["lat", "lon"]].to_numpy()[::PERIODS], rows["g"].to_numpy()[::PERIODS]
    found = []
    for i, t in product(range(UNITS), range(1, PERIODS + 1)):
        others = [j for j in range(UNITS) if j != i and 0 < g[j] <= t]
        d = np.array([haversine(at[i], at[j]) for j in others])
        values = []
        for a, rho, reach in KERNELS:
            k = np.exp(-rho * d / CUTOFF) * (d <= reach * CUTOFF)
            values.append(k.max(initial=0.0) if a == 0 else (k ** (1 / a)).sum() ** a)
        number = [(d <= CUTOFF * (r + 1) / STEPS).sum() for r in range(STEPS)]
        found.append([*values, *(n > 0 for n in number), *number])
    return np.array(found, dtype=float)[(panel.unit * PERIODS + panel.time - 1)]


def test_surface_is_what_loops_over_pairs_find(panel):
    surface, expected = kernel.surface_of(panel), by_loops(panel)
    np.testing.assert_allclose(surface.columns.toarray() * surface.units, expected, atol=1e-9)
    untreated = ~panel.treated & (expected[:, -1] > 0)
    means = surface.columns.toarray()[untreated].mean(axis=0)
    np.testing.assert_allclose(means[: len(KERNELS)][expected[untreated].any(axis=0)[: len(KERNELS)]], 1.0)
    assert means[-1] == pytest.approx(1.0)
    assert (surface.reached == (expected[:, -1] > 0)).all()


def test_one_adopter_alone_is_a_row_that_one_adopter_reaches(panel):
    surface, raw = kernel.surface_of(panel), by_loops(panel)
    rows = frame()
    at, g = rows[["lat", "lon"]].to_numpy()[::PERIODS], rows["g"].to_numpy()[::PERIODS]
    lonely = np.flatnonzero(raw[:, -1] == 1)
    assert len(lonely) > 3
    for row in lonely:
        i, t = panel.unit[row], panel.time[row]
        nearest = min(haversine(at[i], at[j]) for j in range(UNITS) if j != i and 0 < g[j] <= t)
        np.testing.assert_allclose(
            surface.alone(np.array([nearest]))[0], surface.columns[[row]].toarray()[0], atol=1e-9
        )


def test_nearest_ring_is_that_of_the_nearest_adopter(panel):
    raw = by_loops(panel)
    ring = [STEPS - int(n) if n else -1 for n in raw[:, len(KERNELS) : len(KERNELS) + STEPS].sum(axis=1)]
    assert kernel.surface_of(panel).nearest.tolist() == ring


def dense(collapsed):
    """Outcome and columns with units and periods taken out, in units of s, orthonormal basis of what is left."""
    panel, design = collapsed.regression.panel, collapsed.regression.design
    fixed = np.column_stack(
        [panel.unit[:, None] == np.arange(len(panel.units)), panel.time[:, None] == panel.periods[None, 1:]]
    ).astype(float)
    basis = np.linalg.svd(fixed, full_matrices=True)
    left = basis[0][:, np.linalg.matrix_rank(fixed) :].T
    matrix = collapsed.regression.matrix.toarray()
    return left @ panel.outcome / collapsed.s, left @ matrix, design


def density(residual: np.ndarray, columns: np.ndarray, scales: np.ndarray) -> float:
    """Normal(0, I + Z diag(scales^2) Z') at a residual, but for the constant."""
    covariance = np.eye(len(residual)) + (columns * scales**2) @ columns.T
    return float(-0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * residual @ np.linalg.solve(covariance, residual))


def descriptions(design):
    """Columns of every description with the prior SD of their coefficients."""
    coarse = np.arange(1, STEPS + 1) % COARSE == 0
    sets = [np.zeros(STEPS, dtype=bool), np.ones(STEPS, dtype=bool), coarse]
    steps = [design.columns((block,)) for block in BLOCKS[1:]]
    for any_, number in product(sets, sets):
        more = np.r_[steps[0][any_], steps[1][number]]
        for column in design.columns(("kernel",)):
            yield np.r_[column, more], np.r_[WEAK.exposure, np.full(len(more), WEAK.ring)]


def test_evidence_is_the_mean_of_dense_densities(collapsed):
    y, x, design = dense(collapsed)
    learned = kernel.learn(collapsed.evidence.rescale(collapsed.s), design, WEAK)
    evidence = learned.evidence
    assert learned.covered == pytest.approx(1.0)
    rng, ours, theirs = np.random.default_rng(1), [], []
    for _ in range(3):
        theta = rng.normal(0, 0.3, evidence.moment.shape[1])
        fits = [-0.5 * (q - 2 * m @ theta + theta @ g @ theta) for q, m, g in
                zip(evidence.square, evidence.moment, evidence.gram, strict=True)]  # fmt: skip
        ours.append(logsumexp(evidence.log_weight + fits))
        residual = y - x[:, : len(theta)] @ theta
        known = [(c, s) for c, s in descriptions(design) if np.abs(x[:, c[0]]).max() > 1e-9]
        theirs.append(logsumexp([density(residual, x[:, c], s) for c, s in known]))
        assert len(known) == len(fits)
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), atol=1e-6)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-6)


def test_spillover_is_drawn_from_its_posterior_given_theta(collapsed):
    y, x, design = dense(collapsed)
    learned = kernel.learn(collapsed.evidence.rescale(collapsed.s), design, WEAK)
    size = learned.evidence.moment.shape[1]
    theta = np.random.default_rng(2).normal(0, 0.3, size)
    draws = xr.DataArray(
        np.tile(theta, (2, 4000, 1)), dims=("chain", "draw", "column"), coords={"column": design.all_labels[:size]}
    )
    posterior = kernel.completed(xr.Dataset({"theta": draws}), learned, design, seed=3)
    residual = y - x[:, :size] @ theta
    spill = design.columns(BLOCKS)
    weights, means = [], []
    for columns, scales in descriptions(design):
        z = x[:, columns]
        covariance = np.eye(len(residual)) + (z * scales**2) @ z.T
        weights.append(density(residual, z, scales))
        means.append(z @ (scales**2 * (z.T @ np.linalg.solve(covariance, residual))))
    share = np.exp(weights - logsumexp(weights))
    expected = share @ np.array(means)
    drawn = posterior["theta"].to_numpy()[..., size:].reshape(-1, len(spill)) @ x[:, spill].T
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert learned.covered == pytest.approx(1.0)
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - expected), 5 * error)
    reach = posterior["kernel_reach"].to_numpy().ravel()
    by_reach = [
        share[[k for k in range(len(share)) if KERNELS[k % len(KERNELS)][2] == r]].sum() for r in kernel.REACHES
    ]
    np.testing.assert_allclose([(reach == r).mean() for r in kernel.REACHES], by_reach, atol=0.03)


def test_model_has_the_density_of_the_evidence(collapsed):
    design = collapsed.regression.design
    learned = kernel.learn(collapsed.evidence.rescale(collapsed.s), design, WEAK)
    model = pooled.build(design, learned.evidence, WEAK)
    used = learned.evidence.take(design.columns(("mu",)))
    point = model.initial_point()
    logp = model.compile_logp()
    values = []
    for mu in (0.0, 0.7):
        point["mu"] = np.array(mu)
        sigma = 1.0 if used.sigma_known else float(np.exp(point["sigma_log__"]))
        fits = -(used.square - 2 * used.moment[:, 0] * mu + used.gram[:, 0, 0] * mu**2) / (2 * sigma**2)
        prior = pm.logp(pm.Normal.dist(0, WEAK.mu), mu).eval()
        values.append(float(logp(point)) - float(prior) - logsumexp(used.log_weight + fits))
    assert values[0] == pytest.approx(values[1], abs=1e-8)


def test_estimands_of_a_learned_kernel(collapsed):
    design = collapsed.regression.design
    panel, surface = collapsed.regression.panel, collapsed.regression.surface
    found = estimand.averages(collapsed.regression, collapsed.evidence, ("mu", *BLOCKS))
    by = {(a.estimand, a.level): a for a in found}
    rng = np.random.default_rng(4)
    theta = rng.normal(size=design.size)
    f = surface.columns @ theta[design.columns(BLOCKS)]
    exposed = ~panel.treated & surface.reached
    assert by["spill_control", ""].weights @ theta == pytest.approx(f[exposed].mean())
    own = by["direct", ""].weights @ theta
    assert by["total_treated", ""].weights @ theta == pytest.approx(own)
    assert by["switching", ""].weights @ theta == pytest.approx(own - f[panel.treated].mean())
    everything = panel.treated * own + ~panel.treated * f
    assert by["overall", ""].weights @ theta == pytest.approx(everything.mean())
    assert not by["spill_treated", ""].identified
    assert "counts into the effect of their own" in by["spill_treated", ""].note
    assert "spill_per_pp" not in {estimand for estimand, _ in by}
    at = [average for average in found if average.estimand == "spill_at"]
    assert len(at) == STEPS
    alone = surface.alone(np.array([CUTOFF * 0.5 / STEPS, CUTOFF * 1.5 / STEPS]))
    np.testing.assert_allclose([a.weights @ theta for a in at[:2]], alone @ theta[design.columns(BLOCKS)])


def test_nobody_within_reach_leaves_the_exposure_out():
    data = DataConfig(name="x", unit="id", time="t", cohort="g", outcome="y")
    data.exposures = {"near": ExposureConfig(kernel="learned", latitude="lat", longitude="lon", cutoff=0.001)}
    rows = frame()
    panel = encode(rows[rows["id"] < "u28"], data, "")
    regression, notes = build_design(panel, row_shares(panel)[0])
    assert regression.surface is None
    assert "exposure near is zero in every row and is left out" in notes


def test_few_descriptions_are_the_likeliest(collapsed, monkeypatch):
    design, evidence = collapsed.regression.design, collapsed.evidence.rescale(collapsed.s)
    every = kernel.learn(evidence, design, WEAK)
    monkeypatch.setattr(kernel, "ENTRIES", 0)
    most = kernel.learn(evidence, design, WEAK)
    monkeypatch.setattr(kernel, "ENOUGH", 0.25)
    few = kernel.learn(evidence, design, WEAK)
    assert len(every.descriptions) > len(most.descriptions) == kernel.MOST > len(few.descriptions)
    assert 0.25 <= few.covered < most.covered < every.covered
    for part in (most, few):
        np.testing.assert_array_equal(part.evidence.log_weight, every.evidence.log_weight[: len(part.descriptions)])
