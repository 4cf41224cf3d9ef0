"""Benchmarks: one posterior is compared, nothing is measured twice, every row is written, what is lacking is said."""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from hydra import compose, initialize_config_dir

from bench import export
from bench.exchange import hand_back, is_over, plan
from bench.growth import called_by
from bench.panels import world_of
from models import hier, pooled
from src import bench, benchdoc, benchmarks, beside, command, measure, peers, sample
from src.collapse import collapse
from src.config import BenchConfig
from src.design import build_design
from src.exposure import row_shares
from src.measure import FAILED, Ended, Measurement, measured
from tests.test_command import CONF, ROOT, ended
from tests.worlds import WEAK, staggered

MOST_STEPS = 15  # leapfrog steps an iteration of the collapsed posterior of one effect, on average
LITTLE = {"budget": 20, "draws": 400, "tune": 400, "chains": 2, "cores": 2, "steps": 31, "least_steps": 7, "seed": 1}


def bench_settings(*overrides: str) -> BenchConfig:
    command.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = command.settings(compose("bench", list(overrides)))
    assert isinstance(found, BenchConfig)
    return found


@pytest.fixture(scope="module")
def collapsed():
    panel = staggered(units=80, periods=6)
    return collapse(build_design(panel, row_shares(panel)[0])[0])


@pytest.fixture(scope="module", params=["pooled", "hier"])
def exported(request, collapsed):
    return request.param, export.arrays(collapsed, WEAK, request.param)


def indicator(code):
    return (code[:, None] == np.arange(code.max() + 1)).astype(float)


def test_explicit_likelihood_is_the_collapsed_one(collapsed, exported):
    """With firms, periods and covariates at their best, the sums of squares are equal at any coefficients."""
    model, given = exported
    flat = np.hstack([indicator(given["unit"]), indicator(given["time"])[:, 1:], given["covariates"]])
    basis = scipy.linalg.orth(flat)
    design = collapsed.regression.design
    names = (*export.terms_of(design, model), "exposure")
    evidence = collapsed.evidence.rescale(collapsed.s).take(design.columns(names))
    rng = np.random.default_rng(0)
    for _ in range(3):
        coefficient = rng.normal(size=len(given["effect_sd"]))
        exposure = rng.normal(size=len(given["exposure_sd"]))
        rest = given["y"] - given["exposures"] @ exposure
        rest[given["treated"]] -= given["effects"] @ coefficient
        rest -= basis @ (basis.T @ rest)
        theta = np.r_[given["maps"] @ coefficient, exposure]
        wanted = evidence.square - 2 * evidence.moment @ theta + theta @ evidence.gram @ theta
        assert rest @ rest == pytest.approx(wanted, rel=1e-8)
    assert [*given["labels"], *given["exposure_labels"]] == design.labels(names)
    assert len(given["y"]) - np.linalg.matrix_rank(flat) == evidence.dof


def test_explicit_priors_are_the_collapsed_ones(collapsed):
    """Covariances of the deviations by draws of the model's own priors, at a spread of one."""
    given = export.arrays(collapsed, WEAK, "hier")
    design = collapsed.regression.design
    model = hier.build(design, collapsed.evidence.rescale(collapsed.s), WEAK)
    prior = sample.draw_prior(model, 1, draws=4000)
    theta = prior["theta"].to_numpy().reshape(4000, -1)
    labels = prior["column"].to_numpy().tolist()
    covariance = given["maps"] @ np.diag(given["effect_sd"] ** 2) @ given["maps"].T
    mine = given["labels"].tolist()
    spreads = dict(zip(given["spread_names"].tolist(), given["spread_scale"], strict=True))
    assert {f"sd_{name}" for name in ("cohort", "industry")} & set(prior) == {
        f"sd_{name}" for name in ("cohort", "industry") if f"sd_{name}" in spreads
    }
    assert set(spreads) == {str(name) for name in prior if str(name).startswith("sd_")}
    for block in ("mu", "path", "industry", "ownership", "industry:ownership", "difference"):
        at = [mine.index(label) for label in design.labels((block,))]
        drawn = theta[:, [labels.index(label) for label in design.labels((block,))]]
        if f"sd_{block}" in spreads:
            drawn = drawn / prior[f"sd_{block}"].to_numpy().reshape(-1, 1)
        found = np.atleast_2d(np.cov(drawn, rowvar=False))
        scale = np.sqrt(np.outer(np.diag(covariance)[at], np.diag(covariance)[at]))
        np.testing.assert_allclose(found / scale, covariance[np.ix_(at, at)] / scale, atol=0.12)


