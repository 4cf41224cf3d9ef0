"""From a file of unit-period rows to a DataFrame, and from its columns to numbers or labels."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from src.config import DataConfig, exposure_entries
from src.panel import PanelError, count

MISSING_WORDS = ("", ".", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")
ENCODING = "utf-8-sig"  # UTF-8 with or without a byte-order mark
OWN_ENDINGS: tuple[str, ...] = (".csv", ".csv.gz", ".parquet", ".dta", ".xlsx")
PACKAGE_ENDINGS = (*OWN_ENDINGS, ".csv.bz2", ".pkl.gz")  # pickles run code, so never from a user's path


def read(data: DataConfig) -> tuple[pd.DataFrame, str]:
    """All columns of the file that `data` names, with the sha256 of its bytes.

    Units, groups and exposures are read as text, so "01" and "NA" stay labels and only an empty field is missing. In
    the other columns the usual words for a missing number count ("NA", "." and the like). Names of columns are text
    without surrounding blanks, as the file has them: two columns of one name keep it.

    Parameters
    ----------
    data : DataConfig
        `path`, or `package` and `file` for a panel that an installed package carries (found without importing it).

    Returns
    -------
    frame : DataFrame
    sha256 : str

    Raises
    ------
    PanelError
        No file, an empty file, an unknown ending, an unreadable file.
    """
    path = locate(data)
    texts = {data.unit, *data.groups.values(), *data.fixed_effects, *labelled_columns(data)}
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        frame = parse(path, texts)
        frame = frame.reset_index() if any(frame.index.names) else frame
        frame = frame.set_axis([named(column) for column in frame.columns], axis=1)
    except PanelError:
        raise
    except UnicodeDecodeError:
        raise PanelError(f"{path} is not UTF-8 text: save it as UTF-8 (in Excel: 'CSV UTF-8') or as .xlsx") from None
    except Exception as problem:  # each of the parsers raises its own kinds
        first = str(problem).strip().partition("\n")[0].rstrip(".:")
        raise PanelError(
            f"{path} cannot be read ({first}): check that it is what its ending says, or save it as .csv"
        ) from problem
    return frame, sha256


def labelled_columns(data: DataConfig) -> list[str]:
    """Columns that classify units for an exposure, each once."""
    entries = exposure_entries(data).values()
    return list(dict.fromkeys(name for entry in entries for name in (entry.share, entry.between) if name))


def locate(data: DataConfig) -> Path:
    """Path of the file that `data` names.

    Raises
    ------
    PanelError
        It does not exist, is empty or has an unknown ending.
    """
    if data.path:
        path, endings = Path(data.path).expanduser(), OWN_ENDINGS
    elif data.package and data.file:
        spec = importlib.util.find_spec(data.package.partition(".")[0])
        if spec is None or not spec.submodule_search_locations:
            raise PanelError(f"package {data.package} is not installed: pip install {data.package}, or give data.path")
        root = Path(spec.submodule_search_locations[0]).resolve()
        path, endings = (root / data.file).resolve(), PACKAGE_ENDINGS
        if not path.is_relative_to(root):
            raise PanelError(f"data.file={data.file} lies outside package {data.package}: give data.path")
    else:
        raise PanelError("no data: give data.path=<file>, or data.package and data.file")
    if path.is_dir():
        raise PanelError(
            f"{path} is a folder, whose Parquet files python -m src.fit reads a block at a time: give a file"
        )
    if not path.is_file():
        raise PanelError(f"no file {path}: check data.path (relative to {Path.cwd()})")
    if path.stat().st_size == 0:
        raise PanelError(f"{path} is empty: give a file with one row for each unit and period")
    if not path.name.lower().endswith(endings):
        raise PanelError(f"{path.name} has an unknown ending: give one of {', '.join(endings)}")
    return path


def parse(path: Path, texts: set[str]) -> pd.DataFrame:
    """All columns of a file; `texts` are read as text, with only the empty field missing."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return pd.read_parquet(path)
    if name.endswith(".pkl.gz"):
        return pd.read_pickle(path)
    if name.endswith(".dta"):
        frame = pd.read_stata(path, convert_categoricals=False, convert_dates=False)  # %ty, %tq: plain whole numbers
        labelled = [column for column in frame.columns if column in texts]
        return frame.assign(**pd.read_stata(path, columns=labelled, convert_dates=False)) if labelled else frame

    return read_excel(path, texts) if name.endswith(".xlsx") else read_csv(path, texts)


