"""Outcomes drawn from a Gaussian model: laws of the errors, statistics by loops, planted faults that are found."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import xarray as xr

from src import noise, predictive, residuals
from src.collapse import collapse
from src.design import NUISANCE, build_design
from src.errors import Errors, Nuisance, Shock, shock_columns, shock_precision
from src.exposure import row_shares
from src.generate import draw
from src.passes import precision_of
from tests.test_generate import world
from tests.worlds import panel_of, staggered

FULL = Errors("ar1", "unit", ("district", "industry"))
LEFT_OUT = ("lead", "group_cell", "trait", "trait_late", *NUISANCE)  # by the model that draws here


def collapsed_of(panel, errors=FULL):
    regression, _ = build_design(panel, row_shares(panel)[0], errors.scale == "unit")
    return collapse(regression, errors)


def posterior(collapsed, draws=800, seed=0) -> xr.DataArray:
    """Exact draws of the coefficients under Normal priors with the spreads that were estimated."""
    design, s = collapsed.regression.design, collapsed.s
    names = tuple(name for name in design.blocks if name not in LEFT_OUT)
    spreads = np.concatenate(
        [np.full(design.blocks[name].size, collapsed.nuisance.spreads.get(name, 1.0)) for name in names]
    )
    evidence = collapsed.evidence.take(design.columns(names))
    lower = np.linalg.cholesky(evidence.gram + np.diag(spreads**-2))
    mean = scipy.linalg.cho_solve((lower, True), evidence.moment)
    noisy = np.random.default_rng(seed).standard_normal((draws, len(mean)))
    drawn = mean + s * scipy.linalg.solve_triangular(lower, noisy.T, lower=True, trans="T").T
    return xr.DataArray(
        drawn[None], dims=("chain", "draw", "column"), coords={"column": np.array(design.labels(names))}
    )


def checked(panel, errors=FULL):
    collapsed = collapsed_of(panel, errors)
    return residuals.check(collapsed, errors, posterior(collapsed), None, 0)


def tails(check):
    return check.summary.set_index(["kind", "statistic"])["tail"]


@pytest.fixture(scope="module")
def panel():
    return draw(world("realistic", units=600), 1, 4)


@pytest.fixture(scope="module")
def right(panel):
    return checked(panel)


def test_a_model_that_is_right_surprises_nobody(right):
    assert list(predictive.surprises(right)) == []
    assert tails(right).between(0.01, 0.99).all()
    statistics = {"lag1", "tails", "ratio", "spread", "before"}
    assert set(right.summary["statistic"]) == statistics | {"shared_district", "shared_industry", "shared_ownership"}
    assert {len(values) for values in right.drawn.values()} == {predictive.REPLICATES}


@pytest.mark.parametrize(
    ("errors", "name", "remedy"),
    [
        (Errors("none", "unit", ("district", "industry")), ("control", "lag1"), "likelihood.serial=ar1"),
        (Errors("ar1", "common", ("district", "industry")), ("all", "spread"), "likelihood.scale=unit"),
        (Errors("ar1", "unit", ("district",)), ("all", "shared_industry"), "likelihood.shocks=[district, industry]"),
        (Errors("ar1", "unit"), ("all", "shared_district"), "likelihood.shocks=[district]"),
    ],
)
def test_what_errors_are_not_allowed_to_do_is_found_with_its_remedy(panel, errors, name, remedy):
    check = checked(panel, errors)
    assert tails(check)[name] == 0
    mine = [said for said in predictive.surprises(check) if check.words[name[1]] in said]
    assert remedy in mine[0]
    assert mine[0].startswith("Outcomes drawn from the model are unlike the data")


def test_movement_before_adoption_is_found(panel):
    trend = 0.15 * np.where(np.isfinite(panel.row_cohort), np.minimum(panel.event_time, 0), 0)
    check = checked(replace(panel, outcome=panel.outcome + trend))
    assert tails(check)["treated", "before"] == 0
    assert any("look at leads" in said for said in predictive.surprises(check))


def test_rows_far_out_are_found(panel):
    rng = np.random.default_rng(3)
    far = np.where(rng.random(len(panel.unit)) < 0.01, 4.0, 0.0) * rng.choice([-1, 1], len(panel.unit))
    check = checked(replace(panel, outcome=panel.outcome + far))
    assert tails(check)["control", "tails"] == 0


def test_effects_of_units_are_no_matter(panel, right):
    moved = checked(replace(panel, outcome=panel.outcome + 100.0 * np.arange(len(panel.units))[panel.unit]))
    np.testing.assert_allclose(moved.summary["observed"], right.summary["observed"], rtol=1e-6)


@pytest.fixture(scope="module")
def few():
    """Seven units with gaps, weights and a unit of one row."""
    rng = np.random.default_rng(2)
    rows = [(0, 1), (0, 2), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4), (2, 2), (3, 1), (3, 3), (3, 4), (4, 1), (4, 2),
            (5, 1), (5, 2), (5, 3), (6, 2), (6, 3), (6, 4)]  # fmt: skip
    unit, time = np.array(rows).T
    weight = rng.uniform(0.5, 2.0, len(unit))
    cohort = [3, np.inf, np.inf, 3, np.inf, 2, 4]
    return panel_of(unit, time, cohort, rng.normal(size=len(unit)), {"industry": [0, 0, 1, 1, 0, 1, 0]}, weight=weight)


def test_errors_have_the_covariance_that_the_evidence_takes(few):
    regression, _ = build_design(few, {}, units=True)
    code = few.groups["industry"].code
    shock = Shock(code, 2, sd=0.7, phi=0.4)
    weight = np.linspace(0.5, 2.0, 7)
    nuisance = Nuisance(0.6, 5.0, 1.0, 1.0, weight, np.zeros(7), {"industry": shock}, {"unit": 0.8}, onset=(0.5, 0.9))
    regression = replace(regression, integrated=True, onset=(0.5, 0.9))
    drawn = noise.errors(regression, nuisance, np.full(200_000, 2.0), weight[:, None], np.random.default_rng(0))
    periods = regression.frame.periods
    columns = shock_columns(few, shock, periods).toarray()
    prior = np.linalg.inv(np.kron(np.eye(2), shock_precision(np.diff(periods), shock)))
    f = few.treated * np.select([few.event_time == 0, few.event_time == 1], [0.5, 0.9], 1.0)
    same = np.equal.outer(few.unit, few.unit)
    expected = np.linalg.inv(precision_of(few, weight, 0.6).toarray()) + columns @ prior @ columns.T
    expected += 0.8**2 * np.outer(f, f) * same
    np.testing.assert_allclose(np.cov(drawn), 4 * expected, atol=0.08)


def test_statistics_by_loops(few):
    regression, _ = build_design(few, {})
    nuisance = Nuisance(0.0, np.inf, 1, 1, np.ones(7), np.log(np.linspace(0.5, 1.5, 7)), {}, {})
    collapsed = type("Collapsed", (), {"regression": regression, "nuisance": nuisance})()
    frame = residuals.Frame.of(collapsed)
    left = np.random.default_rng(1).normal(size=(len(few.unit), 2))
    found = residuals.statistics(left, frame)
    for k in range(2):
        units = [np.flatnonzero(few.unit == i) for i in range(7)]
        r = np.concatenate([left[rows, k] - left[rows, k].mean() for rows in units])
        z = r * np.sqrt(few.weight) / np.linspace(0.5, 1.5, 7)[few.unit]
        for kind, ever in (("treated", True), ("control", False)):
            mine = [rows for i, rows in enumerate(units) if np.isfinite(few.cohort[i]) == ever]
            pairs = np.array([(z[a], z[b]) for rows in mine if len(rows) > 2 for a, b in pairwise(rows)]).T
            lag = (pairs[0] @ pairs[1]) / np.sqrt((pairs[0] @ pairs[0]) * (pairs[1] @ pairs[1]))
            assert found[kind, "lag1"][k] == pytest.approx(lag)
            u = np.concatenate([r[rows] / np.std(r[rows], ddof=1) for rows in mine if len(rows) >= 3])
            assert found[kind, "tails"][k] == pytest.approx(np.mean(u**4) / np.mean(u**2) ** 2)
        variance = [
            sum((r[rows] ** 2).sum() for rows in units if np.isfinite(few.cohort[few.unit[rows[0]]]) == ever)
            / sum(max(len(rows) - 1, 1) for rows in units if np.isfinite(few.cohort[few.unit[rows[0]]]) == ever)
            for ever in (True, False)
        ]
        assert found["all", "ratio"][k] == pytest.approx(0.5 * np.log(variance[0] / variance[1]))
        scales = [np.log(np.std(r[rows], ddof=1)) for rows in units if len(rows) >= 3]
        assert found["all", "spread"][k] == pytest.approx(np.std(scales, ddof=1))
        level, n = few.groups["industry"].code[few.unit], len(z)
        together = [
            z[a] * z[b] for a in range(n) for b in range(n)
            if a != b and level[a] == level[b] and few.time[a] == few.time[b]
        ]  # fmt: skip
        assert found["all", "shared_industry"][k] == pytest.approx(np.mean(together) / np.mean(z**2))
        early = {}
        for a in range(n):
            if few.time[a] < few.row_cohort[a] < np.inf:
                early.setdefault((few.row_cohort[a], few.time[a]), []).append(z[a])
        of_adopters = np.mean(z[np.isfinite(few.row_cohort)] ** 2)
        moved = np.mean([np.sum(cell) ** 2 / len(cell) for cell in early.values()])
        assert found["treated", "before"][k] == pytest.approx(moved / of_adopters)


def test_a_classification_is_looked_at_once():
    panel = staggered(units=40)
    assert list(residuals.classifications(panel)) == ["county", "industry", "ownership"]


def test_two_rows_of_a_unit_tell_no_correlation(few):
    short = few.time <= 2
    pair = panel_of(few.unit[short], few.time[short], few.cohort, few.outcome[short], {})
    regression, _ = build_design(pair, {})
    nuisance = Nuisance(0.0, np.inf, 1, 1, np.ones(7), np.zeros(7), {}, {})
    collapsed = type("Collapsed", (), {"regression": regression, "nuisance": nuisance})()
    found = residuals.statistics(np.ones((short.sum(), 1)) * few.outcome[short, None], residuals.Frame.of(collapsed))
    assert not [name for name in found if name[1] in ("lag1", "tails")]


def test_the_data_count_among_their_replicates():
    def surprised(above, drawn):
        values = {("all", "x"): np.arange(drawn, dtype=float)}
        seen = {("all", "x"): np.full(drawn, drawn - above - 0.5)}
        check = predictive.check_of(values, seen, {"all": 1}, {"x": "x"}, {}, "Outcomes", "")
        return bool(predictive.surprising(check)[0])

    assert [surprised(above, 400) for above in (0, 1, 2)] == [True, True, False]
    assert [surprised(above, 200) for above in (0, 1)] == [True, False]
    assert not surprised(0, 100)
