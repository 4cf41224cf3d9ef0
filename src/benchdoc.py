"""docs/benchmarks.md, from what was measured: tables with medians and ratios, and what is slower than a peer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from src.benchfigure import draw
from src.benchmarks import (
    EFFECTIVE,
    GOAL,
    MODELS,
    STAGES,
    VISIBLE,
    compiling,
    goals,
    medians,
    of,
    problems,
    rate,
    samplers,
    shown_stages,
    signed,
    sizes,
    slope,
    spent_by_stage,
    usual,
    wait_for,
)
from src.beside import DRAWS
from src.config import BenchConfig
from src.measure import FAILED, machine
from src.peers import COLLAPSED, agreement, least_ess
from src.trace import write as whole

NOTHING = "–"


def figure_of(document: Path) -> Path:
    """Where the figure of a document goes."""
    return document.parent / "figures" / f"{document.stem}.png"


def write(found: dict, config: BenchConfig, document: Path, typed: str = "") -> None:
    """Write the document and its figure."""
    picture = figure_of(document)
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw(found, picture)
    whole("\n".join(lines(found, config, typed, drawn)).rstrip() + "\n", document)


def lines(found: dict, config: BenchConfig, typed: str, drawn: bool) -> Iterator[str]:
    """The document."""
    yield "# Benchmarks\n"
    yield f"Written by `python -m src.bench{f' {typed}' if typed else ''}`, which measured every number here.\n"
    facts = machine()
    yield (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory']} of memory, {facts['system']}, Python "
        f"{facts['python']}; {facts['libraries']}. One thread for linear algebra but for the command itself. Medians "
        f"over {config.repeats} repeats; peers, which use all of their budget, and sizes that take long are measured "
        "once.\n"
    )
    for model, firms, ratio in goals(found):
        yield (
            f"**{number(ratio)} times** the effective draws a second of {GOAL} with a parameter for every firm, at "
            f"{firms:,} firms, for {MODELS[model]}.\n"
        )
    if drawn:
        yield "![effective draws a second, seconds by stage, where the command's time goes](figures/benchmarks.png)\n"
    yield "## The same posterior by other samplers\n"
    yield (
        "The synthetic panel with `data.errors=iid`, 14 years, independent errors of one scale, no shocks; the same "
        "priors, but that firms, periods and covariates are Normal(0, 30 s) where the collapsed model has them flat. "
        "`collapsed` is this project with `sampler=nuts`; the others have a parameter for every firm, "
        f"{config.budget:g} seconds of sampling for as many iterations as fit (longer where fewer than 50 would be "
        f"left), and defaults otherwise. All keep {DRAWS:,} iterations a chain at most. Seconds: "
        "`before`, from panel to cross-products; `compile`, with empty caches; `sample`, tuning included. `ESS a "
        "second` is the smallest bulk effective sample size of all shared parameters (effects, slopes, spreads, "
        "sigma) over the seconds of `sample`. Draws are chains × (tuning + kept); PyMC, on "
        "which Bambi runs, leaves out a chain that lags far behind when it is interrupted. Memory is the largest of "
        "all processes together. z is the difference from the collapsed posterior in units of Monte Carlo error, over "
        "the shared parameters: about 1 in root mean square where both have the same posterior and effective draws "
        "are not too few.\n"
    )
    yield from peer_tables(found)
    yield from causalpy_lines(found)
    if absent := found.get("peers", {}).get("absent"):
        yield f"Not installed here, hence not measured: {', '.join(absent)}.\n"
    grown = (
        "A file of the synthetic panel, default settings of `src.fit`: read, columns, collapse (beneath it the "
        "functions that it calls), compile with empty caches, sample, estimands. Slopes are of log seconds on log "
        f"size, over sizes at which a stage takes {VISIBLE:g} s or more. Columns grow with adopters, each of whom has "
        "an effect of its own, at 4,000 firms."
    )
    yield from section("How stages grow", grown, list(growth_tables(found)))
    yield from section("Where the command's time goes", "", list(command_tables(found, config)))
    counted = (
        "`likelihood=poisson_lognormal` beside the model that it approximates, with a disturbance for every row, in "
        "nutpie (`tests/oracles/latent.py`)."
    )
    yield from section("Counts", counted, list(count_table(found)))
    yield from section("What is slower than a peer", "", list(slower(found)))
    yield from section("What could not be measured", "", [f"* {problem}" for problem in problems(found)])


def section(title: str, words: str, body: list[str]) -> Iterator[str]:
    """A heading, what is to be known, and the lines beneath; nothing where there are none."""
    if body:
        yield f"## {title}\n"
        if words:
            yield f"{words}\n"
        yield from body
        yield ""


def number(value: float | None, digits: int = 2) -> str:
    """A number of a table: so many significant digits, thousands with commas."""
    if value is None or not np.isfinite(value):
        return NOTHING
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:#.{digits}g}"


def table(headings: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Lines of a table in Markdown, numbers to the right."""
    yield f"| {' | '.join(headings)} |"
    yield "|---" + "|---:" * (len(headings) - 1) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def peer_tables(found: dict) -> Iterator[str]:
    """A table of the samplers for each model."""
    headings = [
        "sampler, firms", "before", "compile", "sample", "draws", "min ESS", "ESS a second", "collapsed ÷ it",
        f"seconds to {EFFECTIVE:,} effective", "MB", "means: rms z (max)", "SDs: rms z (max)",
    ]  # fmt: skip
    for model, words in MODELS.items():
        if sizes(found, model):
            yield f"### {words[0].upper()}{words[1:]}\n"
            yield from table(headings, peer_rows(found, model))
            yield ""


