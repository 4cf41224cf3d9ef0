"""Which model predicts units better? `python -m src.loo traces/<run> [traces/<other run> ...]`.

    run ─▶ panel, columns, errors as in src.fit ─▶ density of every unit given the others, draw by draw (src.heldout)
        ─▶ importance weights, Pareto k ─▶ refits where they are bad ─▶ az.compare ─▶ loo.csv, compare.csv, loo.png

A unit is left out with all its rows: what a model says of a row given the unit's other rows is mostly its level.

    elpd = sum over units i of log p(y_i | y_-i),    p(y_i | y_-i) = sum over draws of w_d p(y_i | y_-i, theta_d)
    w_d proportional to 1 / p(y_i | y_-i, theta_d, scale of i as estimated), Pareto smoothed

Where the Pareto k of a unit is bad, the model is fitted again without it, errors as they were estimated, and its
density averaged over those draws. `folds=10` leaves out a tenth of the units at a time, `by=<group>` whole levels of
a group.

Prediction is not identification: see `REMINDER`.

Source: Vehtari, Gelman & Gabry (2017); Vehtari et al. (2024) for Pareto k; Yao et al. (2018) for the weights.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.command import UserError, command
from src.config import Config, LooConfig, exposure_entries
from src.panel import Panel, count, some

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.table import Table
    from scipy.sparse import csr_array

    from src.collapse import Collapsed
    from src.heldout import Draws

HOW = "python -m src.loo traces/<data>/<model>/<run_id> traces/<data>/<other model>/<run_id>"
REMINDER = (
    "Prediction is not identification: a model that predicts outcomes better need not tell the effect better, and a "
    "wrong comparison group can predict well"
)
UNTOLD = 0.0  # of a unit of one row, whose level is free
COLUMNS = ["run", "unit", "adopter", "rows", "elpd", "pareto_k", "how"]


@dataclass(frozen=True)
class Kept:
    """A run opened again.

    Attributes
    ----------
    name : str
        What it is called beside the others.
    folder : Path
    config : Config
    tree : DataTree
    collapsed : Collapsed
    products : sparse array
        Cross-products of all units.
    """

    name: str
    folder: Path
    config: Config
    tree: xr.DataTree
    collapsed: Collapsed
    products: csr_array

    @property
    def panel(self) -> Panel:
        """The panel."""
        return self.collapsed.regression.panel


@dataclass(frozen=True)
class Scored:
    """How well a run predicts its units.

    Attributes
    ----------
    kept : Kept
    elpd : ELPDData
        As ArviZ has it, with elpd_i and pareto_k over dimension unit.
    how : array of str, shape (unit,)
        "weighted", "refitted" or "fold".
    """

    kept: Kept
    elpd: Any
    how: np.ndarray


def loo(config: LooConfig) -> int:
    """Score the runs, compare them, and write the folder."""
    from src import trace
    from src.loofigure import draw
    from src.terminal import console

    check(config)
    runs = opened(config)
    scored = [score(kept, config) for kept in runs]
    table, comparison = table_of_units(scored), compared(scored)
    place = Path(config.folder).expanduser() if config.folder else runs[0].folder / "loo"
    place.mkdir(parents=True, exist_ok=True)
    trace.write(table.to_csv(index=False), place / "loo.csv")
    trace.write(comparison.to_csv(index=False), place / "compare.csv")
    draw(table, comparison, place / "loo.png")
    out = console()
    out.print(printed(comparison))
    for line in sentences(scored, config):
        out.print(line)
    out.print(reminder(runs[0].panel))
    for file in ("loo.csv", "compare.csv", "loo.png"):
        out.print(f"  {place / file}", soft_wrap=True)
    return 0


def check(config: LooConfig) -> None:
    """Refuse settings that do not go together.

    Raises
    ------
    UserError
    """
    if not config.runs:
        raise UserError(f"name a run, or several, as in {HOW}")
    if config.folds == 1:
        raise UserError("folds=1 leaves nobody to learn from: give 2 or more, or 0 to leave out single units")
    if config.by != "unit" and not config.folds:
        raise UserError(f"by={config.by} says what folds are made of: give their number too, as in folds=10")


def opened(config: LooConfig) -> list[Kept]:
    """All runs, on the same rows.

    Raises
    ------
    UserError
    """
    from src import trace
    from src.heldout import products_of
    from src.kept import folder_of_run, recollapsed, settings_of
    from src.terminal import console

    folders = [folder_of_run(run, HOW) for run in config.runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is named twice: name every run once")
    found: list[Kept] = []
    for folder, name in zip(folders, names_of(folders), strict=True):
        run = settings_of(folder)
        refuse(run, folder)
        tree = trace.load(folder / "posterior.nc")
        collapsed, said = recollapsed(run, tree.attrs)
        for line in said:
            console().print(f"{name}: {line}")
        found.append(Kept(name, folder, run, tree, collapsed, products_of(collapsed)))
        same_rows(found[0], found[-1])
    if config.by != "unit" and config.by not in found[0].panel.groups:
        raise UserError(f"by={config.by} is no group of the data: choose from unit, {some(found[0].panel.groups, 10)}")
    return found


def names_of(folders: list[Path]) -> list[str]:
    """What runs are called: their model, or as much of their path as tells them apart."""
    for parts in range(1, max(len(folder.resolve().parts) for folder in folders)):
        names = ["/".join(folder.resolve().parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def refuse(run: Config, folder: Path) -> None:
    """Refuse a run whose units have no density of closed form.

    Raises
    ------
    UserError
    """
    from src import stream
    from src.fit import counts_events, has_units

    if counts_events(run.likelihood):
        raise UserError(
            f"{folder}: likelihood={run.likelihood.name} brings counts to their evidence by approximation, and has no "
            "density of a unit given the others: figures/predictive.png says how well such a model fits"
        )
    if getattr(run.model, "beside", ""):
        raise UserError(f"{folder}: model={run.model.name} is of several outcomes: compare models of one")
    if stream.is_streamed(run.data, run.engine.rows_in_memory):
        raise UserError(f"{folder}: its rows are streamed from files: fit again with a larger engine.rows_in_memory")
    if any(entry.kernel == "learned" for entry in exposure_entries(run.data).values()):
        raise UserError(f"{folder}: a learned kernel cannot be compared yet: give the kernel a scale")
    if getattr(run.model, "tails", "normal") != "normal" and has_units(run):
        raise UserError(
            f"{folder}: model.tails={run.model.tails} gives units effects whose density given the others has no closed "
            "form: compare models with model.tails=normal, or model.unit=false"
        )


def same_rows(one: Kept, two: Kept) -> None:
    """Refuse runs that do not predict the same.

    Raises
    ------
    UserError
    """
    a, b = one.panel, two.panel
    same = len(a.unit) == len(b.unit) and all(
        np.array_equal(x, y) for x, y in ((a.units[a.unit], b.units[b.unit]), (a.time, b.time), (a.outcome, b.outcome))
    )
    if not same:
        raise UserError(
            f"{one.name} and {two.name} have not the same rows and outcome ({count(len(a.unit), 'row')} and "
            f"{count(len(b.unit), 'row')}): compare models of the same data"
        )


def score(kept: Kept, config: LooConfig) -> Scored:
    """The expected log density of every unit by importance weights, bad ones by refits; or of all by folds."""
    from src.heldout import log_densities

    several = units_told(kept)
    draws = draws_of(kept, kept.tree["posterior"].to_dataset(), kept.collapsed, config)
    density, plugged = log_densities(kept.collapsed, kept.products, draws, several, inside=True)
    if config.folds:
        elpd = np.zeros(density.shape[1])
        again = refitter(kept, config)
        for fold in folds_of(kept, several, config):
            elpd[np.searchsorted(several, fold)] = again(fold)
        return Scored(kept, by_folds(kept, several, elpd, density, config), np.full(len(several), "fold"))
    found = weighted(kept, several, density, plugged, chains_of(kept))
    bad = np.flatnonzero(~(found.pareto_k.to_numpy() <= found.good_k))
    worst = bad[np.argsort(-found.pareto_k.to_numpy()[bad], kind="stable")][: config.refits]
    how = np.full(len(several), "weighted", dtype=object)
    if len(worst):
        again = refitter(kept, config)
        exact = np.array([again(several[[k]])[0] for k in worst])
        found, how[worst] = with_exact(found, worst, exact), "refitted"
    return Scored(kept, found, how)


def units_told(kept: Kept) -> np.ndarray:
    """Units with two rows or more: of one row nothing is predicted, its level being free."""
    return np.flatnonzero(np.bincount(kept.panel.unit) > 1)


def chains_of(kept: Kept) -> int:
    """Number of chains."""
    return int(kept.tree["posterior"].sizes["chain"])


def draws_of(kept: Kept, posterior: xr.Dataset, collapsed: Collapsed, config: LooConfig) -> Draws:
    """Draws of a posterior in units of the outcome, at most so many, evenly spaced within chains.

    Parameters
    ----------
    kept : Kept
    posterior : Dataset
    collapsed : Collapsed
        With what periods and covariates are given the coefficients, of the same units as the posterior.
    config : LooConfig
    """
    from src.fit import priors_of
    from src.heldout import Draws
    from src.rates import all_coefficients

    chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    step = max(-(-chains * length // config.draws), 1)
    thin = posterior.isel(draw=slice(step - 1, None, step))
    theta, s = thin["theta"].transpose("chain", "draw", "column"), collapsed.s
    number = theta.sizes["chain"] * theta.sizes["draw"]

    def flat(name: str, otherwise: float) -> np.ndarray:
        return thin[name].transpose("chain", "draw").to_numpy().ravel() if name in thin else np.full(number, otherwise)

    sigma, nuisance = flat("sigma", s), collapsed.nuisance
    if collapsed.regression.integrated:
        spread = nuisance.own * sigma
    elif any(str(label).startswith("unit[") for label in theta["column"].to_numpy()):
        spread = flat("sd_unit", priors_of(kept.config).fixed * s)
    else:
        spread = np.zeros(number)
    return Draws(all_coefficients(collapsed, theta, config.seed, sigma), sigma, spread)


def weighted(kept: Kept, units: np.ndarray, density: np.ndarray, plugged: np.ndarray, chains: int):
    """elpd by Pareto smoothed importance sampling, as ArviZ has it."""
    import arviz_stats as az
    import xarray as xr

    def over_units(values: np.ndarray) -> xr.DataArray:
        grid = values.reshape(chains, -1, values.shape[1])
        return xr.DataArray(grid, dims=("chain", "draw", "unit"), coords={"unit": kept.panel.units[units].astype(str)})

    likelihood = over_units(plugged)
    efficiency = min(float(az.ess(likelihood.sum("unit"))) / plugged.shape[0], 1.0)
    weights, k = likelihood.azstats.psislw(r_eff=efficiency, dim=["chain", "draw"])
    tree = xr.DataTree.from_dict({"log_likelihood": xr.Dataset({"outcome": over_units(density)})})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto")  # it is said otherwise
        return az.loo(tree, pointwise=True, reff=efficiency, log_weights=weights, pareto_k=k)


def with_exact(found, positions: np.ndarray, exact: np.ndarray):
    """The same with some of its units replaced by what refits say."""
    lppd = found.elpd_i.to_numpy().copy()
    before = lppd[positions].sum()
    lppd[positions] = exact
    k = found.pareto_k.to_numpy().copy()
    k[positions] = 0.0
    elpd = float(lppd.sum())
    return replace(
        found,
        elpd=elpd,
        se=spread_of(lppd),
        p=float(found.p - (exact.sum() - before)),
        elpd_i=found.elpd_i.copy(data=lppd),
        pareto_k=found.pareto_k.copy(data=k),
        warning=bool((k > found.good_k).any()),
    )


def by_folds(kept: Kept, units: np.ndarray, elpd: np.ndarray, density: np.ndarray, config: LooConfig):
    """elpd by folds, as ArviZ has it; p as what the density gains where units are not left out."""
    import xarray as xr
    from arviz_stats.utils import ELPDDataLOOKFold

    names = kept.panel.units[units].astype(str)
    inside = log_mean(density)
    return ELPDDataLOOKFold(
        elpd=float(elpd.sum()),
        se=spread_of(elpd),
        p=float((inside - elpd).sum()),
        n_samples=len(density),
        n_data_points=len(elpd),
        scale="log",
        warning=False,
        good_k=float("nan"),
        elpd_i=xr.DataArray(elpd, dims="unit", coords={"unit": names}),
        n_folds=config.folds,
    )


def spread_of(elpd: np.ndarray) -> float:
    """Standard error of a sum over units."""
    return float(np.sqrt(len(elpd) * np.var(elpd)))


def log_mean(density: np.ndarray) -> np.ndarray:
    """Logarithm of the mean over draws of densities, given their logarithms."""
    from scipy.special import logsumexp

    return logsumexp(density, axis=0) - np.log(len(density))


def refitter(kept: Kept, config: LooConfig) -> Callable[[np.ndarray], np.ndarray]:
    """A function that fits without some units, and gives the log density of each of them, shape (unit,)."""
    from src import sample, trace
    from src.fit import build_model
    from src.heldout import log_densities, without
    from src.system import only

    model = build_model(kept.config, only(kept.collapsed), None)
    wanted = [name for name in map(str, model.named_vars) if name in ("theta", "sigma", "sd_unit")]
    compiled = sample.compile_model(model, tuple(wanted))
    s, sampler = kept.collapsed.s, kept.config.sampler
    options = (sampler.draws, sampler.tune, sampler.chains, sampler.cores, sampler.target_accept)

    def again(units: np.ndarray) -> np.ndarray:
        smaller, rest = without(kept.collapsed, kept.products, units)
        mine = sample.with_data_of(compiled, build_model(kept.config, only(smaller), None))
        tree = sample.draw_compiled(mine, *options, config.seed, False)
        posterior = trace.in_outcome_units(tree["posterior"].to_dataset(), s)
        draws = draws_of(kept, posterior, smaller, config)
        return log_mean(log_densities(kept.collapsed, rest, draws, units, inside=False)[0])

    return again


def folds_of(kept: Kept, units: np.ndarray, config: LooConfig) -> Iterator[np.ndarray]:
    """Units of each fold, in order: single units dealt out by chance, or whole levels of a group.

    Raises
    ------
    UserError
        More folds than there is to be dealt out.
    """
    of = np.arange(len(units))
    if config.by != "unit":
        of = np.unique(kept.panel.groups[config.by].code[units], return_inverse=True)[1]
    levels = int(of.max()) + 1
    if config.folds > levels:
        raise UserError(f"folds={config.folds} is more than there are of {config.by} ({levels}): give fewer")
    fold = np.random.default_rng([config.seed, 31]).permutation(levels) % config.folds
    for k in range(config.folds):
        yield units[fold[of] == k]


def table_of_units(scored: list[Scored]) -> pd.DataFrame:
    """One row a run and unit: `COLUMNS`; units of a single row are left out."""
    import pandas as pd

    parts = []
    for one in scored:
        panel, units = one.kept.panel, units_told(one.kept)
        k = one.elpd.pareto_k
        parts.append(
            pd.DataFrame(
                {
                    "run": one.kept.name,
                    "unit": panel.units[units],
                    "adopter": one.kept.collapsed.regression.adopters[units],
                    "rows": np.bincount(panel.unit)[units],
                    "elpd": one.elpd.elpd_i.to_numpy(),
                    "pareto_k": np.nan if k is None else np.where(one.how == "weighted", k.to_numpy(), np.nan),
                    "how": one.how,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def compared(scored: list[Scored]) -> pd.DataFrame:
    """One row a run, the best first: what az.compare says, then elpd of adopters and how far it is from the best's."""
    import arviz_stats as az
    import pandas as pd

    each = {one.kept.name: one.elpd for one in scored}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="arviz_stats")
        ranked = az.compare(each, round_to="none") if len(each) > 1 else alone(scored[0])
    adopters = scored[0].kept.collapsed.regression.adopters[units_told(scored[0].kept)]
    of_adopters = {name: one.elpd_i.to_numpy()[adopters] for name, one in each.items()}
    best = of_adopters[str(ranked.index[0])]
    more = pd.DataFrame(
        {
            name: {
                "elpd_adopters": values.sum(),
                "elpd_diff_adopters": (values - best).sum(),
                "dse_adopters": spread_of(values - best),
            }
            for name, values in of_adopters.items()
        }
    ).T
    bad = pd.DataFrame({one.kept.name: {"good_k": one.elpd.good_k, "pareto_bad": still_bad(one)} for one in scored}).T
    bad = bad.assign(run_id=[one.kept.tree.attrs["run_id"] for one in scored])
    found = ranked.join(more).join(bad).assign(adopters=int(adopters.sum()), units=len(adopters))
    return found.rename_axis("run").reset_index()


