"""A run as tables: what is read back is what the run says, under names that R and Stata take."""

import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from src import export
from src.compare import keyed
from src.config import ExportConfig
from src.export import Column, names_of

NONE = np.zeros((2, 3))
READERS = {
    "csv": lambda path: pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"level": str, "group": str}),
    "parquet": pd.read_parquet,
    "dta": pd.read_stata,
}


def column(quantity: str, group: str = "", level: str = "", scale: str = "outcome") -> Column:
    return Column(quantity, group, level, scale, NONE)


def ended(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["export", *(str(word) for word in words)])
    with pytest.raises(SystemExit) as stopped:
        export.main()
    return stopped.value.code


def table(folder, name: str) -> pd.DataFrame:
    words = {"group": str, "level": str, "parameter": str}
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""], dtype=words)


@pytest.mark.parametrize("kind", READERS)
def test_means_of_what_is_read_back_are_those_of_the_tables(kind, small_run, tmp_path):
    assert export.export(ExportConfig(run=str(small_run), format=kind, folder=str(tmp_path / "here"))) == 0
    files = {path.stem: READERS[kind](path) for path in (tmp_path / "here").iterdir()}
    assert set(files) == {"draws", "parameters", "codebook", "estimands", "comparison"}
    for name in ("draws", "parameters"):
        index = files[name][["chain", "draw"]]
        assert index.drop_duplicates().shape == (4000, 2)
        assert (index.min().tolist(), index.max().tolist()) == ([1, 1], [4, 1000])
        assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,31}", word) for word in files[name])
        assert set(files[name]) - {"chain", "draw"} == set(files["codebook"].query("table == @name")["name"])

    codebook = keyed(files["codebook"]).fillna("").set_index("table")
    rows = keyed(table(small_run, "estimands")).set_index(["estimand", "group", "level", "scale"])
    mine = codebook.loc["draws"]
    assert len(mine) == rows["mean"].notna().sum()
    for name, *key in mine[["name", "quantity", "group", "level", "scale"]].itertuples(index=False):
        values = files["draws"][name]
        assert values.mean() == pytest.approx(rows.loc[tuple(key), "mean"], rel=1e-9, abs=1e-12)
        assert values.quantile(0.025) == pytest.approx(rows.loc[tuple(key), "low"], rel=1e-9, abs=1e-12)

    known = table(small_run, "parameters").fillna("").set_index(["parameter", "level"])
    mine = codebook.loc["parameters"]
    for name, *key in mine[["name", "quantity", "level"]].itertuples(index=False):
        assert files["parameters"][name].mean() == pytest.approx(known.loc[tuple(key), "mean"], rel=1e-9, abs=1e-12)
    left_out = {name for name, _ in known.index} - set(mine["quantity"])
    assert all(name == "theta" or name.endswith("_offset") for name in left_out)

    for name in ("estimands", "comparison"):
        np.testing.assert_allclose(
            files[name].select_dtypes("number").to_numpy(), table(small_run, name).select_dtypes("number").to_numpy()
        )


def test_draws_stay_beside_those_of_their_chain(small_run, tmp_path):
    import xarray as xr

    export.export(ExportConfig(run=str(small_run), format="parquet", folder=str(tmp_path)))
    draws = pd.read_parquet(tmp_path / "draws.parquet").set_index(["chain", "draw"])
    with xr.open_datatree(small_run / "posterior.nc") as tree:
        level = tree["estimand"]["att_by_ownership"].sel(chain=2, draw=17, ownership="state").item()
        assert draws.loc[(3, 18), "att_by_ownership_state"] == pytest.approx(level)


def test_stata_has_labels(small_run, tmp_path):
    export.export(ExportConfig(run=str(small_run), format="dta", folder=str(tmp_path)))
    with pd.io.stata.StataReader(tmp_path / "draws.dta") as reader:
        labels = reader.variable_labels()
        assert reader.data_label.startswith("hierdid, run ")
    assert labels["att_by_ownership_private_pct"] == "att_by ownership private, percent"
    assert labels["chain"] == "chain of the sampler"
    assert all(0 < len(label) <= 80 for label in labels.values())


