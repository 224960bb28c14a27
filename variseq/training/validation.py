"""A network during training into the few numbers that choose the best epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, Queries
from variseq.model.network import Network
from variseq.model.scorer import NetworkScorer
from variseq.sequences.histories import Histories
from variseq.training.settings import TrainingConfig


@dataclass(frozen=True)
class ValidationScore:
    """Means over the validation queries: ranking metrics at 10, and −log p in nats."""

    ndcg: float
    recall: float
    nll: float


class Validation:
    """The validation part, cut down to a fixed sample of users where it is large, asked as the settings say."""

    def __init__(self, part: Part, config: TrainingConfig) -> None:
        users = np.unique(part.queries().user)
        if len(users) > config.validation_users:
            dropped = np.ones(len(part.history_end), dtype=bool)
            sample = np.random.default_rng(config.seed).choice(users, config.validation_users, replace=False)
            dropped[sample] = False
            part = replace(part, target_end=np.where(dropped, part.history_end, part.target_end))
        self.part = part
        self.options = EvaluationOptions(
            k=min(10, part.num_items), exclude_seen=config.exclude_seen, targets=config.targets
        )

    def queries(self) -> Queries:
        """What is asked."""
        return self.part.queries(self.options.targets)

    def watched(self) -> Histories:
        """The histories that are asked about, with their targets: what the posterior is examined on.

        Their earlier events are training events. Everybody's are taken where fewer than two are asked about, as
        posteriors are swapped between histories.
        """
        part = self.part
        asked = np.flatnonzero(part.target_end > part.history_end)
        rows = asked if len(asked) >= 2 else np.arange(len(part.target_end))
        return part.histories.select(part.histories.offsets[rows], part.target_end[rows])

    def score(self, network: Network) -> ValidationScore:
        """NDCG, recall and NLL of a network, ranking by the posterior mean."""
        was_training = network.training
        result = evaluate(NetworkScorer(network), self.part, self.options)
        network.train(was_training)
        means = {name: float(result.metric(name).mean()) for name in ("ndcg", "recall", "nll")}
        return ValidationScore(**means)
