"""The project's trivial recommenders (popular, last-item transitions, item neighbors) into an answer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from measure import Job, K, LearningCurve, Lists, Settings, cpu_seconds, measure
from sequences import Sequences
from variseq_log import log_of

from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.recommend.baselines import LastItemTransitions, Popular
from variseq.recommend.item_knn import ItemKNN
from variseq.recommend.recommender import rank_items
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

YARDSTICKS = {model.name: model for model in (Popular, LastItemTransitions, ItemKNN)}


class Yardstick:
    """Counts the training part once."""

    targets_per_epoch = None
    num_parameters = None

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        self.parts = log_of(sequences).split("leave-one-out")
        self.vocabulary = self.parts[0].vocabulary
        self.model = YARDSTICKS[settings.variant](self.vocabulary.num_items)
        self.wish = Wish(self.vocabulary.num_items, K)
        self.items = np.zeros((0, K), dtype=np.int64)

    def describe(self) -> dict[str, Any]:
        return {"versions": {"variseq": version("variseq")}, "own_settings": {}}

    def measure_cost(self) -> float:
        return cpu_seconds(self._fit)

    def train(self, curve: LearningCurve) -> str:
        curve.begin_epoch()
        self._fit()
        curve.end_epoch()
        judged = evaluate(self.model, self.parts[1].part, EvaluationOptions(K, "last"))
        curve.validated(float(judged.metric("ndcg").mean()))
        return "one fit"

    def recommend_all(self) -> None:
        self.items = rank_items(self.model, self.parts[2].part.known(), self.wish).item

    def test_lists(self) -> Lists:
        users = self.vocabulary.user_ids(range(self.vocabulary.num_users))
        return {user: self.vocabulary.item_ids(row[row >= 0]) for user, row in zip(users, self.items, strict=True)}

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        known = Histories.of_items([self.vocabulary.item_positions(history).tolist()])
        row = rank_items(self.model, known, self.wish).item[0]
        return self.vocabulary.item_ids(row[row >= 0])

    def _fit(self) -> None:
        self.model.fit(self.parts[0].part.known())


if __name__ == "__main__":
    measure(Job.from_command_line(), Yardstick)
