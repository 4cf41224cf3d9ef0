"""How fast is it, and beside what? `python -m src.bench` measures and writes docs/benchmarks.md.

    settings ─▶ measurements, one file each ─▶ docs/benchmarks.md, docs/figures/benchmarks.png

Parts: `peers`, the same posterior by other samplers; `growth`, every stage at growing sizes; `command`, where the time
of the whole command goes; `counts`, collapsed and latent counts. Every measurement runs in a process of its own and is
kept as soon as it is done, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from src import beside, peers
from src.beside import ADOPTERS, ALLOWANCE, CORES, FULL_FIRMS, obtained
from src.command import ROOT, UserError, command, home
from src.config import BenchConfig
from src.measure import FAILED, Ended, Measurement, cache_folders, module, run, scripted
from src.peers import COLLAPSED, SCRIPTS

LEAST_FIRMS = 40
ROWS_A_FIRM = 10.8  # of the synthetic panel, on average
LONGEST = 3600  # seconds for making and for reading a panel larger than memory
LONG = 20  # seconds: a size whose stages take longer is measured once
HEAVY = "import src.answer, src.collapse, src.figure, src.report, src.sample, src.scrutiny"
QUICK = {
    "--help": [*module("src.fit"), "--help"],
    "a mistake in a setting": [*module("src.fit"), "model=heir"],
    "a mistake in the data": [*module("src.fit"), "data.outcome=nothing"],
    "importing the libraries": [*module("src.fit")[:1], "-c", HEAVY],
}
OURS = (
    "average",
    "spillover",
    "estimand",
    "identify",
    "answer",
    "leads",
    "rates",
    "trace",
    "fit",
)  # beyond a posterior


def bench(config: BenchConfig) -> int:
    """Measure what is missing, write the document and its figure; 0, or 3 where something could not be measured."""
    from src import benchdoc, benchmarks
    from src.terminal import console

    check(config)
    if config.install:
        peers.install()
        if not config.parts:
            return 0
    folder = home("bench")
    parts = {"peers": beside.peer_part, "growth": growth_part, "command": command_part, "counts": beside.count_part}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, part in parts.items():
            wanted = name in config.parts
            found[name] = part(replace(config, refit=config.refit and wanted), folder, wanted)
    except KeyboardInterrupt:
        console().print(f"what was measured is kept in {folder}; the same command goes on from there", soft_wrap=True)
        raise
    document = ROOT / config.document
    benchdoc.write(found, config, document, typed())
    out = console()
    out.print("\n".join(benchdoc.headlines(found)), soft_wrap=True)
    problems = list(benchmarks.problems(found))
    for problem in problems:
        out.print(problem, style="yellow", soft_wrap=True)
    out.print(f"  {document}\n  {benchdoc.figure_of(document)}", soft_wrap=True)
    return 3 if problems else 0


def typed() -> str:
    """The settings as given on the command line."""
    from hydra.core.hydra_config import HydraConfig

    return " ".join(shlex.quote(word) for word in HydraConfig.get().overrides.task if not word.startswith("document="))


def check(config: BenchConfig) -> None:
    """Refuse sizes that cannot be.

    Raises
    ------
    UserError
    """
    sizes = {"firms": (config.firms, LEAST_FIRMS), "causalpy": (config.causalpy, LEAST_FIRMS)}
    for name, (given, least) in sizes.items():
        for size in given:
            if size < least:
                raise UserError(f"{name}={size} is too small; give {least} firms at least")
    if any(not 10 <= adopters <= FULL_FIRMS // 2 for adopters in config.adopters):
        raise UserError(f"adopters={config.adopters} are to be from 10 to {FULL_FIRMS // 2} of {FULL_FIRMS:,} firms")
    if (config.hier and COLLAPSED not in config.hier) or (config.pooled and COLLAPSED not in config.pooled):
        raise UserError(f"pooled and hier are compared with {COLLAPSED}: name it among them")


def growth_part(config: BenchConfig, folder: Path, wanted: bool) -> dict[str, Any]:
    """Seconds of every stage at growing numbers of rows, and of columns."""
    by_rows = [(max(round(rows / ROWS_A_FIRM), LEAST_FIRMS), ADOPTERS) for rows in sizes_up_to(config.rows)]
    by_columns = [(FULL_FIRMS, adopters) for adopters in config.adopters]
    return {
        "streamed": [row for rows in config.streamed for row in streamed(config, folder, wanted, rows)],
        "rows": [row for size in by_rows for row in sized(config, folder, wanted, *size)],
        "columns": [row for size in by_columns for row in sized(config, folder, wanted, *size)],
    }


def sizes_up_to(most: int) -> list[int]:
    """Numbers of rows, two a factor of ten, from 10,000 to `most`; `most` alone where it is less."""
    found = [size for k in range(16) if (size := round(10 ** (4 + k / 2))) <= most]
    return found or [most]


def sized(config: BenchConfig, folder: Path, wanted: bool, firms: int, adopters: int) -> Iterator[dict]:
    """The stages at one size, as often as repeats say, once where they take long."""
    from src.trace import code_version

    code = code_version(*(f"src/{name}.py" for name in OURS))
    job = {"firms": firms, "adopters": min(adopters, firms // 3), "overrides": []}
    for repeat in range(config.repeats):
        mine = job | {"seed": config.seed + repeat}
        settings = mine | {"repeat": repeat, "code": code}
        sources = (SCRIPTS / "growth.py", SCRIPTS / "panels.py")
        measurement = Measurement("growth", f"{firms}-{job['adopters']}-{repeat}", settings, sources)

        def measure(mine: dict = mine) -> dict:
            with tempfile.TemporaryDirectory() as scratch:
                caches = Path(scratch) / "caches"  # empty: compilation is then the same at every size
                facts, _ = scripted(module("bench.growth"), mine | {"out": f"{scratch}/found"}, 3 * ALLOWANCE, caches)
                return facts

        found = obtained(config, folder, wanted, measurement, f"stages at {firms:,} firms", measure)
        if found is None:
            return
        yield found | {"firms": firms, "repeat": repeat}
        if FAILED in found or sum(found["seconds"].values()) > LONG:
            return


def streamed(config: BenchConfig, folder: Path, wanted: bool, rows: int) -> Iterator[dict]:
    """Reading and collapsing a folder of Parquet files a block at a time, at one size."""
    from src.trace import code_version

    code = code_version(*(f"src/{name}.py" for name in OURS))
    job = {"rows": rows, "seed": config.seed, "cores": CORES}
    sources = tuple(SCRIPTS / f"{name}.py" for name in ("register", "streamed", "growth", "panels"))
    measurement = Measurement("growth", f"streamed-{rows}", job | {"code": code}, sources)

    def measure() -> dict:
        with tempfile.TemporaryDirectory() as scratch:
            mine = job | {"folder": f"{scratch}/register"}
            made, _ = scripted(module("bench.register"), mine | {"out": f"{scratch}/made"}, LONGEST)
            if FAILED in made:
                return made
            known = mine | {"covariates": made["covariates"], "out": f"{scratch}/found"}
            facts, _ = scripted(module("bench.streamed"), known, LONGEST)
            if FAILED in facts:
                return facts
            return facts | {"constants": {"bytes a row, in Parquet": made["bytes"] / made["rows"]} | facts["constants"]}

    found = obtained(config, folder, wanted, measurement, f"{rows:,} rows read by block", measure)
    if found is not None:
        yield found


def command_part(config: BenchConfig, folder: Path, wanted: bool) -> dict[str, Any]:
    """Wall time of the whole command, first and warm, and of what ends early."""
    from src.trace import code_version

    code = code_version("src/*.py", "src/*.jinja", "conf/**/*.yaml")
    settings = {"overrides": config.overrides, "repeats": config.repeats, "seed": config.seed, "code": code}
    found: dict[str, Any] = {}
    fitted = obtained(
        config, folder, wanted, Measurement("command", "fit", settings), "the whole command", lambda: fits(config)
    )
    if fitted is not None:
        found["fit"] = fitted
    for name, arguments in QUICK.items():
        measurement = Measurement("command", name.strip("-").replace(" ", "_"), settings | {"command": arguments[1:]})

        def measure(arguments: list[str] = arguments) -> dict:
            return {"wall": [run(arguments, ALLOWANCE).wall for _ in range(config.repeats)]}

        timed = obtained(config, folder, wanted, measurement, name, measure)
        if timed is not None:
            found.setdefault("quick", {})[name] = timed["wall"]
    return found


def fits(config: BenchConfig) -> dict[str, Any]:
    """The command with empty cache folders, and then again and again: wall time, seconds by stage."""
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for k in range(config.repeats + 1):
            place = folder / f"run{k}"
            told = [*config.overrides, f"seed={config.seed}", f"hydra.run.dir={place}", "progress=false"]
            ended = run([*module("src.fit"), *told], 2 * ALLOWANCE, cache_folders(folder / "caches"))
            diagnostics = place / "diagnostics.json"
            if ended.code not in (0, 3) or not diagnostics.exists():
                return {FAILED: f"python -m src.fit {' '.join(config.overrides)} ended with {ended_in_words(ended)}"}
            seconds = json.loads(diagnostics.read_text())["seconds"]
            runs.append({"wall": ended.wall, "memory": ended.memory, "seconds": seconds})
    return {"first": runs[0], "warm": runs[1:]}


def ended_in_words(ended: Ended) -> str:
    """How a process ended."""
    return "no result in time" if ended.code is None else f"code {ended.code}: {ended.said}"


if __name__ == "__main__":
    command(bench, config_name="bench")
