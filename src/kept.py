"""A run that is kept, taken up again: its folder, its settings, its columns.

folder ──settings_of──▶ Config ──recollapsed──▶ Collapsed, of the same data as when it was fitted
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.command import SCHEMAS, UserError, make_entries
from src.config import Config, exposure_entries
from src.panel import some

if TYPE_CHECKING:
    from src.collapse import Collapsed


def folder_of_run(run: str | Path | None, example: str) -> Path:
    """The folder of a run, given itself or its posterior.nc.

    Parameters
    ----------
    run : str or Path, optional
    example : str
        How to name one.

    Raises
    ------
    UserError
        There is no run.
    """
    if run is None:
        raise UserError(f"name the run, as in {example}")
    path = Path(run).expanduser()
    folder = path.parent if path.name == "posterior.nc" else path
    if not (folder / "posterior.nc").is_file() or not (folder / ".hydra" / "config.yaml").is_file():
        raise UserError(f"{path} holds no finished run: name a folder that python -m src.fit has written")
    return folder


def settings_of(folder: Path) -> Config:
    """The settings of a run, as they were composed.

    Raises
    ------
    UserError
        They are those of another version.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    kept: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
    try:
        kinds = {
            "data": "synthetic" if "parameters" in kept["data"] else "data",
            "model": kept["model"]["name"],
            "likelihood": kept["likelihood"]["name"],
            "prior": "prior",
            "sampler": "sampler",
            "engine": kept["engine"]["name"],
        }
        groups: Any = {
            name: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SCHEMAS[kind]), kept[name]))
            for name, kind in kinds.items()
        }
        rest: Any = {name: value for name, value in kept.items() if name not in groups}
        found = Config(**groups, **rest)
    except (KeyError, TypeError, OmegaConfBaseException) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"the settings in {folder / '.hydra'} are of another version ({first}): fit again") from error
    make_entries(found.data)
    return found


def recollapsed(run: Config, attributes: dict) -> tuple[Collapsed, list[str]]:
    """The columns and the errors of a run of one outcome, and what is to be said of them.

    Parameters
    ----------
    run : Config
    attributes : dict
        Of the root of its posterior.

    Raises
    ------
    UserError
        Its rows are not in memory, or its data have changed.
    """
    from src import stream, trace
    from src.collapse import collapse
    from src.design import build_design
    from src.fit import errors_of, has_units, load, needs_units, unpooled
    from src.hypothesis import missing_ties

    if stream.is_streamed(run.data, run.engine.rows_in_memory):
        raise UserError("the rows of this run are streamed from files, and are needed in memory here: fit again "
                        "with a larger engine.rows_in_memory")  # fmt: skip
    lost = missing_ties(exposure_entries(run.data))
    if lost:
        raise UserError(f"no file {some(lost)} of ties: the run needs it where it was")
    panel, shares, _ = load(run)
    if panel.sha256 != attributes["data_sha256"]:
        raise UserError(
            f"the data of this run have changed since it was fitted (sha256 {attributes['data_sha256'][:12]} then, "
            f"{panel.sha256[:12]} now): fit again"
        )
    regression, _ = build_design(panel, shares, needs_units(run))
    said = []
    if attributes["code_version"] != trace.code_version():
        said.append("the run was fitted by another version of the code: where that matters, fit again")
    return collapse(regression, errors_of(run, regression), unpooled(run, regression), has_units(run)), said
