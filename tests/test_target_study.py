"""Are gains of rules what src.target says they are? `pytest -m slow -s tests/test_target_study.py`.

Panels of a known world are fitted, rules compared, and every chosen set is held against what its adoption would do in
that world: from the world's own parameters, sharing no code with src.target but the rules' choice.
"""

import numpy as np
import pandas as pd
import pytest

from src import generate, sample
from src.allocation import Limits, best_first, taken
from src.collapse import collapse
from src.config import DataConfig, TargetConfig
from src.design import build_design
from src.exposure import leave_one_out_share, row_shares
from src.fit import build_model, errors_of, has_units, needs_units, unpooled
from src.replicate import structure
from src.system import only
from src.target import all_rules, prospect_from
from src.trace import in_outcome_units
from tests.test_command import composed, composed_study

R, DESIGNS, SLOTS, HORIZON, PROB = 100, 4, 60, 3, 0.9
SMALLER = ["generator.units=600", "generator.industries=12", "generator.districts=25"]
VARIED = [*SMALLER, "generator.industry_sd=0.25", "generator.ownership_gap=0.3"]
ALIKE = [
    *SMALLER, "generator.industry_sd=0", "generator.ownership_gap=0", "generator.unit_sd=0",
    "generator.spill_district=0", "generator.spill_industry=0",
]  # fmt: skip
WORLDS = {  # options, SD of the effects of cohorts
    "varied": (VARIED, 0.0),
    "cohorts": ([*VARIED, "generator.spill_ratio=0.5"], 0.1),
    "alike": (ALIKE, 0.0),
}
ENTRIES = {"district": "district", "industry": "industry"}


def fitted(config, panel, seed, compiled):
    """The collapsed panel, and draws of all variables in units of the outcome."""
    regression, _ = build_design(panel, row_shares(panel)[0], needs_units(config))
    collapsed = collapse(regression, errors_of(config, regression), unpooled(config, regression), has_units(config))
    model = build_model(config, only(collapsed), None)
    key = structure(collapsed.regression.design, collapsed.evidence)
    if key not in compiled:
        compiled[key] = sample.compile_model(model)
    options = (config.sampler.draws, config.sampler.tune, config.sampler.chains, 1, config.sampler.target_accept)
    tree = sample.draw_compiled(sample.with_data_of(compiled[key], model), *options, seed, False)
    return collapsed, in_outcome_units(tree["posterior"].to_dataset(), collapsed.s)


def true_spill(world, frame, chosen, present):
    """Spillovers on the units present, summed, where `chosen` adopt after the last period."""
    adopted = np.isfinite(frame.cohort)
    adopted[chosen] = True
    share = {
        "industry": leave_one_out_share(adopted[:, None], frame.industry)[:, 0],
        "district": leave_one_out_share(adopted[:, None], frame.district)[:, 0],
    }
    felt = world.spill_industry * np.nan_to_num(share["industry"])
    felt = felt + world.spill_district * np.nan_to_num(share["district"])
    return (felt * np.where(adopted, world.spill_ratio, 1.0))[present].sum()


def replicate(name, r, compiled):
    """One row a rule: what its sets gain a chosen unit and period, and what src.target says."""
    options, cohort_sd = WORLDS[name]
    world, config = composed_study(*options).generator, composed("sampler=study", "prior=weak")
    seeds = (r % DESIGNS, 10_000 + r)
    *extra, new = cohort_sd * np.random.default_rng([r, 99]).standard_normal(len(world.starts) + 1)
    world.cohort_effects = [float(x) for x in extra] if cohort_sd else []
    panel = generate.draw(world, *seeds)
    collapsed, posterior = fitted(config, panel, r, compiled)
    config.data = DataConfig(name=name, unit="firm", time="year", outcome="y", exposures=ENTRIES)
    kind = "drawn" if cohort_sd else "average"
    asked = TargetConfig(slots=SLOTS, horizon=HORIZON, new_cohort=kind, prob=PROB, shuffles=50, draws=1000)
    rng = np.random.default_rng([r, 7])
    prospect = prospect_from(config, asked, collapsed, posterior, rng)
    rules = {rule.name: rule for rule in all_rules(config, asked, prospect, rng)}

    frame, level = generate.potential(world, *seeds)
    number = np.array([int(unit[1:]) for unit in panel.units])
    who, present = number[prospect.hypothesis.candidates], number[prospect.hypothesis.present]
    own = (level + new) * generate.ramp_at(world, np.arange(HORIZON + 1)).mean()
    nobody = true_spill(world, frame, [], present)

    def gained(sets):
        return np.mean([own[who[one]].sum() + true_spill(world, frame, who[one], present) - nobody for one in sets])

    alone = own[who] + [true_spill(world, frame, [i], present) - nobody for i in who]
    limits = Limits(SLOTS, np.zeros((0, len(who)), dtype=int), [], np.ones(len(who)))
    oracle = gained([taken(best_first(alone, limits, rng), limits)]) / SLOTS
    truth = {rule: gained(found.sets) / SLOTS for rule, found in rules.items()}
    rows = []
    for rule, found in rules.items():
        draws = found.realised / SLOTS
        low, high = np.quantile(draws, [(1 - PROB) / 2, (1 + PROB) / 2])
        beats = found.realised > rules["today"].realised
        rows.append(
            {
                "r": r, "rule": rule, "truth": truth[rule], "estimate": draws.mean(), "low": low, "high": high,
                "oracle": oracle, "over_today": truth[rule] - truth["today"],
                "says": (found.expected - rules["today"].expected).mean() / SLOTS,
                "p_beats": beats.mean(), "beats": truth[rule] > truth["today"],
            }
        )  # fmt: skip
    return rows


def summary(rows):
    """One line a rule."""
    rows["held"] = (rows["low"] <= rows["truth"]) & (rows["truth"] <= rows["high"])
    rows["error"], rows["width"] = rows["estimate"] - rows["truth"], rows["high"] - rows["low"]
    names = ["truth", "oracle", "error", "width", "held", "over_today", "says", "p_beats", "beats"]
    return rows.groupby("rule", sort=False)[names].mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORLDS))
def test_gains_are_recovered(name):
    compiled: dict = {}
    rows = pd.DataFrame([row for r in range(R) for row in replicate(name, r, compiled)])
    table = summary(rows)
    print(f"\n{name}, R = {R}, {SLOTS} slots, {PROB:.0%} intervals\n{table.round(3).to_string()}")
    assert (table["held"] >= PROB - 0.04 - 2 * np.sqrt(PROB * (1 - PROB) / R)).all()  # and Monte Carlo error
    if name == "alike":
        assert table["over_today"].abs().max() < 1e-12
    else:
        assert table.loc["total", "truth"] > table.loc["today", "truth"] > 0
        assert table["oracle"].iloc[0] >= table["truth"].max()
