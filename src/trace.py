"""The only door to the DataTree: put it together in units of the outcome, keep it, open it again.

NUTS works in units of s, the residual SD of the saturated fit; a posterior is kept in units of the outcome. Every
parameter is then multiplied by s, but for raw draws (`*_offset`, `*_partial`), shares (`*_tied`), correlations
(`*_correlation`) and lengths in periods (`*_length`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from models.inputs import UNITLESS
from src.collapse import Collapsed
from src.design import NUISANCE, Regression
from src.kernel import SHAPE
from src.panel import Panel

ROOT = Path(__file__).parents[1]
DENSITIES = ("log_prior", "log_likelihood")
LIBRARIES = ("pymc", "pytensor", "nutpie", "arviz", "xarray", "numpy", "pandas", "scipy", "pyfixest", "diff-diff")
# what determines a posterior: a change elsewhere rebuilds tables and figures without refitting
STAGES = (
    *("panel", "read", "indices", "validate", "examine", "ties", "encode", "synthetic", "stream", "exposure", "kernel"),
    *("design", "blocks", "within", "products", "errors", "passes", "nuisance", "sites", "levels", "counts"),
    *("chance", "collapse", "system", "sample", "density"),
)
SOURCES = ("models/*.py", *(f"src/{stage}.py" for stage in STAGES))


def code_version(*more: str) -> str:
    """Hash of the sources that determine a posterior, and of those that `more` names beyond them, as "src/read.py"."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in (*SOURCES, *more) for path in ROOT.glob(pattern)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_id(settings: dict, data_sha256: str) -> str:
    """Name of a run: the same settings, data and code give the same posterior and hence the same name."""
    text = json.dumps([settings, data_sha256, code_version()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def in_outcome_units(parameters: xr.Dataset, s: float) -> xr.Dataset:
    """Parameters times s, except raw draws and lengths."""
    return parameters.map(lambda v: v if str(v.name).endswith((*UNITLESS, *SHAPE)) else v * s, keep_attrs=True)


def with_nuisance(posterior: xr.Dataset, collapsed: Collapsed, seed: int) -> xr.Dataset:
    """Add the integrated terms, lambda_[time] (0 in the first period) and beta[covariate], drawn given the others.

    Parameters
    ----------
    posterior : Dataset
        In units of the outcome, with theta, and sigma where it is not known.
    collapsed : Collapsed
    seed : int
    """
    regression, conditional = collapsed.regression, collapsed.conditional
    panel, blocks, calendar = regression.panel, regression.design.blocks, regression.frame.periods
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    kept = [name for name in blocks if name not in NUISANCE]
    labels = regression.design.labels(tuple(kept))
    theta = posterior["theta"].reindex(column=labels, fill_value=0.0).transpose("chain", "draw", "column").to_numpy()
    sigma = posterior["sigma"].to_numpy().ravel() if "sigma" in posterior else np.full(chains * draws, collapsed.s)
    rng = np.random.default_rng([seed, 1])
    eta = conditional.draw(theta.reshape(chains * draws, -1), sigma, rng).reshape(chains, draws, -1)
    periods = blocks["time"].size if "time" in blocks else 0
    found = posterior.copy()
    path = np.concatenate([np.zeros((chains, draws, 1)), eta[..., :periods]], axis=-1)
    found["lambda_"] = xr.DataArray(path, dims=("chain", "draw", "time"), coords={"time": calendar})
    if panel.covariate_names:
        slope = eta[..., -len(panel.covariate_names) :] / regression.covariate_sd
        names = list(panel.covariate_names)
        found["beta"] = xr.DataArray(slope, dims=("chain", "draw", "covariate"), coords={"covariate": names})
    return found


def assemble(sampled: xr.DataTree, collapsed: Collapsed, seed: int, attributes: dict) -> xr.DataTree:
    """The run's DataTree but for its estimands: posterior, sample_stats, prior, observed_data, constant_data.

    Where there are any, log_prior and log_likelihood (see src.density), and the coefficients under one error scale for
    all units, `common_scale`.

    Parameters
    ----------
    sampled : DataTree
        From `sample.draw_posterior`, in units of s.
    collapsed : Collapsed
    seed : int
    attributes : dict
        Root attributes; what is not text or a number is written as JSON.
    """
    regression, s = collapsed.regression, collapsed.s
    panel = regression.panel
    posterior = in_outcome_units(sampled["posterior"].to_dataset(), s)
    observed = observed_rows(panel) if regression.blocks is None else observed_cells(regression)
    constant = xr.Dataset({"s": s, "covariate_sd": ("covariate", regression.covariate_sd)})
    if regression.exposures:
        constant["exposure_sd"] = xr.DataArray(regression.exposure_sd, dims="exposure")
        constant["exposure_centre"] = xr.DataArray(regression.exposure_centre, dims="exposure")
        constant = constant.assign_coords(exposure=list(regression.exposures))
    groups = {
        "posterior": with_nuisance(posterior, collapsed, seed),
        "sample_stats": sampled["sample_stats"].to_dataset(),
        "prior": in_outcome_units(sampled["prior"].to_dataset(), s),
        "observed_data": observed,
        "constant_data": constant.assign_coords(covariate=list(panel.covariate_names)),
    }
    groups |= {name: sampled[name].to_dataset() for name in DENSITIES if name in sampled.children}
    if "rival" in sampled.children:
        groups["common_scale"] = in_outcome_units(sampled["rival"].to_dataset()[["theta"]], s)
    tree = xr.DataTree.from_dict({name: without_attributes(group) for name, group in groups.items()})
    tree.attrs = {
        k: v if isinstance(v, str | int | float) else json.dumps(v, default=str) for k, v in attributes.items()
    }
    return tree


def observed_rows(panel: Panel) -> xr.Dataset:
    """The rows of a panel."""
    return xr.Dataset(
        {
            "outcome": ("obs", panel.outcome),
            "unit": ("obs", panel.units[panel.unit].astype(str)),
            "time": ("obs", panel.time),
            "cohort": ("obs", panel.row_cohort),
            "weight": ("obs", panel.weight),
        },
        coords={"obs": np.arange(len(panel.outcome))},
    )


def observed_cells(regression: Regression) -> xr.Dataset:
    """Means of rows that are not in memory: the outcome in every cohort (inf where never treated) and period."""
    cells = regression.frame.cells
    rows, weight, outcome = np.array(list(cells.values())).T
    cohort, time = np.array(list(cells)).T
    return xr.Dataset(
        {
            "outcome": ("obs", outcome / weight),
            "rows": ("obs", rows.astype(int)),
            "time": ("obs", time.astype(int)),
            "cohort": ("obs", cohort),
            "weight": ("obs", weight),
        },
        coords={"obs": np.arange(len(rows))},
    )


def without_attributes(group: xr.Dataset) -> xr.Dataset:
    """The data alone: what a library writes about itself (time stamps above all) would make equal runs differ."""
    return group.drop_attrs()


def with_estimands(tree: xr.DataTree, estimands: xr.Dataset) -> xr.DataTree:
    """The tree with the draws of every estimand on the outcome scale as its group `estimand`."""
    groups = {name: child.to_dataset() for name, child in tree.children.items()}
    complete = xr.DataTree.from_dict(groups | {"estimand": estimands})
    complete.attrs = tree.attrs
    return complete


def theta(tree: xr.DataTree, group: str = "posterior") -> xr.DataArray:
    """Coefficients over the labelled columns of the design, dims (chain, draw, column), in units of the outcome."""
    return tree[group].to_dataset()["theta"]


def densities(tree: xr.DataTree) -> tuple[xr.Dataset, xr.Dataset]:
    """Log prior and log likelihood of every draw, up to constants, dims (chain, draw)."""
    prior, likelihood = (tree[name].to_dataset() for name in DENSITIES)
    return prior, likelihood


def terms(theta: xr.DataArray) -> tuple[str, ...]:
    """Names of the design's blocks that coefficients over labelled columns belong to, in order."""
    return terms_of(theta["column"].to_numpy())


def terms_of(labels: Iterable) -> tuple[str, ...]:
    """Names of the design's blocks that labelled columns belong to, in order."""
    return tuple(dict.fromkeys(str(label).partition("[")[0] for label in labels))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` for the block to write to, then renamed; nothing is left where the block fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(text: str, path: Path) -> None:
    """Write text, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Installed version of every library that shapes a result."""
    return {name: version(name) for name in LIBRARIES}


def save(tree: xr.DataTree, path: Path) -> None:
    """Write the run, whole or not at all: a killed run leaves no half file under the final name."""
    with whole(path) as part:
        tree.to_netcdf(part, engine="h5netcdf")


def load(path: Path) -> xr.DataTree:
    """Open a kept run, all in memory, so that the file can be replaced."""
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load()


def kept_run_id(path: Path) -> str | None:
    """Name of the run that `path` holds; None where there is no readable run."""
    return kept_attribute(path, "run_id")


def kept_attribute(path: Path, name: str) -> str | None:
    """A root attribute of the run that `path` holds; None where there is no readable run."""
    import h5py

    try:
        with h5py.File(path) as file:
            return str(file.attrs[name])
    except (OSError, ValueError, KeyError):
        return None
