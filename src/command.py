"""Run a task under Hydra: dictionaries that replace, words for errors, exit codes.

Exit codes: 0 done; 1 a fault of ours, said in full; 2 a user's mistake, said in one message, nothing written; 3 done,
but diagnostics failed. A sweep finishes all its jobs and ends with the worst code.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra import main as hydra_main
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import config as schema
from src.config import Config

ROOT = Path(__file__).parents[1]
REPLACED = tuple(f.name for f in fields(schema.Replacement))
HOME = "traces"
SCHEMAS = {
    "data": schema.DataConfig,
    "synthetic": schema.SyntheticConfig,
    "pooled": schema.PooledConfig,
    "nopool": schema.NopoolConfig,
    "hier": schema.HierConfig,
    "gaussian": schema.GaussianConfig,
    "prior": schema.PriorConfig,
    "sampler": schema.SamplerConfig,
}
NOISE = ("full_key:", "object_type=", "reference_type=")


class UserError(ValueError):
    """A setting that cannot be: the problem and the remedy, in one message."""


def register() -> None:
    """Put a schema behind every config group, so that a misspelt option dies at once."""
    store = ConfigStore.instance()
    store.store(name="settings", node=Config)
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node)


def replacing(override: str) -> str:
    """An override of a whole dictionary, turned into one that replaces instead of merging."""
    return re.sub(rf"^\+{{0,2}}data\.({'|'.join(REPLACED)})=", r"replace.\1=", override)


def settings(composed: DictConfig) -> Config:
    """The composed config as dataclasses, replacements made and every value checked.

    Raises
    ------
    UserError
        A missing or impossible value.
    """
    try:
        found = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(in_words(error)) from error
    assert isinstance(found, Config)
    for name in REPLACED:
        given = getattr(found.replace, name)
        if given is None:
            continue
        if not (isinstance(given, dict) and all(isinstance(column, str) for column in given.values())):
            raise UserError(
                f"data.{name}={given} is not a dictionary of columns; give one as in 'data.{name}={{a: b}}'"
            )
        setattr(found.data, name, given)
    if found.replace.groups is not None and found.replace.predictors is None:
        found.data.predictors = {k: v for k, v in found.data.predictors.items() if k in found.data.groups}
    found.replace = schema.Replacement()
    check_values(found, "")
    return found


def check_values(node: Any, prefix: str) -> None:
    """Hold every field against its options and bounds."""
    for f in fields(node):
        value, name = getattr(node, f.name), f"{prefix}{f.name}"
        if is_dataclass(value):
            check_values(value, f"{name}.")
        elif "options" in f.metadata and value not in f.metadata["options"]:
            options = f.metadata["options"]
            hint = closest(str(value), options)
            raise UserError(f"{name}={value} is not an option{hint}; choose from {', '.join(options)}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            above, least, below = (f.metadata.get(k) for k in ("above", "least", "below"))
            wrong = (
                (above is not None and not value > above)
                or (least is not None and value < least)
                or (below is not None and not value < below)
            )
            if wrong:
                wants = [("above", above), ("at least", least), ("below", below)]
                bounds = " and ".join(f"{word} {bound:g}" for word, bound in wants if bound is not None)
                raise UserError(f"{name}={value} is impossible; give a number {bounds}")


def in_words(error: Exception) -> str:
    """What Hydra or OmegaConf complains about, in one short message with the closest known name."""
    text = f"{error}\n{error.__cause__ or ''}"
    if unknown := re.search(r"Could not override '([\w./]+)'", text):
        name = unknown.group(1)
        known = {f.name for node in vars(schema).values() if is_dataclass(node) for f in fields(node)}
        return f"there is no setting {name} here{closest(name.rpartition('.')[2], known)}; see --help"
    if absent := re.search(r"Could not find '(\w+)/(\w+)'", text):
        group, option = absent.groups()
        options = [path.stem for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
        return f"{group}={option} is not an option{closest(option, options)}; choose from {', '.join(options)}"
    if missing := re.search(r"missing mandatory value: (\w+)", text):
        word = missing.group(1)
        return f"data.{word} is not given: say which column of the file it is, as in data.{word}=my_column"
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(NOISE)))


def closest(word: str, known: Iterable[str]) -> str:
    """A hint at the closest known word, empty where none is close."""
    close = difflib.get_close_matches(word, [k for k in known if k != word], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def folder_of(run: str, config: Config) -> Path:
    """Where a run is kept: hydra.run.dir where it was given, else <root>/<data>/<model>/<run_id>."""
    hydra = HydraConfig.get()
    if hydra.mode is not None and hydra.mode.name == "MULTIRUN":
        return Path(hydra.sweep.dir) / config.data.name / config.model.name / run
    if hydra.run.dir != HOME:
        return Path(hydra.run.dir)
    return Path(HOME) / config.data.name / config.model.name / run


def say(text: str) -> None:
    """A line to the person at the terminal, on standard error."""
    print(text, file=sys.stderr)


def run(task: Callable[[Config], int], composed: DictConfig) -> int:
    """One job: its exit code; a user's mistake is said and leaves nothing behind."""
    from src.panel import PanelError

    try:
        return task(settings(composed))
    except (UserError, PanelError) as error:
        say(f"error: {error}")
        given = Path(HydraConfig.get().run.dir)
        if given != Path(HOME) and given.is_dir() and not any(given.iterdir()):
            given.rmdir()
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # a fault of ours: say it in full, and let the other jobs of a sweep go on
        traceback.print_exc()
        return 1


def command(task: Callable[[Config], int]) -> NoReturn:
    """Run `task` as a command: compose the config from the command line, run every job, exit with the worst code."""
    register()
    sys.argv[1:] = [replacing(override) for override in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's own printer
    codes = []

    @hydra_main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
    def job(composed: DictConfig) -> None:
        codes.append(run(task, composed))

    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        say(f"error: {in_words(error)}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped; nothing was lost that had been written")
        sys.exit(130)
    sys.exit(max(codes, default=0))
