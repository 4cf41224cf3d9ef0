"""Planted problems are said where they cannot be missed."""

from dataclasses import replace

import numpy as np

from src.design import build_design
from src.scrutiny import Scrutiny, attempted, nobody_left, together
from tests.test_figure import EVERYTHING, beside_of, table_of
from tests.test_report import DIAGNOSTICS, ORIGIN, report
from tests.worlds import staggered


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
