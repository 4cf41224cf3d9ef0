"""Where should the next adopters be? `python -m src.target traces/<run> slots=100`.

    run ─▶ panel, design, collapse as in src.fit ─▶ own effects of newcomers, exposures if they adopt ─▶ gain of any set
        ─▶ rules compared on the same draws ─▶ targets.csv, rules.csv, cells.csv, target.png

For a set A of units that never adopted, and adoption in the period after the last, the gain is the sum over all units
present of what A changes of their outcomes, on average over event times 0 to `horizon`:

    gain(A) = sum over i in A of own_i(A) + sum over others j of (S_j(A) - S_j(0))'delta

own_i is the effect of adoption by a unit of i's groups and traits (src.newcomers), with the exposures that it then has;
S_j(A) the exposure of j if A adopts (src.hypothesis); delta the slopes of the untreated or, where j has adopted,
of the treated. Rules, quotas, costs and what is said of them: src.allocation.

    random   every candidate alike, the mean of `shuffles` sets
    today    those most like today's adopters, by a logistic regression of ever adopting (src.selection)
    own      largest expected effect of own adoption
    total    largest expected gain, spillovers included

Assumes that new adopters are exchangeable with today's, given their cell and traits; that nothing else moves with the
number of adopters (no general equilibrium); that others are reached through the exposures of the run alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.command import UserError, command, with_run
from src.config import Config, DataConfig, TargetConfig, exposure_entries
from src.kept import folder_of_run, recollapsed, settings_of
from src.panel import Panel, count, some

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.table import Table

    from src.allocation import Limits, Prospect
    from src.collapse import Collapsed

ASSUMES = (
    "assumes: new adopters are like today's of the same cell; no general equilibrium; others are reached through the "
    "exposures alone"
)
RULES = [
    *["rule", "limits", "chosen", "cost", "gain", "sd", "low", "high", "own", "spill", "total", "total_low"],
    *["total_high", "percent_of_all", "p_beats_today", "regret", "extrapolated", "prob", "note"],
]
MOST_CELLS = 12  # printed


@dataclass(frozen=True)
class Rule:
    """What a rule chooses under some limits, and draws of what that gains, summed over units.

    Attributes
    ----------
    name, limits : str
    sets : list of array of int
        Positions among the candidates.
    expected, realised, spill : array, shape (draw,)
        Mean over the sets.
    best : array, shape (draw,)
        Gain of the best set under these limits, if the draw were the truth.
    """

    name: str
    limits: str
    sets: list[np.ndarray]
    expected: np.ndarray
    realised: np.ndarray
    spill: np.ndarray
    best: np.ndarray

    @property
    def chosen(self) -> float:
        """Number of units, on average over the sets."""
        return float(np.mean([len(one) for one in self.sets]))


@dataclass(frozen=True)
class Found:
    """All that is written.

    Attributes
    ----------
    targets, rules, cells : DataFrame
    unit : str
        Of gains, in words.
    notes : list of str
    """

    targets: pd.DataFrame
    rules: pd.DataFrame
    cells: pd.DataFrame
    unit: str
    notes: list[str]


def target(config: TargetConfig) -> int:
    """Compare the rules and write the folder."""
    from src import trace
    from src.targetfigure import draw
    from src.terminal import console

    folder = folder_of_run(config.run, "python -m src.target traces/<data>/<model>/<run_id> slots=100")
    run = settings_of(folder)
    tree = trace.load(folder / "posterior.nc")
    collapsed, said = rebuilt(run, tree.attrs)
    rng = np.random.default_rng([config.seed, 11])
    prospect = prospect_from(run, config, collapsed, tree["posterior"].to_dataset(), rng)
    found = compared(run, config, prospect, rng)
    found = replace(found, notes=[*said, *found.notes])
    place = Path(config.folder).expanduser() if config.folder else folder / "target"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("targets", "rules", "cells"):
        trace.write(getattr(found, name).to_csv(index=False), place / f"{name}.csv")
    draw(found.rules, found.cells, heading(run, config, prospect), found.unit, place / "target.png")
    out = console()
    out.print(ASSUMES)
    out.print(printed_rules(found.rules, heading(run, config, prospect), found.unit))
    out.print(printed_cells(found.cells, found.unit, config.prob))
    for note in found.notes:
        out.print(f"  · {note}", soft_wrap=True)
    for file in ("targets.csv", "rules.csv", "cells.csv", "target.png"):
        out.print(f"  {place / file}", soft_wrap=True)
    return 0


def rebuilt(run: Config, attributes: dict) -> tuple[Collapsed, list[str]]:
    """The columns and the errors of a run, and what is to be said of them.

    Raises
    ------
    UserError
        A run that says nothing about new adopters, or whose data have changed.
    """
    if getattr(run.model, "beside", ""):
        raise UserError(
            f"model={run.model.name} is of several outcomes: where the next adopters should be is asked of "
            "one at a time, of a run of model=hier"
        )
    if run.model.name == "nopool":
        raise UserError("model=nopool has an effect for each cell of today's adopters and says nothing of new ones: "
                        "fit with model=hier or model=pooled")  # fmt: skip
    collapsed, said = recollapsed(run, attributes)
    if not np.isinf(collapsed.regression.panel.cohort).any():
        raise UserError("every unit has adopted or has a date of adoption: nobody is left to be chosen")
    return collapsed, said


def prospect_from(
    run: Config, config: TargetConfig, collapsed: Collapsed, posterior: xr.Dataset, rng: np.random.Generator
) -> Prospect:
    """What adoption by any set of candidates would change, draw by draw.

    Parameters
    ----------
    run : Config
        Of the run.
    config : TargetConfig
    collapsed : Collapsed
    posterior : Dataset
        In units of the outcome: theta over labelled columns, spreads, slopes and deviations.
    rng : Generator

    Raises
    ------
    PanelError
    """
    from src.allocation import prospect_of
    from src.design import standardised
    from src.hypothesis import hypothesis_of, responses_of
    from src.newcomers import draws_of, newcomers

    regression = collapsed.regression
    entries = exposure_entries(run.data)
    names = (*regression.exposures, *([regression.surface.name] if regression.surface is not None else []))
    hypothesis = hypothesis_of(regression.panel, entries, names, config.horizon, config.recent)
    draws = draws_of(posterior, regression, config.draws)
    height = collapsed.nuisance.log_scale if collapsed.levels is None else collapsed.levels.height
    trait = standardised(height, regression.adopters)
    terms = terms_of(run, config, collapsed)
    others = newcomers(draws, regression, terms, trait, hypothesis.candidates, hypothesis.event_times, rng)
    return prospect_of(hypothesis, regression, others, responses_of(hypothesis, regression), draws.theta)


def terms_of(run: Config, config: TargetConfig, collapsed: Collapsed):
    """What the model of a run says about adopters."""
    from src.elicit import with_spread
    from src.fit import has_units, priors_of
    from src.newcomers import Terms

    regression, s = collapsed.regression, collapsed.s
    design, priors = regression.design, with_spread(run.prior, priors_of(run), collapsed)
    if run.model.name == "pooled":
        return Terms((), False, False, "normal", priors, s)
    pooled = (
        *design.groups,
        *(design.interactions if run.model.interactions else ()),
        *(f"{name}_late" for name in design.groups if run.model.late and f"{name}_late" in design.blocks),
    )
    cohorts = config.new_cohort == "drawn" and design.blocks["cohort"].size > 1
    integrated = collapsed.nuisance.own * s if regression.integrated else float("nan")
    return Terms(pooled, has_units(run), cohorts, run.model.tails, priors, s, integrated)


def compared(run: Config, config: TargetConfig, prospect: Prospect, rng: np.random.Generator) -> Found:
    """All rules under all limits, and the candidates and cells by their gain."""
    from src.allocation import cell_means, cells_on_top, top_probability
    from src.newcomers import cells_of_candidates

    candidates = len(prospect.own[0])
    if config.slots > candidates:
        raise UserError(f"slots={config.slots} is more than the {count(candidates, 'candidate')}: give fewer")
    rules = list(all_rules(run, config, prospect, rng))
    top = top_probability(prospect.total, config.slots, rng)
    targets = table_of_targets(run, config, prospect, rules, top)
    cell, _ = cells_of_candidates(prospect.regression, prospect.hypothesis.candidates)
    names, code = np.unique(cell, return_inverse=True)
    means = cell_means(prospect.total, code)
    sure = cells_on_top(means, np.bincount(code), config.slots, rng)
    cells = table_of_cells(targets, names, means + prospect.newcomers.cohort[:, None], sure, config.prob)
    notes = notes_on(run, prospect)
    return Found(targets, table_of_rules(config, prospect, rules, targets, run), cells, unit_of(run, prospect), notes)


def all_rules(run: Config, config: TargetConfig, prospect: Prospect, rng: np.random.Generator) -> Iterator[Rule]:
    """Every rule under every kind of limits that was asked for."""
    from src.allocation import RULES as NAMES
    from src.allocation import best_of_draws, sets_of
    from src.selection import propensity

    panel, candidates = prospect.regression.panel, prospect.hypothesis.candidates
    score = propensity(panel)[candidates]
    for name, limits in kinds_of_limits(run, config, panel, candidates, score):
        chosen = {rule: sets_of(rule, prospect, score, limits, config.shuffles, rng) for rule in NAMES}
        if not all(len(one) for sets in chosen.values() for one in sets):
            raise UserError(f"{name} leave room for nobody: raise quotas or budget")
        best = best_of_draws(prospect, limits, rng)
        found = [rule_of(prospect, rule, name, sets, best) for rule, sets in chosen.items()]
        best = np.max([best, *(rule.expected for rule in found)], axis=0)
        yield from (replace(rule, best=best) for rule in found)


def rule_of(prospect: Prospect, name: str, limits: str, sets: list[np.ndarray], best: np.ndarray) -> Rule:
    """Draws of the gain of the sets of a rule."""
    of_sets = [(prospect.expected(one), prospect.realised(one), prospect.spill(one)) for one in sets]
    expected, realised, spill = np.mean(of_sets, axis=0)
    return Rule(name, limits, sets, expected, realised, spill, best)


def kinds_of_limits(
    run: Config, config: TargetConfig, panel: Panel, candidates: np.ndarray, score: np.ndarray
) -> Iterator[tuple[str, Limits]]:
    """Slots alone; then with quotas, with costs, with both, where they were given.

    Where there are costs and no budget, the budget is what today's rule would spend under the same quotas.

    Raises
    ------
    UserError
    """
    from src.allocation import Limits, taken

    ones, nothing = np.ones(len(candidates)), np.zeros((0, len(candidates)), dtype=int)
    free = Limits(config.slots, nothing, [], ones)
    level, most = quotas_of(run.data, config, panel, candidates)
    cost = costs_of(run.data, config, panel, candidates)
    limited = replace(free, level=level, most=most)
    yield "", free
    if most:
        yield "quotas", limited
    if cost is None:
        return
    for name, limits in (("costs", free), *((("quotas and costs", limited),) if most else ())):
        today = taken(np.argsort(-score, kind="stable"), limits)
        yield name, replace(limits, cost=cost, budget=config.budget or float(cost[today].sum()))


def quotas_of(
    data: DataConfig, config: TargetConfig, panel: Panel, candidates: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Level of each candidate by which each quota counts, and how many of each level there may be.

    Raises
    ------
    UserError
    """
    import pandas as pd

    given = {} if config.quotas is None else config.quotas
    whole = isinstance(given, dict) and all(type(quota) is int and quota >= 1 for quota in given.values())
    if not whole:
        raise UserError(
            f"quotas={given} is no dictionary of whole numbers above 0; give one as in 'quotas={{ownership: 60}}'"
        )
    levels, most = [], []
    for name, quota in {str(name): quota for name, quota in given.items()}.items():
        if name in panel.groups:
            of_unit = panel.groups[name].code
        else:
            of_unit = pd.factorize(column_of(data, panel, name, "quotas"), sort=True)[0]
        level = of_unit[candidates]
        if (level < 0).any():
            raise UserError(f"quotas: {name} is missing for {count((level < 0).sum(), 'candidate')}: fill it in")
        levels.append(level)
        most.append(np.full(of_unit.max() + 1, quota))
    return np.array(levels, dtype=int).reshape(len(levels), len(candidates)), most


