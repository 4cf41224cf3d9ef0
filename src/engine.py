"""Where independent pieces of work are done: in this process, in several, or on many machines.

    items ──each──▶ (position, result) in the order in which they are done
    items ──total─▶ one sum, always added up in the same order

An engine does not change a result. `total` adds along a balanced tree over the positions of the items, whose shape
depends on their number alone, and every piece of work has one thread for linear algebra. So sums are the same to the
last bit wherever they are made and whatever is done first, on processors of one kind (linear algebra differs by kind).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import operator
import pickle
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from threadpoolctl import threadpool_limits

from src.panel import PanelError, in_one_line
from src.threads import one_each

if TYPE_CHECKING:
    from distributed import Client, Future

    from src.config import DaskConfig, EngineConfig, LocalConfig

PIECES = 4  # of a sum for each process: few, so that little is sent; enough that none waits long for the last
AHEAD = 2  # calls under way for each thread of a cluster, so that none waits for the next
PATIENCE = 10  # seconds until an address is given up
GONE = 600.0  # seconds without any worker until a cluster is given up
GLANCE = 5.0  # seconds between looks whether it has some

type Call = Callable[[], Any]
type Span = tuple[int, int]


@dataclass(frozen=True)
class Engine:
    """Where independent pieces of work are done.

    Functions and items are sent to other processes: functions of a module or `partial`s of them, and items that are
    small, such as names and positions of what a function then reads itself.

    Attributes
    ----------
    each : callable
        each(function, items): iterator of (position, function(item)) in the order in which they are done.
    total : callable
        total(function, items, add=operator.add): `add` of function(item) over all items, along a balanced tree over
        positions, the left half of n items being the first n // 2; the same to the last bit on every engine.
    """

    each: Callable
    total: Callable


class LostError(RuntimeError):
    """A piece of work ended its process again and again, or the machines are gone: no answer, not even an error.

    Attributes
    ----------
    position : int, optional
        Of the piece, where it is one.
    """

    def __init__(self, said: str, position: int | None = None) -> None:
        super().__init__(said)
        self.position = position


@dataclass(frozen=True)
class Worker:
    """A process that does what it is sent, and the connection to it."""

    process: SpawnProcess
    connection: Connection


@contextmanager
def opened(config: EngineConfig) -> Iterator[Engine]:
    """The engine that the settings name; what it started ends with the block."""
    from src.fit import resolve

    with resolve(config.open)(config) as engine:
        yield engine


@contextmanager
def local(config: LocalConfig) -> Iterator[Engine]:
    """The same process where `cores` is 1, else so many others, which are started when they are first needed."""
    if config.cores == 1:
        yield Engine(each=each_here, total=total_here)
        return
    team: list[Worker | None] = [None] * config.cores

    def each(function: Callable, items: Iterable) -> Iterator[tuple[int, Any]]:
        return by_team(team, [partial(function, item) for item in items])

    def total(function: Callable, items: Iterable, add: Callable = operator.add) -> Any:
        return summed(partial(by_team, team), partial(alone, add), function, list(items), add, config.cores)

    try:
        yield Engine(each=each, total=total)
    finally:
        for worker in team:
            stop(worker)
        team.clear()


@contextmanager
def dask(config: DaskConfig) -> Iterator[Engine]:
    """Workers of a Dask scheduler: of the one at `address`, or of one of our own with `cores` processes.

    Raises
    ------
    UserError
        Dask is not installed, nothing answers at `address`, or its workers have other code.
    """
    from src.command import UserError

    try:
        import distributed  # noqa: F401
    except ImportError:
        raise UserError("engine=dask needs Dask: install it with pip install '.[dask]'") from None
    with connected(config) as client:

        def each(function: Callable, items: Iterable) -> Iterator[tuple[int, Any]]:
            calls = [partial(function, item) for item in items]
            return ((position, future.result()) for position, future in by_client(client, config.retries, calls))

        def total(function: Callable, items: Iterable, add: Callable = operator.add) -> Any:
            done = partial(by_client, client, config.retries)
            join = partial(client.submit, alone, add, pure=False)
            return summed(done, join, function, list(items), add, threads(client)).result()

        yield Engine(each=each, total=total)


def each_here(function: Callable, items: Iterable) -> Iterator[tuple[int, Any]]:
    """One item after the other, in this process."""
    for position, item in enumerate(items):
        with heeding_interrupts():
            found = alone(function, item)
        yield position, found


def total_here(function: Callable, items: Iterable, add: Callable = operator.add) -> Any:
    """The sum, in this process."""
    with heeding_interrupts():
        return alone(folded, function, add, filled(list(items)))


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Ctrl-C in the block ends it even where a library makes half a result of it, as samplers do."""
    default = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    pressed = threading.Event()

    def press(*_: Any) -> None:
        pressed.set()
        raise KeyboardInterrupt

    if default:
        signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if pressed.is_set():
            raise KeyboardInterrupt


