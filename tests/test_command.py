"""Every config composes, every command in the contract means what it says, typos die."""

import re
import subprocess
import sys
from pathlib import Path

import pymc as pm
import pytest
from hydra import compose, initialize_config_dir

from src import command
from src.command import ROOT, UserError, replacing, settings, understood
from src.config import Config, ExposureConfig, RecoverConfig

CONF = ROOT / "conf"


def composed(*overrides: str) -> Config:
    command.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings(compose("config", [replacing(o) for o in overrides]))


def choices(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


FILE = ["data.path=x.csv", "data.unit=firm", "data.time=year", "data.cohort=g", "data.outcome=y"]


def composed_study(*overrides: str) -> RecoverConfig:
    command.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings(compose("recover", list(overrides)))


@pytest.mark.parametrize(
    ("group", "option"), [(g.name, o) for g in sorted(CONF.iterdir()) if g.is_dir() for o in choices(g.name)]
)
def test_every_yaml_composes(group, option):
    more = FILE if option == "csv" else []
    if group not in ("generator", "study"):
        assert isinstance(composed(f"{group}={option}", *more), Config)
    if group in ("generator", "study", "likelihood", "prior", "sampler"):
        assert isinstance(composed_study(f"{group}={option}"), RecoverConfig)


def test_the_contracts_own_file_command():
    found = composed(
        "model=hier", "data=csv", "data.path=panel.csv", "data.unit=firm", "data.time=year",
        "data.cohort=first_treated", "data.outcome=patents", "data.transform=log1p",
        "data.groups={industry: csrc, ownership: soe}", "data.covariates=[size, leverage]",
        "data.exposures={county: county, industry: csrc}", "seed=1",
    )  # fmt: skip
    assert found.data.groups == {"industry": "csrc", "ownership": "soe"}
    assert found.data.exposures == {"county": "county", "industry": "csrc"}
    assert found.data.covariates == ["size", "leverage"]
    assert found.data.transform == "log1p"


def test_dictionaries_replace_and_never_merge():
    assert composed("data.groups={ownership: ownership}").data.groups == {"ownership": "ownership"}
    assert composed("data.groups={}").data.groups == {}
    assert composed("data.exposures={}").data.exposures == {}
    assert composed("+data.exposures={a: district}").data.exposures == {"a": "district"}
    assert composed("data.groups=null").data.groups == {}
    assert composed("data.groups={1: 2010}").data.groups == {"1": "2010"}
    assert composed("data.groups.industry=province").data.groups == {"industry": "province", "ownership": "ownership"}


def test_an_exposure_is_a_column_or_says_who_is_exposed_to_whom():
    near = "near: {ring: [0, 80], latitude: lat, longitude: lon, lag: 1}"
    found = composed(f"data.exposures={{county: county, {near}}}").data.exposures
    assert found["county"] == "county"
    assert found["near"] == ExposureConfig(ring=[0.0, 80.0], latitude="lat", longitude="lon", lag=1)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{rng: [0, 80]}", "no setting rng (did you mean ring?)"),
        ("{kernel: gaussian, scale: -1}", "data.exposures.near.scale=-1.0 is impossible"),
        ("{share: county, form: sum}", "data.exposures.near.form=sum is not an option"),
        ("{neighbours: many}", "data.exposures.near"),
        ("[a, b]", "not a dictionary of columns"),
    ],
)
def test_an_exposure_that_cannot_be_is_refused(entry, said):
    with pytest.raises(UserError, match=re.escape(said)):
        composed(f"data.exposures={{near: {entry}}}")


@pytest.mark.parametrize("path", ["~/panel.csv", "my panel (1).csv", "a=b.csv", "C:\\data\\p.csv", "a#b.csv", "null"])
def test_paths_are_taken_as_they_are(path):
    meant = str(Path(path).expanduser())
    found = composed("data=csv", *understood([f"data.path={path}"]), *FILE[1:]).data.path
    assert found == (None if path == "null" else meant)
    assert understood(["model=hier", f'data.path="{path}"', "-m"]) == ["-m", "model=hier", f'data.path="{path}"']


def test_predictors_go_with_the_groups_they_belong_to():
    assert composed().data.predictors == {"industry": "polluting"}
    assert composed("data.groups={ownership: ownership}").data.predictors == {}


