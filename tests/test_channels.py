"""Natural effects, their identities and limits, and what a residual correlation makes of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from src import channels, fit
from src.channels import Channel, breakdown, curves, estimands, in_words, told
from src.config import GeneratorConfig
from src.equations import Effects, told_by
from src.errors import Errors
from src.estimand import averages
from src.exposure import row_shares
from src.generate import draw
from src.system import FIRST, collapse_all
from tests.test_fit import call, table

WORLD = GeneratorConfig(
    name="world", units=240, periods=8, starts=[4, 6], adopters=[30, 30], industries=6, districts=8,
    mediated=[0.3, -0.25], on_mediators=[0.3, -0.2],
)  # fmt: skip


def system_of(world, errors=None, seed=3):
    panel = draw(world, 1, seed)
    order = (*panel.others, FIRST)
    return collapse_all(panel, row_shares(panel)[0], errors or Errors(), order, False, True, False)


@pytest.fixture(scope="module")
def system():
    return system_of(WORLD)


@pytest.fixture(scope="module")
def each(system):
    """Effects with draws of my own."""
    rng = np.random.default_rng(0)
    done = []
    for equation in system:
        collapsed = equation.collapsed
        terms = ("mu", "path", "industry", "ownership", "exposure", "difference")
        found = averages(collapsed.regression, collapsed.evidence, terms)
        apart, slopes = rng.normal(1, 0.1, (2, 50, len(found))), rng.normal(0.3, 0.1, (2, 50, len(equation.earlier)))
        total = apart + sum(slopes[..., [j]] * before.total for j, before in enumerate(done))
        done.append(Effects(equation, xr.DataArray(), found, apart, total, slopes))
    return done


def keyed(found, draws):
    return {(a.estimand, a.group, a.level): (draws[..., k], a) for k, a in enumerate(found)}


def test_parts_add_up_draw_by_draw_and_in_truth(each):
    known = keyed(*estimands(each))
    slopes = {name: known["mediator_slope", name, ""][0] for name in ("m0", "m1")}
    pairs = {"att": "", "att_by": "_by", "att_event": "_event", "contrast": "_contrast"}
    compared = 0
    for (estimand, group, level), (total, average) in known.items():
        if estimand not in pairs:
            continue
        kind = pairs[estimand]
        direct, of_direct = known[f"natural_direct{kind}", group, level]
        indirect, of_indirect = known[f"natural_indirect{kind}", group, level]
        np.testing.assert_allclose(direct + indirect, total)
        assert of_direct.truth + of_indirect.truth == pytest.approx(average.truth)
        parts = [known[f"{name}::natural_indirect{kind}", group, level] for name in slopes]
        np.testing.assert_allclose(sum(part for part, _ in parts), indirect)
        for (part, of_part), (name, slope), true in zip(parts, slopes.items(), WORLD.mediated, strict=True):
            effect, of_effect = known[f"{name}::{estimand}", group, level]
            np.testing.assert_allclose(part, slope * effect)
            assert of_part.truth == pytest.approx(true * of_effect.truth)
        compared += 1
    assert compared > 10
    share, of_share = known["proportion_mediated", "", ""]
    np.testing.assert_allclose(share, known["natural_indirect", "", ""][0] / known["att", "", ""][0])
    assert of_share.truth == pytest.approx(known["natural_indirect", "", ""][1].truth / known["att", "", ""][1].truth)


def test_no_effect_on_mediators_is_no_indirect_effect():
    truth = draw(replace_world(on_mediators=[0.0, 0.0]), 1, 3).truth
    assert not any(other.tau.any() for other in truth.others.values())


def test_without_effect_on_mediators_nothing_goes_through_them(each):
    *mediators, outcome = each
    still = [replace(m, total=np.zeros_like(m.total)) for m in mediators]
    known = keyed(*estimands([*still, outcome]))
    assert not known["natural_indirect", "", ""][0].any()
    assert not known["m1::natural_indirect_by", "ownership", "state"][0].any()


def replace_world(**changes) -> GeneratorConfig:
    return replace(WORLD, **changes)


def test_one_mediator_has_one_row():
    system = system_of(replace_world(mediated=[0.3], on_mediators=[0.3]))
    rng = np.random.default_rng(0)
    done = []
    for equation in system:
        found = averages(equation.collapsed.regression, equation.collapsed.evidence, ("mu",))
        drawn = rng.normal(size=(2, 5, len(found)))
        done.append(
            Effects(equation, xr.DataArray(), found, drawn, drawn, rng.normal(size=(2, 5, len(equation.earlier))))
        )
    names = {a.estimand for a in estimands(done)[0]}
    assert "natural_indirect" in names
    assert not any(name.endswith("::natural_indirect") for name in names)


def test_a_share_of_what_may_be_zero_is_left_open(each):
    found, draws = estimands(each)
    at = [a.estimand for a in found].index("proportion_mediated")
    assert found[at].identified
    around = draws.copy()
    around[..., 0] = np.linspace(-0.5, 1, around[..., 0].size).reshape(around.shape[:2])
    open_, blank = told(found, around)
    assert not open_[at].identified
    assert "not clearly" in open_[at].note or "SDs away" in open_[at].note
    assert np.isnan(blank[..., at]).all()
    assert np.isfinite(np.delete(blank, at, axis=-1)).all()


def test_what_is_not_identified_on_a_mediator_is_not_on_the_outcome(system):
    """Totals hold the effects on mediators: they are as silent as these, with their reason."""
    rng = np.random.default_rng(1)
    done = averages(system[0].collapsed.regression, system[0].collapsed.evidence, ("mu",))
    blind = replace(done[0], identified=False, note="because")
    assert not told_by(done[0], [done[0], blind]).identified
    assert told_by(done[0], [done[0], blind]).note == "because"
    assert told_by(done[0], [done[0]]).identified
    nothing = curves([Channel("m", rng.normal(size=50), np.full(50, np.nan), 1.0)], 0.9, 0.3)
    assert "not identified" in in_words("m", *breakdown(nothing, "m"), 0.3)


def test_kappa_is_the_ratio_of_what_is_left_of_both(system):
    """By dense regressions on cells, exposures, periods, covariates, unit dummies and the other mediator."""
    outcome = system[-1]
    regression = outcome.collapsed.regression
    panel, design = regression.panel, regression.design
    kept = design.columns(("cell", "exposure", "difference", "covariate", "time"))
    columns = np.hstack([regression.matrix.toarray()[:, kept], np.eye(len(panel.units))[panel.unit]])
    mediators = {name: s * values for (name, values), s in zip(panel.given.items(), outcome.scale, strict=True)}

    def left(y, x):
        return y - x @ np.linalg.lstsq(x, y, rcond=None)[0]

    whole = np.hstack([columns, np.column_stack(list(mediators.values()))])
    dof = len(panel.outcome) - np.linalg.matrix_rank(whole)
    of_outcome = np.sqrt((left(panel.outcome, whole) ** 2).sum() / dof)
    for name, mine in zip(mediators, outcome.ratio, strict=True):
        rest = np.column_stack([columns, *(values for other, values in mediators.items() if other != name)])
        of_mediator = np.sqrt((left(mediators[name], rest) ** 2).sum() / dof)
        assert mine == pytest.approx(of_outcome / of_mediator, rel=1e-6)


def test_curve_is_that_of_imai_keele_and_yamamoto():
    """b(r) from the residuals of both reduced regressions: sd_y / sd_m (c - r sqrt((1 - c^2) / (1 - r^2)))."""
    rng = np.random.default_rng(4)
    sd_m, sd_e, b, r = 1.3, 0.8, 0.5, 0.35
    u, v = rng.normal(size=(2, 400_000))
    m = sd_m * u
    y = b * m + sd_e * (r * u + np.sqrt(1 - r**2) * v)
    c = np.corrcoef(m, y)[0, 1]
    slope = (m @ y) / (m @ m)
    residual = (y - slope * m).std()
    channel = Channel("m", np.array([slope]), np.array([1.0]), residual / m.std())
    for at in (-0.5, 0.0, 0.2, r):
        theirs = y.std() / m.std() * (c - at * np.sqrt((1 - c**2) / (1 - at**2)))
        assert channel.indirect(at)[0] == pytest.approx(theirs, rel=1e-3)
    assert channel.indirect(r)[0] == pytest.approx(b, abs=0.01)


def test_breakdown_is_where_the_interval_meets_zero():
    rng = np.random.default_rng(6)
    slope = 0.4 + 0.02 * rng.normal(size=4000)
    found = curves([Channel("m", slope, np.ones(4000), 1.0)], 0.95, 0.9)
    nearest, zero = breakdown(found, "m")
    assert zero == pytest.approx(0.4 / np.sqrt(1 + 0.4**2), abs=0.006)
    low = np.quantile(slope, 0.025)
    assert nearest == pytest.approx(low / np.sqrt(1 + low**2), abs=0.006)
    sign = curves([Channel("m", -slope, np.ones(4000), 1.0)], 0.95, 0.9)
    assert breakdown(sign, "m")[0] == pytest.approx(-nearest)
    far = curves([Channel("m", 10 * slope, np.ones(4000), 1.0)], 0.95, 0.5)
    assert breakdown(far, "m") == (None, None)
    near = curves([Channel("m", rng.normal(size=4000), np.ones(4000), 1.0)], 0.95, 0.5)
    assert breakdown(near, "m")[0] == 0
    assert "as it is" in in_words("m", 0.0, None, 0.9)
    assert "up to 0.9" in in_words("m", None, None, 0.9)


def test_planted_confounding_moves_the_slope_and_the_breakdown_as_it_should():
    """Errors as large as the outcome's own: one correlated with it by r adds r / sqrt(1 - r^2) to its slope."""
    found = {}
    for r in (0.0, 0.4):
        world = replace_world(units=900, adopters=[60, 60], mediated=[0.3], on_mediators=[0.5], confounding=r)
        mediator, outcome = system_of(world, Errors("ar1", "unit", ("industry", "district")))
        evidence, design = outcome.collapsed.evidence, outcome.collapsed.regression.design
        at = design.blocks["earlier"].start
        rest = np.setdiff1d(design.columns(("mu", "path", "industry", "ownership", "exposure", "difference")), [at])
        gram = evidence.gram[np.ix_([at, *rest], [at, *rest])] + 1e-6 * np.eye(len(rest) + 1)
        slope = np.linalg.solve(gram, evidence.moment[[at, *rest]])[0] / mediator.collapsed.s
        found[r] = Channel("m0", np.full(10, slope), np.ones(10), float(outcome.ratio[0]))
    assert found[0.0].slope[0] == pytest.approx(0.3, abs=0.05)
    assert found[0.4].slope[0] == pytest.approx(0.3 + 0.4 / np.sqrt(1 - 0.4**2), abs=0.05)
    for r, channel in found.items():
        assert channel.indirect(r)[0] == pytest.approx(0.3, abs=0.05)
    zero = {r: breakdown(curves([channel], 0.9, 0.9), "m0")[1] for r, channel in found.items()}
    tangent = {r: 0.3 + r / np.sqrt(1 - r**2) for r in found}
    for r, at in zero.items():
        assert at == pytest.approx(tangent[r] / np.sqrt(1 + tangent[r] ** 2), abs=0.05)


