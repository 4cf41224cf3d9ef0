"""Sweeps whose jobs run in other processes: what they end with, what is said of them, and what is left."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.command import ROOT, Outcome, home, notes_of, reported
from src.panel import PanelError
from tests.test_command import ended

LAUNCHERS = ("joblib", "submitit_local")
FEW = [
    "data.size=small",
    "model=pooled",
    "sampler.draws=100",
    "sampler.tune=100",
    "sampler.chains=2",
    "sampler.cores=1",
]
PLAIN = ["estimators=[twfe]", "figures=false", "progress=false"]


def by_seed(config) -> int:
    """A job that ends as its seed says: done, a mistake, failed diagnostics, a fault of ours."""
    if config.seed == 2:
        raise PanelError("row 2 has no unit; give it one")
    if config.seed == 4:
        raise ZeroDivisionError("our fault")
    folder = home("job", str(config.seed))
    folder.mkdir(parents=True)
    (folder / "pid").write_text(str(os.getpid()))
    return config.seed if config.seed == 3 else 0


def lost(config) -> int:
    """A job whose process ends before it does."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def sweep(task: str, launcher: str, folder: Path, *told: str) -> subprocess.CompletedProcess:
    """A sweep of a task of this file, as a command of its own."""
    script = f"from src.command import command; from tests.test_launchers import {task}; command({task})"
    where = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}"]
    return done([sys.executable, "-W", "error", "-c", script, "-m", *where, *told])


def done(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_elsewhere_finishes_its_jobs_and_exits_with_the_worst_code(launcher, tmp_path):
    found = sweep("by_seed", launcher, tmp_path, "seed=1,2,3,4")
    assert found.returncode == 3, found.stderr
    pids = {int((tmp_path / "job" / seed / "pid").read_text()) for seed in "13"}
    assert os.getpid() not in pids
    assert found.stderr.count("error: row 2 has no unit; give it one") == 1
    assert (tmp_path / "multirun.yaml").exists()
    assert not list(tmp_path.glob(".jobs-*"))
    if launcher == "joblib":
        assert "ZeroDivisionError: our fault" in found.stderr
        return
    lines = found.stderr.splitlines()
    assert [re.sub(r" is in .*", "", line) for line in lines] == [
        "job 0 (seed=1): done; what it printed",
        "error: row 2 has no unit; give it one; job 1 (seed=2)",
        "job 2 (seed=3): done, but its diagnostics failed; what it printed",
        "job 3 (seed=4): failed; what it printed",
    ]
    log = Path(lines[3].rpartition(" is in ")[2])
    assert any("ZeroDivisionError: our fault" in path.read_text() for path in log.glob("*.err"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_refused_sweep_elsewhere_leaves_nothing(launcher, tmp_path):
    found = sweep("by_seed", launcher, tmp_path / "mine", "seed=2", "prob=0.5,0.9")
    assert found.returncode == 2
    assert found.stderr.count("error: row 2 has no unit") == 2
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("launcher", [LAUNCHERS[0], pytest.param(LAUNCHERS[1], marks=pytest.mark.slow)])
def test_a_job_whose_process_is_lost_is_said(launcher, tmp_path):
    found = sweep("lost", launcher, tmp_path, "seed=1,2")
    assert found.returncode == 1
    assert "error: a job of the sweep was lost (" in found.stderr


@pytest.mark.parametrize("launcher", [pytest.param(LAUNCHERS[0], marks=pytest.mark.slow), *LAUNCHERS[1:]])
def test_a_real_fit_and_a_mistake_in_a_sweep_elsewhere(launcher, tmp_path):
    where = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}"]
    jobs = "data.outcome=ln_green_patents,nothing"
    found = done([sys.executable, "-m", "src.fit", "-m", *where, *FEW, *PLAIN, jobs])
    assert found.returncode == 3, found.stderr  # so few draws never pass the diagnostics
    (posterior,) = tmp_path.glob("synthetic/pooled/*/posterior.nc")
    assert (posterior.parent / "report.html").exists()
    assert "has no outcome 'nothing'" in found.stderr


def test_notes_of_jobs_are_read_in_their_order_and_taken_away(tmp_path):
    (tmp_path / "notes").mkdir()
    for number in (10, 2):
        (tmp_path / "notes" / f"{number}.json").write_text(f'{{"code": 0, "number": {number}}}')
    assert [outcome.number for outcome in notes_of(tmp_path, "notes")] == [2, 10]
    assert notes_of(tmp_path, "notes") == []
    assert reported(Outcome(3, "", 2, "seed=1", "logs/7")) == (
        "job 2 (seed=1): done, but its diagnostics failed; what it printed is in logs/7"
    )


def test_without_the_extra_a_sweep_names_it():
    no_plugins = (
        "import sys, types; sys.modules['hydra_plugins'] = types.SimpleNamespace(__name__='hydra_plugins', __path__=[])"
    )
    script = f"{no_plugins}; from src.fit import command, fit; command(fit)"
    found = done([sys.executable, "-c", script, "-m", "hydra/launcher=joblib", "seed=1,2"])
    assert found.returncode == 2
    assert found.stderr == (
        "error: hydra/launcher=joblib needs the extra [sweep]: install it with pip install '.[sweep]'\n"
    )


def test_a_misspelt_launcher(monkeypatch, capsys):
    assert ended(monkeypatch, by_seed, "-m", "hydra/launcher=jobli", "seed=1,2") == 2
    assert "did you mean joblib?); choose from basic, joblib, submitit_local" in capsys.readouterr().err
