"""The algebra of evidence against dense matrices."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from src.products import (
    ar1_bands,
    ar1_precision,
    as_evidence,
    cross_products,
    eliminate,
    eliminate_blocks,
    independent_precision,
    within_products,
)


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


def test_within_products_are_those_of_the_dense_projection():
    rng, unit, time, weight = gappy()
    columns = rng.normal(size=(len(unit), 3))
    precision = np.linalg.inv(dense_covariance(unit, time, weight, 0.5))
    member = (unit[:, None] == np.arange(4)).astype(float)
    inner = np.linalg.inv(member.T @ precision @ member)
    projection = precision - precision @ member @ inner @ member.T @ precision
    found = within_products(sp.csr_array(columns), unit, ar1_precision(unit, time, weight, 0.5))
    np.testing.assert_allclose(found.toarray(), columns.T @ projection @ columns, atol=1e-12)


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
    products = within_products(stacked, unit, independent_precision(np.ones(60)))
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
