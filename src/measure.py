"""One measurement: a script in a process of its own, watched; what it found is kept under a name that tells what it is.

    Measurement ──file──▶ kept JSON, or ──run──▶ facts of the script, its wall time, its largest memory ──▶ kept JSON

The name has a hash of all that determines the measurement: settings, sources, machine, versions. A run that was stopped
finds what it has done; whatever has changed is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.command import ROOT
from src.threads import THREADS

COMPILERS = ("cc1plus", "cc1", "as", "ld", "collect2", "g++", "clang")  # whose memory is not a sampler's
LOOK, SELDOM = 0.1, 30  # seconds from one look at a process to the next, or so many times what a look takes
MEGABYTE = 2**20
FAILED = "failed"  # why a script has no result that settings explain: it is tried again
LAST_WORDS = 300  # characters of what a failed script said


@dataclass(frozen=True)
class Measurement:
    """What determines a measurement.

    Attributes
    ----------
    part : str
        Of the benchmarks.
    name : str
        For a reader of the folder.
    settings : dict
        All that may change the numbers, as plain values.
    sources : tuple of Path
        Whose text determines them, too.
    """

    part: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()

    def file(self, folder: Path) -> Path:
        """Where it is kept beneath a folder."""
        digest = hashlib.sha256(json.dumps([self.settings, machine()], sort_keys=True, default=str).encode())
        for source in sorted(self.sources):
            digest.update(source.name.encode() + source.read_bytes())
        return folder / self.part / f"{self.name}-{digest.hexdigest()[:12]}.json"


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes
    ----------
    code : int, optional
        None where it was stopped because it took too long.
    wall : float
        Seconds.
    memory : float, optional
        Largest memory of all its processes together, compilers aside, in MB; None where the system does not tell.
    said : str
        The end of its standard error.
    """

    code: int | None
    wall: float
    memory: float | None
    said: str


def kept(folder: Path, measurement: Measurement) -> dict | None:
    """What was measured before; None where nothing was."""
    file = measurement.file(folder)
    return json.loads(file.read_text()) if file.exists() else None


def measured(folder: Path, measurement: Measurement, refit: bool, measure: Callable[[], dict]) -> dict:
    """What was measured before, or else is measured now by `measure()`; kept, but for a script that failed."""
    from src.trace import write

    found = None if refit else kept(folder, measurement)
    if found is None:
        found = measure()
        if FAILED in found:
            return found
        file = measurement.file(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        write(json.dumps(found, indent=1), file)
    return found


def scripted(command: list[str], job: dict, limit: float, caches: Path | None = None) -> tuple[dict, Path]:
    """Run a script of bench/ on a job: its facts with wall time and memory, and the stem of the files that it wrote.

    Parameters
    ----------
    command : list of str
        To which the path of the job is appended.
    job : dict
        Its `out` is the stem of what the script writes.
    limit : float
        Seconds, after which it is stopped.
    caches : Path, optional
        Folder for all that libraries cache; that of the user where not given.

    Returns
    -------
    dict
        `reason`, or `failed`, instead of facts where there are none.
    """
    out = Path(job["out"])
    path = out.with_name(f"{out.name}-job.json")
    path.write_text(json.dumps(job))
    single = dict.fromkeys(THREADS, "1")
    ended = run([*command, str(path)], limit, single | (cache_folders(caches) if caches else {}))
    result = out.with_name(f"{out.name}.json")
    if ended.code is None:
        return {FAILED: f"stopped after {limit:.0f} s"}, out
    if ended.code != 0 or not result.exists():
        return {FAILED: f"ended with code {ended.code}: {ended.said}"}, out
    return json.loads(result.read_text()) | {"wall": ended.wall, "memory": ended.memory}, out


def cache_folders(folder: Path) -> dict[str, str]:
    """Environment in which libraries keep their caches in `folder`."""
    return {
        "PYTENSOR_FLAGS": f"base_compiledir={folder / 'pytensor'}",
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def run(command: list[str], limit: float, environment: dict[str, str] | None = None) -> Ended:
    """Run a command to its end, in a session of its own, and watch its memory."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            memory = watched(process, start + limit)
        except BaseException:
            stop(process)
            raise
        if process.poll() is None:
            stop(process)
            return Ended(None, limit, memory, "")
        wall = time.perf_counter() - start
        errors.seek(0)
        lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return Ended(process.returncode, wall, memory, lines[-1][:LAST_WORDS] if lines else "")


def watched(process: subprocess.Popen, deadline: float) -> float | None:
    """Wait for a process to end, or for the deadline; the largest memory that its session had, in MB."""
    largest = 0.0
    while time.perf_counter() < deadline:
        began = time.perf_counter()
        largest = max(largest, memory_of(process.pid))
        try:
            pause = max(LOOK, SELDOM * (time.perf_counter() - began))  # lest looking slow it down
            process.wait(min(pause, max(deadline - time.perf_counter(), 0.0)))
        except subprocess.TimeoutExpired:
            continue
        break
    return largest / MEGABYTE or None


def stop(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def memory_of(session: int) -> float:
    """Bytes of memory of all processes of a session, compilers aside; 0 where the system does not tell.

    Of what is shared between processes, each has its part.
    """
    total = 0
    for folder in members(session):
        with suppress(OSError, IndexError, ValueError):  # it has ended meanwhile
            if (folder / "comm").read_text().strip() not in COMPILERS:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return float(total)


def members(session: int) -> Iterator[Path]:
    """Where the system tells of every process of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                yield folder


def machine() -> dict[str, str]:
    """The machine and what it runs: benchmarks of another one are others."""
    from src.trace import library_versions

    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{total_memory():.0f} GB" if total_memory() else "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {number}" for name, number in library_versions().items()),
    }


def processor() -> str:
    """Its name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def total_memory() -> float:
    """Of the machine, in GB; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return 0.0


def module(name: str) -> list[str]:
    """The command that runs a module of this project."""
    return [sys.executable, "-m", name]
