"""A run as tables for R, Stata and others: `python -m src.export traces/<run> format=csv|parquet|dta`.

    posterior.nc, estimands.csv, comparison.csv ─▶ export/

    draws        a row for each draw: chain, draw (from 1 on), a column for each estimand on each scale
    parameters   the same of the model's parameters
    codebook     what each column of these two is
    estimands, comparison     as in the folder of the run

Names of columns hold ASCII letters, digits and underscores, at most 32, so that Stata and R take them as they are.
Estimands that are not identified have no draws. Of counts, percentages are no function of the effects that are kept:
their draws are of events per unit and period. Raw draws of non-centred terms, and the coefficients theta, which repeat
the others, are left out.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from src.command import UserError, command, with_run
from src.config import Config, ExportConfig

LONGEST_NAME, LONGEST_LABEL, LONGEST_LEVEL = 32, 80, 20  # characters; the first two are Stata's
LONGEST_TEXT = 2045  # bytes of a text in Stata that is none of the long ones
MOST_COLUMNS, MOST_COLUMNS_BASIC = 32_767, 2_048  # of a table in Stata, and in its basic edition
CODEBOOK = ["table", "name", "quantity", "group", "level", "scale", "label"]
LEFT_OUT = ("_offset", "_partial")  # raw draws
INDEX = ("chain", "draw")
LABELS = {"chain": "chain of the sampler", "draw": "draw within the chain"}
READ = {
    "csv": ('read.csv("draws.csv")', 'import delimited "draws.csv", case(preserve)'),
    "parquet": ('arrow::read_parquet("draws.parquet")', None),
    "dta": ('haven::read_dta("draws.dta")', 'use "draws.dta"'),
}


@dataclass(frozen=True)
class Column:
    """One quantity, draw by draw.

    Attributes
    ----------
    quantity, group, level, scale : str
        Of an estimand, its key in estimands.csv; of a parameter, its name, and level.
    draws : array, shape (chain, draw)
    """

    quantity: str
    group: str
    level: str
    scale: str
    draws: np.ndarray

    @property
    def label(self) -> str:
        """In words."""
        words = " ".join(part for part in (self.quantity, self.group, self.level) if part)
        return f"{words}, {self.scale}" if self.scale else words


def export(config: ExportConfig) -> int:
    """Write the tables."""
    from src import trace
    from src.kept import folder_of_run, settings_of
    from src.terminal import console

    folder = folder_of_run(config.run, "python -m src.export traces/<data>/<model>/<run_id> format=csv")
    settings, summaries = settings_of(folder), summaries_of(folder)
    tree = trace.load(folder / "posterior.nc")
    if "estimand" not in tree.children:
        raise UserError(f"{folder} has draws of no estimand: run python -m src.fit with its settings again")
    columns = {
        "draws": list(of_estimands(tree["estimand"].to_dataset(), summaries["estimands"], is_linear_log(settings))),
        "parameters": list(of_parameters(tree["posterior"].to_dataset())),
    }
    tables, codebook = wide(columns)
    place = Path(config.folder).expanduser() if config.folder else folder / "export"
    labels = {name: LABELS | dict(rows[["name", "label"]].to_numpy()) for name, rows in codebook.groupby("table")}
    everything = {**tables, "codebook": codebook, **summaries}
    check_size(everything, config.format)
    place.mkdir(parents=True, exist_ok=True)
    out = console()
    for name, table in everything.items():
        path = place / f"{name}.{config.format}"
        with trace.whole(path) as part:
            write(table, part, config.format, labels.get(name, {}), f"hierdid, run {tree.attrs['run_id']}: {name}")
        out.print(f"  {path}", soft_wrap=True)
    for line in how_to_read(config.format, max(len(table.columns) for table in tables.values())):
        out.print(line)
    return 0


def summaries_of(folder: Path) -> dict[str, pd.DataFrame]:
    """estimands.csv and comparison.csv of a run.

    Raises
    ------
    UserError
        One is missing.
    """
    from src.compare import read_table

    found = {}
    for name in ("estimands", "comparison"):
        path = folder / f"{name}.csv"
        if not path.is_file():
            raise UserError(f"{path} is missing: rebuild it with python -m src.report {folder}")
        found[name] = read_table(path)
    return found


def is_linear_log(settings: Config) -> bool:
    """Whether percentages are a function of the effects that are kept: those on the logarithm of an outcome."""
    is_log = settings.data.is_log or settings.data.transform in ("log", "log1p")
    return is_log and settings.likelihood.name == "gaussian"


def of_estimands(kept: xr.Dataset, table: pd.DataFrame, is_log: bool) -> Iterator[Column]:
    """Draws of every identified estimand on every scale that they are kept on or that follows from it.

    Parameters
    ----------
    kept : Dataset
        Group estimand of posterior.nc.
    table : DataFrame
        estimands.csv.
    is_log : bool
        Effects are in log points.
    """
    from src.compare import KEYS, keyed
    from src.estimand import draws_of, percent

    rows = keyed(table[table["mean"].notna()])
    for estimand, group, level, scale in rows[[*KEYS, "scale"]].itertuples(index=False):
        if scale != "outcome" and not (is_log and scale == "percent"):
            continue
        draws = draws_of(kept, estimand, group, level)
        yield Column(estimand, group, level, scale, percent(draws) if scale == "percent" else draws)


def of_parameters(posterior: xr.Dataset) -> Iterator[Column]:
    """Draws of every parameter that varies, but for raw draws and what repeats others."""
    for name, values in posterior.data_vars.items():
        word = str(name)
        if word.endswith(LEFT_OUT) or word.rpartition("::")[2] == "theta":
            continue
        dims = [dim for dim in values.dims if dim not in INDEX]
        draws = values.transpose(*INDEX, *dims).to_numpy()
        flat = draws.reshape(*draws.shape[: len(INDEX)], -1)
        for k, at in enumerate(product(*(values[dim].to_numpy() for dim in dims))):
            if np.ptp(flat[..., k]) > 0:
                yield Column(word, "", ":".join(map(str, at)), "", flat[..., k])


def wide(columns: dict[str, list[Column]]) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Tables with a row for each draw, and the codebook of their columns; infinities are missing."""
    tables, rows = {}, []
    for table, mine in columns.items():
        chains, draws = mine[0].draws.shape
        index = np.indices((chains, draws)).reshape(2, -1) + 1
        names = names_of(mine)
        values = {name: one.draws.ravel() for name, one in zip(names, mine, strict=True)}
        found = pd.DataFrame(dict(zip(INDEX, index, strict=True)) | values)
        tables[table] = found.replace([np.inf, -np.inf], np.nan)
        rows += [
            (table, name, one.quantity, one.group, one.level, one.scale, one.label)
            for name, one in zip(names, mine, strict=True)
        ]
    return tables, pd.DataFrame(rows, columns=CODEBOOK)


