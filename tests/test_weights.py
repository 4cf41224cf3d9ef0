"""What the coefficient averages: identities that hold exactly, and what is said of them."""

import numpy as np
import pytest

from src import weights
from src.fit import load
from src.frequentist import twfe
from src.panel import of_rows
from tests.test_command import composed
from tests.test_staggered import of


@pytest.fixture(scope="module")
def mpdta():
    return load(composed("data=mpdta"))[0]


def test_weights_are_those_of_the_residual_of_adoption(mpdta):
    table = weights.cell_weights(mpdta).set_index("cell")
    treated = mpdta.treated.astype(float)
    unit, time = (np.unique(x, return_inverse=True)[1] for x in (mpdta.unit, mpdta.time))
    within = treated - (np.bincount(unit, treated) / np.bincount(unit))[unit]
    left = within - (np.bincount(time, within) / np.bincount(time))[time]  # balanced: one pass is exact
    for cell, row in table.iterrows():
        g, t = map(int, str(cell).split("@"))
        mine = (mpdta.row_cohort == g) & (mpdta.time == t)
        assert row["weight"] == pytest.approx(left[mine].sum() / left[mpdta.treated].sum())
        assert row["share"] == pytest.approx(mine.sum() / mpdta.treated.sum())
    assert table[["weight", "share"]].sum().to_numpy() == pytest.approx([1, 1])
    assert table.loc["2004@2007", "weight"] < 0


def test_comparisons_make_up_the_coefficient(mpdta):
    pairs = weights.comparisons(mpdta)
    assert pairs["weight"].sum() == pytest.approx(1)
    assert pairs["weight"] @ pairs["estimate"] == pytest.approx(of(twfe(mpdta, {}, 0.95)).estimate, abs=1e-9)
    assert set(pairs["kind"]) == set(weights.KINDS)


def test_negative_weights_are_said_where_they_matter():
    cells = weights.pd.DataFrame({"weight": [1.3, -0.3], "share": [0.5, 0.5]})
    pairs = weights.pd.DataFrame({"kind": ["later_vs_earlier", "treated_vs_never"], "weight": [0.4, 0.6]})
    pairs["estimate"] = [-0.1, 0.4]
    said = " ".join(weights.sentences(cells, pairs, 0.2))
    assert "1 of 2 cells of cohort and period negative weight, 30% in all" in said
    assert "differ from those of treated rows by 80%" in said
    assert "40% of it compares later adopters with earlier ones" in said
    fine = weights.pd.DataFrame({"weight": [0.5, 0.5], "share": [0.5, 0.5]})
    assert "negative" not in " ".join(weights.sentences(fine, pairs, 0.2))


def test_comparisons_that_do_not_add_up_are_said(mpdta):
    some = of_rows(mpdta, np.random.default_rng(0).random(len(mpdta.unit)) > 0.2)
    pairs, coefficient = weights.comparisons(some), weights.coefficient(some)
    assert coefficient == pytest.approx(of(twfe(some, {}, 0.95)).estimate)
    assert not weights.adds_up(pairs, coefficient)
    assert "and not to the coefficient" in " ".join(weights.sentences(weights.cell_weights(some), pairs, coefficient))
