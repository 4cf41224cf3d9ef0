"""Whom to choose: rules under limits, what each set gains draw by draw, and how sure the order is.

    gain(A) = sum over i in A of (own_i + unit_i + cohort) + w(A)'theta          all units, mean over the periods

own_i includes the candidate's standing: what the exposure that it has already is worth to an adopter beyond what it is
worth to others. w(A)'theta is the spillover on everybody else and of the chosen on each other; see src.hypothesis.
What is expected of a set leaves unit_i and cohort out: they have mean zero, nobody can choose by them, and cohort is
common to all sets of the same size.

The rule by total effect is greedy: it adds the candidate whose expected gain, given those chosen before, is largest.
As the expected gain is a sum over pairs, gains are updated exactly; where only the nearest adopter is felt they are
those of a candidate alone. Where slopes of adopters and others are alike, gains add up and greedy is best (without
costs); a test holds it against all subsets where they are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from src.design import Regression
from src.hypothesis import Hypothesis, Responses, weights_under
from src.newcomers import Newcomers

RULES = ("random", "today", "own", "total")
TIE = 1e-9  # of the larger of two gains


@dataclass(frozen=True)
class Limits:
    """What a set may be.

    Attributes
    ----------
    slots : int
        Candidates, at most.
    level : array of int, shape (quota, candidate)
        Level of each candidate by which a quota counts.
    most : list of array of int, shape (level,)
        By quota: candidates of each level, at most.
    cost : array, shape (candidate,)
        Ones where costs do not matter.
    budget : float
        inf where costs do not matter.
    """

    slots: int
    level: np.ndarray
    most: list[np.ndarray]
    cost: np.ndarray
    budget: float = np.inf

    @property
    def free(self) -> bool:
        """Nothing but the number of slots matters."""
        return not self.most and not self.priced

    @property
    def priced(self) -> bool:
        """Costs matter."""
        return bool(np.isfinite(self.budget))


@dataclass(frozen=True)
class Prospect:
    """Draws of what adoption by any set of candidates would change.

    Attributes
    ----------
    hypothesis : Hypothesis
    regression : Regression
    newcomers : Newcomers
    responses : Responses
    theta : array, shape (draw, column)
        Over all columns of the design, in units of the outcome.
    own : array, shape (draw, candidate)
        Effect of own adoption with exposures as they are, without the unit's own deviation.
    total : array, shape (draw, candidate)
        The same, plus the spillover on all others if nobody else is chosen.
    """

    hypothesis: Hypothesis
    regression: Regression
    newcomers: Newcomers
    responses: Responses
    theta: np.ndarray
    own: np.ndarray
    total: np.ndarray

    def spill(self, chosen: np.ndarray) -> np.ndarray:
        """Draws of the spillover w(A)'theta, shape (draw,); `chosen` are positions among the candidates."""
        return self.theta @ self.weights(chosen)

    def weights(self, chosen: np.ndarray) -> np.ndarray:
        """w(A) without the standing of the chosen themselves, shape (column,)."""
        responses = self.responses
        if not responses.linear:
            exact = weights_under(self.hypothesis, self.regression, self.hypothesis.candidates[chosen])
            return exact - responses.standing[chosen].sum(axis=0)
        found = responses.alone[chosen].sum(axis=0)
        for column, parts in responses.pairs.items():
            found[column] += parts[chosen][:, chosen].sum()
        return found

    def expected(self, chosen: np.ndarray) -> np.ndarray:
        """Draws of the gain that is expected of a set, shape (draw,)."""
        return self.own[:, chosen].sum(axis=1) + self.spill(chosen)

    def realised(self, chosen: np.ndarray) -> np.ndarray:
        """Draws of the gain of a set, with what sets its units and its cohort apart, shape (draw,)."""
        apart = self.newcomers.unit[:, chosen].sum(axis=1) + len(chosen) * self.newcomers.cohort
        return self.expected(chosen) + apart

    def interactions(self) -> sp.csr_array:
        """Expected gain of two candidates together beyond that of each alone, shape (candidate, candidate)."""
        size = len(self.hypothesis.candidates)
        found = sp.csr_array((size, size))
        for column, parts in self.responses.pairs.items():
            found = found + self.theta[:, column].mean() * (parts + parts.T)
        return sp.csr_array(found)


def prospect_of(
    hypothesis: Hypothesis, regression: Regression, newcomers: Newcomers, responses: Responses, theta: np.ndarray
) -> Prospect:
    """The draws put together."""
    own = newcomers.known + theta @ responses.standing.T
    return Prospect(hypothesis, regression, newcomers, responses, theta, own, own + theta @ responses.alone.T)


def taken(order: Iterable[int], limits: Limits) -> np.ndarray:
    """Candidates along an order, leaving out whoever breaks a quota or the rest of the budget."""
    counts = [np.zeros_like(most) for most in limits.most]
    spent = 0.0
    found: list[int] = []
    for i in order:
        if len(found) == limits.slots:
            break
        if fits(i, counts, spent, limits):
            found.append(int(i))
            spent += limits.cost[i]
            for count, level in zip(counts, limits.level, strict=True):
                count[level[i]] += 1
    return np.array(found, dtype=int)


