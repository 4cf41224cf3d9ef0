"""Placebos: what is moved is moved, what is kept is kept, and the command writes what it says."""

import sys

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from src import command, placebo
from src.command import ROOT, UserError, settings
from src.exposure import row_shares
from src.panel import Mapping
from src.placebo import at_other_places, before_adoption, moved, placebos, summary
from src.ties import distance_ties, ring
from tests.worlds import staggered


def composed(*overrides: str):
    command.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settings(compose("placebo", list(overrides)))


def test_in_time_nothing_treated_remains_and_adoption_is_earlier():
    panel = staggered(seed=21, missing=0.0)
    early = before_adoption(panel, 2)
    original = dict(zip(panel.units, panel.cohort, strict=True))
    for unit, cohort in zip(early.units, early.cohort, strict=True):
        assert cohort == original[unit] - 2 or np.isinf(cohort)
    true_cohort = np.array([original[unit] for unit in early.units])[early.unit]
    assert (early.time < true_cohort).all()
    assert early.treated.any()
    assert set(early.roster.cohort) == set(panel.roster.cohort)  # others are exposed to what really happened
    # cohort 3 of periods 1..8 is treated in its first period once moved back by two
    assert not (early.cohort == 1).any()


def test_too_large_a_shift_is_refused():
    with pytest.raises(UserError, match="smaller"):
        before_adoption(staggered(seed=21), 9)


def test_places_are_exchanged_among_adopters_and_among_others():
    panel = staggered(seed=22)
    other = at_other_places(panel, np.random.default_rng(0))
    adopts = np.isfinite(panel.roster.cohort)
    for name, mapping in panel.roster.mappings.items():
        new = other.roster.mappings[name].members
        assert not np.array_equal(new, mapping.members)
        for kind in (adopts, ~adopts):
            np.testing.assert_array_equal(np.sort(new[kind]), np.sort(mapping.members[kind]))
    assert other.outcome is panel.outcome
    assert set(row_shares(other)[0]) == set(row_shares(panel)[0])


def test_ties_move_with_the_places():
    rng = np.random.default_rng(3)
    latitude, longitude, adopts = rng.random(40), rng.random(40), np.arange(40) % 4 == 0
    place = np.arange(40)
    for kind in (adopts, ~adopts):
        place[kind] = rng.permutation(place[kind])
    ties, total = distance_ties(latitude, longitude, adopts, ring((0, 50)), 50, np.ones(40))
    wanted, sums = distance_ties(latitude[place], longitude[place], adopts, ring((0, 50)), 50, np.ones(40))
    places = np.column_stack([latitude, longitude])
    found = moved(Mapping(None, ties, total, form="additive", places=places, edges=(0.0, 50.0)), place)
    np.testing.assert_array_equal(found.places, places[place])
    assert found.edges == (0.0, 50.0)
    np.testing.assert_allclose(found.ties.toarray(), wanted.toarray())
    np.testing.assert_allclose(found.total, sums)


def test_the_share_as_large_counts_the_estimate_itself():
    key = {"estimand": "spill_per_pp", "group": "county", "level": "control", "se": 1.0, "low": 0.0, "high": 2.0}
    rows = pd.DataFrame([key | {"placebo": r, "estimate": x} for r, x in enumerate([1.0, -2.0, 0.5, 0.1, 1.0])])
    (row,) = summary(rows, 0.9).to_dict("records")
    assert row["share_as_large"] == pytest.approx(3 / 5)
    assert row["placebos"] == 4
    assert row["placebo_mean"] == pytest.approx(-0.1)


def test_without_exposures_there_are_no_places_to_exchange():
    panel = staggered(seed=23, exposed=False)
    with pytest.raises(UserError, match="placebo=time"):
        list(placebos(composed("data=mpdta"), panel, {}))


@pytest.mark.parametrize("kind", ["places", "time"])
def test_the_command_writes_a_table_and_a_figure(kind, tmp_path, monkeypatch, capsys):
    options = ["data.size=small", f"placebo={kind}", "n=5", "sampler.draws=100", "sampler.tune=200", "model=pooled"]
    arguments = [*options, "likelihood.scale=common", f"hydra.run.dir={tmp_path / 'here'}", "progress=false"]
    monkeypatch.setattr(sys, "argv", ["placebo", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.command(placebo.placebo, config_name="placebo")
    assert ended.value.code == 0
    table = pd.read_csv(tmp_path / "here" / "placebo.csv")
    assert list(table) == placebo.COLUMNS
    assert (tmp_path / "here" / "placebo.png").stat().st_size > 10_000
    if kind == "places":
        assert (table["placebos"] == 5).all()
        assert table["share_as_large"].between(1 / 6, 1).all()
        slope = table[(table["estimand"] == "spill_per_pp") & (table["level"] == "control")]
        assert (slope["estimate"].abs() > slope["placebo_mean"].abs()).all()
    else:
        assert {"att", "att_event"} <= set(table["estimand"])
    assert "placebo.csv" in capsys.readouterr().out
