"""One piece of work in a process of its own, beside the main line.

    with helper(cores, "src.twins") as begin:
        found = begin("src.twins.twins", argument)     # at once
        ...                                            # the main line goes on
        found()                                        # waits

The process writes nothing but its answer. It ends with the block, whatever ends that, and by itself where its parent is
killed. Where it cannot do the work (no second core, no memory, an error), the work is done in place when its answer is
asked for, and errors are raised there.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.connection import Connection
from threading import Thread
from types import ModuleType
from typing import Any

from src.threads import THREADS, one_each

QUIET = (*THREADS, "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
Begin = Callable[..., Callable[[], Any]]


@contextmanager
def helper(cores: int, module: str) -> Iterator[Begin]:
    """Open a process that makes itself ready by importing a module, and give the function that sends it its work.

    Parameters
    ----------
    cores : int
        That may be used; with one alone there is no process.
    module : str
        Of the function to be called, as its import takes time as well.
    """
    if cores < 2 or current_process().daemon:  # a process that may have none of its own
        yield in_place
        return
    context = get_context("spawn")  # a fork would share locks of threads that do not go with it
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, module), daemon=True)
    with one_each(QUIET), without_main():
        process.start()
    theirs.close()
    try:
        yield partial(sent, mine)
    finally:
        process.kill()
        process.join()
        process.close()
        mine.close()


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started in the block do not import the module of the command, and Hydra with it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def in_place(dotted: str, *arguments: Any) -> Callable[[], Any]:
    """The work, to be done when its answer is asked for."""
    return lambda: named(dotted)(*arguments)


def named(dotted: str) -> Callable:
    """A function by the name of its module and its own: the main line need not import it."""
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(module), name)


def sent(connection: Connection, dotted: str, *arguments: Any) -> Callable[[], Any]:
    """The work, given to the process at the other end."""
    with suppress(OSError):
        connection.send_bytes(pickle.dumps((dotted, arguments)))

    def answer() -> Any:
        try:
            return pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return named(dotted)(*arguments)

    return answer


def serve(connection: Connection, module: str) -> None:
    """Do one piece of work: the process ends without an answer where it fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    Thread(target=end_with_parent, daemon=True).start()
    received: list[bytes] = []
    receiver = Thread(target=lambda: received.append(connection.recv_bytes()), daemon=True)
    receiver.start()
    import_module(module)
    receiver.join()
    with suppress(Exception):  # the parent meets it, too, and says it
        dotted, arguments = pickle.loads(received[0])
        connection.send_bytes(pickle.dumps(named(dotted)(*arguments)))


def end_with_parent() -> None:
    """End this process when its parent has ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