def names_of(columns: Iterable[Column]) -> list[str]:
    """Names that Stata and R take as they are, no two alike.

    Where one is too long, what stands before the level is cut; where two are alike but for capitals, a number follows.
    """
    taken, found = set(INDEX), list[str]()
    for one in columns:
        head = plain("_".join(part for part in (one.quantity, one.group) if part))
        head = f"x{head}" if head[0].isdigit() else head
        tail = [plain(one.level)[:LONGEST_LEVEL]] if one.level else []
        tail += ["pct"] if one.scale == "percent" else []
        number, name = 1, joined(head, tail)
        while name.casefold() in taken:
            number += 1
            name = joined(head, [*tail, str(number)])
        taken.add(name.casefold())
        found.append(name)
    return found


def joined(head: str, tail: list[str]) -> str:
    """Head and tail with underscores between them, the head cut to what is left of the longest name."""
    end = "".join(f"_{part}" for part in tail)
    return head[: LONGEST_NAME - len(end)].rstrip("_") + end


def plain(word: str) -> str:
    """ASCII letters, digits and underscores of a word; a minus before a number is an m."""
    signed = re.sub(r"^-(?=\d)", "m", word)
    ascii_only = unicodedata.normalize("NFKD", signed).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9A-Za-z]+", "_", ascii_only).strip("_") or "x"


def check_size(tables: dict[str, pd.DataFrame], kind: str) -> None:
    """Refuse what Stata cannot hold.

    Raises
    ------
    UserError
    """
    for name, table in tables.items():
        if kind == "dta" and len(table.columns) > MOST_COLUMNS:
            raise UserError(
                f"format=dta: {name} has {len(table.columns):,} columns and Stata takes {MOST_COLUMNS:,}: use csv or "
                "parquet"
            )


def write(table: pd.DataFrame, path: Path, kind: str, labels: dict[str, str], title: str) -> None:
    """Write a table in a format."""
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path, index=False)
    else:
        text = [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
        filled = table.assign(**{name: table[name].astype(object).fillna("").astype(str) for name in text})
        long = [name for name in text if filled[name].map(lambda word: len(word.encode())).max() > LONGEST_TEXT]
        mine = {str(name): shortened(labels[name]) for name in table.columns if name in labels}
        filled.to_stata(
            path,
            write_index=False,
            version=118,
            variable_labels=mine,
            data_label=shortened(title),
            convert_strl=long,
        )


def shortened(label: str) -> str:
    """A label as long as Stata takes it."""
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def how_to_read(kind: str, columns: int) -> Iterator[str]:
    """Lines for those who read the tables in R and Stata."""
    of_r, of_stata = READ[kind]
    yield f"R:     d <- {of_r}; names(d)[1:2] <- c('.chain', '.iteration'); posterior::as_draws_df(d)"
    if of_stata:
        basic = f" ({columns:,} columns: not in Stata/BE)" if columns > MOST_COLUMNS_BASIC else ""
        yield f"Stata: {of_stata}{basic}"


def main() -> None:
    """Run the command."""
    sys.argv[1:] = with_run(sys.argv[1:])
    command(export, config_name="export")


if __name__ == "__main__":
    main()