def costs_of(data: DataConfig, config: TargetConfig, panel: Panel, candidates: np.ndarray) -> np.ndarray | None:
    """Cost of each candidate, None where costs do not matter.

    Raises
    ------
    UserError
        Costs that are missing or not above zero, or a budget without costs.
    """
    from src.read import numbers

    if config.cost is None:
        if config.budget is not None:
            raise UserError("budget needs costs: give the column of costs per unit, as in cost=price")
        return None
    cost = numbers(column_of(data, panel, config.cost, "cost"))[candidates]
    wrong = ~(np.isfinite(cost) & (cost > 0))
    if wrong.any():
        who = some(panel.units[candidates[wrong]])
        raise UserError(
            f"cost: {config.cost} is missing or not above 0 for {count(wrong.sum(), 'candidate')} ({who}): give every "
            "unit what its adoption costs"
        )
    return cost


def column_of(data: DataConfig, panel: Panel, name: str, setting: str) -> pd.Series:
    """A column of the data, of each unit of the panel the last value that is not missing.

    Raises
    ------
    UserError
        There is no such column.
    """
    from src import synthetic
    from src.config import SyntheticConfig
    from src.indices import derived
    from src.read import labels, numbers, read

    frame = synthetic.draw(data).frame if isinstance(data, SyntheticConfig) else derived(read(data)[0], data)[0]
    if name not in frame:
        raise UserError(f"{setting} names {name}, which is no column of the data: they have {some(list(frame), 40)}")
    rows = frame.assign(unit_=labels(frame[data.unit]), time_=numbers(frame[data.time]))
    return rows.sort_values("time_", kind="stable").groupby("unit_")[name].last().reindex(list(panel.units))


