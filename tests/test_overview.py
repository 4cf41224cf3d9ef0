"""Studies side by side: a line a study, a cell a question, worlds that break an assumption marked."""

import pandas as pd
import pytest

from src.coverage import AGAINST, COLUMNS
from src.overview import main


def study(generator: str, note: str = "") -> pd.DataFrame:
    """A study that asked for the overall effect and for industries."""
    blank = dict.fromkeys(COLUMNS)
    both = {"generator": generator, "replications": 50, "note": note, "p_below_05": 0.04, "p_above_95": 0.06}
    att = both | {"estimator": "hier", "estimand": "att", "coverage_90": 0.88, "coverage_95": 0.94, "rmse": 0.1234}
    att |= {"mc_90": 0.02, "mc_95": 0.02}
    industries = both | {"estimator": "hier", "estimand": "att_by", "group": "industry", "level": "(all)"}
    industries |= {"coverage_90": 0.91, "coverage_95": 0.96, "rmse": 0.5, "worst_coverage": 0.72}
    industries |= {"mc_90": 0.01, "mc_95": 0.01, "rmse_small": 0.75}
    classical = att | {"estimator": "twfe", "coverage_90": 0.5, "rmse": 0.25}
    return pd.DataFrame([blank | row for row in (att, industries, classical)])


def test_studies_stand_side_by_side(tmp_path, capsys):
    for name, note in (("calm", ""), ("wild", "assumption broken: errors are normal")):
        (tmp_path / name).mkdir()
        study(name, note).to_csv(tmp_path / name / "recovered.csv", index=False)
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| calm | 50 | 0.88 / 0.94 |" in said
    assert "| 0.91 / 0.96 |" in said
    assert "| 0.72 |" in said
    assert "| calm | 50 | **0.50** / 0.94 |" in said  # of the classical estimator
    assert "| calm | 0.123 / 0.25 | 0.5 / – | 0.75 / – | 0.04, 0.06 |" in said
    assert "| wild * |" in said
    assert "* breaks an assumption: wild (errors are normal)" in said


def test_nothing_is_marked_where_every_assumption_holds(tmp_path, capsys):
    study("calm").to_csv(tmp_path / "recovered.csv", index=False)
    assert main([str(tmp_path)]) == 0
    assert "breaks an assumption" not in capsys.readouterr().out


def test_the_figure_is_drawn_where_it_is_asked_for(tmp_path, capsys):
    study("calm").to_csv(tmp_path / "recovered.csv", index=False)
    assert main([str(tmp_path), "--figure", str(tmp_path / "all.png")]) == 0
    capsys.readouterr()
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("root", ["", "absent"])
def test_a_folder_without_studies_is_refused(root, tmp_path, capsys):
    assert main([str(tmp_path / root)]) == 2
    assert "python -m src.recover" in capsys.readouterr().err


def test_what_the_oracle_says_stands_below(tmp_path, capsys):
    study("calm").to_csv(tmp_path / "recovered.csv", index=False)
    numbers = [0.011, 0.004, 1.05, 0.02, 0.95, 0.94, 0.01]
    pd.DataFrame([["calm", "pooled", 50, *numbers]], columns=AGAINST).to_csv(tmp_path / "oracle.csv", index=False)
    assert main([str(tmp_path)]) == 0
    assert "| calm | 50 | pooled | +0.011 ± 0.004 | 1.05 ± 0.02 | 0.950 | 0.940 ± 0.010 |" in capsys.readouterr().out
