"""Run a task under Hydra: dictionaries that replace, words for errors, exit codes.

Exit codes: 0 done; 1 a fault of ours, said in full; 2 a user's mistake, said in one message, nothing written; 3 done,
but diagnostics failed. A sweep finishes all its jobs and ends with the worst code, also where a launcher runs them in
other processes or on other machines: every job leaves a note of how it ended in the folder of the sweep. Folders that
Hydra made and nobody filled are taken away again.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from uuid import uuid4

from hydra import main as hydra_main
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import config as schema
from src import threads
from src.complaints import CONF, REPLACED, closest, in_words, no_setting, options_of
from src.config import (
    BenchConfig,
    CalibrateConfig,
    Config,
    ExportConfig,
    LooConfig,
    PlaceboConfig,
    RecoverConfig,
    TargetConfig,
)

threads.single()
threads.rarely_collected()
ROOT = CONF.parent
HOME = "traces"
RECORD = "multirun.yaml"  # Hydra's record of a sweep
LOGS = ".submitit"  # where a queue keeps what jobs print
ENDS = {0: "done", 1: "failed", 3: "done, but its diagnostics failed"}  # in words, by exit code
SCHEMAS = {
    "data": schema.DataConfig,
    "synthetic": schema.SyntheticConfig,
    "pooled": schema.PooledConfig,
    "nopool": schema.NopoolConfig,
    "hier": schema.HierConfig,
    "mediation": schema.MediationConfig,
    "joint": schema.JointConfig,
    "gaussian": schema.GaussianConfig,
    "poisson_lognormal": schema.PoissonLognormalConfig,
    "poisson": schema.PoissonConfig,
    "prior": schema.PriorConfig,
    "sampler": schema.SamplerConfig,
    "local": schema.LocalConfig,
    "dask": schema.DaskConfig,
    "generator": schema.GeneratorConfig,
    "counties": schema.CountiesConfig,
}
PRIMARY = {
    "config": Config,
    "recover": RecoverConfig,
    "placebo": PlaceboConfig,
    "calibrate": CalibrateConfig,
    "bench": BenchConfig,
    "target": TargetConfig,
    "export": ExportConfig,
    "loo": LooConfig,
}  # what conf/<name>.yaml of a command sets


class UserError(ValueError):
    """A setting that cannot be: the problem and the remedy, in one message."""


@dataclass(frozen=True)
class Before:
    """What stood where Hydra makes its folders.

    Attributes
    ----------
    place : Path
        hydra.run.dir, or hydra.sweep.dir of a sweep.
    sweep : bool
    folders : frozenset of Path
        Those on the way to `place`, and beneath it where it is a sweep's.
    record : bytes, optional
        What the record of an earlier sweep in this place says.
    """

    place: Path
    sweep: bool
    folders: frozenset[Path]
    record: bytes | None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    code : int
        Exit code.
    said : str
        Of a user's mistake.
    number : int
        Of the job in its sweep.
    told : str
        What it was told beyond the defaults.
    log : str
        Folder of what it printed, where that did not reach the terminal.
    """

    code: int
    said: str = ""
    number: int = 0
    told: str = ""
    log: str = ""


