"""The protocol of everything that can be evaluated: scores of items for histories."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from variseq.sequences.histories import Histories


@runtime_checkable
class Recommender(Protocol):
    """Scores every item of the catalog for histories, each history by itself.

    `gives_probabilities` is true where softmax(scores) is meant as the probability of the next item.
    """

    name: str
    gives_probabilities: bool

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]: ...
