"""One thread for linear algebra: on matrices this small, more only wait for each other."""

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def single() -> None:
    """Set it, before NumPy is loaded, where the user has not set anything else."""
    for name in THREADS:
        os.environ.setdefault(name, "1")
