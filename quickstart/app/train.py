"""Trains the story's model: gradient boosting on raw, named columns.

Reads every Parquet file of the data set `train` and writes what MLServer's scikit-learn runtime serves as it
is: `model.joblib` and `model-settings.json`, with `metrics.json` beside them. Nothing here imports Perennial; the contract is
two environment variables and two folders.

    PERENNIAL_OUTPUT_DIR     where the model goes
    PERENNIAL_PROGRESS_FILE  lines of JSON while training (optional)
"""

import argparse
import json
import os
import pathlib
import time

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

CATEGORICAL = ["carrier", "origin", "dest", "dow"]
NUMERIC = ["sched_dep_min", "distance", "temp", "dewp", "wind_speed"]
FEATURES = ["sched_dep_min", "distance", "carrier", "origin", "dest", "dow", "temp", "dewp", "wind_speed"]
LABEL = "late"
VALIDATION_SHARE = 0.1


def build_pipeline(learning_rate: float, seed: int) -> Pipeline:
    """Columns by name in, probability of being late out. A category not seen in training counts as missing."""
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, dtype=np.float64)
    columns = ColumnTransformer([("categories", encode, CATEGORICAL), ("numbers", "passthrough", NUMERIC)])
    boosting = HistGradientBoostingClassifier(
        learning_rate=learning_rate, max_leaf_nodes=31, min_samples_leaf=100, l2_regularization=1.0,
        categorical_features=list(range(len(CATEGORICAL))), early_stopping=False, warm_start=True, random_state=seed,
    )
    return Pipeline([("columns", columns), ("boosting", boosting)])


def train(rows: pd.DataFrame, validation: pd.DataFrame, trees: int, learning_rate: float, seed: int, report) -> Pipeline:
    """Fits in ten steps and reports the validation loss after each."""
    pipeline = build_pipeline(learning_rate, seed)
    features = pipeline.named_steps["columns"].fit_transform(rows[FEATURES])
    boosting = pipeline.named_steps["boosting"]
    steps = 10
    for step in range(1, steps + 1):
        boosting.set_params(max_iter=max(1, trees * step // steps))
        boosting.fit(features, rows[LABEL])
        loss = log_loss(validation[LABEL], pipeline.predict_proba(validation[FEATURES])[:, 1])
        report({"step": step, "total": steps, "loss": round(float(loss), 5)})
    return pipeline


def model_settings(name: str) -> dict:
    """MLServer's description: requests of named columns become a data frame, answers are probabilities."""
    def column(feature: str) -> dict:
        if feature in CATEGORICAL:
            return {"name": feature, "datatype": "BYTES", "shape": [-1, 1], "parameters": {"content_type": "str"}}
        return {"name": feature, "datatype": "FP64", "shape": [-1, 1], "parameters": {"content_type": "np"}}

    return {
        "name": name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "inputs": [column(feature) for feature in FEATURES],
        "outputs": [{"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]}],
        "parameters": {"uri": "./model.joblib", "content_type": "pd", "extra": {"predict_fn": "predict_proba"}},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="arrival-delay", help="the model's name on the server")
    parser.add_argument("--input", type=pathlib.Path, default=pathlib.Path("/perennial/inputs/train"))
    parser.add_argument("--trees", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=2013)
    options = parser.parse_args()
    output = pathlib.Path(os.environ["PERENNIAL_OUTPUT_DIR"])
    progress = os.environ.get("PERENNIAL_PROGRESS_FILE")

    def report(line: dict) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        if progress:
            with open(progress, "a", encoding="utf-8") as file:
                file.write(text + "\n")

    started = time.monotonic()
    files = [options.input] if options.input.is_file() else sorted(options.input.rglob("*.parquet"))
    if not files:
        raise SystemExit(f"There is no .parquet file under {options.input}.")
    rows = pd.concat([pd.read_parquet(file, columns=[*FEATURES, LABEL]) for file in files], ignore_index=True)
    rows = rows.sample(frac=1.0, random_state=options.seed)
    held = int(len(rows) * VALIDATION_SHARE)
    validation, rows = rows.iloc[:held], rows.iloc[held:]
    pipeline = train(rows, validation, options.trees, options.learning_rate, options.seed, report)

    probability = pipeline.predict_proba(validation[FEATURES])[:, 1]
    truth = validation[LABEL].to_numpy()
    base = np.full(len(truth), rows[LABEL].mean())
    metrics = {
        "rocAuc": roc_auc_score(truth, probability),
        "logLoss": log_loss(truth, probability),
        "logLossConstant": log_loss(truth, base),
        "accuracy": float(((probability >= 0.5) == truth).mean()),
        "rows": len(rows),
        "seconds": time.monotonic() - started,
    }
    output.mkdir(parents=True, exist_ok=True)
    joblib.dump(pipeline, output / "model.joblib", compress=3)
    (output / "model-settings.json").write_text(json.dumps(model_settings(options.name), indent=2) + "\n")
    (output / "metrics.json").write_text(json.dumps({k: round(float(v), 5) for k, v in metrics.items()}, indent=2) + "\n")
    print(json.dumps(metrics), flush=True)


if __name__ == "__main__":
    main()
