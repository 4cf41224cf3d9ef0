"""From rows to evidence: errors estimated, then units, shocks, periods and covariates integrated out.

rows ──nuisance──▶ precision ──products──▶ cross-products ──eliminate──▶ evidence about effects and exposures
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp

from models.inputs import BY, CrossProducts, Design
from src import counts
from src.blocks import over
from src.design import (
    NUISANCE,
    Regression,
    mean_effects,
    own_rows,
    standardised,
    with_traits,
    without_covariates,
    without_own,
)
from src.errors import FULL, Errors, Nuisance, Shock, prior_of_the_rest, shock_columns, without_first_shocks
from src.exposure import flat_exposures
from src.levels import Levels
from src.nuisance import estimate
from src.panel import PanelError, count
from src.passes import indicators_of, precision_of, unchanging
from src.products import (
    TOLERANCE,
    Compensated,
    Conditional,
    as_evidence,
    centred_within,
    dependent_columns,
    eliminate,
    independent_precision,
    least_squares,
)
from src.within import Own, within_products

LOG_POINTS = 0.5  # s of counts: their log mean has a unit, so that priors need none of the data's
LITTLE = 0.02  # of the movement of an exposure within units
SATURATED = ("cell", "exposure", "difference", "earlier", "kernel_any", "kernel_number")


@dataclass(frozen=True)
class Collapsed:
    """A regression reduced to what its coefficients' posterior needs.

    Attributes
    ----------
    regression : Regression
        Without covariates that are absorbed.
    evidence : CrossProducts
        Over the effect and exposure columns in the order of the design, in units of the outcome.
    conditional : Conditional
        Of periods and covariates given those, in units of the outcome.
    s : float
        Residual SD of the saturated fit.
    nuisance : Nuisance
        What was estimated of the errors.
    notes : tuple of str
    plain : (Regression, CrossProducts)
        All columns under independent errors with the panel's weights, nothing but effects of units integrated out.
    levels : Levels, optional
        Of the units, where the outcome is a count.
    """

    regression: Regression
    evidence: CrossProducts
    conditional: Conditional
    s: float
    nuisance: Nuisance
    notes: tuple[str, ...]
    plain: tuple[Regression, CrossProducts]
    levels: Levels | None = None


def collapse(
    regression: Regression,
    errors: Errors | None = None,
    terms: tuple[str, ...] = (),
    own: bool = True,
    height: np.ndarray | None = None,
) -> Collapsed:
    """Estimate the errors, then integrate units, shocks, periods and covariates out.

    Parameters
    ----------
    regression : Regression
    errors : Errors, optional
        Independent errors of one scale where not given.
    terms : tuple of str
        Blocks of tau of a model that pools nothing; matters for counts alone, see `src.counts.estimate`.
    own : bool
        The model gives units effects of their own: where they are many they are integrated out of its evidence.
    height : array, shape (unit,), optional
        Log size of each unit, which its effect on a count may depend on; where not given, the level of the count.

    Raises
    ------
    PanelError
        The saturated regression leaves no degree of freedom, or fits perfectly; or nothing is left of adoption once
        units, periods and covariates are taken out.
    """
    notes = []
    errors = Errors() if errors is None else errors
    cross = weighted_products(regression)
    absorbed = absorbed_covariates(cross, regression.design, regression.rows)
    if absorbed:
        notes.append(f"covariates {', '.join(absorbed)} do not vary beyond unit and period effects and are left out")
        regression = without_covariates(regression, tuple(absorbed))
        cross = weighted_products(regression)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    plain = (regression, cross)
    s = LOG_POINTS if errors.events else saturated_scale(evidence, regression.design)
    if not errors.events:
        check_errors(evidence, regression, s)
    check_adoption(evidence, regression)
    flat = flat_exposures(regression.panel, regression.share_of)
    notes += [*flat.values(), *absorbed_exposures(cross, evidence, regression, flat)]
    if errors.events:
        return collapse_counts(regression, errors, terms, height, tuple(notes), plain)
    nuisance = estimate(regression, errors, s)
    still = int(over(regression, count_unchanging))
    if still and errors.scale == "unit":
        notes.append(f"{count(still, 'unit')} whose outcome never changes: given the typical error scale")
    if not errors.plain:
        design, trait = regression.design, None
        if ("unit" in design.blocks or regression.integrated) and np.ptp(nuisance.log_scale) > 0:
            trait = standardised(nuisance.log_scale, regression.adopters)
        if trait is not None or nuisance.onset != FULL:
            regression = with_traits(regression, trait, nuisance.onset)
        if regression.integrated and not own:
            regression = without_own(regression)
        whitened = whitened_products(regression, nuisance)
        evidence, conditional = without_periods_and_covariates(whitened, regression.design)
    elif regression.integrated:  # there is nothing that they could be integrated out with
        regression = without_own(regression)
        if own:
            notes.append("effects of single units are left out: errors are independent and of one scale")
    return Collapsed(regression, evidence, conditional, s, nuisance, tuple(notes), plain)


def count_unchanging(regression: Regression) -> int:
    """Number of units whose outcome never changes."""
    return int(unchanging(regression.panel).sum())


def collapse_counts(
    regression: Regression,
    errors: Errors,
    terms: tuple[str, ...],
    height: np.ndarray | None,
    notes: tuple[str, ...],
    plain: tuple[Regression, CrossProducts],
) -> Collapsed:
    """The same of counts: sites instead of precisions; see src.counts."""
    counted = counts.estimate(regression, errors, LOG_POINTS, terms)
    units = "unit" in regression.design.blocks
    if units or counted.nuisance.onset != FULL:
        size = counted.levels.height if height is None else height
        trait = standardised(size, regression.adopters) if units else None
        regression = with_traits(regression, trait, counted.nuisance.onset)
    evidence, conditional = without_periods_and_covariates(products_of_sites(regression, counted), regression.design)
    return Collapsed(regression, evidence, conditional, LOG_POINTS, counted.nuisance, notes, plain, counted.levels)


def products_of_sites(regression: Regression, counted: counts.Counted) -> CrossProducts:
    """Cross-products that the sites of counts leave, shocks integrated out."""
    panel, shocks, periods = regression.panel, list(counted.nuisance.shocks.values()), regression.frame.periods
    columns = sp.csr_array(sp.hstack([*(shock_columns(panel, shock, periods) for shock in shocks), regression.matrix]))
    products = LOG_POINTS**2 * counts.products_of(columns, counted.information, counted.moment)  # sigma is s
    return replace(without_shocks(products, periods, shocks, 0.0), sigma_known=True)


def with_common_scale(collapsed: Collapsed, errors: Errors) -> Collapsed:
    """The same regression under one error scale for all units, to see what unequal weights do to the answer.

    The scale is plugged in, as those of the units were, so that the model keeps its structure.
    """
    regression = collapsed.regression
    nuisance = estimate(regression, replace(errors, scale="common"), collapsed.s, collapsed.nuisance)
    cross = replace(whitened_products(regression, nuisance), sigma_known=True)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    return replace(collapsed, evidence=evidence, conditional=conditional, nuisance=nuisance)


def with_outcome(
    collapsed: Collapsed,
    errors: Errors,
    outcome: np.ndarray,
    terms: tuple[str, ...] = (),
    share: np.ndarray | None = None,
) -> Collapsed:
    """The same regression and errors with another outcome, shape (row,): nothing of the errors is estimated anew.

    Of counts, sites are taken anew: `terms` as of `collapse`, `share` the probability of each variance of the
    disturbance, shape (unit, grid point).
    """
    regression = replace(collapsed.regression, panel=replace(collapsed.regression.panel, outcome=outcome))
    nuisance = collapsed.nuisance
    if errors.events:
        assert share is not None
        known = counts.Known(replace(nuisance, onset=FULL), share)  # the columns have the onset already
        counted = counts.estimate(regression, errors, LOG_POINTS, terms, known)
        nuisance = replace(nuisance, passes=counted.nuisance.passes, settled=counted.nuisance.settled)
        cross = products_of_sites(regression, counted)
    elif errors.plain:
        cross = weighted_products(regression)
    else:
        cross = whitened_products(regression, collapsed.nuisance)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    return replace(collapsed, regression=regression, evidence=evidence, conditional=conditional, nuisance=nuisance)


def without_periods_and_covariates(cross: CrossProducts, design: Design) -> tuple[CrossProducts, Conditional]:
    """Integrate periods and covariates out under flat priors."""
    nuisance = tuple(name for name in NUISANCE if name in design.blocks)
    kept = tuple(name for name in design.blocks if name not in nuisance)
    return eliminate(cross, design.columns(kept), design.columns(nuisance))


def check_errors(evidence: CrossProducts, regression: Regression, s: float) -> None:
    """Refuse a panel without residual variation.

    Raises
    ------
    PanelError
    """
    if not s > TOLERANCE * regression.frame.outcome[1]:
        raise PanelError(nothing_left(evidence, regression))


def check_adoption(evidence: CrossProducts, regression: Regression) -> None:
    """Refuse a panel whose adoption the rest explains.

    Raises
    ------
    PanelError
    """
    adopted = regression.design.blocks["mu"].columns
    if evidence.gram[adopted, adopted].item() <= TOLERANCE * regression.frame.totals["mu"][0]:
        raise PanelError(
            "adoption is explained by units, periods and covariates, so its effect cannot be told: no adopter is seen "
            "both before and after adoption beside somebody untreated, or a covariate is adoption itself; drop that "
            "covariate, or add rows"
        )


def nothing_left(evidence: CrossProducts, regression: Regression) -> str:
    """Why the saturated fit has no residual: too few rows for its coefficients, or an outcome that they explain."""
    names = saturated(regression.design)
    gram = evidence.take(regression.design.columns(names)).gram
    rank = len(gram) - len(dependent_columns(gram))
    rows = regression.rows
    if evidence.dof <= rank:
        return (
            f"the panel is too small: {rows} rows leave no variation once every unit, period and cohort x period cell "
            "has its own effect; add units or periods"
        )
    return (
        f"units, periods, covariates and adoption explain the outcome without error in all {rows} rows, so there is "
        "nothing random to tell effects from: check that data.outcome is the outcome, and not a copy or a sum of them"
    )


def weighted_products(regression: Regression) -> CrossProducts:
    """Cross-products under independent errors with the panel's weights."""
    return as_evidence(
        over(regression, plain_products).value.toarray(), float(regression.rows - len(regression.adopters))
    )


