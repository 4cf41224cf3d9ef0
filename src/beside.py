"""The same posterior by other samplers, beside the collapsed one; every measurement kept as soon as it is done.

panel ──export──▶ arrays ──scripts of bench/──▶ draws ─▶ summary of the shared parameters
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from src import peers
from src.command import ROOT, UserError, say
from src.config import BenchConfig
from src.measure import FAILED, Measurement, kept, measured, module, scripted
from src.peers import COLLAPSED, PEERS, SCRIPTS, STEPS

ADOPTERS, FULL_FIRMS = 130, 4000  # of the synthetic panel
IID = ["data.errors=iid", "likelihood.serial=none", "likelihood.scale=common", "likelihood.shocks=[]"]
CHAINS, TUNE, CORES = 2, 1000, 2  # of the peers; those of the collapsed model are sampler=nuts
DRAWS = 10_000  # a chain, at most, of all samplers alike: so many that starting and tuning is not what is timed
DRAWS_STORED = 1000  # where every row's expectation is stored with every draw
LEAST_STEPS, LEAST_STEPS_DUMMIES, STEPS_DUMMIES = 7, 63, 255  # leapfrog steps; of a matrix with a dummy for every firm
STEPS_LATENT = 127
ALLOWANCE = 600  # seconds beyond the budget: to start, to compile, to summarise


def adopters_of(firms: int) -> int:
    """Adopters among so many firms: those of the synthetic panel in proportion, never so few that terms lack levels."""
    return min(max(ADOPTERS * firms // FULL_FIRMS, 40), firms // 3)


def telling(what: str) -> Callable[[Callable[[], dict]], Callable[[], dict]]:
    """Say what is measured when it is, and how long it took."""

    def told(measure: Callable[[], dict]) -> Callable[[], dict]:
        def measuring() -> dict:
            start = time.perf_counter()
            found = measure()
            said = found.get(FAILED) or found.get("reason") or "done"
            say(f"{what}: {said} ({time.perf_counter() - start:.0f} s)")
            return found

        return measuring

    return told


def obtained(
    config: BenchConfig, folder: Path, wanted: bool, measurement: Measurement, what: str, measure: Callable[[], dict]
) -> dict | None:
    """A measurement of a part that is wanted; else what is kept of it, None where nothing is."""
    if not wanted:
        return kept(folder, measurement)
    return measured(folder, measurement, config.refit, telling(what)(measure))


def peer_part(config: BenchConfig, folder: Path, wanted: bool) -> dict[str, Any]:
    """Rows of the table of samplers, and a word on those that are absent."""
    asked = {name for name in (*config.pooled, *config.hier) if name != COLLAPSED}
    names = [name for name in PEERS if name in asked] + (["causalpy"] if config.causalpy else [])
    commands = {name: peers.command_of(name) for name in names} if wanted else {}
    absent = [name for name, found in commands.items() if found is None]
    for name in absent:
        say(f"{name} is skipped: it is not installed; `python -m src.bench install=true` does that")
    rows = list(compared(config, folder, wanted, commands))
    rows += list(with_causalpy(config, folder, wanted, commands.get("causalpy")))
    return {"rows": [row for row in rows if row is not None], "absent": absent}


def compared(
    config: BenchConfig, folder: Path, wanted: bool, commands: dict[str, list[str] | None]
) -> Iterator[dict | None]:
    """One row for each model, size, sampler: the collapsed one first, the others against it."""
    for model, samplers in (("pooled", config.pooled), ("hier", config.hier)):
        for firms in config.firms if samplers else []:
            ours = [collapsed_row(config, folder, wanted, model, firms, k) for k in range(config.repeats)]
            yield from ours
            for name in samplers:
                if name == COLLAPSED or (wanted and commands[name] is None):
                    continue
                yield peer_row(config, folder, wanted, model, firms, name, commands.get(name))


def of_size(config: BenchConfig, model: str, firms: int) -> dict[str, Any]:
    """What tells a script which panel and model."""
    adopters = adopters_of(firms)
    return {"firms": firms, "adopters": adopters, "overrides": [*IID, f"model={model}"], "seed": config.seed}


def collapsed_row(config: BenchConfig, folder: Path, wanted: bool, model: str, firms: int, repeat: int) -> dict | None:
    """The collapsed posterior of one size, the k-th time; caches are empty the first time."""
    from src.trace import code_version

    job = of_size(config, model, firms) | {"seed": config.seed + repeat}
    job |= {"overrides": [*job["overrides"], f"sampler.draws={DRAWS}"]}
    settings = job | {"repeat": repeat, "code": code_version()}
    name = f"{COLLAPSED}-{model}-{firms}-{repeat}"
    measurement = Measurement("peers", name, settings, (SCRIPTS / "collapsed.py", SCRIPTS / "panels.py"))

    def measure() -> dict:
        with tempfile.TemporaryDirectory() as scratch:
            caches = Path(scratch) / "caches" if repeat == 0 else None
            facts, out = scripted(
                module("bench.collapsed"), job | {"out": f"{scratch}/found"}, config.budget + ALLOWANCE, caches
            )
            if FAILED in facts:
                return facts
            return facts | {"summary": peers.summary(peers.parameters(out, None))}

    found = obtained(config, folder, wanted, measurement, f"{COLLAPSED}, {model}, {firms:,} firms", measure)
    return None if found is None else found | {"sampler": COLLAPSED, "model": model, "firms": firms, "repeat": repeat}


def peer_row(
    config: BenchConfig, folder: Path, wanted: bool, model: str, firms: int, name: str, told: list[str] | None
) -> dict | None:
    """The same posterior by one peer."""
    arrays = exported(config, folder, wanted, model, firms)
    if arrays is None:
        return None
    job = budgeted(config, STEPS[model])
    peer = PEERS[name]
    sources = [SCRIPTS / peer.script, *(SCRIPTS / f"{s}.py" for s in ("explicit", "exchange"))]
    settings = job | {"data": sha256_of(arrays), "packages": peer.packages}
    measurement = Measurement("peers", f"{name}-{model}-{firms}", settings, tuple(sources))

    def measure() -> dict:
        import numpy as np

        assert told is not None
        with tempfile.TemporaryDirectory() as scratch, np.load(arrays) as file:
            held = {key: file[key] for key in file.files}
            given = job | {"out": f"{scratch}/found"}
            given |= table_for_r(held, Path(scratch)) if peer.script.endswith(".R") else {"data": str(arrays)}
            facts, out = scripted(told, given, 4 * config.budget + ALLOWANCE, Path(scratch) / "caches")
            if FAILED in facts or "reason" in facts:
                return facts
            return facts | {"summary": peers.summary(peers.parameters(out, held))}

    found = obtained(config, folder, wanted, measurement, f"{name}, {model}, {firms:,} firms", measure)
    return None if found is None else found | {"sampler": name, "model": model, "firms": firms, "repeat": 0}


def with_causalpy(config: BenchConfig, folder: Path, wanted: bool, told: list[str] | None) -> Iterator[dict | None]:
    """CausalPy's own posterior of the average effect, at the sizes that are asked for."""
    for firms in config.causalpy if told is not None or not wanted else []:
        arrays = exported(config, folder, wanted, "pooled", firms)
        if arrays is None:
            continue
        job = budgeted(config, STEPS_DUMMIES) | {"least_steps": LEAST_STEPS_DUMMIES, "draws": DRAWS_STORED}
        sources = (SCRIPTS / peers.CAUSALPY.script, SCRIPTS / "exchange.py")
        settings = job | {"data": sha256_of(arrays), "packages": peers.CAUSALPY.packages}
        measurement = Measurement("peers", f"causalpy-{firms}", settings, sources)

        def measure(job: dict = job, arrays: Path = arrays) -> dict:
            with tempfile.TemporaryDirectory() as scratch:
                given = job | {"out": f"{scratch}/found", "data": str(arrays)}
                facts, out = scripted(told or [], given, 4 * config.budget + ALLOWANCE, Path(scratch) / "caches")
                if FAILED in facts or "reason" in facts:
                    return facts
                return facts | {"summary": peers.summary({"att": peers.drawn(out)["att"]})}

        found = obtained(config, folder, wanted, measurement, f"causalpy, {firms:,} firms", measure)
        if found is not None:
            yield found | {"sampler": "causalpy", "model": "imputation", "firms": firms, "repeat": 0}


