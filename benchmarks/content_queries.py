"""A fitted model on the test queries of its log, one number a query, with the training events of each target."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq import VariationalAttention
from variseq.artifacts.checkpoint import Checkpoint
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.significance import mean_interval
from variseq.log import Log
from variseq.terminal.run_config import RunConfig

K = 10


def fitted(log: Log, settings: RunConfig) -> tuple[VariationalAttention, float]:
    """A model, and the CPU seconds of its training."""
    split = settings.split
    train, valid, _ = log.split(split.by, split.test, split.valid)
    model = VariationalAttention(settings.size, settings.seed, "cpu", settings.model, settings.training)
    begun = time.process_time()
    model.fit(train, valid, verbose=0)
    return model, time.process_time() - begun


@dataclass(frozen=True)
class TestQueries:
    """Metrics of each test query, and how often the model was trained on its target."""

    metrics: dict[str, Float[np.ndarray, " query"]]
    count: Int[np.ndarray, " query"]

    @classmethod
    def of(cls, recommender: Recommender, checkpoint: Checkpoint, log: Log, settings: RunConfig) -> TestQueries:
        """Each user's last event of the test part, ranked as a run is evaluated."""
        split = settings.split
        _, valid, test = log.split(split.by, split.test, split.valid)
        excludes = bool(checkpoint.manifest["exclude_seen"])
        options = EvaluationOptions(K, "last", excludes, checkpoint.calibrated.repeat_share)
        found = evaluate(recommender, test.part, options)
        known = valid.part.history_with_targets() if checkpoint.is_refitted else valid.part.history()
        count = np.bincount(known.item, minlength=test.part.num_items)
        target = test.part.histories.item[test.part.queries("last").position].astype(np.int64)
        return cls({name: found.metric(name) for name in ("ndcg", "recall", "nll")}, count[target])

    def means(self, chosen: Bool[np.ndarray, " query"], suffix: str = "") -> dict[str, float]:
        """The mean of each metric over some queries."""
        return {f"{name}{suffix}": float(one[chosen].mean()) for name, one in self.metrics.items()}

    def differences(self, first: TestQueries, chosen: Bool[np.ndarray, " query"], suffix: str = "") -> dict[str, Any]:
        """The mean difference to `first` over some queries, with its interval."""
        found: dict[str, Any] = {}
        for name, values in self.metrics.items():
            difference = (values - first.metrics[name])[chosen]
            found[f"{name}_difference{suffix}"] = float(difference.mean())
            found[f"{name}_difference{suffix}_interval"] = list(mean_interval(np.arange(len(difference)), difference))
        return found
