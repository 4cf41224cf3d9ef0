"""What would the estimates be if there were nothing to find? `python -m src.placebo placebo=places n=50`.

    places   every unit is put at another's place, adopters among themselves and the others among themselves, so that
             who is exposed to whom is drawn anew and exposures move over time as they did: slopes of exposures that are
             nobody's own
    time     rows after adoption are dropped and adoption is moved `shift` periods back: the effect of what has not
             happened yet

    panel ─▶ placebo panels ─▶ exposures, design, collapse, draws as in src.fit ─▶ placebo.csv, placebo.png

Assumes of `places` that, without spillovers, who stands where does not matter for the outcome given unit effects,
period effects and the shocks that the likelihood allows; of `time` that nothing was anticipated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.command import UserError, command, home
from src.config import PlaceboConfig
from src.panel import Mapping, Panel, count, of_rows

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

SPILLOVERS = ("spill_per_pp", "spill_control", "spill_treated")
OWN = ("att", "att_by", "att_event")
COLUMNS = [
    *["estimand", "group", "level", "estimate", "se", "low", "high", "prob", "placebos", "placebo_mean", "placebo_sd"],
    "share_as_large",
]


def placebo(config: PlaceboConfig) -> int:
    """Fit the placebo panels and write the folder."""
    import pandas as pd

    from src import fit, trace
    from src.progress import shown
    from src.terminal import console

    if len(fit.order_of(config)) > 1:
        raise UserError(f"model={config.model.name}: a placebo is of one outcome: use model=hier")
    panel, shares, _ = fit.load(config)
    panels = list(placebos(config, panel, shares))
    folder = home("placebo", panel.name, config.model.name, name_of(config, panel))
    compiled: dict = {}
    fits = (estimates(config, one, r, compiled) for r, one in enumerate(panels))
    rows = pd.concat(shown(fits, len(panels), config.progress), ignore_index=True)
    table = summary(rows, config.prob)
    folder.mkdir(parents=True, exist_ok=True)
    trace.write(table.to_csv(index=False), folder / "placebo.csv")
    draw(rows, heading(config, panel), folder / "placebo.png")
    out = console()
    out.print(printed(table, heading(config, panel)))
    for file in ("placebo.csv", "placebo.png"):
        out.print(f"  {folder / file}", soft_wrap=True)
    return 0


def placebos(config: PlaceboConfig, panel: Panel, shares: dict[str, np.ndarray]) -> Iterator[Panel]:
    """The panels to fit: of `places` the panel itself, then n placebos; of `time` one.

    Raises
    ------
    UserError
        There is no exposure to move, or nobody is left who adopts.
    """
    if config.placebo == "time":
        yield before_adoption(panel, config.shift)
        return
    if not any(np.ptp(share) > 0 for share in shares.values()):
        raise UserError("placebo=places needs an exposure that varies: give data.exposures, or placebo=time")
    rng = np.random.default_rng([config.seed, 7])
    yield panel
    for _ in range(config.n):
        yield at_other_places(panel, rng)


def before_adoption(panel: Panel, shift: int) -> Panel:
    """The panel without treated rows, adoption moved back by `shift` periods of the calendar.

    Adopters that are not seen before the new date have nothing to compare with and are left out.

    Raises
    ------
    UserError
        Nobody is left who adopts.
    """
    untreated = of_rows(panel, ~panel.treated)
    moved = replace(untreated, cohort=untreated.cohort - shift, truth=None)
    first = np.full(len(moved.units), np.inf)
    np.minimum.at(first, moved.unit, moved.time)
    seen = of_rows(moved, (first < moved.cohort)[moved.unit])
    if not seen.treated.any():
        raise UserError(
            f"shift={shift} leaves no adopter with periods before and after the placebo date: give a smaller one"
        )
    return seen


def at_other_places(panel: Panel, rng: np.random.Generator) -> Panel:
    """The panel with every unit of the roster at the place of another, adopters and others apart."""
    place = np.arange(len(panel.roster.cohort))
    adopts = np.isfinite(panel.roster.cohort)
    for kind in (adopts, ~adopts):
        place[kind] = rng.permutation(place[kind])
    mappings = {name: moved(mapping, place) for name, mapping in panel.roster.mappings.items()}
    return replace(panel, roster=replace(panel.roster, mappings=mappings), truth=None)


def moved(mapping: Mapping, place: np.ndarray) -> Mapping:
    """The mapping where unit i has the place of unit place[i]: its level, its ties and its size."""
    ties = mapping.ties
    return replace(
        mapping,
        members=None if mapping.members is None else mapping.members[place],
        ties=ties[place][:, place] if ties is not None and mapping.members is None else ties,
        total=None if mapping.total is None else mapping.total[place],
        size=None if mapping.size is None else mapping.size[place],
        places=None if mapping.places is None else mapping.places[place],
    )


def estimates(config: PlaceboConfig, panel: Panel, r: int, compiled: dict) -> pd.DataFrame:
    """Posterior of the estimands of one panel, one row each: estimate, se, low, high."""
    import pandas as pd

    from src import replicate
    from src.collapse import collapse
    from src.design import build_design
    from src.exposure import row_shares
    from src.fit import errors_of, needs_units, unpooled
    from src.system import only

    shares, _ = row_shares(panel)
    regression, _ = build_design(panel, shares, needs_units(config))
    collapsed = collapse(regression, errors_of(config, regression), unpooled(config, regression))
    posterior, _ = replicate.sampled(config, only(collapsed), config.seed + r, compiled, {})
    found, draws, _ = replicate.effects(posterior["theta"], collapsed, config.seed + r)
    wanted = OWN if config.placebo == "time" else SPILLOVERS
    kept = [k for k, average in enumerate(found) if average.estimand in wanted and ":" not in average.group]
    flat = draws.reshape(-1, len(found))[:, kept]
    low, high = np.quantile(flat, [(1 - config.prob) / 2, (1 + config.prob) / 2], axis=0)
    keys = [{name: getattr(found[k], name) for name in ("estimand", "group", "level")} for k in kept]
    numbers = {"estimate": flat.mean(axis=0), "se": flat.std(axis=0, ddof=1), "low": low, "high": high}
    return pd.concat([pd.DataFrame(keys), pd.DataFrame(numbers)], axis=1).assign(placebo=r)


def summary(rows: pd.DataFrame, prob: float) -> pd.DataFrame:
    """The estimates of the first panel beside those of the others.

    share_as_large = (1 + number of placebos at least as far from zero) / (1 + placebos), the p-value of a permutation
    test where places are exchangeable without spillovers (Fisher); NaN where there are no placebos beside the estimate.
    """
    import pandas as pd

    found = []
    for key, mine in rows.groupby(["estimand", "group", "level"], sort=False):
        first, others = mine[mine["placebo"] == 0], mine.loc[mine["placebo"] > 0, "estimate"].dropna()
        if first.empty:
            continue
        row = first.iloc[0]
        far = int((others.abs() >= abs(row["estimate"])).sum())
        found.append(
            dict(zip(("estimand", "group", "level"), key, strict=True))
            | {name: row[name] for name in ("estimate", "se", "low", "high")}
            | {"prob": prob, "placebos": len(others), "placebo_mean": others.mean(), "placebo_sd": others.std()}
            | {"share_as_large": (1 + far) / (1 + len(others)) if len(others) else np.nan}
        )
    return pd.DataFrame(found, columns=COLUMNS)


def name_of(config: PlaceboConfig, panel: Panel) -> str:
    """Hash of what determines the placebo."""
    from src import trace
    from src.fit import posterior_settings

    code = trace.code_version("src/estimand.py", "src/identify.py", "src/placebo.py")
    text = json.dumps([posterior_settings(config), config.prob, panel.sha256, code], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def heading(config: PlaceboConfig, panel: Panel) -> str:
    """What was done, in one line."""
    if config.placebo == "time":
        return f"{panel.name}: adoption {count(config.shift, 'period')} early, rows after adoption left out"
    return f"{panel.name}: {count(config.n, 'placebo')} with every unit at another's place"


def printed(table: pd.DataFrame, title: str) -> Table:
    """The table for a person."""
    from rich import box
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("", no_wrap=True)
    in_space = bool(table["placebos"].any())
    heads = ["estimate", f"{table['prob'].iloc[0]:.0%} interval"]
    heads += ["placebos: mean", "SD", "share as large"] if in_space else ["holds 0"]
    for name in heads:
        grid.add_column(name, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        cells = [" ".join(str(row[key]) for key in ("estimand", "group", "level") if row[key])]
        cells += [f"{row['estimate']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}"]
        if in_space:
            cells += [f"{row['placebo_mean']:.4f}", f"{row['placebo_sd']:.4f}", f"{row['share_as_large']:.2f}"]
        else:
            cells.append("yes" if row["low"] <= 0 <= row["high"] else "no")
        grid.add_row(*cells)
    return grid


def draw(rows: pd.DataFrame, title: str, path: Path) -> None:
    """Placebo estimates as a cloud of dots beside the estimate and its interval, one line an estimand."""
    import matplotlib
    from matplotlib.figure import Figure

    from src.figure import DPI, STYLE
    from src.trace import whole

    named = rows[["estimand", "group", "level"]].astype(str)
    keys = list(dict.fromkeys(named.itertuples(index=False, name=None)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.42 * len(keys)), dpi=DPI, layout="constrained")
        axis = figure.subplots()
        axis.axvline(0, color="black", linewidth=0.8)
        for at, key in enumerate(keys):
            mine = rows[(named == list(key)).all(axis=1)]
            first, others = mine[mine["placebo"] == 0], mine[mine["placebo"] > 0]
            unit = first["se"].iloc[0] if len(first) else np.nan  # each line in its own s.e., so that all fit one axis
            height = np.full(len(others), at + 0.18)
            axis.plot(others["estimate"] / unit, height, "|", color="#8a8f99", markersize=9, label="placebos")
            for _, row in first.iterrows():
                axis.plot([row["low"] / unit, row["high"] / unit], [at, at], color="#1f3b73", linewidth=2.2)
                axis.plot(row["estimate"] / unit, at, "o", color="#1f3b73", label="estimate and its interval")
        axis.set_yticks(range(len(keys)), [" ".join(part for part in key if part) for key in keys])
        axis.invert_yaxis()
        axis.set_xlabel("posterior SDs of the estimate")
        labelled = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        with whole(path) as part:
            figure.savefig(part, format="png")


if __name__ == "__main__":
    command(placebo, config_name="placebo")
