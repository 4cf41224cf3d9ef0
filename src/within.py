"""Cross-products of rows with unit effects integrated out, block by block of units.

For unit i with rows C_i and error precision P_i, alpha_i flat,

    sum_i C_i'M_i C_i,    M_i = P_i - P_i 1 1'P_i / (1'P_i 1)

and with an effect of its own for every unit, f_i u_i with u_i ~ Normal(0, spread^2), integrated out too, the same with

    M_i - m_i m_i' / (d_i + spread^-2)    in the place of M_i,    m_i = M_i f_i,    d_i = f_i'm_i

There are two kinds of columns. *Indicators* of the levels of a classification of units in every period (those of
shocks, which come first; periods are one with a single level, the first period left out) pick a row of their unit each,
so that the product of two of them is an entry of the M_i of the units that both levels share, added up on the grid of
periods:

    indicator (a, t) x indicator (b, s)  =  sum over units i of a and b of M_i[t, s]

Of *other* columns X_i, M_i X_i is made once, and C_i'M_i X_i is a sum of its rows wherever C_i is an indicator. Where
units are seen in few of many periods, grids would be mostly empty, and indicators are treated as other columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

GRIDS = 4_000_000  # entries of M_i that are held at a time
MOST_EMPTY = 4  # entries of grids for each that is not empty


@dataclass(frozen=True)
class Indicators:
    """Which columns are indicators of a level of units in a period.

    Attributes
    ----------
    codes : tuple of array of int, shape (unit,)
        Level of every unit in each classification; their columns come first, a level's periods together.
    levels : tuple of int
        Number of levels of each.
    period : array of int, shape (row,)
        Position of the period of each row.
    periods : int
    time : slice, optional
        Columns of all periods but the first.
    """

    codes: tuple[np.ndarray, ...]
    levels: tuple[int, ...]
    period: np.ndarray
    periods: int
    time: slice | None = None

    @property
    def size(self) -> int:
        """Number of columns of classifications, which come first."""
        return sum(self.levels) * self.periods


@dataclass(frozen=True)
class Own:
    """Effects of single units that are integrated out.

    Attributes
    ----------
    rows : array, shape (row,)
        f.
    spread : float
    functionals : sparse array, shape (unit, column), optional
        h of functionals g = sum_i h_i u_i in the place of columns that are zero: there C_i'm_i is -h_i, so that, once
        all else but theta and the outcome y is eliminated, g given theta is Normal((g, y) - (g, theta)'theta, -(g, g)).
    """

    rows: np.ndarray
    spread: float
    functionals: sp.csr_array | None = None


def within_products(
    columns: sp.csr_array,
    unit: np.ndarray,
    precision: sp.csr_array,
    own: Own | None = None,
    indicators: Indicators | None = None,
) -> sp.csr_array:
    """Upper triangle of sum_i C_i'M_i C_i, sparse, shape (column, column).

    Parameters
    ----------
    columns : sparse array, shape (row, column)
    unit : array of int, shape (row,)
        Unit of each row.
    precision : sparse array, shape (row, row)
        Block-diagonal over units.
    own : Own, optional
    indicators : Indicators, optional
        Without it every column is one of the others.
    """
    known_units, unit = np.unique(unit, return_inverse=True)
    size = columns.shape[1]
    if indicators is not None and are_sparse(unit, indicators.periods):
        indicators = None
    is_other = np.ones(size, dtype=bool)
    if indicators is not None:
        indicators = replace(indicators, codes=tuple(code[known_units] for code in indicators.codes))
        is_other[: indicators.size] = False
        is_other[indicators.time or slice(0)] = False
    others = np.flatnonzero(is_other)
    functionals = None
    if own is not None and own.functionals is not None:
        functionals = sp.csr_array(own.functionals[known_units][:, others])
    whitened, beside = whitened_columns(sp.csr_array(columns[:, others]), unit, precision, own, functionals)
    found = sp.csr_array(sp.csr_array(columns.T) @ whitened)
    if beside is not None:
        found = sp.csr_array(found + in_rows(beside, others, size))
    found = in_columns(found, others, size)
    if indicators is None:
        return sp.csr_array(sp.triu(found, format="csr"))
    return with_indicators(found, products_of_indicators(indicators, unit, precision, own), indicators)


def whitened_columns(
    columns: sp.csr_array,
    unit: np.ndarray,
    precision: sp.csr_array,
    own: Own | None,
    functionals: sp.csr_array | None,
) -> tuple[sp.csr_array, sp.csr_array | None]:
    """M_i X_i, shape (row, column), and what products of functionals with columns have beyond those of zeros."""
    rows = len(unit)
    ones = precision @ np.ones(rows)
    total = np.bincount(unit, ones)

    def of_units(values: np.ndarray) -> sp.csr_array:
        """Weights of rows in a sum over their unit, shape (unit, row)."""
        return sp.csr_array((values, (unit, np.arange(rows))), shape=(len(total), rows))

    sums = of_units(ones) @ columns
    spreading, taken = [sp.csr_array(of_units(ones).T)], [sp.csr_array(sp.diags_array(1 / total) @ sums)]
    beside = None
    if own is not None:
        pulled, known = of_own(own.rows, unit, precision)
        continued = sp.csr_array(of_units(pulled) @ columns)
        continued.eliminate_zeros()
        share = sp.diags_array(own.spread**2 / (1 + known * own.spread**2))
        if functionals is not None:
            continued = sp.csr_array(continued - functionals)
            beside = sp.csr_array(functionals.T @ (share @ continued))
        spreading.append(sp.csr_array(of_units(pulled).T))
        taken.append(sp.csr_array(share @ continued))
    away = sp.hstack(spreading, format="csr") @ sp.vstack(taken, format="csr")
    return sp.csr_array(precision @ columns - away), beside


def are_sparse(unit: np.ndarray, periods: int) -> bool:
    """Whether grids of all periods would hold little beside zeros."""
    seen = np.bincount(unit)
    return bool(len(seen) * periods**2 > MOST_EMPTY * (seen**2).sum())


def in_columns(part: sp.csr_array, at: np.ndarray, size: int) -> sp.csr_array:
    """The columns of an array at some positions among more."""
    return sp.csr_array((part.data, at[part.indices], part.indptr), shape=(part.shape[0], size))


def in_rows(part: sp.csr_array, at: np.ndarray, size: int) -> sp.csr_array:
    """The rows of an array at some positions among more."""
    entries = part.tocoo()
    return sp.csr_array((entries.data, (at[entries.row], entries.col)), shape=(size, part.shape[1]))


def products_of_indicators(
    indicators: Indicators, unit: np.ndarray, precision: sp.csr_array, own: Own | None
) -> dict[tuple[int, int], sp.csr_array]:
    """Products of two classifications, the first not after the second; all periods are the last one, with one level.

    Shape (level * period, level * period) each.
    """
    units, periods = int(unit.max()) + 1, indicators.periods
    codes, numbers = [*indicators.codes, np.zeros(units, dtype=int)], [*indicators.levels, 1]
    pairs = [(a, b) for a in range(len(codes)) for b in range(a + 1, len(codes))]
    cell_of, sums = {}, {}
    for a, b in [*pairs, (len(codes) - 1,) * 2]:
        cells, cell_of[a, b] = np.unique(codes[a].astype(np.int64) * numbers[b] + codes[b], return_inverse=True)
        sums[a, b] = (cells, np.zeros((len(cells), periods**2)))
    for some, grid in grids(indicators, unit, precision, own):
        flat = grid.reshape(len(grid), -1)
        for pair, (_, total) in sums.items():
            seen, place = np.unique(cell_of[pair][some], return_inverse=True)
            member = sp.csr_array((np.ones(len(place)), (place, np.arange(len(place)))))
            total[seen] += member @ flat
    for a in range(len(codes) - 1):  # units of a level are those that it shares with the one level of all periods
        cells, total = sums[a, len(codes) - 1]
        sums[a, a] = (cells * (numbers[a] + 1), total)
    return {(a, b): in_blocks(total, cells, numbers[a], numbers[b], periods) for (a, b), (cells, total) in sums.items()}


def grids(
    indicators: Indicators, unit: np.ndarray, precision: sp.csr_array, own: Own | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """M_i of some units at a time on the grid of all periods, shape (unit, period, period), zero where not seen."""
    periods, units = indicators.periods, int(unit.max()) + 1
    entries = precision.tocoo()
    f = np.zeros(len(unit)) if own is None else own.rows
    order, rows = np.argsort(unit[entries.row], kind="stable"), np.argsort(unit, kind="stable")
    row, column, value = entries.row[order], entries.col[order], entries.data[order]
    step = max(GRIDS // periods**2, 1)
    bounds = np.r_[np.arange(0, units, step), units]
    of_entries = np.asarray(np.searchsorted(unit[row], bounds))
    of_rows = np.asarray(np.searchsorted(unit[rows], bounds))
    for k, (first, last) in enumerate(pairwise(bounds.tolist())):
        some, mine = slice(of_entries[k], of_entries[k + 1]), rows[of_rows[k] : of_rows[k + 1]]
        grid = np.zeros((last - first, periods, periods))
        grid[unit[row[some]] - first, indicators.period[row[some]], indicators.period[column[some]]] = value[some]
        ones = grid.sum(axis=2)
        grid -= ones[:, :, None] * (ones / ones.sum(axis=1, keepdims=True))[:, None, :]
        if own is not None:
            adopted = np.zeros((last - first, periods))
            adopted[unit[mine] - first, indicators.period[mine]] = f[mine]
            has = np.flatnonzero(adopted.any(axis=1))
            pulled = np.einsum("utp,up->ut", grid[has], adopted[has])
            known = np.maximum(np.einsum("ut,ut->u", pulled, adopted[has]), 0.0)
            pulled *= np.sqrt(own.spread**2 / (1 + known * own.spread**2))[:, None]
            grid[has] -= pulled[:, :, None] * pulled[:, None, :]
        yield slice(first, last), grid


def in_blocks(values: np.ndarray, cell: np.ndarray, rows: int, columns: int, periods: int) -> sp.csr_array:
    """A block of shape (period, period) for each of the cells row * columns + column, in order."""
    ends = np.r_[0, np.cumsum(np.bincount(cell // columns, minlength=rows))]
    blocks = (values.reshape(-1, periods, periods), cell % columns, ends)
    found = sp.bsr_array(blocks, shape=(rows * periods, columns * periods)).tocsr()
    found.eliminate_zeros()
    return found


def with_indicators(
    found: sp.csr_array, products: dict[tuple[int, int], sp.csr_array], indicators: Indicators
) -> sp.csr_array:
    """Upper triangle of all products, from those of all columns with the others, and those of indicators."""
    size, first, last = found.shape[0], indicators.size, len(indicators.levels)
    rest = sp.csr_array(found[first:, first:])
    time = np.zeros(0, dtype=int)
    if indicators.time is not None:
        time = np.arange(indicators.time.start, indicators.time.stop) - first
        with_time = in_columns(sp.csr_array(products[last, last][1:, 1:]), time, size - first)
        rest = (
            rest + in_columns(sp.csr_array(rest[time].T), time, size - first) + in_rows(with_time, time, size - first)
        )
    strips, start = [], 0
    for a, number in enumerate(indicators.levels):
        rows = slice(start, start + number * indicators.periods)
        right = sp.csr_array(found[rows, first:])
        if len(time):
            right = right + in_columns(sp.csr_array(products[a, last][:, 1:]), time, size - first)
        before = sp.csr_array((rows.stop - rows.start, start))
        square = sp.triu(products[a, a], format="csr")
        strips.append(sp.hstack([before, square, *(products[a, b] for b in range(a + 1, last)), right], format="csr"))
        start = rows.stop
    bottom = sp.hstack([sp.csr_array((size - first, first)), sp.triu(rest, format="csr")], format="csr")
    return sp.csr_array(sp.vstack([*strips, bottom], format="csr"))


def of_own(own: np.ndarray, unit: np.ndarray, precision: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """M_i f_i, shape (row,), and f_i'M_i f_i, shape (unit,), of the rows f of units; parameters as of
    `within_products`.
    """
    pulled = projected(own[:, None], unit, precision)[:, 0]
    return pulled, np.maximum(np.bincount(unit, own * pulled), 0.0)


def projected(columns: np.ndarray, unit: np.ndarray, precision: sp.csr_array) -> np.ndarray:
    """M_i X_i of dense columns, shape (row, column); parameters as of `within_products`."""
    ones, pulled = precision @ np.ones(len(unit)), precision @ columns
    member = sp.csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))))
    return pulled - ones[:, None] * ((member @ pulled) / (member @ ones)[:, None])[unit]
