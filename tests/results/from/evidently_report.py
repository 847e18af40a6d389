"""Small data, drawn with a seed: a reference, and current data in which `age` has drifted."""
import sys

import numpy as np
import pandas as pd
from evidently import Report, Dataset, DataDefinition, BinaryClassification
from evidently.presets import ClassificationPreset, DataDriftPreset
from evidently.metrics import MeanValue, MissingValueCount, QuantileValue, RowCount, UniqueValueCount
from evidently.tests import gte, lte

r = np.random.default_rng(7)
def frame(n, age):
    x = pd.DataFrame({"age": r.normal(age, 10, n).round(2), "plan": r.choice(["basic", "pro"], n), "target": r.integers(0, 2, n), "empty": np.nan})
    x["prediction"] = np.where(r.random(n) < 0.8, x.target, 1 - x.target)
    x.loc[x.index[:3], "plan"] = None
    return x
ref, cur = frame(300, 40), frame(200, 48)
d = DataDefinition(classification=[BinaryClassification(target="target", prediction_labels="prediction")], numerical_columns=["age", "empty"], categorical_columns=["plan", "target", "prediction"])
ref, cur = (Dataset.from_pandas(f, data_definition=d) for f in (ref, cur))
report = Report([RowCount(tests=[gte(100)]), MissingValueCount(column="plan", tests=[lte(2)]), MeanValue(column="age", tests=[lte(45)]), UniqueValueCount(column="plan"), MeanValue(column="empty"), QuantileValue(column="age", quantile=0.25), QuantileValue(column="age", quantile=0.75), DataDriftPreset(columns=["age", "plan", "target", "prediction"]), ClassificationPreset()], include_tests=True)
run = report.run(cur, ref)
run.save_json(sys.argv[1])