def test_a_term_that_the_benchmarks_lack_is_refused(collapsed):
    panel = collapsed.regression.panel
    design = build_design(panel, {}, units=True)[0].design
    with pytest.raises(ValueError, match="unit is no block"):
        export.term(design, "unit", WEAK)


def test_explicit_and_collapsed_posterior_agree(tmp_path, collapsed):
    given = export.arrays(collapsed, WEAK, "pooled")
    np.savez(tmp_path / "given.npz", **given)
    job = LITTLE | {"data": str(tmp_path / "given.npz"), "out": str(tmp_path / "found")}
    facts, out = measure.scripted([sys.executable, str(peers.SCRIPTS / "nutpie_explicit.py")], job, 300)
    assert facts.get(FAILED) is None, facts
    assert (facts["chains"], facts["draws"], facts["tune"]) == (2, 400, 400)
    assert min(facts["compile"], facts["sample"], facts["memory"]) > 0
    theirs = peers.summary(peers.parameters(out, given))
    model = pooled.build(collapsed.regression.design, collapsed.evidence.rescale(collapsed.s), WEAK)
    tree = sample.draw_posterior(model, draws=1000, tune=500, chains=2, seed=1)["posterior"].to_dataset()
    theta = tree["theta"].transpose("chain", "draw", "column").to_numpy()
    np.savez(
        tmp_path / "ours.npz", theta=theta, sigma=tree["sigma"].to_numpy(), labels=tree["column"].to_numpy().astype(str)
    )
    ours = peers.summary(peers.parameters(tmp_path / "ours", None))
    z = peers.agreement(ours, theirs)
    assert max(z["mean_rms"], z["sd_rms"]) < 2
    assert max(z["mean_max"], z["sd_max"]) < 4
    shifted = {label: [row[0] + row[1], *row[1:]] for label, row in theirs.items()}  # by a posterior SD
    assert peers.agreement(ours, shifted)["mean_rms"] > 5


def test_a_budget_that_is_too_small_says_what_would_do(tmp_path):
    job = LITTLE | {"out": str(tmp_path / "found"), "budget": 0.5}
    with pytest.raises(SystemExit) as stopped:
        plan(job, 0.002)
    assert stopped.value.code == 0
    said = json.loads((tmp_path / "found.json").read_text())["reason"]
    assert said.startswith("0.5 s are too few for 100 tuning and 50 kept iterations a chain at 2 ms a gradient: give a")
    assert said.endswith("budget of 3 s at least")
    with pytest.raises(SystemExit):  # interrupted while tuning
        hand_back(job, {"sigma": np.ones((2, 3))}, tune=100)
    said = json.loads((tmp_path / "found.json").read_text())["reason"]
    assert said.startswith("0.5 s ended after 100 tuning and 3 kept iterations a chain")


def test_plans_fit_into_the_budget():
    job = LITTLE | {"draws": 1000, "tune": 1000}
    assert plan(job, 1e-6) == (1000, 1000)
    tune, draws = plan(job, 1e-3)
    assert (tune, draws) == (322, 323)
    assert (tune + draws) * job["steps"] * 1e-3 == pytest.approx(job["budget"], rel=0.01)


def test_draws_that_would_be_too_few_get_more_time():
    job = {"budget": 10}
    assert [is_over(job, spent, 50) for spent in (9, 11)] == [False, True]
    assert [is_over(job, spent, 49) for spent in (11, 29, 31)] == [False, False, True]


