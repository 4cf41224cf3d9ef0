"""The commands end to end: a panel in, a run folder out, held against the contract."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from src import asked, collect, fit, report, trace
from src.check import check
from src.command import command
from src.config import Config
from src.estimand import COLUMNS
from src.trace import ROOT
from tests import test_asked

COMPARISON = [
    "estimand", "group", "level", "scale", "estimator", "estimate", "se", "low", "high", "prob", "n_obs", "note",
]  # fmt: skip
SMALL = ["sampler=fast", "sampler.draws=400", "sampler.chains=2", "progress=false"]


def call(task, *arguments: str) -> int:
    before = sys.argv
    sys.argv = ["fit", *arguments]
    try:
        with pytest.raises(SystemExit) as stopped:
            command(task)
    finally:
        sys.argv = before
    return int(stopped.value.code or 0)


def table(path):
    return pd.read_csv(path, dtype={"group": str, "level": str}, keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def panel_file(tmp_path_factory):
    """A user's file: a staggered panel with groups, a county, a covariate with a hole, labels that look missing."""
    rng = np.random.default_rng(0)
    units, periods = 160, 8
    first = rng.choice([2014, 2016, 0], units, p=[0.2, 0.2, 0.6])
    unit, year = np.repeat(np.arange(units), periods), np.tile(np.arange(2010, 2010 + periods), units)
    sector = np.array(["NA", "C13", "C39", "C27", "None", "F52"])[rng.integers(0, 6, units)]
    owner = np.array(["state", "private"])[rng.integers(0, 2, units)]
    treated = (year >= first[unit]) & (first[unit] > 0)
    patents = np.exp(1 + rng.normal(size=units)[unit] + 0.4 * treated + 0.4 * rng.normal(size=len(unit)))
    size = rng.normal(size=len(unit))
    size[7] = np.nan
    frame = pd.DataFrame(
        {"firm": unit, "year": year, "first_treated": first[unit], "patents": patents, "size": size,
         "csrc": sector[unit], "soe": owner[unit], "county": rng.integers(0, 12, units)[unit]}
    )  # fmt: skip
    path = tmp_path_factory.mktemp("file") / "panel.csv"
    frame.sample(frac=1, random_state=1).to_csv(path, index=False)
    return path


