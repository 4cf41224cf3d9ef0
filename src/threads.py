"""How a process runs: one thread for linear algebra, since on matrices this small more only wait for each other."""

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def single() -> None:
    """Set it, before NumPy is loaded, where the user has not set anything else."""
    for name in THREADS:
        os.environ.setdefault(name, "1")


def rarely_collected() -> None:
    """Look for cycles of garbage far less often, and not at exit: libraries make many small objects that stay."""
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)


@contextmanager
def one_each(names: tuple[str, ...] = THREADS) -> Iterator[None]:
    """Processes that are started in the block use one thread each: other processes have the other cores.

    Parameters
    ----------
    names : tuple of str
        Variables of the environment that libraries read it from.
    """
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
