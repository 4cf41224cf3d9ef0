"""Targeting: exposures and gains against loops, limits, what rules may choose, and what the command refuses."""

import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr
from omegaconf import OmegaConf

from src import command, fit, generate, target
from src.allocation import (
    Limits,
    best_first,
    cells_on_top,
    greedy,
    prospect_of,
    share_better,
    taken,
    top_probability,
)
from src.collapse import collapse
from src.command import with_run
from src.config import DataConfig, ExposureConfig, TargetConfig
from src.design import build_design
from src.exposure import row_shares
from src.hypothesis import hypothesis_of, responses_of, weights_under
from src.newcomers import Draws, Newcomers, Terms, cells_of_candidates, deviations, draws_of, newcomers, second_stage
from src.panel import Mapping, PanelError
from src.selection import fitted
from src.target import all_rules, interval
from src.ties import FADING, distance_ties
from tests.test_command import composed, composed_study
from tests.worlds import WEAK, panel_of, staggered

NONE = np.zeros((0, 0), dtype=int)
SHARES = {"county": ExposureConfig(share="county"), "industry": ExposureConfig(share="industry")}


def by_distance(panel, form: str, lag: int):
    """The panel with an exposure by distance beside its counties, ties to adopters alone, and its entry."""
    places = 0.5 * np.random.default_rng(8).random((len(panel.units), 2))
    adopts = np.isfinite(panel.cohort)
    kernel = lambda d: FADING["exponential"](d, 20.0)  # noqa: E731
    ties, total = distance_ties(*places.T, adopts, kernel, 60.0, np.ones(len(adopts)))
    near = Mapping(None, ties, total, form=form, lag=lag, places=places)
    mappings = {"county": replace(panel.roster.mappings["county"], lag=lag), "near": near}
    entry = ExposureConfig(kernel="exponential", scale=20.0, cutoff=60.0, latitude="a", longitude="b", form=form)
    return replace(panel, roster=replace(panel.roster, mappings=mappings)), SHARES | {"near": entry}


def with_slopes_by(panel, name: str, group: str):
    mappings = panel.roster.mappings | {name: replace(panel.roster.mappings[name], by=group)}
    return replace(panel, roster=replace(panel.roster, mappings=mappings))


def parts(panel, entries, horizon=2):
    """The regression of a panel, and who may adopt next."""
    regression, _ = build_design(panel, row_shares(panel)[0])
    return regression, hypothesis_of(panel, entries, regression.exposures, horizon, 2)


def felt_by(panel, name, cohort, i, t):
    """Exposure of unit i in period t, by loops over the others."""
    mapping = panel.roster.mappings[name]
    on = [j for j in range(len(cohort)) if j != i and cohort[j] + mapping.lag <= t]
    if mapping.members is not None:
        others = [j for j in range(len(cohort)) if j != i and mapping.members[j] == mapping.members[i]]
        return sum(j in others for j in on) / len(others) if others else 0.0
    latitude, longitude = np.radians(mapping.places.T)
    cosine = np.sin(latitude[i]) * np.sin(latitude) + np.cos(latitude[i]) * np.cos(latitude) * np.cos(
        longitude - longitude[i]
    )
    d = 6371.0088 * np.arccos(np.clip(cosine, -1, 1))
    tie = np.where(d <= 60, np.exp(-d / 20), 0.0)
    total = tie.sum() - tie[i]
    if mapping.form == "nearest":
        return max((tie[j] for j in on), default=0.0)
    return sum(tie[j] for j in on) / (1.0 if mapping.form == "additive" else total or 1.0)


def by_loops(regression, hypothesis, theta, chosen):
    """Sum over the units present of what adoption by `chosen` changes beside tau, mean over the periods."""
    panel, blocks = regression.panel, regression.design.blocks
    before, after = panel.cohort.copy(), panel.cohort.copy()
    after[chosen] = hypothesis.periods[0]
    found = 0.0
    for i in hypothesis.present:
        for t in hypothesis.periods:
            for cohort, sign in ((before, -1), (after, 1)):
                for k, name in enumerate(regression.exposures):
                    share = felt_by(panel, name, cohort, i, t)
                    slope = theta[blocks["exposure"].start + k]
                    if f"spill_{name}" in blocks:
                        code = panel.groups[panel.roster.mappings[name].by].code[i]
                        slope = slope + theta[blocks[f"spill_{name}"].start + code]
                    treated = cohort[i] <= t
                    more = theta[blocks["difference"].start + k] * (share - regression.exposure_centre[k]) * treated
                    found += sign * (slope * share + more) / regression.exposure_sd[k]
    return found / len(hypothesis.periods)


