"""Engines: the same bits everywhere, errors as they were, processes that are killed, and nothing kept."""

import logging
import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
import tracemalloc
from functools import partial
from types import SimpleNamespace

import dask
import distributed
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from src import engine
from src.command import UserError
from src.config import DaskConfig, LocalConfig
from src.engine import LostError, folded, opened, subtrees
from src.fit import posterior_settings
from src.panel import PanelError
from tests.test_command import composed

WHERE = ("here", "two", "three", "dask")
MANY, LARGE = 64, 2**18  # results, and numbers in each


@pytest.fixture(scope="module")
def cluster():
    with local_cluster(2) as started:
        yield started


def local_cluster(workers: int):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    )


@pytest.fixture(scope="module")
def engines(cluster):
    with (
        opened(LocalConfig(cores=1)) as here,
        opened(LocalConfig(cores=2)) as two,
        opened(LocalConfig(cores=3)) as three,
        opened(DaskConfig(address=cluster.scheduler_address, retries=1)) as dask,
    ):
        yield dict(zip(WHERE, (here, two, three, dask), strict=True))


def crossproduct(seed: int) -> np.ndarray:
    columns = np.random.default_rng(seed).normal(size=(4000, 40))
    return columns.T @ (10.0 ** (seed % 7) * columns)


def late(n: int, position: int) -> float:
    time.sleep(0.02 * (n - position))
    return numbers(n)[position]


def numbers(n: int) -> list[float]:
    return [0.1 * 10.0 ** (position % 5) for position in range(n)]


def mistaken(position: int) -> int:
    if position == 3:
        raise PanelError("row 3 has no unit; give it one")
    return position


def faulty(position: int) -> float:
    return 1 / (position - 3)


class ParticularError(Exception):
    """An error that cannot be made again from its text."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def particular(position: int) -> None:
    raise ParticularError(position, position)


def killed(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_once(flag: str, position: int) -> int:
    if position == 2 and not os.path.exists(flag):
        open(flag, "w").close()
        killed()
    return position


def failing_once(folder: str, position: int) -> int:
    flag = os.path.join(folder, str(position))
    if not os.path.exists(flag):
        open(flag, "w").close()
        raise OSError("out of reach for a moment")
    return position


@pytest.fixture
def mortal():
    """An engine whose workers may be killed: of a cluster where one killed while it starts is missed by nobody."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        local_cluster(2) as cluster,
        opened(DaskConfig(address=cluster.scheduler_address, retries=1)) as on_workers,
        opened(LocalConfig(cores=2)) as on_processes,
    ):
        yield {"dask": on_workers, "two": on_processes}


def slow_pid(_: int) -> set:
    time.sleep(0.02)
    return {os.getpid()}


def linear_algebra_threads(_: int) -> int:
    np.ones((2, 2)) @ np.ones((2, 2))
    return max(library["num_threads"] for library in threadpool_info())


def large(position: int) -> np.ndarray:
    return np.full(LARGE, float(position))


def swallowing(_: int) -> str:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        return "half a result"
    return "a result"


@pytest.mark.parametrize("n", [1, 2, 3, 37])
def test_sums_are_the_same_to_the_last_bit_on_every_engine(engines, n):
    sums = {where: engines[where].total(crossproduct, range(n)) for where in WHERE}
    assert len({found.tobytes() for found in sums.values()}) == 1
    np.testing.assert_allclose(sums["here"], sum(crossproduct(seed) for seed in range(n)), rtol=1e-10)


