"""Items, behaviors, time gaps and values into one vector per event."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.events.items import CategoryLinks
from variseq.sequences.batches import Batch
from variseq.sequences.gaps import GAP_BUCKETS

INITIAL_SCALE = 0.02
"""Standard deviation of the vectors before training."""


class EventEmbedding(nn.Module):
    """e_t = √hidden_size · V[i_t] + B[b_t] + G[gap bucket] + a value's own direction, scaled by the standardised value.

    Row `num_items` of V is the start token: what stands before the first event. Parts that the log does not have
    (one behavior, no times, no values) are not built. With categories a row of V is the item's own vector plus the
    mean of the vectors of its categories, so that what is learned of an item is shared with those like it.
    """

    def __init__(self, num_items: int, hidden_size: int, num_behaviors: int, has_gaps: bool, has_values: bool) -> None:
        super().__init__()
        self.item = _vectors(num_items + 1, hidden_size)
        self.category: nn.Parameter | None = None
        self.scale = math.sqrt(hidden_size)
        self.behavior = _vectors(num_behaviors, hidden_size) if num_behaviors > 1 else None
        self.gap = _vectors(GAP_BUCKETS, hidden_size) if has_gaps else None
        self.value = _vectors(2, hidden_size) if has_values else None
        self.link_offsets: Int[Tensor, " item_plus_one"]
        self.link_category: Int[Tensor, " link"]
        self.value_mean: Tensor
        self.value_scale: Tensor
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_scale", torch.ones(()))

    def use_categories(self, links: CategoryLinks) -> None:
        """Give every item the share of its categories; only while training, see `fold_categories`."""
        self.category = _vectors(links.num_categories, self.item.shape[1])
        self.register_buffer("link_offsets", torch.from_numpy(links.offsets.astype(np.int64)), persistent=False)
        self.register_buffer("link_category", torch.from_numpy(links.category.astype(np.int64)), persistent=False)

    @torch.no_grad()
    def fold_categories(self) -> None:
        """Write the sums into the items' own vectors: the same network, in which no categories are left."""
        if self.category is not None:
            self.item.copy_(self.vectors())
            self.category = None

    def vectors(self) -> Float[Tensor, "item_and_start hidden"]:
        """V: one row an item, and last the start token."""
        if self.category is None:
            return self.item
        of_categories = functional.embedding_bag(
            self.link_category, self.category, self.link_offsets, mode="mean", include_last_offset=True
        )
        return self.item + functional.pad(of_categories, (0, 0, 0, 1))

    def forward(self, batch: Batch, vectors: Float[Tensor, "item_and_start hidden"]) -> Float[Tensor, "token hidden"]:
        """The embedded events; `vectors` is V, which one step needs at both ends of the network."""
        embedded = functional.embedding(batch.item, vectors) * self.scale
        if self.behavior is not None:
            embedded = embedded + functional.embedding(batch.behavior, self.behavior)
        if self.gap is not None:
            embedded = embedded + functional.embedding(batch.gap, self.gap)
        if self.value is not None:
            known = batch.value.isfinite()
            standard = torch.where(known, self.standardise(batch.value), 0.0)
            embedded = embedded + standard.unsqueeze(1) * self.value[0] + known.unsqueeze(1) * self.value[1]
        return embedded

    def set_value_scale(self, mean: float, standard_deviation: float) -> None:
        """What the values of the training log are standardised with."""
        self.value_mean.fill_(mean)
        self.value_scale.fill_(max(standard_deviation, 1e-6))

    def standardise(self, value: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
        """Values with the training log's mean taken off and in units of its standard deviation."""
        return (value - self.value_mean) / self.value_scale


def _vectors(number: int, hidden_size: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(number, hidden_size) * INITIAL_SCALE)