def test_the_matrix_and_the_steps_do_not_grow_with_rows():
    """One effect for all: what NUTS sees has as many entries, and takes as many leapfrog steps, for ten times the rows.

    Spreads of a hierarchy are another matter: ten times the adopters tell them more sharply, which bends its posterior.
    """
    compiled, steps, shapes, rows = None, [], [], []
    for units in (300, 3000):
        panel = staggered(units=units, periods=6)
        one = collapse(build_design(panel, row_shares(panel)[0])[0])
        model = pooled.build(one.regression.design, one.evidence.rescale(one.s), WEAK)
        compiled = sample.compile_model(model) if compiled is None else sample.with_data_of(compiled, model)
        tree = sample.draw_compiled(compiled, 300, 300, 2, 2, 0.9, 1, False)
        steps.append(float(tree["sample_stats"]["n_steps"].mean()))
        shapes.append(one.evidence.gram.shape)
        rows.append(len(panel.outcome))
    assert rows[1] > 9 * rows[0]
    assert shapes[0] == shapes[1] == (one.evidence.moment.size,) * 2
    assert shapes[0][0] < 100  # columns
    assert max(steps) < MOST_STEPS
    assert 0.5 < steps[1] / steps[0] < 2


def fake_scripts(monkeypatch, collapsed, reason: str = "") -> list[str]:
    """Stand-ins for the scripts, of known numbers; the names of those that were run."""
    ran: list[str] = []
    given = {model: export.arrays(collapsed, WEAK, model) for model in ("pooled", "hier")}
    rng = np.random.default_rng(0)

    def draws_of(given: dict) -> dict:
        shape = (2, 200)
        return {
            "coefficient": rng.normal(size=(*shape, len(given["effect_sd"]))),
            "exposure": rng.normal(size=(*shape, len(given["exposure_sd"]))),
            "spread": rng.normal(size=(*shape, len(given["spread_scale"]))) ** 2,
            "sigma": rng.normal(size=shape) ** 2,
        }

    def fake(command, job, limit, caches=None):
        name = Path(command[-1]).stem if command[-1].endswith((".py", ".R")) else command[-1]
        ran.append(name)
        out = Path(job["out"])
        facts = {"compile": 2.0, "sample": 4.0, "tune": 300, "draws": 200, "chains": 2, "wall": 7.0, "memory": 500.0}
        model = "hier" if "model=hier" in job.get("overrides", []) else "pooled"
        npz = out.with_name(f"{out.name}.npz")
        if name == "bench.export":
            np.savez(npz, **given[model])
        elif name == "bench.collapsed":
            drawn = draws_of(given[model])
            theta = np.concatenate([drawn["coefficient"] @ given[model]["maps"].T, drawn["exposure"]], axis=-1)
            labels = [*given[model]["labels"], *given[model]["exposure_labels"]]
            spreads = dict(zip(given[model]["spread_names"], np.moveaxis(drawn["spread"], -1, 0), strict=True))
            np.savez(npz, theta=theta, labels=np.array(labels), sigma=drawn["sigma"], **spreads)
            facts |= {"before": 0.5, "sample": 0.01}
        elif name == "bench.growth":
            rows = 11 * job["firms"]
            seconds = dict.fromkeys(benchmarks.STAGES, 1e-5 * rows) | {"compile": 3.0}
            parts = {"estimate": 0.8e-5 * rows, "whitened_products": 0.2e-5 * rows, "nothing": 0.0}
            columns = 150 + job["adopters"]
            return {"rows": rows, "columns": columns, "seconds": seconds, "parts": parts, "memory": 400.0}, out
        elif name == "bench.register":
            return {"rows": job["rows"], "bytes": 30 * job["rows"], "covariates": ["x0"]}, out
        elif name == "bench.streamed":
            assert job["covariates"] == ["x0"]
            seconds = {"load": 4e-6 * job["rows"], "collapse": 1.6e-5 * job["rows"]}
            parts = {"estimate": 1.2e-5 * job["rows"]}
            facts = {"rows": job["rows"], "columns": 300, "seconds": seconds, "parts": parts, "memory": 900.0}
            return facts | {"constants": {"passes": 5}}, out
        elif name == "bench.counts":
            np.savez(npz, theta=rng.normal(size=(2, 200, 3)))
            facts |= {"before": 0.1, "rows": 640, "firms": job["firms"]}
        elif reason:
            return {"reason": reason}, out
        elif name == "brms_explicit":
            table = {"chain": np.repeat([1, 2], 200), "draw": np.tile(np.arange(200), 2)}
            drawn = draws_of(given["pooled"])
            for letter, key in (("e", "coefficient"), ("s", "exposure")):
                for j in range(drawn[key].shape[-1]):
                    table[f"{letter}{j}"] = drawn[key][..., j].ravel()
            pd.DataFrame(table | {"sigma": drawn["sigma"].ravel()}).to_csv(f"{out}.csv", index=False)
        elif name == "causalpy_staggered":
            np.savez(npz, att=rng.normal(size=(2, 200)))
            facts |= {"after": 1.0}
        else:
            with np.load(job["data"]) as file:
                np.savez(npz, **draws_of({key: file[key] for key in file.files}))
        return facts, out

    def fake_run(command, limit, environment=None):
        ran.append("run")
        place = next((word.partition("=")[2] for word in command if word.startswith("hydra.run.dir=")), None)
        if place:
            Path(place).mkdir()
            seconds = {"load": 1.0, "sample": 2.0, "total": 3.5}
            Path(place, "diagnostics.json").write_text(json.dumps({"seconds": seconds}))
        return Ended(0, 6.25, 700.0, "")

    monkeypatch.setattr(beside, "scripted", fake)
    monkeypatch.setattr(bench, "scripted", fake)
    monkeypatch.setattr(bench, "run", fake_run)
    monkeypatch.setattr(peers, "command_of", lambda name: [peers.PEERS.get(name, peers.CAUSALPY).script])
    return ran