def test_names_are_short_plain_and_unlike():
    columns = [
        column("att"),
        column("att", scale="percent"),
        column("lead", level="-2"),
        column("contrast", "ownership", "private - state"),
        column("att_by", "industry:ownership", "C39:private"),
        column("att_by", "行业", "制造业"),
        column("att_by", "行业", "服务业"),
        column("att_by", "industry", "c39"),
        column("att_by", "industry", "C39"),
        column("att_by", "industry", "É"),
        column("chain"),
        column("7", level="x" * 50),
        *[column("att_by", "a_group_of_a_very_long_name_indeed", f"a level of a long name {k}") for k in range(12)],
    ]
    names = names_of(columns)
    assert names[:5] == [
        "att",
        "att_pct",
        "lead_m2",
        "contrast_ownership_private_state",
        "att_by_industry_owne_C39_private",
    ]
    assert names[10] == "chain_2"
    assert len({name.casefold() for name in names} | {"draw"}) == len(names) + 1
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,31}", name) for name in names)


def test_text_that_stata_finds_strange_survives(tmp_path):
    frame = pd.DataFrame({"level": ["制造业", None], "note": ["x" * 3000, ""], "mean": [1.0, np.nan]})
    export.write(frame, tmp_path / "t.dta", "dta", {"mean": "m" * 100}, "t" * 100)
    back = pd.read_stata(tmp_path / "t.dta")
    assert back["level"].tolist() == ["制造业", ""]
    assert back["note"].str.len().tolist() == [3000, 0]
    assert np.isnan(back["mean"][1])


def test_parameters_are_without_raw_draws_and_theta():
    drawn = ("chain", "draw", "level"), np.random.default_rng(1).normal(size=(2, 4, 3))
    names = ("theta", "sa::theta", "industry_offset", "industry_partial", "sa::industry_effect")
    posterior = xr.Dataset(dict.fromkeys(names, drawn), coords={"level": ["a", "b", "c"]})
    found = [(column.quantity, column.level) for column in export.of_parameters(posterior)]
    assert found == [("sa::industry_effect", level) for level in "abc"]


def test_infinities_are_missing():
    tables, _ = export.wide({"draws": [Column("att", "", "", "percent", np.array([[1.0, np.inf], [-np.inf, 2.0]]))]})
    assert tables["draws"]["att_pct"].isna().tolist() == [False, True, True, False]


def test_more_columns_than_stata_has_are_refused():
    wide = pd.DataFrame(np.zeros((1, 32_768)))
    with pytest.raises(export.UserError, match=r"32,768 columns and Stata takes 32,767: use csv or parquet"):
        export.check_size({"draws": wide}, "dta")
    export.check_size({"draws": wide}, "csv")
    assert "not in Stata/BE" in " ".join(export.how_to_read("dta", 3000))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{empty}"], "holds no finished run"),
        ([], "name the run"),
        (["{run}", "format=xlsx"], "format=xlsx is not an option; choose from csv, parquet, dta"),
        (["{run}", "fromat=csv"], "there is no setting fromat here (did you mean format?)"),
        (["{lacking}"], "comparison.csv is missing"),
        (["{other}"], "are of another version"),
    ],
)
def test_a_mistake_ends_in_one_message_and_nothing_is_written(words, said, small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lacking = shutil.copytree(small_run, tmp_path / "lacking")
    (lacking / "comparison.csv").unlink()
    other = shutil.copytree(small_run, tmp_path / "other")
    with (other / ".hydra" / "config.yaml").open("a") as file:
        file.write("of_another_version: 1\n")
    before = sorted(tmp_path.rglob("*"))
    places = {"empty": tmp_path, "run": small_run, "lacking": lacking, "other": other}
    assert ended(monkeypatch, *(word.format(**places) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert not (small_run / "export").exists()


def test_the_command_writes_into_the_run_and_says_how_to_read_it(small_run, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(small_run, tmp_path / "mine")
    assert ended(monkeypatch, folder, "format=dta") == 0
    assert (folder / "export" / "draws.dta").is_file()
    assert 'Stata: use "draws.dta"' in capsys.readouterr().out


def test_what_is_broken_off_leaves_no_half_file(small_run, tmp_path, monkeypatch):
    def broken(self, path, **options):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(OSError, match="disk full"):
        export.export(ExportConfig(run=str(small_run), folder=str(tmp_path / "here")))
    assert not any((tmp_path / "here").iterdir())
