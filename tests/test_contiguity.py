"""Borders of places: against libpysal's own file of neighbours, and a few that anyone can look up."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from src import contiguity
from src.ties import edges_of


@pytest.fixture(scope="module")
def of_states() -> pd.DataFrame:
    return contiguity.borders(contiguity.states())


def test_states_border_as_libpysal_says(of_states):
    spec = importlib.util.find_spec("libpysal")
    folder = Path(spec.submodule_search_locations[0]) / "examples" / "us_income"
    label = dict(zip(contiguity.states()["STATE_NAME"], contiguity.states()["label"], strict=True))
    ours = set(of_states[["from", "to"]].itertuples(index=False, name=None))
    numbered = contiguity.states()["label"]  # in the order of the alphabet, as that file counts them
    pairs = edges_of(folder / "states48.gal")[["from", "to"]].astype(int).itertuples(index=False)
    theirs = {(numbered[a], numbered[b]) for a, b in pairs}
    corners = {frozenset((label["Arizona"], label["Colorado"])), frozenset((label["Utah"], label["New Mexico"]))}
    assert {frozenset(pair) for pair in ours ^ theirs} <= corners


def test_states_are_numbered_as_the_seat_belt_panel_numbers_them(of_states):
    california, oregon, nevada, arizona = "5", "38", "29", "3"
    assert set(of_states.loc[of_states["from"] == california, "to"]) == {oregon, nevada, arizona}


def test_borders_go_both_ways_and_never_home(of_states):
    pairs = set(of_states[["from", "to"]].itertuples(index=False, name=None))
    assert {(b, a) for a, b in pairs} == pairs
    assert not any(a == b for a, b in pairs)


def test_counties_of_the_contiguous_states():
    places = contiguity.counties()
    assert len(places) == 3108  # District of Columbia included
    near = contiguity.borders(places[places["STATEFP"] == "06"])
    assert set(near.loc[near["from"] == "6037", "to"]) == {"6029", "6059", "6071", "6111"}  # of Los Angeles


def test_a_missing_package_is_said(monkeypatch, capsys):
    monkeypatch.setattr(contiguity, "counties", lambda: contiguity.shapes("no_such_package", "x.shp"))
    assert contiguity.main() == 2
    assert "no_such_package is not installed" in capsys.readouterr().err
