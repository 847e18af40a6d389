"""An evaluator as a user would write one: asks the target, and stable where there is one, for the rows of the dataset, and writes plain JSON."""

import json
import os
import pathlib
import urllib.request

import pandas as pd
from sklearn.metrics import accuracy_score, roc_auc_score

KINDS = {"months": "INT64", "charge": "FP64", "contract": "BYTES"}


def ask(url: str, rows: pd.DataFrame) -> pd.Series:
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(rows), 1], "data": rows[name].tolist()} for name, kind in KINDS.items()
    ]
    body = json.dumps({"inputs": inputs}).encode()
    request = urllib.request.Request(f"{url}/v2/models/churn/infer", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        output = json.load(answer)["outputs"][0]
    return pd.Series(output["data"][1::2])


def main() -> None:
    rows = pd.read_parquet(os.environ["PERENNIAL_DATASET"])
    metrics = {}
    for prefix, name in [("", "PERENNIAL_TARGET_URL"), ("stable.", "PERENNIAL_STABLE_URL")]:
        if url := os.environ.get(name):
            score = ask(url, rows)
            for metric, value in [("rocAuc", roc_auc_score(rows.churned, score)), ("accuracy", accuracy_score(rows.churned, score > 0.5))]:
                metrics[prefix + metric] = {"value": value, "samples": len(rows)}
    results = pathlib.Path(os.environ["PERENNIAL_OUTPUT_DIR"]) / "results.json"
    results.write_text(json.dumps({"metrics": metrics}))
    print(metrics, flush=True)


if __name__ == "__main__":
    main()
