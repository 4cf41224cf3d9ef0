"""A count and a part of it: the share as an equation of its own, effects on both and on the share."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import expit

from src import across, equations, estimand, fit, rates
from src.collapse import LOG_POINTS
from src.errors import Errors
from src.exposure import row_shares
from src.generate import draw
from src.panel import PanelError
from src.system import collapse_counts
from src.validate import check_parts
from tests.test_fit import call, table
from tests.test_generate import world

SMALL = {"units": 160, "periods": 8, "starts": [4, 6], "adopters": [20, 20], "industries": 6, "districts": 8}
TERMS = ("mu", "path", "industry")
EVENTS = Errors("ar1", "unit", (), events=True)
DRAWS = 8


def panel_of(**changes):
    return draw(world("parted", **(SMALL | changes)), 1, 2)


def effects_of(system, terms=TERMS, still=()):
    """Draws of my own of both equations; the terms `still` do not move the share."""
    rng, posterior = np.random.default_rng(0), {}
    for equation in system:
        design = equation.collapsed.regression.design
        labels, column = design.labels(terms), equation.named("column")
        values = rng.normal(0.2, 0.1, (2, DRAWS // 2, len(labels)))
        if equation.is_share:
            values[..., np.isin(labels, design.labels(still))] = 0.0
        posterior[equation.named("theta")] = xr.DataArray(
            values, dims=("chain", "draw", column), coords={column: labels}
        )
    return equations.effects(xr.Dataset(posterior), system, 1)


@pytest.fixture(scope="module")
def each():
    panel = panel_of()
    return effects_of(collapse_counts(panel, row_shares(panel)[0], EVENTS, "y1", True))


def known(scale):
    return {(a.estimand, a.group, a.level): scale.draws[..., k] for k, a in enumerate(scale.found)}


def test_chance_in_few_events_does_not_pass_for_a_disturbance():
    """Half of the rows without any event, and a few units with most of them."""
    panel = draw(world("parted"), 1, 101)
    nuisance = collapse_counts(panel, row_shares(panel)[0], EVENTS, "y1", True)[1].collapsed.nuisance
    assert nuisance.rho == pytest.approx(0.6, abs=0.15)
    assert LOG_POINTS * nuisance.never == pytest.approx(0.45, abs=0.1)  # .4, unequal between units


def of_binomial(y, n, columns):
    """Maximum likelihood of a binomial with a logistic link, and standard errors."""
    beta = np.zeros(columns.shape[1])
    for _ in range(50):
        p = expit(columns @ beta)
        information = columns.T @ ((n * p * (1 - p))[:, None] * columns)
        step = np.linalg.solve(information, columns.T @ (y - n * p))
        beta += step
    assert np.abs(step).max() < 1e-8
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def test_the_share_is_a_binomial_with_an_intercept_for_every_unit():
    """Without disturbance: the same estimate and the same uncertainty as of the likelihood that is meant."""
    panel = panel_of(units=80, level=4.5, unit_effect_sd=0.2, sd=0.2, share=0.3, covariates=0, industries=4)
    system = collapse_counts(panel, row_shares(panel)[0], Errors("none", "none", (), events=True), "y1", False)
    collapsed = system[1].collapsed
    evidence = collapsed.evidence.take(collapsed.regression.design.columns(("mu",)))
    found, se = evidence.moment[0] / evidence.gram[0, 0], collapsed.s / np.sqrt(evidence.gram[0, 0])
    units, periods = (pd.get_dummies(pd.Series(x), dtype=float).to_numpy() for x in (panel.unit, panel.time))
    columns = np.hstack(
        [np.ones((len(panel.unit), 1)), panel.treated[:, None].astype(float), units[:, 1:], periods[:, 1:]]
    )
    beta, errors = of_binomial(panel.others["y1"], panel.outcome, columns)
    assert errors[1] < 0.04
    assert found == pytest.approx(beta[1], abs=0.3 * errors[1])
    assert se == pytest.approx(errors[1], rel=0.1)


def test_the_effect_is_that_of_the_world_however_few_events_units_have():
    """Eight a unit, shares far apart; as many intercepts as units would make the effect larger by a quarter."""
    rng = np.random.default_rng(1)
    base, found = panel_of(units=400, covariates=0, industries=4, adopters=[60, 60]), []
    odds = rng.normal(-0.4, 1.0, 400)[base.unit] + 0.8 * base.treated
    for _ in range(24):
        whole = rng.poisson(1.0, len(odds)).astype(float)
        part = rng.binomial(whole.astype(int), expit(odds)).astype(float)
        panel = replace(base, outcome=whole, others={"y1": part})
        errors = Errors("none", "none", (), events=True)
        collapsed = collapse_counts(panel, row_shares(panel)[0], errors, "y1", False)[1].collapsed
        evidence = collapsed.evidence.take(collapsed.regression.design.columns(("mu",)))
        found.append(evidence.moment[0] / evidence.gram[0, 0])
    error = np.std(found) / np.sqrt(24)
    assert abs(np.mean(found) - 0.8) < 3 * error
    assert error < 0.06
    assert np.std(found) == pytest.approx(collapsed.s / np.sqrt(evidence.gram[0, 0]), rel=0.6)


def test_effects_on_the_part_are_those_on_the_whole_times_those_on_the_share(each):
    scales = across.of_counts(each, 1)
    percent = known(scales["percent"])
    assert len(percent) == len(scales["percent"].found)
    for key in (
        ("att", "", ""),
        ("att_by", "industry", "C01"),
        ("att_event", "", "2"),
        ("att_cohort", "", "2004"),
    ):
        whole, part, share = (1 + percent[name + key[0], *key[1:]] / 100 for name in ("", "y1::", "y1 in outcome::"))
        np.testing.assert_allclose(part, whole * share)
        assert np.ptp(share) > 0.01
    log, whole = known(scales["log"]), each[0]
    key = ("att", "", "")
    np.testing.assert_allclose(log["y1::att", "", ""], log[key] + log["y1 in outcome::att", "", ""])
    private, state = (1 + percent["y1 in outcome::att_by", "ownership", level] / 100 for level in ("private", "state"))
    contrast = percent["y1 in outcome::contrast", "ownership", "private - state"]
    np.testing.assert_allclose(1 + contrast / 100, private / state)
    points = known(scales["outcome"])
    private, state = (points["y1 in outcome::att_by", "ownership", level] for level in ("private", "state"))
    np.testing.assert_allclose(points["y1 in outcome::contrast", "ownership", "private - state"], private - state)


def test_points_of_the_share_are_expected_parts_over_expected_wholes(each):
    """Row by row, with levels and periods that are known without error."""
    sure = []
    for one in each:
        collapsed, levels = one.equation.collapsed, one.equation.collapsed.levels
        grid = np.eye(len(levels.omega))[np.full(len(levels.total), 3)]
        still = replace(collapsed.conditional, factor=collapsed.conditional.factor * 0)
        large = {name: getattr(levels, name) * 1e18 for name in ("weight", "pull", "total")}
        collapsed = replace(collapsed, levels=replace(levels, share=grid, **large), conditional=still)
        sure.append(replace(one, equation=replace(one.equation, collapsed=collapsed)))
    points = known(across.of_counts(sure, 1)["outcome"])["y1 in outcome::att", "", ""].ravel()
    panel = each[0].equation.collapsed.regression.panel
    rows = np.flatnonzero(panel.treated)
    mean, share = 0.0, 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    for one, into in zip(sure, ("mean", "share"), strict=True):
        collapsed = one.equation.collapsed
        regression, levels = collapsed.regression, collapsed.levels
        full = rates.all_coefficients(collapsed, one.theta, 1)
        felt = (regression.matrix @ full.T).T + regression.panel.log_offset
        within = np.array([np.bincount(panel.unit, levels.weight * row) for row in felt])
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.where(levels.total > 0, (levels.pull - within) / levels.total, -np.inf)
        design = regression.design
        own = np.isin(np.arange(design.size), design.columns(TERMS))
        nobody = (regression.matrix[:, ~own] @ full[:, ~own].T).T[:, rows] + level[:, panel.unit[rows]]
        felt = np.stack([nobody, nobody + (regression.matrix[:, own] @ full[:, own].T).T[:, rows]])
        if into == "mean":
            mean = np.exp(felt + levels.omega[3] / 2)
        else:
            share = expit(felt[..., None] + np.sqrt(levels.omega[3]) * nodes) @ weights / weights.sum()
    without, adopted = (mean * share).sum(axis=2) / mean.sum(axis=2)
    np.testing.assert_allclose(points, 100 * (adopted - without), rtol=1e-4)
    log = known(across.of_counts(sure, 1)["log"])["y1 in outcome::att", "", ""].ravel()
    np.testing.assert_allclose(log, np.log(share[1] / share[0]).mean(axis=1), rtol=1e-4)


def test_truth_of_the_share_by_hand(each):
    scales = across.of_counts(each, 1)
    panel = each[0].equation.collapsed.regression.panel
    part, rows = panel.truth.others["y1"], panel.treated
    whole = panel.truth.mean[rows]
    share = (part.mean[rows] @ np.exp(part.tau[rows])) / (whole @ np.exp(panel.truth.tau[rows]))
    without = part.mean[rows].sum() / whole.sum()
    for scale, truth in (("percent", 100 * (share / without - 1)), ("outcome", 100 * (share - without))):
        k = [a.estimand for a in scales[scale].found].index("y1 in outcome::att")
        assert scales[scale].truth[k] == pytest.approx(truth)
    assert share > without


def test_parts_are_drawn_with_the_mean_that_is_said():
    panels = [
        draw(world("parted", **SMALL, level=1.0, unit_effect_sd=0.5, sd=0.2, ever=0.0, spread=0.0), 1, seed)
        for seed in range(60)
    ]
    for treated in (True, False):
        drawn, mean = (
            np.array([values(p)[p.treated == treated].sum() for p in panels])
            for values in (
                lambda p: p.others["y1"],
                lambda p: p.truth.others["y1"].mean * np.exp(p.truth.others["y1"].tau),
            )
        )
        error = np.std(drawn - mean) / np.sqrt(len(panels))
        assert abs(np.mean(drawn - mean)) < 3 * error
        assert error < 0.05 * mean.mean()


def test_what_is_nearly_the_whole_gains_what_the_whole_gains():
    """The share grows by the effect on the log odds times what is not of the part, .002 of all events."""
    panel = panel_of(level=3.0)
    rng = np.random.default_rng(0)
    nearly = panel.outcome - rng.binomial(panel.outcome.astype(int), 0.002)
    shares = row_shares(panel)[0]
    found = collapse_counts(replace(panel, others={"y1": nearly}), shares, EVENTS, "y1", False)[1].collapsed
    evidence = found.evidence.take(found.regression.design.columns(("mu",)))
    assert 0.002 * abs(evidence.moment[0] / evidence.gram[0, 0]) < 0.005
    assert 0.002 * found.s / np.sqrt(evidence.gram[0, 0]) < 0.01


def half(y):
    return np.floor(y / 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, p: y + (np.arange(len(y)) == 3), "y1 is larger than data.outcome in 1 row"),
        (lambda y, p: y, "y1 is all of data.outcome, or nothing of it, in every unit"),
        (lambda y, p: 0 * y, "y1 is all of data.outcome, or nothing of it, in every unit"),
        (lambda y, p: half(y) * np.isinf(p.cohort)[p.unit], "no adopter has both events that are y1 and others"),
        (lambda y, p: np.where(np.isinf(p.cohort)[p.unit], half(y), y), "no adopter has both events that are y1"),
    ],
)
def test_what_cannot_be_a_part(change, said):
    panel = panel_of()
    with pytest.raises(PanelError, match=said):
        check_parts(replace(panel, others={"y1": change(panel.outcome, panel)}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The command on firms that patent now and then, some of it inventions."""
    folder = tmp_path_factory.mktemp("shares")
    rng = np.random.default_rng(3)
    units, periods = 150, 8
    first = rng.choice([2014, 2016, 0], units, p=[0.2, 0.2, 0.6])
    unit, year = np.repeat(np.arange(units), periods), np.tile(np.arange(2010, 2010 + periods), units)
    treated = (year >= first[unit]) & (first[unit] > 0)
    patents = rng.poisson(np.exp(1.5 + rng.normal(0, 0.7, units)[unit] + 0.2 * treated))
    odds = -0.7 + rng.normal(0, 0.5, units)[unit]
    inventions = rng.binomial(patents, expit(odds + 0.8 * treated))
    size = np.exp(1.5 + 0.0 * odds)[treated]
    points = (size @ (expit(odds + 0.8) - expit(odds))[treated]) / size.sum()
    kind = np.array(list("abcdef"))[unit % 6]
    frame = pd.DataFrame(
        {
            "firm": unit,
            "year": year,
            "first": first[unit],
            "patents": patents,
            "inventions": inventions,
            "kind": kind,
            "staff": 1000,
        }
    )
    frame.to_csv(folder / "panel.csv", index=False)
    arguments = [
        "model=joint", "model.late=false", "data=csv", f"data.path={folder / 'panel.csv'}", "data.unit=firm",
        "data.time=year", "data.cohort=first", "data.outcome=patents", "data.outcomes=[inventions]",
        "data.groups={kind: kind}", "data.is_log=false", "sampler=fast", "sampler.draws=400", "progress=false",
        "likelihood=poisson_lognormal", "estimators=[poisson_twfe]",
    ]  # fmt: skip
    code = call(fit.fit, *arguments, f"hydra.run.dir={folder / 'run'}")
    return folder / "run", code, arguments, points


