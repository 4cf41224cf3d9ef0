"""What was measured, as a document and a figure: medians, ratios, slopes, and what is slower than a peer.

Every number of docs/benchmarks.md comes from here; see src.bench.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from src.config import BenchConfig
from src.measure import FAILED, machine
from src.peers import COLLAPSED, agreement, least_ess

EFFECTIVE = 1000  # draws, to compare what one waits for
VISIBLE = 0.01  # seconds: stages that never take as much are left out
LEAST_PART = 0.02  # of the longest stage at the largest size
STAGES = ("load", "design", "collapse", "compile", "sample", "estimand")
GOAL = "nutpie"
MODELS = {"pooled": "one effect for all (`pooled`)", "hier": "the hierarchy (`hier`)"}
NOTHING = "–"


def medians(rows: Iterable[dict], key: str) -> float:
    """Median of a number over repeats; NaN where none has it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.median(values)) if values else float("nan")


def of(found: dict, model: str, firms: int, sampler: str) -> list[dict]:
    """The rows of one model, size and sampler that have draws."""
    keys = (model, firms, sampler)
    rows = found.get("peers", {}).get("rows", [])
    return [row for row in rows if (row["model"], row["firms"], row["sampler"]) == keys and "summary" in row]


def rate(rows: list[dict]) -> float:
    """Median over repeats of the minimum bulk ESS a second of sampling, tuning included."""
    rates = [least_ess(row["summary"]) / row["sample"] for row in rows]
    return float(np.median(rates)) if rates else float("nan")


def compiling(rows: list[dict]) -> float:
    """Seconds to compile with empty caches: those of the first repeat."""
    first = [row["compile"] for row in rows if row["repeat"] == 0]
    return first[0] if first else float("nan")


def wait_for(rows: list[dict]) -> float:
    """Seconds from the panel to 1,000 effective draws of every parameter."""
    before = medians(rows, "before")
    return (0.0 if np.isnan(before) else before) + compiling(rows) + EFFECTIVE / rate(rows)


def number(value: float | None, digits: int = 2) -> str:
    """A number of a table: so many significant digits, thousands with commas."""
    if value is None or not np.isfinite(value):
        return NOTHING
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def sizes(found: dict, model: str) -> list[int]:
    """Numbers of firms for which there is any draw of a model."""
    rows = found.get("peers", {}).get("rows", [])
    return sorted({row["firms"] for row in rows if row["model"] == model and "summary" in row})


def samplers(found: dict, model: str) -> list[str]:
    """Samplers that have draws of a model, in the order in which they come."""
    rows = found.get("peers", {}).get("rows", [])
    return list(dict.fromkeys(row["sampler"] for row in rows if row["model"] == model and "summary" in row))


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
        "Its `StaggeredDifferenceInDifferences` fits untreated rows with a dummy for every firm and imputes the others: "
        "another model and other priors, so that only cost is compared, of its average effect. The formula is without an "
        "intercept, which is faster.\n"
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


def goals(found: dict) -> Iterator[tuple[str, int, float]]:
    """Model, firms, and how many times brute-force nutpie's ESS a second ours is, at the largest size."""
    for model in MODELS:
        both = [firms for firms in sizes(found, model) if all(of(found, model, firms, s) for s in (COLLAPSED, GOAL))]
        if both:
            ours, theirs = (of(found, model, both[-1], sampler) for sampler in (COLLAPSED, GOAL))
            yield model, both[-1], rate(ours) / rate(theirs)


def headlines(found: dict) -> Iterator[str]:
    """What the terminal shows."""
    for model, firms, ratio in goals(found):
        yield f"{model}, {firms:,} firms: {number(ratio)} times the effective draws a second of {GOAL}, firms explicit"
    for row in usual(found, "rows")[-1:]:
        stages = ", ".join(f"{name} {number(row[name])}" for name in STAGES if name in row)
        yield f"{row['rows']:,.0f} rows: {stages} seconds"
    if fit := found.get("command", {}).get("fit"):
        if FAILED not in fit:
            yield f"the command: {number(fit['first']['wall'])} s first, {number(medians(fit['warm'], 'wall'))} s warm"


def usual(found: dict, series: str) -> list[dict[str, float]]:
    """Medians over repeats of rows, columns, memory, every stage and every part of the collapse, a size a row."""
    by_size: dict[tuple[int, int], list[dict]] = {}
    for row in found.get("growth", {}).get(series, []):
        if FAILED not in row:
            by_size.setdefault((row["rows"], row["columns"]), []).append(row)
    sized = []
    for (rows, columns), mine in sorted(by_size.items()):
        first = {"rows": float(rows), "columns": float(columns), "memory": medians(mine, "memory"), "n": len(mine)}
        spent = [row["seconds"] | {f"· {name}": value for name, value in row["parts"].items()} for row in mine]
        sized.append(first | {name: medians(spent, name) for name in dict.fromkeys(k for row in spent for k in row)})
    return sized


def shown_stages(sized: list[dict[str, float]]) -> list[str]:
    """Stages and, after `collapse`, those of its parts that take any time at the largest size."""
    last = sized[-1]
    least = max(VISIBLE, LEAST_PART * last["collapse"])
    parts = sorted((k for k in last if k.startswith("· ") and last[k] >= least), key=lambda k: -last[k])
    return [name for stage in STAGES for name in (stage, *(parts if stage == "collapse" else [])) if name in last]


