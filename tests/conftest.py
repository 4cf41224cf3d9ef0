"""One thread for linear algebra, set before NumPy is loaded."""

from src import threads

threads.single()
