"""A study of calibration: `python -m src.recover generator=realistic n=200 'models=[hier,pooled]'`.

    study ─▶ replications, one file each ─▶ recovered.csv, recovered.png

Every replication is written as soon as it is done, so a study that was stopped goes on where it was, and n=500 after
n=100 adds 400. Replications are done where `engine` says, in processes of this machine or on others, and written here;
a process keeps the models that it has compiled.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from src.command import UserError, command, home, say
from src.config import RecoverConfig
from src.panel import count

if TYPE_CHECKING:
    import pandas as pd

    from src.engine import Engine
    from src.replicate import Failure, Study
    from src.simulate import Plan

    type Work = Callable[[int], pd.DataFrame | Failure]


def recover(config: RecoverConfig) -> int:
    """Run the study and write its folder; 0 where every replication could be done, 1 where none could, else 3."""
    from src import coverage, overview, trace
    from src.engine import opened
    from src.replicate import attempted
    from src.terminal import console

    study = study_of(config)
    name = study.name()
    rehearse(study)
    with opened(config.engine) as engine:
        folder = claimed(home("recover", study.world.name, name), name, study, config.refit)
        kept = finished(folder)
        missing = [r for r in range(config.n) if r not in kept]
        opening(study, config.n, len(missing), folder)
        ordered = [r for share in shared_out(missing, study.designs, config.engine.cores) for r in share]
        lost = run_all(engine, partial(attempted, study), ordered, folder, config.progress)
    rows = load(folder, config.n)
    if rows.empty:
        reason = next(iter(lost.values()))
        say(f"error: no replication could be done: {reason} (see {replications(folder)})")
        return 1
    table = coverage.recovered(rows, study.world.name, study.world.breaks)
    trace.write(table.to_csv(index=False), folder / "recovered.csv")
    oracle = coverage.against_oracle(rows, study.world.name)
    if len(oracle):
        trace.write(oracle.to_csv(index=False), folder / "oracle.csv")
    heading = title(study, rows)
    coverage.draw(rows, heading, folder / "recovered.png")
    out = console()
    out.print(coverage.printed(table, heading, remarks(study, rows, config.n, lost, folder)))
    if len(oracle):
        out.print("\n".join(overview.oracles([oracle])), soft_wrap=True)
    for file in ("recovered.csv", "recovered.png", *(["oracle.csv"] if len(oracle) else [])):
        out.print(f"  {folder / file}", soft_wrap=True)
    return 3 if lost else 0


def study_of(config: RecoverConfig) -> Study:
    """The study that the settings describe.

    Raises
    ------
    UserError
        Nothing is to be studied.
    """
    from hydra import compose
    from omegaconf import OmegaConf

    from src.replicate import Study

    if not config.models and not config.estimators:
        raise UserError("models and estimators are both empty: name something to study, as in 'models=[hier]'")
    options = {name: OmegaConf.to_object(compose("config", [f"model={name}"]).model) for name in config.models}
    return Study(
        world=config.generator,
        likelihood=config.likelihood,
        prior=config.prior,
        sampler=config.sampler,
        models=options,
        estimators=tuple(config.estimators),
        designs=config.designs,
        seed=config.seed,
    )


def rehearse(study: Study) -> None:
    """Draw one panel and hold the settings against it, so that a mistake dies here and not in every replication.

    Raises
    ------
    UserError, PanelError
        Settings that do not go together.
    """
    from src.design import build_design
    from src.exposure import row_shares
    from src.fit import errors_of, order_of

    panel = study.panel(0)
    regression, _ = build_design(panel, row_shares(panel)[0])
    for model in study.models:
        config = study.config(model)
        order_of(config)
        errors_of(config, regression)


def claimed(folder: Path, name: str, study: Study | Plan, refit: bool) -> Path:
    """The folder, with the settings of the study in it, if it is free or holds this very study.

    Raises
    ------
    UserError
        It holds another study.
    """
    from src import trace

    record = folder / "study.json"
    other = json.loads(record.read_text())["study"] if record.exists() else None
    if other not in (None, name) and not refit:
        raise UserError(
            f"{folder} holds another study ({other}, this one is {name}): give another hydra.run.dir, or refit=true to "
            "replace it"
        )
    if refit:
        shutil.rmtree(replications(folder), ignore_errors=True)
    replications(folder).mkdir(parents=True, exist_ok=True)
    for left in replications(folder).glob(".*.part"):  # of processes that were stopped while they wrote
        left.unlink(missing_ok=True)
    facts = {"study": name, "settings": study.settings(), "libraries": trace.library_versions()}
    trace.write(json.dumps(facts, indent=2), record)
    return folder


def replications(folder: Path) -> Path:
    """Where a study keeps its replications."""
    return folder / "replications"


def file_of(folder: Path, r: int) -> Path:
    """The file of replication r."""
    return replications(folder) / f"{r:05d}.parquet"


def finished(folder: Path) -> set[int]:
    """Replications that are done."""
    return {int(path.stem) for path in replications(folder).glob("*.parquet")}


def load(folder: Path, n: int) -> pd.DataFrame:
    """Rows of the replications below n that are done; attributes: those of every replication."""
    import pandas as pd

    frames = [pd.read_parquet(file_of(folder, r)) for r in sorted(finished(folder)) if r < n]
    attributes = [frame.attrs for frame in frames]
    for frame in frames:
        frame.attrs = {}
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    rows.attrs = {"replications": attributes}
    return rows


def run_all(engine: Engine, work: Work, missing: list[int], folder: Path, progress: bool) -> dict[int, str]:
    """Do the missing replications on the engine, each being written as it comes; what was lost, with its reason.

    `work` does one of them; it is sent to other processes.
    """
    from src.progress import shown
    from src.terminal import console

    lost: dict[int, str] = {}
    try:
        for r, found in shown(replicated(engine, work, missing), len(missing), progress):
            if reason := keep(found, file_of(folder, r)):
                lost[r] = reason
    except KeyboardInterrupt:
        kept = count(len(finished(folder)), "replication")
        console().print(f"kept: {kept} in {folder}; the same command goes on from there", soft_wrap=True)
        raise
    return lost


def shared_out(missing: list[int], designs: int, cores: int) -> list[list[int]]:
    """Replications of each process, equally many, of as few designs as that allows, in the order of their numbers."""
    ordered = sorted(missing, key=lambda r: (r % designs, r))
    bounds = [round(k * len(ordered) / cores) for k in range(cores + 1)]
    shares = [sorted(ordered[a:b]) for a, b in pairwise(bounds)]
    return [share for share in shares if share]


def replicated(engine: Engine, work: Work, left: list[int]) -> Iterator[tuple[int, pd.DataFrame | Failure]]:
    """Replications as they are done; one that ends its process is given up, and the others go on."""
    from src.engine import LostError
    from src.replicate import Failure

    while left:
        done = set()
        try:
            for position, found in engine.each(work, left):
                done.add(left[position])
                yield left[position], found
        except LostError as error:
            gone = left if error.position is None else [left[error.position]]
            for r in set(gone) - done:
                done.add(r)
                yield r, Failure(f"{error}; the same command tries again")
        left = [r for r in left if r not in done]


def keep(found: pd.DataFrame | Failure, file: Path) -> str:
    """Write the rows of a replication, or what became of it, beside the others; the reason, if it could not be done."""
    from src.replicate import Failure
    from src.trace import whole, write

    failure = file.with_suffix(".error.txt")
    if isinstance(found, Failure):
        write(found.traceback or found.reason, failure)
        return found.reason
    with whole(file) as part:
        found.to_parquet(part, index=False)
    failure.unlink(missing_ok=True)
    return ""


def opening(study: Study, n: int, missing: int, folder: Path) -> None:
    """Say what is studied and how much of it is there already."""
    from src.terminal import console

    out = console()
    names = ", ".join([*study.models, *study.estimators])
    out.print(f"{study.world.name}: {count(n, 'replication')} of {count(study.designs, 'design')}; {names}")
    if study.world.breaks:
        out.print(f"assumption broken: {study.world.breaks}", style="yellow")
    if missing < n:
        out.print(f"{n - missing:,} are kept in {folder}; {missing:,} are left to do", soft_wrap=True)
    if missing and study.models:
        out.print("every process compiles each model once a design before it gets going")


def title(study: Study, rows: pd.DataFrame) -> str:
    """What the table and the figure are about."""
    broken = f"; assumption broken: {study.world.breaks}" if study.world.breaks else ""
    return f"{study.world.name}, {count(rows['replication'].nunique(), 'replication')}{broken}"


def remarks(study: Study, rows: pd.DataFrame, n: int, lost: dict[int, str], folder: Path) -> list[str]:
    """What a reader of the table is to know: what the columns are, what went wrong, where the time went."""
    import numpy as np

    designs = len({r % study.designs for r in rows["replication"].unique()})
    notes = [
        "SD: of the estimates about the truth; mean s.e.: posterior SD or standard error; ±: Monte Carlo error, over "
        f"outcomes given {count(designs, 'design')}",
    ]
    for reason, times in Counter(lost.values()).most_common(3):
        notes.append(f"{times} of {n} replications could not be done: {reason} (see {replications(folder)})")
    checks = [attributes["checks"] for attributes in rows.attrs["replications"]]
    for model in study.models:
        diverged = sum(check[model]["divergences"] > 0 for check in checks)
        rhat = max((check[model]["rhat"] for check in checks if np.isfinite(check[model]["rhat"])), default=np.nan)
        notes.append(f"{model}: divergences in {diverged} of {len(checks)} fits, largest R-hat of the ATT {rhat:.3f}")
    return [*notes, seconds_a_replication(rows.attrs["replications"])]


def seconds_a_replication(attributes: list[dict]) -> str:
    """Median seconds of every stage, what is compiled apart."""
    import numpy as np

    stages = dict.fromkeys(stage for found in attributes for stage in found["seconds"])
    spent = {stage: [found["seconds"].get(stage, 0.0) for found in attributes] for stage in stages}
    usual = {stage: float(np.median(values)) for stage, values in spent.items() if not stage.endswith("compile")}
    compiling = sum(sum(values) for stage, values in spent.items() if "compile" in stage)
    split = ", ".join(f"{stage} {value:.2f}" for stage, value in usual.items() if value >= 0.005)
    return f"seconds a replication: {sum(usual.values()):.1f} ({split}); compiling {compiling:.0f} in all"


if __name__ == "__main__":
    command(recover, config_name="recover")
