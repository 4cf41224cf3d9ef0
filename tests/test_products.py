"""The algebra of evidence against dense matrices."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from src import within
from src.products import (
    ar1_bands,
    ar1_precision,
    as_evidence,
    cross_products,
    eliminate,
    eliminate_blocks,
    independent_precision,
)
from src.within import Indicators, Own, within_products


def gappy():
    """Four units, one with a single row, with gaps of several lengths and unequal weights."""
    rng = np.random.default_rng(5)
    unit = np.array([0, 0, 0, 0, 1, 2, 2, 2, 3, 3])
    time = np.array([1, 2, 5, 6, 3, 1, 4, 9, 2, 3])
    return rng, unit, time, rng.uniform(0.5, 2, len(unit))


def dense_covariance(unit, time, weight, rho):
    """Covariance of AR(1) errors, zero between units."""
    same = unit[:, None] == unit[None, :]
    gap = np.abs(time[:, None] - time[None, :]).astype(float)
    return np.where(same, rho**gap, 0.0) / np.sqrt(np.outer(weight, weight))


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.3, 0.9])
def test_ar1_precision_is_the_inverse_of_the_covariance(rho):
    _, unit, time, weight = gappy()
    covariance = dense_covariance(unit, time, weight, rho)
    np.testing.assert_allclose(ar1_precision(unit, time, weight, rho).toarray(), np.linalg.inv(covariance), atol=1e-12)
    correlation = covariance * np.sqrt(np.outer(weight, weight))
    np.testing.assert_allclose(
        np.log(ar1_bands(unit, time, rho)[2]).sum(), np.linalg.slogdet(correlation)[1], atol=1e-12
    )


def dense_products(columns, unit, precision, f=None, spread=1.0, functionals=None):
    """C'MC of dense columns, M one large matrix; effects of units and functionals as in `src.within`."""
    member = (unit[:, None] == np.unique(unit)).astype(float)
    inner = np.linalg.inv(member.T @ precision @ member)
    projection = precision - precision @ member @ inner @ member.T @ precision
    if f is None:
        return columns.T @ projection @ columns
    own = member * f[:, None]
    continued = own.T @ projection @ columns - (0 if functionals is None else functionals)
    precise = own.T @ projection @ own + np.eye(member.shape[1]) / spread**2
    return columns.T @ projection @ columns - continued.T @ np.linalg.inv(precise) @ continued


def test_within_products_are_those_of_the_dense_projection():
    rng, unit, time, weight = gappy()
    columns = rng.normal(size=(len(unit), 3))
    precision = np.linalg.inv(dense_covariance(unit, time, weight, 0.5))
    found = within_products(sp.csr_array(columns), unit, ar1_precision(unit, time, weight, 0.5))
    np.testing.assert_allclose(found.toarray(), np.triu(dense_products(columns, unit, precision)), atol=1e-12)


@pytest.mark.parametrize("with_time", [False, True])
@pytest.mark.parametrize("with_own", [False, True])
@pytest.mark.parametrize("numbers", [(), (3,), (4, 3), (4, 3, 2)])
def test_products_of_indicators_are_those_of_the_dense_projection(numbers, with_own, with_time, monkeypatch):
    """Gaps, weights that differ within units, units that are seen once, grids of a few units at a time."""
    monkeypatch.setattr(within, "GRIDS", 150)
    rng = np.random.default_rng(3)
    units, periods = 25, 6
    seen = rng.random((units, periods)) < 0.7
    seen[np.arange(units), rng.integers(0, periods, units)] = True
    unit, period = np.nonzero(seen)
    time = np.array([2, 3, 4, 7, 8, 9])[period]
    weight = rng.uniform(0.5, 2, len(unit))
    codes = tuple(rng.integers(0, number, units) for number in numbers)
    at = [code[unit] * periods + period for code in codes]
    levels = [cell[:, None] == np.arange(n * periods) for cell, n in zip(at, numbers, strict=True)]
    sparse_ones = rng.normal(size=(len(unit), 2)) * (rng.random((len(unit), 2)) < 0.3)
    dense = rng.normal(size=(len(unit), 2))
    later = period[:, None] == np.arange(1, periods)
    nothing = np.zeros((len(unit), 2))
    columns = np.column_stack([*levels, sparse_ones, nothing, dense, later, rng.normal(size=len(unit))]).astype(float)
    before = sum(numbers) * periods
    f = (rng.random(units) < 0.4)[unit] * (period > 2) * rng.uniform(0.5, 1, len(unit))
    functionals = np.zeros((units, columns.shape[1]))
    functionals[np.unique(unit[f > 0]), before + 2] = 0.3
    functionals[np.unique(unit[f > 0])[::2], before + 3] = 0.7
    own = Own(f, 0.6, sp.csr_array(functionals)) if with_own else None
    start = before + 6
    time_columns = slice(start, start + periods - 1) if with_time else None
    indicators = Indicators(codes, numbers, period, periods, time_columns)
    assert not within.are_sparse(unit, periods)
    precision = np.linalg.inv(dense_covariance(unit, time, weight, 0.5))
    more = (f, 0.6, functionals) if with_own else ()
    expected = np.triu(dense_products(columns, unit, precision, *more))
    given = (sp.csr_array(columns), unit, ar1_precision(unit, time, weight, 0.5), own)
    np.testing.assert_allclose(within_products(*given, indicators).toarray(), expected, atol=1e-12)
    np.testing.assert_allclose(within_products(*given).toarray(), expected, atol=1e-12)