def plain_products(regression: Regression) -> Compensated:
    """Cross-products of the columns and the outcome of rows, under independent errors with the panel's weights."""
    panel = regression.panel
    outcome = sp.csr_array(centred_within(panel.outcome, panel.unit)[:, None])
    columns = sp.csr_array(sp.hstack([regression.matrix, outcome], format="csr"))
    indicators = indicators_of(panel, [], regression.frame.periods, time_columns(regression, 0))
    precision = independent_precision(panel.weight)
    return Compensated.of(within_products(columns, panel.unit, precision, indicators=indicators))


def time_columns(regression: Regression, before: int) -> slice | None:
    """Columns of the periods, where there are any, with so many columns before those of the design."""
    block = regression.design.blocks.get("time")
    return None if block is None else slice(before + block.start, before + block.start + block.size)


def whitened_products(regression: Regression, nuisance: Nuisance) -> CrossProducts:
    """Cross-products under the estimated errors, shocks integrated out under their Normal priors.

    The classification with most levels goes first, level by level, because its levels share no row; what it leaves
    ties the others together.
    """
    units, shocks = len(regression.adopters), list(nuisance.shocks.values())
    codes = np.column_stack([shock.code for shock in shocks]) if shocks else np.zeros((units, 0), dtype=int)
    products = over(regression, partial(products_under, nuisance=nuisance.bare), nuisance.weight, codes)
    cross = without_shocks(products.value, regression.frame.periods, shocks, float(regression.rows - units))
    return replace(cross, sigma_known=bool(np.isfinite(nuisance.nu)))


