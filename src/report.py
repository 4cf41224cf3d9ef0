"""The run as one self-contained HTML page: worst news first, then the answers in plain words, then the evidence."""

from __future__ import annotations

import argparse
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src import further
from src.compare import is_fixed, keyed, readable_scale, unequal_weights, what_is_fixed, with_twins
from src.design import Regression
from src.diagnose import doubts, errors_in_words
from src.figure import ARMS, MEANING
from src.panel import Panel
from src.scrutiny import Scrutiny
from src.spillover import PER_SD

CAPTIONS = {
    "subgroups": "Effect on adopters in each subgroup. Partial pooling draws small subgroups towards the others.",
    "event_study": "Effect on adopters by time since adoption, over the number of units behind each estimate.",
    "spillovers": "What others' adoption does: slope of each exposure, and totals over the rows of the data.",
    "distances": "What one adopter does to an untreated unit at a distance that no other reaches.",
    "comparison": "Every estimator of the same estimand: one row an estimand, one mark an estimator.",
    "weights": "Weights of the two-way fixed effects coefficient on effects, and the comparisons that it is made of.",
    "sensitivity": "The average effect where parallel trends may fail, by how far.",
    "predictive": "Data drawn from the model beside those that were seen: where they lie apart, it does not fit.",
    "channels": "The indirect effect through each mediator, by how far that mediator may be confounded.",
    "trace": "The sampler's chains: they agree where traces overlap and ranks are flat.",
}
MARGINS = {
    "att_any": "own adoption, on the probability of any event (att_any)",
    "att_given_any": "own adoption, on the mean where there is any (att_given_any)",
}
SUBJECTS = {
    "agreement": "Does the classical answer agree?",
    "weights": "What does two-way fixed effects average?",
    "trends": "What if trends were not parallel?",
    "replicates": "Does the model produce such data?",
    "before": "What was believed before the data?",
    "prior": "How much does the prior say?",
    "channels": "Through which channels?",
    "asked": "What has been asked of it since?",
}
IGNORABILITY = (
    "Sequential ignorability",
    "Given units, periods, covariates and adoption, a mediator is as good as random: nothing unseen moves a mediator "
    "and the outcome of a unit in the same period. Its slope is the same with and without adoption, and no mediator "
    "causes another.",
)
ABSENT = "–"
SPILLS = ("spill_per_pp", "spill_at")


def render(
    data: str,
    model: str,
    regression: Regression,
    table: pd.DataFrame,
    beside: Scrutiny,
    diagnostics: dict,
    pictures: list[Path],
    origin: Origin,
) -> str:
    """The page, with its figures inside.

    Parameters
    ----------
    data, model : str
        Names in the title.
    regression : Regression
        As read, for the facts about the data.
    table : DataFrame
        Columns of `estimands.csv`.
    beside : Scrutiny
    diagnostics : dict
        From `diagnose.diagnose`, with `nuisance` and `notes`.
    pictures : list of Path
        PNG files.
    origin : Origin

    Returns
    -------
    str
        HTML without scripts and without anything to fetch. Levels, names and notes are escaped.
    """
    scale, comparison = readable_scale(table), beside.comparison
    everything = with_twins(table, comparison, scale)
    fixed = is_fixed(everything)
    rows = everything[~fixed]
    exposures = list(dict.fromkeys(rows.loc[rows["estimand"].isin(SPILLS), "group"]))
    notes: dict[str, int] = {}
    sections = [
        (title, [cells(row, decimals((part["high"] - part["low"]).median()), notes) for _, row in part.iterrows()])
        for title, part in split(rows[~further.is_further(rows)])
        if len(part)
    ]
    beyond = pd.concat([everything, *([with_twins(table, comparison, "outcome")] if scale != "outcome" else [])])
    for title, part in further.sections(beyond.reset_index(drop=True), scale):
        listed = [(row, decimals(row["high"] - row["low"])) for _, row in part.iterrows()]
        if listed:
            mine = [cells(row, places, notes) | {"label": further.label(row, scale)} for row, places in listed]
            sections.append((title, mine))
    folder = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("report.html.jinja").render(
        data=data,
        model=model,
        mass=mass(everything),
        unit="percent" if scale == "percent" else "units of the outcome",
        problems=diagnostics["problems"],
        passed=passed(diagnostics),
        cautions=[*beside.said.get("warnings", ()), *cautions(rows, comparison, diagnostics["nuisance"])],
        answers=list(answers(rows, beside, scale, model, list(in_events(table)))),
        assumptions=[
            *assumptions(regression.panel, exposures, diagnostics["nuisance"]),
            *(IGNORABILITY for _ in beside.said.get("channels", ())[:1]),
        ],
        sections=sections,
        has_truth=bool(rows["truth"].notna().any()),
        notes=list(notes),
        fixed=what_is_fixed(int(fixed.sum())),
        short=in_short(rows, beside, scale),
        figures=[pictured(path, table, beside, scale) for path in pictures],
        command=origin.command,
        citation=origin.citation(data, model),
        origin=origin.facts,
        questions=list(questions(origin)),
        facts=facts(regression, exposures),
        handled=diagnostics["notes"],
        checks=checks(diagnostics),
    )


