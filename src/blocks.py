"""Rows that memory need not hold: blocks of whole units in files, and sums over them.

panel ─▶ files, one a block ─▶ function(block, what there is of its units) ─▶ sum
"""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.errors import FULL, without_codes

if TYPE_CHECKING:
    from src.design import Regression
    from src.engine import Engine
    from src.passes import Layout

SAMPLE, LEAST_SAMPLED = 10, 16  # one block in so many is settled first, where there are this many at least


@dataclass(frozen=True)
class Blocks:
    """Rows of a regression in files of whole units, in the order of the panel's units.

    Attributes
    ----------
    paths : tuple of Path
    starts : array of int, shape (block + 1,)
        First unit of each block, and the number of units.
    rows : int
    adopters : array of bool, shape (unit,)
        Units with treated rows.
    engine : Engine
        That does what is to be done with them.
    layout : Layout, optional
        Of the passes that the blocks are read for.
    chosen : tuple of int, optional
        Blocks that take part; all where not given.
    dropped : tuple of str
        Covariates that are left out.
    trait : array, shape (unit,), optional
        On which effects may depend, standardised.
    onset : tuple of float
        Of the columns.
    own : bool
        Effects of single units are integrated out, if that is how the blocks were made.
    """

    paths: tuple[Path, ...]
    starts: np.ndarray
    rows: int
    adopters: np.ndarray
    engine: Engine
    layout: Layout | None = None
    chosen: tuple[int, ...] | None = None
    dropped: tuple[str, ...] = ()
    trait: np.ndarray | None = None
    onset: tuple[float, ...] = FULL
    own: bool = True

    @property
    def taken(self) -> tuple[int, ...]:
        """Positions of the blocks that take part."""
        return tuple(range(len(self.paths))) if self.chosen is None else self.chosen

    @property
    def of_units(self) -> np.ndarray:
        """Positions of the units of those blocks."""
        return np.concatenate([np.arange(self.starts[k], self.starts[k + 1]) for k in self.taken])

    def with_layout(self, layout: Layout) -> Blocks:
        """The blocks, to be read for passes."""
        return replace(self, layout=layout)

    def sample(self) -> Blocks | None:
        """A few of the blocks, to which units were dealt at random; None where there are not many."""
        few = tuple(range(0, len(self.paths), SAMPLE))
        return replace(self, chosen=few) if len(self.paths) >= LEAST_SAMPLED else None

    def total(self, function: Callable, *of_units: np.ndarray) -> Any:
        """function(block, slices of what there is of units), added up over the blocks that take part.

        A block is a Workspace where the blocks are read for passes, else a Regression.

        Parameters
        ----------
        function : callable
            Of a module, or a `partial` of one.
        *of_units : array, shape (unit, ...)
            Over the units of the blocks that take part, in their order.
        """
        sizes = [int(self.starts[k + 1] - self.starts[k]) for k in self.taken]
        ends = np.cumsum([0, *sizes])
        bare, codes = None, {}
        if self.layout is not None:
            codes = self.layout.codes
            bare = replace(self.layout, shocks=without_codes(self.layout.shocks))
        items = [
            (
                self.paths[k],
                {name: code[self.starts[k] : self.starts[k + 1]] for name, code in codes.items()},
                None if self.trait is None else self.trait[self.starts[k] : self.starts[k + 1]],
                tuple(values[ends[j] : ends[j + 1]] for values in of_units),
            )
            for j, k in enumerate(self.taken)
        ]
        found = self.engine.total(partial(on_block, function, bare, (self.dropped, self.onset, self.own)), items)
        give_back()
        return found


def over(regression: Regression, function: Callable, *of_units: np.ndarray) -> Any:
    """The function of the rows and of what there is of their units, added up over blocks where they are in blocks."""
    blocks = regression.blocks
    return function(regression, *of_units) if blocks is None else blocks.total(function, *of_units)


def on_block(
    function: Callable, layout: Layout | None, view: tuple[tuple[str, ...], tuple[float, ...], bool], item: tuple
) -> Any:
    """The function of one block; see `Blocks.total`."""
    from src.design import with_traits, without_covariates
    from src.passes import Workspace

    (path, codes, trait, of_units), (dropped, onset, own) = item, view
    block = kept_at(path)
    if block.integrated and not own:
        block = replace(block, integrated=False)
    if dropped:
        block = without_covariates(block, dropped)
    if trait is not None or onset != FULL:
        block = with_traits(block, trait, onset)
    found = function(block if layout is None else Workspace.on(block, layout, codes), *of_units)
    del block
    give_back()
    return found


def give_back() -> None:
    """Give memory that is free back to the system, where its library can: passes would leave it in pieces otherwise."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_as(path: Path, what: object) -> None:
    """Put what there is of a block in the place of what there was."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        pickle.dump(what, file, protocol=5)
    part.replace(path)


def kept_at(path: Path) -> Any:
    """What `keep_as` put there: written by this very run into a folder of its own."""
    with path.open("rb") as file:
        return pickle.load(file)