def test_build_functions_and_loaders_exist():
    from src.fit import resolve

    for model in choices("model"):
        assert callable(resolve(composed(f"model={model}").model.build))
    for data in choices("data"):
        assert callable(resolve(composed(f"data={data}", *(FILE if data == "csv" else [])).data.loader))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prob=1.5", "prob=1.5 is impossible; give a number above 0 and below 1"),
        ("sampler.draws=5", "at least 100"),
        ("seed=-1", "at least 0"),
        ("prior.mu=0", "above 0"),
        ("model.path=randomwalk", "did you mean random_walk"),
        ("data.membership=last", "choose from error, first, before"),
        ("data.groups=industry", "not a dictionary"),
        ("data.groups={industry: [a, b]}", "not a dictionary"),
    ],
)
def test_impossible_values_name_the_setting_and_the_remedy(override, words):
    with pytest.raises(UserError, match=words):
        composed(override)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["modle=hier"], "no setting modle here (did you mean model?)"),
        (["model=heir"], "model=heir is not an option (did you mean hier?); choose from hier, joint, mediation"),
        (["model.pth=x"], "did you mean path?"),
        (["data=fracking", "data.seed=1"], "no setting data.seed here (did you mean seed?)"),
        (["draws=200"], "no setting draws here (did you mean sampler.draws?)"),
        (["groups={a: b}"], "no setting groups here (did you mean data.groups?)"),
        (["data=csv", "data.path=x.csv"], "data.unit is not given"),
        (["data=csv", *FILE[1:]], "give data.path=<file>"),
        (["prob=high"], "prob=high is not a number; write"),
        (["sampler.draws=abc"], "sampler.draws=abc is not a whole number; write"),
        (["sampler.draws=null"], "sampler.draws=null cannot be empty; leave the setting out"),
        (["figures=maybe"], "figures=maybe is neither true nor false"),
        (["data.covariates=x"], "data.covariates=x is not a list; give one as in 'data.covariates=[a, b]'"),
        (["data.covariates={a: x}"], "is not a list; give one as in 'data.covariates=[a, b]'"),
        (["data.covariates=[null]"], "data.covariates=[null] has an empty entry"),
        (["data.covariates=[[x]]"], "is not a plain list; give one as in 'data.covariates=[a, b]'"),
        (["data.unit=[firm]"], "data.unit=[firm] is not a single word; give one as in data.unit=a"),
        (["data.groups={null: x}"], "data.groups={null: x} is not a dictionary of columns; give one as in"),
        (["data=csv", "data.groups.industry=ind"],
         "data.groups has no industry to change; give the whole dictionary, as in 'data.groups={industry: my_column}'"),
        (["~data.unit"], "no way to remove a setting"),
        (["data.outcome=a,b"], "write a list as 'data.outcome=[a,b]'"),
        (["data.outcome=log(y)"], "data.outcome=log(y) cannot be read: close every bracket, quote"),
        (["data.groups={a:"], "{a: cannot be read: close every bracket, quote the whole for the shell"),
        (["hier"], "hier is not a setting (did you mean model=hier?); write name=value without blanks"),
        (["model="], "model= is not an option; choose from hier, joint, mediation, nopool, pooled"),
        (["model=null"], "model, likelihood, prior, sampler and engine take the name of an option"),
        (["+sampler.drws=200"], "no setting sampler.drws here (did you mean draws?)"),
        (["estimators=[twf]"], "estimators=twf is not an option (did you mean twfe?); choose from twfe, "),
        (["estimators=[twfe, etwfe, twfe]"], "estimators names twfe 2 times; name it once"),
        (["seed=4294967296"], "seed=4294967296 is impossible; give a number at least 0 and below 4,294,967,296"),
        (["data.seed=4294967296"], "below 4,294,967,296"),
        (["prior.mu=inf"], "prior.mu=inf is impossible; give a finite number above 0"),
        (["experiment=nope"], "choose from"),
        (["data=csv", *FILE], "no file"),
    ],
)  # fmt: skip
def test_mistakes_exit_with_2_and_one_message(arguments, words, monkeypatch, capsys):
    from src.fit import fit

    monkeypatch.setattr(sys, "argv", ["fit", *arguments])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        command.command(fit)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert words in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not any(words in said for words in ("Traceback", "Error merging", "ListConfig", "DictConfig", "grammar"))


def test_a_sweep_finishes_its_jobs_and_exits_with_the_worst_code(monkeypatch, tmp_path):
    seen = []

    def task(config: Config) -> int:
        seen.append(config.seed)
        if config.seed == 2:
            raise UserError("no")
        return 3 if config.seed == 3 else 0

    monkeypatch.setattr(sys, "argv", ["fit", "-m", "seed=1,2,3,4", f"hydra.sweep.dir={tmp_path}"])
    with pytest.raises(SystemExit) as stopped:
        command.command(task)
    assert seen == [1, 2, 3, 4]
    assert stopped.value.code == 3