def test_the_command_tells_the_share(ran):
    folder, code, _, points = ran
    assert code in (0, 3)
    rows = table(folder / "estimands.csv")
    share = rows[rows["estimand"] == "inventions in outcome::att"].set_index("scale")
    assert set(share.index) == {"outcome", "percent", "log"}
    assert share.loc["outcome", "low"] < 100 * points < share.loc["outcome", "high"]
    assert share.loc["outcome", "note"].startswith("from ")
    assert "units of equal size" in share.loc["percent", "note"]
    assert share.loc["percent", "low"] > 0
    assert "effect_correlation" in set(rows["estimand"])
    part, whole = (
        rows[rows["estimand"] == name].set_index("scale").loc["percent"] for name in ("inventions::att", "att")
    )
    together = 100 * ((1 + whole["mean"] / 100) * (1 + share.loc["percent", "mean"] / 100) - 1)
    assert part["mean"] == pytest.approx(together, abs=0.2 * part["sd"])
    page = (folder / "report.html").read_text()
    assert "Effects on the share of inventions" in page
    with xr.open_datatree(folder / "posterior.nc") as tree:
        assert "inventions in outcome::att" in tree["estimand"].to_dataset()


def test_the_command_refuses_two_parts_and_mediators_of_counts(ran, tmp_path, capsys):
    arguments = ran[2]
    for settings, said in (
        (["data.outcomes=[inventions,staff]"], "of counts, one outcome stands beside data.outcome"),
        (["data.outcomes=[staff]"], "staff is larger than data.outcome in"),
        (["model=mediation", "data.mediators=[inventions]"], "outcomes are not counts here"),
    ):
        mine = [a for a in arguments if not (settings[0].startswith("model") and a.startswith("model"))]
        code = call(fit.fit, *mine, *settings, f"hydra.run.dir={tmp_path / 'run'}")
        assert code == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_shares_table_is_on_three_scales(each):
    rows = estimand.table(across.of_counts(each, 1), 0.9)
    mine = rows[rows["estimand"].str.startswith("y1 in outcome::")]
    assert set(mine["scale"]) == {"outcome", "percent", "log"}
    assert not mine["estimand"].str.contains("any").any()
    assert mine.query("scale == 'percent' and estimand == 'y1 in outcome::att'")["truth"].notna().all()


