"""Two finished runs into how much one is better than the other."""

from __future__ import annotations

from pathlib import Path

from variseq.estimator import load
from variseq.evaluation.significance import Comparison
from variseq.evaluation.significance import compare as compare_evaluations


def compare(first: Path | str, second: Path | str, metric: str = "ndcg", k: int = 10) -> Comparison:
    """Two runs on their common test part, paired by user: difference, 95 % interval and permutation p-value.

    Raises InputError when they were not made with the same data and split, or only one of them was refitted.
    """
    name = f"the run {second}"
    results = load(first).evaluate(k=k, beside={name: load(second)})
    return compare_evaluations(results.evaluations[0], results[name], metric)