def table_of_targets(
    run: Config, config: TargetConfig, prospect: Prospect, rules: list[Rule], top: np.ndarray
) -> pd.DataFrame:
    """One row a candidate, from the largest expected gain to the smallest."""
    import pandas as pd

    from src.newcomers import cells_of_candidates

    panel, who, others = prospect.regression.panel, prospect.hypothesis.candidates, prospect.newcomers
    cell, strange = cells_of_candidates(prospect.regression, who)
    apart = others.unit + others.cohort[:, None]
    found = {"unit": panel.units[who]}
    found |= {name: np.array(of.levels)[of.code[who]] for name, of in panel.groups.items()}
    found["cell"] = cell
    if config.cost is not None:
        found["cost"] = costs_of(run.data, config, panel, who)
    for name, draws in (("own", prospect.own), ("total", prospect.total)):
        found |= {f"{name}_{part}": value for part, value in interval(draws + apart, config.prob).items()}
        found[f"{name}_mean"] = draws.mean(axis=0)  # what sets it apart has mean zero
    found["spill_mean"] = found["total_mean"] - found["own_mean"]
    if in_logs(run, panel):
        found["own_percent"] = 100 * np.expm1(found["own_mean"])
    found["rank"] = pd.Series(-found["total_mean"]).rank(method="min").astype(int).to_numpy()
    found["p_top"] = top
    found["extrapolated"] = strange
    unseen = {term: new for term, new in others.unseen.items() if new.any()}
    found["unseen"] = ["; ".join(term for term, new in unseen.items() if new[i]) for i in range(len(who))]
    chosen: list[list[str]] = [[] for _ in who]
    for rule in rules:
        for i in rule.sets[0] if rule.name != "random" else ():
            chosen[i].append(named(rule.name, rule.limits))
    found["chosen_by"] = ["; ".join(names) for names in chosen]
    return pd.DataFrame(found).sort_values(["rank", "unit"], ignore_index=True)


