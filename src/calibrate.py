"""Does the machinery do what it says? Simulation-based calibration: `python -m src.calibrate model=hier n=500`.

    settings ─▶ simulations, one file each ─▶ calibrated.csv, calibrated.png

Every quantity whose rank should be uniform is held against uniformity by the test that ArviZ has; p values are adjusted
for the number of quantities (Holm). A single small one means a fault somewhere between the prior and the draws, or a
sampler that has not converged.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from src.command import UserError, command, home, say
from src.config import CalibrateConfig, exposure_entries
from src.panel import count

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

LEVEL = 0.01  # of the adjusted p value
KEYS = ["quantity", "group", "level"]
ACROSS, BANDS = 4, 2000  # panels beside each other; simulations of a band
SHOWN, LONGEST = 12, 28  # quantities, in terminal and picture; letters of a line of a title
COLUMNS = [*KEYS, "simulations", "mean", "p", "p_adjusted", "held_90"]


def calibrate(config: CalibrateConfig) -> int:
    """Run the study and write its folder; 0 where all ranks are uniform, 1 where nothing could be done, else 3."""
    from src import trace
    from src.engine import opened
    from src.recover import claimed, finished, load, replications, run_all
    from src.simulate import attempted, planned
    from src.terminal import console

    check(config)
    plan = planned(config)
    name = plan.name
    folder = claimed(home("calibrate", config.data.name, config.model.name, name), name, plan, config.refit)
    kept = finished(folder)
    missing = [r for r in range(config.n) if r not in kept]
    out = console()
    out.print(heading(config, config.n))
    if len(missing) < config.n:
        out.print(f"{config.n - len(missing):,} are kept in {folder}; {len(missing):,} are left to do", soft_wrap=True)
    with opened(config.engine) as engine:
        lost = run_all(engine, partial(attempted, plan), missing, folder, config.progress)
    rows = load(folder, config.n)
    if rows.empty:
        reason = next(iter(lost.values()))
        say(f"error: no simulation could be done: {reason} (see {replications(folder)})")
        return 1
    table = uniform(rows)
    trace.write(table.to_csv(index=False), folder / "calibrated.csv")
    draw(rows, table, heading(config, rows["simulation"].nunique()), folder / "calibrated.png")
    out.print(printed(table))
    for reason, times in Counter(lost.values()).most_common(3):
        out.print(f"{times} of {config.n} simulations could not be done: {reason}", soft_wrap=True)
    diverged = sum(attributes["divergences"] > 0 for attributes in rows.attrs["replications"])
    out.print(f"divergences in {diverged} of {rows['simulation'].nunique()} fits")
    unsettled = sum(attributes["unsettled"] > 0 for attributes in rows.attrs["replications"])
    if unsettled:
        out.print(f"sites of counts had not settled in {unsettled} of {rows['simulation'].nunique()} fits")
    out.print(verdict(table), soft_wrap=True)
    for file in ("calibrated.csv", "calibrated.png"):
        out.print(f"  {folder / file}", soft_wrap=True)
    return 3 if lost or (table["p_adjusted"] < LEVEL).any() else 0


def check(config: CalibrateConfig) -> None:
    """Refuse what cannot be simulated.

    Raises
    ------
    UserError
    """
    from src.fit import order_of
    from src.stream import is_streamed

    order_of(config)
    if is_streamed(config.data, config.engine.rows_in_memory):
        raise UserError(
            "src.calibrate needs all rows in memory: raise engine.rows_in_memory, or take a part of the units"
        )
    if any(entry.kernel == "learned" for entry in exposure_entries(config.data).values()):
        raise UserError("a learned kernel is not drawn from its prior here: give the kernel a scale")


def heading(config: CalibrateConfig, simulations: int) -> str:
    """What is studied, in one line."""
    drawn = "the prior" if config.around == "prior" else "the posterior of the data"
    return (
        f"{config.data.name}, model {config.model.name}, likelihood {config.likelihood.name}: "
        f"{count(simulations, 'simulation')} from {drawn}"
    )


def uniform(rows: pd.DataFrame) -> pd.DataFrame:
    """Uniformity of the ranks of every quantity, the least uniform first.

    Parameters
    ----------
    rows : DataFrame
        `simulate.COLUMNS`.

    Returns
    -------
    DataFrame
        `COLUMNS`: mean of the ranks (.5 where they are uniform), p of the test, the same adjusted for the number of
        quantities, share of central 90% intervals that hold what was drawn.
    """
    import pandas as pd
    from arviz_stats.base import array_stats

    found = []
    for key, values in rows.groupby(KEYS, sort=False)["pit"]:
        pit = values.to_numpy()
        p = float(np.asarray(array_stats.uniformity_test(pit)[0]))
        held = float((np.abs(pit - 0.5) <= 0.45).mean())
        found.append((*key, len(pit), float(pit.mean()), p, np.nan, held))
    table = pd.DataFrame(found, columns=COLUMNS).sort_values("p", ignore_index=True)
    # Holm: the smallest times the number of all, the next times one fewer, never below those before
    steps = table["p"].to_numpy() * np.arange(len(table), 0, -1)
    return table.assign(p_adjusted=np.minimum(np.maximum.accumulate(steps), 1.0))


def verdict(table: pd.DataFrame) -> str:
    """A sentence on what the ranks say."""
    from src.diagnose import name

    worst = table.iloc[0]
    label = name(worst.rename({"quantity": "estimand"}).replace({"": None}))
    if worst["p_adjusted"] >= LEVEL:
        return (
            f"Ranks of all {count(len(table), 'quantity').replace('quantitys', 'quantities')} are uniform as far as "
            f"{worst['simulations']} simulations tell: the smallest adjusted p is {worst['p_adjusted']:.2g} ({label})."
        )
    bad = int((table["p_adjusted"] < LEVEL).sum())
    side = "too high" if worst["mean"] > 0.5 else "too low"
    return (
        f"Ranks of {bad} of {len(table)} quantities are not uniform, {label} foremost (adjusted p "
        f"{worst['p_adjusted']:.2g}, mean rank {worst['mean']:.2f}, {side}; 90% intervals hold it "
        f"{worst['held_90']:.0%} of the time): something between prior and draws is wrong, or chains have not "
        "converged."
    )


def printed(table: pd.DataFrame) -> Table:
    """The quantities that look least uniform."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    found.add_column("least uniform")
    for heading in ("mean rank", "90% holds", "p", "adjusted"):
        found.add_column(heading, justify="right")
    for _, row in table.head(SHOWN).iterrows():
        label = " ".join(str(row[k]) for k in KEYS if row[k])
        numbers = (f"{row['mean']:.2f}", f"{row['held_90']:.2f}", f"{row['p']:.3f}", f"{row['p_adjusted']:.3f}")
        found.add_row(label, *numbers)
    return found


