"""Figures from small tables made by hand."""

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, image
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from src import figure, fonts
from src.estimand import COLUMNS
from src.frequentist import COLUMNS as COMPARED
from src.scrutiny import Scrutiny

ALL = ["subgroups", "event_study", "spillovers", "trace"]
ATT = ("att", None, None, 0.4, 0.1, 60)
BY = [("att_by", "industry", f"C{k}", 0.3 + 0.02 * k, 0.2 + 0.01 * k, 20 - k) for k in range(8)]
OWNERS = [("att_by", "ownership", level, mean, 0.15, 30) for level, mean in (("private", 0.5), ("state", 0.2))]
CONTRAST = ("contrast", "ownership", "private - state", 0.3, 0.2, 60)
EVENTS = [("att_event", None, str(e), 0.1 * (e + 1), 0.1, 60 - 5 * e) for e in range(11)]
SPILLS = [
    *[("spill_per_pp", name, arm, 0.01, 0.005, 300) for name in ("district", "industry") for arm in figure.ARMS],
    *[(name, None, None, 0.4, 0.2, 60) for name in figure.MEANING],
]
EVERYTHING = [ATT, *BY, *OWNERS, CONTRAST, *EVENTS, *SPILLS]


def table_of(keys: list[tuple], is_log: bool = True, truth: bool = True) -> pd.DataFrame:
    """The table `estimands.csv` with a row for each (estimand, group, level, mean, half width, units) and scale."""
    rows = []
    for estimand, group, level, mean, half, units in keys:
        for scale in ("outcome", "percent") if is_log else ("outcome",):
            numbers = np.array([mean, mean - half, mean + half, mean - 0.05 if truth else np.nan])
            middle, low, high, known = 100 * np.expm1(numbers) if scale == "percent" else numbers
            note = "not identified: no unit here is observed before adoption" if np.isnan(mean) else None
            rows.append(
                dict.fromkeys(COLUMNS, 1.0)
                | {"estimand": estimand, "group": group, "level": level, "scale": scale, "mean": middle, "low": low}
                | {"high": high, "prob": 0.9, "p_positive": 0.98, "n_units": units, "n_obs": 7 * units}
                | {"truth": known, "note": note}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def fixed_by_the_model(table: pd.DataFrame) -> pd.DataFrame:
    """The table as model pooled leaves it: one effect in every level and period, contrasts that are zero."""
    same = table["estimand"].isin(["att_by", "att_event"])
    contrast = table["estimand"] == "contrast"
    table.loc[same, "note"] = "fixed by the model: one effect for all"
    table.loc[contrast, ["sd", "mean", "low", "high"]] = 0.0
    return table


def comparison_of(table: pd.DataFrame) -> pd.DataFrame:
    """The table `comparison.csv`: the model's rows and wider classical ones."""
    rename = {"mean": "estimate", "sd": "se"}
    parts = [table.rename(columns=rename).assign(estimator="hier")]
    at_exposure = ["att", "att_by", "contrast", "spill_per_pp", *figure.MEANING]
    for estimator, kinds in {
        "twfe": ["att", "att_by", "contrast"],
        "twfe_exposures": at_exposure if (table["estimand"] == "spill_per_pp").any() else [],
        "etwfe": ["att", "att_event"],
    }.items():
        mine = table[table["estimand"].isin(kinds)].rename(columns=rename)
        wider = {end: mine["estimate"] + 1.5 * (mine[end] - mine["estimate"]) for end in ("low", "high")}
        parts.append(mine.assign(estimator=estimator, note=f"{estimator} note", **wider))
    return pd.concat([part[COMPARED] for part in parts if len(part)], ignore_index=True)


def beside_of(table: pd.DataFrame, **said: list[str]) -> Scrutiny:
    """What stands beside the model: the comparison, and sentences by subject."""
    return Scrutiny({"comparison": comparison_of(table)}, said)


def tree_of(chains: int = 4, draws: int = 60) -> xr.DataTree:
    """A posterior with scalar parameters, slopes of exposures and a vector."""
    rng = np.random.default_rng(0)
    scalars = {name: (("chain", "draw"), rng.normal(size=(chains, draws))) for name in ("sd_cell", "mu", "sigma")}
    slopes = {name: (("chain", "draw", "exposure"), rng.normal(size=(chains, draws, 2))) for name in ("difference",)}
    coords = {"exposure": ["district", "industry"]}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(scalars | slopes, coords=coords)})
    tree.attrs["config"] = '{"model": {"name": "hier"}}'
    return tree


def results_of(table: pd.DataFrame, comparison: pd.DataFrame | None = None) -> figure.Results:
    return figure.read(tree_of(), table, comparison_of(table) if comparison is None else comparison)


def share_of(colour: str, picture: np.ndarray) -> float:
    """Share of pixels of one colour."""
    return float((np.abs(picture[..., :3] - to_rgb(colour)).max(axis=-1) < 0.02).mean())