WORLDS = {
    "shares": lambda p: (p, SHARES),
    "slopes by ownership": lambda p: (with_slopes_by(p, "county", "ownership"), SHARES),
    "additive, a period later": lambda p: by_distance(p, "additive", 1),
    "share by distance": lambda p: by_distance(p, "share", 0),
    "nearest": lambda p: by_distance(p, "nearest", 0),
}


@pytest.mark.parametrize("world", WORLDS)
def test_spillovers_of_a_set_are_those_of_loops_over_everybody(world):
    panel, entries = WORLDS[world](staggered(units=30, seed=5))
    regression, hypothesis = parts(panel, entries)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=regression.design.size)
    responses = responses_of(hypothesis, regression)
    own = Newcomers(*(np.zeros((1, len(hypothesis.candidates))),) * 2, np.zeros(1), {})
    prospect = prospect_of(hypothesis, regression, own, responses, theta[None])
    for size in (1, 4, len(hypothesis.candidates)):
        chosen = np.sort(rng.permutation(len(hypothesis.candidates))[:size])
        who = hypothesis.candidates[chosen]
        wanted = by_loops(regression, hypothesis, theta, who)
        assert weights_under(hypothesis, regression, who) @ theta == pytest.approx(wanted, rel=1e-6)
        assert prospect.expected(chosen)[0] == pytest.approx(wanted, rel=1e-6)
        if size == 1:
            assert prospect.total[0, chosen[0]] == pytest.approx(wanted, rel=1e-6)
    assert responses.linear == (world != "nearest")


def test_only_units_that_are_still_there_are_chosen_and_reached():
    panel = staggered(units=40, seed=9)
    _, hypothesis = parts(panel, SHARES)
    last = {i: panel.time[panel.unit == i].max() for i in range(len(panel.units))}
    assert set(hypothesis.present) == {i for i, t in last.items() if t >= 7}
    assert set(hypothesis.candidates) == {i for i in hypothesis.present if np.isinf(panel.cohort[i])}
    assert hypothesis.periods.tolist() == [9, 10, 11]


def test_a_calendar_of_every_other_year_goes_on_in_steps_of_two():
    panel = staggered(units=30, seed=5, missing=0.0)
    doubled = replace(panel, time=2 * panel.time, cohort=2 * panel.cohort)
    _, hypothesis = parts(replace(doubled, roster=replace(panel.roster, cohort=2 * panel.cohort)), SHARES)
    assert hypothesis.periods.tolist() == [18, 20, 22]


def draws_with(regression, terms, size=400, more=None, seed=0):
    labels = [label for label in regression.design.all_labels if label.partition("[")[0] in terms]
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(size, regression.design.size))
    theta[:, [label not in labels for label in regression.design.all_labels]] = 0.0
    return Draws(theta, frozenset(labels), more or {})


def test_own_effects_are_the_sum_of_their_terms():
    regression, hypothesis = parts(staggered(units=60, seed=3), SHARES)
    regression = replace(regression, onset=(0.4, 0.9))
    pooled = ("industry", "ownership", "industry:ownership", "industry_late", "ownership_late")
    draws = draws_with(regression, ("mu", "path", *pooled), size=3, more={f"sd_{name}": np.ones(3) for name in pooled})
    terms = Terms(pooled, False, False, "normal", WEAK, 0.5)
    others = newcomers(
        draws, regression, terms, np.zeros(60), hypothesis.candidates, hypothesis.event_times, np.random.default_rng(1)
    )
    theta = dict(zip(regression.design.all_labels, draws.theta[0], strict=True))
    panel, checked = regression.panel, 0
    for k, i in enumerate(hypothesis.candidates):
        industry, owner = (panel.groups[name].levels[panel.groups[name].code[i]] for name in ("industry", "ownership"))
        names = [f"industry[{industry}]", f"ownership[{owner}]", f"industry:ownership[{industry}:{owner}]"]
        late = [f"industry_late[{industry}]", f"ownership_late[{owner}]"]
        if not all(name in theta for name in (*names, *late)):
            assert any(of[k] for of in others.unseen.values())
            continue
        checked += 1
        rest = sum(theta[name] for name in names)
        path = [theta[f"path[{e}]"] for e in range(3)]
        wanted = [
            theta["mu"] + path[e] + share * (rest + (sum(theta[name] for name in late) if e else 0))
            for e, share in enumerate((0.4, 0.9, 1.0))
        ]
        assert others.known[0, k] == pytest.approx(np.mean(wanted))
    assert checked > 5
    assert not others.unit.any()
    assert not others.cohort.any()


