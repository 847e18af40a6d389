"""Scores model versions on the same rows, with intervals from a bootstrap over whole days.

Flights of one day share their weather and their jams, so resampling single rows would make the intervals too narrow: whole
days are drawn instead, the same days for every model, so that the difference is paired.

    python3 score.py /data/untouched-july.parquet before=/models/A after=/models/B
    python3 score.py /data/untouched-july.parquet --versions-in /models   # the oldest and the newest version there
"""

import argparse
import json
import pathlib
import sys

import joblib
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from train import FEATURES, LABEL

METRICS = ["logLoss", "rocAuc", "accuracy"]
CLOCK_OF_NEW_YORK = "America/New_York"


def measure(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values of `METRICS`, in that order."""
    clipped = np.clip(probability, 1e-15, 1 - 1e-15)
    loss = -np.mean(np.where(truth, np.log(clipped), np.log1p(-clipped)))
    return np.array([loss, roc_auc_score(truth, probability), np.mean((probability >= 0.5) == truth)])


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of bootstrap values."""
    return [round(float(value), 4) for value in np.quantile(values, [0.025, 0.975])]


def score(rows: pd.DataFrame, models: dict[str, object], draws: int, seed: int) -> dict:
    """Each model's metrics, and last minus first model, with intervals."""
    truth = rows[LABEL].to_numpy()
    days = rows["time_hour"].dt.tz_convert(CLOCK_OF_NEW_YORK).dt.date.to_numpy()
    probability = {name: model.predict_proba(rows[FEATURES])[:, 1] for name, model in models.items()}
    probability["constant"] = np.full(len(truth), truth.mean())
    by_day = [np.flatnonzero(days == day) for day in np.unique(days)]
    random = np.random.default_rng(seed)
    samples = {name: np.empty((draws, len(METRICS))) for name in probability}
    for draw in range(draws):
        chosen = np.concatenate([by_day[day] for day in random.integers(0, len(by_day), len(by_day))])
        for name, values in probability.items():
            samples[name][draw] = measure(truth[chosen], values[chosen])

    result = {"rows": len(rows), "days": len(by_day), "draws": draws, "models": {}, "difference": {}}
    for name, values in probability.items():
        point = measure(truth, values)
        result["models"][name] = {
            metric: {"value": round(float(point[index]), 4), "interval": interval(samples[name][:, index])}
            for index, metric in enumerate(METRICS)
        }
    first, last = list(models)[0], list(models)[-1]
    gap = measure(truth, probability[last]) - measure(truth, probability[first])
    for index, metric in enumerate(METRICS):
        spread = samples[last][:, index] - samples[first][:, index]
        result["difference"][metric] = {"value": round(float(gap[index]), 4), "interval": interval(spread)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=pathlib.Path)
    parser.add_argument("models", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--versions-in", type=pathlib.Path, metavar="FOLDER", help="a TrainingJob's output")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2013)
    options = parser.parse_args()
    models = {}
    if options.versions_in:
        # A version exists once its manifest does; names sort by time.
        versions = sorted(path.parent for path in options.versions_in.glob("*/manifest.json"))
        if len(versions) < 2:
            sys.exit(f"{options.versions_in} holds {len(versions)} finished versions; comparing needs two.")
        options.models += [f"{folder.name}={folder}" for folder in (versions[0], versions[-1])]
    elif not options.models:
        parser.error("Name models as NAME=FOLDER, or give --versions-in.")
    for entry in options.models:
        name, separator, folder = entry.partition("=")
        if not separator:
            parser.error(f"{entry!r} should be NAME=FOLDER.")
        models[name] = joblib.load(pathlib.Path(folder) / "model.joblib")
    print(json.dumps(score(pd.read_parquet(options.rows), models, options.draws, options.seed)), flush=True)


if __name__ == "__main__":
    main()
