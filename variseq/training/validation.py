"""A network during training into the few numbers that choose the best epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part
from variseq.model.network import Network
from variseq.model.scorer import NetworkScorer


@dataclass(frozen=True)
class ValidationScore:
    """Means over the validation queries: ranking metrics at 10 with seen items excluded, and −log p in nats."""

    ndcg: float
    recall: float
    nll: float


class Validation:
    """The validation part, cut down to a fixed sample of users where it is large."""

    def __init__(self, part: Part, max_users: int, exclude_seen: bool = True, seed: int = 0) -> None:
        users = part.queries().user
        if len(users) > max_users:
            dropped = np.ones(len(part.history_end), dtype=bool)
            dropped[np.random.default_rng(seed).choice(users, max_users, replace=False)] = False
            part = replace(part, target_end=np.where(dropped, part.history_end, part.target_end))
        self.part = part
        self.options = EvaluationOptions(k=min(10, part.num_items), exclude_seen=exclude_seen)

    def score(self, network: Network) -> ValidationScore:
        """NDCG, recall and NLL of a network, ranking by the posterior mean."""
        was_training = network.training
        result = evaluate(NetworkScorer(network), self.part, self.options)
        network.train(was_training)
        means = {name: float(result.metric(name).mean()) for name in ("ndcg", "recall", "nll")}
        return ValidationScore(**means)