def alone(function: Callable, *given: Any) -> Any:
    """A function of what is given, with one thread for linear algebra."""
    with threadpool_limits(1):
        return function(*given)


def filled(items: list) -> list:
    """The items, if there are any.

    Raises
    ------
    ValueError
        There is nothing to add up.
    """
    if not items:
        raise ValueError("a sum of no items is asked for")
    return items


def folded(function: Callable, add: Callable, items: Sequence) -> Any:
    """Sum of function(item) along the balanced tree; holds as many partial sums as the tree is deep."""
    if len(items) == 1:
        return function(items[0])
    middle = len(items) // 2
    return add(folded(function, add, items[:middle]), folded(function, add, items[middle:]))


def summed(
    done: Callable[[Sequence[Call]], Iterator[tuple[int, Any]]],
    join: Callable,
    function: Callable,
    items: list,
    add: Callable,
    processes: int,
) -> Any:
    """The sum of all items, subtrees being folded where they are done, and joined as soon as two neighbours are there.

    Parameters
    ----------
    done : callable
        Does calls somewhere: iterator of (position, sum) in the order in which they are done.
    join : callable
        Adds two such sums, in their order.
    function, items, add
        As in `Engine.total`.
    processes : int
        Among which the calls are shared.
    """
    n = len(filled(items))
    spans, parents = subtrees(n, max(1, n // (PIECES * processes)))
    calls = [partial(folded, function, add, items[start:stop]) for start, stop in spans]
    waiting: dict[Span, Any] = {}
    for position, value in done(calls):
        span = spans[position]
        while span in parents:
            start, middle, stop = parents[span]
            is_left = span == (start, middle)
            other = (middle, stop) if is_left else (start, middle)
            if other not in waiting:
                break
            value = join(value, waiting.pop(other)) if is_left else join(waiting.pop(other), value)
            span = (start, stop)
        waiting[span] = value
    return waiting[0, n]


def subtrees(n: int, most: int) -> tuple[list[Span], dict[Span, tuple[int, int, int]]]:
    """Subtrees of at most `most` of n items, in order, and where they and those above them come from.

    Returns
    -------
    spans : list of (start, stop)
    parents : dict of (start, stop) to (start, middle, stop)
        Of every node but the root.
    """
    spans: list[Span] = []
    parents: dict[Span, tuple[int, int, int]] = {}
    nodes = [(0, n)]
    while nodes:
        start, stop = nodes.pop()
        if stop - start <= most:
            spans.append((start, stop))
            continue
        middle = start + (stop - start) // 2
        parents[start, middle] = parents[middle, stop] = (start, middle, stop)
        nodes += [(middle, stop), (start, middle)]
    return spans, parents


def by_team(team: list[Worker | None], calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
    """Results of calls as processes finish them; neighbours go to the same process.

    A process has a share of neighbouring calls; one that is done helps where most is left. A call whose process ends
    is done once more in a new one. Whoever is still busy when nobody listens any more is stopped. The team is empty as
    long as somebody listens, so that calls made meanwhile get processes of their own.

    Raises
    ------
    LostError
        A call ended its process twice.
    Exception
        What a call raised, as it was.
    """
    mine, team[:] = list(team), [None] * len(team)
    bounds = [round(k * len(calls) / len(team)) for k in range(len(team) + 1)]
    shares = [deque(range(start, stop)) for start, stop in pairwise(bounds)]
    ended: Counter[int] = Counter()
    busy: dict[Connection, tuple[int, int]] = {}

    def give(seat: int, position: int) -> None:
        worker = send(mine, seat, calls[position])
        busy[worker.connection] = seat, position

    def give_next(seat: int) -> None:
        longest = max(shares, key=len)
        if longest:
            give(seat, shares[seat].popleft() if shares[seat] else longest.pop())

    try:
        for seat in range(len(mine)):
            give_next(seat)
        while busy:
            for connection in cast("list[Connection]", wait(list(busy))):
                seat, position = busy.pop(connection)
                try:
                    fine, found = connection.recv()
                except (EOFError, ConnectionError):
                    code = stop(mine[seat])
                    mine[seat] = None
                    ended[position] += 1
                    if ended[position] > 1:
                        said = f"it ended its process twice (exit code {code}): perhaps memory ran out; use fewer cores"
                        raise LostError(said, position) from None
                    give(seat, position)
                    continue
                if not fine:
                    raise found
                give_next(seat)
                yield position, found
                del found
    finally:
        for seat, _ in busy.values():
            stop(mine[seat])
            mine[seat] = None
        for seat, worker in enumerate(mine):
            if team and team[seat] is None:
                team[seat] = worker
            else:  # somebody else's process has the seat, or the engine is closed
                stop(worker)


def send(team: list[Worker | None], seat: int, call: Call) -> Worker:
    """Send a call to the process in a seat; to a new one where none is there, or where it ended between two calls."""
    worker = team[seat]
    if worker is not None:
        try:
            worker.connection.send(call)
        except ConnectionError:
            stop(worker)
        else:
            return worker
    team[seat] = worker = start()
    worker.connection.send(call)
    return worker


def start() -> Worker:
    """A new process; it shares no lock with this one's threads, as a fork would."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    with one_each(), interrupts_stay_here():
        process.start()
    theirs.close()
    return Worker(process, mine)


def stop(worker: Worker | None) -> int | None:
    """End a process and the connection to it; its exit code."""
    if worker is None:
        return None
    worker.connection.close()
    worker.process.terminate()
    worker.process.join()
    code = worker.process.exitcode
    worker.process.close()
    return code


@contextmanager
def connected(config: DaskConfig) -> Iterator[Client]:
    """A client of the scheduler at `address`, or of a scheduler and workers of our own, which end with the block.

    Raises
    ------
    UserError
        Nothing answers there, or its workers have other code.
    """
    from dask import config as settings
    from distributed import Client, LocalCluster

    from src.command import UserError

    if config.address is None:
        with (
            settings.set({"distributed.scheduler.allowed-failures": config.retries}),
            LocalCluster(
                n_workers=config.cores,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",  # any free port: several clusters can stand side by side
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        asyncio.run(knock(config.address))
        client = Client(config.address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = in_one_line(error).rstrip(": ")
        raise UserError(
            f"no Dask scheduler answers at engine.address={config.address} ({reason}): start one with "
            "`dask scheduler`, or leave the address out to use this machine"
        ) from None
    with client:
        check_workers(client, config.address)
        yield client


async def knock(address: str) -> None:
    """Greet a Dask scheduler; a `Client` would knock for minutes where something else listens.

    Raises
    ------
    OSError, ValueError
        It does not answer, or that is no address.
    """
    from distributed.comm import connect

    comm = await asyncio.wait_for(connect(address, timeout=PATIENCE), PATIENCE + 1)
    await comm.close()


def check_workers(client: Client, address: str) -> None:
    """Refuse a scheduler without workers, and workers that have other code.

    Raises
    ------
    UserError
    """
    from src.command import UserError
    from src.trace import code_version

    start = "start them in this folder and environment, as in docs/cluster.md"
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise UserError(f"the Dask scheduler at {address} has no workers: {start}") from None
    found = client.run(code_version, on_error="return")
    for worker, version in found.items():
        if version != code_version():
            other = in_one_line(version) if isinstance(version, Exception) else f"version {version}"
            raise UserError(f"the Dask worker at {worker} has other code than this ({other}): {start}")


def threads(client: Client) -> int:
    """How many pieces of work the workers do at a time, at least one."""
    return max(1, sum(client.nthreads().values()))


def by_client(client: Client, retries: int, calls: Sequence[Call]) -> Iterator[tuple[int, Future]]:
    """Futures of calls as workers finish them, a few calls a thread being under way at any time.

    A call that fails is made again, up to `retries` times: a file may be out of reach for a moment. A user's mistake
    is not. A call whose worker was lost is made again by the scheduler, once a worker is there.

    Raises
    ------
    LostError
        A call ended its worker more often than the scheduler allows, or the scheduler is gone, or every worker: a
        worker that is killed while it starts is not started again.
    Exception
        What a call raised in the end, as it was.
    """
    from distributed import KilledWorker

    left = iter(enumerate(calls))
    failed: Counter[int] = Counter()
    under_way: dict[Future, int] = {}
    done: SimpleQueue[Future] = SimpleQueue()

    def submit(position: int) -> None:
        future = client.submit(alone, calls[position], pure=False)
        under_way[future] = position
        future.add_done_callback(done.put)

    for position, _ in islice(left, AHEAD * threads(client)):
        submit(position)
    while under_way:
        future = next_done(client, done)
        position = under_way.pop(future)
        if future.status == "finished":
            for following, _ in islice(left, max(0, AHEAD * threads(client) - len(under_way))):
                submit(following)
            yield position, future
            del future
            continue
        if future.status != "error":
            raise LostError("the Dask scheduler is gone; what was written is kept")
        error = future.exception()
        if isinstance(error, KilledWorker):
            said = "it ended its worker again and again: perhaps memory ran out; give every worker more of it"
            raise LostError(said, position)
        failed[position] += 1
        if isinstance(error, PanelError) or failed[position] > retries:
            raise error
        submit(position)


def next_done(client: Client, done: SimpleQueue[Future]) -> Future:
    """The next future that is done.

    Raises
    ------
    LostError
        For too long there was no worker that could do any.
    """
    since = time.monotonic()
    while True:
        with suppress(Empty):
            return done.get(timeout=min(GLANCE, GONE))
        if client.status != "running" or client.nthreads():  # no scheduler: futures say so themselves
            since = time.monotonic()
        elif time.monotonic() - since >= GONE:
            said = "no worker of the Dask cluster is left: perhaps memory ran out; give every worker more of it"
            raise LostError(f"{said}. What was written is kept")


@contextmanager
def interrupts_stay_here() -> Iterator[None]:
    """Processes started in the block leave Ctrl-C to this one."""
    main = threading.current_thread() is threading.main_thread()  # the only one that signals can be set in
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


def serve(connection: Connection) -> None:
    """Do calls as they are sent, until nobody sends any more: a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            answer(connection, connection.recv_bytes())


def answer(connection: Connection, sent: bytes) -> None:
    """Send what a call gives, or what it raises."""
    try:
        connection.send((True, alone(pickle.loads(sent))))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        connection.send((False, portable(error)))


def portable(error: Exception) -> Exception:
    """An error that can be sent, with where it arose as a note; as text where it cannot be sent as it is."""
    where = "".join(traceback.format_exception(error))
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:  # an error of somebody's own making that cannot be made again from its parts
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"in another process:\n{where}")
    return sent
