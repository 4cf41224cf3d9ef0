"""Columns mean what their labels say."""

import numpy as np
import pytest

from src.design import build_design
from src.exposure import row_shares
from tests.worlds import panel_of, staggered


@pytest.fixture(scope="module")
def regression():
    panel = staggered(seed=3)
    return build_design(panel, row_shares(panel)[0])[0]


def column(regression, label):
    return regression.matrix[:, [regression.design.all_labels.index(label)]].toarray().ravel()


def test_indicators_are_their_definitions(regression):
    panel = regression.panel
    np.testing.assert_array_equal(column(regression, "mu"), panel.treated)
    np.testing.assert_array_equal(column(regression, "path[2]"), panel.event_time == 2)
    np.testing.assert_array_equal(column(regression, "cohort[5]"), panel.treated & (panel.row_cohort == 5))
    np.testing.assert_array_equal(column(regression, "cell[3@6]"), (panel.row_cohort == 3) & (panel.time == 6))
    industry = np.array(panel.groups["industry"].levels)[panel.groups["industry"].code][panel.unit]
    owner = np.array(panel.groups["ownership"].levels)[panel.groups["ownership"].code][panel.unit]
    np.testing.assert_array_equal(column(regression, "industry[C2]"), panel.treated & (industry == "C2"))
    np.testing.assert_array_equal(
        column(regression, "industry:ownership[C2:1]"), panel.treated & (industry == "C2") & (owner == "1")
    )
    np.testing.assert_array_equal(column(regression, "industry_late[C2]"), (panel.event_time >= 1) & (industry == "C2"))
    np.testing.assert_array_equal(column(regression, "time[4]"), panel.time == 4)


def test_every_effect_block_adds_up_to_adoption(regression):
    for name in ("path", "cohort", "cell", "industry", "ownership", "industry:ownership", "group_cell"):
        block = regression.matrix[:, regression.design.blocks[name].columns]
        np.testing.assert_array_equal(block.sum(axis=1), regression.panel.treated)


def test_exposures_are_in_sds_of_exposed_rows_and_centred_over_treated_rows(regression):
    panel, share = regression.panel, row_shares(regression.panel)[0]["county"]
    sd = share[share > 0].std()
    np.testing.assert_allclose(column(regression, "exposure[county]"), share / sd)
    centred = panel.treated * (share - share[panel.treated].mean()) / sd
    np.testing.assert_allclose(column(regression, "difference[county]"), centred, atol=1e-12)


def test_a_level_exists_only_where_a_treated_row_has_it():
    groups = {"industry": ["a", "b", "c"]}
    panel = panel_of([0, 0, 1, 1, 2, 2], [1, 2] * 3, [2, np.inf, 2], np.arange(6), groups=groups)
    design = build_design(panel, {})[0].design
    assert design.blocks["industry"].levels == ("a", "c")
    assert "industry_late" not in design.blocks
    assert "exposure" not in design.blocks


def test_an_exposure_that_is_zero_everywhere_is_left_out_and_said():
    panel = staggered(seed=3)
    shares = row_shares(panel)[0]
    regression, notes = build_design(panel, shares | {"county": np.zeros(len(panel.unit))})
    assert regression.exposures == ("industry",)
    assert notes == ["exposure county is zero in every row and is left out"]


def test_predictor_is_centred_over_the_levels_that_occur():
    panel = staggered(seed=3)
    panel.predictors["industry"] = np.array([0.0, 1, 0, 0, 1, 0, 0])
    block = build_design(panel, {})[0].design.blocks["industry"]
    assert block.predictor.sum() == pytest.approx(0)
    assert np.ptp(block.predictor) == 1