def test_estimators_are_those_that_there_are():
    from src.config import ESTIMATORS
    from src.estimators import ESTIMATORS as FUNCTIONS
    from src.fit import twins_of

    assert list(FUNCTIONS) == list(ESTIMATORS)
    assert twins_of(composed()) == ("twfe", "twfe_exposures", "etwfe", "cs", "sunab", "bjs")
    assert twins_of(composed("likelihood=poisson")) == ("poisson_twfe", "poisson_twfe_exposures", "poisson_etwfe")
    assert twins_of(composed("likelihood=poisson", "estimators=[twfe]")) == ("twfe",)


def test_the_largest_seed_draws():
    from src.sample import draw_prior

    seed = 2**32 - 1
    composed(f"seed={seed}", f"data.seed={seed}")
    with pm.Model() as model:
        pm.Normal("x")
    assert draw_prior(model, seed, draws=2)["x"].size == 2


def everything_beneath(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refuse(config: Config) -> int:
    raise UserError("no")


def ended(monkeypatch, task, *arguments, **options) -> int:
    monkeypatch.setattr(sys, "argv", ["fit", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.command(task, **options)
    return stopped.value.code


def test_a_mistake_leaves_no_folder_and_takes_none(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old" / "empty").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "note.txt").write_text("mine")
    before = everything_beneath(tmp_path)
    for place in (
        "mine",
        "a/b/c",
        "old",
        "old/empty",
        "old/empty/new",
        "runs",
        "runs/x/y",
        tmp_path / "z",
        "a/${seed}/b",
    ):
        assert ended(monkeypatch, refuse, f"hydra.run.dir={place}") == 2
        assert everything_beneath(tmp_path) == before, place
    assert ended(monkeypatch, refuse) == 2
    assert everything_beneath(tmp_path) == before


def test_a_refused_sweep_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["hydra.sweep.dir=a/b"], ["hydra.sweep.dir=a", "hydra.sweep.subdir=${hydra.job.num}/x"]):
        assert ended(monkeypatch, refuse, "-m", "seed=1,2", *more) == 2
        assert everything_beneath(tmp_path) == []
    assert ended(monkeypatch, refuse, "-m", "model=hier,heir") == 2  # refused before any job
    assert everything_beneath(tmp_path) == []


def test_a_refused_sweep_gives_the_record_of_an_earlier_one_back(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "multirun.yaml").write_text("earlier")
    assert ended(monkeypatch, refuse, "-m", "seed=1,2") == 2
    assert (tmp_path / "traces" / "multirun.yaml").read_text() == "earlier"


def test_a_sweep_of_which_some_is_written_keeps_its_record(monkeypatch, tmp_path):
    def task(config: Config) -> int:
        if config.seed == 1:
            raise UserError("no")
        (tmp_path / "traces" / "run.txt").write_text("done")
        return 0

    monkeypatch.chdir(tmp_path)
    assert ended(monkeypatch, task, "-m", "seed=1,2") == 2
    assert everything_beneath(tmp_path / "traces") == ["multirun.yaml", "run.txt"]


def test_a_command_that_writes_nothing_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for more in (["-m", "seed=1,2"], ["hydra.run.dir=a/b"]):
        assert ended(monkeypatch, lambda config: 0, *more, writes=False) == 0
        assert everything_beneath(tmp_path) == []


def test_a_stopped_command_leaves_nothing(monkeypatch, tmp_path):
    def task(config: Config) -> int:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    assert ended(monkeypatch, task, "hydra.run.dir=a/b") == 130
    assert everything_beneath(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert ended(monkeypatch, refuse, f"hydra.run.dir={tmp_path / 'file' / 'a'}") == 2
    assert "cannot be a folder for runs" in capsys.readouterr().err


HEAVY = ("pymc", "pytensor", "numba", "nutpie", "arviz", "pyfixest", "matplotlib", "pandas", "scipy")
IMPORTED = """
import runpy, sys
sys.argv[0] = "src.fit"
try:
    runpy.run_module("src.fit", run_name="__main__")
except SystemExit as ended:
    print(ended.code, *(name for name in {heavy} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["modl=hier"], 2), (["seed=-1"], 2)])
def test_help_and_mistakes_import_nothing_heavy(arguments, code):
    said = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(heavy=HEAVY), *arguments], capture_output=True, text=True, check=False
    )
    assert said.stderr.splitlines()[-1] == str(code)
