"""Rows a block at a time: the same columns, evidence, estimands and classical estimates as with all rows in memory."""

import logging
import os
import pickle
import signal
from functools import partial, reduce
from operator import add

import numpy as np
import pandas as pd
import pytest

from bench import register
from src import blocks, design, engine, estimand, from_sums
from src.answer import with_means
from src.collapse import collapse
from src.config import DaskConfig, LocalConfig
from src.design import build_design
from src.errors import Errors
from src.estimators import estimate
from src.fit import load
from src.generate import draw
from src.panel import PanelError
from src.products import Compensated
from src.stream import is_streamed, streamed
from tests.test_command import composed
from tests.test_generate import world

ERRORS = Errors("ar1", "unit", ("district", "industry"))
COLUMNS = [
    *("data.unit=firm", "data.time=year", "data.cohort=g", "data.outcome=y", "data.covariates=[x0,x1]"),
    "data.groups={industry: industry, ownership: ownership}",
    "data.exposures={district: district, industry: industry}",
]
KEYS = ["estimand", "group", "level", "scale", "estimator"]


def frame_of(panel) -> pd.DataFrame:
    """The rows of a panel as a user has them, in no order."""
    return register.frame_of(panel).rename(columns={"cohort": "g", "outcome": "y"}).sample(frac=1, random_state=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A Parquet file with gaps, late entries, a unit that has always been treated and rows without an outcome."""
    panel = draw(world("realistic", units=260, industries=5, districts=8, adopters=[9, 9, 9, 9]), 1, 1)
    frame = frame_of(panel)
    always = frame[frame["firm"] == frame["firm"].iloc[0]].assign(firm="always", g=0.5 + frame["year"].min() - 0.5)
    frame.loc[frame.index[:5], "y"] = np.nan
    path = tmp_path_factory.mktemp("file") / "panel.parquet"
    pd.concat([frame, always]).to_parquet(path, index=False)
    return path


def settings(path, *more: str):
    return composed("data=csv", f"data.path={path}", *COLUMNS, *more)


def in_memory(config):
    panel, shares, notes = load(config)
    regression, left_out = build_design(panel, shares, units=True)
    return regression, shares, [*notes, *left_out]


def by_block(config, work, folder, rows=700):
    return streamed(config.data, work, folder, rows, True, lambda *told: None)


@pytest.fixture(scope="module", params=["sampled", "integrated"])
def both(request, file, tmp_path_factory):
    """Evidence from rows in memory and by block, with the effects of adopters as columns and integrated out."""
    patch = pytest.MonkeyPatch()
    if request.param == "integrated":
        patch.setattr(design, "MOST_OWN", 10)
    config = settings(file)
    regression, shares, notes = in_memory(config)
    with engine.opened(LocalConfig()) as work:
        other, said = by_block(config, work, tmp_path_factory.mktemp("blocks"))
        yield collapse(regression, ERRORS), collapse(other, ERRORS), shares, (notes, said)
    patch.undo()


def test_there_are_several_blocks_and_no_rows(both):
    _, other, _, _ = both
    assert len(other.regression.blocks.paths) >= 3
    assert not len(other.regression.panel.outcome)
    assert other.regression.matrix.shape[0] == 0


def test_what_was_handled_is_said_alike(both):
    *_, (notes, said) = both
    assert said == notes
    assert any("always-treated" in note for note in said)
    assert any("dropped" in note for note in said)


def test_columns_evidence_and_errors_agree(both):
    one, two, _, _ = both
    assert two.regression.design.all_labels == one.regression.design.all_labels
    assert two.regression.integrated == one.regression.integrated
    assert two.s == pytest.approx(one.s, rel=1e-10)
    assert two.nuisance.rho == pytest.approx(one.nuisance.rho, abs=1e-9)
    assert two.nuisance.nu == pytest.approx(one.nuisance.nu, rel=1e-8)
    largest = np.abs(one.evidence.gram).max()
    np.testing.assert_allclose(two.evidence.gram, one.evidence.gram, atol=1e-8 * largest, rtol=1e-8)
    np.testing.assert_allclose(
        two.evidence.moment, one.evidence.moment, atol=1e-8 * np.abs(one.evidence.moment).max(), rtol=1e-8
    )
    np.testing.assert_allclose(two.conditional.mean, one.conditional.mean, atol=1e-8)


def posterior(collapsed):
    """Mean and SD of the estimands under Normal priors, in closed form."""
    regression, evidence = collapsed.regression, collapsed.evidence
    blocks = regression.design.blocks
    terms = tuple(n for n in blocks if n not in (design.MEAN, "time", "covariate", "lead", "group_cell"))
    used = regression.design.columns(terms)
    found = [a for a in estimand.averages(regression, evidence, terms) if a.identified]
    weights = np.array([average.weights[used] for average in found])
    covariance = np.linalg.inv(evidence.gram[np.ix_(used, used)] / collapsed.s**2 + np.eye(len(used)))
    mean = covariance @ evidence.moment[used] / collapsed.s**2
    return found, weights @ mean, np.sqrt(np.einsum("ij,jk,ik->i", weights, covariance, weights))


def test_the_posterior_agrees_to_eight_digits(both):
    (found, mean, sd), (others, mean_2, sd_2) = (posterior(collapsed) for collapsed in both[:2])
    for a, b in zip(found, others, strict=True):
        assert (a.estimand, a.group, a.level) == (b.estimand, b.group, b.level)
        assert (a.n_units, a.n_obs, a.note) == (b.n_units, b.n_obs, b.note)
        np.testing.assert_allclose(a.weights, b.weights, atol=1e-9)
    np.testing.assert_allclose(mean_2, mean, atol=1e-8)
    np.testing.assert_allclose(sd_2, sd, rtol=1e-8)


def test_classical_estimates_from_sums_are_those_from_rows(both):
    one, two, shares, _ = both
    names = ["twfe", "twfe_exposures", "etwfe"]
    rows = estimate(one.regression.panel, shares, 0.9, names)
    sums = from_sums.estimates(two, names, 0.9)
    table = rows.merge(sums, on=KEYS, suffixes=("", "_sums"))
    assert len(table) == len(rows) == len(sums)
    for column in ("estimate", "se", "low", "high", "n_obs"):
        np.testing.assert_allclose(table[f"{column}_sums"], table[column], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_an_estimator_of_rows_says_why_it_was_not_run(both):
    (row,) = from_sums.estimates(both[1], ["cs"], 0.9).to_dict("records")
    assert "needs all rows" in row["note"]
    assert np.isnan(row["estimate"])


def test_means_of_units_are_drawn_only_where_effects_are_integrated_out(both):
    import xarray as xr

    one = both[0]
    labels = one.regression.design.labels(("mu", "exposure", "difference"))
    values = np.random.default_rng(0).normal(size=(2, 50, len(labels)))
    theta = xr.DataArray(values, dims=("chain", "draw", "column"), coords={"column": labels})
    found = with_means(theta.assign_coords(chain=[0, 1], draw=np.arange(50)), one, 1)
    more = one.regression.design.blocks[design.MEAN].size if one.regression.integrated else 0
    assert found.sizes["column"] == len(labels) + more
    np.testing.assert_array_equal(found.sel(column=labels), values)


def test_a_folder_of_files_is_one_panel(file, tmp_path):
    frame = pd.read_parquet(file)
    folder = tmp_path / "folder"
    folder.mkdir()
    for k, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[part].to_parquet(folder / f"{k}.parquet", index=False)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with engine.opened(LocalConfig()) as work:
        other, _ = by_block(settings(folder), work, scratch, rows=10**6)
    assert other.rows == in_memory(settings(file))[0].rows
    assert len(other.blocks.paths) == 1


def broken(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    frame = frame.reset_index(drop=True)
    if kind == "duplicate":
        return pd.concat([frame, frame.iloc[[7]]])
    if kind == "text":
        return frame.assign(y=frame["y"].astype(str).where(frame.index != 11, "many"))
    if kind == "moves":
        return frame.assign(district=frame["district"].where(frame.index != frame.index[20], "elsewhere"))
    return frame.assign(g=np.nan)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("duplicate", "duplicate row"),
        ("text", "row 12: 'many'"),
        ("moves", "district.*changes over time|changes over time.*elsewhere"),
        ("nobody", "nobody is treated"),
    ],
)
def test_mistakes_are_said_as_with_rows_in_memory(file, tmp_path, kind, words):
    path = tmp_path / "broken.parquet"
    broken(pd.read_parquet(file), kind).to_parquet(path, index=False)
    config = settings(path)
    with pytest.raises(PanelError, match=words) as of_memory:
        in_memory(config)
    with engine.opened(LocalConfig()) as work, pytest.raises(PanelError, match=words) as of_blocks:
        by_block(config, work, tmp_path)
    if kind != "moves":
        assert str(of_blocks.value) == str(of_memory.value)


def test_what_needs_all_rows_is_refused_with_the_remedy(file, tmp_path):
    near = "data.exposures={near: {ring: [0, 80], latitude: x0, longitude: x1}}"
    for more in ([*COLUMNS[:-1], near], [*COLUMNS, "data.fixed_effects=[industry]"]):
        config = composed("data=csv", f"data.path={file}", *more)
        with engine.opened(LocalConfig()) as work, pytest.raises(PanelError, match="rows_in_memory"):
            by_block(config, work, tmp_path)


def test_large_files_and_folders_are_streamed_and_nothing_else(file, tmp_path):
    data = settings(file).data
    rows = len(pd.read_parquet(file))
    assert not is_streamed(data, rows)
    assert is_streamed(data, rows - 1)
    assert is_streamed(settings(tmp_path).data, 10**9)
    assert not is_streamed(settings(tmp_path / "missing.parquet").data, 0)
    assert not is_streamed(composed("data=fracking").data, 0)


def test_compensated_sums_keep_what_plain_ones_lose():
    import scipy.sparse as sp

    parts = [1e16, 1.0, 1.0, 1.0, -1e16]
    total = Compensated.of(sp.csr_array([[parts[0]]]))
    for part in parts[1:]:
        total += Compensated.of(sp.csr_array([[part]]))
    assert total.value.toarray().item() == 3.0
    assert reduce(add, parts) != 3.0


def killed_once(mark, regression) -> int:
    """Number of rows; the first process that comes here is killed."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return regression.rows
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_dask_gives_the_same_bits_and_survives_a_killed_worker(file, tmp_path):
    from distributed import LocalCluster

    config, found = settings(file), []
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster:
        for k, of in enumerate((LocalConfig(), DaskConfig(address=cluster.scheduler_address, retries=2))):
            scratch = tmp_path / f"scratch{k}"
            scratch.mkdir()
            with engine.opened(of) as work:
                regression, _ = by_block(config, work, scratch)
                if k:
                    counted = regression.blocks.total(partial(killed_once, str(tmp_path / "mark")))
                    assert counted == regression.rows
                    assert (tmp_path / "mark").exists()
                found.append(collapse(regression, ERRORS).evidence)
    np.testing.assert_array_equal(found[1].gram, found[0].gram)
    np.testing.assert_array_equal(found[1].moment, found[0].moment)


def test_a_block_on_disk_is_the_rows_and_columns_of_its_units(file, tmp_path):
    with engine.opened(LocalConfig()) as work:
        other, _ = by_block(settings(file), work, tmp_path)
        sizes = [blocks.kept_at(path).rows for path in other.blocks.paths]
    assert sum(sizes) == other.rows
    assert pickle.loads(other.blocks.paths[0].read_bytes()).matrix.shape[1] == other.design.size
