"""The study of calibration: arithmetic by hand, what is kept is kept, failures are said, one study end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from src import coverage, engine, estimators, recover, replicate
from src.command import ROOT, UserError, command
from src.config import LocalConfig
from src.coverage import ALL, COLUMNS, monte_carlo_error, recovered
from src.engine import Engine, LostError, opened
from src.exposure import row_shares
from src.recover import file_of, finished, shared_out
from src.replicate import MASSES, Study
from tests.test_command import composed, composed_study, ended

TINY = [
    "generator.units=120", "generator.periods=6", "generator.starts=[3,4]", "generator.adopters=[12,12]",
    "generator.industries=6", "generator.districts=8",
]  # fmt: skip


def study(*overrides: str, models: tuple[str, ...] = ()) -> Study:
    config = composed_study(*TINY, *overrides)
    options = {name: composed(f"model={name}").model for name in models}
    world, estimators = config.generator, tuple(config.estimators)
    sampler, seed = config.sampler, config.seed
    return Study(world, config.likelihood, config.prior, sampler, options, estimators, config.designs, seed)


def said(replication, estimate, truth=0.0, se=1.0, half=1.0, estimand="att", group="", level="", **more) -> dict:
    """A made-up row: 90% intervals reach `half` to each side, 95% intervals twice as far."""
    return {
        "replication": replication, "estimator": "hier", "estimand": estimand, "group": group, "level": level,
        "n_units": 3, "truth": truth, "estimate": estimate, "se": se, "p_positive": 0.5, "pit": 0.5,
        "low_90": estimate - half, "high_90": estimate + half,
        "low_95": estimate - 2 * half, "high_95": estimate + 2 * half,
    } | more  # fmt: skip


def test_the_table_by_hand():
    rows = [
        said(0, 0.5, p_positive=0.99),
        said(1, -1.5, se=2.0, p_positive=0.01),
        said(2, 3.0, half=0.5, p_positive=0.96),
        said(3, 1.0, truth=1.0, p_positive=0.5),
        said(4, np.nan, se=np.nan, half=np.nan, p_positive=np.nan),
    ]
    (row,) = recovered(pd.DataFrame(rows), "made_up").to_dict("records")
    assert list(row) == COLUMNS
    assert (row["generator"], row["estimator"], row["estimand"], row["note"]) == ("made_up", "hier", "att", "")
    assert (row["replications"], row["missing"]) == (4, 1)
    errors = np.array([0.5, -1.5, 3.0, 0.0])
    assert row["bias"] == pytest.approx(0.5)
    assert row["mc_bias"] == pytest.approx(np.std(errors) / 2)
    assert row["rmse"] == pytest.approx(np.sqrt((0.25 + 2.25 + 9) / 4))
    assert row["sd_of_estimates"] == pytest.approx(np.std(errors, ddof=1))
    assert row["mean_se"] == pytest.approx(1.25)
    assert row["coverage_90"] == 0.5  # 0.5 and 1.0 are near enough
    assert row["mc_90"] == pytest.approx(np.sqrt(0.5 * 0.5 / 4))
    assert row["coverage_95"] == 0.75
    assert row["mc_95"] == pytest.approx(np.sqrt(0.75 * 0.25 / 4))
    assert row["width_90"] == pytest.approx((2 + 2 + 1 + 2) / 4)
    assert row["width_95"] == pytest.approx(2 * row["width_90"])
    assert (row["p_below_05"], row["p_above_95"]) == (0.25, 0.5)


def test_many_levels_are_one_row_clustered_by_replication():
    estimates = {0: [0, 0, 0, 0, 0, 3], 1: [3, 3, 0, 0, 0, 3], 2: [0, 0, 0, 0, 0, 0]}
    rows = [
        said(r, float(x), estimand="att_by", group="industry", level=f"C{k}")
        for r, values in estimates.items()
        for k, x in enumerate(values)
    ]
    rows += [said(0, 3.0, estimand="att_by", group="industry", level="rare")]  # too rare to be called the worst
    table = recovered(pd.DataFrame(rows), "made_up", "parallel trends")
    (row,) = table.to_dict("records")
    assert (row["level"], row["replications"], row["missing"]) == (ALL, 3, 0)
    assert row["coverage_90"] == pytest.approx(14 / 19)
    p = 14 / 19
    sums = np.array([5 - 7 * p, 3 - 6 * p, 6 - 6 * p])
    assert row["mc_90"] == pytest.approx(np.sqrt((sums**2).sum()) / 19)
    assert (row["worst_level"], row["worst_coverage"]) == ("C5", pytest.approx(1 / 3))
    assert row["note"] == "assumption broken: parallel trends"
    assert np.isnan(row["p_below_05"])


def test_few_levels_and_contrasts_have_rows_of_their_own():
    rows = [said(0, 0.0, estimand="att_by", group="ownership", level=level) for level in ("private", "state")]
    rows += [said(0, 0.0, estimand="contrast", group="g", level=f"{a} - z") for a in "abcdef"]
    rows += [said(0, 0.0, estimand="att_event", level=str(e)) for e in range(7)]
    table = recovered(pd.DataFrame(rows), "made_up")
    levels = table.groupby("estimand")["level"].agg(list)
    assert levels["att_by"] == ["private", "state"]
    assert levels["contrast"] == [*(f"{a} - z" for a in "abcdef"), ALL]
    assert levels["att_event"] == [*"0123456", ALL]


def test_the_monte_carlo_error_knows_what_goes_together():
    x = np.array([1.0, 0.0, 1.0, 0.0])
    assert monte_carlo_error(x, np.arange(4)) == pytest.approx(0.25)
    assert monte_carlo_error(x, np.array([0, 1, 0, 1])) == pytest.approx(np.sqrt(2) / 4)
    assert monte_carlo_error(x, np.array([0, 0, 1, 1])) == 0
    assert np.isnan(monte_carlo_error(x[:0], x[:0]))


def test_nothing_estimated_is_missing_and_not_shown():
    rows = [said(0, 0.0), said(0, np.nan, np.nan, np.nan, np.nan, "contrast", "ownership", "a - b")]
    table = recovered(pd.DataFrame(rows), "made_up")
    assert table["missing"].tolist() == [0, 1]
    assert table["replications"].tolist() == [1, 0]
    grid = coverage.printed(table, "", [])
    assert grid.row_count == 1


@pytest.fixture(scope="module")
def classical():
    mine = study()
    return mine, replicate.replicate(mine, 5, {})


def test_frequentist_rows_are_those_of_the_estimators_beside_the_truth(classical):
    mine, rows = classical
    panel = mine.panel(5)
    wanted = estimators.estimate(panel, row_shares(panel)[0], 0.9, mine.estimators).fillna({"group": "", "level": ""})
    both = rows.merge(wanted, on=["estimator", "estimand", "group", "level"], suffixes=("", "_wanted"))
    assert len(both) == len(rows) == len(wanted)
    for name, theirs in (("estimate", "estimate_wanted"), ("se", "se_wanted"), ("low_90", "low"), ("high_90", "high")):
        np.testing.assert_allclose(both[name], both[theirs])
    truth = rows[rows["estimand"] == "att"]["truth"]
    np.testing.assert_allclose(truth, np.average(panel.truth.tau[panel.treated]))


def holds(rows: pd.DataFrame, mass: float) -> pd.Series:
    return rows[f"low_{100 * mass:.0f}"].le(rows["truth"]) & rows[f"high_{100 * mass:.0f}"].ge(rows["truth"])


def test_coverage_by_pit_is_coverage_by_ends(classical):
    known = classical[1].dropna(subset=["estimate", "se"])
    draws = np.random.default_rng(0).normal(size=(4, 2000, 1)) + np.zeros(40)
    truths = np.linspace(-3, 3, 40)
    found = [replicate.Average("att", "", str(k), np.zeros(0), 1, 1, truth) for k, truth in enumerate(truths)]
    for rows in (known, replicate.model_rows(found, draws, truths)):
        for mass in MASSES:
            by_pit = (rows["pit"] - 0.5).abs() <= mass / 2
            assert (by_pit == holds(rows, mass)).all()
            assert 0 < by_pit.sum() < len(rows)


def test_a_model_that_fixes_an_effect_estimates_nothing():
    draws = np.stack([np.zeros((2, 50)), np.full((2, 50), np.nan), np.random.default_rng(0).normal(size=(2, 50))], -1)
    found = [replicate.Average("contrast", "g", str(k), np.zeros(0), 1, 1, 0.1) for k in range(3)]
    rows = replicate.model_rows(found, draws, np.full(3, 0.1))
    numbers = rows.drop(columns=["estimand", "group", "level", "n_units", "truth"])
    assert numbers.iloc[:2].isna().all(axis=None)
    assert numbers.iloc[2].notna().all()


def test_a_study_is_named_by_what_determines_its_replications():
    name = study().name()
    assert study("n=50", "engine.cores=1", "engine=dask", "sampler.cores=2", "generator.breaks=nothing").name() == name
    others = [
        "seed=2",
        "designs=5",
        "generator.sd=1",
        "likelihood.serial=none",
        "estimators=[etwfe]",
        "sampler.draws=600",
    ]
    names = {study(other).name() for other in others} | {study(models=("hier",)).name(), name}
    assert len(names) == len(others) + 2


def test_designs_repeat_and_outcomes_do_not():
    mine = study("designs=2")
    a, b, c = (mine.panel(r) for r in (0, 1, 2))
    np.testing.assert_array_equal(a.cohort, c.cohort)
    assert not np.array_equal(a.cohort, b.cohort)
    assert a.sha256 != c.sha256
    assert study("seed=2").panel(0).sha256 != a.sha256


def test_replications_are_shared_out_once_each_with_few_designs_a_process():
    for missing, designs, cores in ((range(20), 4, 2), (range(7, 20), 3, 2), ([3], 4, 2), (range(9), 1, 4)):
        shares = shared_out(list(missing), designs, cores)
        assert sorted(r for share in shares for r in share) == list(missing)
        assert max(len(share) for share in shares) - min(len(share) for share in shares) <= 1
        assert all(share == sorted(share) for share in shares)
    assert [{r % 4 for r in share} for share in shared_out(list(range(20)), 4, 2)] == [{0, 1}, {2, 3}]


def done_again(mine: Study, todo: list[int], folder) -> dict[int, str]:
    with opened(LocalConfig()) as here:
        return recover.run_all(here, partial(replicate.attempted, mine), todo, folder, progress=False)


def test_a_replication_that_fails_is_recorded_and_does_not_stop_the_others(monkeypatch, tmp_path):
    def fails_once(mine, r, compiled):
        if r == 1:
            raise FloatingPointError("no\nsuch number")
        return pd.DataFrame([said(r, 0.0)])

    monkeypatch.setattr(replicate, "replicate", fails_once)
    mine = study()
    recover.replications(tmp_path).mkdir()
    assert done_again(mine, [0, 1, 2], tmp_path) == {1: "FloatingPointError: no such number"}
    assert finished(tmp_path) == {0, 2}
    assert "Traceback" in file_of(tmp_path, 1).with_suffix(".error.txt").read_text()
    monkeypatch.setattr(replicate, "replicate", lambda mine, r, compiled: pd.DataFrame([said(r, 0.0)]))
    assert done_again(mine, [1], tmp_path) == {}
    assert sorted(path.name for path in recover.replications(tmp_path).iterdir()) == [
        f"0000{r}.parquet" for r in range(3)
    ]


def test_a_replication_that_ends_its_process_is_given_up_and_the_others_go_on(tmp_path):
    def each(function, items):
        for position, r in enumerate(items):
            if r == 1:
                raise LostError("it ended its process twice", position)
            yield position, pd.DataFrame([said(r, 0.0)])

    found = dict(recover.replicated(Engine(each, None), partial(replicate.attempted, study()), [0, 1, 2]))
    assert found.keys() == {0, 1, 2}
    assert found[1].reason == "it ended its process twice; the same command tries again"
    recover.replications(tmp_path).mkdir()
    assert recover.keep(found[1], file_of(tmp_path, 1)) == found[1].reason
    assert finished(tmp_path) == set()


def test_a_process_keeps_its_models_for_one_study_and_not_for_the_next(monkeypatch):
    seen = []
    monkeypatch.setattr(replicate, "replicate", lambda mine, r, compiled: seen.append(compiled) or pd.DataFrame())
    for mine, r in ((study(), 0), (study(), 1), (study("seed=2"), 0)):
        replicate.attempted(mine, r)
    assert seen[0] is seen[1]
    assert seen[2] is not seen[0]


def test_the_folder_of_another_study_is_refused(tmp_path):
    mine, other = study(), study("seed=2")
    recover.claimed(tmp_path, mine.name(), mine, refit=False)
    file_of(tmp_path, 0).touch()
    recover.claimed(tmp_path, mine.name(), mine, refit=False)
    with pytest.raises(UserError, match="holds another study"):
        recover.claimed(tmp_path, other.name(), other, refit=False)
    assert finished(tmp_path) == {0}
    recover.claimed(tmp_path, other.name(), other, refit=True)
    assert finished(tmp_path) == set()


def test_a_stopped_study_goes_on_where_it_was(tmp_path, monkeypatch, capfd):
    arguments = [*TINY, "models=[]", "estimators=[twfe]", f"hydra.run.dir={tmp_path / 'mine'}"]
    folder, many = tmp_path / "mine", 2000
    started = [sys.executable, "-m", "src.recover", *arguments, f"n={many}"]
    process = subprocess.Popen(started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(finished(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said_out, said_err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from there" in said_out
    assert said_err == "stopped; nothing was lost that had been written\n"
    kept = finished(folder)
    assert 2 <= len(kept) < many
    assert not (folder / "recovered.csv").exists()
    before = {r: os.stat(file_of(folder, r)).st_mtime_ns for r in kept}
    n = max(kept) + 3
    code = ended(
        monkeypatch, recover.recover, *arguments, f"n={n}", "progress=false", "engine.cores=1", config_name="recover"
    )
    assert (code, capfd.readouterr().err) == (0, "")
    assert finished(folder) == set(range(n))
    assert before == {r: os.stat(file_of(folder, r)).st_mtime_ns for r in kept}
    assert pd.read_csv(folder / "recovered.csv").query("estimand == 'att'")["replications"].tolist() == [n]


def test_a_mistake_ends_the_command_in_words(monkeypatch, capsys, tmp_path):
    for argument, words in (
        ("generator=realstic", "did you mean realistic?"),
        ("models=[heir]", "models=heir is not an option (did you mean hier?)"),
        ("cores=2", "did you mean engine.cores?"),
        ("engine.address=nowhere", "no setting engine.address here"),
        ("model=hier", "no setting model here (did you mean models?)"),
        ("likelihood.shocks=[county]", "choose from district, industry, ownership"),
        ("generator.starts=[1]", "equally long"),
        ("generator.unit_ds=1", "did you mean unit_sd?"),
    ):
        monkeypatch.setattr(sys, "argv", ["recover", argument, f"hydra.run.dir={tmp_path / 'mine'}"])
        with pytest.raises(SystemExit) as stopped:
            command(recover.recover, config_name="recover")
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert words in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "mine").exists()


def test_a_small_study_end_to_end(tmp_path, monkeypatch, capfd):
    arguments = [*TINY, "n=2", "designs=1", "engine.cores=1", "generator=random_walk", f"hydra.run.dir={tmp_path}"]
    code = ended(monkeypatch, recover.recover, *arguments, config_name="recover")
    said_out, said_err = capfd.readouterr()
    assert (code, said_err) == (0, "")
    assert "assumption broken: errors are AR(1)" in said_out
    assert "2 of 2 fits" in said_out
    table = pd.read_csv(tmp_path / "recovered.csv", keep_default_na=False)
    assert list(table.columns) == COLUMNS
    assert set(table["note"]) == {"assumption broken: errors are AR(1)"}
    assert set(table[table["estimand"] == "att"]["estimator"]) == {"hier", "twfe_exposures", "etwfe"}
    assert set(table[table["estimator"] == "hier"]["level"]) >= {"", ALL, "private", "private - state", "control"}
    assert (tmp_path / "recovered.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "study.json").read_text())["settings"]["world"]["serial"] == "random_walk"
    rows = recover.load(tmp_path, 2)
    seconds = [found["seconds"]["hier compile"] for found in rows.attrs["replications"]]
    assert seconds[1] < 0.1 < seconds[0]  # once, not once a replication
    assert len(set(rows[rows["estimand"] == "att"]["truth"])) == 2  # outcomes are drawn anew, effects among them


@pytest.mark.slow
def test_dask_gives_what_this_process_gives(tmp_path, monkeypatch, capfd):
    told = [*TINY, "n=2", "designs=1", "models=[pooled]", "sampler.draws=100", "sampler.tune=100", "progress=false"]
    for name, where in (("here", ["engine.cores=1"]), ("there", ["engine=dask", "engine.cores=1"])):
        folder = f"hydra.run.dir={tmp_path / name}"
        assert ended(monkeypatch, recover.recover, *told, *where, folder, config_name="recover") == 0
        assert capfd.readouterr().err == ""
    here, there = (recover.load(tmp_path / name, 2) for name in ("here", "there"))
    assert set(here["estimator"]) == {"pooled", "twfe_exposures", "etwfe"}
    pd.testing.assert_frame_equal(here, there, rtol=1e-8, atol=1e-12)
    assert (tmp_path / "here" / "study.json").read_text() == (tmp_path / "there" / "study.json").read_text()


def test_an_address_that_nobody_answers_at_is_a_mistake_that_leaves_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(engine, "PATIENCE", 0.5)
    told = [*TINY, "models=[]", "engine=dask", "engine.address=tcp://127.0.0.1:9", f"hydra.run.dir={tmp_path / 'mine'}"]
    assert ended(monkeypatch, recover.recover, *told, config_name="recover") == 2
    said_out, said_err = capfd.readouterr()
    assert said_out == ""
    assert said_err.startswith("error: no Dask scheduler answers at engine.address=tcp://127.0.0.1:9 (")
    assert said_err.count("\n") == 1
    assert not (tmp_path / "mine").exists()


def test_against_the_oracle_by_hand():
    told, mine = (0.5, -1.0), (1.0, -1.5)
    rows = [said(r, value, estimator="oracle") for r, value in enumerate(told)]
    rows += [said(r, value, estimator="pooled", half=0.6) for r, value in enumerate(mine)]
    rows += [
        said(r, share, truth=1.0, se=np.nan, estimand="explained", estimator="pooled")
        for r, share in ((0, 0.8), (1, 0.9))
    ]
    frame = pd.DataFrame(rows)
    table = coverage.against_oracle(frame, "made_up").set_index("estimator")
    assert list(table.index) == ["oracle", "pooled"]
    row = table.loc["pooled"]
    assert row["bias"] == pytest.approx(0.0)
    assert row["mc_bias"] == pytest.approx(np.sqrt(0.5) / np.sqrt(2))
    assert row["mse"] == pytest.approx((1.0 + 2.25) / (0.25 + 1.0))
    assert row["mc_mse"] == pytest.approx(np.std([1.0 - 2.6 * 0.25, 2.25 - 2.6], ddof=1) / 0.625 / np.sqrt(2))
    assert row["explained"] == pytest.approx(0.85)
    assert row["coverage_95"] == 0.5  # reaches 1.2 to each side
    assert table.loc["oracle", ["bias", "mse"]].tolist() == [0.0, 1.0]
    assert np.isnan(table.loc["oracle", "explained"])
    assert not len(coverage.against_oracle(frame[frame["estimator"] == "pooled"], "made_up"))
    assert "explained" not in set(recovered(frame, "made_up")["estimand"])


def test_counties_end_to_end(tmp_path, monkeypatch, capsys):
    told = ["generator=within40", "study=counties", "generator.periods=4", "generator.start=3", "n=2", "engine.cores=1"]
    monkeypatch.setattr(sys, "argv", ["recover", *told, "progress=false", f"hydra.run.dir={tmp_path}"])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ending:
        command(recover.recover, config_name="recover")
    assert ending.value.code == 0
    table = pd.read_csv(tmp_path / "oracle.csv").set_index("estimator")
    assert list(table.index) == ["pooled", "oracle", "near_rings", "additive_rings"]
    assert (table["replications"] == 2).all()
    assert table["explained"].between(0, 1).all()
    assert "| within40 | 2 | pooled |" in capsys.readouterr().out
