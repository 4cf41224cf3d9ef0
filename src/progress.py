"""How far many fits have come, for whoever is watching."""

from __future__ import annotations

import time
from collections.abc import Iterator

SAID = 10  # lines of progress where nobody is watching


def shown[T](found: Iterator[T], total: int, progress: bool) -> Iterator[T]:
    """What is found, progress being said on the way: a bar for a person, a few lines for a log."""
    from src.terminal import is_person

    if not progress:
        yield from found
    elif is_person():
        yield from with_bar(found, total)
    else:
        yield from with_lines(found, total)


def with_bar[T](found: Iterator[T], total: int) -> Iterator[T]:
    """What is found, under a bar with the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    words = TextColumn("fits"), BarColumn(), MofNCompleteColumn()
    times = TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()
    with Progress(*words, *times) as bar:
        task = bar.add_task("", total=total)
        for one in found:
            bar.advance(task)
            yield one


def with_lines[T](found: Iterator[T], total: int) -> Iterator[T]:
    """What is found, a line with the time left for every tenth of it."""
    start, step = time.monotonic(), max(1, total // SAID)
    for done, one in enumerate(found, start=1):
        if done % step == 0 or done == total:
            left = (time.monotonic() - start) / done * (total - done)
            print(f"  {done} of {total} fits, {in_time(left)} left", flush=True)
        yield one


def in_time(seconds: float) -> str:
    """A duration in the unit that fits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