def peer_rows(found: dict, model: str) -> Iterator[list[str]]:
    """One line for each size and sampler."""
    for firms in sizes(found, model):
        ours = of(found, model, firms, COLLAPSED)
        for sampler in samplers(found, model):
            rows = of(found, model, firms, sampler)
            if not rows:
                continue
            same = sampler == COLLAPSED or not ours
            z = {} if same else agreement(ours[0]["summary"], rows[0]["summary"])
            yield [
                f"{sampler}, {firms:,}",
                number(medians(rows, "before")),
                number(compiling(rows)),
                number(medians(rows, "sample")),
                f"{rows[0]['chains']} × ({rows[0]['tune']:,} + {rows[0]['draws']:,})",
                number(float(np.median([least_ess(row["summary"]) for row in rows])), 3),
                number(rate(rows)),
                NOTHING if same else number(rate(ours) / rate(rows)),
                number(wait_for(rows)),
                number(medians(rows, "memory"), 3),
                *([NOTHING] * 2 if same else [f"{z[f'{m}_rms']:.2f} ({z[f'{m}_max']:.1f})" for m in ("mean", "sd")]),
            ]


def causalpy_lines(found: dict) -> Iterator[str]:
    """CausalPy, whose posterior is another one."""
    mine = [row for row in found.get("peers", {}).get("rows", []) if row["sampler"] == "causalpy"]
    if not mine:
        return
    yield "### CausalPy\n"
    yield (
        "Its `StaggeredDifferenceInDifferences` fits untreated rows with a dummy for every firm and imputes the "
        "others: another model and other priors, so that only cost is compared, of its average effect. The formula "
        "is without an intercept, which is faster.\n"
    )
    headings = ["firms", "compile", "sample", "afterwards", "draws", "ESS", "ESS a second", "MB"]
    yield from table(headings, (causalpy_row(row) for row in mine if "summary" in row))
    yield ""
    for row in mine:
        if "reason" in row:
            yield f"{row['firms']:,} firms: {row['reason']}.\n"


def causalpy_row(row: dict) -> list[str]:
    """One size."""
    ess = least_ess(row["summary"])
    numbers = [row["compile"], row["sample"], row["after"]]
    draws = f"{row['chains']} × ({row['tune']:,} + {row['draws']:,})"
    cost = [number(ess, 3), number(ess / row["sample"]), number(row["memory"], 3)]
    return [f"{row['firms']:,}", *(number(value) for value in numbers), draws, *cost]


def growth_tables(found: dict) -> Iterator[str]:
    """Seconds of the stages by rows, then by columns."""
    for name, series, words in (
        ("rows", "rows", "By rows"),
        ("streamed", "rows", "By rows, read from a folder of Parquet files a block at a time"),
        ("columns", "columns", "By columns of the coefficient vector"),
    ):
        sized = usual(found, name)
        if not sized:
            continue
        yield f"### {words}\n"
        headings = ["stage", *(f"{row[series]:,.0f}" for row in sized), "slope"]
        lines = [["rows", *(f"{row['rows']:,.0f}" for row in sized), ""]] if series == "columns" else []
        if series == "rows":
            lines += [["columns", *(f"{row['columns']:,.0f}" for row in sized), ""]]
        for stage in shown_stages(sized):
            grows = slope(sized, stage, series)
            shown = NOTHING if np.isnan(grows) else signed(grows)
            lines.append([stage, *(number(row.get(stage)) for row in sized), shown])
        lines.append(["MB", *(number(row["memory"], 3) for row in sized), ""])
        for constant in (key for key in sized[-1] if key.startswith("= ")):
            lines.append([constant.removeprefix("= "), *(number(row.get(constant), 3) for row in sized), ""])
        lines.append(["measured", *(f"{row['n']} ×" for row in sized), ""])
        yield from table(headings, lines)
        yield ""


