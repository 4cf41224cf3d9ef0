"""Several outcomes at once: contrasts, their limits, what is shared, and the command."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models import system
from src import across, equations, fit, sample
from src.config import GeneratorConfig
from src.equations import Effects
from src.errors import Errors
from src.estimand import Scale, averages, linear_scales, table
from src.exposure import row_shares
from src.generate import draw
from src.products import least_squares
from src.system import FIRST, collapse_all
from tests.test_fit import call
from tests.test_fit import table as csv
from tests.worlds import WEAK

WORLD = GeneratorConfig(
    name="world", units=240, periods=8, starts=[4, 6], adopters=[30, 30], industries=6, districts=8, beside=[0.6, 0.2],
)  # fmt: skip


@pytest.fixture(scope="module")
def panel():
    return draw(WORLD, 1, 3)


def system_of(panel):
    order = (FIRST, *panel.others)
    return collapse_all(panel, row_shares(panel)[0], Errors(), order, False, True, True)


@pytest.fixture(scope="module")
def each(panel):
    rng = np.random.default_rng(0)
    done = []
    for equation in system_of(panel):
        terms = ("mu", "path", "industry", "ownership", "exposure", "difference")
        found = averages(equation.collapsed.regression, equation.collapsed.evidence, terms)
        drawn, nothing = rng.normal(size=(2, 50, len(found))), np.zeros((2, 50, len(equation.earlier)))
        done.append(Effects(equation, xr.DataArray(), found, drawn, drawn, nothing))
    return done


def test_contrasts_are_differences_draw_by_draw_and_in_truth(each):
    found, draws = across.estimands(each)
    known = {(a.estimand, a.group, a.level): (draws[..., k], a) for k, a in enumerate(found)}
    assert len(known) == len(found)
    pairs = {"y1 - outcome": ("y1::", ""), "y2 - outcome": ("y2::", ""), "y2 - y1": ("y2::", "y1::")}
    for pair, (one, two) in pairs.items():
        for key in (("att", "", ""), ("att_by", "ownership", "state"), ("spill_per_pp", "industry", "control")):
            contrast, average = known[f"{pair}::{key[0]}", *key[1:]]
            (mine, of_mine), (theirs, of_theirs) = known[one + key[0], *key[1:]], known[two + key[0], *key[1:]]
            np.testing.assert_array_equal(contrast, mine - theirs)
            assert average.truth == pytest.approx(of_mine.truth - of_theirs.truth)
    assert known["y1::att", "", ""][1].truth == pytest.approx(0.6 * known["att", "", ""][1].truth / 0.4, rel=0.5)


def test_what_one_outcome_cannot_tell_no_contrast_tells(each):
    first, second, third = each
    blind = [replace(a, identified=False) if a.estimand == "att" else a for a in second.found]
    found, _ = across.estimands([first, replace(second, found=blind), third])
    known = {(a.estimand, a.group): a.identified for a in found}
    assert known["att", ""]
    assert not known["y1::att", ""]
    assert not known["y1 - outcome::att", ""]
    assert not known["y2 - y1::att", ""]
    assert known["y2 - outcome::att", ""]


def test_outcomes_that_are_nearly_the_same_have_nearly_the_same_effects(panel):
    """Least squares in both equations: phi + (c - 1) theta of a copy with a little noise is that noise's effect."""
    rng = np.random.default_rng(1)
    noise = 1e-4 * rng.normal(size=len(panel.outcome))
    first, second = system_of(replace(panel, others={"copy": panel.outcome + noise}))
    names = ("cell", "exposure", "difference")
    theta = least_squares(first.collapsed.evidence.take(first.collapsed.regression.design.columns(names)))[0]
    design = second.collapsed.regression.design
    of_copy = least_squares(second.collapsed.evidence.take(design.columns((*names, "earlier"))))[0]
    slope = of_copy[-1] / first.collapsed.s
    contrast = of_copy[:-1] + (slope - 1) * theta
    assert slope == pytest.approx(1, abs=1e-4)
    assert np.abs(contrast).max() < 1e-3
    assert np.abs(theta).max() > 0.1


def test_a_copy_with_a_little_noise_gains_what_its_original_gains(panel):
    """In the posterior, whose prior must not be against the slope of a copy: it is a thousand of its residual SDs."""
    rng = np.random.default_rng(1)
    copy = panel.outcome + 1e-3 * rng.normal(size=len(panel.outcome))
    found = system_of(replace(panel, others={"copy": copy}))
    designs = {e.name: e.collapsed.regression.design for e in found}
    evidence = {e.name: e.collapsed.evidence.rescale(e.collapsed.s) for e in found}
    widths = {e.name: e.width for e in found}
    model = system.build(designs, evidence, widths, WEAK, late=False, interactions=False, together=True)
    compiled = sample.compile_model(model, ("theta", "copy::theta", "copy::earlier_slope"))
    posterior = sample.draw_compiled(compiled, 300, 500, 2, 1, 0.9, 1, False)["posterior"].to_dataset()
    each = equations.effects(equations.in_outcome_units(posterior, found), found, 1)
    names, draws = across.estimands(each)
    known = {(a.estimand, a.group, a.level): draws[..., k] for k, a in enumerate(names)}
    assert abs(known["copy - outcome::att", "", ""].mean()) < 2e-3
    assert known["copy - outcome::att", "", ""].std() < 2e-3
    assert known["att", "", ""].mean() > 0.1