def test_a_level_that_nobody_treated_has_is_drawn_and_flagged():
    panel = staggered(units=80, seed=4)
    adopts = np.isfinite(panel.cohort)
    code = panel.groups["industry"].code.copy()
    code[adopts & (code == 2)] = 3
    assert (code[~adopts] == 2).sum() > 2
    panel = replace(panel, groups=panel.groups | {"industry": replace(panel.groups["industry"], code=code)})
    regression, hypothesis = parts(panel, SHARES)
    sd = np.full(40_000, 0.7)
    draws = draws_with(regression, ("mu", "path", "industry"), size=len(sd), more={"sd_industry": sd})
    draws.theta[:] = 0.0
    terms = Terms(("industry",), False, False, "normal", WEAK, 0.5)
    who, at = hypothesis.candidates, np.array([1])
    others = newcomers(draws, regression, terms, np.zeros(80), who, at, np.random.default_rng(1))
    strange = code[who] == 2
    np.testing.assert_array_equal(others.unseen["industry"], strange)
    assert np.ptp(others.known[:, strange], axis=1).max() == 0  # one draw for all of the level
    assert others.known[:, strange].std() == pytest.approx(0.7 * np.sqrt(1 + 1 / 6), rel=0.02)
    assert not others.known[:, ~strange].any()
    cell, never = cells_of_candidates(regression, who)
    assert never[strange].all()
    treated_cells = {
        f"{panel.groups['industry'].levels[code[i]]}:{panel.groups['ownership'].code[i]}"
        for i in np.unique(panel.unit[panel.treated])
    }
    np.testing.assert_array_equal(never, [name not in treated_cells for name in cell])


def test_a_spread_without_draws_is_estimated_in_a_second_stage():
    rng = np.random.default_rng(0)
    levels, noise = 40, 0.05
    effect = 0.3 * rng.standard_normal(levels)
    deviation = (effect - effect.mean()) + noise * rng.standard_normal((4000, levels))
    deviation -= deviation.mean(axis=1, keepdims=True)
    found = second_stage(deviation, 1.0, 0.25, 4000, rng)
    assert np.mean(found) == pytest.approx(effect.std(ddof=1), rel=0.15)
    none = second_stage(noise * (deviation - deviation.mean(axis=0)), 1.0, 0.25, 4000, rng)  # all levels alike
    assert np.median(none) < 0.02
    prior = second_stage(None, 1.0, 0.25, 200_000, rng)
    assert np.median(prior) == pytest.approx(0.25 * 0.765, rel=0.03)  # of a half-Student-t with three degrees


def test_heavy_tails_are_drawn_with_heavy_tails():
    rng = np.random.default_rng(0)
    of = {tails: deviations(np.ones((200_000, 1)), 8, tails, (200_000, 1), rng) for tails in ("normal", "student_t")}
    assert of["normal"].std() == pytest.approx(np.sqrt(1 + 1 / 8), rel=0.01)
    assert (np.abs(of["student_t"]) > 4).mean() > 10 * (np.abs(of["normal"]) > 4).mean()


def limits(slots, size, **more):
    return Limits(slots, **({"level": NONE, "most": [], "cost": np.ones(size)} | more))


