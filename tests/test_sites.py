"""Gaussian approximations to counts, against dense algebra and against integrals."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit, gammaln

from src.sites import NODES, Counts, Prior, Sites, bound, evidence, improved, level, loosened, roots, spent

OMEGA = np.array([0.0, 0.002, 0.3, 1.8])
RHO = 0.6
UNIT = np.repeat([0, 1, 2, 3], [6, 4, 5, 1])
TIME = np.concatenate([np.arange(6), [0, 2, 3, 5], [1, 2, 3, 4, 5], [2]])


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    y = rng.poisson(np.exp(rng.normal(0.5, 1, len(UNIT)))).astype(float)
    y[UNIT == 2], y[UNIT == 3] = 0, 4
    f = rng.normal(0, 0.5, len(UNIT))
    counts = Counts.of(y, UNIT, TIME)
    prior, padded = Prior.of(counts, RHO), counts.padded(f)
    start = Sites.start(counts, padded, len(OMEGA))
    return y, f, counts, prior, improved(start, counts, prior, OMEGA, padded, 60, 3)


def dense(y, f, time, omega, u, variance):
    """Q, mu, S and V of one unit, by the formulas."""
    V = omega * RHO ** np.abs(np.subtract.outer(time, time))
    one, inverse = np.ones(len(y)), np.linalg.inv(V)
    Q = inverse - np.outer(inverse @ one, inverse @ one) / (one @ inverse @ one)
    mu = np.exp(f + u + variance / 2)
    return Q, mu, np.linalg.inv(Q + np.diag(mu)), V


def units(world):
    """Each unit with events and each omega above 0: its rows, position, grid point and dense matrices."""
    y, f, counts, _, sites = world
    for n, i in enumerate(counts.unit):
        rows = np.flatnonzero(i == UNIT)
        for g, omega in enumerate(OMEGA):
            if omega:
                u, variance = sites.u[: len(rows), n, g], sites.variance[: len(rows), n, g]
                yield n, g, rows, u, variance, dense(y[rows], f[rows], TIME[rows], omega, u, variance)


def test_units_without_events_are_left_out(world):
    assert world[2].unit.tolist() == [0, 1, 3]


def test_sites_solve_their_equations(world):
    y = world[0]
    for _, _, rows, u, variance, (Q, mu, S, _) in units(world):
        np.testing.assert_allclose(y[rows] - mu - Q @ u, 0, atol=1e-8)
        np.testing.assert_allclose(np.diag(S), variance, atol=1e-10)


def test_bound_by_dense_algebra(world):
    y, f, counts, prior, sites = world
    found = bound(sites, counts, prior, OMEGA, counts.padded(f))
    constant = {}
    for n, g, rows, u, _, (Q, mu, S, V) in units(world):
        one = np.ones(len(rows))
        log_det = np.linalg.slogdet(V)[1] + np.log(one @ np.linalg.inv(V) @ one)
        wanted = y[rows] @ (f[rows] + u) - mu.sum() - u @ Q @ u / 2 - np.trace(Q @ S) / 2
        wanted += np.linalg.slogdet(S)[1] / 2 - log_det / 2
        assert found[n, g] - wanted == pytest.approx(constant.setdefault(n, found[n, g] - wanted), abs=1e-8)


def test_information_and_moment_by_dense_algebra(world):
    y, f, counts, prior, sites = world
    share = np.random.default_rng(1).dirichlet(np.ones(3), len(counts.unit))
    share = np.column_stack([np.zeros(len(share)), share])  # omega = 0 has a test of its own
    W, moment = evidence(sites, counts, prior, OMEGA, counts.padded(f), share, len(UNIT))
    wanted, pull = np.zeros((len(UNIT), len(UNIT))), np.zeros(len(UNIT))
    for n, g, rows, u, _, (_, mu, S, _) in units(world):
        mine = np.diag(mu) - np.diag(mu) @ S @ np.diag(mu)
        wanted[np.ix_(rows, rows)] += share[n, g] * mine
        surprise = y[rows] - mu
        pull[rows] += share[n, g] * (mine @ (f[rows] + u) + surprise - mu * (S @ surprise))
    np.testing.assert_allclose(W.toarray(), wanted, atol=1e-9)
    np.testing.assert_allclose(moment, pull, atol=1e-8)
    np.testing.assert_allclose(W @ (UNIT == 0), 0, atol=1e-8)  # constants of a unit are annihilated


@pytest.mark.parametrize("draws", [3, 40])
def test_what_is_not_known_of_f_by_dense_algebra(world, draws):
    _, f, counts, prior, sites = world
    spread = np.random.default_rng(1).normal(0, 0.1, (len(UNIT), draws))
    loose = roots(counts, spread)
    assert loose.shape[2] == min(draws, 6)
    found, follows = loosened(sites, counts, prior, OMEGA, counts.padded(f), loose)
    cost = spent(follows, prior, OMEGA)
    for n, g, rows, _, _, (Q, mu, S, _) in units(world):
        C, M = spread[rows] @ spread[rows].T, np.diag(mu)
        A = np.eye(len(rows)) - S @ M
        np.testing.assert_allclose(found.slack[: len(rows), n, g], np.diag(A @ C @ A.T), atol=1e-10)
        assert cost[n, g] == pytest.approx(np.trace(Q @ S @ M @ C @ M @ S) / 2, abs=1e-10)
        # both together are what a parabola through the bound at f says that C costs
        assert mu @ np.diag(A @ C @ A.T) / 2 + cost[n, g] == pytest.approx(np.trace(M @ A @ C) / 2, abs=1e-9)
    assert not found.slack[~counts.real].any()


def test_the_best_normal_of_a_count_has_its_mean_and_not_its_mode():
    """One unit before and after, no disturbance: the posterior of the log ratio, by integration."""
    y = np.array([400.0, 3.0])
    counts = Counts.of(y, np.array([0, 0]), np.array([0, 1]))
    prior, omega, share = Prior.of(counts, 0.0), np.zeros(1), np.ones((1, 1))
    sites, mean, variance = Sites.start(counts, counts.padded(np.zeros(2)), 1), 0.0, 4.0
    for _ in range(60):
        padded = counts.padded(np.array([0.0, mean]))
        loose = counts.padded(np.array([[0.0], [np.sqrt(variance)]]))
        sites = improved(loosened(sites, counts, prior, omega, padded, loose)[0], counts, prior, omega, padded, 2)
        W, moment = evidence(sites, counts, prior, omega, padded, share, 2)
        variance = 1 / (W[1, 1] + 1 / 4)  # under Normal(0, 4)
        mean = variance * moment[1]
    x = np.linspace(-12, 4, 4001)
    log = y[1] * x - y.sum() * np.log1p(np.exp(x)) - x**2 / 8
    weight = np.exp(log - log.max())
    exact = weight @ x / weight.sum()
    assert mean == pytest.approx(exact, abs=0.02)
    assert x[log.argmax()] - exact > 0.1
    assert variance == pytest.approx(weight @ (x - exact) ** 2 / weight.sum(), rel=0.15)


def test_no_disturbance_is_the_multinomial_poisson(world):
    y, f, counts, prior, sites = world
    share = np.zeros((len(counts.unit), len(OMEGA)))
    share[:, 0] = 1
    W, moment = evidence(sites, counts, prior, OMEGA, counts.padded(f), share, len(UNIT))
    for rows in (np.flatnonzero(UNIT == 0), np.flatnonzero(UNIT == 1)):
        chance = np.exp(f[rows]) / np.exp(f[rows]).sum()
        total = y[rows].sum()
        information = total * (np.diag(chance) - np.outer(chance, chance))
        np.testing.assert_allclose(W[rows][:, rows].toarray(), information, atol=1e-10)
        np.testing.assert_allclose(moment[rows], information @ f[rows] + y[rows] - total * chance, atol=1e-10)


def test_bound_lies_close_below_the_marginal_likelihood():
    y, f, time = np.array([3.0, 9.0]), np.array([0.2, -0.1]), np.array([0, 1])
    counts = Counts.of(y, np.array([0, 0]), time)
    prior, padded, omega = Prior.of(counts, RHO), counts.padded(f), np.array([0.1, 0.5, 1.5])
    sites = improved(Sites.start(counts, padded, 3), counts, prior, omega, padded, 60, 3)
    constant = -gammaln(y + 1).sum() + np.log(2 * np.pi) / 2
    found = bound(sites, counts, prior, omega, padded)[0] + constant
    grid = np.linspace(-12, 12, 2401)
    u = np.stack(np.meshgrid(grid, grid, indexing="ij"))
    likelihood = (y[:, None, None] * (f[:, None, None] + u) - np.exp(f[:, None, None] + u)).sum(axis=0)
    for k, variance in enumerate(omega):
        V = variance * np.array([[1, RHO], [RHO, 1]])
        Q = np.linalg.inv(V) @ (np.eye(2) - np.ones((2, 2)) @ np.linalg.inv(V) / np.linalg.inv(V).sum())
        log_prior = -np.einsum("iab,ij,jab->ab", u, Q, u) / 2 - np.log(2 * np.pi) / 2
        log_prior -= (np.linalg.slogdet(V)[1] + np.log(np.linalg.inv(V).sum())) / 2
        exact = np.log(np.exp(likelihood + log_prior).sum() * (grid[1] - grid[0]) ** 2) - gammaln(y + 1).sum()
        assert 0 <= exact - found[k] < 0.03


def test_levels_by_dense_algebra(world):
    y, f, counts, prior, sites = world
    share = np.zeros((len(counts.unit), len(OMEGA)))
    for g in (1, 2, 3):
        share[:], share[:, g] = 0, 1
        weight, pull = level(sites, counts, prior, OMEGA, counts.padded(f), share)
        for n, at, rows, u, _, (_, mu, _, V) in units(world):
            if at == g:
                W = np.linalg.inv(V + np.diag(1 / mu))
                zeta = f[rows] + u + (y[rows] - mu) / mu
                np.testing.assert_allclose(weight[: len(rows), n], W.sum(axis=0), atol=1e-9)
                assert pull[n] == pytest.approx(np.ones(len(rows)) @ W @ zeta, abs=1e-8)


def test_large_and_small_counts_give_finite_sites():
    y = np.array([0, 40_000.0, 1, 0, 0, 1_000_000])
    counts = Counts.of(y, np.zeros(6, dtype=int), np.arange(6))
    prior, padded = Prior.of(counts, 0.95), counts.padded(np.zeros(6))
    sites = improved(Sites.start(counts, padded, len(OMEGA)), counts, prior, OMEGA, padded, 60, 3)
    assert np.isfinite(bound(sites, counts, prior, OMEGA, padded)).all()
    mu = sites.expected(counts, padded).mean[:, 0, -1]
    np.testing.assert_allclose(mu[y > 1000], y[y > 1000], rtol=0.01)


PART = {"y": [[2, 5, 0, 9, 14], [1, 0, 1]], "whole": [[6, 9, 0, 12, 15], [20, 4, 3]]}


@pytest.fixture(scope="module")
def part():
    """Two units with parts of their events, one of them rarely, and one whose events are all of the part."""
    y, whole = (np.array([*first, *second, 3.0, 1.0]) for first, second in PART.values())
    unit, time = np.repeat([0, 1, 2], [5, 3, 2]), np.array([0, 1, 2, 4, 5, 1, 2, 3, 0, 1])
    whole[unit == 2] = y[unit == 2]
    f = np.random.default_rng(0).normal(0, 0.4, len(y))
    counts = Counts.of(y, unit, time, whole)
    prior, padded = Prior.of(counts, RHO), counts.padded(f)
    sites = improved(Sites.start(counts, padded, len(OMEGA)), counts, prior, OMEGA, padded, 60, 3)
    return y, whole, unit, time, f, counts, prior, sites


def of_log_odds(whole, centre, variance):
    """Sums over events of s, its three derivatives and log(1 + exp), by quadrature with the nodes of the sites."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    odds = centre[:, None] + np.sqrt(variance)[:, None] * nodes
    s = expit(odds)
    slope = s * (1 - s)
    functions = (s, slope, slope * (1 - 2 * s), slope * (1 - 6 * slope), np.logaddexp(0, odds))
    return [whole * (values @ weights) / weights.sum() for values in functions]