def products_under(regression: Regression, weight: np.ndarray, codes: np.ndarray, *, nuisance: Nuisance) -> Compensated:
    """Cross-products of shocks, columns and outcome of rows under the estimated errors.

    Parameters
    ----------
    regression : Regression
    weight : array, shape (unit,)
    codes : array of int, shape (unit, shock)
    nuisance : Nuisance
        Without what there is of units.
    """
    panel, periods = regression.panel, regression.frame.periods
    shocks = [replace(shock, code=codes[:, k]) for k, shock in enumerate(nuisance.shocks.values())]
    outcome = sp.csr_array(centred_within(panel.outcome, panel.unit)[:, None])
    columns = [*(shock_columns(panel, shock, periods) for shock in shocks), regression.matrix, outcome]
    stacked = sp.csr_array(sp.hstack(columns, format="csr"))
    before = sum(piece.shape[1] for piece in columns[: len(shocks)])
    own = None
    if regression.integrated:
        padded = [
            sp.csr_array((len(panel.units), before)),
            mean_effects(regression),
            sp.csr_array((len(panel.units), 1)),
        ]
        own = Own(own_rows(panel, regression.onset), nuisance.own, sp.csr_array(sp.hstack(padded, format="csr")))
    indicators = indicators_of(panel, shocks, periods, time_columns(regression, before))
    precision = precision_of(panel, weight, nuisance.rho)
    return Compensated.of(within_products(stacked, panel.unit, precision, own, indicators))