def test_the_greedy_set_is_near_the_best_of_all_subsets():
    panel = staggered(units=24, seed=6)
    regression, hypothesis = parts(panel, SHARES)
    size, ratio = len(hypothesis.candidates), []
    assert 10 <= size <= 16
    for seed in range(20):
        rng = np.random.default_rng(seed)
        theta = np.zeros(regression.design.size)
        theta[regression.design.blocks["exposure"].columns] = 0.1
        theta[regression.design.blocks["difference"].columns] = 0.1 * rng.normal(size=2)
        own = Newcomers(0.3 + 0.2 * rng.normal(size=(1, size)), np.zeros((1, size)), np.zeros(1), {})
        prospect = prospect_of(hypothesis, regression, own, responses_of(hypothesis, regression), theta[None])
        subsets = [np.array(one) for one in combinations(range(size), 3)]
        values = np.array([prospect.expected(one)[0] for one in subsets])
        chosen = greedy(prospect.total[0], prospect.interactions(), limits(3, size), rng)
        plain = taken(best_first(prospect.total[0], limits(3, size), rng), limits(3, size))
        gain = prospect.expected(chosen)[0]
        assert gain >= prospect.expected(plain)[0] - 0.02 * values.max()
        ratio.append(gain / values.max())
        if seed == 0:  # without interactions nothing is better
            free = replace(prospect, theta=np.zeros_like(prospect.theta), total=prospect.own)
            best = max(free.own[0, one].sum() for one in subsets)
            order = greedy(free.own[0], free.interactions(), limits(3, size), rng)
            assert free.own[0, order].sum() == pytest.approx(best)
    assert min(ratio) > 0.9
    assert np.mean(ratio) > 0.99


def test_gains_are_updated_as_the_set_grows():
    # 0 and 1 are worth little together, 0 and 2 much
    pairs = np.zeros((3, 3))
    pairs[0, 1] = pairs[1, 0] = -5.0
    pairs[0, 2] = pairs[2, 0] = 5.0
    found = greedy(np.array([3.0, 2.0, 1.0]), sp.csr_array(pairs), limits(2, 3), np.random.default_rng(0))
    assert found.tolist() == [0, 2]


def test_quotas_and_budgets_hold():
    rng = np.random.default_rng(0)
    value, level, cost = rng.normal(size=50), rng.integers(0, 4, (2, 50)), rng.random(50) + 0.1
    most = [np.full(4, 3), np.full(4, 2)]
    strict = limits(20, 50, level=level, most=most, cost=cost, budget=2.5)
    pairs = sp.random_array((50, 50), density=0.2, rng=rng)
    for found in (
        taken(rng.permutation(50), strict),
        greedy(value, sp.csr_array(pairs + pairs.T), strict, rng),
        taken(best_first(value, strict, rng), strict),
    ):
        assert len(found) == len(set(found)) > 2
        assert cost[found].sum() <= 2.5
        for of, at_most in zip(level, most, strict=True):
            assert (np.bincount(of[found], minlength=4) <= at_most).all()
    assert len(taken(range(50), limits(20, 50, level=level, most=most))) == 8  # two of each of four levels
    cheap = taken(best_first(np.ones(50), strict, rng), replace(strict, most=[], level=NONE))
    assert cost[cheap].max() <= np.sort(cost)[len(cheap)]


def test_probabilities_of_the_top_add_up():
    rng = np.random.default_rng(0)
    total = rng.normal(size=(300, 12)) + np.arange(12) / 4
    top = top_probability(total, 5, rng)
    assert top.sum() == pytest.approx(5)
    by_hand = [np.mean([(row > row[i]).sum() < 5 for row in total]) for i in range(12)]
    np.testing.assert_allclose(top, by_hand)
    alike = top_probability(np.zeros((20_000, 10)), 3, rng)
    np.testing.assert_allclose(alike, 0.3, atol=0.02)
    # the first cell fills four of five slots, so that the second is in and the third is not
    sure = cells_on_top(np.array([[3.0, 2.0, 1.0]]), np.array([4, 3, 2]), 5, rng)
    assert sure.tolist() == [1, 1, 0]
    assert share_better(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 1.0])) == pytest.approx(0.5)


def test_the_odds_of_adoption_solve_their_equations():
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(500), rng.normal(size=(500, 3))])
    chosen = (rng.random(500) < 1 / (1 + np.exp(1 - columns[:, 1]))).astype(float)
    predictor = fitted(columns, chosen)
    slope = np.linalg.lstsq(columns, predictor)[0]
    gradient = columns.T @ (chosen - 1 / (1 + np.exp(-predictor))) - np.r_[0, slope[1:]]
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert slope[1] > 0.6


