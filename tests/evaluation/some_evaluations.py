"""Numbers into an evaluation whose forecasts are true: what was said of an item is how often it comes."""

from __future__ import annotations

from typing import Any

import numpy as np

from variseq.evaluation.calibration import reliability
from variseq.evaluation.evaluation import Evaluation, Forecasts

NUM_ITEMS = 200


def calibration_error(probability: np.ndarray, correct: np.ndarray) -> float:
    """The definition: the mean over forecasts of |mean probability − frequency| of their bin."""
    bins = reliability(probability, correct)
    return float(np.average(np.abs(bins.mean_probability - bins.frequency), weights=bins.num_forecasts))


def true_forecasts(lengths: np.ndarray, k: int = 3, seed: int = 0, **changed: Any) -> Evaluation:
    """One query a user, with histories of these lengths; the longer a history, the more probable is its list."""
    generator = np.random.default_rng(seed)
    num_queries = len(lengths)
    sure = (0.1 + 0.8 * lengths / (lengths + 5))[:, None] * generator.uniform(0.5, 1, (num_queries, 1))
    probability = sure * np.array([0.6, 0.3, 0.1])[:k]
    drawn = generator.random(num_queries)[:, None]
    ends = probability.cumsum(axis=1)
    hit = (drawn < ends) & (drawn >= ends - probability)
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, 50.0)
    fields: dict[str, Any] = {
        "model": "true",
        "protocol": {"k": k, "num_items": NUM_ITEMS, "split_hash": "0" * 64,
                     "num_users_evaluated": num_queries, "num_users_with_targets": num_queries,
                     "part": "test", "method": "made up",
                     "targets": "last", "exclude_seen": True, "candidates": "full catalog", "ties": "against"},
        "user": np.arange(num_queries),
        "target": generator.integers(NUM_ITEMS, size=num_queries),
        "history_length": lengths,
        "target_count": generator.integers(0, 40, size=num_queries),
        "target_was_seen": np.zeros(num_queries, dtype=bool),
        "rank": rank,
        "top_item": generator.integers(NUM_ITEMS, size=(num_queries, k)),
        "top_item_count": generator.integers(1, 40, size=(num_queries, k)),
        "novelty": np.ones(num_queries),
        "diversity": None,
        "forecasts": Forecasts(
            nll=5 - 3 * sure[:, 0],
            brier=1 - sure[:, 0] / 2,
            entropy=5 - 4 * sure[:, 0],
            top_probability=probability,
            top_is_target=hit,
            mass_before=generator.random(num_queries),
        ),
    }  # fmt: skip
    return Evaluation(**(fields | changed))