def fits(i: int, counts: list[np.ndarray], spent: float, limits: Limits) -> bool:
    """Whether a candidate breaks no limit, given those that were chosen before."""
    within = all(
        count[level[i]] < most[level[i]] for count, level, most in zip(counts, limits.level, limits.most, strict=True)
    )
    return within and spent + limits.cost[i] <= limits.budget * (1 + TIE)


def best_first(value: np.ndarray, limits: Limits, rng: np.random.Generator) -> np.ndarray:
    """Candidates from the largest value (for its cost, where costs matter) to the smallest, ties in random order."""
    return np.lexsort((rng.random(len(value)), -(value / limits.cost if limits.priced else value)))


def greedy(value: np.ndarray, pairs: sp.csr_array, limits: Limits, rng: np.random.Generator) -> np.ndarray:
    """Candidates by the gain that each adds to those before it.

    Parameters
    ----------
    value : array, shape (candidate,)
        Gain alone.
    pairs : sparse array, shape (candidate, candidate)
        Gain of two beyond that; symmetric, zero on the diagonal.
    limits : Limits
    rng : Generator
        For ties.
    """
    if not np.abs(pairs.data).sum():
        return taken(best_first(value, limits, rng), limits)
    gain, columns = value.copy(), sp.csc_array(pairs)
    out = np.zeros(len(value), dtype=bool)
    found: list[int] = []
    counts, spent, jitter = [np.zeros_like(most) for most in limits.most], 0.0, rng.permutation(len(value))
    while len(found) < limits.slots and not out.all():
        worth = np.where(out, -np.inf, gain / limits.cost if limits.priced else gain)
        top = np.flatnonzero(worth == worth.max())
        i = int(top[np.argmin(jitter[top])])
        out[i] = True
        if not fits(i, counts, spent, limits):
            continue
        found.append(i)
        spent += limits.cost[i]
        for count, level in zip(counts, limits.level, strict=True):
            count[level[i]] += 1
        mine = slice(columns.indptr[i], columns.indptr[i + 1])
        gain[columns.indices[mine]] += columns.data[mine]
    return np.array(found, dtype=int)


def sets_of(
    rule: str, prospect: Prospect, score: np.ndarray, limits: Limits, shuffles: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The sets that a rule chooses, positions among the candidates: one, or of `random` so many.

    Parameters
    ----------
    rule : {"random", "today", "own", "total"}
    prospect : Prospect
    score : array, shape (candidate,)
        By which today's adopters seem to have been chosen.
    limits : Limits
    shuffles : int
    rng : Generator
    """
    if rule == "random":
        return [taken(rng.permutation(len(score)), limits) for _ in range(shuffles)]
    if rule == "today":
        return [taken(np.lexsort((rng.random(len(score)), -score)), limits)]
    if rule == "own":
        return [taken(best_first(prospect.own.mean(axis=0), limits, rng), limits)]
    return [greedy(prospect.total.mean(axis=0), prospect.interactions(), limits, rng)]


def best_of_draws(prospect: Prospect, limits: Limits, rng: np.random.Generator) -> np.ndarray:
    """Draws of the expected gain of the set that would be chosen if the draw were the truth, shape (draw,).

    By gains of candidates alone: interactions count in what the set gains, not in how it is chosen.
    """
    found = np.zeros(len(prospect.total))
    for d, value in enumerate(prospect.total):
        chosen = taken(best_first(value, limits, rng), limits)
        found[d] = prospect.own[d, chosen].sum() + prospect.theta[d] @ prospect.weights(chosen)
    return found


def share_better(one: np.ndarray, other: np.ndarray) -> float:
    """P(one > other) over draws, a tie counting half."""
    difference = one - other
    tie = np.abs(difference) <= TIE * np.maximum(np.abs(one), np.abs(other))
    return float(np.where(tie, 0.5, difference > 0).mean())


def top_probability(total: np.ndarray, slots: int, rng: np.random.Generator) -> np.ndarray:
    """Share of draws in which each candidate is among the `slots` of largest gain, shape (candidate,).

    Sums to the number of slots; ties are broken at random in every draw.
    """
    count = np.zeros(total.shape[1])
    for value in total:
        count[np.lexsort((rng.random(len(value)), -value))[:slots]] += 1
    return count / len(total)


def cell_means(total: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Mean gain of the candidates of each cell, shape (draw, cell)."""
    size = np.bincount(code)
    indicator = sp.csr_array((1 / size[code], (np.arange(len(code)), code)))
    return total @ indicator


def cells_on_top(means: np.ndarray, size: np.ndarray, slots: int, rng: np.random.Generator) -> np.ndarray:
    """Share of draws in which cells of larger mean gain hold fewer candidates than there are slots, shape (cell,).

    Parameters
    ----------
    means : array, shape (draw, cell)
    size : array of int, shape (cell,)
        Candidates.
    slots : int
    rng : Generator
        For ties.
    """
    count = np.zeros(means.shape[1])
    for value in means:
        order = np.lexsort((rng.random(len(value)), -value))
        before = np.cumsum(size[order]) - size[order]
        count[order[before < slots]] += 1
    return count / len(means)
