"""Every kind of file gives the same panel, or a message that says what to do."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from src.encode import load
from src.panel import PanelError
from src.read import read
from tests.frames import INF, coded, same_panel, settings, tiny

WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.set_index(["firm", "year"]).to_parquet(path),
    ".dta": lambda frame, path: frame.to_stata(path, write_index=False, version=118),
    ".xlsx": lambda frame, path: frame.to_excel(path, index=False),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_files_round_trip(tmp_path, ending):
    path = tmp_path / f"panel{ending}"
    WRITERS[ending](tiny(firm=lambda f: "00" + f["firm"].map({"a": "1", "b": "2", "c": "3", "d": "NA"})), path)
    changes = {"groups": {"industry": "ind"}, "predictors": {"industry": "z"}, "exposures": {"sector": "ind"}}
    panel = load(settings(path=str(path), covariates=["x"], **changes))
    expected = coded(tiny(), covariates=["x"], **changes)
    assert panel.units.tolist() == ["001", "002", "003", "00NA"]
    assert len(panel.sha256) == 64
    same_panel(dataclasses.replace(panel, units=expected.units), expected)


def test_stata_labels_and_years(tmp_path):
    path = tmp_path / "panel.dta"
    frame = tiny(ind=pd.Categorical(np.where(tiny()["firm"] == "a", "state", "private")))
    frame["year"] = pd.to_datetime(frame["year"].astype(str))
    frame.to_stata(path, write_index=False, convert_dates={"year": "ty"})
    panel = load(settings(path=str(path), groups={"ownership": "ind"}))
    assert panel.groups["ownership"].levels == ("private", "state")
    assert panel.periods.tolist() == [2000, 2001, 2002, 2003, 2004]


def test_missing_words_of_numbers(tmp_path):
    path = tmp_path / "panel.csv"
    path.write_text("\ufefffirm,year,first,y\n" + "".join(
        f"{firm},{year},{first},{'.' if (firm, year) == ('a', 0) else 'NA' if (firm, year) == ('b', 0) else year * k}\n"
        for k, (firm, first) in enumerate([("a", "2"), ("b", "inf"), ("NA", "NA")]) for year in range(4)
    ), encoding="utf-8")  # fmt: skip
    panel = load(settings(path=str(path)))
    assert panel.units.tolist() == ["NA", "a", "b"]
    assert panel.cohort.tolist() == [INF, 2, INF]
    assert panel.notes == ("2 rows dropped (y missing: 2)",)


def twice(path, name):
    frame = tiny().rename(columns={"x": name})
    (frame.to_excel if path.suffix == ".xlsx" else frame.to_csv)(path, index=False)
    return str(path)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".xlsx"])
def test_two_columns_of_one_name_are_refused_where_they_are_used(tmp_path, ending):
    path = twice(tmp_path / f"panel{ending}", "y")
    with pytest.raises(PanelError, match=r"several columns are named y: rename all but one"):
        load(settings(path=path))
    with pytest.raises(PanelError, match=r"several columns are named ind"):
        load(settings(path=twice(tmp_path / f"b{ending}", " ind "), groups={"industry": "ind"}))
    assert load(settings(path=twice(tmp_path / f"c{ending}", "z"))).units.tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_headers_are_text_without_blanks(tmp_path, ending):
    path = tmp_path / f"panel{ending}"
    frame = tiny().rename(columns={"x": 2010, "ind": 204, "firm": " firm", "first": "first "})
    (frame.to_excel if ending == ".xlsx" else frame.to_csv)(path, index=False)
    panel = load(settings(path=str(path), covariates=["2010"], groups={"industry": "204"}))
    same_panel(panel, dataclasses.replace(coded(tiny(), groups={"industry": "ind"}, covariates=["x"]),
                                          covariate_names=("2010",)))  # fmt: skip


def test_a_sheet_that_begins_with_an_empty_row(tmp_path):
    tiny().to_excel(tmp_path / "panel.xlsx", index=False, startrow=2)
    with pytest.raises(PanelError, match="empty first row: put the names of the columns there"):
        load(settings(path=str(tmp_path / "panel.xlsx")))


def test_commas_at_the_end_of_rows_shift_no_column(tmp_path):
    path = tmp_path / "panel.csv"
    tiny().to_csv(path, index=False)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(row + "," for row in rows)]))
    same_panel(load(settings(path=str(path))), coded(tiny()))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.csv", None, ["no file", "absent.csv", "check data.path"]),
        ("panel.txt", b"a,b", ["unknown ending", ".csv, .csv.gz, .parquet, .dta, .xlsx"]),
        ("panel.pkl.gz", b"x", ["unknown ending"]),
        ("empty.csv", b"", ["is empty"]),
        ("header.csv", b"firm,year,first,y\n", ["no rows"]),
        ("panel.csv", b"firm;year;first;y\na;1;2;3\n", ["single column", "separate the columns by commas"]),
        ("panel.csv", "firm,year,first,y\nä,1,2,3\n".encode("latin-1"), ["not UTF-8", "save it"]),
        ("panel.csv", b"firm,year\na,1\nb,2,3,4\n", ["cannot be read", "line 3"]),
        (
            "panel.csv",
            b"firm,year,first,y\na,1,2,3,4\nb,2,3,4,5\n",
            ["more fields than the 4 names", "name all columns"],
        ),
        ("panel.parquet", b"nonsense", ["cannot be read", "what its ending says", ".csv"]),
        ("panel.xlsx", b"nonsense", ["cannot be read", "what its ending says"]),
        ("panel.dta", b"nonsense", ["cannot be read"]),
        ("panel.csv.gz", b"nonsense", ["cannot be read"]),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PanelError) as error:
        load(settings(path=str(tmp_path / name)))
    assert [words for words in said if words not in str(error.value)] == [], str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "no data: give data.path"),
        ({"package": "no_such_package", "file": "a.csv"}, "no_such_package is not installed: pip install"),
        ({"package": "moderndid", "file": "../a.pkl.gz"}, "outside package moderndid"),
        ({"package": "moderndid", "file": "core/a.csv"}, "no file"),
    ],
)
def test_packages_that_cannot_be_read(changes, said):
    with pytest.raises(PanelError, match=said):
        read(settings(**changes))


def test_a_folder_is_refused_by_what_reads_files(tmp_path):
    with pytest.raises(PanelError, match=r"is a folder.*src\.fit"):
        read(settings(path=str(tmp_path)))
