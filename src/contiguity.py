"""Which places border on which, as files of ties: `python -m src.contiguity` writes them to data/generated/.

    us_counties.csv   counties of the United States by FIPS code as a number, from the shapes in `plotly_geo`
    us_states.csv     the 48 contiguous states, numbered as in `data=driving`, from the shapes in `libpysal`

Queen contiguity: two places that share a point of their border are tied, each to the other.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from src.trace import ROOT, write

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

HOME = ROOT / "data" / "generated"
COUNTIES = "package_data/cb_2016_us_county_500k.shp"  # of plotly_geo: US Census Bureau, 1:500,000
STATES = "examples/us_income/us48.shp"  # of libpysal
FAR = ("02", "15", "60", "66", "69", "72", "78")  # FIPS of Alaska, Hawaii and the territories
ABSENT = 2, 9, 12  # places in the alphabet of 51 that are no contiguous state: Alaska, D.C., Hawaii


def shapes(package: str, file: str) -> geopandas.GeoDataFrame:
    """Shapes that an installed package carries.

    Raises
    ------
    FileNotFoundError
        The package is not installed.
    """
    import geopandas

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {package} is not installed: pip install {package.strip('_')}")
    return geopandas.read_file(Path(spec.submodule_search_locations[0]) / file)


def counties() -> geopandas.GeoDataFrame:
    """Counties of the contiguous states with their label, sorted by it."""
    found = shapes("_plotly_geo", COUNTIES)
    found = found[~found["STATEFP"].isin(FAR)]
    return found.assign(label=found["GEOID"].astype(int).astype(str)).sort_values("GEOID").reset_index(drop=True)


def states() -> geopandas.GeoDataFrame:
    """The 48 contiguous states with their label, in the order of the alphabet."""
    found = shapes("libpysal", STATES).sort_values("STATE_NAME").reset_index(drop=True)
    numbers = [number for number in range(1, 52) if number not in ABSENT]
    return found.assign(label=[str(number) for number in numbers])


def borders(places: geopandas.GeoDataFrame) -> pd.DataFrame:
    """Columns from, to and weight, a row for each ordered pair of places that touch."""
    import pandas as pd

    one, other = places.sindex.query(places.geometry, predicate="intersects")
    apart = one != other
    label = places["label"].to_numpy()
    found = pd.DataFrame({"from": label[one[apart]], "to": label[other[apart]], "weight": 1.0})
    return found.sort_values(["from", "to"], ignore_index=True)


def main() -> int:
    """Write both files; 2 where a package is missing."""
    HOME.mkdir(parents=True, exist_ok=True)
    for name, places in (("us_counties", counties), ("us_states", states)):
        try:
            found = borders(places())
        except FileNotFoundError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        path = HOME / f"{name}.csv"
        write(found.to_csv(index=False), path)
        print(f"{path}: {len(found):,} ties")
    return 0


if __name__ == "__main__":
    sys.exit(main())