def of_file(path):
    return [
        "data=csv", f"data.path={path}", "data.unit=firm", "data.time=year", "data.cohort=first_treated",
        "data.outcome=patents", "data.transform=log1p", "data.groups={industry: csrc, ownership: soe}",
        "data.covariates=[size]", "data.exposures={county: county, industry: csrc}", *SMALL,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(panel_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    code = call(fit.fit, *of_file(panel_file), f"hydra.run.dir={folder}")
    return folder, code


@pytest.fixture(scope="module")
def counted(panel_file, tmp_path_factory):
    """A run on counts, with exposure to risk."""
    frame = pd.read_csv(panel_file, keep_default_na=False, na_values=[""])
    frame["patents"] = np.random.default_rng(2).poisson(frame["patents"])
    frame["staff"] = 1 + frame["firm"] % 3
    path = tmp_path_factory.mktemp("counts") / "counts.csv"
    frame.to_csv(path, index=False)
    folder = tmp_path_factory.mktemp("runs") / "counts"
    arguments = [a for a in of_file(path) if "transform" not in a]
    likelihood = ["likelihood=poisson_lognormal", "data.offset=staff", "model=nopool"]  # quicker to compile than hier
    code = call(fit.fit, *arguments, *likelihood, f"hydra.run.dir={folder}")
    return folder, code, arguments


@pytest.fixture
def copied(run, tmp_path):
    """The run folder in a place of its own, for a test that writes to it."""
    return shutil.copytree(run[0], tmp_path / "mine")


def test_run_folder_keeps_the_contract(run):
    folder, code = run
    diagnostics = json.loads((folder / "diagnostics.json").read_text())
    assert code == (0 if diagnostics["ok"] else 3)
    assert {path.name for path in folder.iterdir()} == {
        "posterior.nc", "estimands.csv", "comparison.csv", "diagnostics.json", "figures", "report.html", ".hydra",
        "agreement.csv", "powers.csv", "weights.csv", "bacon.csv", "sensitivity.csv", "parameters.csv", "tables",
        "predictive.csv",
    }  # fmt: skip
    assert list(table(folder / "estimands.csv").columns) == COLUMNS
    assert list(table(folder / "comparison.csv").columns) == COMPARISON
    stages = {"load", "collapse", "compile", "sample", "estimand", "compare", "figure", "report", "total"}
    assert set(diagnostics["seconds"]) == stages
    with xr.open_datatree(folder / "posterior.nc") as tree:
        groups = {"posterior", "sample_stats", "prior", "observed_data", "constant_data", "estimand", "common_scale"}
        assert set(tree.children) == groups | {"log_prior", "log_likelihood"}
        assert {"config", "data_sha256", "code_version", "libraries", "seed", "run_id"} <= set(tree.attrs)
        assert tree["estimand"]["att"].dims == ("chain", "draw")
        dims = {dim for child in tree.children.values() for v in child.data_vars.values() for dim in v.dims}
        assert not [dim for dim in dims if "_dim_" in dim]
    assert (folder / ".hydra" / "config.yaml").is_file()
    assert list((folder / "figures").glob("*.png"))


def test_a_report_is_rebuilt_without_sampling(copied, monkeypatch):
    posterior, page = copied / "posterior.nc", copied / "report.html"
    before = posterior.stat().st_mtime_ns
    page.unlink()
    monkeypatch.setattr("sys.argv", ["report"])
    with pytest.raises(SystemExit) as stopped:
        report.main([str(copied)])
    assert stopped.value.code in (0, 3)
    assert page.is_file()
    assert posterior.stat().st_mtime_ns == before
    assert "python -m src.fit" in page.read_text()
    assert "data.cohort=" in page.read_text()


def test_a_folder_without_a_run_has_no_report(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_run_of_other_code_has_its_report_as_it_is(run, monkeypatch, capsys):
    monkeypatch.setattr("src.trace.code_version", lambda *more: "other")
    assert report.main([str(run[0])]) == 2
    assert "the code that determines a posterior has changed" in capsys.readouterr().err


def test_labels_that_look_missing_survive(run):
    levels = table(run[0] / "estimands.csv").query("estimand == 'att_by' and group == 'industry'")["level"]
    assert {"NA", "None"} <= set(levels)


def test_effect_is_found_and_twins_stand_beside_it(run):
    estimands, comparison = table(run[0] / "estimands.csv"), table(run[0] / "comparison.csv")
    row = estimands.query("estimand == 'switching' and scale == 'outcome'").iloc[0]
    assert row["low"] < 0.4 < row["high"] + 0.15
    classical = {"twfe", "twfe_exposures", "etwfe", "cs", "sunab", "bjs"}
    assert set(comparison["estimator"]) == {"hier", "hier_common_scale", "cs_uniform", *classical}
    same = comparison.query("estimand == 'att' and scale == 'percent'")
    assert set(same["estimator"]) == {"hier", "hier_common_scale", *classical}
    leads = estimands.query("estimand == 'lead' and scale == 'outcome'")
    assert {"-2", "-3"} <= set(leads["level"])
    assert set(table(run[0] / "agreement.csv").query("estimand == 'att'")["estimator"]) == classical
    methods = {"parallel_trends", "second_differences", "smoothness", "relative_magnitude"}
    assert set(table(run[0] / "sensitivity.csv")["method"]) == methods
    assert estimands["truth"].isna().all()


def test_same_settings_reuse_the_posterior_and_prob_rebuilds_tables(run, copied, panel_file, capsys, monkeypatch):
    from src import sample

    def never(*a, **k):
        raise AssertionError("sampled again")

    monkeypatch.setattr(sample, "draw_posterior", never)
    before = (copied / "posterior.nc").read_bytes()
    code = call(fit.fit, *of_file(panel_file), f"hydra.run.dir={copied}", "prob=0.5", "estimators=[twfe]")
    assert code == run[1]
    assert "is kept in" in capsys.readouterr().out
    assert (copied / "posterior.nc").read_bytes() == before
    assert set(table(copied / "estimands.csv")["prob"]) == {0.5}
    assert set(table(copied / "comparison.csv")["estimator"]) == {"hier", "hier_common_scale", "twfe"}


def test_without_figures_those_of_the_earlier_run_go(copied, panel_file):
    figures = copied / "figures"
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    (figures / "withdrawn.png").write_bytes(b"of an older version")
    call(fit.fit, *of_file(panel_file), f"hydra.run.dir={copied}", "figures=false")
    assert not figures.exists()
    assert "<img" not in (copied / "report.html").read_text()
    call(fit.fit, *of_file(panel_file), f"hydra.run.dir={copied}")
    assert {path.name for path in figures.iterdir()} == set(before)


def test_letters_without_a_font_are_said_on_the_terminal_and_in_the_report(copied, panel_file, capsys, monkeypatch):
    from src import figure

    draw_all = figure.draw_all
    monkeypatch.setattr(figure, "draw_all", lambda *a: (draw_all(*a)[0], ["figures lack a font for 业"]))
    call(fit.fit, *of_file(panel_file), f"hydra.run.dir={copied}")
    assert capsys.readouterr().out.count("  · figures lack a font for 业\n") == 1
    assert "figures lack a font for 业" in json.loads((copied / "diagnostics.json").read_text())["notes"]
    assert "figures lack a font for 业" in (copied / "report.html").read_text(encoding="utf-8")


def test_the_report_written_anew_has_what_was_asked_since(copied, panel_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    test_asked.compared(copied, trace.kept_run_id(copied / "posterior.nc"))
    again = (fit.fit, *of_file(panel_file), f"hydra.run.dir={copied}")
    assert call(*again) in (0, 3)
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "What has been asked of it since?" in page
    assert "the highest of 3 runs" in page
    settings = json.loads(trace.kept_attribute(copied / "posterior.nc", "config"))
    sha256 = trace.kept_attribute(copied / "posterior.nc", "data_sha256")
    studies = tmp_path / "traces" / "calibrate" / settings["data"]["name"] / settings["model"]["name"]
    test_asked.study(studies, "bad", 0.001, sha256=sha256, **{name: settings[name] for name in asked.OF_POSTERIOR})
    assert call(*again) in (0, 3)
    page = (copied / "report.html").read_text(encoding="utf-8")
    for part in page.split("What did adoption do to adopters?"):  # among what weakens it, and where it was asked
        assert "Drawn again from the prior (python -m src.calibrate): Ranks of 1 of 2" in part


def test_a_folder_that_holds_another_run_is_refused(run, panel_file, capsys):
    before = (run[0] / "posterior.nc").read_bytes()
    assert call(fit.fit, *of_file(panel_file), f"hydra.run.dir={run[0]}", "seed=99") == 2
    assert "holds another run" in capsys.readouterr().err
    assert (run[0] / "posterior.nc").read_bytes() == before


def test_collect_reads_every_run(run, capsys):
    assert collect.main([str(run[0].parent)]) == 0
    collected = table(run[0].parent / "collected.csv")
    assert set(collected["model"]) == {"hier"}
    assert collect.main([str(run[0] / "figures")]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("diagnostics.json", b"{"),
        ("diagnostics.json", b"{}"),
        ("estimands.csv", b""),
        ("estimands.csv", b"\xff\xfe\x00"),
        ("estimands.csv", b"estimand,scale\natt,outcome\n"),
        ("estimands.csv", b"estimand,group,level,scale,mean,low,high,p_positive\natt,,,outcome,x,0,1,1\n"),
        (".hydra/config.yaml", b"data: ["),
        (".hydra/config.yaml", b"data: {}"),
    ],
)
def test_collect_leaves_out_a_broken_run_with_one_line(name, content, run, tmp_path, capsys):
    for folder in ("good", "broken"):
        for kept in ("estimands.csv", "diagnostics.json", ".hydra/config.yaml"):
            (tmp_path / folder / kept).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / kept).write_bytes((run[0] / kept).read_bytes())
    (tmp_path / "broken" / name).write_bytes(content)
    assert collect.main([str(tmp_path)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"{tmp_path / 'broken'} is left out, it cannot be read: ")
    assert set(table(tmp_path / "collected.csv")["run_id"]) == {"good"}


def test_check_describes_and_writes_nothing(panel_file, tmp_path, monkeypatch, capsys):
    arguments = [a for a in of_file(panel_file) if not a.startswith(("sampler", "progress"))]
    assert call(check, *arguments, f"hydra.run.dir={tmp_path}") == 0
    said = capsys.readouterr().out
    assert "160 units" in said
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["data.outcome=patent"], "patents"),
        (["data.cohort=patents"], "whole number"),
        (["data.covariates=[csrc]"], "number"),
        (["data.groups={industry: year}"], "changes over time"),
    ],
)
def test_a_mistake_in_the_file_leaves_nothing(change, words, panel_file, tmp_path, capsys):
    code = call(fit.fit, *of_file(panel_file), *change, f"hydra.run.dir={tmp_path / 'mine'}")
    assert code == 2
    assert words in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_what_determines_the_posterior_determines_the_name():
    from dataclasses import replace

    from tests.test_command import composed

    base: Config = composed("data.size=small")
    same = [replace(base, prob=0.5), replace(base, figures=False), replace(base, refit=True)]
    assert all(fit.posterior_settings(c) == fit.posterior_settings(base) for c in same)
    other = [composed("data.size=small", o) for o in ("seed=2", "model.late=false", "prior=tight", "data.groups={}")]
    assert all(fit.posterior_settings(c) != fit.posterior_settings(base) for c in other)


