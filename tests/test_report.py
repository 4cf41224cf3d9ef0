"""The page from small tables made by hand."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from src import figure, report
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
    tree_of,
)
from tests.worlds import staggered

NUISANCE = {
    **{"s": 0.51, "rho": 0.6, "nu": 3.1, "scale_never": 0.4, "scale_ever": 0.5, "passes": 7, "settled": True},
    "shocks": {"district": {"sd": 0.12, "phi": 0.44, "cells": 560}},
}
DIAGNOSTICS = {
    **{"ok": True, "problems": [], "rhat_max": 1.003, "ess_bulk_min": 900.0, "ess_tail_min": 800.0},
    **{"parameter_rhat_max": 1.004, "divergences": 0, "cut_short": 0.0, "bfmi_min": 0.8, "peak_memory_mb": 700.0},
    **{"nuisance": NUISANCE, "notes": ["3 rows without outcome dropped"]},
}
ORIGIN = report.Origin(
    "python -m src.fit data=toy", "abc123", "0.1", [("seed", "1")], "traces/toy", True, False, "weak"
)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags that are open, and addresses that something would be fetched from."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(keys=EVERYTHING, pictures=(), is_log=True, **changes) -> str:
    table = table_of(keys, is_log)
    panel = staggered(units=30)
    return report.render(
        "toy",
        "hier",
        build_design(panel, {})[0],
        table,
        beside_of(table),
        DIAGNOSTICS | changes,
        list(pictures),
        ORIGIN,
    )


def text_of(page: str) -> str:
    """What a reader sees, spaces collapsed."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_the_average_effect_is_said_in_numbers_on_both_scales():
    low, mean, high = 100 * np.expm1([0.3, 0.4, 0.5])
    said = f"changed the outcome by {mean:+.1f}% (90% interval {low:+.1f}% to {high:+.1f}%)"
    page = text_of(page_of())
    assert said in page
    assert "Probability that this average is positive, given model and data: 98.0%." in page
    assert "changed the outcome by +0.400 (90% interval +0.300 to +0.500)." in text_of(page_of([ATT], is_log=False))


def test_nothing_is_claimed_of_a_sign_that_the_interval_leaves_open():
    assert "leave the sign open" in text_of(page_of([("att", None, None, 0.1, 0.2, 60)]))
    assert "leave the sign open" not in text_of(page_of([ATT]))
    alike = [ATT, *OWNERS, ("contrast", "ownership", "private - state", 0.1, 0.2, 60)]
    assert "not told apart from zero" in text_of(page_of(alike))
    assert "not told apart from zero" not in text_of(page_of([ATT, *OWNERS, CONTRAST]))


def test_problems_come_before_the_answers():
    page = text_of(page_of(problems=["the chains disagree about att"], ok=False))
    assert page.index("the chains disagree about att") < page.index("Answers")
    assert "checks passed" not in page
    assert text_of(page_of()).index("The sampler's checks passed".replace("'", "&#39;")) < page.index("Answers")


def test_text_of_the_user_is_escaped():
    strange = [("att_by", "<i>group</i>", level, 0.3, 0.2, 9) for level in ("<b>bold</b>", '"&')]
    page = page_of([ATT, *strange], notes=["<script>alert(1)</script>"], problems=["<u>x</u>"])
    assert not {"i", "b", "script", "u"} & set(Page(page).seen)
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("keys", [EVERYTHING, [ATT]])
def test_tags_close_and_nothing_is_fetched(tmp_path, keys):
    table = table_of(keys)
    pictures, _ = figure.draw_all(tmp_path, tree_of(), table, comparison_of(table))
    page = page_of(keys, pictures)
    parsed = Page(page)
    assert parsed.open == []
    fetched = [address for address in parsed.addresses if not address.startswith("#")]
    assert len(fetched) == len(pictures)
    assert all(address.startswith("data:image/png;base64,iVBOR") for address in fetched)
    assert not re.search(r"https?:|@import|url\(|<script", page)