def test_sites_of_a_part_by_dense_algebra(part):
    y, whole, unit, time, f, counts, prior, sites = part
    assert counts.unit.tolist() == [0, 1]
    bounds = bound(sites, counts, prior, OMEGA, counts.padded(f))
    for n in (0, 1):
        rows, difference = np.flatnonzero(unit == n), []
        for g, omega in enumerate(OMEGA[1:], start=1):
            V = omega * RHO ** np.abs(np.subtract.outer(time[rows], time[rows]))
            one, inverse = np.ones(len(rows)), np.linalg.inv(V)
            Q = inverse - np.outer(inverse @ one, inverse @ one) / (one @ inverse @ one)
            u, variance = (x[: len(rows), n, g] for x in (sites.u, sites.variance))
            m, w, second, third, loss = of_log_odds(whole[rows], f[rows] + u, variance)
            S = np.linalg.inv(Q + np.diag(w - third / w.sum()))
            np.testing.assert_allclose(y[rows] - m + second / w.sum() - Q @ u, 0, atol=1e-7)
            np.testing.assert_allclose(np.diag(S), variance, atol=1e-7)
            wanted = y[rows] @ (f[rows] + u) - loss.sum() + np.log(w.sum()) - u @ Q @ u / 2 - np.trace(Q @ S) / 2
            wanted += np.linalg.slogdet(S)[1] / 2
            wanted -= (np.linalg.slogdet(V)[1] + np.log(one @ inverse @ one)) / 2
            difference.append(bounds[n, g] - wanted)
        np.testing.assert_allclose(difference, difference[0], atol=1e-7)