def small_prospect(model: str, exposed: bool, **changes):
    """Draws of a model that are made up, on a panel that is not."""
    panel = staggered(units=80, seed=2, exposed=exposed)
    run = composed(f"model={model}", "likelihood.scale=common", "data.exposures={}", "data.is_log=true")
    regression, _ = build_design(panel, row_shares(panel)[0])
    collapsed = collapse(regression)
    names = ("mu",) if model == "pooled" else ("mu", "path", "industry", "ownership", "industry:ownership")
    names = (*names, "exposure", "difference") if exposed else names
    labels = [label for label in regression.design.all_labels if label.partition("[")[0] in names]
    rng = np.random.default_rng(0)
    theta = xr.DataArray(
        rng.normal(size=(2, 100, len(labels))), dims=("chain", "draw", "column"), coords={"column": labels}
    )
    spreads = {f"sd_{name}": (("chain", "draw"), np.full((2, 100), 0.3)) for name in names[2:]}
    posterior = xr.Dataset({"theta": theta} | spreads)
    run.data = DataConfig(name="made_up", exposures=dict(SHARES) if exposed else {})
    config = TargetConfig(slots=10, horizon=2, new_cohort="average", draws=200, shuffles=20, **changes)
    return run, config, target.prospect_from(run, config, collapsed, posterior, rng)


def test_without_heterogeneity_and_spillovers_all_rules_tie():
    run, config, prospect = small_prospect("pooled", exposed=False)
    rules = list(all_rules(run, config, prospect, np.random.default_rng(0)))
    assert [rule.name for rule in rules] == ["random", "today", "own", "total"]
    mu = prospect.theta[:, 0]
    for rule in rules:
        np.testing.assert_allclose(rule.expected, 10 * mu, rtol=1e-12)
        np.testing.assert_allclose(rule.realised, 10 * mu, rtol=1e-12)
        np.testing.assert_allclose(rule.best, rule.expected, rtol=1e-12)
        assert share_better(rule.realised, rules[1].realised) == 0.5


def test_with_both_the_rule_by_total_effect_is_expected_to_gain_most():
    run, config, prospect = small_prospect("hier", exposed=True, quotas={"ownership": 5})
    rules = list(all_rules(run, config, prospect, np.random.default_rng(0)))
    assert len(rules) == 8
    for kind in ("", "quotas"):
        mine = {rule.name: rule for rule in rules if rule.limits == kind}
        assert mine["own"].expected.mean() > mine["random"].expected.mean()
        assert mine["total"].expected.mean() > mine["random"].expected.mean()
        assert all((rule.best >= rule.expected - 1e-9).all() for rule in mine.values())
    code = prospect.regression.panel.groups["ownership"].code[prospect.hypothesis.candidates]
    for rule in rules[4:]:
        assert all(np.bincount(code[one]).max() <= 5 for one in rule.sets)


def test_more_draws_than_there_are_and_columns_of_others():
    regression, _ = parts(staggered(units=40, seed=9), SHARES)
    theta = xr.DataArray(
        np.arange(20.0).reshape(2, 5, 2), dims=("chain", "draw", "column"), coords={"column": ["mu", "path[0]"]}
    )
    found = draws_of(xr.Dataset({"theta": theta}), regression, 100)
    assert found.theta.shape == (10, regression.design.size)
    assert found.theta[:, 0].tolist() == list(range(0, 20, 2))
    with pytest.raises(PanelError, match="refit=true"):
        draws_of(xr.Dataset({"theta": theta.assign_coords(column=["mu", "path[99]"])}), regression, 100)


def test_too_long_a_horizon_and_nobody_left_are_refused():
    regression, hypothesis = parts(staggered(units=40, seed=9), SHARES)
    terms = Terms((), False, False, "normal", WEAK, 0.5)
    draws = draws_with(regression, ("mu", "path"), size=3)
    with pytest.raises(PanelError, match="smaller horizon"):
        newcomers(draws, regression, terms, np.zeros(40), hypothesis.candidates, np.arange(9), np.random.default_rng(0))
    unit, time = np.repeat(np.arange(4), 6), np.tile(np.arange(6), 4)
    early = (time < 4) | (unit < 2)
    gone = panel_of(unit[early], time[early], [3, 3, np.inf, np.inf], np.zeros(early.sum()))
    with pytest.raises(PanelError, match="nobody is left"):
        hypothesis_of(gone, {}, (), 1, 2)