@pytest.fixture(scope="module")
def file_of_a_mediator(tmp_path_factory):
    rng = np.random.default_rng(7)
    units, periods = 150, 8
    first = rng.choice([2014, 2016, 0], units, p=[0.2, 0.2, 0.6])
    unit, year = np.repeat(np.arange(units), periods), np.tile(np.arange(2010, 2010 + periods), units)
    treated = (year >= first[unit]) & (first[unit] > 0)
    m = rng.normal(size=units)[unit] + 0.8 * treated + 0.5 * rng.normal(size=len(unit))
    y = rng.normal(size=units)[unit] + 0.2 * treated + 0.5 * m + 0.5 * rng.normal(size=len(unit))
    path = tmp_path_factory.mktemp("mediated") / "panel.csv"
    pd.DataFrame({"firm": unit, "year": year, "first": first[unit], "y": y, "m": m}).to_csv(path, index=False)
    return path


def named(path):
    return [
        "model=mediation", "data=csv", f"data.path={path}", "data.unit=firm", "data.time=year", "data.cohort=first",
        "data.outcome=y", "sampler=fast", "sampler.draws=400", "progress=false", "likelihood.scale=common",
        "likelihood.serial=none",
    ]  # fmt: skip


def test_the_command_writes_what_goes_through_a_mediator(file_of_a_mediator, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [*named(file_of_a_mediator), "data.mediators=[m]", f"hydra.run.dir={folder}", "estimators=[twfe]"]
    assert call(fit.fit, *arguments) in (0, 3)
    said = capsys.readouterr().out
    assert said.startswith(channels.ASSUMPTION[:60])
    rows = table(folder / "estimands.csv").query("scale == 'outcome'").set_index("estimand")
    assert rows.loc["m::att", "mean"] == pytest.approx(0.8, abs=0.2)
    assert rows.loc["mediator_slope", "mean"] == pytest.approx(0.5, abs=0.1)
    assert rows.loc["natural_indirect", "low"] < 0.4 < rows.loc["natural_indirect", "high"]
    assert rows.loc["natural_direct", "low"] < 0.2 < rows.loc["natural_direct", "high"]
    curve = pd.read_csv(folder / "channels.csv")
    here = curve[np.isclose(curve["correlation"], 0)].iloc[0]
    assert here["mean"] == pytest.approx(rows.loc["natural_indirect", "mean"], rel=1e-6)
    assert (folder / "figures" / "channels.png").stat().st_size > 10_000
    page = (folder / "report.html").read_text()
    assert "sequential ignorability" in page
    assert "Sequential ignorability" in page  # among the assumptions
    kept = (folder / "posterior.nc").stat().st_mtime_ns
    assert call(fit.fit, *arguments) in (0, 3)  # rebuilt from the kept posterior
    assert (folder / "posterior.nc").stat().st_mtime_ns == kept
    again = table(folder / "estimands.csv").query("scale == 'outcome'").set_index("estimand")
    pd.testing.assert_frame_equal(again, rows)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["data.mediators=[]"], "needs data.mediators"),
        (["data.mediators=[frim]"], "did you mean 'firm'"),
        (["data.mediators=[y]"], "used already"),
        (["data.mediators=[m, m]"], "used already"),
        (["data.mediators=[m]", "data.covariates=[m]"], "used already"),
        (["data.mediators=['']"], "names no column"),
        (["data.mediators=[m]", "likelihood=poisson"], "not counts"),
        (["data.mediators=[m]", "model=joint"], "needs data.outcomes"),
    ],
)
def test_mistakes_end_in_a_message(more, words, file_of_a_mediator, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [
        a for a in named(file_of_a_mediator) if not (a.startswith("likelihood.") and "likelihood=poisson" in more)
    ]
    arguments = [a for a in arguments if not (a.startswith("model=") and "model=joint" in more)]
    assert call(fit.fit, *arguments, *more, f"hydra.run.dir={folder}") == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not folder.exists()