@pytest.mark.parametrize(("y", "whole"), [((3, 9), (20, 20)), ((30, 45), (100, 90)), ((1, 2), (5, 4))])
def test_evidence_of_disturbances_of_a_part_by_integration(y, whole):
    """Over the disturbance and a level that is flat in the number of the part which the unit is expected to have."""
    y, whole, time, omega = np.array(y, float), np.array(whole, float), np.arange(2), np.array([0.0, 0.03, 0.2, 0.8])
    counts = Counts.of(y, np.zeros(2, dtype=int), time, whole)
    prior, padded = Prior.of(counts, RHO), counts.padded(np.zeros(2))
    sites = improved(Sites.start(counts, padded, len(omega)), counts, prior, omega, padded, 60, 3)
    found = bound(sites, counts, prior, omega, padded)[0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    a = np.linspace(-14, 14, 561)[:, None, None]
    exact = []
    for variance in omega:
        u = np.sqrt(variance) * nodes[:, None], np.sqrt(variance) * nodes[None]
        odds = [a + u[0] + 0 * u[1], a + RHO * u[0] + np.sqrt(1 - RHO**2) * u[1]]
        log = sum(k * e - n * np.logaddexp(0, e) for k, n, e in zip(y, whole, odds, strict=True))
        number = sum(n * expit(e) * expit(-e) for n, e in zip(whole, odds, strict=True))
        exact.append(np.log(np.einsum("aij,i,j->", np.exp(log + 0.7 * whole.sum()) * number, weights, weights)))
    np.testing.assert_allclose(found - found[0], np.array(exact) - exact[0], atol=0.01)


def conditional(whole, total, f):
    """Mean and covariance of how many of the `whole` are of a part, given their total: all that there could be."""
    every = np.array([k for k in product(*(range(n + 1) for n in whole)) if sum(k) == total])
    log = every @ f - sum(gammaln(every[:, t] + 1) + gammaln(n - every[:, t] + 1) for t, n in enumerate(whole))
    chance = np.exp(log - log.max())
    chance /= chance.sum()
    mean = chance @ every
    return mean, (every * chance[:, None]).T @ every - np.outer(mean, mean)


@pytest.mark.parametrize(
    ("whole", "total", "off"),
    [
        ((50, 50), 1, 0.06),
        ((50, 50), 99, 0.06),
        ((2,) * 10, 1, 0.12),
        ((3, 3), 3, 0.08),
        ((2, 1, 3, 0, 2), 4, 0.06),
        ((5, 5), 2, 0.03),
        ((5, 5), 5, 0.04),
        ((1,) * 6, 2, 0.06),
        ((10, 10), 3, 0.03),
        ((10, 10), 10, 0.02),
        ((20, 20), 20, 0.01),
    ],
)
@pytest.mark.parametrize("passes", [20, 21])
def test_a_part_without_disturbance_is_fishers_noncentral_hypergeometric(whole, total, off, passes):
    """Its slope where the conditional likelihood has none, and its curvature: the level is not there.

    Under a level flat in the log odds the effect would be too large by about 2 over the number of events.
    """
    late = np.arange(len(whole)) >= len(whole) / 2
    f = 0.6 * late
    mean, covariance = conditional(whole, total, f)
    # the counts of a row are on average what the law says, so that all that is left is what the sites get wrong
    counts = Counts.of(mean, np.zeros(len(whole), dtype=int), np.arange(len(whole)), np.array(whole, float))
    omega, prior, padded = np.zeros(1), Prior.of(counts, 0.0), counts.padded(f)
    sites = improved(Sites.start(counts, padded, 1), counts, prior, omega, padded, passes, 3)
    W, moment = evidence(sites, counts, prior, omega, padded, np.ones((1, 1)), len(whole))
    information = late @ W.toarray() @ late
    step = (late @ moment - late @ W.toarray() @ f) / information
    assert step == pytest.approx(0, abs=0.6 * off)
    assert information == pytest.approx(late @ covariance @ late, rel=max(off, 0.03) + 0.5 * off)