def test_what_is_not_identified_is_said_and_not_numbered():
    lost = ("att_by", "industry", "Z", np.nan, np.nan, 3)
    page = text_of(page_of([ATT, *BY, lost]))
    assert "1 of 10 estimates are not identified" in page
    assert "not identified: no unit here is observed before adoption" in page
    assert "nan" not in page.lower()
    nothing = text_of(page_of([("att", None, None, np.nan, np.nan, 60), lost]))
    assert "The average effect cannot be had from these data: not identified" in nothing


def test_what_the_model_fixes_is_counted_and_not_shown():
    table = fixed_by_the_model(table_of([ATT, *BY, *OWNERS, CONTRAST, *EVENTS]))
    page = text_of(
        report.render(
            "toy", "pooled", build_design(staggered(units=30), {})[0], table, beside_of(table), DIAGNOSTICS, [], ORIGIN
        )
    )
    n = len([*BY, *OWNERS, CONTRAST, *EVENTS])
    assert f"{n} estimates are fixed by the model, not found: see estimands.csv." in page
    for words in ("On adopters, by industry", "private", "Differences between levels", "periods since adoption"):
        assert words not in page
    assert "own adoption, on adopters (att)" in page
    assert "fixed by the model" not in text_of(page_of())


def test_spillovers_are_modelled_or_their_absence_is_assumed():
    assert "nobody&#39;s outcome may depend on others&#39; adoption" in text_of(page_of([ATT]))
    page = text_of(page_of())
    assert "One percentage point more exposure by district means, on the untreated +1.01%" in page
    assert "at zero exposure" in page


def test_errors_data_and_diagnostics_are_told():
    page = text_of(page_of())
    assert "autocorrelation 0.60 within units; an error scale for every unit" in page
    assert "shocks by period to each district (SD 0.12, autocorrelation 0.44)" in page
    assert "Errors are taken as independent" not in page
    assert "shocks to district, sd (nuisance) 0.12" in page
    assert "3 rows without outcome dropped" in page
    assert "units 30 periods 8, from 1 to 8" in page
    assert "s (nuisance) 0.51" in page
    assert "Nothing: every row" in text_of(page_of(notes=[]))


@pytest.mark.parametrize(
    ("width", "places"), [(96.0, 1), (300.0, 0), (1.02, 2), (0.2, 3), (1e-9, 4), (0.0, 2), (np.inf, 2), (np.nan, 2)]
)
def test_decimals_follow_the_interval(width, places):
    assert report.decimals(width) == places


def test_numbers_and_probabilities_stay_readable():
    assert report.number(1234.56, 1) == "1,234.6"
    assert report.number(-0.04, 1) == "0.0"
    assert report.number(-3.2e9, 2, signed=True) == "-3e+09"
    assert report.number(np.nan, 1) == report.ABSENT
    assert [report.probability(p) for p in (1.0, 0.0, 0.5)] == ["> 99.9%", "< 0.1%", "50.0%"]


def test_the_worst_news_comes_first():
    """What the sampler did wrong, then what weakens the numbers, then the answer, then that all is well."""
    page = page_of(problems=["the chains disagree"], nuisance=NUISANCE | {"settled": False})
    places = [page.index(words) for words in ("the chains disagree", "Read with care", 'class="short"', 'id="answers"')]
    assert places == sorted(places)
    assert "checks passed" not in page
    sound = page_of()
    assert sound.index('class="short"') < sound.index("checks passed") < sound.index('id="answers"')


@pytest.mark.parametrize(
    ("alone", "events", "asked"),
    [
        (True, False, ["prior", "calibrate", "loo", "export", "report"]),
        (True, True, ["prior", "calibrate", "export", "report"]),
        (False, False, ["calibrate", "export", "report"]),
    ],
)
def test_what_else_can_be_asked(alone, events, asked):
    again = replace(ORIGIN, command=f"{ORIGIN.command} refit=true")
    found = list(report.questions(replace(again, alone=alone, events=events)))
    assert [command.split()[2] for command, _ in found] == [f"src.{name}" for name in asked]
    assert all(command.endswith((" data=toy", " traces/toy")) for command, _ in found)
    assert all(command in page_of() for command, _ in found)
    (study,) = (command for command, _ in found if "calibrate" in command)
    assert " prior=weak " in study  # src.calibrate would take another
    given = replace(again, command=f"{ORIGIN.command} prior=wide")
    assert [command for command, _ in report.questions(given) if "prior=weak" in command] == []
