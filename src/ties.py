"""Ties between units or levels: from coordinates, or from a file.

    ring           w_ij = 1{from < d_ij <= to}
    exponential    w_ij = exp(-d_ij / scale)                 to 5 scales
    gaussian       w_ij = exp(-(d_ij / scale)^2 / 2)         to 3 scales
    triangular     w_ij = 1 - d_ij / scale                   to 1 scale
    neighbours     w_ij = 1 where j is among the k nearest of i
    learned        w_ij = d_ij                               to the cutoff; see src.kernel

with d_ij the great-circle distance in kilometres. Only ties to units that ever adopt are kept, beside the sum of all
ties of a unit, so that 10^5 units fit in memory: what is stored grows with the adopters within reach.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

from src.config import ExposureConfig
from src.panel import Mapping, PanelError, count, some

EARTH = 6371.0088  # kilometres, mean radius (IUGG)
CHUNK = 2_000  # units whose ties are found at a time
MOST_TIES = 200_000_000
SAME_PLACE = 1e-6  # kilometres, the distance of units at the same place: a tie of 0 would be none
REACH = {"exponential": 5.0, "gaussian": 3.0, "triangular": 1.0}  # scales after which a kernel is cut off
FADING: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "exponential": lambda d, scale: np.exp(-d / scale),
    "gaussian": lambda d, scale: np.exp(-0.5 * (d / scale) ** 2),
    "triangular": lambda d, scale: np.maximum(1 - d / scale, 0.0),
}


def on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, shape (unit, 3), from degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.column_stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])


def kilometres(chord: np.ndarray) -> np.ndarray:
    """Great-circle distance of points whose straight distance on the unit sphere is `chord`."""
    return 2 * EARTH * np.arcsin(np.clip(chord / 2, 0, 1))


def chord(distance: float) -> float:
    """Straight distance on the unit sphere of points that are `distance` kilometres apart."""
    return float(2 * np.sin(min(distance / EARTH, np.pi) / 2))


def distance_ties(
    latitude: np.ndarray,
    longitude: np.ndarray,
    adopts: np.ndarray,
    weight: Callable[[np.ndarray], np.ndarray],
    reach: float,
    size: np.ndarray,
) -> tuple[sp.csr_array, np.ndarray]:
    """Ties that are a function of distance.

    Parameters
    ----------
    latitude, longitude : array, shape (unit,)
        In degrees.
    adopts : array of bool, shape (unit,)
        Ever treated.
    weight : callable
        Tie at a distance in kilometres; 0 where there is none.
    reach : float
        Kilometres beyond which there are no ties.
    size : array, shape (unit,)
        How much a unit counts for others.

    Returns
    -------
    ties : sparse array, shape (unit, unit)
        weight(d_ij) size_j for j that adopt, nobody tied to itself.
    total : array, shape (unit,)
        sum over all j of weight(d_ij) size_j.

    Raises
    ------
    PanelError
        More ties than memory can be expected to hold.
    """
    points = on_sphere(latitude, longitude)
    everyone, units = cKDTree(points), len(points)
    radius = chord(reach) * (1 + 1e-12)
    kept, total, held = [], np.zeros(units), 0
    for start in range(0, units, CHUNK):
        here = cKDTree(points[start : start + CHUNK])
        found = here.sparse_distance_matrix(everyone, radius, output_type="ndarray")
        i, j, d = found["i"] + start, found["j"], kilometres(found["v"])
        w = np.where(i == j, 0.0, weight(d)) * size[j]
        total += np.bincount(i, w, units)
        keep = (w > 0) & adopts[j]
        held += int(keep.sum())
        if held > MOST_TIES:
            raise PanelError(
                f"more than {MOST_TIES:,} ties between units within {reach:,.0f} km: make the ring, the scale or the "
                "cutoff smaller"
            )
        rows = np.minimum(CHUNK, units - start)
        kept.append(sp.csr_array((w[keep], (i[keep] - start, j[keep])), shape=(rows, units)))
    return sp.csr_array(sp.vstack(kept, format="csr")), total


def ring(edges: tuple[float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """Indicator of a distance in (from, to]; from 0, units at the same place count too."""
    near, far = edges
    return lambda d: ((d > near) | (near == 0)) & (d <= far)


def distance(d: np.ndarray) -> np.ndarray:
    """A tie that is the distance itself."""
    return np.maximum(d, SAME_PLACE)


def neighbour_ties(
    latitude: np.ndarray, longitude: np.ndarray, adopts: np.ndarray, k: int, size: np.ndarray
) -> tuple[sp.csr_array, np.ndarray]:
    """Ties to the k nearest other units; parameters and returns as of `distance_ties`.

    Raises
    ------
    PanelError
        There are not so many others.
    """
    points, units = on_sphere(latitude, longitude), len(latitude)
    if k >= units:
        raise PanelError(f"neighbours={k} is too many: there are {units - 1} other units; give a smaller number")
    _, near = cKDTree(points).query(points, k + 1)
    own = near == np.arange(units)[:, None]
    own[~own.any(axis=1), -1] = True  # units at the same place crowd the unit itself out of its own list
    j = near[~own].reshape(units, k)
    i = np.repeat(np.arange(units), k)
    total = size[j].sum(axis=1)
    j, keep = j.ravel(), adopts[j.ravel()]
    return sp.csr_array((size[j][keep], (i[keep], j[keep])), shape=(units, units)), total


def read_ties(path: Path, labels: np.ndarray, what: str) -> tuple[sp.csr_array, int]:
    """Ties from a file: columns from, to and weight (1 where absent) of a .csv or .parquet; or a .gal or .gwt.

    Parameters
    ----------
    path : Path
    labels : array of str, shape (label,)
        Units, or levels of a classification.
    what : str
        What the labels are, for messages.

    Returns
    -------
    ties : sparse array, shape (label, label)
        Tie of the row's label to the column's.
    strangers : int
        Labels of the file that the data do not have; their ties are left out.

    Raises
    ------
    PanelError
        No such file, an unknown ending, no label that the data have, weights that are no positive numbers, a pair that
        comes twice.
    """
    if not path.is_file():
        raise PanelError(f"no file {path} of ties: check weights (relative to {Path.cwd()})")
    edges = edges_of(path)
    named = pd.unique(pd.concat([edges["from"], edges["to"]]))
    strangers = np.setdiff1d(named, labels)
    if len(strangers) == len(named):
        raise PanelError(
            f"{path.name} ties none of the {what} that the data have: it names {some(strangers)}, the data "
            f"{some(labels)}; write the labels alike"
        )
    weight = edges["weight"].to_numpy(dtype=float)
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if wrong.any():
        raise PanelError(
            f"{path.name} has {wrong.sum():,} weights that are missing, negative or infinite "
            f"({some(f'row {row}' for row in np.flatnonzero(wrong) + 1)}): give every tie a weight of 0 or more"
        )
    twice = edges.duplicated(["from", "to"])
    if twice.any():
        pairs = (f"{a} to {b}" for a, b in edges.loc[twice, ["from", "to"]].itertuples(index=False))
        raise PanelError(f"{path.name} has pairs that come twice ({some(pairs)}): keep one row for each")
    here = edges.isin(labels)[["from", "to"]].all(axis=1)
    code = pd.Index(labels)
    ends = tuple(code.get_indexer(edges.loc[here, name]) for name in ("from", "to"))
    return sp.csr_array((weight[here], ends), shape=(len(labels), len(labels))), len(strangers)


def edges_of(path: Path) -> pd.DataFrame:
    """Columns from, to (text) and weight of a file of ties.

    Raises
    ------
    PanelError
        An unknown ending or a file without the columns.
    """
    name = path.name.lower()
    if name.endswith((".gal", ".gwt")):
        return from_libpysal(path)
    if name.endswith((".csv", ".csv.gz")):
        found = pd.read_csv(path, dtype={"from": str, "to": str}, keep_default_na=False, na_values={"weight": [""]})
    elif name.endswith(".parquet"):
        found = pd.read_parquet(path)
    else:
        raise PanelError(f"{path.name} has an unknown ending for ties: give a .csv, .parquet, .gal or .gwt")
    missing = [column for column in ("from", "to") if column not in found]
    if missing:
        raise PanelError(f"{path.name} has no column {some(missing)}: give columns from, to and weight")
    weight = pd.to_numeric(found["weight"], errors="coerce") if "weight" in found else 1.0
    text = {end: found[end].astype(str).str.strip().str.removesuffix(".0") for end in ("from", "to")}
    return pd.DataFrame(text).assign(weight=weight)


def from_libpysal(path: Path) -> pd.DataFrame:
    """Ties of a GAL or GWT file.

    Raises
    ------
    PanelError
        It is not what its ending says.
    """
    import libpysal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # islands and disconnected parts, of which nothing follows here
        stream = libpysal.io.open(str(path), "r")
        try:
            found = stream.read()
        except Exception as problem:
            raise PanelError(
                f"{path.name} cannot be read as ties ({type(problem).__name__}: {problem}): every unit in it needs an "
                "entry of its own; or give a .csv with columns from, to and weight"
            ) from None
        finally:
            stream.close()
    near = [(str(i), str(j), w) for i, js in found.neighbors.items() for j, w in zip(js, found.weights[i], strict=True)]
    return pd.DataFrame(near, columns=["from", "to", "weight"])


def mapping_of(
    name: str,
    entry: ExposureConfig,
    member: dict[str, np.ndarray],
    units: np.ndarray,
    cohort: np.ndarray,
    weight: np.ndarray | None,
    notes: list[str],
) -> Mapping:
    """Who is exposed to whom, as an entry of data.exposures says it.

    Parameters
    ----------
    name : str
        Of the exposure, for messages.
    entry : ExposureConfig
    member : dict of str to array, shape (member,)
        Level, place or size of each unit, by column.
    units : array of str, shape (member,)
    cohort : array, shape (member,)
    weight : array, shape (member,), optional
        Multiplies the size of each unit.
    notes : list of str
        Receives a line where a file ties somebody whom the data do not have.

    Raises
    ------
    PanelError
        A file of ties that cannot be, more neighbours than units, more ties than fit.
    """
    adopts = np.isfinite(cohort)
    size = member[entry.size] if entry.size else None
    if weight is not None:
        size = weight if size is None else weight * size
    learned = entry.kernel == "learned"
    form = "learned" if learned else entry.form or ("additive" if entry.ring or entry.kernel else "share")
    counts = np.ones(len(units)) if size is None else size
    try:
        if entry.share:
            return Mapping(pd.factorize(member[entry.share], sort=True)[0], size=size, form=form, lag=entry.lag)
        if entry.weights:
            path = Path(entry.weights).expanduser()
            if entry.between:
                code, levels = pd.factorize(member[entry.between], sort=True)
                ties, strangers = read_ties(path, np.array(levels, dtype=str), f"levels of {entry.between}")
                notes += about_strangers(name, path, strangers, "level")
                return Mapping(code, ties, size=size, form=form, lag=entry.lag)
            ties, strangers = read_ties(path, units, "units")
            notes += about_strangers(name, path, strangers, "unit")
            ties = sp.csr_array((ties - sp.diags_array(ties.diagonal())) @ sp.diags_array(counts))
            total = np.asarray(ties.sum(axis=1)).ravel()
            to_adopters = sp.csr_array(ties @ sp.diags_array(adopts.astype(float)))
            return Mapping(None, to_adopters, total, form=form, lag=entry.lag)
        latitude, longitude = member[entry.latitude or ""], member[entry.longitude or ""]
        cutoff, edges = float(entry.cutoff or np.nan), tuple(entry.ring or ())
        if entry.neighbours:
            ties, total = neighbour_ties(latitude, longitude, adopts, entry.neighbours, counts)
        elif learned:
            ties, total = distance_ties(latitude, longitude, adopts, distance, cutoff, counts)
            edges = tuple((cutoff * np.arange(6) / 5).tolist())
        elif entry.ring:
            near, far = entry.ring
            ties, total = distance_ties(latitude, longitude, adopts, ring((near, far)), far, counts)
        else:
            kernel, scale = entry.kernel or "", entry.scale or np.nan
            reach = entry.cutoff or REACH[kernel] * scale
            ties, total = distance_ties(latitude, longitude, adopts, lambda d: FADING[kernel](d, scale), reach, counts)
        places = np.column_stack([latitude, longitude])
        return Mapping(None, ties, total, None, form, entry.lag, cutoff, places, edges)
    except PanelError as error:
        raise PanelError(f"data.exposures.{name}: {error}") from None


def about_strangers(name: str, path: Path, strangers: int, noun: str) -> list[str]:
    """What is said of units or levels that a file of ties names and the data do not have."""
    if not strangers:
        return []
    return [f"data.exposures.{name}: {path.name} ties {count(strangers, noun)} that the data do not have: left out"]