class Footprint(Callback):
    """Hydra's hook for the moment before it makes a folder: notes in `seen` what stands there."""

    seen: ClassVar[list[Before]] = []  # Hydra makes its own instance: the class is all that we share with it

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """A single job is about to start."""
        self.seen.append(look(Path(config.hydra.run.dir), sweep=False))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep is about to start."""
        self.seen.append(look(Path(config.hydra.sweep.dir), sweep=True))


def look(place: Path, sweep: bool) -> Before:
    """What stands in a place now."""
    record = place / RECORD
    return Before(place, sweep, folders(place, sweep), record.read_bytes() if record.is_file() else None)


def folders(place: Path, beneath: bool) -> frozenset[Path]:
    """Folders on the way to `place`, itself included, and those beneath it if asked for."""
    above = {folder for folder in (place, *place.parents) if folder.is_dir()}
    return frozenset(above | ({Path(top) for top, _, _ in os.walk(place)} if beneath else set()))


def tidy(before: Before, wrote: bool) -> None:
    """Take away empty folders that were not there before, and the record of a sweep that wrote nothing."""
    record = before.place / RECORD
    if before.sweep and not wrote:
        if before.record is None:
            record.unlink(missing_ok=True)
        else:
            record.write_bytes(before.record)
    made = folders(before.place, before.sweep) - before.folders
    for folder in made if not wrote else ():
        if folder.parent.name == LOGS:
            shutil.rmtree(folder)
    for folder in sorted(made, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # it holds something
            folder.rmdir()


def register() -> None:
    """Put a schema behind every config group, so that a misspelt option dies at once."""
    store = ConfigStore.instance()
    # Hydra copies its sources for every question it asks of them, a hundred times for --help; entries of the store are
    # copied once more when they are read, so that the store itself need not be
    vars(store)["__deepcopy__"] = lambda memo: store
    hook = {"footprint": {"_target_": f"{__name__}.{Footprint.__name__}"}}
    store.store(group="hydra", name="config", node=HydraConf(callbacks=hook), provider="hydra")
    for name, node in PRIMARY.items():
        store.store(name=f"{name}_settings", node=node)
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node)


def understood(arguments: list[str]) -> list[str]:
    """The command line as Hydra is to see it: flags in front, paths in quotes, dictionaries that replace."""
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return sweep + [replacing(quoted(argument)) for argument in arguments if argument not in sweep]


def quoted(override: str) -> str:
    """An override of a path, in quotes where it has marks that mean something else to Hydra; ~ is the home folder."""
    found = re.fullmatch(r"(data\.path|run|folder|hydra\.(?:run|sweep)\.dir)=([^\"'$,{}\[\]]+)", override)
    if found is None:
        return override
    name, path = found.group(1), os.path.expanduser(found.group(2))
    return f"{name}={path}" if re.fullmatch(r"[\w./ -]+", path) else f'{name}="{path}"'


def replacing(override: str) -> str:
    """An override of a whole dictionary, turned into one that replaces instead of merging; null empties it."""
    replaced = re.sub(rf"^\+{{0,2}}data\.({'|'.join(REPLACED)})=", r"replace.\1=", override)
    return re.sub(r"^(replace\.\w+)=null$", r"\1={}", replaced)


def settings(composed: DictConfig) -> Config | RecoverConfig | BenchConfig | TargetConfig | ExportConfig | LooConfig:
    """The composed config as dataclasses, replacements made and every value checked.

    Raises
    ------
    UserError
        A missing or impossible value.
    """
    try:
        found = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(in_words(error, OmegaConf.get_type(composed) or Config)) from error
    assert isinstance(found, Config | RecoverConfig | BenchConfig | TargetConfig | ExportConfig | LooConfig)
    if isinstance(found, Config):
        make_replacements(found)
        make_entries(found.data)
    check_values(found, "", type(found))
    return found


def make_entries(data: schema.DataConfig) -> None:
    """Put dataclasses in the place of the dictionaries that exposures and derived columns are given as.

    Raises
    ------
    UserError
        One says something that its dataclass does not know.
    """
    data.exposures = {name: exposure(name, entry) for name, entry in data.exposures.items()}
    data.derive = {
        name: entry_of(f"data.derive.{name}", entry, schema.DeriveConfig) for name, entry in data.derive.items()
    }


def make_replacements(found: Config) -> None:
    """Put the dictionaries given on the command line in the place of those of the preset.

    Raises
    ------
    UserError
        One is no dictionary of columns.
    """
    for name in REPLACED:
        given = getattr(found.replace, name)
        if given is not None:
            setattr(found.data, name, columns(name, given))
    if found.replace.groups is not None and found.replace.predictors is None:
        found.data.predictors = {k: v for k, v in found.data.predictors.items() if k in found.data.groups}
    found.replace = schema.Replacement()


def columns(name: str, given: Any) -> dict[str, Any]:
    """A dictionary of columns given on the command line; names that are numbers become text.

    Raises
    ------
    UserError
        It is something else. An exposure may be a dictionary itself.
    """
    words = [*given.keys(), *given.values()] if isinstance(given, dict) else [None]
    plain = [word for word in words if not (name in ("exposures", "derive") and isinstance(word, dict))]
    if not all(isinstance(word, str | int | float) and not isinstance(word, bool) for word in plain):
        raise UserError(f"data.{name}={given} is not a dictionary of columns; give one as in 'data.{name}={{a: b}}'")
    return {str(key): entry if isinstance(entry, dict) else str(entry) for key, entry in given.items()}


def exposure(name: str, entry: Any) -> str | schema.ExposureConfig:
    """An entry of data.exposures: the name of a column as it is, a dictionary as a dataclass.

    Raises
    ------
    UserError
        It is something else, or says something that an exposure does not know.
    """
    if isinstance(entry, str | int | float) and not isinstance(entry, bool):
        return str(entry)
    return entry_of(f"data.exposures.{name}", entry, schema.ExposureConfig)


def entry_of[T](setting: str, entry: Any, kind: type[T]) -> T:
    """A dictionary as a dataclass.

    Raises
    ------
    UserError
        It is something else, or says something that the dataclass does not know.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(entry, dict):
        column = "neither a column nor" if kind is schema.ExposureConfig else "not"
        raise UserError(f"{setting}={entry} is {column} a dictionary of {', '.join(known)}")
    for word in entry:
        if word not in known:
            hint = closest(str(word), known)
            raise UserError(f"{setting} has no setting {word}{hint}; choose from {', '.join(known)}")
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), entry))
    except OmegaConfBaseException as error:
        raise UserError(f"{setting}: {str(error).splitlines()[0]}") from error
    assert isinstance(found, kind)
    return found


