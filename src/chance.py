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
AT_ONCE = 10_000  # numbers


@dataclass(frozen=True)
class Probabilities:
    """A table of the logarithm of a probability by x, for some V.

    Attributes
    ----------
    log : array, shape (variance, node)
    """

    log: np.ndarray

    @classmethod
    def of(cls, law: Callable[[np.ndarray, np.ndarray], np.ndarray], variance: np.ndarray) -> Probabilities:
        """The table of `any_event` or `of_kind`; linear interpolation of the logarithm is exact to 1e-5."""
        x = np.arange(FEWEST, MOST, STEP)
        log = [np.log(law(x, np.full(len(x), v))) for v in variance]
        return cls(np.array(log))

    def at(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The probability at x for the variances at the positions `which`, of the same shape."""
        found, flat, chosen = np.empty(x.size), x.ravel(), which.ravel()
        for start in range(0, x.size, AT_ONCE):
            some = slice(start, start + AT_ONCE)
            found[some] = self.of_some(flat[some], chosen[some])
        return found.reshape(x.shape)

    def of_some(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The same for as many numbers as stay close to the processor."""
        nodes = self.log.shape[1]
        place = np.clip((x - FEWEST) / STEP, 0.0, nodes - 1.001)
        left = place.astype(np.intp)
        place -= left
        left += which.astype(np.intp) * nodes
        log = np.take(self.log, left)
        log += place * (np.take(self.log, left + 1) - log)
        return np.exp(log + np.minimum(x - FEWEST, 0.0))  # below the table it is in proportion to exp(x)


def normal_quadrature(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of an average over Normal(0, 1), by Gauss and Hermite, shape (node,) each."""
    node, weight = np.polynomial.hermite_e.hermegauss(nodes)
    return node, weight / weight.sum()


def any_event(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """p(x, V), by Gauss-Hermite quadrature, shape as given."""
    node, weight = normal_quadrature(NODES)
    power = x[..., None] + np.sqrt(variance)[..., None] * node
    return -np.expm1(-np.exp(np.minimum(power, MOST_LOG))) @ weight


def of_kind(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """q(x, V), likewise."""
    node, weight = normal_quadrature(NODES)
    return expit(x[..., None] + np.sqrt(variance)[..., None] * node) @ weight
