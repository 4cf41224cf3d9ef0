"""One thread for linear algebra, set before NumPy is loaded: on matrices this small, more only wait for each other."""

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")  # as src.recover's
os.environ.update(dict.fromkeys(THREADS, "1"))
