"""What we do: read, design, collapse, sample, estimate, compare, draw."""

import os

# Numba's last optimisations double the time to compile a model whose gradient is one matrix product and gains nothing
os.environ.setdefault("NUMBA_OPT", "1")