def alone(one: Scored) -> pd.DataFrame:
    """The table of az.compare where there is nothing to compare."""
    import pandas as pd

    known = {"rank": 0, "elpd_diff": 0.0, "dse": 0.0, "p": one.elpd.p, "elpd": one.elpd.elpd, "se": one.elpd.se}
    return pd.DataFrame([known | {"weight": 1.0}], index=[one.kept.name])


def still_bad(one: Scored) -> int:
    """Number of units whose Pareto k is bad and that the model was not fitted again without."""
    if one.elpd.pareto_k is None:
        return 0
    return int((~(one.elpd.pareto_k.to_numpy() <= one.elpd.good_k)).sum())


def sentences(scored: list[Scored], config: LooConfig) -> Iterator[str]:
    """What is to be said of the weights, a line each."""
    for one in scored:
        name, refitted = one.kept.name, int((one.how == "refitted").sum())
        if config.folds:
            yield f"{name}: fitted {config.folds} times, each without a part of the units, by {config.by}"
            continue
        bad = still_bad(one)
        worst = one.kept.panel.units[units_told(one.kept)][np.argsort(-one.elpd.pareto_k.to_numpy())[:bad]]
        left = f"Pareto k of {count(bad, 'unit')} is above {one.elpd.good_k:.2f} ({some(worst)})" if bad else ""
        remedy = f": raise refits (now {config.refits}), or folds=10" if bad else ""
        again = f"fitted again without {count(refitted, 'unit')}" if refitted else ""
        most = float(one.elpd.pareto_k.max())
        none = f"Pareto k is at most {most:.2f}, and bad above {one.elpd.good_k:.2f}" if not (bad or refitted) else ""
        yield f"{name}: {'; '.join(part for part in (again, left, none) if part)}{remedy}"