@dataclass(frozen=True)
class Origin:
    """Where a run comes from.

    Attributes
    ----------
    command : str
        That runs it again.
    run : str
    version : str
        Of hierdid.
    facts : list of (str, str)
        Settings and versions of libraries.
    folder : str
    alone : bool
        Of a single outcome.
    events : bool
        The outcome is a count.
    prior : str
        Name of the prior.
    """

    command: str
    run: str
    version: str
    facts: list[tuple[str, str]]
    folder: str
    alone: bool
    events: bool
    prior: str

    def citation(self, data: str, model: str) -> str:
        """How to cite the run."""
        return (
            f"hierdid {self.version}: hierarchical Bayesian difference-in-differences for staggered adoption with "
            f"spillovers. Model {model} of {data}, run {self.run}."
        )


def questions(origin: Origin) -> Iterator[tuple[str, str]]:
    """What else can be asked of a run: commands, and what each of them tells."""
    words = origin.command.removeprefix("python -m src.fit").split(" ")
    typed = " ".join(word for word in words if word and not word.startswith("refit="))
    if origin.alone:
        yield f"python -m src.prior {typed}".rstrip(), "what was believed before the data, and why, scale by scale"
    prior = "" if any(word.startswith("prior=") for word in words) else f"prior={origin.prior} "
    yield (
        f"python -m src.calibrate around=posterior {prior}{typed}".rstrip(),
        "whether draws, fitted again, are found again: simulation-based calibration around these data",
    )
    if origin.alone and not origin.events:
        yield f"python -m src.loo {origin.folder}", "how well units are predicted by the others, beside other models"
    yield f"python -m src.export {origin.folder}", "draws and tables for R, Stata and others"
    yield (
        f"python -m src.report {origin.folder}",
        "this page anew, with what src.calibrate and src.loo have found since",
    )


def in_short(rows: pd.DataFrame, beside: Scrutiny, scale: str) -> list[str]:
    """The answer in at most three sentences: the average, for whom, and whether classical estimates agree."""
    sentences = []
    att = identified(rows, "att")
    if len(att):
        row = att.iloc[0]
        sentences.append(f"Own adoption is estimated to have changed the outcome of adopters by {said(row, scale)}.")
    others = identified(rows, "spill_control")
    if len(others):
        sentences.append(
            f"Others' adoption changed that of exposed units that did not adopt by {said(others.iloc[0], scale)}."
        )
    else:
        sentences += list(among_groups(rows, scale))[:1]
    agreement = beside.said.get("agreement", ())
    assumed = list(beside.said.get("channels", ())[:1])  # before all else
    return [*assumed, *[*sentences, *agreement[:1]][:3]]


def among_groups(rows: pd.DataFrame, scale: str) -> Iterator[str]:
    """How the effect differs between the levels of each group."""
    by = identified(rows, "att_by")
    by = by[~by["group"].str.contains(":", regex=False)]
    for group, part in by.groupby("group", sort=False):
        yield from among(str(group), part, rows, scale)


def pictured(path: Path, table: pd.DataFrame, beside: Scrutiny, scale: str) -> dict:
    """A figure with its caption and the numbers that it shows."""
    head, rows = numbers(path.stem, keyed(table), beside, scale)
    data = b64encode(path.read_bytes()).decode()
    return {"caption": CAPTIONS.get(path.stem, path.stem), "data": data, "head": head, "rows": rows}


