"""What reading a folder of Parquet files a block at a time and collapsing it takes: `python -m bench.streamed`."""

from __future__ import annotations

import cProfile
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.growth import called_by
from bench.panels import configured
from src.collapse import collapse
from src.fit import errors_of, rows_of
from src.stopwatch import stopwatch


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
        facts = {
            "rows": regression.rows,
            "columns": len(collapsed.evidence.moment),
            "blocks": len(regression.blocks.paths),
            "passes": collapsed.nuisance.passes,
            "seconds": seconds,
            "parts": called_by(profile, "collapse"),
        }
    Path(job["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