def table_of_rules(
    config: TargetConfig, prospect: Prospect, rules: list[Rule], targets: pd.DataFrame, run: Config
) -> pd.DataFrame:
    """One row a rule and kind of limits; gains a chosen unit and period, totals over all units and periods."""
    import pandas as pd

    from src.allocation import share_better

    panel, who = prospect.regression.panel, prospect.hypothesis.candidates
    strange = targets.set_index("unit")["extrapolated"].loc[panel.units[who]].to_numpy()
    cost = costs_of(run.data, config, panel, who)
    periods, present = len(prospect.hypothesis.periods), len(prospect.hypothesis.present)
    today = {rule.limits: rule for rule in rules if rule.name == "today"}
    found = []
    for rule in rules:
        each = interval(rule.realised[:, None] / rule.chosen, config.prob)
        spill = rule.spill.mean() / rule.chosen
        mean = rule.expected.mean() / rule.chosen
        beats = np.nan if rule.name == "today" else share_better(rule.realised, today[rule.limits].realised)
        found.append(
            {
                "rule": rule.name,
                "limits": rule.limits,
                "chosen": rule.chosen,
                "cost": np.nan if cost is None else np.mean([cost[one].sum() for one in rule.sets]),
                "gain": mean,
                "sd": each["sd"][0],
                "low": each["low"][0],
                "high": each["high"][0],
                "own": mean - spill,
                "spill": spill,
                "total": mean * rule.chosen * periods,
                "total_low": each["low"][0] * rule.chosen * periods,
                "total_high": each["high"][0] * rule.chosen * periods,
                "percent_of_all": 100 * np.expm1(rule.expected.mean() / present) if in_logs(run, panel) else np.nan,
                "p_beats_today": beats,
                "regret": (rule.best - rule.expected).mean() / config.slots,
                "extrapolated": np.mean([strange[one].mean() for one in rule.sets]),
                "prob": config.prob,
                "note": note_on(rule, config),
            }
        )
    return pd.DataFrame(found, columns=RULES)


