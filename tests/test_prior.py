"""What the prior says before the data do, and priors from plain statements."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from models import hier, pooled
from src import elicit, estimand, fit, prior, sample, trace
from src.collapse import collapse
from src.command import UserError
from src.config import PriorConfig
from src.design import build_design
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from tests.test_command import composed
from tests.test_fit import call
from tests.test_generate import world
from tests.worlds import WEAK

SMALL = {"units": 150, "periods": 7, "starts": [3, 5], "adopters": [20, 20], "industries": 6, "districts": 8}
TIGHT = replace(WEAK, sd=0.2, fixed=0.25, difference=0.1, predictor=0.15, path=0.3, exposure=1)


@pytest.fixture(scope="module")
def collapsed():
    panel = replace(draw(world(**SMALL), 0, 0), is_log=True)
    return collapse(build_design(panel, row_shares(panel)[0])[0])


@pytest.fixture(scope="module")
def counts():
    panel = draw(world("counts", **SMALL), 0, 0)
    return collapse(build_design(panel, row_shares(panel)[0], True)[0], Errors("ar1", "unit", (), events=True))


def model_of(collapsed, function, priors):
    return function(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), priors)


def stated(**changes) -> PriorConfig:
    return replace(composed("prior=elicit").prior, **changes)


@pytest.mark.parametrize(("att", "sure"), [([-20, 80], 0.95), ([5, 60], 0.8), ([-50, -10], 0.9)])
def test_the_average_effect_lies_where_it_is_said_to_with_the_mass_that_is_said(collapsed, att, sure):
    def build(priors):
        return model_of(collapsed, hier.build, priors)

    found = elicit.elicited(stated(att=att, sure=sure, spread=None), TIGHT, collapsed, build)
    theta = sample.draw_prior(build(found), 3, 4000)["theta"] * collapsed.s
    average = estimand.averages(collapsed.regression, collapsed.evidence, trace.terms(theta))[0]
    drawn = 100 * np.expm1(estimand.draw_estimands(theta, collapsed.regression.design.all_labels, [average]))
    assert ((drawn > att[0]) & (drawn < att[1])).mean() == pytest.approx(sure, abs=0.02)
    assert (drawn > att[1]).mean() == pytest.approx((drawn < att[0]).mean(), abs=0.02)
    plain = np.diff(np.log1p(np.array(att) / 100))[0] / collapsed.s / (2 * stats.norm.ppf((1 + sure) / 2))
    assert found.mu < plain  # other terms add to it


def test_a_spread_lies_below_what_is_said_of_it(collapsed):
    found = elicit.with_spread(stated(spread=30.0, sure=0.9), TIGHT, collapsed)
    most = np.log(1.3) / collapsed.s
    assert 2 * stats.t.cdf(most / found.sd, 3) - 1 == pytest.approx(0.9, abs=0.01)


def test_statements_on_an_outcome_that_is_not_in_logs_are_in_its_own_units(collapsed):
    panel = replace(collapsed.regression.panel, is_log=False)
    plain = replace(collapsed, regression=replace(collapsed.regression, panel=panel))
    assert elicit.in_units_of_s(0.3, plain) == pytest.approx(0.3 / collapsed.s)
    assert elicit.in_units_of_s(30, collapsed) == pytest.approx(np.log(1.3) / collapsed.s)


@pytest.mark.parametrize(
    ("att", "words"),
    [
        ([80, -20], "is to be the two ends"),
        ([10], "is to be the two ends"),
        ([-100, 50], "is above -100"),
        ([0, 1], "more than the statement"),
    ],
)
def test_statements_that_cannot_be(collapsed, att, words):
    with pytest.raises(UserError, match=words):
        elicit.elicited(stated(att=att), TIGHT, collapsed, lambda p: model_of(collapsed, hier.build, p))


def test_mass_on_absurd_effects_of_one_normal(collapsed):
    """tau = mu ~ Normal(0, 10 s), nothing else: by the distribution function."""
    bare = replace(TIGHT, difference=1e-9, exposure=1e-9, mu=10)
    said = prior.looked_at(model_of(collapsed, pooled.build, bare), collapsed, 0.9, 1)
    att = said.table.query("estimand == 'att'").set_index("scale")
    sd = 10 * collapsed.s
    assert att.loc["percent", "absurdly_high"] == pytest.approx(stats.norm.sf(np.log(10) / sd), abs=0.03)
    assert att.loc["percent", "absurdly_low"] == pytest.approx(stats.norm.cdf(np.log(0.1) / sd), abs=0.03)
    assert np.isnan(att.loc["outcome", "absurdly_low"])
    low, high = (100 * np.expm1(sd * z) for z in stats.norm.ppf([0.05, 0.95]))
    assert att.loc["percent", "low"] == pytest.approx(low, abs=1)
    assert np.log1p(att.loc["percent", "high"] / 100) == pytest.approx(np.log1p(high / 100), rel=0.1)
    words = prior.in_words(said, collapsed)
    mass = att.loc["percent", ["absurdly_low", "absurdly_high"]].sum()
    assert words[0].startswith(f"{mass:.1%} of the prior mass")
    assert "The data will have to speak" in words[0]


def test_a_report_says_what_was_believed(collapsed):
    """Of mu ~ Normal(0, .5) log points on a grid of its quantiles."""
    mu = stats.norm.ppf((np.arange(4000) + 0.5) / 4000) / 2
    theta = xr.DataArray(mu[None, :, None], dims=("chain", "draw", "column"), coords={"column": ["mu"]})
    att = estimand.averages(collapsed.regression, collapsed.evidence, ("mu",))[0]
    words = prior.average_in_words(theta, collapsed, att, 0.9)
    found = re.search(r"between (\S+)% and (\S+)% with probability 90%; 0% of it", words)
    ends = 100 * np.expm1(np.array([-1, 1]) * stats.norm.ppf(0.95) / 2)
    assert [float(end) for end in found.groups()] == pytest.approx(ends, rel=0.01)
    wide = prior.average_in_words(100 * theta, collapsed, att, 0.9)
    assert re.search(r"9[5-7]% of it lay below -90% or above \+900%", wide)
    panel = replace(collapsed.regression.panel, is_log=False)
    plain = replace(collapsed, regression=replace(collapsed.regression, panel=panel))
    assert "0% of it lay beyond three SDs" in prior.average_in_words(theta, plain, att, 0.9)


def test_outcomes_from_the_prior_are_those_before_adoption_and_the_effect(collapsed):
    still = replace(TIGHT, mu=1e-9, centre=2.0, difference=1e-9, exposure=1e-9)
    said = prior.looked_at(model_of(collapsed, pooled.build, still), collapsed, 0.9, 1)
    panel = collapsed.regression.panel
    rows = np.flatnonzero(panel.treated)
    assert said.drawn.shape == (prior.DRAWS, len(rows))
    np.testing.assert_array_equal(said.seen, panel.outcome[rows])
    for k in (0, 7):
        mine = panel.outcome[(panel.unit == panel.unit[rows[k]]) & ~panel.treated]
        assert said.drawn[:, k].mean() == pytest.approx(mine.mean() + 2 * collapsed.s, abs=0.1 * collapsed.s)
        assert said.drawn[:, k].std() == pytest.approx(collapsed.s, rel=0.1)


def test_outcomes_of_counts_are_counts(counts):
    said = prior.looked_at(model_of(counts, hier.build, TIGHT), counts, 0.9, 1)
    assert (said.drawn >= 0).all()
    assert (said.drawn == np.round(said.drawn)).all()
    assert {"outcome", "percent", "log"} == set(said.table["scale"])
    assert said.table.query("estimand == 'att' and scale == 'percent'")["absurdly_high"].notna().all()


def test_without_a_percent_scale_an_effect_is_absurd_beyond_three_sds_of_the_outcome(collapsed):
    panel = replace(collapsed.regression.panel, is_log=False)
    plain = replace(collapsed, regression=replace(collapsed.regression, panel=panel))
    said = prior.looked_at(model_of(plain, pooled.build, replace(TIGHT, difference=1e-9)), plain, 0.9, 1)
    att = said.table.query("estimand == 'att'").iloc[0]
    most = 3 * panel.outcome.std() / (10 * collapsed.s)
    assert att["absurdly_high"] == pytest.approx(stats.norm.sf(most), abs=0.03)


def test_the_command_writes_a_table_a_picture_and_a_reason_for_every_line(tmp_path, capsys):
    folder = tmp_path / "prior"
    code = call(prior.prior, "data=synthetic", "data.size=small", "prior=elicit", f"hydra.run.dir={folder}")
    said = capsys.readouterr().out
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {"prior.csv", "prior.png"}
    table = pd.read_csv(folder / "prior.csv")
    assert list(table.columns) == prior.COLUMNS
    att = table.query("estimand == 'att' and scale == 'percent'").iloc[0]
    assert att["low"] == pytest.approx(-20, abs=4)
    assert att["high"] == pytest.approx(80, abs=12)
    assert "  fixed: 0.25  SD of deviations where a term has too few levels" in said
    assert "  att: [-20.0, 80.0]  the average effect lies between these" in said
    assert "of the prior mass of the average effect lies below -90% or above +900%" in said


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        ("prior", ["model=joint"], "the prior of one outcome is looked at"),
        ("prior", ["model=nopool", "prior=elicit"], "are of models of one outcome with an average"),
        ("fit", ["model=joint", "prior=elicit"], "are of models of one outcome with an average"),
        ("fit", ["prior=elicit", "prior.att=[3,2]"], "is to be the two ends"),
        ("fit", ["prior=elicit", "prior.sure=1"], "prior.sure=1"),
    ],
)
def test_what_cannot_be_said_of_a_prior(tmp_path, capsys, task, arguments, words):
    run = {"prior": prior.prior, "fit": fit.fit}[task]
    code = call(run, "data=synthetic", "data.size=small", *arguments, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