def overlapping(drawn: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other, or reach out of the figure."""
    drawn.draw_without_rendering()
    texts = [*drawn.texts, *drawn.legends[0].get_texts()]
    for axis in drawn.axes:
        texts += [t for t in [*axis.get_children(), axis.xaxis.label, axis.yaxis.label] if isinstance(t, Text)]
        for line in (axis.xaxis, axis.yaxis):
            low, high = sorted(line.get_view_interval())
            within = [low <= at <= high for at in line.get_majorticklocs()]
            texts += [t for t, shown in zip(line.get_majorticklabels(), within, strict=False) if shown]
    texts = [t for t in texts if t.get_text() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    within = drawn.bbox.padded(1)
    out = [(text, "edge") for text, b in boxes if not (within.contains(b.x0, b.y0) and within.contains(b.x1, b.y1))]
    return out + [
        (a, b) for (a, box), (b, other) in combinations(boxes, 2) if box.padded(-1).overlaps(other.padded(-1))
    ]


@pytest.mark.parametrize(
    ("keys", "is_log", "drawn"),
    [
        (EVERYTHING, True, ALL),
        ([ATT, *EVENTS], False, ["event_study", "trace"]),
        ([ATT, *BY, *EVENTS], False, ["subgroups", "event_study", "trace"]),
        ([ATT, EVENTS[0]], True, ["event_study", "trace"]),
        ([ATT, *BY[:2], ("att_by", "industry", "Z", np.nan, np.nan, 3)], True, ["subgroups", "trace"]),
    ],
    ids=["everything", "no groups", "no exposures", "one event time", "not identified"],
)
def test_pictures_show_the_model_beside_its_twin(tmp_path, keys, is_log, drawn):
    table = table_of(keys, is_log, truth=is_log)
    paths, notes = figure.draw_all(tmp_path / "figures", tree_of(), table, comparison_of(table))
    assert notes == []
    assert [path.stem for path in paths] == drawn
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(f"{name}.png" for name in drawn)
    for path in paths[:-1]:
        picture = image.imread(path)
        assert picture.shape[1] == figure.WIDTH * figure.DPI
        assert min(share_of(figure.MODEL, picture), share_of(figure.CLASSICAL, picture)) > 1e-4


def test_pictures_of_an_earlier_run_go_and_nothing_else(tmp_path):
    for name in ("spillovers.png", "trace.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"of an earlier run")
    figure.clear(tmp_path, [tmp_path / "trace.png"])
    assert {path.name for path in tmp_path.iterdir()} == {"trace.png", "notes.txt"}
    (tmp_path / "notes.txt").unlink()
    figure.clear(tmp_path, [])
    assert not tmp_path.exists()
    figure.clear(tmp_path, [])


def test_a_killed_picture_leaves_nothing(tmp_path, monkeypatch):
    def killed(self, path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", killed)
    with pytest.raises(KeyboardInterrupt):
        figure.draw_all(tmp_path, tree_of(), table_of([ATT]), comparison_of(table_of([ATT])))
    assert list(tmp_path.iterdir()) == []


def test_without_estimates_only_the_chains_are_drawn(tmp_path):
    table = table_of([(estimand, group, level, np.nan, np.nan, n) for estimand, group, level, _, _, n in EVERYTHING])
    assert [path.stem for path in figure.draw_all(tmp_path, tree_of(), table, comparison_of(table))[0]] == ["trace"]


def test_what_the_model_fixes_is_not_drawn_as_if_found(tmp_path):
    table = fixed_by_the_model(table_of([ATT, *BY, *OWNERS, CONTRAST, *EVENTS, *SPILLS]))
    paths, _ = figure.draw_all(tmp_path, tree_of(), table, comparison_of(table))
    assert [path.stem for path in paths] == ["spillovers", "trace"]


def test_without_classical_estimators():
    table = table_of(EVERYTHING)
    results = results_of(table, comparison_of(table).query("estimator == 'hier'"))
    for drawn in (figure.subgroups(results), figure.event_study(results), figure.spillovers(results)):
        drawn.draw_without_rendering()
        legend = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert legend == ["model (hier)", "truth (generated data)"]


CHINESE = table_of([ATT, *[("att_by", "行业", level, 0.3, 0.2, 9) for level in ("$x^$", "制造业", "a_{", "x" * 90)]])


def only(*fonts: font_manager.FontEntry) -> list[font_manager.FontEntry]:
    """The fonts that matplotlib brings, and these."""
    brought = matplotlib.get_data_path()
    return [font for font in font_manager.fontManager.ttflist if str(font.fname).startswith(brought)] + list(fonts)


def square_font(path: Path, letters: str) -> font_manager.FontEntry:
    """A font of one weight that draws each of these letters, and no other, as a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, names = pen.glyph(), {ord(letter): f"letter{ord(letter)}" for letter in letters}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names.values()])
    font.setupCharacterMap(names)
    font.setupGlyf(dict.fromkeys([".notdef", *names.values()], square))
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return font_manager.FontEntry(fname=str(path), name="Squares", weight=500)


