"""What was measured, in numbers: medians over repeats, effective draws a second, slopes; see src.bench."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from src.measure import FAILED
from src.peers import COLLAPSED, least_ess

EFFECTIVE = 1000  # draws, to compare what one waits for
VISIBLE = 0.01  # seconds: stages that never take as much are left out
LEAST_PART = 0.02  # of the longest stage at the largest size
STAGES = ("load", "design", "collapse", "compile", "sample", "estimand")
GOAL = "nutpie"
MODELS = {"pooled": "one effect for all (`pooled`)", "hier": "the hierarchy (`hier`)"}


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


def sizes(found: dict, model: str) -> list[int]:
    """Numbers of firms for which there is any draw of a model."""
    rows = found.get("peers", {}).get("rows", [])
    return sorted({row["firms"] for row in rows if row["model"] == model and "summary" in row})


def samplers(found: dict, model: str) -> list[str]:
    """Samplers that have draws of a model, in the order in which they come."""
    rows = found.get("peers", {}).get("rows", [])
    return list(dict.fromkeys(row["sampler"] for row in rows if row["model"] == model and "summary" in row))


def goals(found: dict) -> Iterator[tuple[str, int, float]]:
    """Model, firms, and how many times brute-force nutpie's ESS a second ours is, at the largest size."""
    for model in MODELS:
        both = [firms for firms in sizes(found, model) if all(of(found, model, firms, s) for s in (COLLAPSED, GOAL))]
        if both:
            ours, theirs = (of(found, model, both[-1], sampler) for sampler in (COLLAPSED, GOAL))
            yield model, both[-1], rate(ours) / rate(theirs)


def usual(found: dict, series: str) -> list[dict[str, float]]:
    """Medians over repeats of rows, columns, memory, every stage, every part of the collapse ("· name") and every
    constant ("= name"), a size a row.
    """
    by_size: dict[tuple[int, int], list[dict]] = {}
    for row in found.get("growth", {}).get(series, []):
        if FAILED not in row:
            by_size.setdefault((row["rows"], row["columns"]), []).append(row)
    sized = []
    for (rows, columns), mine in sorted(by_size.items()):
        first = {"rows": float(rows), "columns": float(columns), "memory": medians(mine, "memory"), "n": len(mine)}
        spent = [
            row["seconds"]
            | {f"· {name}": value for name, value in row["parts"].items()}
            | {f"= {name}": value for name, value in row.get("constants", {}).items()}
            for row in mine
        ]
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


def signed(grows: float) -> str:
    """A slope with two digits, no minus before a zero."""
    return f"{round(grows, 2) + 0.0:.2f}"


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
