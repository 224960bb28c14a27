"""Exposures in memory: lists that people were given, how probable each item of them was, and what followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.events.vocabulary import Id


@dataclass(frozen=True, eq=False)
class Exposures:
    """Lists one after the other, with one row for each item of a list.

    Args:
        offsets: Where the rows of each exposure begin, and where the last one ends.
        exposure_id: One for each exposure.
        user: Who was given the list; None where it is not known.
        time: UTC microseconds.
        context: Of each exposure its history, model, policy, filters and arm; None for a shop's own log.
        item: The item of each row, as an index into `item_ids`.
        item_ids: The items of the log.
        rank: Rank of each row in its list, from 1.
        propensity_at_rank: Probability of the item at its rank, given the items above it; NaN where it is not known.
        propensity_in_list: Probability of the item in the list; NaN where it is not known.
        is_pinned: Whether the item was put there and not drawn.
        reward: What a person's actions on the row are worth.
    """

    offsets: Int[np.ndarray, " exposure_and_1"]
    exposure_id: list[str]
    user: list[str | None]
    time: Int[np.ndarray, " exposure"]
    context: list[Mapping[str, Any]] | None
    item: Int[np.ndarray, " row"]
    item_ids: list[Id]
    rank: Int[np.ndarray, " row"]
    propensity_at_rank: Float[np.ndarray, " row"]
    propensity_in_list: Float[np.ndarray, " row"]
    is_pinned: Bool[np.ndarray, " row"]
    reward: Float[np.ndarray, " row"]

    @property
    def num_exposures(self) -> int:
        """How many lists there are."""
        return len(self.exposure_id)

    @property
    def row_exposure(self) -> Int[np.ndarray, " row"]:
        """The exposure of each row."""
        return np.repeat(np.arange(self.num_exposures), np.diff(self.offsets))
