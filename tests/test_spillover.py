"""What others' adoption does, estimand by estimand, against averages of made-up coefficients over rows."""

from dataclasses import replace

import numpy as np
import pytest

from models import hier
from src import estimand
from src.collapse import collapse
from src.design import build_design
from src.exposure import row_shares
from src.sample import draw_posterior
from tests.worlds import WEAK, panel_of


def firms(slopes=(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), noise=0.1, seed=0):
    """600 firms of 30 districts and 6 sectors over 8 periods; others' adoption in the district helps, by sector."""
    rng = np.random.default_rng(seed)
    units, periods = 600, 8
    sector, district = rng.integers(0, 6, units), rng.integers(0, 30, units)
    cohort = np.where(rng.random(units) < 0.15 + 0.2 * (district % 3), rng.integers(3, 8, units), np.inf)
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    outcome = rng.normal(size=units)[unit] + noise * rng.normal(size=len(unit))
    panel = panel_of(unit, time, cohort, outcome, {"sector": sector}, {"district": district})
    share = row_shares(panel)[0]["district"]
    felt = np.array(slopes)[sector[unit]] * share
    mapping = replace(panel.roster.mappings["district"], by="sector")
    roster = replace(panel.roster, mappings={"district": mapping})
    return replace(panel, outcome=outcome + felt + 0.4 * panel.treated, roster=roster)


@pytest.fixture(scope="module")
def collapsed():
    panel = firms()
    return collapse(build_design(panel, row_shares(panel)[0])[0])


def test_averages_of_slopes_by_level_are_averages_over_rows(collapsed):
    regression = collapsed.regression
    panel, design = regression.panel, regression.design
    theta = np.random.default_rng(1).normal(size=design.size)
    terms = ("mu", "exposure", "difference", "spill_district")
    by = {(a.estimand, a.level): a for a in estimand.averages(regression, collapsed.evidence, terms)}
    sd, share = regression.exposure_sd[0], regression.shares[:, 0]
    sector = np.array(panel.groups["sector"].levels)[panel.groups["sector"].code][panel.unit]
    deviation = theta[design.blocks["spill_district"].columns][panel.groups["sector"].code[panel.unit]]
    slope = (theta[design.blocks["exposure"].start] + deviation) / sd
    more = theta[design.blocks["difference"].start] / sd
    control, treated = ~panel.treated & (share > 0), panel.treated & (share > 0)
    assert by["spill_control", ""].weights @ theta == pytest.approx((slope * share)[control].mean())
    assert by["spill_per_pp", "control"].weights @ theta == pytest.approx(0.01 * slope[control].mean())
    assert by["spill_per_pp", "treated"].weights @ theta == pytest.approx(0.01 * (slope[treated].mean() + more))
    assert by["spill_per_pp", "difference"].weights @ theta == pytest.approx(0.01 * more)
    own = by["direct", ""].weights @ theta
    spill = ((slope + more) * share)[panel.treated].mean()
    assert by["spill_treated", ""].weights @ theta == pytest.approx(spill)
    assert by["total_treated", ""].weights @ theta == pytest.approx(own + spill)
    assert by["switching", ""].weights @ theta == pytest.approx(own + (more * share)[panel.treated].mean())
    for level in panel.groups["sector"].levels:
        average = by["spill_by", level]
        mine = control & (sector == level)
        assert average.group == "district:sector"
        assert average.n_obs == mine.sum()
        assert average.weights @ theta == pytest.approx(0.01 * slope[mine][0])
        assert average.identified


@pytest.mark.parametrize("slopes", [(2.0, 1.0, 0.0, 2.0, 1.0, 0.0), (1.0,) * 6])
def test_slopes_that_differ_between_levels_are_found(slopes):
    panel = firms(slopes)
    collapsed = collapse(build_design(panel, row_shares(panel)[0])[0])
    regression, s = collapsed.regression, collapsed.s
    model = hier.build(regression.design, collapsed.evidence.rescale(s), WEAK, late=False, interactions=False)
    theta = draw_posterior(model, draws=300, tune=300, chains=2, seed=1)["posterior"]["theta"] * s
    found = estimand.averages(regression, collapsed.evidence, tuple(regression.design.blocks))
    draws = estimand.draw_estimands(theta, regression.design.all_labels, found)
    by = {(a.estimand, a.level): k for k, a in enumerate(found)}
    for level, slope in enumerate(slopes):
        mine = draws[..., by["spill_by", str(level)]]
        assert abs(mine.mean() - 0.01 * slope) < 4 * mine.std()
        assert mine.std() < 0.002