SMALL = [
    *("firms=[60,120]", "causalpy=[60]", "rows=100000", "adopters=[65,130]", "repeats=2"),
    "streamed=[1000000,10000000]",
]


def run_bench(monkeypatch, folder: Path, *overrides: str) -> tuple[int, str]:
    document = folder / "docs" / "benchmarks.md"
    told = [*SMALL, *overrides, f"document={document}", f"hydra.run.dir={folder / 'kept'}"]
    return ended(monkeypatch, bench.bench, *told, config_name="bench"), document.read_text()


def test_every_row_is_written_and_nothing_is_measured_twice(tmp_path, monkeypatch, collapsed, capfd):
    ran = fake_scripts(monkeypatch, collapsed)
    code, document = run_bench(monkeypatch, tmp_path)
    assert code == 0
    first = list(ran)
    assert {name for name in first if name.endswith("explicit")} == {Path(p.script).stem for p in peers.PEERS.values()}
    for sampler in ("collapsed", "nutpie", "pymc", "numpyro", "bambi", "brms"):
        for firms in (60, 120):
            assert document.count(f"| {sampler}, {firms:,} |") == (2 if sampler in ("collapsed", "nutpie") else 1)
    assert "| 60 | 2.0 | 4.0 | 1.0 |" in document  # CausalPy
    growth = document.partition("## How stages grow")[2].partition("\n## ")[0]
    before, by_block, after = growth.partition("### By rows, read from a folder of Parquet files a block at a time")
    by_block, _, after = after.partition("\n### ")
    assert "| stage | 1,000,000 | 10,000,000 | slope |" in by_block
    assert "| load | 4.0 | 40 | 1.00 |" in by_block
    assert "| · estimate | 12 | 120 | 1.00 |" in by_block
    assert "| bytes a row, in Parquet | 30.0 | 30.0 |  |" in by_block
    assert "| passes | 5.00 | 5.00 |  |" in by_block
    growth = before + after
    for stage in (*benchmarks.STAGES, "· estimate", "· whitened_products"):
        assert growth.count(f"\n| {stage} |") == 2
    assert "· nothing" not in growth
    assert "| load | 0.10 | 0.32 | 1.0 | 1.00 |" in growth
    for name in bench.QUICK:
        assert f"| {name} | 6.2 |" in document
    assert "| start, end | 3.2 | 3.2 | 1.0 |" in document
    assert "latent, nutpie" in document
    assert "**seconds to compile" not in document  # all take 2 s
    assert benchdoc.figure_of(tmp_path / "docs" / "benchmarks.md").stat().st_size > 20_000
    said_before = capfd.readouterr().err
    assert "nutpie, pooled, 60 firms: done" in said_before
    again, same = run_bench(monkeypatch, tmp_path)
    assert (again, ran) == (0, first)
    assert same == document
    assert capfd.readouterr().err == ""
    run_bench(monkeypatch, tmp_path, "parts=[counts]", "refit=true")
    assert ran == [*first, "bench.counts", "bench.counts"]