def without_shocks(products: sp.csr_array, periods: np.ndarray, shocks: list[Shock], dof: float) -> CrossProducts:
    """Evidence about all columns but those of the shocks, which come first: integrated out under Normal priors."""
    gaps = np.diff(periods)
    cross = as_evidence(without_first_shocks(products, gaps, shocks)[0], dof)
    prior = prior_of_the_rest(gaps, shocks)
    if len(prior):
        cross, _ = eliminate(cross, np.arange(len(prior), len(cross.moment)), np.arange(len(prior)), prior)
    return cross


def absorbed_covariates(cross: CrossProducts, design: Design, rows: int) -> list[str]:
    """Covariates that unit effects, period effects or earlier covariates explain, hence without a slope of their own.

    Parameters
    ----------
    cross : CrossProducts
        Over all columns of the design.
    rows : int
        Number of rows: the total sum of squares of a standardised covariate.
    """
    if "covariate" not in design.blocks:
        return []
    positions = design.columns(tuple(name for name in NUISANCE if name in design.blocks))
    first = len(positions) - design.blocks["covariate"].size
    within = cross.gram[np.ix_(positions, positions)]
    inside = np.diag(within)[first:] <= TOLERANCE * rows
    explained = np.isin(np.arange(first, len(positions)), dependent_columns(within))
    return [name for name, drop in zip(design.blocks["covariate"].levels, inside | explained, strict=True) if drop]


def absorbed_exposures(
    cross: CrossProducts, evidence: CrossProducts, regression: Regression, known: Collection[str]
) -> list[str]:
    """A line on each exposure of whose movement within units hardly anything is left beside all other nuisance.

    Parameters
    ----------
    cross : CrossProducts
        Over all columns, unit effects alone integrated out.
    evidence : CrossProducts
        Over the effect and exposure columns, periods, fixed effects and covariates integrated out too.
    regression : Regression
    known : collection of str
        Exposures of which this has been said already.
    """
    notes = []
    first = regression.design.blocks["exposure"].start if regression.exposures else 0
    for j, name in enumerate(regression.exposures, start=first):
        left = evidence.gram[j, j] / max(cross.gram[j, j], np.finfo(float).tiny)
        if left < LITTLE and name not in known:
            notes.append(
                f"periods, fixed effects and covariates explain all but {left:.2%} of how {name} moves within units: "
                "its slope rests on that"
            )
    return notes


def saturated(design: Design) -> tuple[str, ...]:
    """Blocks of the saturated fit."""
    return tuple(name for name in design.blocks if name in SATURATED or name.startswith(BY))


def saturated_scale(cross: CrossProducts, design: Design) -> float:
    """s, the residual SD when every cohort x period cell has its own effect: the unit of all priors.

    Parameters
    ----------
    cross : CrossProducts
        Over the kept columns in the order of the design, periods and covariates integrated out.
    """
    names = saturated(design)
    return least_squares(cross.take(design.columns(names)))[2]
