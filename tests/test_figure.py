"""Figures from small tables made by hand."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import image
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from src import figure
from src.estimand import COLUMNS
from src.frequentist import COLUMNS as COMPARED

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
    paths = figure.draw_all(tmp_path / "figures", tree_of(), table, comparison_of(table))
    assert [path.stem for path in paths] == drawn
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(f"{name}.png" for name in drawn)
    for path in paths[:-1]:
        picture = image.imread(path)
        assert picture.shape[1] == figure.WIDTH * figure.DPI
        assert min(share_of(figure.MODEL, picture), share_of(figure.CLASSICAL, picture)) > 1e-4


def test_a_picture_without_estimates_is_removed(tmp_path):
    (tmp_path / "spillovers.png").write_bytes(b"of an earlier run")
    table = table_of([ATT])
    figure.draw_all(tmp_path, tree_of(), table, comparison_of(table))
    assert not (tmp_path / "spillovers.png").exists()


def test_without_estimates_only_the_chains_are_drawn(tmp_path):
    table = table_of([(estimand, group, level, np.nan, np.nan, n) for estimand, group, level, _, _, n in EVERYTHING])
    assert [path.stem for path in figure.draw_all(tmp_path, tree_of(), table, comparison_of(table))] == ["trace"]


def test_without_classical_estimators():
    table = table_of(EVERYTHING)
    results = results_of(table, comparison_of(table).query("estimator == 'hier'"))
    for drawn in (figure.subgroups(results), figure.event_study(results), figure.spillovers(results)):
        drawn.draw_without_rendering()
        legend = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert legend == ["model (hier)", "truth (generated data)"]


def test_labels_that_look_like_mathematics_or_are_chinese(tmp_path):
    rows = [("att_by", "行业", level, 0.3, 0.2, 9) for level in ("$x^$", "制造业", "a_{", "x" * 90)]
    table = table_of([ATT, *rows])
    assert figure.draw_all(tmp_path, tree_of(), table, comparison_of(table))[0].stem == "subgroups"


@pytest.mark.parametrize("kind", ["subgroups", "event_study", "spillovers"])
def test_no_text_lies_on_another(kind):
    many = [("att_by", "industry", f"industry number {k} of all", 0.01 * k, 0.3, k + 1) for k in range(80)]
    table = table_of([ATT, *many, *OWNERS, *EVENTS, *SPILLS])
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
    assert axis.get_title("left") + axis.get_title() == (
        "by industry: the 30 largest of 80 levels, 1 not identified and left out"
    )


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
        "unpooled (TWFE, one interaction a level, twfe_exposures)",
        "pooled (TWFE, twfe_exposures)",
        "truth (generated data)",
    }


def test_top_level_parameters_begin_with_mean_scale_and_slopes():
    found = figure.top_level(tree_of()["posterior"].to_dataset())
    assert list(found) == ["mu", "sigma", "difference[district]", "difference[industry]", "sd_cell"]
    assert all(draws.shape == (4, 60) for draws in found.values())
