"""Drift and texts: CPU time, peak memory and results of Perennial beside Evidently, scipy, sacrebleu and rouge-score.

Each measurement is a process of its own, from its start to its end, reading included; what the kernel counts of it (wait4) is what is printed.
Importing the libraries is part of it and stands in a line of its own, to be subtracted by who keeps a process running. All sides get the same files, of
this seed, and their results are compared.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ["DO_NOT_TRACK"] = "1"
SEED = 20131
TEXTS = 20_000
EVIDENTLY = {"PSI": "psi", "KS": "ks", "Wasserstein": "wasserstein", "JensenShannon": "jensenshannon"}


def generate(work, rows):
    """20 columns of numbers and 5 of categories, some of which move; and texts beside references."""
    import numpy as np
    import pandas as pd

    rows, random = int(rows), np.random.default_rng(SEED)
    for side, moved in [("reference", 0.0), ("current", 1.0)]:
        columns = {}
        for i in range(8):
            columns[f"normal{i}"] = random.normal(0.06 * i * moved, 1, rows)
        for i in range(4):
            columns[f"skewed{i}"] = random.lognormal(0.1 * i * moved, 1, rows)
        for i in range(4):
            columns[f"rounded{i}"] = np.round(random.gamma(2 + 0.2 * i * moved, 10, rows), 1)
        for i in range(4):
            columns[f"count{i}"] = random.poisson(20 + i * moved, rows)
        for i, size in enumerate([2, 5, 20, 100, 300]):
            weights = 1 / np.arange(1, size + 1) ** (1 + 0.05 * i * moved)
            names = np.array([f"category {k}" for k in range(size)])
            columns[f"word{i}"] = names[random.choice(size, rows, p=weights / weights.sum())]
        frame = pd.DataFrame(columns)
        frame.to_parquet(work / f"{side}.parquet", row_group_size=131_072)
        frame.to_csv(work / f"{side}.csv", index=False)
    words = np.array([f"{a}{b}{c}" for a in "bdgklmnprst" for b in "aeiou" for c in ("", "n", "r", "st")])
    with open(work / "texts.jsonl", "w") as file:
        for _ in range(TEXTS):
            reference = random.choice(words, random.integers(5, 40))
            prediction = reference[random.random(len(reference)) > 0.1].copy()
            changed = random.random(len(prediction)) < 0.2
            prediction[changed] = random.choice(words, changed.sum())
            row = {"prediction": " ".join(prediction) + ".", "reference": " ".join(reference) + "."}
            file.write(json.dumps(row) + "\n")
    print("{}")


def frames(work, form):
    import pandas as pd

    read = pd.read_parquet if form == "parquet" else pd.read_csv
    return [read(work / f"{side}.{form}") for side in ("reference", "current")]


def by_evidently(work, form, method):
    import warnings

    warnings.filterwarnings("ignore")
    from evidently import Report
    from evidently.presets import DataDriftPreset

    reference, current = frames(work, form)
    preset = DataDriftPreset() if method == "default" else DataDriftPreset(num_method=EVIDENTLY[method], cat_method="jensenshannon")
    result = Report([preset]).run(current, reference).dict()
    scores = {}
    for metric in result["metrics"]:
        column = metric.get("config", {}).get("column")
        if column is not None:
            scores[column] = float(metric["value"])
    print(json.dumps(scores))


def by_scipy(work, form, method):
    from scipy import stats

    reference, current = frames(work, form)
    scores = {}
    for column in reference.columns:
        r, c = reference[column], current[column]
        if r.dtype.kind not in "if":
            continue
        if method == "KS":
            scores[column] = float(stats.ks_2samp(r, c).pvalue)
        else:
            scores[column] = float(stats.wasserstein_distance(r, c) / max(r.std(ddof=0), 0.001))
    print(json.dumps(scores))


def by_sacrebleu(work):
    import sacrebleu

    rows = [json.loads(line) for line in open(work / "texts.jsonl")]
    predictions, references = [r["prediction"] for r in rows], [r["reference"] for r in rows]
    print(json.dumps({"bleu": sacrebleu.corpus_bleu(predictions, [references]).score, "chrF": sacrebleu.corpus_chrf(predictions, [references]).score}))


def by_rouge_score(work):
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    sums = {}
    for line in open(work / "texts.jsonl"):
        row = json.loads(line)
        for name, score in scorer.score(row["reference"], row["prediction"]).items():
            sums[name] = sums.get(name, 0.0) + score.fmeasure / TEXTS
    print(json.dumps(sums))


def measured(command):
    """What a process costs, and what it prints."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    # 1 is "drift", 3 "inconclusive".
    if code not in (0, 1, 3) or not output:
        sys.exit(f"{' '.join(map(str, command))} ended with {code}: {errors[-2000:]}")
    cost = {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - started, "memory": usage.ru_maxrss / 1024}
    return cost, json.loads(output)