def numbers(name: str, table: pd.DataFrame, beside: Scrutiny, scale: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows, as text, of the table under a figure; empty where it needs none."""
    here = table[table["scale"] == scale]
    comparison = keyed(beside.comparison)
    comparison = comparison[comparison["scale"] == scale]
    chosen: dict[str, tuple[pd.DataFrame, list[str]]] = {
        "subgroups": (here[here["estimand"] == "att_by"], ["group", "level", "mean", "low", "high", "n_units"]),
        "event_study": (
            here[here["estimand"].isin(["lead", "att_event"])],
            ["level", "mean", "low", "high", "n_units"],
        ),
        "spillovers": (
            here[here["estimand"].isin(["spill_per_pp", *MEANING])],
            ["estimand", "group", "level", "mean", "low", "high"],
        ),
        "distances": (here[here["estimand"] == "spill_at"], ["level", "mean", "low", "high", "n_units"]),
        "comparison": (
            comparison[comparison["estimand"].isin(["att", "att_cohort"])],
            ["estimand", "level", "estimator", "estimate", "low", "high"],
        ),
        "weights": (beside.tables.get("weights", pd.DataFrame()), ["cell", "weight", "share", "n_obs"]),
        "predictive": (
            beside.tables.get("predictive", pd.DataFrame()),
            ["kind", "statistic", "observed", "mean", "low", "high", "tail"],
        ),
        "trace": (
            here[here["estimand"].isin(["att", "contrast", "spill_per_pp", *MEANING])],
            ["estimand", "group", "level", "r_hat", "ess_bulk", "ess_tail"],
        ),
        "channels": (
            beside.tables.get("channels", pd.DataFrame()),
            ["mediator", "correlation", "mean", "low", "high", "p_positive"],
        ),
        "sensitivity": (
            beside.tables.get("sensitivity", pd.DataFrame()),
            ["method", "bound", "mean", "low", "high", "p_positive"],
        ),
    }
    frame, columns = chosen.get(name, (pd.DataFrame(), []))
    shown = frame[columns].itertuples(index=False) if len(frame) else ()
    return columns, [[cell(value) for value in row] for row in shown]


def cell(value: object) -> str:
    """A value of a table as text."""
    if isinstance(value, float):
        return ABSENT if np.isnan(value) else f"{value:,.4g}"
    return str(value)


def split(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of the page in sections, each with its title; estimates that nobody reads one by one are left out."""
    averages = ["att", *(name for name in MEANING if name != "direct")]
    yield "On average", rows[rows["estimand"].isin(averages) | (rows["estimand"].isin(MARGINS) & (rows["group"] == ""))]
    kinds = {
        "spill_per_pp": "Per step of exposure through {}: a percentage point, or an SD where a note says so",
        "spill_by": "Per step of exposure on the untreated, {}",
        "att_by": "On adopters, by {}",
        "contrast": "Differences between levels of {}",
    }
    for kind, title in kinds.items():
        single = ~rows["group"].str.contains(":", regex=False) | (kind == "spill_by")
        of_kind = rows[(rows["estimand"] == kind) & single]
        for group, part in of_kind.groupby("group", sort=False):
            ordered = part.sort_values("n_obs", ascending=False, kind="stable") if kind == "att_by" else part
            yield title.format(group), ordered
    events = rows[rows["estimand"].isin(["lead", "att_event"])]
    if len(events):
        yield "On adopters, by periods since adoption", events
    distances = rows[rows["estimand"] == "spill_at"]
    if len(distances):
        yield "On an untreated unit, of one adopter at a distance", distances


def cells(row: pd.Series, places: int, notes: dict[str, int]) -> dict[str, str | list[int]]:
    """One row of the table as text, to `places` decimals; its notes are numbered in `notes` as they appear."""
    mine = [note for note in (row["note"], row["note_classical"]) if isinstance(note, str) and note]
    known, twin = np.isfinite(row["mean"]), pd.notna(row["estimate"])
    return {
        "label": label(row),
        "marks": [notes.setdefault(note, len(notes) + 1) for note in mine],
        "mean": number(row["mean"], places) if known else "not identified",
        "interval": f"{number(row['low'], places)} to {number(row['high'], places)}" if known else "",
        "positive": probability(row["p_positive"]) if known else "",
        "truth": number(row["truth"], places),
        "units": f"{row['n_units']:,}",
        "rows": f"{row['n_obs']:,}",
        "classical": number(row["estimate"], places) if twin else "",
        "classical_interval": (
            f"{number(row['low_classical'], places)} to {number(row['high_classical'], places)}" if twin else ""
        ),
        "estimator": row["estimator"] if twin else "",
    }


def label(row: pd.Series) -> str:
    """An estimand within its section, in words."""
    if row["estimand"] == "att":
        return "own adoption, on adopters (att)"
    if row["estimand"] in MARGINS:
        return MARGINS[row["estimand"]]
    if row["estimand"] in MEANING:
        return MEANING[row["estimand"]].replace("\n", " ")
    return ARMS.get(row["level"], row["level"]) if row["estimand"] == "spill_per_pp" else row["level"]


def answers(
    rows: pd.DataFrame, beside: Scrutiny, scale: str, model: str, events_caused: list[str]
) -> Iterator[tuple[str, list[str]]]:
    """Questions and, from the numbers alone, their answers in sentences."""
    spills = rows[rows["estimand"].isin(SPILLS)]
    yield "What did adoption do to adopters?", [*on_average(rows, scale, exposed=len(spills) > 0), *events_caused]
    events = identified(rows, "att_event")
    if len(events):
        events = events.iloc[events["level"].astype(int).argsort()]
        ends = [
            f"at {row['level']} (seen on {row['n_units']:,} units) {said(row, scale)}" for _, row in events.iterrows()
        ]
        text = (
            f"By periods since adoption (0 is the first treated one): {'; '.join(dict.fromkeys((ends[0], ends[-1])))}."
        )
        yield "How did the effect unfold?", [text, "The figure has the whole path."]
    sentences = list(among_groups(rows, scale))
    if sentences:
        yield "For whom?", sentences
    yield "What did adoption do to the others?", on_others(rows, spills, scale)
    comparison = beside.comparison
    theirs = comparison[(comparison["scale"] == scale) & (comparison["estimand"] == "att")]
    theirs = theirs[~theirs["estimator"].str.startswith(model) & np.isfinite(theirs["estimate"])]
    if len(theirs):
        yield (
            "What do classical estimators say of the same average?",
            [classical(row, scale) for _, row in theirs.iterrows()],
        )
    for subject, question in SUBJECTS.items():
        if beside.said.get(subject):
            yield question, beside.said[subject]


def on_average(rows: pd.DataFrame, scale: str, exposed: bool) -> list[str]:
    """The average effect on the treated."""
    att = rows[rows["estimand"] == "att"].iloc[0]
    if not np.isfinite(att["mean"]):
        return [f"The average effect cannot be had from these data: {att['note']}."]
    where = ", at zero exposure, that is with nobody else adopting" if exposed else ""
    sentences = [
        f"On average over the {att['n_obs']:,} treated rows of {att['n_units']:,} units, own adoption is "
        f"estimated to have changed the outcome by {said(att, scale)}{where}.",
        f"Probability that this average is positive, given model and data: {probability(att['p_positive'])}.",
    ]
    if att["low"] < 0 < att["high"]:
        sentences.append("The interval holds zero: the data leave the sign open.")
    return sentences


def in_events(table: pd.DataFrame) -> Iterator[str]:
    """What own adoption caused in all, and whether it is more units with events or more events of those with any."""
    whole = table[table["group"].isna() & np.isfinite(table["mean"])].set_index(["estimand", "scale"])
    if ("total_events", "outcome") not in whole.index:
        return
    yield f"In all it caused {said(whole.loc[('total_events', 'outcome')], 'outcome')} events over the treated rows."
    chance = whole.loc[("att_any", "outcome")].copy()
    chance[["mean", "low", "high"]] *= 100
    given = said(whole.loc[("att_given_any", "percent")], "percent")
    yield (
        f"The probability of any event moved by {said(chance, 'outcome')} percentage points, the mean where there is "
        f"any by {given}."
    )


def among(group: str, part: pd.DataFrame, rows: pd.DataFrame, scale: str) -> Iterator[str]:
    """How the effect differs between the levels of one group."""
    if len(part) < 2:
        return
    ordered = part.sort_values("mean")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    sure = int(((part["low"] > 0) | (part["high"] < 0)).sum())
    yield (
        f"Over {len(part)} levels of {group}, posterior means run from {least['level']}, {said(least, scale)}, to "
        f"{most['level']}, {said(most, scale)}; {sure} of the {len(part)} intervals exclude zero."
    )
    contrasts = identified(rows, "contrast")
    contrasts = contrasts[contrasts["group"] == group]
    if len(contrasts) == 1:
        row, kind = contrasts.iloc[0], "relative difference" if scale == "percent" else "difference"
        verdict = "not told apart from zero" if row["low"] < 0 < row["high"] else "told apart from zero"
        yield f"The {kind} {row['level']} is {said(row, scale)}, {verdict}."
    elif len(part) > 2:
        yield "Levels whose intervals overlap widely are not told apart."


def on_others(rows: pd.DataFrame, spills: pd.DataFrame, scale: str) -> list[str]:
    """Spillovers on the untreated and on adopters."""
    if spills.empty:
        return ["Spillovers are not modelled: the estimates take it that nobody's outcome depends on others' adoption."]
    sentences = []
    slopes = spills[np.isfinite(spills["mean"]) & (spills["estimand"] == "spill_per_pp")]
    for exposure, part in slopes.groupby("group", sort=False):
        arms = {row["level"]: row for _, row in part.iterrows()}
        effects = [f"{ARMS[arm]} {said(arms[arm], scale)}" for arm in ("control", "treated") if arm in arms]
        step = "SD" if part["note"].astype(str).str.startswith(PER_SD).any() else "percentage point"
        sentences.append(f"One {step} more exposure by {exposure} means, {'; '.join(effects)}.")
        if "difference" in arms:
            gap = arms["difference"]
            verdict = "cannot be told apart" if gap["low"] < 0 < gap["high"] else "differ"
            sentences.append(f"The two {verdict}: {ARMS['difference']} {said(gap, scale)}.")
    distances = spills[spills["estimand"] == "spill_at"]
    if len(distances):
        near = distances.iloc[0]
        sure = distances[(distances["low"] > 0) | (distances["high"] < 0)]
        until = f"; intervals exclude zero at {len(sure)} of {len(distances)} distances" + (
            f", the farthest {sure.iloc[-1]['level']}" if len(sure) else ""
        )
        sentences.append(f"One adopter at {near['level']}, no other in reach: {said(near, scale)}{until}.")
    for name in ("total_treated", "spill_control"):
        sentences += [f"In all, {label(row)}: {said(row, scale)}." for _, row in identified(rows, name).iterrows()]
    return sentences or ["No slope of an exposure is identified."]


def classical(row: pd.Series, scale: str) -> str:
    """One estimator's answer and what its authors would warn of."""
    places, sign = decimals(row["high"] - row["low"]), "%" if scale == "percent" else ""
    ends = f"{number(row['low'], places)}{sign} to {number(row['high'], places)}{sign}"
    note = f" ({row['note']})" if isinstance(row["note"], str) and row["note"] else ""
    return f"{row['estimator']}: {number(row['estimate'], places)}{sign}, {ends}{note}."


def identified(rows: pd.DataFrame, estimand: str) -> pd.DataFrame:
    """Rows of one estimand that have an estimate."""
    return rows[(rows["estimand"] == estimand) & np.isfinite(rows["mean"])]


def said(row: pd.Series, scale: str) -> str:
    """An estimate in a sentence, as "+50.7% (95% interval +9.8% to +105.7%)"."""
    places = decimals(row["high"] - row["low"])
    low, middle, high = (
        f"{number(row[name], places, signed=True)}{'%' if scale == 'percent' else ''}"
        for name in ("low", "mean", "high")
    )
    return f"{middle} ({100 * row['prob']:g}% interval {low} to {high})"


def decimals(width: float) -> int:
    """Places after the point that an interval of this width warrants: three figures of the width, at most four."""
    if not (np.isfinite(width) and width > 0):
        return 2
    return int(np.clip(2 - np.floor(np.log10(width)), 0, 4))


def number(value: float, places: int, signed: bool = False) -> str:
    """A number to a fixed place; the enormous in powers of ten."""
    if pd.isna(value):
        return ABSENT
    style = ".0e" if abs(value) >= 1e6 else f"z,.{places}f"
    return format(value, f"+{style}" if signed else style)


def probability(value: float) -> str:
    """A share of draws in percent, never as certainty."""
    if value > 0.999:
        return "> 99.9%"
    return "< 0.1%" if value < 0.001 else f"{value:.1%}"


def mass(rows: pd.DataFrame) -> str:
    """Mass of the intervals."""
    return f"{100 * rows['prob'].iloc[0]:g}%"


def passed(diagnostics: dict) -> str:
    """The sampler's checks in one sentence."""
    fewest = min(diagnostics["ess_bulk_min"], diagnostics["ess_tail_min"])
    return (
        f"The sampler's checks passed: R-hat is at most {diagnostics['rhat_max']:.3f} and every estimate rests on at "
        f"least {fewest:,.0f} effective draws, without divergent transitions. This says that the posterior was "
        "computed well, not that the assumptions hold."
    )


def cautions(rows: pd.DataFrame, comparison: pd.DataFrame, nuisance: dict) -> Iterator[str]:
    """What weakens the numbers although the sampler worked."""
    yield from doubts(nuisance)
    if weights := unequal_weights(comparison):
        yield f"{weights[:1].upper()}{weights[1:]}."
    missing = int(rows["mean"].isna().sum())
    if missing:
        yield f"{missing} of {len(rows)} estimates are not identified by the data and are left empty."
    notes = rows.loc[rows["estimand"].isin(["att", "total_treated", *MEANING]) & rows["mean"].notna(), "note"].dropna()
    yield from dict.fromkeys(f"{note[:1].upper()}{note[1:]}." for note in notes if note)


def assumptions(panel: Panel, exposures: list[str], nuisance: dict) -> list[tuple[str, str]]:
    """What the answers rest on, none of which the sampler can check."""
    given = f" with the same {', '.join(panel.covariate_names)}" if panel.covariate_names else ""
    spillovers = (
        f"Exposure by {', '.join(exposures)} carries all that others' adoption does, in the periods that it is given "
        "for: linearly, or, where a kernel is learned, by the distances of adopters up to its cutoff."
        if exposures
        else "No spillovers are modelled, so nobody's outcome may depend on others' adoption."
    )
    return [
        ("No anticipation", "Outcomes before adoption do not depend on when adoption comes."),
        (
            "Parallel trends",
            f"Without adoption, adopters{given} would have moved as those not yet or never treated did.",
        ),
        ("Exposure mapping", spillovers),
        ("Adoption lasts", "A unit that has adopted stays treated."),
        (
            "Exchangeability",
            "Before the data are seen, nothing tells the levels of a pooled term apart (beyond its predictor), so each "
            "may borrow from the others. Model pooled takes one effect for all; model nopool lets nothing borrow.",
        ),
        (
            "Errors",
            f"As follows, and estimated before effects were sampled: {errors_in_words(nuisance)}. Dependence of any "
            "other kind makes intervals too narrow.",
        ),
        (
            "These adopters",
            "Averages are over the adopters in this file. For a new sample of such units their intervals are too "
            "narrow, by the spread of effects between units over the square root of the number of adopters.",
        ),
    ]


def facts(regression: Regression, exposures: list[str]) -> list[tuple[str, str]]:
    """The panel in numbers."""
    panel, frame, rows = regression.panel, regression.frame, regression.rows
    adopted = panel.cohort[np.isfinite(panel.cohort)].astype(int)
    cohorts = ", ".join(f"{g} ({n:,})" for g, n in zip(*np.unique(adopted, return_counts=True), strict=True))
    groups = ", ".join(f"{name} ({len(factor.levels):,} levels)" for name, factor in panel.groups.items())
    return [
        ("panel", panel.name),
        (
            "rows",
            f"{rows:,}" + ("" if regression.blocks is None else f", read in {len(regression.blocks.paths):,} blocks"),
        ),
        ("units", f"{len(panel.units):,}"),
        ("periods", f"{len(frame.periods)}, from {frame.periods.min()} to {frame.periods.max()}"),
        ("adopters", f"{len(adopted):,} units; {len(panel.units) - len(adopted):,} never adopt"),
        ("cohorts (units)", cohorts),
        ("treated rows", f"{frame.treated:,} ({frame.treated / rows:.1%} of rows)"),
        ("outcome, as modelled", "mean {:.4g}, SD {:.4g}".format(*frame.outcome)),
        ("groups", groups or "none"),
        ("covariates", ", ".join(panel.covariate_names) or "none"),
        ("exposures", ", ".join(exposures) or "none"),
        ("sha256 of the data", panel.sha256),
    ]


def numbers_of(nuisance: dict, before: str) -> list[tuple[str, str]]:
    """What was estimated of the errors of one outcome, each with a label that begins as said."""
    known = {name: value for name, value in nuisance.items() if name not in ("shocks", "equations")}
    rows = [(f"{before}{name} (nuisance)", plain(value)) for name, value in known.items()]
    for of, shock in nuisance["shocks"].items():
        rows += [(f"{before}shocks to {of}, {name} (nuisance)", plain(value)) for name, value in shock.items()]
    return rows


def checks(diagnostics: dict) -> list[tuple[str, str]]:
    """Diagnostics in numbers, with what they should be."""
    equations = diagnostics["nuisance"].get("equations", {})
    nuisance = numbers_of(diagnostics["nuisance"], "")
    for outcome, of_outcome in equations.items():
        nuisance += numbers_of(of_outcome, f"{outcome}: ")
    return [
        ("R-hat, largest over estimates", f"{diagnostics['rhat_max']:.4f} (at most 1.01)"),
        ("R-hat, largest over parameters", f"{diagnostics['parameter_rhat_max']:.4f} (at most 1.01)"),
        ("effective draws, bulk, fewest", f"{diagnostics['ess_bulk_min']:,.0f} (at least 400)"),
        ("effective draws, tails, fewest", f"{diagnostics['ess_tail_min']:,.0f} (at least 400)"),
        ("divergent transitions", f"{diagnostics['divergences']} (none)"),
        ("transitions cut short at the largest tree depth", f"{diagnostics['cut_short']:.1%} (at most 1%)"),
        ("E-BFMI, smallest", f"{diagnostics['bfmi_min']:.2f} (at least 0.3)"),
        ("peak memory", f"{diagnostics['peak_memory_mb']:,.0f} MB"),
        *nuisance,
    ]


def plain(value: object) -> str:
    """A nuisance number as text."""
    return f"{value:.4g}" if isinstance(value, float | int) else str(value)


def main(arguments: list[str] | None = None) -> int:
    """Rebuild the tables, figures and report of a run from its kept posterior; 2 where there is no run.

    The run's own settings are composed again from what was typed, so that nothing is sampled unless the code that
    determines a posterior has changed: then the folder is left as it is and `src.fit` says so.
    """
    from omegaconf import OmegaConf

    parser = argparse.ArgumentParser(prog="python -m src.report", description="Rebuild a report without refitting.")
    parser.add_argument("folder", type=Path, help="of a run, as traces/<data>/<model>/<run_id>")
    folder = parser.parse_args(arguments).folder
    typed = folder / ".hydra" / "overrides.yaml"
    if not typed.is_file():
        print(f"error: {folder} holds no run: name a folder that python -m src.fit has written", file=sys.stderr)
        return 2
    from src import trace
    from src.command import command
    from src.fit import fit

    fitted_by = trace.kept_attribute(folder / "posterior.nc", "code_version")
    if fitted_by not in (None, trace.code_version()):
        print(
            f"error: the code that determines a posterior has changed since the run in {folder} was fitted: fit it "
            "again, with its settings and refit=true",
            file=sys.stderr,
        )
        return 2
    own = [str(word) for word in OmegaConf.load(typed) if not str(word).startswith(("refit=", "hydra."))]
    sys.argv[1:] = [*own, f"hydra.run.dir={folder}"]
    command(fit)


if __name__ == "__main__":
    sys.exit(main())