def test_units_seen_in_few_of_many_periods_have_no_grids(monkeypatch):
    unit, period = np.repeat(np.arange(5), 3), np.tile([0, 1, 2], 5) + np.repeat([0, 7, 20, 30, 37], 3)
    code = np.array([0, 1, 0, 1, 1])
    at = code[unit] * 40 + period
    columns = (at[:, None] == np.arange(80)).astype(float)
    monkeypatch.setattr(within, "products_of_indicators", None)  # it would be called
    precision = independent_precision(np.ones(15))
    found = within_products(sp.csr_array(columns), unit, precision, None, Indicators((code,), (2,), period, 40))
    np.testing.assert_allclose(found.toarray(), np.triu(dense_products(columns, unit, np.eye(15))), atol=1e-12)


def shocked():
    """Sixty rows with shocks to three levels in four periods, two further columns and an outcome."""
    rng = np.random.default_rng(6)
    unit, period = np.repeat(np.arange(15), 4), np.tile(np.arange(4), 15)
    level = rng.integers(0, 3, 15)[unit]
    shocks = (level * 4 + period)[:, None] == np.arange(12)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=60)
    prior = np.linalg.inv(0.5 * 0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4))))
    return unit, shocks.astype(float), x, y, prior


def test_blocks_are_eliminated_as_by_one_large_inverse():
    unit, shocks, x, y, prior = shocked()
    stacked = sp.csr_array(np.column_stack([shocks, x, y]))
    upper = within_products(stacked, unit, independent_precision(np.ones(60)))
    products = sp.csr_array(upper + sp.triu(upper, 1).T)
    dense = products.toarray()
    own = dense[:12, :12] + scipy.linalg.block_diag(prior, prior, prior)
    expected = dense[12:, 12:] - dense[12:, :12] @ np.linalg.solve(own, dense[:12, 12:])
    rest, blocks = eliminate_blocks(products, 3, 4, prior)
    np.testing.assert_allclose(rest, expected, atol=1e-12)

    other = np.array([0.3, -0.7])
    mean = np.linalg.solve(own, dense[:12, -1] - dense[:12, 12:14] @ other)
    drawn = np.einsum("lpq,lq->lp", blocks.factor, blocks.moment - blocks.cross @ other)
    np.testing.assert_allclose(drawn.ravel(), mean, atol=1e-12)
    spread = scipy.linalg.block_diag(*(f @ f.T for f in blocks.factor))
    np.testing.assert_allclose(spread, np.linalg.inv(own), atol=1e-12)


def test_elimination_under_a_normal_prior_is_the_density_with_those_terms_integrated_out():
    """log p(y | x) by cross-products = Normal density of y with covariance of shocks and errors, unit effects flat."""
    unit, shocks, x, y, prior = shocked()
    cross = cross_products(sp.csr_array(np.column_stack([shocks, x])), y, unit, independent_precision(np.full(60, 2.0)))
    smaller, _ = eliminate(cross, np.array([12, 13]), np.arange(12), scipy.linalg.block_diag(prior, prior, prior))
    assert smaller.dof == cross.dof

    covariance = shocks @ np.kron(np.eye(3), np.linalg.inv(prior)) @ shocks.T + np.eye(60) / 2
    member = (unit[:, None] == np.arange(15)).astype(float)
    precision = np.linalg.inv(covariance)
    inner = np.linalg.inv(member.T @ precision @ member)
    projection = precision - precision @ member @ inner @ member.T @ precision

    def explicit(theta):
        return -0.5 * (y - x @ theta) @ projection @ (y - x @ theta)

    def collapsed(theta):
        return -0.5 * (smaller.square - 2 * smaller.moment @ theta + theta @ smaller.gram @ theta)

    points = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose([collapsed(p) - explicit(p) for p in points], 0.0, atol=1e-9)


def test_the_last_column_is_the_outcome():
    record = as_evidence(np.array([[4.0, 1.0], [1.0, 9.0]]), 7.0)
    assert (record.gram.item(), record.moment.item(), record.square, record.dof) == (4.0, 1.0, 9.0, 7.0)
