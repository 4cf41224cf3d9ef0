"""Other samplers beside the collapsed one: which there are, where they run, and whether they found the same posterior.

An environment is a folder of its own beneath the user's cache folder, or R with the system's packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.command import ROOT, UserError, say

SCRIPTS = ROOT / "bench"
COLLAPSED = "collapsed"
STEPS = {"pooled": 63, "hier": 127}  # leapfrog steps an iteration that tuning is planned with, firms explicit
R_PACKAGES = ("r-base-core", "r-cran-brms")


@dataclass(frozen=True)
class Peer:
    """A sampler that gives every firm a parameter.

    Attributes
    ----------
    script : str
        In bench/.
    packages : tuple of str
        Pinned, in an environment of its own; empty where it runs in the project's.
    models : tuple of str
        That it can say.
    """

    script: str
    packages: tuple[str, ...] = ()
    models: tuple[str, ...] = ("pooled", "hier")


PEERS = {
    "nutpie": Peer("nutpie_explicit.py"),
    "pymc": Peer("pymc_explicit.py"),
    "numpyro": Peer("numpyro_explicit.py", ("numpyro==0.22.0", "jax==0.12.0.1", "jaxlib==0.12.0.1")),
    "bambi": Peer("bambi_explicit.py", ("bambi==0.21.0", "pymc==6.4.0", "pytensor==3.3.8"), ("pooled",)),
    "brms": Peer("brms_explicit.R", R_PACKAGES, ("pooled",)),
}
CAUSALPY = Peer("causalpy_staggered.py", ("CausalPy==0.9.0", "pymc==5.28.5", "pytensor==2.38.3"), ())
OPTIONAL = {name: peer for name, peer in (PEERS | {"causalpy": CAUSALPY}).items() if peer.packages}


def environments() -> Path:
    """Folder of the environments of optional peers."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hierdid" / "peers"


def command_of(name: str) -> list[str] | None:
    """The command that runs a peer's script; None where its environment is absent."""
    peer = (PEERS | {"causalpy": CAUSALPY})[name]
    script = str(SCRIPTS / peer.script)
    if not peer.packages:
        return [sys.executable, script]
    if peer.script.endswith(".R"):
        return ["Rscript", "--vanilla", script] if has_brms() else None
    python = environments() / name / "bin" / "python"
    return [str(python), script] if python.exists() else None


def has_brms() -> bool:
    """Whether R is there, with brms."""
    if shutil.which("Rscript") is None:
        return False
    asked = ["Rscript", "--vanilla", "-e", "quit(status = !requireNamespace('brms', quietly = TRUE))"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def install() -> None:
    """Make the environments that are absent, through the ordinary clients; say what cannot be made.

    Raises
    ------
    UserError
        A client fails.
    """
    for name, peer in OPTIONAL.items():
        if command_of(name) is not None:
            say(f"{name}: is there")
            continue
        if peer.script.endswith(".R"):
            wanted = ["apt-get", "install", "--yes", "--no-install-recommends", *peer.packages]
            if shutil.which("apt-get") is None or os.geteuid() != 0:
                say(f"{name}: needs R with brms; as root: {' '.join(wanted)}")
                continue
            commands = [["apt-get", "update"], wanted]
        else:
            folder = environments() / name
            commands = [
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.packages],
            ]
        say(f"{name}: installing {', '.join(peer.packages)}")
        for command in commands:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                if not peer.script.endswith(".R"):
                    shutil.rmtree(environments() / name, ignore_errors=True)  # half an environment is none
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise UserError(f"{name} could not be installed ({' '.join(command)}): {last}")


def parameters(out: Path, arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Draws of the parameters that all samplers share, by label, shape (chain, draw).

    Parameters
    ----------
    out : Path
        Stem of the files that a script wrote.
    arrays : dict, optional
        What it was given, to lead back to the coefficients of the design; None for what has them.
    """
    draws = drawn(out)
    if arrays is None:
        labels, theta = draws.pop("labels").tolist(), draws.pop("theta")
        return dict(zip(labels, np.moveaxis(theta, -1, 0), strict=True)) | draws
    theta = draws["coefficient"] @ arrays["maps"].T
    found = dict(zip(arrays["labels"].tolist(), np.moveaxis(theta, -1, 0), strict=True))
    for name, labels in (("exposure", arrays["exposure_labels"]), ("spread", arrays["spread_names"])):
        if len(labels):
            found |= dict(zip(labels.tolist(), np.moveaxis(draws[name], -1, 0), strict=True))
    return found | {"sigma": draws["sigma"]}


def drawn(out: Path) -> dict[str, np.ndarray]:
    """The arrays of draws that a script wrote, as .npz, or as a table whose columns are e0, e1, …, s0, s1, …, sigma."""
    if out.with_name(f"{out.name}.npz").exists():
        with np.load(out.with_name(f"{out.name}.npz")) as file:
            return {name: file[name] for name in file.files}
    import pandas as pd

    table = pd.read_csv(out.with_name(f"{out.name}.csv"))
    shape = (table["chain"].nunique(), -1)

    def stacked(letter: str) -> np.ndarray:
        names = [f"{letter}{j}" for j in range(len(table.columns)) if f"{letter}{j}" in table]
        return np.stack([table[name].to_numpy().reshape(shape) for name in names], axis=-1) if names else np.empty(0)

    return {
        "coefficient": stacked("e"),
        "exposure": stacked("s"),
        "sigma": table["sigma"].to_numpy().reshape(shape),
    }


def summary(draws: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Mean, SD, their Monte Carlo errors and bulk ESS of every parameter, by label."""
    import arviz_stats as az
    import xarray as xr

    labels = list(draws)
    values = np.stack([draws[label] for label in labels], axis=-1)
    data = xr.Dataset({"x": (("chain", "draw", "parameter"), values)})
    columns = [
        values.mean(axis=(0, 1)),
        values.std(axis=(0, 1), ddof=1),
        az.mcse(data, method="mean")["x"].to_numpy(),
        az.mcse(data, method="sd")["x"].to_numpy(),
        az.ess(data, method="bulk")["x"].to_numpy(),
    ]
    return {label: [float(column[j]) for column in columns] for j, label in enumerate(labels)}


def least_ess(found: dict[str, list[float]]) -> float:
    """Smallest bulk ESS over the parameters."""
    return min(row[4] for row in found.values())


def agreement(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, float]:
    """Differences of means and of SDs in units of their Monte Carlo error: root mean square and largest.

    z = (a - b) / sqrt(mcse(a)^2 + mcse(b)^2), over the parameters: of mean square 1 where both have one posterior.

    Raises
    ------
    ValueError
        They do not have the same parameters.
    """
    if set(ours) != set(theirs):
        raise ValueError(f"not the same parameters: {', '.join(sorted(set(ours) ^ set(theirs)))}")
    a, b = (np.array([found[label] for label in ours]) for found in (ours, theirs))
    found: dict[str, float] = {}
    for name, value, error in (("mean", 0, 2), ("sd", 1, 3)):
        z = (a[:, value] - b[:, value]) / np.hypot(a[:, error], b[:, error])
        found |= {f"{name}_rms": float(np.sqrt(np.mean(z**2))), f"{name}_max": float(np.abs(z).max())}
    return found
