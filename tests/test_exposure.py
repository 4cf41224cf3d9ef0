"""Leave-one-out shares against a double loop."""

import numpy as np

from src.exposure import leave_one_out_share, row_shares
from tests.worlds import panel_of, staggered


def test_share_equals_a_double_loop():
    rng = np.random.default_rng(0)
    members = rng.integers(0, 6, 40)
    members[0] = 6  # alone
    treated = np.cumsum(rng.random((40, 5)) < 0.1, axis=1) > 0
    for weights in (None, rng.uniform(0.5, 2, 40)):
        share = leave_one_out_share(treated, members, weights)
        w = np.ones(40) if weights is None else weights
        for i in range(40):
            others = [j for j in range(40) if j != i and members[j] == members[i]]
            for t in range(5):
                if others:
                    expected = sum(w[j] * treated[j, t] for j in others) / sum(w[j] for j in others)
                    assert np.isclose(share[i, t], expected)
                else:
                    assert np.isnan(share[i, t])


def test_members_of_weight_zero_count_for_nobody():
    treated, members = np.array([[0, 0], [0, 1], [0, 1], [1, 1]]), np.array([0, 0, 0, 1])
    share = leave_one_out_share(treated, members, np.array([2.5, 0, 0, 1]))
    np.testing.assert_array_equal(share, [[np.nan, np.nan], [0, 0], [0, 0], [np.nan, np.nan]])


def test_adopters_count_where_they_have_no_row_and_units_alone_are_counted():
    # units 0 and 1 share a county; unit 1 adopts in 2 and has no row afterwards; unit 2 is alone
    panel = panel_of(
        [0, 0, 0, 1, 2, 2], [1, 2, 3, 1, 1, 2], [np.inf, 2, 3], np.arange(6), members={"county": [0, 0, 1]}
    )
    shares, notes = row_shares(panel)
    np.testing.assert_array_equal(shares["county"], [0, 1, 1, 0, 0, 0])
    assert notes == [
        "alone in their group or out of reach, so with nobody to be exposed to (exposure 0): county (1 unit)"
    ]


def test_many_exposures_with_units_alone_are_one_note():
    alone = {f"place{k:02d}": [*([0] * (6 - k % 3)), *range(1, k % 3 + 1)] for k in range(30)}
    together = {"country": [0] * 6}
    panel = panel_of(np.arange(6), np.ones(6), np.full(6, np.inf), np.arange(6), members=alone | together)
    shares, notes = row_shares(panel)
    assert len(shares) == 31
    assert notes == [
        "alone in their group or out of reach, so with nobody to be exposed to (exposure 0): place02 (2 units), "
        "place05 (2 units), place08 (2 units), place11 (2 units), place14 (2 units) and 15 more"
    ]
    assert row_shares(panel_of(np.arange(6), np.ones(6), np.full(6, np.inf), np.arange(6), members=together))[1] == []


def test_entry_and_exit_do_not_move_a_share():
    panel = staggered(seed=1)
    full = row_shares(panel)[0]["county"]
    some = panel.time != 4
    fewer = panel_of(
        panel.unit[some], panel.time[some], panel.cohort, panel.outcome[some],
        members={"county": panel.roster.members["county"]},
    )  # fmt: skip
    np.testing.assert_array_equal(row_shares(fewer)[0]["county"], full[some])
