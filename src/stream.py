"""A panel larger than memory: rows dealt to blocks of units, and made into columns a block at a time.

    Parquet ──deal──▶ blocks ──examine──▶ census, units ──judge──▶ rows that stay ──survey──▶ frame ──▶ columns

Memory holds what there is of units (cohort, levels), never what there is of rows; exposures come from sums by level and
period. The blocks are files in a folder of their own, which goes when the run ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from src.blocks import Blocks, keep_as, kept_at
from src.config import DataConfig, exposure_entries
from src.design import Frame, Regression, Survey, frame_of, of_exposures, regression_of, survey, too_many
from src.encode import predictor_of_levels
from src.engine import Engine
from src.examine import Census, Examined, Judged, Roll, examine, judge, kept_rows, roll_of
from src.exposure import nobody_else, shares_and_alone, sized
from src.panel import Factor, Mapping, Panel, PanelError, Roster, of_units
from src.read import labelled_columns, named
from src.validate import (
    Range,
    check_columns,
    check_joint_labels,
    check_outcome,
    check_settings,
    range_of,
    settings_and_columns,
)

ROW = "__row__"  # number of a row in the order of the files
BATCH = 500_000  # rows read at a time

type Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Units:
    """What there is of units, block after block.

    Attributes
    ----------
    cohort : array, shape (unit,)
    code : dict of str to array of int, shape (unit,)
        Level of every column that classifies units.
    levels : dict of str to tuple of str
        Sorted.
    size : dict of str to array, shape (unit,)
        Columns that say how much a unit counts, and its mean weight as "".
    """

    cohort: np.ndarray
    code: dict[str, np.ndarray]
    levels: dict[str, tuple[str, ...]]
    size: dict[str, np.ndarray]

    def __add__(self, other: Units) -> Units:
        code, levels = {}, {}
        for name, mine in self.levels.items():
            theirs = other.levels[name]
            both = tuple(sorted({*mine, *theirs}))
            place = {level: k for k, level in enumerate(both)}
            moved = [np.array([place[level] for level in of], dtype=np.int32) for of in (mine, theirs)]
            code[name] = np.r_[moved[0][self.code[name]], moved[1][other.code[name]]]
            levels[name] = both
        size = {name: np.r_[values, other.size[name]] for name, values in self.size.items()}
        return Units(np.r_[self.cohort, other.cohort], code, levels, size)


@dataclass(frozen=True)
class Read:
    """What blocks say when their rows are first read."""

    census: Census
    units: Units
    counts: tuple[int, ...]
    spans: dict[str, pd.DataFrame]

    def __add__(self, other: Read) -> Read:
        spans = {
            name: pd.concat([span, other.spans[name]]).groupby(level=0).agg({"min": "min", "max": "max"})
            for name, span in self.spans.items()
        }
        return Read(self.census + other.census, self.units + other.units, self.counts + other.counts, spans)


@dataclass(frozen=True)
class Stay:
    """What blocks say of the rows that stay.

    Attributes
    ----------
    roll : Roll
    stays : array of bool, shape (unit,)
        Of all units: those with rows that stay.
    adopters : array of bool, shape (unit that stays,)
    outcome : Range
    """

    roll: Roll
    stays: np.ndarray
    adopters: np.ndarray
    outcome: Range

    def __add__(self, other: Stay) -> Stay:
        return Stay(
            self.roll + other.roll,
            np.r_[self.stays, other.stays],
            np.r_[self.adopters, other.adopters],
            self.outcome + other.outcome,
        )


@dataclass(frozen=True)
class Surveyed:
    """The survey of blocks, and units that nobody could expose."""

    survey: Survey
    alone: dict[str, int]

    def __add__(self, other: Surveyed) -> Surveyed:
        alone = {name: n + other.alone[name] for name, n in self.alone.items()}
        return Surveyed(self.survey + other.survey, alone)


def is_streamed(data: DataConfig, rows_in_memory: int) -> bool:
    """Whether the rows of a user's file stay in it: a folder of Parquet files, or one with more rows than that.

    Parameters
    ----------
    data : DataConfig
    rows_in_memory : int
    """
    path = Path(data.path or "").expanduser()
    if not data.path or data.loader != "src.encode.load":
        return False
    if path.is_dir():
        return True
    if not path.name.lower().endswith(".parquet") or not path.is_file():
        return False
    try:
        return pq.read_metadata(path).num_rows > rows_in_memory
    except (pa.ArrowException, OSError):
        return False  # the reader of whole files says what is wrong


def files_of(data: DataConfig) -> list[Path]:
    """The Parquet files that a path names, in order.

    Raises
    ------
    PanelError
        There are none.
    """
    path = Path(data.path or "").expanduser()
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise PanelError(f"{path} has no .parquet file: give a folder of Parquet files, or a file")
    return files


def digest_of(files: list[Path]) -> str:
    """sha256 of the bytes of one file; of those of all, in their order, where there are several."""
    parts = []
    for path in files:
        with path.open("rb") as file:
            parts.append(hashlib.file_digest(file, "sha256").hexdigest())
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def check_streamed(data: DataConfig) -> None:
    """Refuse what needs all rows in memory.

    Raises
    ------
    PanelError
    """
    beyond = [name for name, entry in exposure_entries(data).items() if not entry.share]
    if beyond:
        raise PanelError(
            f"data.exposures.{beyond[0]}: rows are read a block at a time, where exposures can only be shares within a "
            "column; name a column, or give a file that fits in memory (engine.rows_in_memory)"
        )
    if data.fixed_effects:
        raise PanelError(
            "data.fixed_effects: not where rows are read a block at a time; leave them out (shocks of the likelihood "
            "take their place), or give a file that fits in memory (engine.rows_in_memory)"
        )


def streamed(
    data: DataConfig, engine: Engine, scratch: Path, block_rows: int, units: bool, tell: Tell
) -> tuple[Regression, list[str]]:
    """The regression of a panel whose rows stay in files, and what was handled on the way.

    Parameters
    ----------
    data : DataConfig
        `path` is a Parquet file or a folder of them.
    engine : Engine
    scratch : Path
        Folder for the blocks.
    block_rows : int
        About how many rows a block has.
    units : bool
        Adopters have effects of their own.
    tell : callable
        Receives a stage, how much of it is done, and of how much.

    Raises
    ------
    PanelError
        What a user can mend, as of `src.encode.encode`.
    """
    check_settings(data)
    check_streamed(data)
    files = files_of(data)
    dealt = deal(files, data, scratch, block_rows, tell)
    tell("reading units", 0, 1)
    read: Read = engine.total(partial(read_block, data=data), dealt)
    judged = judge(read.census, data)
    stay: Stay = engine.total(partial(stay_block, judged=judged), dealt)
    check_outcome(stay.outcome, data.outcome)
    notes = [*read.census.notes(data), *judged.notes, *stay.roll.notes(judged.last)]
    panel = head_of(read, stay, data, digest_of(files))

    used = {t for g, t, lost in read.census.rows if not lost and g > judged.first}
    common = Common(judged, np.array(sorted(used - {*judged.dropped})), stay.roll.weight / stay.roll.rows)
    integrated = units and too_many(int(stay.adopters.sum()))
    items = list(zip(dealt, blocks_of(panel, read.counts, common.periods), strict=True))
    items = [(path, block) for path, block in items if len(block.units)]
    dealt = [path for path, _ in items]
    tell("surveying rows", 0, 1)
    found: Surveyed = engine.total(partial(survey_block, common=common, units=units and not integrated), items)
    kept = [k for k, rows in enumerate(found.survey.exposed.n) if rows]
    names = tuple(name for k, name in enumerate(panel.roster.mappings) if k in kept)
    notes += nobody_else(found.alone)
    zero = [name for name in panel.roster.mappings if name not in names]
    notes += [f"exposure {name} is zero in every row and is left out" for name in zero]
    frame = frame_of(of_exposures(found.survey, kept), panel, names)
    tell("making columns", 0, 1)
    made = partial(columns_block, frame=frame, names=names, units=units, integrated=integrated)
    engine.total(made, dealt)
    starts = np.searchsorted(panel.roster.position, np.cumsum([0, *read.counts]))
    blocks = Blocks(tuple(dealt), np.unique(starts), stay.roll.rows, stay.adopters, engine)
    panel = replace(panel, notes=tuple(notes))
    nowhere = {name: np.zeros(0) for name in names}
    head = regression_of(panel, nowhere, None, units, frame=frame, integrated=integrated)
    return replace(head, blocks=blocks), notes


@dataclass(frozen=True)
class Common:
    """What all blocks have to know of each other.

    Attributes
    ----------
    judged : Judged
    periods : array of int, shape (period,)
    weight : float
        Mean over the rows that stay.
    """

    judged: Judged
    periods: np.ndarray
    weight: float


def deal(files: list[Path], data: DataConfig, scratch: Path, block_rows: int, tell: Tell) -> list[Path]:
    """Rows of the files in blocks, each unit's in one of them: files of Arrow batches.

    Units are dealt by a hash of their label, so that blocks are random samples of units and files need not be sorted.

    Raises
    ------
    PanelError
        No rows, or a column is missing.
    """
    schema = pq.read_schema(files[0])
    check_columns(pd.DataFrame({named(name): [0] for name in schema.names}), data)
    wanted = {name for _, name in settings_and_columns(data)}
    columns = [name for name in schema.names if named(name) in wanted]
    try:
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        blocks = max(1, -(-rows // block_rows))
        paths = [scratch / f"block{k:05d}" for k in range(blocks)]
        writers: list[pa.RecordBatchFileWriter | None] = [None] * blocks
        done = 0
        for batch in ds.dataset(files, format="parquet").to_batches(
            columns=columns, batch_size=BATCH, batch_readahead=2, fragment_readahead=1
        ):
            table = plain(batch, done)
            unit = table.column(data.unit).to_pandas()
            where = pd.util.hash_array(unit.to_numpy(), categorize=False) % np.uint64(blocks)
            order = np.argsort(where, kind="stable")
            table = table.take(pa.array(order))
            ends = np.searchsorted(where[order], np.arange(blocks + 1))
            for k, path in enumerate(paths):
                mine = table.slice(ends[k], ends[k + 1] - ends[k])
                if mine.num_rows:
                    writer = writers[k] = writers[k] or pa.ipc.new_file(path, mine.schema)
                    writer.write_table(mine)
            done += batch.num_rows
            tell("dealing rows", done, rows)
    except (pa.ArrowException, OSError) as problem:
        first = str(problem).strip().partition("\n")[0].rstrip(".:")
        raise PanelError(f"{data.path} cannot be read ({first}): check that its files are Parquet") from problem
    finally:
        for writer in writers:
            if writer is not None:
                writer.close()
    pa.default_memory_pool().release_unused()
    if not done:
        raise PanelError("the data have no rows: give one row for each unit and period")
    return [path for path, writer in zip(paths, writers, strict=True) if writer is not None]


def plain(batch: pa.RecordBatch, before: int) -> pa.Table:
    """Rows under names without surrounding blanks, dictionaries spelt out, numbered from `before`."""
    table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
    for k, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(k, field.name, table.column(k).cast(field.type.value_type))
    table = table.rename_columns([named(name) for name in table.column_names])
    return table.append_column(ROW, pa.array(np.arange(before, before + table.num_rows)))


def read_block(path: Path, *, data: DataConfig) -> Read:
    """Examine the rows of a block, and keep them beside it."""
    with pa.memory_map(str(path)) as source:
        frame = pa.ipc.open_file(source).read_all().to_pandas().set_index(ROW)
    frame.index.name = None
    pa.default_memory_pool().release_unused()
    seen = examine(frame, data)
    keep_as(path, seen)
    code, levels = {}, {}
    for name in labelled(data):
        code[name], known = pd.factorize(seen.member[name], sort=True)
        levels[name] = tuple(str(level) for level in known)
    sizes = {entry.size: seen.member[entry.size] for entry in exposure_entries(data).values() if entry.size}
    if data.weigh_exposures:
        sizes[""] = seen.size
    return Read(seen.census, Units(seen.cohort, code, levels, sizes), (len(seen.units),), seen.spans)


def labelled(data: DataConfig) -> tuple[str, ...]:
    """Columns that classify units, each once."""
    return tuple(dict.fromkeys((*data.groups.values(), *labelled_columns(data))))


def stay_block(path: Path, *, judged: Judged) -> Stay:
    """Which rows and units of a block stay."""
    seen: Examined = kept_at(path)
    keep = kept_rows(seen, judged)
    stays = np.isin(np.arange(len(seen.units)), seen.unit[keep])
    treated = keep & (seen.time >= seen.cohort[seen.unit])
    adopters = np.isin(np.flatnonzero(stays), seen.unit[treated])
    return Stay(roll_of(seen, keep), stays, adopters, range_of(seen.outcome[keep], seen.unit[keep]))


def head_of(read: Read, stay: Stay, data: DataConfig, sha256: str) -> Panel:
    """The panel without its rows: what there is of its units.

    Raises
    ------
    PanelError
    """
    units, position = read.units, np.flatnonzero(stay.stays)
    groups = {
        name: of_units(Factor(name, units.levels[source], units.code[source]), position)
        for name, source in data.groups.items()
    }
    check_joint_labels(groups)
    mappings = {}
    for name, entry in exposure_entries(data).items():
        size = units.size.get(entry.size or "")
        if entry.size and data.weigh_exposures:
            size = units.size[entry.size] * units.size[""]
        assert entry.share
        mappings[name] = Mapping(units.code[entry.share], size=size, form=entry.form or "share", lag=entry.lag)
    return Panel(
        name=data.name,
        unit=np.zeros(0, dtype=int),
        time=np.zeros(0, dtype=np.int64),
        outcome=np.zeros(0),
        weight=np.zeros(0),
        covariates=np.zeros((0, len(data.covariates))),
        covariate_names=tuple(data.covariates),
        units=np.arange(len(position)),
        cohort=units.cohort[position],
        groups=groups,
        predictors={
            name: predictor_of_levels(read.spans[name], groups[name], source)
            for name, source in data.predictors.items()
        },
        roster=Roster(units.cohort, mappings, position),
        is_log=data.is_log or data.transform in ("log", "log1p"),
        sha256=sha256,
    )


def blocks_of(panel: Panel, counts: tuple[int, ...], periods: np.ndarray) -> Iterator[Panel]:
    """What there is of the units of each block, with the sums over all others that exposures need.

    Parameters
    ----------
    panel : Panel
        Without rows.
    counts : tuple of int
        Units of each block, also those that go.
    periods : array of int, shape (period,)
    """
    roster, start = panel.roster, 0
    sums = {name: sums_of(mapping, roster.cohort, periods) for name, mapping in roster.mappings.items()}
    for units in counts:
        low, high = np.searchsorted(roster.position, [start, start + units])
        position = roster.position[low:high]
        mappings = {}
        for name, mapping in roster.mappings.items():
            assert mapping.members is not None
            size = None if mapping.size is None else mapping.size[position]
            in_level, adopted = sums[name]
            mappings[name] = replace(
                mapping, members=mapping.members[position], size=size, in_level=in_level, adopted=adopted
            )
        yield replace(
            panel,
            units=position - start,
            cohort=panel.cohort[low:high],
            groups={name: replace(of, code=of.code[low:high]) for name, of in panel.groups.items()},
            roster=Roster(roster.cohort[position], mappings, np.arange(len(position))),
        )
        start += units


def sums_of(mapping: Mapping, cohort: np.ndarray, periods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the sizes of all units of every level, shape (level,), and of those that others feel by then, shape
    (level, period).
    """
    members, size, in_level = sized(mapping)
    start = np.searchsorted(periods, cohort + mapping.lag)
    joins = np.zeros((len(in_level), len(periods) + 1))
    np.add.at(joins, (members, start), size)
    return in_level, np.cumsum(joins[:, :-1], axis=1)


def survey_block(item: tuple[Path, Panel], *, common: Common, units: bool) -> Surveyed:
    """Put the rows of a block that stay in the place of what was read, with their exposures, and survey them."""
    path, panel = item
    seen: Examined = kept_at(path)
    keep = kept_rows(seen, common.judged)
    panel = replace(
        panel,
        unit=np.searchsorted(panel.units, seen.unit[keep]),
        units=seen.units[panel.units],
        time=seen.time[keep],
        outcome=seen.outcome[keep],
        weight=seen.weight[keep] / common.weight,
        covariates=seen.covariates[keep],
    )
    shares, alone = shares_and_alone(panel, common.periods)
    keep_as(path, (panel, shares))
    return Surveyed(survey(panel, shares, units), alone)


def columns_block(path: Path, *, frame: Frame, names: tuple[str, ...], units: bool, integrated: bool) -> int:
    """Put the columns of a block in the place of its rows; how many rows there are."""
    panel, shares = kept_at(path)
    shares = {name: shares[name] for name in names}
    regression = regression_of(panel, shares, None, units, frame=frame, integrated=integrated)
    keep_as(path, regression)
    return regression.rows
