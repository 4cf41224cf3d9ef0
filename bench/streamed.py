"""What reading a folder of Parquet files a block at a time and collapsing it takes: `python -m bench.streamed`.

Beside stages, the constants by which docs/cluster.md plans larger ones.
"""

from __future__ import annotations

import cProfile
import json
import pickle
import resource
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.growth import called_by
from bench.panels import configured
from src.collapse import collapse, whitened_products
from src.fit import errors_of, rows_of
from src.stopwatch import stopwatch

WHO = {"MB of the head": resource.RUSAGE_SELF, "MB of a worker": resource.RUSAGE_CHILDREN}


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
        with stopwatch(seconds, "collapse"):
            profile.enable()
            collapsed = collapse(regression, errors_of(config, regression))
            profile.disable()
        spent: dict[str, float] = {}
        with stopwatch(spent, "pass"):
            columns = len(whitened_products(collapsed.regression, collapsed.nuisance).moment)
        rows, units = regression.rows, len(regression.panel.units)
        kept = sum(path.stat().st_size for path in regression.blocks.paths)
        constants = {
            "passes": collapsed.nuisance.passes,
            "columns of the design": columns,
            "columns of shocks": sum(
                shock.levels * len(regression.frame.periods) for shock in collapsed.nuisance.shocks.values()
            ),
            "bytes a row, in blocks": kept / rows,
            "seconds a pass, per million rows and core": spent["pass"] * job["cores"] / (rows / 1e6),
            "bytes a unit, at the head": len(pickle.dumps(regression.panel, protocol=5)) / units,
        }
    largest = {name: resource.getrusage(who).ru_maxrss / 1e3 for name, who in WHO.items()}
    facts = {
        "rows": rows,
        "columns": len(collapsed.evidence.moment),
        "constants": constants | largest,
        "seconds": seconds,
        "parts": called_by(profile, "collapse"),
    }
    Path(job["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