def slope(sized: list[dict[str, float]], stage: str, by: str) -> float:
    """Of log seconds on log size, over the sizes at which the stage takes any time; NaN where fewer than two do."""
    known = [(row[by], row[stage]) for row in sized if row.get(stage, 0.0) >= VISIBLE]
    if len({size for size, _ in known}) < 2:
        return float("nan")
    size, spent = np.log(np.array(known)).T
    return float(np.polyfit(size, spent, 1)[0])


def growth_tables(found: dict) -> Iterator[str]:
    """Seconds of the stages by rows, then by columns."""
    for series, words in (("rows", "rows"), ("columns", "columns of the coefficient vector")):
        sized = usual(found, series)
        if not sized:
            continue
        yield f"### By {words}\n"
        headings = ["stage", *(f"{row[series]:,.0f}" for row in sized), "slope"]
        lines = [["rows", *(f"{row['rows']:,.0f}" for row in sized), ""]] if series == "columns" else []
        if series == "rows":
            lines += [["columns", *(f"{row['columns']:,.0f}" for row in sized), ""]]
        for stage in shown_stages(sized):
            grows = slope(sized, stage, series)
            shown = NOTHING if np.isnan(grows) else f"{grows:.2f}"
            lines.append([stage, *(number(row.get(stage)) for row in sized), shown])
        lines.append(["MB", *(number(row["memory"], 3) for row in sized), ""])
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


def spent_by_stage(fit: dict) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the first run, and medians of the warm ones, from the command line to its end.

    `start, end` is what no stage counts: Python, imports, the command line, and what comes after the last stage.
    """
    stages = [name for name in fit["first"]["seconds"] if name != "total"]

    def split(run: dict) -> dict[str, float]:
        spent = {name: run["seconds"].get(name, 0.0) for name in stages}
        return {"whole": run["wall"], "start, end": run["wall"] - sum(spent.values())} | spent

    warm = [split(run) for run in fit["warm"]]
    return split(fit["first"]), {name: float(np.median([run[name] for run in warm])) for name in warm[0]}


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
            f"{number(ratio)}. Over {len(shift)} coefficients means differ by {np.sqrt(np.mean(shift**2)):.2f} posterior "
            f"SDs (root mean square; average effect {abs(shift[0]):.2f}), and SDs have a median ratio of "
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


def problems(found: dict) -> Iterator[str]:
    """What could not be measured, each with its reason."""
    rows = [*found.get("peers", {}).get("rows", []), *found.get("counts", {}).values()]
    rows += [row for series in ("rows", "columns") for row in found.get("growth", {}).get(series, [])]
    for row in rows:
        name = ", ".join(str(row[key]) for key in ("sampler", "model") if key in row) or "stages"
        if FAILED in row:
            yield f"{name}, {row.get('firms', '?')} firms: {row[FAILED]}"
        elif "reason" in row and row.get("sampler") != "causalpy":  # whose limits are a finding
            yield f"{name}, {row.get('firms', '?')} firms: {row['reason']}"
    if reason := found.get("command", {}).get("fit", {}).get(FAILED):
        yield reason


def figure_of(document: Path) -> Path:
    """Where the figure of a document goes."""
    return document.parent / "figures" / f"{document.stem}.png"


def write(found: dict, config: BenchConfig, document: Path, typed: str = "") -> None:
    """Write the document and its figure."""
    from src.benchfigure import draw
    from src.trace import write as whole

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
        f"{facts['python']}; {facts['libraries']}. One thread for linear algebra but for the command itself. Medians over "
        f"{config.repeats} repeats; peers, which use all of their budget, and sizes that take long are measured once.\n"
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
        f"`collapsed` is this project with `sampler=nuts`; the others have a parameter for every firm, {config.budget:g} "
        "seconds of sampling for as many iterations as fit, and defaults otherwise. Seconds: `before`, from panel to "
        "cross-products; `compile`, with empty caches; `sample`, tuning included. `ESS a second` is the smallest bulk "
        "effective sample size of all shared parameters (effects, slopes, spreads, sigma) over the seconds of `sample`. "
        "Draws are chains × (tuning + kept). Memory is the largest of all processes together. z is the difference from "
        "the collapsed posterior in units of Monte Carlo error, over the shared parameters: about 1 in root mean square "
        "where both have the same posterior and effective draws are not too few.\n"
    )
    yield from peer_tables(found)
    yield from causalpy_lines(found)
    if absent := found.get("peers", {}).get("absent"):
        yield f"Not installed here, hence not measured: {', '.join(absent)}.\n"
    yield "## How stages grow\n"
    yield (
        "A file of the synthetic panel, default settings of `src.fit`: read, columns, collapse (beneath it the functions "
        "that it calls), compile, sample, estimands. Slopes are of log seconds on log size, over sizes at which a stage "
        f"takes {VISIBLE:g} s or more. Columns grow with adopters, each of whom has an effect of its own, at "
        "4,000 firms.\n"
    )
    yield from growth_tables(found)
    yield "## Where the command's time goes\n"
    yield from command_tables(found, config)
    yield "## Counts\n"
    yield (
        "`likelihood=poisson_lognormal` beside the model that it approximates, with a disturbance for every row, in "
        "nutpie (`tests/oracles/latent.py`).\n"
    )
    yield from count_table(found)
    yield "## What is slower than a peer\n"
    worse = list(slower(found))
    yield "\n".join(worse) if worse else "Nothing of what was measured above."
    yield ""
    if failed := list(problems(found)):
        yield "## What could not be measured\n"
        yield "\n".join(f"* {problem}" for problem in failed)
