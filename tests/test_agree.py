"""Agreement by hand, and words that claim no more than the numbers."""

import numpy as np
import pandas as pd

from src import agree
from src.frequentist import COLUMNS


def rows(*several) -> pd.DataFrame:
    """Rows of comparison.csv: estimator, estimand, group, level, estimate, se, low, high, note."""
    keys = ("estimator", "estimand", "group", "level", "estimate", "se", "low", "high", "note")
    frame = pd.DataFrame([dict(zip(keys, row, strict=True)) for row in several])
    return frame.assign(scale="percent", prob=0.95, n_obs=10)[COLUMNS]


TABLE = rows(
    ("hier", "att", None, None, 10.0, 2.0, 6.0, 14.0, None),
    ("hier_common_scale", "att", None, None, 11.0, 2.0, 6.0, 14.0, None),
    ("twfe", "att", None, None, -2.0, 4.0, -10.0, 6.0, "variance weights of the regression; spillovers are left out"),
    ("cs", "att", None, None, 9.0, 4.0, 1.0, 17.0, None),
    ("cs_uniform", "att", None, None, 9.0, np.nan, -1.0, 19.0, None),
    ("bjs", "att", None, None, np.nan, np.nan, np.nan, np.nan, "could not run"),
    ("hier", "att_by", "industry", "C1", 10.0, 2.0, 6.0, 14.0, None),
    ("twfe", "att_by", "industry", "C1", 20.0, 4.0, 12.0, 28.0, None),
    ("hier", "att_by", "industry", "C2", 9.0, 2.0, 5.0, 13.0, None),
    ("twfe", "att_by", "industry", "C2", 8.0, 8.0, -8.0, 24.0, None),
)


def test_numbers_by_hand():
    found = agree.agreement(TABLE, "hier").set_index(["estimator", "level"])
    assert set(found.index.get_level_values("estimator")) == {"twfe", "cs", "cs_uniform"}
    twfe = found.loc[("twfe", "")]
    assert (twfe["distance"], twfe["width_ratio"], twfe["same_sign"]) == (3.0, 0.5, False)
    assert found.loc[("cs", ""), "distance"] == 0.25
    assert np.isnan(found.loc[("cs_uniform", ""), "distance"])
    assert found.loc[("twfe", "C1"), "distance"] == -2.5
    few = TABLE.assign(note="clustered standard error rests on 2 units and is unreliable")
    assert not agree.agreement(few, "hier")["reliable"].any()
    assert found["reliable"].all()


def test_words_say_what_the_numbers_say():
    said = list(agree.in_words(agree.agreement(TABLE, "hier"), TABLE, "hier"))
    assert said[0] == (
        "Of the average effect there are 2 classical estimates (twfe, cs), of the other sign in twfe. The posterior "
        "mean is +0.2 to +3.0 of their standard errors away; its interval is 0.50 times as wide as theirs (median)."
    )
    assert said[1] == "More than 2 standard errors away: twfe."
    assert "leave spillovers out" in said[2]
    assert "weights of the regression" in said[3]
    assert said[-1].startswith("By industry, against twfe: 1 of 2 levels of five adopters or more lie more than 2")


def test_nothing_is_said_of_an_average_that_nobody_else_has():
    alone = TABLE[TABLE["estimator"] == "hier"]
    assert list(agree.in_words(agree.agreement(alone, "hier"), alone, "hier")) == []
    assert agree.draw(alone, "hier") is None


def test_the_figure_has_a_mark_for_every_estimator():
    labels = {text.get_text() for text in agree.draw(TABLE, "hier").legends[0].get_texts()}
    assert labels == {"hier", "hier_common_scale", "twfe", "cs"}
