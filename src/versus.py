"""Two runs compared: `python -m src.versus traces/<a> traces/<b>`.

    a, b ─▶ settings.csv    what differs between their settings
        ─▶ versus.csv       estimands that both have: each posterior, the shift between them, how much they overlap
        ─▶ versus.png       their intervals side by side

    shift = mean of b - mean of a
    in_sds = shift / sqrt((sd_a^2 + sd_b^2) / 2)
    overlap = integral of min(p_a, p_b), from smoothed draws; 1 where the posteriors are the same

A shift is a difference of two summaries and has no interval of its own: two runs of the same data share its noise, so
that their draws, subtracted as if they were independent, would say that hardly anything differs. Whether a choice
matters is a question of size: in the unit of the effect, and in SDs of the posteriors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from src.command import UserError

if TYPE_CHECKING:
    from rich.table import Table

KEYS = ["estimand", "group", "level", "scale"]
OF_EACH = ["mean", "sd", "low", "high", "prob"]
COLUMNS = [*KEYS, *(f"{name}_{run}" for run in "ab" for name in OF_EACH), "shift", "in_sds", "overlap"]
SETTINGS = ["setting", "a", "b"]
OUTCOME = ("data.name", "data.outcome", "data.transform", "data.is_log", "likelihood.name")  # of which effects are
IDLE = ("engine", "progress", "refit", "figures", "estimators")  # settings that say nothing about estimates
CELLS = 2048  # of the grid on which densities are compared
SMALL, LARGE = 0.25, 1.0  # shifts, in SDs
MOST_LEVELS = 12  # of a group whose levels are printed


@dataclass(frozen=True)
class Run:
    """What is compared of a run.

    Attributes
    ----------
    folder : Path
    name : str
        Data, model and folder.
    table : DataFrame
        estimands.csv, group and level empty where they do not apply.
    draws : Dataset
        Group estimand of posterior.nc.
    settings : dict of str to str
        Under dotted names.
    attributes : dict
        Of the root of its posterior.
    ok : bool
        The sampler's diagnostics pass.
    """

    folder: Path
    name: str
    table: pd.DataFrame
    draws: xr.Dataset
    settings: dict[str, str]
    attributes: dict
    ok: bool


def read(given: Path) -> Run:
    """A run from its folder.

    Raises
    ------
    UserError
        There is no finished run, or it cannot be read.
    """
    from omegaconf import OmegaConf

    from src import trace
    from src.collect import read_run
    from src.compare import keyed
    from src.kept import folder_of_run

    folder = folder_of_run(given, "python -m src.versus traces/<a> traces/<b>")
    try:
        table = keyed(read_run(folder))
        kept = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
        tree = trace.load(folder / "posterior.nc")
        draws = tree["estimand"].to_dataset()
        name = f"{table['data'].iloc[0]}, {table['model'].iloc[0]}, {folder.resolve().name}"
    except Exception as error:  # whatever is wrong with it
        said = " ".join(f"{error!r}".split())[:120]
        raise UserError(f"the run in {folder} cannot be read: {said}; fit it again with python -m src.fit") from error
    return Run(folder, name, table, draws, dict(flat(kept)), tree.attrs, bool(table["ok"].iloc[0]))


def flat(node: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings under dotted names, as text; lists and empty dictionaries as they are."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(node, ensure_ascii=False, default=str)


def settings_apart(a: Run, b: Run) -> pd.DataFrame:
    """Settings in which two runs differ, empty where one does not have them: `SETTINGS`."""
    names = list(dict.fromkeys([*a.settings, *b.settings]))
    told = [name for name in names if name.partition(".")[0] not in IDLE]
    rows = [(name, a.settings.get(name, ""), b.settings.get(name, "")) for name in told]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=SETTINGS)


def compared(a: Run, b: Run) -> pd.DataFrame:
    """Estimands that both runs have, on every scale that they share: `COLUMNS`."""
    from src.estimand import draws_of

    known = [run.table[run.table["mean"].notna()][[*KEYS, *OF_EACH]] for run in (a, b)]
    found = known[0].merge(known[1], on=KEYS, suffixes=("_a", "_b"))
    sd = np.sqrt((found["sd_a"] ** 2 + found["sd_b"] ** 2) / 2)
    found["shift"] = found["mean_b"] - found["mean_a"]
    found["in_sds"] = found["shift"] / sd.where(sd > 0)
    outcome = found[found["scale"] == "outcome"]
    keys = outcome[KEYS[:3]].itertuples(index=False)
    overlaps = [overlap(*(draws_of(run.draws, *key).ravel() for run in (a, b))) for key in keys]
    found["overlap"] = pd.Series(overlaps, index=outcome.index, dtype=float)
    if is_log(a, b):  # percentages are the same increasing function of both
        of_outcome = found.groupby(KEYS[:3], sort=False)["overlap"].transform("first")
        found["overlap"] = found["overlap"].fillna(of_outcome)
    return found[COLUMNS]


def is_log(*runs: Run) -> bool:
    """Whether percentages follow from the effects that are kept in all runs."""
    from src.export import is_linear_log
    from src.kept import settings_of

    return all(is_linear_log(settings_of(run.folder)) for run in runs)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mass that two distributions have in common, the integral of the lesser of their densities, from draws.

    Densities are histograms on a fine grid, each smoothed by a Normal of the width of Silverman (1986, equation 3.31).
    Two samples of 4,000 draws of one distribution have about .97 in common.

    Parameters
    ----------
    a, b : array, shape (draw,)

    Returns
    -------
    float
        NaN where one does not vary, but 1 where both are the same number.
    """
    both = np.concatenate([a, b])
    if np.ptp(both) == 0:
        return 1.0
    if np.ptp(a) == 0 or np.ptp(b) == 0 or not np.isfinite(both).all():
        return float("nan")
    margin = 5 * max(bandwidth(a), bandwidth(b))
    edges = np.linspace(both.min() - margin, both.max() + margin, CELLS + 1)
    step = edges[1] - edges[0]
    shares = [
        gaussian_filter1d(np.histogram(one, edges)[0] / len(one), bandwidth(one) / step, mode="constant")
        for one in (a, b)
    ]
    return float(np.minimum(*shares).sum())


