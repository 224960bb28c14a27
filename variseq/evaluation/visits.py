"""Metrics of the next visit: the items of a visit are a set of targets that one list is to hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.distinct import distinct
from variseq.evaluation.metrics import ndcg


@dataclass(frozen=True, eq=False)
class VisitRanks:
    """Where the items of visits stand in their lists; each query is one item of a visit.

    Attributes:
        visit: The visit of each query.
        rank: The rank of its item in the list of the visit, from 1; inf is a miss.
        is_repeat: Whether the person had the item before the visit.
        rank_among_new: The rank of its item among those that the person did not have before; inf for one that was had.
        has_history: Whether the visit is not the first of its person. Only such visits are counted.
    """

    visit: Int[np.ndarray, " query"]
    rank: Float[np.ndarray, " query"]
    is_repeat: Bool[np.ndarray, " query"]
    rank_among_new: Float[np.ndarray, " query"]
    has_history: Bool[np.ndarray, " query"]

    @property
    def num_counted(self) -> int:
        """How many visits are not the first of their person."""
        return len(distinct(self.visit[self.has_history]))

    def metrics(self, k: int) -> dict[str, tuple[Float[np.ndarray, " query"], Float[np.ndarray, " query"]]]:
        """The value of each metric at each query, and a weight; the weights of a visit sum to 1, or to 0 without value.

        A mean with these weights is a mean over visits:

        - recall: share of the items of the visit that are in the top k.
        - precision: share of the top k that are items of the visit.
        - jaccard: items in both over items in either.
        - ndcg: the gains 1 / log2(rank + 1) of the items in the top k over those of a perfect list.
        - recall_repeats: recall of the items that the person had before, in the same list.
        - recall_new: recall of the items that are new to the person, in a list of new items alone.

        Source of the two parts: Li et al., "A next basket recommendation reality check" (2023).

        >>> both = VisitRanks(np.zeros(2, int), np.array([1.0, 9.0]), *np.array([[1, 0], [0, 1]]), np.ones(2, bool))
        >>> {name: value[0].round(3).item() for name, (value, _) in both.metrics(2).items()}
        {'recall': 0.5, 'precision': 0.5, 'jaccard': 0.333, 'ndcg': 0.613, 'recall_repeats': 1.0, 'recall_new': 1.0}
        """
        number = np.unique(self.visit, return_inverse=True)[1]

        def of_visit(value: Float[np.ndarray, " query"] | Bool[np.ndarray, " query"]) -> Float[np.ndarray, " query"]:
            return np.bincount(number, value)[number]

        hit, size = of_visit(self.rank <= k), of_visit(np.ones(len(number)))
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        weight = self.has_history / size
        found = {
            "recall": (hit / size, weight),
            "precision": (hit / k, weight),
            "jaccard": (hit / (size + k - hit), weight),
            "ndcg": (of_visit(ndcg(self.rank, k)) / ideal[np.minimum(size, k).astype(np.int64)], weight),
        }
        for name, inside, rank in (
            ("recall_repeats", self.is_repeat == 1, self.rank),
            ("recall_new", self.is_repeat == 0, self.rank_among_new),
        ):
            size = np.maximum(of_visit(inside), 1)
            found[name] = of_visit(inside & (rank <= k)) / size, self.has_history * inside / size
        return found
