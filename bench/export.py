"""The posterior of a collapsed model as arrays, for samplers with a parameter for every firm: `python -m bench.export`.

A coefficient of the design is a linear map of independent ones: effects over event time are sums of increments, the
deviations of a pooled term, which add up to zero, an orthonormal basis times one less of them. The columns that go with
the independent ones are the design's times that map; `maps` leads back from their draws to the design's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy.linalg

from bench.panels import world_of
from models.inputs import BY, Design, Priors
from src.collapse import Collapsed, collapse
from src.config import Config
from src.design import build_design
from src.fit import errors_of, load, needs_units, priors_of, unpooled

WIDE = 30.0  # prior SD, in units of s, of what the collapsed model has flat


def zero_sum_basis(levels: int) -> np.ndarray:
    """Orthonormal columns that add up to zero, shape (level, level - 1): basis z ~ zero-sum Normal if z ~ Normal."""
    return scipy.linalg.null_space(np.ones((1, levels)))


def term(design: Design, name: str, priors: Priors) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Map of a block from independent coefficients, their prior SDs, the scale of its spread where one is estimated.

    The prior SD of a coefficient that the spread multiplies is 1, preceded by that of the predictor where there is one.

    Raises
    ------
    ValueError
        A block that the benchmark's models do not have.
    """
    block = design.blocks[name]
    if name == "mu":
        return np.ones((1, 1)), np.array([priors.mu]), None
    if name in ("exposure", "difference"):
        sd = priors.exposure if name == "exposure" else priors.difference
        return np.eye(block.size), np.full(block.size, sd), None
    if name == "path":
        gaps = np.sqrt(np.diff(np.asarray(block.levels, dtype=float)))
        levels = np.vstack([np.zeros(len(gaps)), np.tril(np.ones((len(gaps), len(gaps)))) * gaps])
        return levels - design.rows_per_event_time @ levels, np.full(len(gaps), priors.path), None
    if name in ("trait", "trait_late", "unit") or name.startswith(BY):
        raise ValueError(f"{name} is no block of the benchmark's models")
    taken = design.blocks["cohort"].size + design.blocks["path"].size - 2 if name == "cell" else 0
    known = block.size - taken < priors.min_levels
    basis = zero_sum_basis(block.size)
    sd = np.full(basis.shape[1], priors.fixed if known else 1.0)
    if block.predictor is not None:
        basis, sd = np.column_stack([block.predictor, basis]), np.r_[priors.predictor, sd]
    return basis, sd, None if known else priors.sd


def terms_of(design: Design, model: str) -> list[str]:
    """Blocks of the effect of adoption, and of what is on treated rows beside it."""
    names = ["mu"]
    if model == "hier":
        several = design.blocks["cohort"].size > 1
        pooled = [*(["cohort", "cell"] if several else []), *design.groups, *design.interactions]
        pooled += [f"{name}_late" for name in design.groups if f"{name}_late" in design.blocks]
        names += [name for name in ("path", *pooled) if design.blocks[name].size > 1]
    return [*names, *(["difference"] if "difference" in design.blocks else [])]


def arrays(collapsed: Collapsed, priors: Priors, model: str) -> dict[str, np.ndarray]:
    """The arrays that bench/README.md lists, and `maps`, `labels`: the design's columns from effects and exposures."""
    regression, s = collapsed.regression, collapsed.s
    design, panel = regression.design, regression.panel
    treated = np.flatnonzero(panel.treated)
    columns, maps, sds, groups, spreads, names = [], [], [], [], [], terms_of(design, model)
    for name in names:
        basis, sd, scale = term(design, name, priors)
        block = regression.matrix[:, design.blocks[name].columns][treated].toarray()
        columns.append(block @ basis)
        maps.append(basis)
        sds.append(sd)
        free = design.blocks[name].predictor is not None  # the slope on it is not multiplied by the spread
        groups.append(np.where(np.arange(len(sd)) < free, -1, -1 if scale is None else len(spreads)))
        spreads += [] if scale is None else [(name, scale)]
    exposed = "exposure" in design.blocks

    def dense(name: str) -> np.ndarray:
        if name not in design.blocks:
            return np.zeros((len(panel.unit), 0))
        return regression.matrix[:, design.blocks[name].columns].toarray()

    outcome = panel.outcome / s
    return {
        "y": outcome - outcome.mean(),
        "unit": panel.unit.astype(np.int64),
        "time": np.searchsorted(panel.periods, panel.time).astype(np.int64),
        "start": panel.row_cohort - panel.periods[0],
        "covariates": dense("covariate"),
        "exposures": dense("exposure"),
        "exposure_sd": np.full(design.blocks["exposure"].size if exposed else 0, priors.exposure),
        "treated": treated,
        "effects": np.hstack(columns),
        "effect_sd": np.concatenate(sds),
        "spread": np.concatenate(groups).astype(np.int64),
        "spread_scale": np.array([scale for _, scale in spreads]),
        "spread_names": np.array([f"sd_{name}" for name, _ in spreads], dtype=str),
        "sigma_sd": np.array(priors.sigma),
        "wide": np.array(WIDE),
        "maps": scipy.linalg.block_diag(*maps),
        "labels": np.array(design.labels(tuple(names)), dtype=str),
        "exposure_labels": np.array(design.labels(("exposure",)) if exposed else [], dtype=str),
    }


def prepared(config: Config) -> Collapsed:
    """The collapsed regression of a fit, as `src.fit` makes it."""
    panel, shares, _ = load(config)
    regression, _ = build_design(panel, shares, needs_units(config))
    return collapse(regression, errors_of(config, regression), unpooled(config, regression))


def main() -> None:
    """Write the arrays of the job's world and model to `<out>.npz`."""
    job = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        config = world_of(job["firms"], job["adopters"], Path(folder), *job["overrides"])
        collapsed = prepared(config)
    np.savez(job["out"] + ".npz", **arrays(collapsed, priors_of(config), config.model.name))
    panel = collapsed.regression.panel
    facts = {"rows": len(panel.outcome), "firms": len(panel.units), "periods": len(panel.periods)}
    Path(job["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
