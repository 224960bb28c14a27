"""Items, behaviours, time gaps and values into one vector per event."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from variseq.sequences.batches import GAP_BUCKETS, Batch


class EventEmbedding(nn.Module):
    """e_t = √width · E[i_t] + B[b_t] + G[gap bucket] + a value's own direction, scaled by the standardised value.

    Row `num_items` of E is the start token: what stands before the first event. Parts that the log does not have
    (one behaviour, no times, no values) are not built.
    """

    def __init__(self, num_items: int, width: int, num_behaviours: int, has_gaps: bool, has_values: bool) -> None:
        super().__init__()
        self.item = nn.Parameter(torch.randn(num_items + 1, width) * 0.02)
        self.scale = math.sqrt(width)
        self.behaviour = nn.Parameter(torch.randn(num_behaviours, width) * 0.02) if num_behaviours > 1 else None
        self.gap = nn.Parameter(torch.randn(GAP_BUCKETS, width) * 0.02) if has_gaps else None
        self.value = nn.Parameter(torch.randn(2, width) * 0.02) if has_values else None
        self.value_mean: Tensor
        self.value_scale: Tensor
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_scale", torch.ones(()))

    def forward(self, batch: Batch) -> Float[Tensor, "token width"]:
        embedded = functional.embedding(batch.item, self.item) * self.scale
        if self.behaviour is not None:
            embedded = embedded + functional.embedding(batch.behaviour, self.behaviour)
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