@pytest.mark.parametrize("kind", ["run", "counted"])
def test_the_contracts_checker_finds_nothing(kind, request):
    checker = ROOT.parent / "shared" / "checks" / "run_folder.py"
    if not checker.is_file():
        pytest.skip("the contract's checker is not beside this checkout")
    folder = request.getfixturevalue(kind)[0]
    done = subprocess.run([sys.executable, checker, folder], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0 problems"


def test_counts_keep_the_contract(counted):
    folder, code, _ = counted
    diagnostics = json.loads((folder / "diagnostics.json").read_text())
    assert code == (0 if diagnostics["ok"] else 3)
    assert diagnostics["nuisance"]["likelihood"] == "poisson_lognormal"
    rows = table(folder / "estimands.csv")
    assert set(rows["scale"]) == {"outcome", "percent", "log"}
    total = rows[rows["estimand"] == "total_treated"].set_index("scale")
    assert total.loc["percent", "low"] < 100 * np.expm1(0.4) < total.loc["percent", "high"]
    assert total.loc["percent", "low"] > -50
    att = rows[rows["estimand"] == "att"].set_index("scale")["mean"]
    twins = table(folder / "comparison.csv")
    assert {"nopool", "poisson_twfe", "poisson_twfe_exposures", "poisson_etwfe"} == set(twins["estimator"])
    assert {"total_events", "att_any", "att_given_any"} <= set(rows["estimand"])
    assert {row["statistic"] for row in diagnostics["predictive"]} == {"zeros", "dispersion", "maximum", "lag1"}
    assert (folder / "figures" / "predictive.png").is_file()
    assert "In all it caused" in (folder / "report.html").read_text()
    with xr.open_datatree(folder / "posterior.nc") as tree:
        assert float(tree["estimand"]["att"].mean()) == pytest.approx(att["outcome"])
        assert set(tree["log_prior"].data_vars) == {"cell_effect", "delta_control", "difference"}
        assert set(tree["log_likelihood"].data_vars) == {"outcome"}
    assert {"att", "total_treated"} <= set(table(folder / "powers.csv")["estimand"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.transform=log1p"], "data.transform=log1p: a likelihood of counts takes them as they are"),
        (["data.weights=staff"], "data.weights=staff: counts have no weights yet"),
        (["data.outcome=size"], "data.outcome is negative in"),
        (["data.outcome=half"], "data.outcome is not a whole number in"),
        (["data.offset=none_there"], "no column 'none_there' (data.offset"),
        (["data.offset=size"], "data.offset: column 'size'"),
        (["likelihood=poisson", "likelihood.serial=ar1"], "likelihood.serial=ar1 is not an option; choose from none"),
    ],
)
def test_what_counts_cannot_be(counted, tmp_path, capsys, settings, said):
    arguments = counted[2]
    path = next(a for a in arguments if a.startswith("data.path=")).removeprefix("data.path=")
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""]).assign(half=lambda f: f["patents"] + 0.5)
    frame.to_csv(tmp_path / "panel.csv", index=False)
    mine = ["data.covariates=[]" if a.startswith("data.covariates") else a for a in arguments]
    mine = [f"data.path={tmp_path / 'panel.csv'}" if a.startswith("data.path") else a for a in mine]
    given = ["likelihood=poisson_lognormal"] if settings[0] != "likelihood=poisson" else []
    code = call(fit.fit, *mine, *given, *settings, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