def line(what, cost, beside=None):
    ratio = f"  {cost['cpu'] / beside['cpu']:7.1f} ×  {cost['memory'] / beside['memory']:5.1f} ×" if beside else ""
    print(f"{what:<46} {cost['cpu']:8.2f} CPU s {cost['wall']:8.2f} s {cost['memory']:8.0f} MiB{ratio}", flush=True)


def drift_of(output):
    return {column["column"]: column["score"] for column in output["columns"] if "score" in column}


def same(ours, theirs, what):
    common = [name for name in theirs if name in ours]
    worst = max((abs(ours[name] - theirs[name]) / max(1e-9, abs(theirs[name])) for name in common), default=0)
    print(f"    {len(common)} scores in common, largest relative difference {worst:.1e}", flush=True)
    if not common or worst > 1e-6:
        sys.exit(f"{what}: the scores differ: {ours} {theirs}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--perennial")
    arguments.add_argument("--work", type=pathlib.Path, required=True)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--part", nargs="*")
    chosen = arguments.parse_args()
    work = chosen.work
    if chosen.part:
        name, *rest = chosen.part
        return globals()[name](work, *rest)

    def other(*part):
        return measured([sys.executable, __file__, "--work", str(work), "--part", *part])

    def own(form, *more):
        files = ["--reference", str(work / f"reference.{form}"), "--current", str(work / f"current.{form}")]
        return measured([chosen.perennial, "drift", *files, "--output", "json", *more])

    # In a process of its own: what the kernel says of a child's memory begins with its parent's.
    other("generate", str(chosen.rows))
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    sizes = ", ".join(f"{form} {(work / f'reference.{form}').stat().st_size / 2**20:.0f} MiB" for form in ("parquet", "csv"))
    print(f"Two files of {chosen.rows:,} rows by 25 columns (seed {SEED}; {sizes}); load {load} on {os.cpu_count()} processors.")
    print("CPU time and peak memory of whole processes; ratios are to Perennial on the same file.\n")
    for what, imports in [("Evidently", "import evidently.presets, evidently"), ("scipy", "import scipy.stats, pandas")]:
        cost, _ = measured([sys.executable, "-c", f"{imports}; print(0)"])
        line(f"importing {what}, in each of its figures", cost)
    for form in ("parquet", "csv"):
        print(f"\n{form}")
        numbers = {}
        for method in ("default", *EVIDENTLY):
            ours, output = own(form) if method == "default" else own(form, "--method", method, "--columns", ",".join(numbers))
            if not numbers:
                numbers = {c["column"]: None for c in output["columns"] if c["kind"] == "Numeric"}
            how = "all 25 columns, its choice" if method == "default" else f"20 columns, {method}"
            line(f"Perennial, {how}", ours)
            if form == "csv" and method != "default":
                continue
            if method == "default" or method in ("PSI", "KS", "Wasserstein"):
                cost, theirs = other("by_evidently", form, method)
                line("Evidently" + ("" if method == "default" else ", and Jensen–Shannon of the 5 others"), cost, ours)
                same(drift_of(output), theirs, method)
            if method in ("KS", "Wasserstein"):
                cost, theirs = other("by_scipy", form, method)
                line("scipy", cost, ours)
                same(drift_of(output), theirs, method)
    print(f"\n{TEXTS:,} texts")
    evaluation = work / "evaluation.yaml"
    for libraries, metrics in [(["by_sacrebleu"], ["bleu", "chrF"]), (["by_rouge_score"], ["rouge1", "rouge2", "rougeL"])]:
        evaluation.write_text(json.dumps({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "texts"},
            "spec": {"target": {"predictions": {"uri": "pvc://x/texts.jsonl", "reference": "reference"}}, "evaluators": [{"text": {"metrics": metrics}}]},
        }))
        ours, output = measured([chosen.perennial, "eval", "-f", str(evaluation), "--predictions", str(work / "texts.jsonl"), "--output", "json"])
        line(f"Perennial, {', '.join(metrics)}, with intervals", ours)
        values = {metric["name"]: metric["value"] for metric in output["metrics"] if metric["name"] in metrics}
        for library in libraries:
            cost, theirs = other(library)
            line(library.removeprefix("by_").replace("_", "-") + ", without", cost, ours)
            same(values, theirs, library)


if __name__ == "__main__":
    main()
