"""Every config composes, every command in the contract means what it says, typos die."""

import sys

import pytest
from hydra import compose, initialize_config_dir

from src import command
from src.command import ROOT, UserError, replacing, settings
from src.config import Config

CONF = ROOT / "conf"


def composed(*overrides: str) -> Config:
    command.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings(compose("config", [replacing(o) for o in overrides]))


def choices(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


FILE = ["data.path=x.csv", "data.unit=firm", "data.time=year", "data.cohort=g", "data.outcome=y"]


@pytest.mark.parametrize(
    ("group", "option"), [(g.name, o) for g in sorted(CONF.iterdir()) if g.is_dir() for o in choices(g.name)]
)
def test_every_yaml_composes(group, option):
    more = FILE if option == "csv" else []
    assert isinstance(composed(f"{group}={option}", *more), Config)


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
    assert composed("data.groups.industry=province").data.groups == {"industry": "province", "ownership": "ownership"}


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
        (["model=heir"], "model=heir is not an option (did you mean hier?); choose from hier, nopool, pooled"),
        (["model.pth=x"], "did you mean path?"),
        (["data=fracking", "data.seed=1"], "no setting data.seed"),
        (["prob=high"], "'high'"),
        (["data=csv", "data.path=x.csv"], "data.unit is not given"),
        (["experiment=nope"], "choose from"),
        (["data=csv", *FILE], "no file"),
    ],
)
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
    assert "Traceback" not in said


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


def test_a_mistake_leaves_no_folder(monkeypatch, tmp_path):
    def task(config: Config) -> int:
        raise UserError("no")

    monkeypatch.setattr(sys, "argv", ["fit", f"hydra.run.dir={tmp_path / 'mine'}"])
    with pytest.raises(SystemExit):
        command.command(task)
    assert list(tmp_path.iterdir()) == []