def note_on(rule: Rule, config: TargetConfig) -> str:
    """What is to be said of a rule."""
    parts = [f"mean of {count(len(rule.sets), 'random set')}"] if rule.name == "random" else []
    if rule.chosen < config.slots:
        parts.append(f"limits leave {rule.chosen:.4g} of {count(config.slots, 'slot')} filled")
    return "; ".join(parts)


def table_of_cells(
    targets: pd.DataFrame, names: np.ndarray, means: np.ndarray, sure: np.ndarray, prob: float
) -> pd.DataFrame:
    """One row a combination of levels, from the largest expected gain to the smallest."""
    import pandas as pd

    grouped = targets.groupby("cell")
    first = grouped.first().loc[names]
    groups = list(targets.columns[1 : list(targets).index("cell")])
    found = pd.DataFrame({"cell": names} | {name: first[name].to_numpy() for name in groups})
    found["candidates"] = grouped.size().loc[names].to_numpy()
    spread = interval(means, prob)
    found["gain"] = grouped["total_mean"].mean().loc[names].to_numpy()
    found["own"] = grouped["own_mean"].mean().loc[names].to_numpy()
    found["spill"] = found["gain"] - found["own"]
    found = found.assign(low=spread["low"], high=spread["high"], prob=prob, p_top=sure)
    found["extrapolated"] = first["extrapolated"].to_numpy()
    return found.sort_values(["gain", "cell"], ascending=[False, True], ignore_index=True)


def interval(draws: np.ndarray, prob: float) -> dict[str, np.ndarray]:
    """SD and equal-tailed interval of draws of shape (draw, what)."""
    low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    return {"sd": draws.std(axis=0, ddof=1), "low": low, "high": high}


def in_logs(run: Config, panel: Panel) -> bool:
    """Whether effects are log points, of the outcome or of the mean of a count."""
    from src.fit import counts_events

    return panel.is_log or counts_events(run.likelihood)


