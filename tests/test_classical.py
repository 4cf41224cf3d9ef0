"""The page on classical estimators is true: every published number in it comes out of the adapters."""

import re

import pandas as pd
import pytest

from src.estimators import estimate
from src.fit import load
from src.trace import ROOT
from tests.test_command import composed

PAGE = (ROOT / "docs" / "classical.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("## Published numbers")[1].splitlines()
    if re.match(r"\| (mpdta|fracking|castle|driving)", line)
]


@pytest.fixture(scope="module")
def tables():
    found = {}
    for data in dict.fromkeys(row[0] for row in ROWS):
        counts = ["likelihood=poisson"] if data == "driving_counts" else []
        panel, _, _ = load(composed(f"data={data}", *counts))
        names = list(dict.fromkeys(row[1] for row in ROWS if row[0] == data))
        found[data] = estimate(panel, {}, 0.95, names)
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:3]))
def test_published_numbers(tables, row):
    data, estimator, estimand, value, se, _ = row
    name, _, level = estimand.removesuffix(" (log)").partition(" ")
    table = tables[data]
    mine = table[(table["estimator"] == estimator) & (table["estimand"] == name)]
    mine = mine[mine["scale"] == ("log" if estimand.endswith("(log)") else "outcome")]
    mine = mine[mine["level"] == level] if level else mine[mine["level"].isna()]
    found: pd.Series = mine.iloc[0]
    digits = len(value.partition(".")[2])
    assert f"{found['estimate']:.{digits}f}" == value
    if se:
        assert f"{found['se']:.{digits}f}" == se


def test_the_table_is_there():
    assert len(ROWS) == 25
