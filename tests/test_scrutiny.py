"""Planted problems are said where they cannot be missed."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from src.average import Average
from src.collapse import collapse
from src.design import build_design
from src.estimand import Scale
from src.scrutiny import Scrutiny, attempted, loud_prior, nobody_left, together
from tests.test_figure import EVERYTHING, beside_of, table_of
from tests.test_report import DIAGNOSTICS, ORIGIN, report
from tests.worlds import staggered


@pytest.fixture(scope="module")
def collapsed():
    return collapse(build_design(staggered(units=60), {})[0])


def of(collapsed, mean, sd):
    """An average effect that is the coefficient mu, with a posterior of this mean and SD."""
    weights = np.eye(collapsed.regression.design.size)[0]
    draws = np.random.default_rng(0).normal(mean, sd, (4, 500, 1))
    return Scale([Average("att", "", "", weights, 9, 9)], draws, np.array([np.nan]), [""])


def prior(sd):
    drawn = np.random.default_rng(1).normal(0, sd, (1, 500, 1))
    return xr.DataArray(drawn, dims=("chain", "draw", "column"), coords={"column": ["mu"]})


@pytest.mark.parametrize(("sd", "mean", "loud"), [(10, 0.3, False), (0.15, 0.1, True), (0.3, 1.0, True)])
def test_a_prior_that_speaks_loudly_is_heard(collapsed, sd, mean, loud):
    said = loud_prior(of(collapsed, mean, 0.1), prior(sd), collapsed)
    assert bool(said) == loud
    assert not loud or "prior=wide" in said[0]


def test_a_panel_in_which_everybody_adopts_is_said():
    panel = staggered(units=40)
    assert nobody_left(panel) == []
    everybody = replace(panel, cohort=np.where(np.isfinite(panel.cohort), panel.cohort, 9.0))
    assert "Every unit adopts" in nobody_left(everybody)[0]


def test_problems_and_warnings_stand_on_the_first_screen():
    table, panel = table_of(EVERYTHING), staggered(units=30)
    warnings = ["the data speak against parallel trends", "Every unit adopts in the end", "The prior speaks loudly"]
    failed = DIAGNOSTICS | {"ok": False, "problems": ["7 divergent transitions"]}
    page = report.render(
        "toy", "hier", build_design(panel, {})[0], table, beside_of(table, warnings=warnings), failed, [], ORIGIN
    )
    first = page.index('id="answers"')
    for word in (*warnings, "7 divergent transitions"):
        assert 0 < page.index(word) < first


def test_what_a_library_refuses_is_said_and_the_rest_goes_on():
    def refused(given):
        raise ValueError("no\n  comparison")

    found = together(Scrutiny({"comparison": table_of(EVERYTHING)}, {"warnings": ["a"]}), attempted("x", refused, None))
    assert list(found.tables) == ["comparison"]
    assert found.said == {"warnings": ["a"], "handled": ["x: could not be computed (ValueError: no comparison)"]}