def test_what_moves_part_and_whole_alike_moves_no_share():
    """Spillovers that leave every row's share alone: what is left is that more exposed rows have other shares."""
    panel = panel_of(exposed=True, spill_district=0.5, spill_industry=0.5)
    system = collapse_counts(panel, row_shares(panel)[0], EVENTS, "y1", True)
    spilling = ("exposure", "difference")
    percent = across.of_counts(effects_of(system, (*TERMS, *spilling), spilling), 1)["percent"]
    found = dict(zip(((a.estimand, a.level) for a in percent.found), range(len(percent.found)), strict=True))
    k = found["y1 in outcome::spill_control", ""]
    assert np.abs(percent.draws[..., k]).max() < 2
    assert abs(percent.truth[k]) < 2
    k, own = found["y1 in outcome::switching", ""], found["y1 in outcome::direct", ""]
    assert percent.truth[k] == pytest.approx(percent.truth[own], rel=0.3)
    share, part = (
        percent.draws[..., found[name, ""]] for name in ("y1 in outcome::spill_treated", "y1::spill_treated")
    )
    assert np.abs(share).mean() < 0.3 * np.abs(part).mean()


def test_effects_on_a_part_that_nothing_tells_have_no_number_on_any_scale():
    panel = panel_of()
    silent = np.isfinite(panel.cohort) & (panel.groups["industry"].code == 0)
    others = {"y1": np.where(silent[panel.unit], 0.0, panel.others["y1"])}
    system = collapse_counts(replace(panel, others=others), row_shares(panel)[0], EVENTS, "y1", False)
    scales = across.of_counts(effects_of(system), 1)
    for scale in scales.values():
        found = known(scale)
        assert np.isfinite(found["att_by", "industry", "C00"]).all()
        for name in ("y1::att_by", "y1 in outcome::att_by"):
            assert np.isnan(found[name, "industry", "C00"]).all()
            assert np.isfinite(found[name, "industry", "C01"]).all()