def test_sizes_that_are_not_kept_and_learned_kernels_are_refused():
    panel, entries = by_distance(staggered(units=30, seed=5), "additive", 0)
    near = panel.roster.mappings["near"]
    weighed = replace(near, total=2 * near.total)
    other = replace(panel, roster=replace(panel.roster, mappings={"near": weighed}))
    with pytest.raises(PanelError, match="size"):
        hypothesis_of(other, entries, ("near",), 1, 2)
    learned = replace(panel, roster=replace(panel.roster, mappings={"near": replace(near, form="learned")}))
    with pytest.raises(PanelError, match="learned kernel"):
        hypothesis_of(learned, entries, ("near",), 1, 2)


def test_what_adoption_would_do_is_what_it_did_to_adopters():
    world = composed_study("generator.units=150", "generator.industries=6", "generator.districts=8",
                           "generator.adopters=[10,10,10,10]").generator  # fmt: skip
    panel = generate.draw(world, 3, 5)
    frame, level = generate.potential(world, 3, 5)
    number = np.array([int(name[1:]) for name in panel.units])
    wanted = level[number[panel.unit]] * generate.ramp_at(world, np.maximum(panel.event_time, 0))
    np.testing.assert_allclose(panel.truth.tau[panel.treated], wanted[panel.treated])
    assert np.isinf(frame.cohort).sum() == 110


def test_a_path_in_front_is_the_run():
    assert with_run(["traces/a b", "slots=3"]) == ["run=traces/a b", "slots=3"]
    assert with_run(["--help"]) == ["--help"]
    assert with_run(["-m", "traces/x", "slots=3,4"]) == ["-m", "run=traces/x", "slots=3,4"]
    assert with_run(["slots=3", "run=x"]) == ["slots=3", "run=x"]
    assert command.understood(["run=traces/a (b)"]) == ['run="traces/a (b)"']