def test_letters_without_a_font_are_said_once_and_nothing_leaks(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", only())
    paths, notes = figure.draw_all(tmp_path, tree_of(), CHINESE, comparison_of(CHINESE))
    assert [path.stem for path in paths] == ["subgroups", "trace"]
    assert notes == ["figures lack a font for 业, 制, 行 and 1 more: install one that has them, such as Noto Sans CJK"]
    assert caplog.records == []


def test_a_font_that_has_the_letters_is_found_and_used(tmp_path, monkeypatch, caplog):
    found = square_font(tmp_path / "squares.ttf", "业制行造")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", only(found))
    assert fonts.fonts_for({"a", "造", "业"}) == (["DejaVu Sans", "Squares"], set())
    assert fonts.fonts_for({"a", "é"}) == (["DejaVu Sans"], set())
    assert fonts.fonts_for({"造", "한"}) == (["DejaVu Sans", "Squares"], {"한"})
    _, notes = figure.draw_all(tmp_path / "figures", tree_of(), CHINESE, comparison_of(CHINESE))
    assert notes == []
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["subgroups", "event_study", "spillovers"])
def test_no_text_lies_on_another(kind):
    name = "a long name of a way to tell industries apart"
    many = [("att_by", name, f"industry number {k} of all the industries", 0.01 * k, 0.3, k + 1) for k in range(80)]
    lost = ("att_by", name, "lost", np.nan, np.nan, 9)
    places = [("spill_per_pp", f"{name} {k}", arm, 0.01, 0.005, 300) for k in range(30) for arm in figure.ARMS]
    table = table_of([ATT, *many, lost, *OWNERS, *EVENTS, *places, *SPILLS])
    with matplotlib.rc_context(figure.STYLE):
        drawn = getattr(figure, kind)(results_of(table))
        assert overlapping(drawn) == []


def test_chains_without_overlap_and_at_most_ten_parameters():
    names = {f"sd_{k}": (("chain", "draw"), np.random.default_rng(k).normal(size=(2, 30))) for k in range(14)}
    with matplotlib.rc_context(figure.STYLE):
        drawn = figure.chains(xr.DataTree.from_dict({"posterior": xr.Dataset(names)}))
        assert overlapping(drawn) == []
    assert len(drawn.axes) == 2 * figure.MOST_PARAMETERS


def test_the_largest_levels_are_shown_most_rows_first():
    many = [("att_by", "industry", f"C{k}", 0.1, 0.3, k + 1) for k in range(80)]
    drawn = figure.subgroups(results_of(table_of([ATT, *many, ("att_by", "industry", "none", np.nan, np.nan, 99)])))
    axis = drawn.axes[0]
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels == [f"C{k} ({k + 1})" for k in range(79, 49, -1)]
    title = (axis.get_title("left") + axis.get_title()).replace("\n", " ")
    assert title == "by industry: the 30 largest of 80 levels, 1 not identified and left out"


def test_an_enormous_interval_ends_in_an_arrow_and_squashes_nothing():
    table = table_of([ATT, *BY], is_log=False, truth=False)
    comparison = comparison_of(table)
    theirs = (comparison["estimator"] == "twfe") & (comparison["level"] == "C3")
    comparison.loc[theirs, ["estimate", "low", "high"]] = [5e5, -np.inf, 1e6]
    drawn = figure.subgroups(results_of(table, comparison))
    low, high = drawn.axes[0].get_xlim()
    assert -2 < low < 0 < high < 2
    arrows = [line for line in drawn.axes[0].lines if line.get_marker() in "<>"]
    assert [(line.get_marker(), list(line.get_xdata())) for line in arrows] == [("<", [low]), (">", [high])]
    assert "Arrows" in drawn.texts[1].get_text()


def test_subgroups_stand_beside_the_estimator_that_knows_the_exposures():
    drawn = figure.subgroups(results_of(table_of(EVERYTHING)))
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {
        "model (hier)",
        "unpooled (one interaction a level, twfe_exposures)",
        "pooled (twfe_exposures)",
        "truth (generated data)",
    }


def test_of_many_exposures_the_first_are_drawn():
    many = [("spill_per_pp", f"place {k}", arm, 0.01, 0.005, 300) for k in range(30) for arm in figure.ARMS]
    drawn = figure.spillovers(results_of(table_of([ATT, *many, *SPILLS])))
    assert len(drawn.axes[0].get_yticklabels()) == 3 * figure.MOST_EXPOSURES
    assert "The first 10 of 32 exposures." in drawn.texts[1].get_text().replace("\n", " ")
    assert drawn.get_figheight() < 25


def test_one_period_does_not_fill_the_page():
    drawn = figure.event_study(results_of(table_of([ATT, EVENTS[0]])))
    drawn.draw_without_rendering()
    low, high = drawn.axes[0].get_xlim()
    assert high - low > 4
    assert list(drawn.axes[1].get_xticks()) == [0]


def test_top_level_parameters_begin_with_mean_scale_and_slopes():
    found = figure.top_level(tree_of()["posterior"].to_dataset())
    assert list(found) == ["mu", "sigma", "difference[district]", "difference[industry]", "sd_cell"]
    assert all(draws.shape == (4, 60) for draws in found.values())