def read_excel(path: Path, texts: set[str]) -> pd.DataFrame:
    """All columns of the first sheet, named as its first row names them.

    Raises
    ------
    PanelError
        That row is empty.
    """
    header = pd.read_excel(path, header=None, nrows=1, dtype=object)
    if header.isna().all(axis=None):
        raise PanelError(f"{path.name} has an empty first row: put the names of the columns there")
    frame = pd.read_excel(path, **as_text(pd.read_excel(path, nrows=0).columns, texts))
    return with_header(frame, header.iloc[0].to_list())


def read_csv(path: Path, texts: set[str]) -> pd.DataFrame:
    """All columns of a CSV file, named as its header names them.

    Raises
    ------
    PanelError
        It is not separated by commas, or rows have more fields than the header (pandas alone would shift the columns
        by one, or drop the last, without a word).
    """
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, encoding=ENCODING).iloc[0].to_list()
    if len(header) == 1 and any(mark in str(header[0]) for mark in ";\t|"):
        raise PanelError(f"{path.name} has the single column {header[0]!r}: separate the columns by commas")
    kinds = as_text(pd.read_csv(path, nrows=0, index_col=False, encoding=ENCODING).columns, texts)
    try:
        frame = csv_rows(path, "error", kinds)
    except pd.errors.ParserWarning:
        refuse_surplus(path, len(header))
        frame = csv_rows(path, "ignore", kinds)
    return with_header(frame, header)


def csv_rows(path: Path, surplus: Literal["error", "ignore"], kinds: dict[str, Any]) -> pd.DataFrame:
    """Rows of a CSV file under pandas's names; `surplus` says what becomes of fields beyond the header's."""
    with warnings.catch_warnings():
        warnings.simplefilter(surplus, pd.errors.ParserWarning)
        return pd.read_csv(path, index_col=False, low_memory=False, encoding=ENCODING, **kinds)


def refuse_surplus(path: Path, columns: int) -> None:
    """Refuse rows with fields beyond the header's, unless these are empty, as after a comma at the end of a row.

    Raises
    ------
    PanelError
    """
    try:
        csv_rows(path, "error", {"dtype": str})  # read as missing, empty fields do not count
    except pd.errors.ParserWarning:
        raise PanelError(
            f"{path.name} has rows with more fields than the {count(columns, 'name')} of its header: name all columns, "
            "and quote values with commas in them"
        ) from None


def as_text(header: pd.Index, texts: set[str]) -> dict[str, Any]:
    """How pandas is to read the columns: those of `texts` as text in which only the empty field is missing."""
    missing = {column: [""] if named(column) in texts else list(MISSING_WORDS) for column in header}
    types = {column: str for column in header if named(column) in texts}
    return {"dtype": types, "na_values": missing, "keep_default_na": False}


def with_header(frame: pd.DataFrame, header: list) -> pd.DataFrame:
    """The frame under the file's own header: pandas calls the second "y" of a file "y.1"."""
    ours = [given if pd.isna(raw) else raw for raw, given in zip(header, frame.columns, strict=False)]
    return frame.set_axis([*ours, *frame.columns[len(ours) :]], axis=1)


def named(column: object) -> str:
    """Name of a column as text without surrounding blanks, "2010" for the number."""
    return str(column).strip()


def numbers(column: pd.Series) -> np.ndarray:
    """A column as floats: NaN where it is missing or no number; yes/no columns as 1/0."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    text = column.astype("str").str.strip().replace({"TRUE": "1", "True": "1", "FALSE": "0", "False": "0"})
    return pd.to_numeric(text.mask(text.isin(MISSING_WORDS)), errors="coerce").to_numpy(dtype=float)


def labels(column: pd.Series) -> pd.Series:
    """A column as text without surrounding blanks, "204" for 204.0; missing only where it is empty."""
    code, known = pd.factorize(column)  # each label once: rows are many times as many
    text = pd.Series(known).astype("str").str.strip()
    text = text.mask(text == "")
    if text.str.fullmatch(r"-?\d+\.0").fillna(True).astype(bool).all():
        text = text.str.removesuffix(".0")
    return pd.Series(text.reindex(code).to_numpy(dtype=object), index=column.index, name=column.name, dtype="str")