def test_the_order_of_sums_matters_and_is_that_of_the_tree():
    values = numbers(37)

    def tree(a):
        return a[0] if len(a) == 1 else tree(a[: len(a) // 2]) + tree(a[len(a) // 2 :])

    assert folded(values.__getitem__, operator.add, range(37)) == tree(values) != sum(values)


@pytest.mark.parametrize("where", WHERE)
def test_what_is_done_first_does_not_matter(engines, where):
    n = 12
    order = [position for position, _ in engines[where].each(partial(late, n), range(n))]
    assert sorted(order) == list(range(n))
    if where != "here":
        assert order != sorted(order)
    assert engines[where].total(partial(late, n), range(n)) == folded(numbers(n).__getitem__, operator.add, range(n))


@pytest.mark.parametrize("where", WHERE)
def test_sums_keep_the_order_of_what_they_add(engines, where):
    assert engines[where].total(str, range(100), add=operator.concat) == "".join(str(k) for k in range(100))


@pytest.mark.parametrize(("n", "most"), [(1, 1), (7, 1), (8, 2), (100, 3), (5, 9)])
def test_subtrees_are_those_of_the_whole_tree(n, most):
    spans, parents = subtrees(n, most)
    assert [k for start, stop in spans for k in range(start, stop)] == list(range(n))
    assert max(stop - start for start, stop in spans) <= most
    assert all(middle == start + (stop - start) // 2 for start, middle, stop in parents.values())
    assert len(parents) == 2 * (len(spans) - 1)


@pytest.mark.parametrize("where", WHERE)
def test_a_users_mistake_comes_through_as_it_is(engines, where):
    for work in (engines[where].each, engines[where].total):
        with pytest.raises(PanelError) as raised:
            list(work(mistaken, range(8)))
        assert str(raised.value) == "row 3 has no unit; give it one"
    assert engines[where].total(abs, range(8)) == 28  # and the engine still works


@pytest.mark.parametrize("where", WHERE)
def test_a_fault_comes_through_with_where_it_arose(engines, where):
    with pytest.raises(ZeroDivisionError, match="division by zero") as raised:
        list(engines[where].each(faulty, range(8)))
    if where in ("two", "three"):
        assert "in faulty" in raised.value.__notes__[0]


def test_an_error_that_cannot_be_sent_comes_as_text(engines):
    with pytest.raises(RuntimeError, match="ParticularError: 0 and 0"):
        list(engines["two"].each(particular, [0]))


@pytest.mark.parametrize("where", WHERE)
def test_nothing_to_do(engines, where):
    assert list(engines[where].each(abs, [])) == []
    with pytest.raises(ValueError, match="no items"):
        engines[where].total(abs, [])


@pytest.mark.parametrize("where", WHERE)
def test_whoever_stops_listening_can_ask_again(engines, where):
    found = engines[where].each(abs, range(100))
    next(found)
    found.close()
    assert engines[where].total(abs, range(5)) == 10


@pytest.mark.parametrize("where", WHERE)
def test_sums_can_be_asked_for_while_results_come(engines, where):
    found = [(k, engines[where].total(abs, range(k + 1))) for k, _ in engines[where].each(abs, range(4))]
    assert sorted(found) == [(0, 0), (1, 1), (2, 3), (3, 6)]


@pytest.mark.parametrize("where", WHERE)
def test_one_thread_of_linear_algebra_a_process(engines, where):
    assert dict(engines[where].each(linear_algebra_threads, range(3))) == dict.fromkeys(range(3), 1)


@pytest.mark.parametrize("where", ["two", "dask"])
def test_a_process_that_is_killed_loses_nothing(mortal, where, tmp_path):
    work = partial(killed_once, str(tmp_path / "killed"))
    assert dict(mortal[where].each(work, range(6))) == {k: k for k in range(6)}
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("where", ["two", "dask"])
def test_a_piece_that_always_ends_its_process_is_named(mortal, where):
    with pytest.raises(LostError, match=r"ended its (process|worker)") as raised:
        list(mortal[where].each(killed, range(1)))
    assert raised.value.position == 0
    assert mortal[where].total(abs, range(5)) == 10


def test_a_worker_killed_halfway_does_not_lose_the_sum(mortal):
    pid = min(mortal["dask"].total(slow_pid, range(20), add=operator.or_))
    halfway = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    halfway.start()
    seen = mortal["dask"].total(slow_pid, range(80), add=operator.or_)
    halfway.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert seen - {pid}


def test_a_cluster_that_lost_all_its_workers_is_given_up(monkeypatch):
    monkeypatch.setattr(engine, "GONE", 0.5)
    with local_cluster(1) as cluster, opened(DaskConfig(address=cluster.scheduler_address)) as alone:
        assert alone.total(abs, range(5)) == 10
        cluster.scale(0)
        with pytest.raises(LostError, match="no worker of the Dask cluster is left"):
            list(alone.each(abs, range(5)))


def test_a_scheduler_that_is_gone_is_said():
    with local_cluster(1) as cluster, opened(DaskConfig(address=cluster.scheduler_address)) as alone:
        found = alone.each(slow_pid, range(200))
        next(found)
        cluster.close()
        with pytest.raises(LostError, match="the Dask scheduler is gone"):
            list(found)


def test_what_fails_for_a_moment_is_done_again(engines, tmp_path):
    assert engines["dask"].total(partial(failing_once, str(tmp_path)), range(3)) == 3
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(OSError, match="out of reach"):
        engines["two"].total(partial(failing_once, str(other)), range(3))


@pytest.mark.parametrize("where", ["here", "two"])
def test_results_are_not_kept(engines, where):
    size = 8 * LARGE
    for use in (
        lambda: sum(1 for _ in engines[where].each(large, range(MANY))),
        lambda: total_of_large(engines[where]),
    ):
        tracemalloc.start()
        use()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MANY * size / 3


def total_of_large(on) -> None:
    assert on.total(large, range(MANY))[-1] == sum(range(MANY))


def test_results_do_not_pile_up_on_workers(engines, cluster):
    kept, before = [], len(cluster.scheduler.tasks)
    for _ in engines["dask"].each(abs, range(40)):
        time.sleep(0.01)
        kept.append(len(cluster.scheduler.tasks) - before)
    assert 0 < max(kept) <= engine.AHEAD * 2 + 2


def test_processes_end_with_the_block():
    before = set(multiprocessing.active_children())
    with opened(LocalConfig(cores=2)) as two:
        assert two.total(abs, range(5)) == 10
        assert len(set(multiprocessing.active_children()) - before) == 2
        left = two.each(abs, range(100))
        next(left)
    left.close()
    assert set(multiprocessing.active_children()) <= before


def test_ctrl_c_ends_a_piece_that_would_make_half_a_result_of_it(engines):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background starts us without
    try:
        with pytest.raises(KeyboardInterrupt):
            list(engines["here"].each(swallowing, [0]))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def refused(config: DaskConfig) -> str:
    with pytest.raises(UserError) as raised, opened(config):
        pass
    return str(raised.value)


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9", "letter://x:1"])
def test_an_address_that_nobody_answers_at(monkeypatch, address):
    monkeypatch.setattr(engine, "PATIENCE", 0.5)
    assert f"no Dask scheduler answers at engine.address={address} (" in refused(DaskConfig(address=address))


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 0.5)
    with local_cluster(0) as empty:
        assert "has no workers: start them" in refused(DaskConfig(address=empty.scheduler_address))


def test_workers_with_other_code_are_refused():
    for found, words in (
        ("0123456789ab", "version 0123456789ab"),
        (ModuleNotFoundError("No module named 'src'"), "src"),
    ):
        client = SimpleNamespace(
            wait_for_workers=lambda *_, **__: None, run=lambda *_, found=found, **__: {"tcp://a": found}
        )
        with pytest.raises(UserError, match=f"at tcp://a has other code than this .*{words}"):
            engine.check_workers(client, "tcp://head")


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "'.[dask]'" in refused(DaskConfig())


def test_an_engine_does_not_change_the_run():
    settings = [posterior_settings(composed(*told)) for told in ([], ["engine.cores=4"], ["engine=dask"])]
    assert settings[0] == settings[1] == settings[2]
    assert "engine" not in settings[0]
