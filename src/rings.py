"""The classical twin of exposures through distance rings: two-stage difference-in-differences (Butts 2021).

    Panel ──nearest_adopter──▶ kilometres ──two_stage──▶ Fit ──combine──▶ Effect ──tabulate──▶ DataFrame

Untreated rows fall into rings by the distance of the nearest adopter; those beyond the last ring are the comparison.
What differs from the model is the exposure: a ring says how near the nearest adopter is, not how many there are. So
averages over rows are estimands of both, slopes only where the exposure is nothing but the ring.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from src.exposure import step_of
from src.frequentist import Effect, Fit, combine, is_weighted, mean, standardised, tabulate
from src.panel import Mapping, Panel, count, some
from src.ties import chord, kilometres, on_sphere

MOST_MEMORY = 2e9  # bytes
DENSE = 5_000  # units up to which diff-diff 3.13 holds the distances of all units to all adopters
ALL_INCLUDED = "all that adoption did to adopters, what reaches them from the others included"


def rings(panel: Panel, exposures: dict[str, np.ndarray], prob: float) -> pd.DataFrame:
    """Two-stage difference-in-differences with the distance to the nearest adopter in rings, by diff-diff.

        y_it = alpha_i + lambda_t + D_it tau + (1 - D_it) sum over k of 1{nearest adopter in ring k} delta_k + eps_it

    alpha and lambda come from rows that are untreated and farther than the last edge from all adopters, tau and delta
    from what they leave of the other rows (Butts 2021, section 5; Gardner 2022), so that each is a mean over rows,
    however effects differ. Assumes parallel trends, no anticipation, and that nothing reaches beyond the last edge.

    Standard errors are clustered by unit and count the error of alpha and lambda (Gardner's correction). diff-diff's
    spatial ones (Conley, Bartlett weights in space and within a unit) came out smaller under serial correlation, with
    and without errors that neighbours share, and covered less.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
        Those through rings give the edges.
    prob : float
        Mass of the intervals.

    Returns
    -------
    DataFrame
        `total_treated`; `spill_control` and `overall` where the rows within the rings are those exposed;
        `spill_per_pp` on the untreated where, besides, the only exposure says no more than its ring. No rows without
        rings; one, with the reason, where it cannot run.

    Notes
    -----
    diff-diff 3.13 leaves the constant out of the first stage when it corrects standard errors, so that they depend on
    which unit comes first: by a few percent among 60 units, by nothing that shows among 150.
    """
    ringed = [panel.roster.mappings[name] for name in exposures if panel.roster.mappings[name].edges]
    if not ringed:
        return tabulate(panel, [], "rings", prob)
    places = [mapping.places for mapping in ringed if mapping.places is not None]
    edges, distance = breakpoints(ringed), nearest_adopter(panel, places[0])
    if reason := no_such_model(panel, places) or no_such_data(panel, places[0], distance, edges[-1]):
        absent = Effect("total_treated", None, None, np.nan, np.nan, (panel.treated,), f"not run: {reason}")
        return tabulate(panel, [absent], "rings", prob)
    within = ~panel.treated & (distance <= edges[-1])
    fit = two_stage(panel, places[0], edges)
    effects = effects_of_rings(panel, exposures, fit, within, ring_of(distance, edges))
    shown = f"{', '.join(f'{edge:g}' for edge in edges[:-1])} and {edges[-1]:g} km"
    note = f"rings of the nearest adopter with edges at {shown}; clustered by unit, not by place"
    return tabulate(panel, effects, "rings", prob, note)


def effects_of_rings(
    panel: Panel, exposures: dict[str, np.ndarray], fit: Fit, within: np.ndarray, ring: np.ndarray
) -> list[Effect]:
    """What the coefficients say of the model's estimands, and only what is the same estimand.

    Parameters
    ----------
    panel : Panel
    exposures : dict of str to array, shape (row,)
    fit : Fit
        Of `two_stage`.
    within : array of bool, shape (row,)
        Untreated rows within the rings.
    ring : array of int, shape (row,)
        Ring of each row; of no meaning beyond the last.
    """
    treated, untreated = panel.treated, ~panel.treated
    everyone = np.ones(len(treated), dtype=bool)
    exposed = untreated & np.any([share > 0 for share in exposures.values()], axis=0)

    def spill(rows: np.ndarray) -> dict[str, float]:
        return {name: mean(within & (ring == k), rows, panel.weight) for k, name in enumerate(fit.names[1:])}

    total = combine(fit, "total_treated", None, None, {"D": 1.0}, treated)
    effects = [replace(total, note=ALL_INCLUDED + exposed_otherwise(exposed, within, untreated))]
    if not np.array_equal(exposed, within):
        return effects
    effects.append(combine(fit, "spill_control", None, None, spill(within), within))
    own = {"D": mean(treated, everyone, panel.weight)}
    effects.append(combine(fit, "overall", None, None, own | spill(everyone), everyone))
    name, share = next(iter(exposures.items()))
    slope = panel.roster.mappings[name].form != "learned"
    if slope and len(exposures) == 1 and np.array_equal(share[untreated], within[untreated]):
        step = step_of(panel, name, share)
        weights = {key: step * value for key, value in spill(within).items()}
        effects.append(combine(fit, "spill_per_pp", name, "control", weights, within))
    return effects


def exposed_otherwise(exposed: np.ndarray, within: np.ndarray, untreated: np.ndarray) -> str:
    """What is said where rows of the comparison are exposed through something else than the rings."""
    clean = untreated & ~within
    share = (exposed & clean).sum() / clean.sum()
    return f"; {share:.0%} of the rows compared with are exposed in other ways, which is left out" if share else ""


def breakpoints(ringed: list[Mapping]) -> tuple[float, ...]:
    """All edges, sorted, from 0 on: what diff-diff asks for, so that nobody near an adopter counts as far from it."""
    return tuple(sorted({0.0, *(float(edge) for mapping in ringed for edge in mapping.edges)}))


def ring_of(distance: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Ring of each row as diff-diff draws them, [from, to) and the last one [from, to]; shape (row,)."""
    return np.searchsorted(edges[1:-1], distance, side="right")


def points_of(panel: Panel, places: np.ndarray) -> np.ndarray:
    """The units of the panel on the unit sphere, shape (unit, 3); `places` has shape (member, 2), in degrees."""
    return on_sphere(*places[panel.roster.position].T)


def nearest_adopter(panel: Panel, places: np.ndarray) -> np.ndarray:
    """Kilometres from each row's unit to the nearest that has adopted by then, shape (row,); inf before anybody has."""
    points = points_of(panel, places)
    found = np.full((len(points), len(panel.periods)), np.inf)
    for t, period in enumerate(panel.periods):
        adopted = points[panel.cohort <= period]
        if len(adopted):
            found[:, t] = kilometres(cKDTree(adopted).query(points)[0])
    return found[panel.unit, np.searchsorted(panel.periods, panel.time)]


def no_such_model(panel: Panel, places: list[np.ndarray]) -> str:
    """Why the library has no such model; empty where it has."""
    if panel.covariate_names:
        return "it takes no covariates"
    if is_weighted(panel):
        return "it takes no sampling weights"
    if panel.fixed:
        return "it takes no fixed effects of level x period"
    if any(not np.array_equal(other, places[0]) for other in places):
        return "its rings are around one set of places, and the exposures have several"
    if len(panel.unit) < len(panel.units) * len(panel.periods):
        return "it needs a row of every unit in every period"
    return ""


def no_such_data(panel: Panel, places: np.ndarray, distance: np.ndarray, far: float) -> str:
    """Why rows and places do not give what it needs; empty where they do.

    Parameters
    ----------
    panel : Panel
    places : array, shape (member, 2)
    distance : array, shape (row,)
        Of `nearest_adopter`.
    far : float
        The last edge in kilometres.
    """
    if absent := adopters_without_rows(panel, places, far):
        return f"{count(absent, 'adopter')} that the rows leave out stand within {far:g} km of units that they have"
    clean = ~panel.treated & (distance > far)
    if len(lost := np.setdiff1d(panel.periods, panel.time[clean])):
        return f"nobody is untreated and farther than {far:g} km from all adopters in {some(lost)}"
    if (needed := memory(panel, places, far)) > MOST_MEMORY:
        return f"it would need about {needed / 1e9:.0f} GB for distances within {far:g} km"
    return ""


def adopters_without_rows(panel: Panel, places: np.ndarray, far: float) -> int:
    """Adopters of the roster that the library would not see, though they are within reach of units that it sees."""
    outside = panel.roster.cohort <= panel.periods[-1]
    outside[panel.roster.position] = False
    if not outside.any():
        return 0
    nearest, _ = cKDTree(points_of(panel, places)).query(on_sphere(*places[outside].T))
    return int((kilometres(nearest) <= far).sum())


def memory(panel: Panel, places: np.ndarray, far: float) -> float:
    """Bytes that diff-diff 3.13 takes, as measured: six matrices of distances, or a list of the pairs within reach."""
    points = points_of(panel, places)
    adopters = points[np.isfinite(panel.cohort)]
    rows = 400.0 * len(panel.unit)
    if len(points) <= DENSE:
        return rows + 48.0 * len(points) * len(adopters)
    return rows + 50.0 * float(cKDTree(points).count_neighbors(cKDTree(adopters), chord(far)))


def two_stage(panel: Panel, places: np.ndarray, edges: tuple[float, ...]) -> Fit:
    """Coefficients of D and of every ring, and their covariance clustered by unit.

    Parameters
    ----------
    panel : Panel
        Balanced.
    places : array, shape (member, 2)
        Latitude and longitude in degrees.
    edges : tuple of float
        In kilometres, from 0 on.

    Raises
    ------
    UserWarning
        The library doubts its own numbers.
    """
    from diff_diff import SpilloverDiD

    outcome, scale = standardised(panel)
    latitude, longitude = places[panel.roster.position[panel.unit]].T
    east = (longitude + 180) % 360 - 180  # the library knows no longitudes beyond 180
    frame = pd.DataFrame(
        {"y": outcome, "unit": panel.unit, "time": panel.time, "cohort": panel.row_cohort}
        | {"latitude": latitude, "longitude": east}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        twin = SpilloverDiD(
            rings=list(edges), conley_coords=("latitude", "longitude"), cluster="unit", rank_deficient_action="silent"
        )
        result = twin.fit(frame, outcome="y", unit="unit", time="time", first_treat="cohort")
    slopes = np.array([result.att, *result.spillover_effects["coef"]])
    absent = np.isnan(slopes)  # rings in which there is no untreated row
    names = ("D", *(f"ring {k}" for k in range(1, len(edges))))
    return Fit(names, scale * np.nan_to_num(slopes), scale**2 * np.nan_to_num(result.vcov), np.eye(len(slopes))[absent])