def bandwidth(draws: np.ndarray) -> float:
    """Width of the smoothing of a density, by Silverman's rule."""
    spread = min(draws.std(ddof=1), float(np.subtract(*np.quantile(draws, [0.75, 0.25]))) / 1.34)
    return 0.9 * (spread or float(draws.std(ddof=1))) * len(draws) ** -0.2


def said(a: Run, b: Run, table: pd.DataFrame, settings: pd.DataFrame) -> Iterator[str]:
    """What is to be said of the comparison, in sentences."""
    for what, key in (("data", "data_sha256"), ("code", "code_version")):
        one, two = (str(run.attributes[key])[:12] for run in (a, b))
        yield f"{what}: the same ({one})" if one == two else f"{what}: not the same (a {one}, b {two})"
    if a.attributes["run_id"] == b.attributes["run_id"]:
        yield "a and b are the same run"
    elif settings.empty:
        yield "settings: the same"
    if other := [name for name in OUTCOME if a.settings.get(name) != b.settings.get(name)]:
        yield f"not the same {' and '.join(other)}: of effects on other things, or in other units, shifts mean nothing"
    for word, run in (("a", a), ("b", b)):
        if not run.ok:
            yield f"the sampler's diagnostics of {word} do not pass: see {run.folder / 'diagnostics.json'}"
    yield from about_intervals(table)
    yield from about_shifts(table)


def about_intervals(table: pd.DataFrame) -> Iterator[str]:
    """Where the two runs have intervals of different mass."""
    masses = [table[f"prob_{word}"].iloc[0] for word in "ab"]
    if masses[0] != masses[1]:
        yield (
            f"intervals hold {100 * masses[0]:g}% in a and {100 * masses[1]:g}% in b: run python -m src.fit with the "
            "settings of one and prob of the other, which samples nothing"
        )