def test_correlations_stand_beside_effects_on_one_scale(each):
    found, draws = across.estimands(each)
    tied = [replace(found[0], estimand="effect_correlation")]
    more = Scale(tied, np.full((2, 50, 1), 0.3), np.array([np.nan]), [""])
    scales = linear_scales(draws, found, True)
    scales = {"outcome": across.beside(scales["outcome"], more), "percent": across.beside(scales["percent"])}
    rows = table(scales, 0.9)
    assert len(rows.query("estimand == 'effect_correlation'")) == 1
    assert rows.query("scale == 'percent' and estimand == 'att'")["ess_bulk"].notna().all()


def test_correlations_are_read_by_name(each):
    matrix = np.broadcast_to(np.array([[1.0, 0.4], [0.4, 1.0]]), (2, 3, 2, 2))
    names = {"equation": ["outcome", "y1"], "equation_beside": ["outcome", "y1"]}
    posterior = xr.Dataset({"industry_correlation": (("chain", "draw", *names), matrix)}, coords=names)
    tree, system = xr.DataTree.from_dict({"posterior": posterior}), [one.equation for one in each[:2]]
    found, draws = across.correlations(tree, system, each[0].found[0])
    assert [(a.estimand, a.group, a.level) for a in found] == [("effect_correlation", "industry", "y1 - outcome")]
    np.testing.assert_array_equal(draws, np.full((2, 3, 1), 0.4))
    collapsed = system[1].collapsed
    panel = replace(collapsed.regression.panel, whole=np.ones(1))
    of_part = replace(collapsed, regression=replace(collapsed.regression, panel=panel))
    shared = across.correlations(tree, [system[0], replace(system[1], collapsed=of_part)], each[0].found[0])[0]
    assert [a.level for a in shared] == ["y1 in outcome - outcome"]


@pytest.mark.slow
def test_the_command_compares_two_outcomes(tmp_path, capsys):
    rng = np.random.default_rng(7)
    units, periods = 150, 8
    first = rng.choice([2014, 2016, 0], units, p=[0.2, 0.2, 0.6])
    unit, year = np.repeat(np.arange(units), periods), np.tile(np.arange(2010, 2010 + periods), units)
    treated = (year >= first[unit]) & (first[unit] > 0)
    u, v = rng.normal(size=(2, len(unit)))
    y = rng.normal(size=units)[unit] + 0.2 * treated + 0.5 * u
    z = rng.normal(size=units)[unit] + 0.6 * treated + 0.5 * (0.9 * u + np.sqrt(1 - 0.9**2) * v)
    kind = np.array(["a", "b", "c", "d", "e", "f"])[unit % 6]
    frame = pd.DataFrame({"firm": unit, "year": year, "first": first[unit], "y": y, "z": z, "kind": kind})
    frame.to_csv(tmp_path / "panel.csv", index=False)
    folder = tmp_path / "run"
    arguments = [
        "model=joint", "model.late=false", "data=csv", f"data.path={tmp_path / 'panel.csv'}", "data.unit=firm",
        "data.time=year", "data.cohort=first", "data.outcome=y", "data.outcomes=[z]", "data.groups={kind: kind}",
        "data.is_log=true", "sampler=fast", "sampler.draws=400", "progress=false", "likelihood.scale=common",
        "likelihood.serial=none", "estimators=[twfe]", f"hydra.run.dir={folder}",
    ]  # fmt: skip
    assert call(fit.fit, *arguments) in (0, 3)
    assert "Effects on one outcome less those on another: z - outcome" in capsys.readouterr().out
    rows = csv(folder / "estimands.csv").query("scale == 'outcome'").set_index("estimand")
    contrast = rows.loc["z - outcome::att"]
    assert contrast["low"] < 0.4 < contrast["high"]
    # errors that go together cancel: apart, the difference would have the SD of a sum of squares
    assert contrast["sd"] < 0.7 * np.hypot(rows.loc["att", "sd"], rows.loc["z::att", "sd"])
    assert rows.loc["effect_correlation", "level"] == "z - outcome"
    with xr.open_datatree(folder / "posterior.nc") as tree:
        estimands = tree["estimand"].to_dataset().load()
    told = set(rows.index[np.isfinite(rows["mean"])])
    for name in ("att_by_kind", "z::att_by_kind", "effect_correlation_kind"):
        assert name.rpartition("_kind")[0] in told
        assert np.isfinite(estimands[name]).all(), name
    page = (folder / "report.html").read_text()
    assert "z - outcome::att" in page
