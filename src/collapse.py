"""From rows to evidence: errors estimated, then units, shocks, periods and covariates integrated out.

rows ──nuisance──▶ precision ──products──▶ cross-products ──eliminate──▶ evidence about effects and exposures
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from models.inputs import BY, CrossProducts, Design
from src import counts
from src.design import NUISANCE, Regression, with_traits, without_covariates
from src.exposure import flat_exposures
from src.nuisance import (
    Errors,
    Nuisance,
    Shock,
    estimate,
    precision_of,
    prior_of_the_rest,
    shock_columns,
    unchanging,
    without_first_shocks,
)
from src.panel import Panel, PanelError, count
from src.products import (
    TOLERANCE,
    Conditional,
    as_evidence,
    centred_within,
    cross_products,
    dependent_columns,
    eliminate,
    independent_precision,
    least_squares,
    within_products,
)

LOG_POINTS = 0.5  # s of counts: their log mean has a unit, so that priors need none of the data's
LITTLE = 0.02  # of the movement of an exposure within units
SATURATED = ("cell", "exposure", "difference", "kernel_any", "kernel_number")


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
    levels : Levels, optional
        Of the units, where the outcome is a count.
    """

    regression: Regression
    evidence: CrossProducts
    conditional: Conditional
    s: float
    nuisance: Nuisance
    notes: tuple[str, ...]
    levels: counts.Levels | None = None


def collapse(regression: Regression, errors: Errors | None = None, terms: tuple[str, ...] = ()) -> Collapsed:
    """Estimate the errors, then integrate units, shocks, periods and covariates out.

    Parameters
    ----------
    regression : Regression
    errors : Errors, optional
        Independent errors of one scale where not given.
    terms : tuple of str
        Blocks of tau of a model that pools nothing; matters for counts alone, see `src.counts.estimate`.

    Raises
    ------
    PanelError
        The saturated regression leaves no degree of freedom, or fits perfectly; or nothing is left of adoption once
        units, periods and covariates are taken out.
    """
    notes = []
    errors = Errors() if errors is None else errors
    cross = weighted_products(regression)
    absorbed = absorbed_covariates(cross, regression.design, len(regression.panel.outcome))
    if absorbed:
        notes.append(f"covariates {', '.join(absorbed)} do not vary beyond unit and period effects and are left out")
        regression = without_covariates(regression, absorbed)
        cross = weighted_products(regression)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    s = LOG_POINTS if errors.events else saturated_scale(evidence, regression.design)
    if not errors.events:
        check_errors(evidence, regression, s)
    check_adoption(evidence, regression)
    flat = flat_exposures(regression.panel, regression.share_of)
    notes += [*flat.values(), *absorbed_exposures(cross, evidence, regression, flat)]
    if errors.events:
        return collapse_counts(regression, errors, terms, tuple(notes))
    nuisance = estimate(regression, errors, s)
    still = int(unchanging(regression.panel).sum())
    if still and errors.scale == "unit":
        notes.append(f"{count(still, 'unit')} whose outcome never changes: given the typical error scale")
    if not errors.plain:
        apart = "unit" in regression.design.blocks and np.ptp(nuisance.log_scale) > 0
        if apart or nuisance.onset != 1:
            regression = with_traits(regression, nuisance.log_scale if apart else None, nuisance.onset)
        whitened = whitened_products(regression, nuisance)
        evidence, conditional = without_periods_and_covariates(whitened, regression.design)
    return Collapsed(regression, evidence, conditional, s, nuisance, tuple(notes))


def collapse_counts(
    regression: Regression, errors: Errors, terms: tuple[str, ...], notes: tuple[str, ...]
) -> Collapsed:
    """The same of counts: sites instead of precisions; see src.counts."""
    counted = counts.estimate(regression, errors, LOG_POINTS, terms)
    units = "unit" in regression.design.blocks
    if units or counted.nuisance.onset != 1:
        regression = with_traits(regression, counted.levels.height if units else None, counted.nuisance.onset)
    panel, shocks = regression.panel, list(counted.nuisance.shocks.values())
    columns = sp.csr_array(sp.hstack([*(shock_columns(panel, shock) for shock in shocks), regression.matrix]))
    products = LOG_POINTS**2 * counts.products_of(columns, counted.information, counted.moment)  # sigma is s
    cross = replace(without_shocks(products, panel, shocks, 0.0), sigma_known=True)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    return Collapsed(regression, evidence, conditional, LOG_POINTS, counted.nuisance, notes, counted.levels)


def with_common_scale(collapsed: Collapsed, errors: Errors) -> Collapsed:
    """The same regression under one error scale for all units, to see what unequal weights do to the answer.

    The scale is plugged in, as those of the units were, so that the model keeps its structure.
    """
    regression = collapsed.regression
    nuisance = estimate(regression, replace(errors, scale="common"), collapsed.s)
    cross = replace(whitened_products(regression, nuisance), sigma_known=True)
    evidence, conditional = without_periods_and_covariates(cross, regression.design)
    return replace(collapsed, evidence=evidence, conditional=conditional, nuisance=nuisance)


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
    if not s > TOLERANCE * np.std(regression.panel.outcome):
        raise PanelError(nothing_left(evidence, regression))


def check_adoption(evidence: CrossProducts, regression: Regression) -> None:
    """Refuse a panel whose adoption the rest explains.

    Raises
    ------
    PanelError
    """
    adopted = regression.design.blocks["mu"].columns
    if evidence.gram[adopted, adopted].item() <= TOLERANCE * regression.panel.treated.sum():
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
    rows = len(regression.panel.outcome)
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
    panel = regression.panel
    return cross_products(regression.matrix, panel.outcome, panel.unit, independent_precision(panel.weight))


def whitened_products(regression: Regression, nuisance: Nuisance) -> CrossProducts:
    """Cross-products under the estimated errors, shocks integrated out under their Normal priors.

    The classification with most levels goes first, level by level, because its levels share no row; what it leaves
    ties the others together.
    """
    panel = regression.panel
    shocks = list(nuisance.shocks.values())
    outcome = sp.csr_array(centred_within(panel.outcome, panel.unit)[:, None])
    columns = [*(shock_columns(panel, shock) for shock in shocks), regression.matrix, outcome]
    stacked = sp.csr_array(sp.hstack(columns, format="csr"))
    products = within_products(stacked, panel.unit, precision_of(panel, nuisance))
    cross = without_shocks(products, panel, shocks, float(len(panel.outcome) - len(panel.units)))
    return replace(cross, sigma_known=bool(np.isfinite(nuisance.nu)))


def without_shocks(products: sp.csr_array, panel: Panel, shocks: list[Shock], dof: float) -> CrossProducts:
    """Evidence about all columns but those of the shocks, which come first: integrated out under Normal priors."""
    gaps = np.diff(panel.periods)
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
