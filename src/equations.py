"""The posterior of a system of outcomes: taken apart by equation, kept as one, averaged in every equation.

A variable of an equation bears its name, as in "sa::mu", but for that of data.outcome; see src.system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from src import estimand, trace
from src.answer import with_means
from src.average import Average
from src.system import MARK, Equation

EARLIER = "earlier_slope"  # of the outcomes before
STRIDE = 1_000_000  # between the seeds of equations


def part(group: xr.Dataset, equation: Equation) -> xr.Dataset:
    """The variables of one equation, without its name; those that equations share are with data.outcome."""
    before = equation.named("")
    mine = [name for name in map(str, group.data_vars) if (name.startswith(before) if before else MARK not in name)]
    found = group[mine]
    names = [name for name in (*mine, *map(str, found.dims)) if before and name.startswith(before)]
    return found.rename({name: name.removeprefix(before) for name in names})


def assemble(sampled: xr.DataTree, system: Sequence[Equation], seed: int, attributes: dict) -> xr.DataTree:
    """The run's DataTree but for its estimands: `trace.assemble` of every equation, under its name.

    Slopes of outcomes before are kept apart from the other coefficients, in units of the outcome over those of theirs.
    """
    groups: dict[str, xr.Dataset] = {}
    for k, equation in enumerate(system):
        mine = {name: part(child.to_dataset(), equation) for name, child in sampled.children.items()}
        mine["sample_stats"] = sampled["sample_stats"].to_dataset()
        tree = trace.assemble(xr.DataTree.from_dict(mine), equation.collapsed, seed + STRIDE * k, attributes)
        for name, child in tree.children.items():
            found = child.to_dataset()
            if name not in trace.DENSITIES:
                found = with_slopes(found, equation)
            if equation.name:
                kept = {"observed_data": ["outcome"], "sample_stats": []}.get(name, [*found.data_vars])
                found = found[kept].rename({old: equation.named(str(old)) for old in (*kept, *columns_of(found))})
            groups[name] = groups[name].merge(found, join="outer") if name in groups else found
    whole = xr.DataTree.from_dict(groups)
    whole.attrs = tree.attrs
    return whole


def columns_of(group: xr.Dataset) -> list[str]:
    """The dimension of an equation's own coefficients, where a group has it."""
    return [name for name in ("column",) if name in group.dims]


def with_slopes(group: xr.Dataset, equation: Equation) -> xr.Dataset:
    """A group of variables whose slopes of outcomes before are in units of these."""
    if EARLIER not in group:
        return group
    slopes = group[EARLIER]
    theta = group["theta"]
    others = [label for label in theta["column"].to_numpy() if not str(label).startswith("earlier[")]
    scale = xr.DataArray(equation.scale, dims=str(slopes.dims[-1]))
    return group.sel(column=others).assign({EARLIER: slopes / scale})


def in_outcome_units(posterior: xr.Dataset, system: Sequence[Equation]) -> xr.Dataset:
    """Draws of the parameters of all equations, from units of s to those of the outcomes."""
    found = []
    for equation in system:
        mine = with_slopes(trace.in_outcome_units(part(posterior, equation), equation.collapsed.s), equation)
        names = (*mine.data_vars, *columns_of(mine)) if equation.name else ()
        found.append(mine.rename({old: equation.named(str(old)) for old in names}))
    return xr.merge(found, join="outer")


def coefficients(found: xr.Dataset, equation: Equation) -> xr.DataArray:
    """Coefficients of an equation over the labelled columns of its design, dims (chain, draw, column)."""
    theta = found[equation.named("theta")].rename({equation.named("column"): "column"} if equation.name else {})
    if not equation.earlier:
        return theta
    slopes = found[equation.named(EARLIER)]
    dim = str(slopes.dims[-1])
    scaled = (slopes * xr.DataArray(equation.scale, dims=dim)).rename({dim: "column"})
    return xr.concat([theta, scaled.assign_coords(column=[f"earlier[{name}]" for name in equation.earlier])], "column")


@dataclass(frozen=True)
class Effects:
    """Averages of effects in one equation.

    Attributes
    ----------
    equation : Equation
    theta : DataArray, dims (chain, draw, column)
        Coefficients, in units of the outcome.
    found : list of Average
        The same in every equation, their truths those of `total`, of a share those of the logarithm of its part.
    apart, total : array, shape (chain, draw, estimand)
        What does not go through the outcomes before, and what goes whatever way; of a share, of its log odds both.
    slopes : array, shape (chain, draw, earlier)
    """

    equation: Equation
    theta: xr.DataArray
    found: list[Average]
    apart: np.ndarray
    total: np.ndarray
    slopes: np.ndarray


def effects(posterior: xr.Dataset, system: Sequence[Equation], seed: int) -> list[Effects]:
    """Averages of effects in every equation, in their order; parameters in units of the outcomes."""
    done: list[Effects] = []
    for k, equation in enumerate(system):
        collapsed, theta = equation.collapsed, coefficients(posterior, equation)
        terms = tuple(name for name in trace.terms(theta) if name != "earlier")
        found = estimand.averages(collapsed.regression, collapsed.evidence, terms)
        complete = with_means(theta, collapsed, seed + STRIDE * k)
        apart = estimand.draw_estimands(complete, collapsed.regression.design.all_labels, found)
        slopes, total = np.zeros((*apart.shape[:2], 0)), apart
        if equation.earlier:
            slopes = posterior[equation.named(EARLIER)].to_numpy()
            total = apart + sum(slopes[..., [j]] * before.total for j, before in enumerate(done))
        if done:
            found = [told_by(average, others) for average, *others in zip(found, *(d.found for d in done), strict=True)]
            apart = np.where([average.identified for average in found], apart, np.nan)
        done.append(Effects(equation, theta, found, apart, total, slopes))
    return done


def told_by(average: Average, others: list[Average]) -> Average:
    """The average as far as the same of the outcomes before, which its total contains, is told."""
    untold = next((other for other in others if not other.identified), None)
    return average if untold is None else replace(average, identified=False, note=untold.note)
