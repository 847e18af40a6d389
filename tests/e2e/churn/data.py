"""Writes two small tables of customers, some of whom leave: churn.parquet to learn from and churn-holdout.parquet to be asked.

Made up, from a fixed seed: who pays by the month, pays much and has not been there for long leaves more often. Labels of
churn-swapped have nothing to do with the rest; in churn-dear everything costs more.
"""

import argparse
import pathlib

import numpy as np
import pandas as pd


def customers(rows: int, seed: int, swap: bool = False, dearer: float = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    months = random.integers(1, 72, rows)
    charge = random.normal(65, 20, rows).clip(20, 120) + dearer
    contract = random.choice(["month", "year", "two-years"], rows, p=[0.55, 0.25, 0.2])
    score = -0.4 - 0.05 * months + 0.03 * (charge - 65) + np.where(contract == "month", 1.6, -0.8)
    chance = 1 / (1 + np.exp(-score))
    if swap:
        chance = random.permutation(chance)
    return pd.DataFrame({
        "months": months,
        "charge": charge.round(2),
        "contract": contract,
        "churned": random.random(rows) < chance,
    })


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    tables = {
        "churn": customers(3000, 1),
        "churn-more": customers(4000, 2),
        "churn-swapped": customers(3000, 3, swap=True),
        "churn-holdout": customers(1500, 4),
        "churn-dear": customers(3000, 5, dearer=40),
    }
    for name, table in tables.items():
        table.to_parquet(options.folder / f"{name}.parquet", index=False)
        print(f"{name}.parquet: {len(table)} rows", flush=True)


if __name__ == "__main__":
    main()
