"""What the scripts of this folder share: read a job, plan what fits into its budget, hand draws back. NumPy alone."""

import json
import sys
import time
from pathlib import Path

import numpy as np

LEAST_TUNE, LEAST_DRAWS = 100, 50  # a chain
PATIENCE = 3  # times the budget, where fewer than the least draws would be left of it
GRADIENTS = 20  # that are timed


def read() -> tuple[dict, dict[str, np.ndarray]]:
    """The job, and the arrays that it names."""
    job = json.loads(Path(sys.argv[1]).read_text())
    with np.load(job["data"]) as file:
        return job, {name: file[name] for name in file.files}


def seconds_a_gradient(gradient) -> float:
    """Median seconds of a call of `gradient()`, which is compiled already."""
    spent = []
    for _ in range(GRADIENTS):
        start = time.perf_counter()
        gradient()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def plan(job: dict, gradient: float) -> tuple[int, int]:
    """Tuning and kept iterations a chain that fit into the budget, half and half, if each takes `job["steps"]` steps.

    Ends the script with a reason where not even the fewest fit.
    """
    affordable = job["budget"] * job["cores"] / (job["chains"] * gradient)
    least = (LEAST_TUNE + LEAST_DRAWS) * job["least_steps"]
    if affordable < least:
        needed = job["budget"] * least / affordable
        give_up(
            job,
            f"{job['budget']:g} s are too few for {LEAST_TUNE} tuning and {LEAST_DRAWS} kept iterations a chain at "
            f"{1000 * gradient:.2g} ms a gradient: give a budget of {np.ceil(needed):.0f} s at least",
        )
    iterations = affordable / job["steps"]
    tune = int(np.clip(iterations / 2, LEAST_TUNE, job["tune"]))
    return tune, int(np.clip(iterations - tune, LEAST_DRAWS, job["draws"]))


def give_up(job: dict, reason: str) -> None:
    """Write the reason for there being no draws, and end."""
    Path(job["out"] + ".json").write_text(json.dumps({"reason": reason}))
    sys.exit(0)


def hand_back(job: dict, draws: dict[str, np.ndarray], **facts) -> None:
    """Write draws, arrays with dims chain and draw first, and the facts beside them.

    What was interrupted is cut to the shortest chain; nothing is left of it where the budget ended while tuning.
    """
    kept = min((value.shape[1] for value in draws.values()), default=0)
    if kept < LEAST_DRAWS:
        give_up(
            job,
            f"{job['budget']:g} s ended after {facts.get('tune', 0)} tuning and {kept} kept iterations a chain, of "
            f"which {LEAST_DRAWS} are wanted: give a larger budget",
        )
    np.savez(job["out"] + ".npz", allow_pickle=False, **draws)
    facts |= {"draws": kept, "chains": next(iter(draws.values())).shape[0]}
    Path(job["out"] + ".json").write_text(json.dumps(facts))


def is_over(job: dict, spent: float, kept: int) -> bool:
    """Whether to stop after so many seconds, with so many kept draws of the slowest chain."""
    return spent > job["budget"] * (1 if kept >= LEAST_DRAWS else PATIENCE)


def ended(sampler, job: dict, name: str):
    """The draws of a background sampler of nutpie, which is ended when the budget is spent."""
    start = time.perf_counter()
    while True:
        try:
            return sampler.wait(timeout=job["budget"] / 10)
        except TimeoutError:
            posterior = sampler.inspect()["posterior"]
            values = posterior[name].to_numpy() if name in posterior else np.empty((1, 0))
            whole = np.isfinite(values).reshape(*values.shape[:2], -1).all(axis=(0, 2)) if values.size else np.zeros(0)
            if is_over(job, time.perf_counter() - start, int(whole.sum())):
                return sampler.abort()


def watch(job: dict):
    """A callback of PyMC that ends sampling when the budget is spent, and the moments of the first and last draw."""
    moments: dict[str, float] = {}
    kept = dict.fromkeys(range(job["chains"]), 0)

    def callback(trace, draw) -> None:
        now = time.perf_counter()
        moments.setdefault("first", now)
        moments["last"] = now
        kept[draw.chain] += not draw.tuning
        if is_over(job, now - moments["first"], min(kept.values())):
            raise KeyboardInterrupt  # as PyMC wants it

    return moments, callback