def reminder(panel: Panel) -> str:
    """That prediction is not identification, and how much of what is predicted is treated."""
    treated = int(panel.treated.sum())
    return f"{REMINDER}. Of {count(len(panel.unit), 'row')} that are predicted here, {treated:,} are treated."


def printed(table: pd.DataFrame) -> Table:
    """The comparison for a person."""
    from src.target import grid

    first = table.iloc[0]
    title = (
        f"expected log density of units that a model has not seen, {count(int(first['units']), 'unit')}, of which "
        f"{count(int(first['adopters']), 'adopter')}"
    )
    heads = ["elpd", "se", "difference", "its se", "weight", "p", "adopters", "difference", "its se", "bad k"]
    found = grid(title, heads)
    for row in table.to_dict("records"):
        numbers = [f"{row[name]:,.1f}" for name in ("elpd", "se", "elpd_diff", "dse")]
        numbers += [f"{row['weight']:.2f}", f"{row['p']:.1f}"]
        numbers += [f"{row[name]:,.1f}" for name in ("elpd_adopters", "elpd_diff_adopters", "dse_adopters")]
        found.add_row(str(row["run"]), *numbers, str(int(row["pareto_bad"])))
    return found


def with_runs(arguments: list[str]) -> list[str]:
    """The command line with its paths, those of its words that are no settings, as runs=[...]."""
    paths = [word for word in arguments if not word.startswith("-") and "=" not in word]
    quoted = ",".join("'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'" for path in paths)
    rest = [word for word in arguments if word not in paths]
    return [*rest, f"runs=[{quoted}]"] if paths else rest


def main() -> None:
    """Run the command."""
    sys.argv[1:] = with_runs(sys.argv[1:])
    command(loo, config_name="loo")


if __name__ == "__main__":
    main()