def budgeted(config: BenchConfig, steps: int) -> dict[str, Any]:
    """What tells a peer how long it may sample."""
    counts = {"draws": DRAWS, "tune": TUNE, "chains": CHAINS, "cores": CORES}
    return counts | {"budget": config.budget, "steps": steps, "least_steps": LEAST_STEPS, "seed": config.seed}


def exported(config: BenchConfig, folder: Path, wanted: bool, model: str, firms: int) -> Path | None:
    """The arrays of a posterior, written where they are not there yet; None where they are not, and not wanted.

    Raises
    ------
    UserError
        The panel cannot be drawn.
    """
    from src.trace import code_version

    job = of_size(config, model, firms)
    sources = (SCRIPTS / "export.py", SCRIPTS / "panels.py")
    named = Measurement("data", f"{model}-{firms}", job | {"code": code_version()}, sources).file(folder)
    path = named.with_suffix(".npz")
    if path.exists() or not wanted:
        return path if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        facts, out = scripted(module("bench.export"), job | {"out": f"{scratch}/found"}, ALLOWANCE)
        if FAILED in facts:
            raise UserError(f"the panel of {firms:,} firms cannot be made: {facts[FAILED]}")
        shutil.move(out.with_name(f"{out.name}.npz"), path)
    return path


def sha256_of(path: Path) -> str:
    """Of the bytes of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table_for_r(arrays: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The arrays as a table of columns with known prior SDs, written into a folder, and what tells R about it."""
    import numpy as np
    import pandas as pd

    from bench.exchange import LEAST_DRAWS, LEAST_TUNE

    effects = np.zeros((len(arrays["y"]), len(arrays["effect_sd"])))
    effects[arrays["treated"]] = arrays["effects"]
    later = arrays["time"][:, None] == np.arange(1, arrays["time"].max() + 1)
    wide = float(arrays["wide"])
    columns, prior = {"y": arrays["y"], "unit": arrays["unit"]}, {}
    for letter, block, sd in (
        ("e", effects, arrays["effect_sd"]),
        ("s", arrays["exposures"], arrays["exposure_sd"]),
        ("x", arrays["covariates"], None),
        ("t", later.astype(float), None),
    ):
        for j, column in enumerate(block.T):
            columns[f"{letter}{j}"] = column
            prior[f"{letter}{j}"] = wide if sd is None else float(sd[j])
    path = folder / "panel.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    least = {"least_tune": LEAST_TUNE, "least_draws": LEAST_DRAWS}
    return least | {"data": str(path), "prior_sd": prior, "wide": wide, "sigma_sd": float(arrays["sigma_sd"])}