def unit_of(run: Config, prospect: Prospect) -> str:
    """What gains are measured in, in words."""
    from src.fit import counts_events

    if counts_events(run.likelihood):
        return "log points of the expected count"
    return "log points" if prospect.regression.panel.is_log else "units of the outcome"


def notes_on(run: Config, prospect: Prospect) -> list[str]:
    """What the gains rest on, a line each."""
    from src.fit import counts_events

    regression, others = prospect.regression, prospect.newcomers
    notes = []
    new = {term: of for term, of in others.unseen.items() if of.any()}
    if new:
        which = ", ".join(f"{term} ({count(of.sum(), 'candidate')})" for term, of in new.items())
        notes.append(f"levels without a treated row, drawn from the distribution of the others: {which}")
    flat = [name for name, told in zip(regression.exposures, regression.frame.told, strict=True) if not told]
    if flat:
        notes.append(f"the slope of {some(flat)} on the untreated is not identified and counts as zero here")
    if not prospect.responses.linear:
        notes.append("only the nearest adopter is felt: the rule by total effect goes by gains of candidates alone")
    if counts_events(run.likelihood):
        notes.append("gains add up proportional effects: a unit with few events counts as much as one with many")
    if not np.all(regression.panel.weight == 1):
        notes.append("sampling weights are left aside: every unit counts once")
    return notes


def heading(run: Config, config: TargetConfig, prospect: Prospect) -> str:
    """What was asked, in one line."""
    hypothesis = prospect.hypothesis
    return (
        f"{run.data.name}, {run.model.name}: {count(config.slots, 'slot')} among "
        f"{count(len(hypothesis.candidates), 'candidate')}, adoption in {hypothesis.periods[0]}, mean of "
        f"{hypothesis.periods[0]} to {hypothesis.periods[-1]}"
    )


def named(rule: str, limits: str) -> str:
    """Name of a rule under limits."""
    return f"{rule}, {limits}" if limits else rule


def grid(title: str, heads: list[str]) -> Table:
    """An empty table for a person."""
    from rich import box
    from rich.table import Table

    found = Table(
        title=title,
        title_justify="left",
        min_width=title_width(title),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    found.add_column("", no_wrap=True)
    for name in heads:
        found.add_column(name, justify="right", no_wrap=True)
    return found


def title_width(title: str) -> int:
    """Characters of the longest line, so that a narrow table does not break it."""
    return max(len(line) for line in title.splitlines())


def printed_rules(table: pd.DataFrame, title: str, unit: str) -> Table:
    """The rules for a person."""
    heads = ["chosen", "gain", f"{table['prob'].iloc[0]:.0%} interval", "own", "spill", "P(beats today)", "regret"]
    found = grid(f"{title}\ngain a chosen unit and period, {unit}", [*heads, "extrapolated"])
    for row in table.to_dict("records"):
        beats = "" if np.isnan(row["p_beats_today"]) else f"{row['p_beats_today']:.2f}"
        numbers = [f"{row['gain']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", f"{row['own']:.3f}"]
        numbers += [f"{row['spill']:.3f}", beats, f"{row['regret']:.3f}", f"{row['extrapolated']:.0%}"]
        found.add_row(named(row["rule"], row["limits"]), f"{row['chosen']:.4g}", *numbers)
    return found


def printed_cells(table: pd.DataFrame, unit: str, prob: float) -> Table:
    """The first cells for a person."""
    title = f"cells by gain of a candidate alone, {unit} ({min(MOST_CELLS, len(table))} of {len(table)})"
    found = grid(title, ["candidates", "gain", f"{prob:.0%} interval", "P(top)", ""])
    for row in table.head(MOST_CELLS).to_dict("records"):
        strange = "nobody treated" if row["extrapolated"] else ""
        numbers = [f"{row['gain']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", f"{row['p_top']:.2f}", strange]
        found.add_row(row["cell"], str(row["candidates"]), *numbers)
    return found


def main() -> None:
    """Run the command."""
    sys.argv[1:] = with_run(sys.argv[1:])
    command(target, config_name="target")


if __name__ == "__main__":
    main()
