"""Describe a panel in plain text before anything is fitted: what is there, what was handled, where it is thin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from src.command import command
from src.config import Config
from src.panel import Factor, Panel, count
from src.validate import TRANSFORMS

SHOWN = 5  # levels listed at each end of a long list
LONGEST = 40  # characters of a label
BACK = {"log1p": np.expm1, "asinh": np.sinh}  # from a transformed outcome to the outcome
ZERO = 1e-9
MANY_ZEROS = 0.05


def describe(panel: Panel, exposures: dict[str, np.ndarray]) -> str:
    """Units, balance, adoption, groups, exposures, weights and notes of a panel.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Exposures without NaN, as `src.exposure.row_shares` gives them.

    Returns
    -------
    str
        Several short sections.
    """
    sections = [describe_rows(panel), describe_adoption(panel)]
    sections += [describe_group(panel, group) for group in panel.groups.values()]
    if exposures:
        sections.append(describe_exposures(panel, exposures))
    if np.ptp(panel.weight) > 0:
        sections.append(describe_weights(panel.weight))
    if panel.notes:
        sections.append("Handled\n" + "\n".join(f"  {note}" for note in panel.notes))
    return "\n\n".join(sections)


def describe_rows(panel: Panel) -> str:
    """Size, balance and outcome."""
    units, periods, rows = len(panel.units), panel.periods, len(panel.unit)
    period = np.searchsorted(periods, panel.time)
    first = np.full(units, len(periods))
    last = np.full(units, -1)
    np.minimum.at(first, panel.unit, period)
    np.maximum.at(last, panel.unit, period)
    seen = np.bincount(panel.unit, minlength=units)
    gaps = (last - first + 1 > seen).sum()
    y = panel.outcome
    lines = [
        f"Panel {panel.name}: {count(units, 'unit')}, {count(len(periods), 'period')} ({periods[0]} to {periods[-1]}), "
        f"{count(rows, 'row')}",
        f"  balance    {rows / (units * len(periods)):.1%} of unit-periods present; "
        f"{(seen == len(periods)).sum():,} units in every period, {gaps:,} with gaps, "
        f"{(seen == 1).sum():,} with a single row",
        f"  outcome    mean {y.mean():.4g}, sd {y.std():.4g}, from {y.min():.4g} to {y.max():.4g}"
        + (" (log)" if panel.is_log else ""),
    ]
    if panel.covariate_names:
        lines.append(f"  covariates {', '.join(panel.covariate_names)}")
    outside = len(panel.roster.cohort) - units
    if outside:
        lines.append(f"  {count(outside, 'unit')} of the file without a row here; they still expose others")
    return "\n".join(lines)


def describe_adoption(panel: Panel) -> str:
    """Cohorts with their units, and treated rows."""
    never = np.isinf(panel.cohort)
    treated = panel.treated
    adopters = np.unique(panel.unit[treated])
    cohorts, sizes = np.unique(panel.cohort[~never], return_counts=True)
    rows = dict(zip(*np.unique(panel.row_cohort[treated], return_counts=True), strict=True))
    lines = [
        f"Adoption: {count(len(adopters), 'treated unit')}, "
        f"{count(treated.sum(), 'treated row')} ({treated.mean():.1%})",
        f"  {'cohort':>8}{'units':>8}{'treated rows':>14}",
        *(f"  {g:>8.0f}{n:>8,}{rows.get(g, 0):>14,}" for g, n in zip(cohorts, sizes, strict=True)),
        f"  {'never':>8}{never.sum():>8,}{0:>14}",
    ]
    return "\n".join(lines)


def describe_group(panel: Panel, group: Factor) -> str:
    """Levels of a group and treated units in them; of many levels, the largest and the smallest."""
    adopters = np.unique(panel.unit[panel.treated])
    units = np.bincount(group.code, minlength=len(group.levels))
    treated = np.bincount(group.code[adopters], minlength=len(group.levels))
    order = np.lexsort((-units, -treated))
    without = (treated == 0).sum()
    lines = [
        f"Group {group.name}: {count(len(group.levels), 'level')}; treated units a level: "
        f"median {np.median(treated):g}, {(treated == 1).sum():,} with one, "
        f"{without:,} without (no effect of their own)"
    ]
    names = [shown(level) for level in group.levels]
    width = max(8, *(len(name) for name in names)) + 2
    lines.append(f"  {'level':<{width}}{'units':>8}{'treated':>9}")
    order = order[treated[order] > 0] if len(order) > 2 * SHOWN else order
    skipped = len(order) - 2 * SHOWN
    for place, k in enumerate(order):
        if skipped > 0 and SHOWN <= place < SHOWN + skipped:
            if place == SHOWN:
                lines.append(f"  ... {count(skipped, 'level')} between ...")
            continue
        lines.append(f"  {names[k]:<{width}}{units[k]:>8,}{treated[k]:>9,}")
    return "\n".join(lines)


def shown(label: str) -> str:
    """A label on one line, cut where it is long."""
    plain = " ".join(label.split())
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


def describe_exposures(panel: Panel, exposures: dict[str, np.ndarray]) -> str:
    """Distribution of each exposure among untreated and treated rows."""
    width = max(8, *(len(name) for name in exposures)) + 2
    heads = ("rows", "mean", "sd", "25%", "50%", "75%", "max", "zero")
    lines = ["Exposures", f"  {'':<{width}}{'':<10}" + "".join(f"{head:>9}" for head in heads)]
    for name, share in exposures.items():
        for label, rows in (("untreated", ~panel.treated), ("treated", panel.treated)):
            s = share[rows]
            numbers = [s.mean(), s.std(), *np.quantile(s, [0.25, 0.5, 0.75]), s.max()]
            cells = "".join(f"{number:>9.4f}" for number in numbers)
            lines.append(f"  {name:<{width}}{label:<10}{len(s):>9,}{cells}{(s == 0).mean():>9.1%}")
    return "\n".join(lines)


def describe_weights(weight: np.ndarray) -> str:
    """Spread of the weights, and how many rows of equal weight they are worth (Kish 1965)."""
    effective = weight.sum() ** 2 / (weight**2).sum()
    return (
        f"Weights: from {weight.min():.3g} to {weight.max():.3g} (mean 1), sd {weight.std():.3g}; "
        f"as good as {effective:,.0f} of {len(weight):,} rows of equal weight"
    )


def describe_zeros(panel: Panel, transform: str) -> str:
    """How an effect on log(1 + y) or asinh(y) moves with the unit of y, where many y are 0; empty where few are.

    Where adoption changes whether there is any event, the effect can be made as large as one likes by the choice of the
    unit (Chen & Roth 2024).
    """
    from src.frequentist import twfe

    if transform not in BACK:
        return ""
    y = BACK[transform](panel.outcome)
    zeros = float((np.abs(y) < ZERO).mean())
    if zeros < MANY_ZEROS:
        return ""
    moved = {k: replace(panel, outcome=TRANSFORMS[transform](k * y)) for k in (1, 10, 100)}
    effects = {k: twfe(other, {}, 0.95)["estimate"].iloc[0] for k, other in moved.items()}
    said = ", ".join(f"{effect:.3f} with {'y as it is' if k == 1 else f'y x {k}'}" for k, effect in effects.items())
    return (
        f"Zeros: {zeros:.0%} of the outcomes are 0, so the effect on {transform} moves with the unit of y\n"
        f"  two-way fixed effects, log points: {said}\n"
        "  counts can be modelled as they are: data.transform=none likelihood=poisson_lognormal"
    )


def check(config: Config) -> int:
    """Validate the panel that the settings name and print its description; nothing is sampled or written.

    Whatever `src.fit` would refuse before sampling is refused here too.
    """
    from src.collapse import collapse
    from src.design import build_design
    from src.errors import Errors
    from src.fit import counts_events, load

    panel, shares, notes = load(config)
    regression, left_out = build_design(panel, shares)
    errors = Errors(scale="none", events=True) if counts_events(config.likelihood) else Errors()
    notes = [*notes, *left_out, *collapse(regression, errors).notes]
    print(describe(replace(panel, notes=tuple(notes)), shares))
    if zeros := describe_zeros(panel, config.data.transform):
        print(f"\n{zeros}")
    return 0


if __name__ == "__main__":
    command(check, writes=False)