def command_tables(found: dict, config: BenchConfig) -> Iterator[str]:
    """Where the time of the command goes."""
    command = found.get("command", {})
    fit = command.get("fit")
    if fit and FAILED not in fit:
        yield f"`python -m src.fit {' '.join(config.overrides)}".rstrip() + "`, seconds:\n"
        first, warm = spent_by_stage(fit)
        ratio = {name: first[name] / warm[name] if warm[name] else float("nan") for name in first}
        lines = ([name, number(first[name]), number(warm[name]), number(ratio[name])] for name in first)
        yield from table(["", "first, caches empty", "warm", "ratio"], lines)
        yield f"\nLargest memory: {number(medians(fit['warm'], 'memory'), 3)} MB.\n"
    if "quick" in command:
        quick = ([name, number(float(np.median(walls)))] for name, walls in command["quick"].items())
        yield from table(["what ends early", "seconds"], quick)
        yield ""


def count_table(found: dict) -> Iterator[str]:
    """Counts collapsed beside the latent model."""
    counts = found.get("counts", {})
    known = [row for row in counts.values() if "summary" in row]
    if not known:
        return
    headings = ["", "before", "compile", "sample", "draws", "min ESS", "ESS a second", "MB"]
    lines = []
    for row in known:
        ess = least_ess(row["summary"])
        words = "collapsed" if row["sampler"] == COLLAPSED else f"latent, {row['sampler']}"
        times = [number(row.get(name)) for name in ("before", "compile", "sample")]
        draws = f"{row['chains']} × ({row['tune']:,} + {row['draws']:,})"
        cost = [number(ess, 3), number(ess / row["sample"]), number(row["memory"], 3)]
        lines.append([words, *times, draws, *cost])
    yield from table(headings, lines)
    yield ""
    if len(known) == 2:
        ours, theirs = (np.array(list(row["summary"].values())) for row in known)
        ratio = (ours[:, 4].min() / known[0]["sample"]) / (theirs[:, 4].min() / known[1]["sample"])
        shift = (ours[:, 0] - theirs[:, 0]) / theirs[:, 1]
        yield (
            f"{known[0]['firms']:,} firms, {known[0]['rows']:,} rows; collapsed over latent in ESS a second: "
            f"{number(ratio)}. Over {len(shift)} coefficients means differ by {np.sqrt(np.mean(shift**2)):.2f} "
            f"posterior SDs (root mean square; average effect {abs(shift[0]):.2f}), and SDs have a median ratio of "
            f"{np.median(ours[:, 1] / theirs[:, 1]):.2f}: the collapse of counts approximates, it is not exact "
            "([counts.md](counts.md)).\n"
        )


def slower(found: dict) -> Iterator[str]:
    """Sentences on what a peer does better, of one model and size each."""
    measures = {
        "seconds to compile, caches empty": (compiling, False),
        "effective draws a second": (rate, True),
        f"seconds to {EFFECTIVE:,} effective draws": (wait_for, False),
        "MB of memory": (lambda rows: medians(rows, "memory"), False),
    }
    for words, (measure, more) in measures.items():
        worse = []
        for model in MODELS:
            for firms in sizes(found, model):
                ours = measure(of(found, model, firms, COLLAPSED))
                for sampler in samplers(found, model):
                    theirs = measure(of(found, model, firms, sampler))
                    if theirs > ours if more else theirs < ours:
                        worse.append(f"{sampler}, {model}, {firms:,} firms ({number(theirs)} against {number(ours)})")
        if worse:
            yield f"* **{words}**: {'; '.join(worse)}."


def headlines(found: dict) -> Iterator[str]:
    """What the terminal shows."""
    for model, firms, ratio in goals(found):
        yield f"{model}, {firms:,} firms: {number(ratio)} times the effective draws a second of {GOAL}, firms explicit"
    for row in usual(found, "rows")[-1:]:
        stages = ", ".join(f"{name} {number(row[name])}" for name in STAGES if name in row)
        yield f"{row['rows']:,.0f} rows: {stages} seconds"
    if (fit := found.get("command", {}).get("fit")) and FAILED not in fit:
        yield f"the command: {number(fit['first']['wall'])} s first, {number(medians(fit['warm'], 'wall'))} s warm"