def check_values(node: Any, prefix: str, settings: type) -> None:
    """Hold every field against its options and bounds.

    Parameters
    ----------
    node : dataclass
    prefix : str
        Of the names of its fields.
    settings : type
        Dataclass of all settings of the command.

    Raises
    ------
    UserError
        Also for a field that the schema does not know: Hydra takes any name after a +.
    """
    known = [f.name for f in fields(node)]
    for stranger in vars(node).keys() - set(known):
        raise UserError(no_setting(f"{prefix}{stranger}", settings))
    for f in fields(node):
        value, name = getattr(node, f.name), f"{prefix}{f.name}"
        if is_dataclass(value):
            check_values(value, f"{name}.", settings)
        elif value is None:
            continue
        elif isinstance(value, dict):
            for key, entry in value.items():
                if is_dataclass(entry):
                    check_values(entry, f"{name}.{key}.", settings)
        elif "options" in f.metadata:
            check_options(name, [value], f.metadata["options"])
        elif "each" in f.metadata:
            check_options(name, value, f.metadata["each"])
        elif "files" in f.metadata:
            check_options(name, value, tuple(options_of(f.metadata["files"])))
        elif isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
            raise UserError(f"{name}={value} is not a plain list; give one as in '{name}=[a, b]'")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            check_bounds(name, value, **f.metadata)


def check_options(name: str, given: list[str], options: tuple[str, ...]) -> None:
    """Refuse a word that is not among the options, or comes twice.

    Raises
    ------
    UserError
    """
    for word in given:
        if word not in options:
            hint = closest(str(word), options)
            raise UserError(f"{name}={word} is not an option{hint}; choose from {', '.join(options)}")
        if given.count(word) > 1:
            raise UserError(f"{name} names {word} {given.count(word)} times; name it once")


def check_bounds(
    name: str, value: float, above: float | None = None, least: float | None = None, below: float | None = None
) -> None:
    """Refuse a number out of its bounds, or infinite.

    Raises
    ------
    UserError
    """
    inside = (
        math.isfinite(value)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
    )
    if not inside:
        wants = [("above", above), ("at least", least), ("below", below)]
        bounds = " and ".join(f"{word} {bound:,}" for word, bound in wants if bound is not None)
        kind = "finite number" if math.isinf(value) else "number"
        raise UserError(f"{name}={value} is impossible; give a {kind} {bounds}".rstrip())


def folder_of(run: str, config: Config) -> Path:
    """Where a run is kept: hydra.run.dir where it was given, else <root>/<data>/<model>/<run_id>."""
    return home(config.data.name, config.model.name, run)


def home(*names: str) -> Path:
    """A folder for results: hydra.run.dir where it was given, else the named one under the root."""
    hydra = HydraConfig.get()
    if is_sweep():
        return Path(hydra.sweep.dir, *names)
    return Path(HOME, *names) if hydra.run.dir == HOME else Path(hydra.run.dir)


def say(text: str) -> None:
    """A line to the person at the terminal, on standard error."""
    print(text, file=sys.stderr)


