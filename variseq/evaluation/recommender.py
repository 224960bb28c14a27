"""The protocol of everything that can be evaluated: scores of items for histories."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from variseq.sequences.histories import Histories


@runtime_checkable
class Recommender(Protocol):
    """Scores in two steps, so that a catalog of any size is scored block by block.

    `query` does the work that does not depend on the items (a preference vector, a last item); `scores` gives the
    scores of the items `first:last`. The result must not depend on how the catalog is cut into blocks.
    """

    name: str
    gives_probabilities: bool
    """True when softmax(scores over the whole catalog) is meant as the probability of the next item."""

    def query(self, histories: Histories) -> Any: ...

    def scores(self, query: Any, first: int, last: int) -> Float[Tensor, "history item"]: ...
