"""Truth inside the intervals at the stated rate, where the errors are what the model assumes (slow)."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from models import hier
from models.inputs import Priors
from src import estimand, sample, synthetic
from src.collapse import collapse
from src.design import build_design
from src.exposure import row_shares
from tests.worlds import WEAK, synthetic_config

SEEDS = 40
TARGETS = [("att", "", ""), ("spill_per_pp", "district", "control"), ("spill_per_pp", "industry", "control")]


def fit_one(seed: int, priors: Priors) -> pd.DataFrame:
    panel = synthetic.load(synthetic_config(seed=seed, size="small", errors="iid"))
    regression, _ = build_design(panel, row_shares(panel)[0])
    collapsed = collapse(regression)
    design = collapsed.regression.design
    model = hier.build(design, collapsed.evidence.rescale(collapsed.s), priors)
    tree = sample.draw_posterior(model, draws=500, tune=600, seed=seed)
    found = estimand.averages(collapsed.regression, collapsed.evidence, tuple(design.blocks))
    draws = estimand.draw_estimands(tree["posterior"]["theta"] * collapsed.s, design.all_labels, found)
    return (
        estimand.table(estimand.linear_scales(draws, found, is_log=True), 0.95)
        .query("scale == 'outcome'")
        .assign(seed=seed)
    )


@pytest.mark.slow
def test_truth_lies_inside_95_percent_intervals_at_about_that_rate():
    table = pd.concat(fit_one(seed, WEAK) for seed in range(SEEDS))
    table["inside"] = table["truth"].between(table["low"], table["high"])
    table["error"] = table["mean"] - table["truth"]
    summary = table.groupby(["estimand", "group", "level"], dropna=False, sort=False).agg(
        coverage=("inside", "mean"),
        bias=("error", "mean"),
        n=("inside", "size"),
        sd=("sd", "mean"),
        rmse=("error", "std"),
    )
    print(summary.to_string())
    few = stats.binom.ppf(0.005, SEEDS, 0.95)
    by_key = table.fillna({"group": "", "level": ""}).set_index(["estimand", "group", "level"]).sort_index()
    for target in TARGETS:
        mine = by_key.loc[target]
        assert len(mine) == SEEDS
        assert mine["inside"].sum() >= few, target
        assert abs(mine["error"].mean()) < 4 * mine["error"].std() / np.sqrt(SEEDS), target
