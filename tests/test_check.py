"""The description of a panel names its true counts."""

import sys

import numpy as np
import pandas as pd
import pytest

from src.check import check, describe, describe_zeros
from src.command import command
from src.config import DataConfig
from src.encode import encode


def tiny(levels: int = 3, per_level: int = 2) -> pd.DataFrame:
    """In each level the first unit adopts in 2002, the others never; years 2000-2003."""
    frame = pd.MultiIndex.from_product(
        [range(levels), range(per_level), range(2000, 2004)], names=["ind", "k", "year"]
    ).to_frame(index=False)
    frame["firm"] = frame["ind"] * per_level + frame["k"]
    frame["first"] = np.where(frame["k"] == 0, 2002, 0)
    frame["w"] = frame["year"] - 1999
    frame["y"] = np.random.default_rng(0).normal(size=len(frame))
    return frame


def described(frame: pd.DataFrame, exposures=None, **changes) -> str:
    data = DataConfig(name="tiny", unit="firm", time="year", cohort="first", outcome="y", **changes)
    panel = encode(frame, data, "0")
    return describe(panel, {name: share(panel) for name, share in (exposures or {}).items()})


def test_counts_of_a_balanced_panel():
    text = described(tiny(), groups={"industry": "ind"})
    for line in [
        "Panel tiny: 6 units, 4 periods (2000 to 2003), 24 rows",
        "100.0% of unit-periods present; 6 units in every period, 0 with gaps, 0 with a single row",
        "Adoption: 3 treated units, 6 treated rows (25.0%)",
        "      2002       3             6",
        "     never       3             0",
        "Group industry: 3 levels; treated units a level: median 1, 3 with one, 0 without",
        "  0                2        1",
    ]:
        assert line in text, text
    assert "Handled" not in text
    assert "Weights" not in text
    assert "Exposures" not in text


def test_gaps_notes_and_units_outside():
    frame = tiny()
    frame.loc[frame["firm"] == 0, "first"] = 2000
    frame.loc[5, "y"] = np.nan  # firm 1 in 2001
    text = described(frame)
    for line in [
        "5 units, 4 periods (2000 to 2003), 19 rows",
        "95.0% of unit-periods present; 4 units in every period, 1 with gaps",
        "1 unit of the file without a row here",
        "Handled\n  1 row dropped (y missing: 1)\n  1 always-treated unit (4 rows) dropped",
    ]:
        assert line in text, text


def test_exposures_among_untreated_and_treated_rows():
    text = described(tiny(), exposures={"county": lambda panel: np.where(panel.treated, 0.25, panel.time == 2003)})
    untreated, treated = (line.split() for line in text.splitlines() if line.startswith("  county"))
    #                       rows    mean      sd        25%       50%       75%       max       zero
    assert untreated[2:] == ["18", "0.1667", "0.3727", "0.0000", "0.0000", "0.0000", "1.0000", "83.3%"]
    assert treated[2:] == ["6", "0.2500", "0.0000", "0.2500", "0.2500", "0.2500", "0.2500", "0.0%"]


def test_weights_and_their_effective_rows():
    w = np.tile([1, 2, 3, 4], 6)
    effective = w.sum() ** 2 / (w**2).sum()
    assert f"Weights: from 0.4 to 1.6 (mean 1), sd 0.447; as good as {effective:,.0f} of 24 rows" in described(
        tiny(), weights="w"
    )


@pytest.mark.parametrize("levels", [11, 300])
def test_many_levels_are_cut_in_the_middle(levels):
    frame = tiny(levels, 3)
    frame.loc[(frame["ind"] == 7) & (frame["k"] == 1), "first"] = 2002  # the level with most adopters
    frame.loc[frame["ind"] == 9, "first"] = 0  # the level without
    text = described(frame, groups={"industry": "ind"})
    assert f"{levels} levels; treated units a level: median 1, {levels - 2} with one, 1 without" in text
    shown = text.split("treated\n", 1)[1].splitlines()
    assert shown[0].split() == ["7", "3", "2"]
    assert ("levels between" in text) == (levels > 11)
    assert len(shown) == (10 if levels == 11 else 11)


def test_long_labels_and_line_breaks_stay_on_one_short_line():
    frame = tiny().assign(ind=lambda f: f["ind"].map({0: "a\nb", 1: "x" * 300, 2: "c"}))
    shown = described(frame, groups={"industry": "ind"}).split("treated\n", 1)[1].splitlines()
    assert [line.split()[:-2] for line in shown] == [["a", "b"], ["c"], ["x" * 39 + "…"]]


def test_what_fit_refuses_before_sampling_is_refused_here_too(monkeypatch, tmp_path, capsys):
    tiny().assign(x=lambda f: (f["year"] >= f["first"]) & (f["first"] > 0)).to_csv(tmp_path / "p.csv", index=False)
    given = ["data=csv", "data.path=p.csv", "data.unit=firm", "data.time=year", "data.cohort=first", "data.outcome=y"]
    monkeypatch.chdir(tmp_path)
    for covariates, code in (("[]", 0), ("[x]", 2)):
        monkeypatch.setattr(sys, "argv", ["check", *given, f"data.covariates={covariates}"])
        with pytest.raises(SystemExit) as stopped:
            command(check, writes=False)
        assert stopped.value.code == code
    assert "adoption is explained" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(("transform", "function"), [("log1p", np.log1p), ("asinh", np.arcsinh)])
def test_many_zeros_and_the_unit_of_y(transform, function):
    frame = tiny(levels=20)
    rng = np.random.default_rng(1)
    frame["y"] = rng.poisson(np.where((frame["k"] == 0) & (frame["year"] >= 2002), 1.5, 0.5))
    data = DataConfig(name="tiny", unit="firm", time="year", cohort="first", outcome="y", transform=transform)
    panel = encode(frame, data, "0")
    text = describe_zeros(panel, transform)
    assert f"{(frame['y'] == 0).mean():.0%} of the outcomes are 0" in text
    for k in (1, 10, 100):  # balanced, one cohort: the two-way estimate is a difference of differences of means
        mean = function(k * frame["y"]).groupby([frame["k"] == 0, frame["year"] >= 2002]).mean()
        effect = mean[True, True] - mean[True, False] - mean[False, True] + mean[False, False]
        assert f"{effect:.3f} with {'y as it is' if k == 1 else f'y x {k}'}" in text
    assert "likelihood=poisson_lognormal" in text


def test_few_zeros_are_nothing_to_say():
    frame = tiny()
    frame["y"] = np.arange(len(frame)) ** 1.5
    data = DataConfig(name="tiny", unit="firm", time="year", cohort="first", outcome="y", transform="log1p")
    assert describe_zeros(encode(frame, data, "0"), "log1p") == ""
    assert describe_zeros(encode(frame, data, "0"), "none") == ""
