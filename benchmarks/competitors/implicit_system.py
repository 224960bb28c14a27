"""implicit: alternating least squares, or item neighbors under BM25, for the runner of competitors."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, bm25_weight
from process import Histories, Job, K, LearningCurve, Lists, Sequences, Settings, cpu_seconds, measure
from scipy.sparse import csr_matrix

NUM_NEIGHBOURS = 100
NUM_ITERATIONS = 15
WEIGHTING = {"K1": 100, "B": 0.8}
"""BM25 of the counts before the factors are learned, as in the examples of the library."""


class ImplicitModel:
    """Learns from a matrix of users and items: one fit, no epochs, no targets."""

    targets_per_epoch = None
    num_parameters: int | None = None

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        self.sequences = sequences
        self.settings = settings
        self.position = {item: place for place, item in enumerate(sequences.items)}
        self.is_als = settings.variant == "als"
        self.model = (
            AlternatingLeastSquares(
                factors=settings.hidden_size, iterations=NUM_ITERATIONS, random_state=settings.seed, num_threads=1
            )
            if self.is_als
            else BM25Recommender(K=NUM_NEIGHBOURS, num_threads=1)
        )
        self.places = np.zeros((0, K), dtype=np.int64)

    def describe(self) -> dict[str, Any]:
        own = {"iterations": NUM_ITERATIONS, **WEIGHTING} if self.is_als else {"neighbors": NUM_NEIGHBOURS}
        return {"versions": {"implicit": version("implicit")}, "own_settings": own}

    def measure_cost(self) -> float:
        return cpu_seconds(self._fit)

    def train(self, curve: LearningCurve) -> str:
        curve.begin_epoch()
        self._fit()
        curve.end_epoch()
        places = self._best(self._matrix(self.sequences.train))
        target = np.array([self.position[item] for item in self.sequences.validation.values()])
        _, place = np.nonzero(places == target[:, None])
        curve.validated(float((1 / np.log2(place + 2)).sum() / len(target)))
        if self.is_als:
            self.num_parameters = self.model.user_factors.size + self.model.item_factors.size
        return "one fit"

    def recommend_all(self) -> None:
        self.places = self._best(self._matrix(self.sequences.before_test))

    def test_lists(self) -> Lists:
        users = list(self.sequences.before_test)
        return {user: self._items(row) for user, row in zip(users, self.places, strict=True)}

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        row = self._matrix({0: history})
        # Only the factors of somebody new are computed anew; neighbors need none.
        options = {"recalculate_user": True} if self.is_als else {}
        places, _ = self.model.recommend(0, row, N=K, **options)
        return self._items(places)

    def _fit(self) -> None:
        counts = self._matrix(self.sequences.train)
        # The neighbors weigh the counts themselves.
        self.model.fit(bm25_weight(counts, **WEIGHTING).tocsr() if self.is_als else counts, show_progress=False)

    def _best(self, seen: csr_matrix) -> np.ndarray:
        options = {"recalculate_user": True} if self.is_als else {}
        rows = np.arange(seen.shape[0])
        return self.model.recommend(rows, seen, N=K, filter_already_liked_items=True, **options)[0]

    def _items(self, places: np.ndarray) -> list[int]:
        return [self.sequences.items[place] for place in places if place >= 0]

    def _matrix(self, histories: Histories) -> csr_matrix:
        row = np.repeat(np.arange(len(histories)), [len(history) for history in histories.values()])
        column = [self.position[item] for history in histories.values() for item in history]
        shape = (len(histories), len(self.position))
        matrix = csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=shape)
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix


if __name__ == "__main__":
    measure(Job.from_command_line(), ImplicitModel)