def test_a_stopped_run_goes_on(tmp_path, monkeypatch, collapsed, capfd):
    ran = fake_scripts(monkeypatch, collapsed)
    fake = beside.scripted

    def stops(command, job, limit, caches=None):
        if len(ran) == 4:
            raise KeyboardInterrupt
        return fake(command, job, limit, caches)

    monkeypatch.setattr(beside, "scripted", stops)
    told = [*SMALL, "parts=[peers]", f"document={tmp_path / 'b.md'}", f"hydra.run.dir={tmp_path / 'kept'}"]
    assert ended(monkeypatch, bench.bench, *told, config_name="bench") == 130
    assert "goes on from there" in capfd.readouterr().out
    assert not (tmp_path / "b.md").exists()
    done = list(ran)
    monkeypatch.setattr(beside, "scripted", fake)
    assert ended(monkeypatch, bench.bench, *told, config_name="bench") == 0
    assert ran[: len(done)] == done
    assert ran.count("bench.collapsed") == 8
    assert ran.count("bench.export") == 4  # two sizes of two models; CausalPy has one of them


def test_what_the_budget_does_not_allow_is_said(tmp_path, monkeypatch, collapsed, capfd):
    fake_scripts(monkeypatch, collapsed, reason="1 s are too few: give a budget of 9 s at least")
    code, document = run_bench(monkeypatch, tmp_path, "parts=[peers]", "budget=1")
    assert code == 3
    assert "nutpie, pooled, 60 firms: 1 s are too few" in capfd.readouterr().out
    assert "* nutpie, pooled, 60 firms: 1 s are too few: give a budget of 9 s at least" in document


def test_what_is_not_installed_is_skipped_with_a_word(tmp_path, monkeypatch, collapsed, capfd):
    monkeypatch.setattr(peers, "environments", lambda: tmp_path / "none")
    monkeypatch.setattr(peers, "has_brms", lambda: False)
    absent = [name for name in (*peers.PEERS, "causalpy") if peers.command_of(name) is None]
    assert absent == ["numpyro", "bambi", "brms", "causalpy"] == list(peers.OPTIONAL)
    found = peers.command_of
    ran = fake_scripts(monkeypatch, collapsed)
    monkeypatch.setattr(peers, "command_of", found)
    code, document = run_bench(monkeypatch, tmp_path, "parts=[peers]")
    assert code == 0
    assert (
        "brms is skipped: it is not installed; `python -m src.bench install=true` does that" in capfd.readouterr().err
    )
    assert "Not installed here, hence not measured: numpyro, bambi, brms, causalpy." in document
    assert {name for name in ran if name.endswith("explicit")} == {"nutpie_explicit", "pymc_explicit"}


def test_a_mistake_ends_in_words(monkeypatch, capsys, tmp_path):
    for argument, words in (
        ("firms=[5]", "firms=5 is too small"),
        ("pooled=[nutpie]", "name it among them"),
        ("hier=[bambi]", "hier=bambi is not an option"),
        ("parts=[peer]", "did you mean peers?"),
        ("budget=0", "budget=0.0 is impossible"),
        ("adopters=[3]", "are to be from 10"),
        ("model=hier", "no setting model here"),
    ):
        code = ended(monkeypatch, bench.bench, argument, f"hydra.run.dir={tmp_path / 'x'}", config_name="bench")
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1)
        assert words in error
        assert not (tmp_path / "x").exists()


