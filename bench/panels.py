"""Panels of any size, and the settings that `src.fit` would have for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.command import CONF, ROOT, register, replacing, settings
from src.config import Config

PARAMETERS = ROOT / "data" / "synthetic" / "parameters.yaml"
FULL = {"firms": 4000, "industries": 82, "provinces": 31, "districts": 170}
LEAST_FIRMS = 18  # a district, on average
FIRMS_AN_INDUSTRY = 20


def configured(*overrides: str) -> Config:
    """The settings of `python -m src.fit` with these overrides."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = settings(compose("config", [replacing(override) for override in overrides]))
    assert isinstance(found, Config)
    return found


def write_world(firms: int, adopters: int, path: Path) -> Path:
    """Parameters of the synthetic world with this many firms, never more classes than firms can fill, at `path`."""
    world: Any = OmegaConf.load(PARAMETERS)
    districts = min(FULL["districts"], firms // LEAST_FIRMS)
    world.districts.least = min(world.districts.least, firms // (2 * districts))
    world.sizes.full = {
        "firms": firms,
        "industries": min(FULL["industries"], max(4, firms // FIRMS_AN_INDUSTRY)),
        "provinces": min(FULL["provinces"], max(1, districts // 2)),
        "districts": districts,
        "pilots": adopters,
    }
    OmegaConf.save(world, path)
    return path


def world_of(firms: int, adopters: int, folder: Path, *overrides: str) -> Config:
    """The settings of a fit to such a world, whose parameters are written into `folder`."""
    path = write_world(firms, adopters, folder / "world.yaml")
    return configured(f"data.parameters={path}", *overrides)
