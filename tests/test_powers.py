"""Power-scaling against closed forms, and what is said of it."""

from dataclasses import replace

import arviz_stats as az
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from src import powers
from src.average import FIXED, Average
from src.estimand import Scale

SE, DRAWS = 0.1, 4000  # of the data alone


def conjugate(mean, sd, seed=0):
    """An effect that the data put at 1 with error SE, under a prior Normal(mean, sd): draws and both densities."""
    centre, spread = posterior(mean, sd, 1.0)
    draws = centre + spread * np.random.default_rng(seed).permutation(stats.norm.ppf((np.arange(DRAWS) + 0.5) / DRAWS))
    draws = draws.reshape(4, -1)
    prior, likelihood = stats.norm(mean, sd).logpdf(draws), stats.norm(1.0, SE).logpdf(draws)
    return draws, *(xr.Dataset({"x": (("chain", "draw"), density)}) for density in (prior, likelihood))


def posterior(mean, sd, of_prior, of_data=1.0):
    """Mean and SD under powers of prior and likelihood."""
    precision = of_prior / sd**2 + of_data / SE**2
    return (of_prior * mean / sd**2 + of_data / SE**2) / precision, precision**-0.5


def exact(mean, sd, draws, what):
    """Slope of the distance over the range of the draws, from laws in closed form."""
    at = np.linspace(draws.min(), draws.max(), 40_001)

    def distance(power):
        laws = [stats.norm(*posterior(mean, sd, *(power if k else 1.0 for k in on))) for on in ((0, 0), what)]
        return max(shannon(*(law.cdf(at) for law in laws)), shannon(*(law.sf(at)[::-1] for law in laws)))

    return (distance(1.01) / np.log2(1.01) - distance(0.99) / np.log2(0.99)) / 2


def shannon(p, q):
    """Cumulative Jensen-Shannon distance of two distribution functions on one grid."""
    m = (p + q) / 2
    both = [(one * np.log2(one / m)).mean() + ((q if one is p else p) - one).mean() / (2 * np.log(2)) for one in (p, q)]
    return np.sqrt(sum(both) / (p.mean() + q.mean()))


def of(draws, *names):
    """A scale on which each estimand has these draws."""
    found = [Average(*name, np.zeros(1), 9, 9) for name in names]
    return Scale(
        found, np.repeat(draws[..., None], len(names), axis=-1), np.full(len(names), np.nan), [""] * len(names)
    )


def found_for(mean, sd, *names):
    draws, *densities = conjugate(mean, sd)
    return powers.sensitivity(of(draws, *(names or (("att", "", ""),))), *densities)


@pytest.mark.parametrize(("mean", "sd"), [(0, 10), (0, 1), (0, 0.3), (1, 0.1), (0, 0.15)])
def test_sensitivities_are_those_of_the_laws_in_closed_form(mean, sd):
    draws, *_ = conjugate(mean, sd)
    row = found_for(mean, sd).table.iloc[0]
    assert row["prior"] == pytest.approx(exact(mean, sd, draws, (1, 0)), rel=0.03, abs=1e-4)
    assert row["likelihood"] == pytest.approx(exact(mean, sd, draws, (0, 1)), rel=0.03)


def test_it_is_what_arviz_says_of_the_same_tree():
    draws, *densities = conjugate(0, 0.3)
    att = xr.Dataset({"att": (("chain", "draw"), draws)})
    tree = xr.DataTree.from_dict({"posterior": att, "log_prior": densities[0], "log_likelihood": densities[1]})
    theirs = az.psense_summary(tree, round_to=12).loc["att"]
    mine = found_for(0, 0.3).table.iloc[0]
    assert mine["prior"] == pytest.approx(theirs["prior"])
    assert mine["likelihood"] == pytest.approx(theirs["likelihood"])


def test_a_prior_says_more_the_tighter_it_is_and_nothing_where_it_is_flat():
    said = [found_for(0, sd).table["prior"].iloc[0] for sd in (1e6, 10, 1, 0.3, 0.15)]
    assert said[0] == pytest.approx(0, abs=1e-6)
    assert np.all(np.diff(said) > 0)


@pytest.mark.parametrize(
    ("mean", "sd", "verdict"),
    [(0, 10, powers.DATA), (0, 0.3, powers.CONFLICT), (1, 0.02, powers.WEAK)],
)
def test_a_prior_that_speaks_loudly_is_heard_and_a_quiet_one_is_not(mean, sd, verdict):
    found = found_for(mean, sd)
    assert list(found.table["diagnosis"]) == [verdict]
    said = list(powers.sentences(found))
    assert len(said) == (verdict != powers.DATA)
    record = found.record()["prior_sensitivity"]
    assert record["above"] == (["att"] if said else [])
    assert set(record["largest"]) == {"att"}
    if said:
        assert said[0].startswith("The prior speaks loudly of att, ")
        assert "experiment=priors" in said[0]
        assert ("the data say little" in said[0]) == (verdict == powers.WEAK)


def test_sentences_name_what_answers_a_question_and_the_table_has_all():
    names = [("att", "", ""), ("att_by", "industry", "C1"), ("att_by", "industry:ownership", "C1:state")]
    names += [("att_gt", "", "3@4"), ("one::att", "", ""), ("contrast", "ownership", "private - state")]
    found = found_for(0, 0.3, *names)
    assert len(found.table) == len(names)
    (said,) = powers.sentences(found)
    assert "att, att_by industry C1, one::att and 1 more" in said
    assert "C1:state" not in said


def test_what_is_not_told_or_fixed_or_constant_has_no_row():
    draws, *densities = conjugate(0, 1)
    scale = of(draws, ("att", "", ""), ("att_by", "g", "a"), ("contrast", "g", "a - b"), ("lead", "", "-2"))
    scale.draws[..., 1], scale.draws[..., 2] = np.nan, 0.0
    assert list(powers.sensitivity(scale, *densities).table["estimand"]) == ["att"]
    fixed = Average("att_by", "g", "b", np.zeros(1), 9, 9, note=f"{FIXED}: one effect for all")
    with_fixed = replace(scale, found=[scale.found[0], fixed, *scale.found[2:]])
    with_fixed.draws[..., 1] = scale.draws[..., 0]
    assert list(powers.sensitivity(with_fixed, *densities).table["estimand"]) == ["att"]
    scale.draws[..., :2] = np.nan
    nothing = powers.sensitivity(scale, *densities)
    assert nothing.table.empty
    assert list(powers.sentences(nothing)) == []
    assert nothing.record()["prior_sensitivity"]["above"] == []


def test_weights_that_rest_on_few_draws_tell_nothing():
    draws, prior, likelihood = conjugate(0, 0.3)
    heavy = 50 * np.random.default_rng(1).standard_t(0.8, draws.shape)
    found = powers.sensitivity(of(draws, ("att", "", "")), prior + heavy, likelihood)
    assert found.pareto_k > found.limit
    assert found.table[["prior", "likelihood"]].isna().all(axis=None)
    (said,) = powers.sentences(found)
    assert "cannot be told" in said
    assert found.record()["prior_sensitivity"]["above"] == []


def test_how_many_follow_the_data_is_said():
    many, average = powers.in_words(found_for(0.0, 100.0, ("att", "", ""), ("att_by", "g", "a")))
    assert many.startswith("Of 2 estimates, 2 follow the data")
    assert average.startswith("The average effect moves by ")
    tight = next(powers.in_words(found_for(0.0, 0.1, ("att", "", ""))))
    assert tight.startswith("Of 1 estimate, 0 follow the data")
