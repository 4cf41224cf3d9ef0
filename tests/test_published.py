"""Published numbers on real panels, from the collapse in closed form and from the sampler.

mpdta: two-way fixed effects -.0365 and the extended TWFE column of moderndid's documentation (R etwfe's numbers).
fracking: two-way fixed effects .0242, extended TWFE = imputation .0505, computed with pyfixest and diff-diff.
driving: log rate, two-way fixed effects -.0707. castle: TWFE weighted by population, against pyfixest.
"""

from dataclasses import replace

import numpy as np
import pytest

from models import hier, nopool, pooled
from src.collapse import collapse, least_squares
from src.design import build_design
from src.fit import load
from tests.test_collapse import feols
from tests.test_command import composed
from tests.test_models import effects_of
from tests.worlds import WEAK

MPDTA_CELLS = {
    "2004@2004": -0.0194,
    "2004@2005": -0.0783,
    "2004@2006": -0.1361,
    "2004@2007": -0.1047,
    "2006@2006": 0.0025,
    "2006@2007": -0.0392,
    "2007@2007": -0.0431,
}
TWFE = {"mpdta": -0.0365, "fracking": 0.0242, "driving": -0.0707}


def collapsed_of(name):
    panel, shares, _ = load(composed(f"data={name}", "data.groups={}"))
    return collapse(build_design(panel, shares)[0])


@pytest.fixture(scope="module", params=["mpdta", "fracking"])
def real(request):
    return request.param, collapsed_of(request.param)


@pytest.mark.parametrize("name", TWFE)
def test_average_effect_in_closed_form(name):
    collapsed = collapsed_of(name)
    columns = collapsed.regression.design.columns(("mu",))
    assert least_squares(collapsed.evidence.take(columns))[0][0] == pytest.approx(TWFE[name], abs=5e-5)


def test_weights_of_a_real_panel():
    collapsed = collapsed_of("castle")
    panel = collapsed.regression.panel
    assert np.ptp(panel.weight) > 0
    columns = collapsed.regression.design.columns(("mu",))
    expected, _ = feols(panel, panel.treated[:, None].astype(float))
    assert least_squares(collapsed.evidence.take(columns))[0][0] == pytest.approx(expected[0], rel=1e-8)


def test_cells_in_closed_form():
    collapsed = collapsed_of("mpdta")
    block = collapsed.regression.design.blocks["cell"]
    found = least_squares(collapsed.evidence.take(collapsed.regression.design.columns(("cell",))))[0]
    assert dict(zip(block.levels, found, strict=True)) == pytest.approx(MPDTA_CELLS, abs=6e-5)


def test_pooled_posterior_is_two_way_fixed_effects(real):
    name, collapsed = real
    row = effects_of(collapsed, pooled.build, replace(WEAK, mu=100)).loc[("att", "", "")]
    assert abs(row["mean"] - TWFE[name]) < 4 * row["mcse_mean"] + 5e-5


def test_nopool_posterior_is_extended_two_way_fixed_effects(real):
    name, collapsed = real
    block = collapsed.regression.design.blocks["cell"]
    columns = collapsed.regression.matrix[:, block.columns].toarray()
    cells, _ = feols(collapsed.regression.panel, columns)
    table = effects_of(collapsed, nopool.build)
    for level, cell in zip(block.levels, cells, strict=True):
        row = table.loc[("att_gt", "", level)]
        assert abs(row["mean"] - cell) < 4.5 * row["mcse_mean"], level
    simple = {"mpdta": -0.0477, "fracking": 0.0505}[name]
    row = table.loc[("att", "", "")]
    assert abs(row["mean"] - simple) < 4 * row["mcse_mean"] + 5e-5


def test_hierarchy_lies_between_its_limits_on_a_real_panel():
    collapsed = collapsed_of("mpdta")
    one = effects_of(collapsed, hier.build).loc[("att", "", "")]
    assert -0.0477 - 0.01 < one["mean"] < -0.0365 + 0.01