def run(task: Callable[[Any], int], composed: DictConfig) -> Outcome:
    """One job: how it ended; a user's mistake is said and leaves nothing behind."""
    try:
        known = settings(composed)
    except UserError as error:
        say(f"error: {error}")
        return Outcome(2, str(error))
    from src.panel import PanelError  # pandas comes with it: a mistake in the settings is said before

    try:
        return Outcome(task(known))
    except (UserError, PanelError) as error:
        say(f"error: {error}")
        return Outcome(2, str(error))
    except BrokenPipeError:  # the reader of our output has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Outcome(0)
    except Exception:  # a fault of ours: say it in full, and let the other jobs of a sweep go on
        traceback.print_exc()
        return Outcome(1)


def is_sweep() -> bool:
    """Whether the job that runs is one of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def noted(outcome: Outcome, folder: str) -> None:
    """Leave a note of how a job of a sweep ended, in a folder of that of the sweep: the job may be anywhere."""
    hydra = HydraConfig.get()
    queue = hydra.launcher.get("submitit_folder", "")
    known = replace(
        outcome,
        number=hydra.job.num,
        told=" ".join(hydra.overrides.task),
        log=queue.replace("%j", str(hydra.job.id)) if queue else "",
    )
    notes = Path(hydra.sweep.dir, folder)
    notes.mkdir(parents=True, exist_ok=True)
    part = notes / f".{known.number}"
    part.write_text(json.dumps(asdict(known)), encoding="utf-8")
    part.replace(notes / f"{known.number}.json")


def notes_of(sweep: Path, folder: str) -> list[Outcome]:
    """How the jobs of a sweep ended, in the order of their numbers; their notes are taken away."""
    found = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in (sweep / folder).glob("*.json")]
    shutil.rmtree(sweep / folder, ignore_errors=True)
    return sorted(found, key=lambda outcome: outcome.number)


def reported(outcome: Outcome) -> str:
    """How a job ended whose own words did not reach the terminal."""
    job = f"job {outcome.number} ({outcome.told})"
    if outcome.code == 2:
        return f"error: {outcome.said}; {job}"
    return f"{job}: {ENDS.get(outcome.code, 'stopped')}; what it printed is in {outcome.log}"


def with_run(arguments: list[str]) -> list[str]:
    """The command line with its first argument, where that is a path and no setting, as run=<path>."""
    first = next((k for k, word in enumerate(arguments) if not word.startswith("-")), None)
    if first is None or "=" in arguments[first]:
        return arguments
    return [*arguments[:first], f"run={arguments[first]}", *arguments[first + 1 :]]


def command(task: Callable[[Any], int], writes: bool = True, config_name: str = "config") -> NoReturn:
    """Run `task` as a command: compose the config from the command line, run every job, exit with the worst code.

    Parameters
    ----------
    task : callable
        Of the settings; gives the exit code.
    writes : bool
        Whether the task leaves anything behind when it succeeds.
    config_name : {"config", "recover", "placebo", "calibrate", "bench", "target", "export", "loo"}
        The file in conf/ that lists what the task can be told.
    """
    register()
    sys.argv[1:] = understood(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's own printer
    Footprint.seen.clear()
    folder = f".jobs-{uuid4().hex[:8]}"  # of this sweep alone
    codes: list[int] = []

    @hydra_main(version_base="1.3", config_path=str(CONF), config_name=config_name)
    def job(composed: DictConfig) -> None:
        outcome = run(task, composed)
        if is_sweep():
            noted(outcome, folder)
        else:
            codes.append(outcome.code)

    try:
        job()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # while composing: a job's own are handled
        say(f"error: {in_words(error, PRIMARY[config_name])}")
        codes.append(2)
    except OSError as error:
        say(f"error: {error.filename} cannot be a folder for runs ({error.strerror}): give another hydra.run.dir")
        codes.append(2)
    except RuntimeError as error:  # of a launcher
        say(f"error: a job of the sweep was lost ({str(error).splitlines()[0]}); the same command does what is missing")
        codes.append(1)
    except KeyboardInterrupt:
        say("stopped; nothing was lost that had been written")
        codes.append(130)
    finally:
        for before in Footprint.seen:
            ended = notes_of(before.place, folder) if before.sweep else []
            codes += [outcome.code for outcome in ended]
            for outcome in ended:
                if outcome.log:
                    say(reported(outcome))
            tidy(before, wrote=writes and any(code in (0, 1, 3) for code in codes))
    sys.exit(max(codes, default=0))
