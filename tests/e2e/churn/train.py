"""Trains on the data set `train` and writes what MLServer serves: logistic regression on named columns."""

import json
import os
import pathlib

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMERIC = ["months", "charge"]
CATEGORICAL = ["contract"]
LABEL = "churned"


def column(name: str) -> dict:
    if name in CATEGORICAL:
        return {"name": name, "datatype": "BYTES", "shape": [-1, 1], "parameters": {"content_type": "str"}}
    return {"name": name, "datatype": "FP64", "shape": [-1, 1], "parameters": {"content_type": "np"}}


def main() -> None:
    rows = pd.concat(pd.read_parquet(file) for file in sorted(pathlib.Path("/perennial/inputs/train").rglob("*.parquet")))
    columns = ColumnTransformer([("numbers", StandardScaler(), NUMERIC), ("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORICAL)])
    model = Pipeline([("columns", columns), ("regression", LogisticRegression(max_iter=1000))])
    model.fit(rows[NUMERIC + CATEGORICAL], rows[LABEL])
    score = roc_auc_score(rows[LABEL], model.predict_proba(rows[NUMERIC + CATEGORICAL])[:, 1])
    output = pathlib.Path(os.environ["PERENNIAL_OUTPUT_DIR"])
    joblib.dump(model, output / "model.joblib")
    settings = {
        "name": "churn",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "inputs": [column(name) for name in NUMERIC + CATEGORICAL],
        "outputs": [{"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]}],
        "parameters": {"uri": "./model.joblib", "content_type": "pd", "extra": {"predict_fn": "predict_proba"}},
    }
    (output / "model-settings.json").write_text(json.dumps(settings))
    (output / "metrics.json").write_text(json.dumps({"rocAuc": score}))
    print(f"{len(rows)} rows, AUC {score:.3f}", flush=True)


if __name__ == "__main__":
    main()