def test_failures_are_tried_again_and_findings_kept(tmp_path):
    calls: list[int] = []

    def measuring(found: dict):
        calls.append(1)
        return found

    one = Measurement("part", "one", {"size": 1})
    assert measured(tmp_path, one, False, lambda: measuring({FAILED: "no memory"})) == {FAILED: "no memory"}
    assert measured(tmp_path, one, False, lambda: measuring({"reason": "too small"})) == {"reason": "too small"}
    assert measured(tmp_path, one, False, lambda: measuring({})) == {"reason": "too small"}
    assert len(calls) == 2
    assert measured(tmp_path, one, True, lambda: measuring({"sample": 1.0})) == {"sample": 1.0}
    other = Measurement("part", "one", {"size": 2})
    assert other.file(tmp_path) != one.file(tmp_path)
    source = tmp_path / "script.py"
    source.write_text("a")
    before = Measurement("part", "one", {}, (source,)).file(tmp_path)
    source.write_text("b")
    assert Measurement("part", "one", {}, (source,)).file(tmp_path) != before


def test_processes_are_watched_and_stopped():
    hungry = "import time; x = bytearray(300 * 2**20); time.sleep(0.6)"
    done = measure.run([sys.executable, "-c", hungry], 60)
    assert done.code == 0
    assert done.wall > 0.6
    assert done.memory is None or 300 < done.memory < 400
    start = time.perf_counter()
    late = measure.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert (late.code, time.perf_counter() - start < 20) == (None, True)
    failed = measure.run([sys.executable, "-c", "raise ValueError('no such thing')"], 60)
    assert (failed.code, failed.said) == (1, "ValueError: no such thing")


def test_numbers_by_hand():
    assert [benchdoc.number(x) for x in (1234.5, 12.34, 0.01234, 99.6, float("nan"))] == [
        "1,200",
        "12",
        "0.012",
        "100",
        "–",
    ]
    sized = [{"rows": rows, "load": 1e-6 * rows**1.5, "sample": 2.0, "never": 0.001} for rows in (1e4, 1e5, 1e6)]
    assert benchmarks.slope(sized, "load", "rows") == pytest.approx(1.5)
    assert benchmarks.slope(sized, "sample", "rows") == pytest.approx(0.0)
    assert np.isnan(benchmarks.slope(sized, "never", "rows"))
    a, b = {"x": [1.0, 2.0, 0.3, 0.1, 50.0]}, {"x": [2.0, 2.0, 0.4, 0.1, 70.0]}
    assert peers.agreement(a, b) == pytest.approx({"mean_rms": 2, "mean_max": 2, "sd_rms": 0, "sd_max": 0})
    with pytest.raises(ValueError, match="not the same parameters: y"):
        peers.agreement(a, b | {"y": b["x"]})


def test_what_collapse_spends_is_split_by_what_it_calls():
    import cProfile

    profile = cProfile.Profile()

    def inner(n):
        return sum(range(n))

    def collapse(n):
        return inner(n) + inner(n)

    profile.runcall(collapse, 200_000)
    spent = called_by(profile, "collapse")
    assert "inner" in spent  # and now and then what the garbage collector calls
    assert not any("sum" in name for name in spent)  # of what it calls itself
    assert 0 < spent["inner"] < 5


def test_worlds_of_any_size(tmp_path):
    for firms in (60, 250, 1000):
        config = world_of(firms, beside.adopters_of(firms), tmp_path, *beside.IID)
        from src.fit import load

        panel = load(config)[0]
        assert len(panel.units) == firms
        assert np.isfinite(panel.cohort).sum() == beside.adopters_of(firms)
    assert bench.sizes_up_to(1_000_000) == [10_000, 31_623, 100_000, 316_228, 1_000_000]
    assert bench.sizes_up_to(5_000) == [5_000]


def test_peers_import_nothing_of_the_project():
    for peer in (*peers.PEERS.values(), peers.CAUSALPY):
        text = (ROOT / "bench" / peer.script).read_text()
        assert not re.search(r"^\s*(from|import) (src|models|bench|tests)\b", text, re.MULTILINE)
        assert peer.script == Path(peer.script).name
    assert bench_settings().parts == ["peers", "growth", "command", "counts"]
