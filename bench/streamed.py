"""What reading a folder of Parquet files a block at a time and collapsing it takes: `python -m bench.streamed`.

Beside stages, the constants by which docs/cluster.md plans larger ones.
"""

from __future__ import annotations

import cProfile
import json
import pickle
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from bench.growth import called_by
from bench.panels import configured
from src.collapse import Collapsed, collapse, whitened_products
from src.errors import Errors
from src.fit import errors_of, rows_of
from src.nuisance import nodes_about
from src.passes import Layout, forms, weighed
from src.stopwatch import stopwatch


def largest(_: int = 0) -> float:
    """The most memory that this process has had, in MB; NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), float("nan"))


def a_round(collapsed: Collapsed, errors: Errors) -> None:
    """What one round of the estimate of the errors asks of rows: two passes."""
    found, now = collapsed.regression, collapsed.nuisance
    assert found.blocks is not None
    layout = Layout.of(found, errors, collapsed.s)
    rows = found.blocks.with_layout(layout)
    columns = max(block.stop for block in layout.blocks.values())
    nothing = np.zeros((columns, 1 + layout.draws))
    rows.total(partial(forms, coefficients=nothing, now=now.bare, nodes=nodes_about(now.rho, 0.0)), now.weight)
    rows.total(partial(weighed, coefficients=nothing, before=now.bare, now=now.bare), now.weight)


def main() -> None:
    """Time both at the job's size, with the default likelihood: shocks, a scale for every unit, serial correlation."""
    job = json.loads(Path(sys.argv[1]).read_text())
    config = configured(
        *("data=csv", f"data.path={job['folder']}", "data.unit=firm", "data.time=year", "data.cohort=cohort"),
        *("data.outcome=outcome", f"data.covariates=[{','.join(job['covariates'])}]", "progress=false"),
        "data.groups={industry: industry, ownership: ownership}",
        "data.exposures={district: district, industry: industry}",
        f"engine.cores={job['cores']}",
    )
    seconds: dict[str, float] = {}
    profile = cProfile.Profile()
    with ExitStack() as stack:
        with stopwatch(seconds, "load"):
            regression, _, _ = rows_of(config, stack)
        assert regression.blocks is not None
        errors = errors_of(config, regression)
        with stopwatch(seconds, "collapse"):
            profile.enable()
            collapsed = collapse(regression, errors)
            profile.disable()
        spent: dict[str, float] = {}
        with stopwatch(spent, "round"):
            a_round(collapsed, errors)
        with stopwatch(spent, "last"):
            columns = len(whitened_products(collapsed.regression, collapsed.nuisance).moment)
        rows, units, found = regression.rows, len(regression.panel.units), collapsed.nuisance
        shocks = sum(shock.levels for shock in found.shocks.values()) * len(regression.frame.periods)
        each = job["cores"] / (rows / 1e6)
        constants = {
            "rounds over all rows": found.passes,
            "seconds a round, per million rows and core": spent["round"] * each,
            "seconds of the last pass, the same": spent["last"] * each,
            "columns of the design": columns,
            "columns of shocks": shocks,
            "bytes a row, in blocks": sum(path.stat().st_size for path in regression.blocks.paths) / rows,
            "bytes a unit, of what is known of units": len(pickle.dumps((regression.panel, found), protocol=5)) / units,
            "MB of the head, at most": largest(),
            "MB of a worker, at most": max(size for _, size in regression.blocks.engine.each(largest, range(50))),
        }
    facts = {
        "rows": rows,
        "columns": len(collapsed.evidence.moment),
        "constants": constants,
        "seconds": seconds,
        "parts": called_by(profile, "collapse"),
    }
    Path(job["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