def test_an_interval_holds_its_mass():
    draws = np.random.default_rng(0).normal(size=(100_000, 1))
    found = interval(draws, 0.9)
    assert found["low"][0] == pytest.approx(-1.645, abs=0.03)
    assert found["sd"][0] == pytest.approx(1, abs=0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of src.fit on the small synthetic panel."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    options = ["data.size=small", "model=pooled", "sampler=study", "likelihood.serial=none", "likelihood.shocks=[]"]
    with pytest.MonkeyPatch.context() as patch:
        words = [*options, "figures=false", "estimators=[]", "likelihood.scale=common", f"hydra.run.dir={folder}"]
        patch.setattr(sys, "argv", ["fit", *words])
        with pytest.raises(SystemExit):
            command.command(fit.fit)
    return folder


def targeted(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["target", *(str(word) for word in words)])
    with pytest.raises(SystemExit) as ended:
        target.main()
    return ended.value.code


def test_the_command_writes_tables_and_a_figure(run, tmp_path, monkeypatch, capsys):
    place = tmp_path / "here"
    words = [run / "posterior.nc", "slots=20", "quotas={province: 4}", "cost=size", "draws=200", f"folder={place}"]
    assert targeted(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert out.startswith(target.ASSUMES)
    targets, rules, cells = (pd.read_csv(place / f"{name}.csv") for name in ("targets", "rules", "cells"))
    assert (place / "target.png").stat().st_size > 20_000
    assert list(rules) == target.RULES
    assert len(rules) == 16
    assert targets["p_top"].sum() == pytest.approx(20)
    assert set(targets["cell"]) == set(cells["cell"])
    assert cells["candidates"].sum() == len(targets)
    assert (targets["total_low"] < targets["total_mean"]).all()
    assert ((cells["low"] < cells["gain"]) & (cells["gain"] < cells["high"])).all()
    by_cell = targets.groupby("cell")["total_mean"].mean()
    np.testing.assert_allclose(cells.set_index("cell")["gain"].loc[by_cell.index], by_cell)
    assert targets["rank"].tolist() == sorted(targets["rank"])
    free = targets[targets["chosen_by"].fillna("").str.split("; ").map(lambda names: "total" in names)]
    assert len(free) == 20
    rules["limits"] = rules["limits"].fillna("")
    budget = rules[(rules["rule"] == "today") & (rules["limits"] == "")]["cost"].iloc[0]
    assert (rules[rules["limits"] == "costs"]["cost"] <= budget * (1 + 1e-6)).all()
    assert rules.loc[rules["rule"] == "today", "p_beats_today"].isna().all()
    assert (rules["regret"] >= -1e-12).all()
    assert cells["extrapolated"].any()
    assert "nobody treated" in out


def test_the_gain_of_a_rule_is_that_of_its_units(run, tmp_path, monkeypatch):
    words = [run, "slots=20", "draws=200", f"folder={tmp_path / 'a'}"]
    assert targeted(monkeypatch, *words) == 0
    targets = pd.read_csv(tmp_path / "a" / "targets.csv", keep_default_na=False)
    rules = pd.read_csv(tmp_path / "a" / "rules.csv", keep_default_na=False).set_index("rule")
    for rule in ("today", "own", "total"):
        mine = targets[targets["chosen_by"].str.split("; ").map(lambda names, rule=rule: rule in names)]
        assert float(rules.loc[rule, "own"]) == pytest.approx(mine["own_mean"].mean())
        # beyond what each does alone, the chosen expose each other
        assert float(rules.loc[rule, "gain"]) == pytest.approx(mine["total_mean"].mean(), rel=0.25)
    assert float(rules.loc["own", "own"]) == pytest.approx(targets["own_mean"].nlargest(20).mean())


REFUSED = {
    "slots=400": "more than the 324 candidates",
    "budget=3": "budget needs costs",
    "cost=nothing": "cost names nothing, which is no column",
    "cost=roa": "not above 0",
    "quotas={nowhere: 3}": "quotas names nowhere",
    "quotas={ownership: 0}": "no dictionary of whole numbers",
    "quotas=3": "no dictionary of whole numbers",
    "horizon=20": "smaller horizon",
    "slot=3": "there is no setting slot",
    "new_cohort=same": "is not an option",
}


@pytest.mark.parametrize(("word", "said"), REFUSED.items())
def test_a_mistake_ends_in_one_message_and_nothing_is_written(word, said, run, tmp_path, monkeypatch, capsys):
    slots = [] if word.startswith("slots") else ["slots=20"]
    assert targeted(monkeypatch, run, *slots, word, "draws=100", "shuffles=10", f"folder={tmp_path / 'here'}") == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "here").exists()


def test_what_is_no_run_is_refused(tmp_path, monkeypatch, capsys):
    assert targeted(monkeypatch, tmp_path) == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert targeted(monkeypatch, "slots=3") == 2
    assert "name the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"seed": 1}}, "data of this run have changed"),
        ({"model": {"name": "nopool"}}, "nopool"),
        ({"engine": {"nonsense": 1}}, "another version"),
    ],
)
def test_a_run_of_other_data_or_without_newcomers_is_refused(change, said, run, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    (other / ".hydra").mkdir(parents=True)
    kept = OmegaConf.load(run / ".hydra" / "config.yaml")
    if change.get("model"):
        kept.model = OmegaConf.create({"name": "nopool"})
        change = {}
    OmegaConf.save(OmegaConf.merge(kept, change), other / ".hydra" / "config.yaml")
    (other / "posterior.nc").write_bytes((run / "posterior.nc").read_bytes())
    assert targeted(monkeypatch, other, "slots=20") == 2
    assert said in capsys.readouterr().err
    assert not (other / "target").exists()


def test_a_new_cohort_is_apart_by_as_much_as_cohorts_are():
    regression, hypothesis = parts(staggered(units=60, seed=3), SHARES)
    size = 40_000
    more = {"sd_cohort": np.full(size, 0.4), "sd_cell": np.full(size, 0.2)}
    draws = draws_with(regression, ("mu", "path", "cohort", "cell"), size=size, more=more)
    who, at, found = hypothesis.candidates, hypothesis.event_times, {}
    for drawn in (True, False):
        terms = Terms((), False, drawn, "normal", WEAK, 0.5)
        found[drawn] = newcomers(draws, regression, terms, np.zeros(60), who, at, np.random.default_rng(1))
    cells = regression.design.blocks["cell"].size
    wanted = 0.4**2 * (1 + 1 / 3) + 0.2**2 * (1 + 1 / cells) / 3  # three cohorts; three periods, each its cell
    assert found[True].cohort.var() == pytest.approx(wanted, rel=0.03)
    assert not found[False].cohort.any()
    np.testing.assert_array_equal(found[True].known, found[False].known)
