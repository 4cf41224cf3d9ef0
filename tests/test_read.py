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
        ("panel.parquet", b"nonsense", ["cannot be read"]),
        ("panel.xlsx", b"nonsense", ["cannot be read"]),
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