def count_part(config: BenchConfig, folder: Path, wanted: bool) -> dict[str, Any]:
    """Counts collapsed, and every disturbance a parameter."""
    from src.trace import code_version

    found: dict[str, Any] = {}
    sources = (SCRIPTS / "counts.py", SCRIPTS / "exchange.py", ROOT / "tests" / "oracles" / "latent.py")
    for name, full in ((COLLAPSED, False), ("nutpie", True)):
        job = budgeted(config, STEPS_LATENT) | {"firms": config.counts, "full": full}
        measurement = Measurement("counts", f"{name}-{config.counts}", job | {"code": code_version()}, sources)

        def measure(job: dict = job) -> dict:
            with tempfile.TemporaryDirectory() as scratch:
                given, limit = job | {"out": f"{scratch}/found"}, 4 * config.budget + ALLOWANCE
                facts, out = scripted(module("bench.counts"), given, limit, Path(scratch) / "caches")
                if FAILED in facts or "reason" in facts:
                    return facts
                theta = peers.drawn(out)["theta"]
                columns = {str(j): theta[..., j] for j in range(theta.shape[-1])}
                return facts | {"summary": peers.summary(columns)}

        row = obtained(config, folder, wanted, measurement, f"counts, {name}", measure)
        if row is not None:
            found[name] = row | {"sampler": name}
    return found
