"""What is printed is what was meant: labels as they are, one twin beside each effect, nothing that was not found."""

from dataclasses import replace

import pytest

from src import collect, terminal
from src.design import build_design
from tests.test_figure import (
    ATT,
    BY,
    CONTRAST,
    EVENTS,
    EVERYTHING,
    OWNERS,
    beside_of,
    comparison_of,
    fixed_by_the_model,
    table_of,
)
from tests.worlds import staggered

MARKUP = ["[bold]x[/bold]", "[/]", "[red]", ":smile:", "a\\", "[link=a]y[/link]"]
ERRORS = {"rho": 0.6, "nu": 3.0, "shocks": {}, "passes": 7, "settled": True}
DIAGNOSTICS = {"problems": [], "seconds": {"total": 1.0}, "nuisance": ERRORS}


def printed(table, comparison, capsys) -> str:
    terminal.console().print(terminal.subgroups(table, comparison))
    return capsys.readouterr().out


def twins(said: str) -> list[str]:
    """The last word of each row about adopters."""
    return [line.split()[-1] for line in said.splitlines() if line.strip().startswith("att")]


@pytest.mark.parametrize("word", MARKUP)
def test_labels_are_printed_as_they_are(word, capsys):
    table = table_of([ATT, ("att_by", "[b]group[/b]", word, 0.3, 0.2, 9)])
    assert f"att_by [b]group[/b] {word} " in printed(table, comparison_of(table), capsys)


@pytest.mark.parametrize("word", MARKUP)
def test_opening_prints_names_and_notes_as_they_are(word, capsys):
    terminal.opening(build_design(replace(staggered(), name=word), {})[0], [f"group {word} dropped"])
    said = capsys.readouterr().out
    assert said.startswith(f"{word}: ")
    assert f"  · group {word} dropped" in said


@pytest.mark.parametrize("word", [word for word in MARKUP if "/" not in word])
def test_closing_prints_problems_and_paths_as_they_are(word, capsys, tmp_path):
    (tmp_path / word / "figures").mkdir(parents=True)
    table = table_of([ATT])
    problems = [f"the chains disagree about {word} and [/]"]
    terminal.closing(table, beside_of(table), DIAGNOSTICS | {"problems": problems}, tmp_path / word)
    said = capsys.readouterr().out
    assert f"warning: {problems[0]}" in said
    assert str(tmp_path / word / "figures") in said
    terminal.reused(tmp_path / word)
    assert word in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("word", MARKUP)
def test_collect_prints_names_as_they_are(word, capsys):
    table = table_of([ATT]).assign(data=word, model=word, run_id=word, ok=True)
    terminal.console().print(collect.main_effects(table))
    assert capsys.readouterr().out.count(word) == 3


def test_the_closest_twin_stands_beside_each_effect(capsys):
    table = table_of(EVERYTHING)
    assert twins(printed(table, comparison_of(table), capsys))[0] == "twfe_exposures"
    without = table_of([ATT, *BY])
    assert twins(printed(without, comparison_of(without), capsys)) == ["etwfe", *["twfe"] * len(BY)]


def test_what_the_model_fixes_is_counted_and_not_printed(capsys):
    table = fixed_by_the_model(table_of([ATT, *BY, *OWNERS, CONTRAST, *EVENTS]))
    said = printed(table, comparison_of(table), capsys)
    n = len([*BY, *OWNERS, CONTRAST, *EVENTS])
    assert f"{n} estimates are fixed by the model, not found: see estimands.csv" in said
    assert "att_by" not in said
    assert "contrast" not in said
    assert "fixed by the model" not in printed(table_of(EVERYTHING), comparison_of(table_of(EVERYTHING)), capsys)


def test_smaller_levels_and_what_is_fixed_are_both_said(capsys):
    many = [("att_by", "industry", f"C{k}", 0.1, 0.3, k + 1) for k in range(30)]
    table = table_of([ATT, *many, CONTRAST])
    table.loc[table["estimand"] == "contrast", "sd"] = 0.0
    said = printed(table, comparison_of(table), capsys)
    assert "6 smaller levels in estimands.csv" in said
    assert "1 estimate is fixed by the model" in said


def test_intervals_bear_their_mass(capsys):
    table = table_of([ATT]).assign(prob=0.955)
    assert "95.5% interval" in printed(table, comparison_of(table), capsys)


def test_what_errors_may_not_do_is_a_warning(capsys, tmp_path):
    table = table_of([ATT])
    said = []
    for errors in (ERRORS, ERRORS | {"rho": 0.0, "nu": None}):
        terminal.closing(table, beside_of(table), DIAGNOSTICS | {"nuisance": errors}, tmp_path)
        said.append(" ".join(capsys.readouterr().out.split()))
    assert "errors: autocorrelation 0.60 within units; an error scale for every unit" in said[0]
    assert "too narrow (likelihood" not in said[0]
    assert "too narrow (likelihood.serial=ar1)" in said[1]
    assert "too narrow (likelihood.scale=unit)" in said[1]