def about_shifts(table: pd.DataFrame) -> Iterator[str]:
    """How many estimates are in both runs, which of them shifts most, and that a shift is no test."""
    scale = readable(table)
    rows = table[(table["scale"] == scale) & table["in_sds"].notna()]
    if rows.empty:
        yield "no estimate that varies is in both runs"
        return
    size = rows["in_sds"].abs()
    most = rows.iloc[int(size.argmax())]
    unit = "percent" if scale == "percent" else "in units of the outcome"
    places = 1 if scale == "percent" else 3
    words = " ".join(most[key] for key in KEYS[:3] if most[key])
    share = "" if np.isnan(most["overlap"]) else f", and the two posteriors have {most['overlap']:.0%} in common"
    yield (
        f"of {len(rows)} estimates that are in both runs, {int((size < SMALL).sum())} shift by less than {SMALL:g} "
        f"posterior SDs and {int((size > LARGE).sum())} by more than {LARGE:g}"
    )
    yield (
        f"the largest shift is that of {words}: from {most['mean_a']:.{places}f} to {most['mean_b']:.{places}f} "
        f"{unit}, {abs(most['in_sds']):.2f} posterior SDs{share}"
    )
    yield "a shift has no interval: runs of the same data share its noise, so their draws are not independent"


def readable(table: pd.DataFrame) -> str:
    """Percent where the two runs have it, else the scale of the outcome."""
    from src.compare import readable_scale

    return readable_scale(table)


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """The rows to show: main effects, and levels of single groups that are not too many, on the most readable scale."""
    from src.terminal import MAIN

    rows = table[table["scale"] == readable(table)]
    of_levels = rows["estimand"].eq("att_by") & ~rows["group"].str.contains(":", regex=False)
    sizes = rows.groupby(["estimand", "group"])["level"].transform("size")
    return rows[rows["estimand"].isin(MAIN) | (of_levels & (sizes <= MOST_LEVELS))]


def printed(a: Run, b: Run, table: pd.DataFrame) -> Table:
    """The rows to show, for a person."""
    from rich import box
    from rich.table import Table

    scale = readable(table)
    places = 1 if scale == "percent" else 3
    title = f"a: {a.name}\nb: {b.name}\neffects in {'percent' if scale == 'percent' else 'units of the outcome'}"
    found = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    found.add_column("", no_wrap=True)
    masses = [f"{100 * table[f'prob_{word}'].iloc[0]:g}% interval" for word in "ab"]
    for heading in ("a", masses[0], "b", masses[1], "shift", "in SDs", "overlap"):
        found.add_column(heading, justify="right", no_wrap=True)
    for row in chosen(table).to_dict("records"):
        each = [
            text
            for word in "ab"
            for text in (
                f"{row[f'mean_{word}']:.{places}f}",
                f"{row[f'low_{word}']:.{places}f} to {row[f'high_{word}']:.{places}f}",
            )
        ]
        rest = [f"{row['shift']:+.{places}f}"]
        rest += ["" if np.isnan(row[name]) else f"{row[name]:{form}}" for name, form in FORMS.items()]
        found.add_row(" ".join(row[key] for key in KEYS[:3] if row[key]), *each, *rest)
    return found


FORMS = {"in_sds": "+.2f", "overlap": ".2f"}


def main(arguments: list[str] | None = None) -> int:
    """Compare, write, print; 2 where there is nothing to compare."""
    from src import trace
    from src.terminal import console
    from src.versusfigure import draw

    parser = argparse.ArgumentParser(prog="python -m src.versus", description="Two runs compared.")
    parser.add_argument("a", type=Path, help="folder of a run, as traces/<data>/<model>/<run_id>")
    parser.add_argument("b", type=Path, help="folder of another")
    parser.add_argument("--folder", type=Path, help="of the results; versus/<b> in that of the first run if not given")
    told = parser.parse_args(arguments)
    try:
        a, b = read(told.a), read(told.b)
        table, settings = compared(a, b), settings_apart(a, b)
        if table.empty:
            raise UserError("the two runs have no estimand in common")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    place = told.folder or a.folder / "versus" / str(b.attributes["run_id"])
    place.mkdir(parents=True, exist_ok=True)
    trace.write(table.to_csv(index=False), place / "versus.csv")
    trace.write(settings.to_csv(index=False), place / "settings.csv")
    draw(chosen(table), (a.name, b.name), place / "versus.png")
    out = console()
    out.print(printed(a, b, table))
    for row in settings.to_dict("records"):
        out.print(f"  {row['setting']}: {row['a'] or 'not there'} in a, {row['b'] or 'not there'} in b")
    for sentence in said(a, b, table, settings):
        out.print(sentence)
    for file in ("versus.csv", "settings.csv", "versus.png"):
        out.print(f"  {place / file}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
