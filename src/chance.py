"""Probabilities whose argument is Normal, e ~ Normal(0, 1).

p(x, V) = 1 - E[exp(-exp(x + sqrt(V) e))]         that a count is not zero, the logarithm of its mean Normal(x, V)
q(x, V) = E[1 / (1 + exp(-x - sqrt(V) e))]        that an event is of a kind, its log odds Normal(x, V)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

MOST_LOG = 60.0
NODES = 40  # of the integral
FEWEST, MOST, STEP = -16.0, 12.0, 0.01  # x of the table


@dataclass(frozen=True)
class Probabilities:
    """A table of the logarithm of a probability by x, for some V.

    Attributes
    ----------
    x : array, shape (node,)
    log : array, shape (variance, node)
    """

    x: np.ndarray
    log: np.ndarray

    @classmethod
    def of(cls, law: Callable[[np.ndarray, np.ndarray], np.ndarray], variance: np.ndarray) -> Probabilities:
        """The table of `any_event` or `of_kind`; linear interpolation of the logarithm is exact to 1e-5."""
        x = np.arange(FEWEST, MOST, STEP)
        log = [np.log(law(x, np.full(len(x), v))) for v in variance]
        return cls(x, np.array(log))

    def at(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The probability at x for the variances at the positions `which`, of the same shape."""
        found = np.zeros(x.shape)
        for position, log in enumerate(self.log):
            mine = which == position
            rare = np.minimum(x[mine] - FEWEST, 0.0)  # there it is in proportion to exp(x)
            found[mine] = np.exp(np.interp(x[mine], self.x, log) + rare)
        return found


def any_event(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """p(x, V), by Gauss-Hermite quadrature, shape as given."""
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    power = x[..., None] + np.sqrt(variance)[..., None] * node
    return -np.expm1(-np.exp(np.minimum(power, MOST_LOG))) @ weight / weight.sum()


def of_kind(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """q(x, V), likewise."""
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    return expit(x[..., None] + np.sqrt(variance)[..., None] * node) @ weight / weight.sum()