def draw(rows: pd.DataFrame, table: pd.DataFrame, title: str, path: Path) -> None:
    """Distribution of the ranks less the uniform one, of the least uniform quantities, within simultaneous bands."""
    import matplotlib
    from arviz_stats.ecdf_utils import ecdf_pit
    from matplotlib.figure import Figure

    from src.figure import DPI, MODEL, STYLE, WIDTH
    from src.trace import whole

    values = {key: part.to_numpy() for key, part in rows.groupby(KEYS)["pit"]}
    shown = [tuple(key) for key in table[KEYS].head(SHOWN).to_numpy()]
    lines = -(-len(shown) // ACROSS)
    with matplotlib.rc_context(STYLE | {"axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}):
        figure = Figure(figsize=(WIDTH, 0.9 + 1.5 * lines), layout="constrained")
        axes = figure.subplots(lines, ACROSS, squeeze=False, sharex=True, sharey=True).ravel()
        for axis, key in zip(axes, shown, strict=False):
            x, ecdf, low, high = ecdf_pit(values[key], 1 - LEVEL, BANDS, rng=np.random.default_rng(0))
            axis.fill_between(x, low - x, high - x, color="#dddddd", linewidth=0)
            axis.plot(x, ecdf - x, color=MODEL, drawstyle="steps-post")
            axis.set_title("\n".join(wrap(" ".join(word for word in key if word), LONGEST)[:2]))
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        figure.suptitle(
            f"{title}\nranks less uniform ones; grey: where {1 - LEVEL:.0%} lie entirely",
            x=0.01,
            ha="left",
            fontsize=10,
        )
        with whole(path) as part:
            figure.savefig(part, format="png", dpi=DPI)


if __name__ == "__main__":
    command(calibrate, config_name="calibrate")
