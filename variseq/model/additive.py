"""Additive attention scores into contexts, exactly, in chunks of queries that are recomputed for the gradient.

The plain form keeps query × key × width numbers for the backward pass (T² · a per history). Here a chunk of queries is
worked on at a time, only against the keys it can see, and worked out again when the gradient is wanted: the memory is
that of one chunk, whatever the length.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_NUMBERS = 1 << 19
"""How many numbers (history × query × key × width) a chunk may hold: 2 MB, so that it stays in a core's cache."""


def additive_weights(
    query: Float[Tensor, "history query width"],
    key: Float[Tensor, "history key width"],
    score: Float[Tensor, " width"],
    position: Int[Tensor, "history query"],
) -> Float[Tensor, "history query key"]:
    """Softmax over the keys at or before each query's position of scoreᵀ tanh(query + key): the plain form.

    Source: Bahdanau, Cho and Bengio 2015, section 3.1, with the softmax limited to what has already happened.

    >>> additive_weights(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(3), torch.tensor([[0, 1]]))
    tensor([[[1.0000, 0.0000],
             [0.5000, 0.5000]]])
    """
    energy = torch.tanh(query.unsqueeze(2) + key.unsqueeze(1)) @ score
    future = torch.arange(key.shape[1], device=key.device) > position.unsqueeze(2)
    return torch.softmax(energy.masked_fill(future, float("-inf")), dim=2)


def additive_context_plain(
    query: Float[Tensor, "history query width"],
    key: Float[Tensor, "history key width"],
    value: Float[Tensor, "history key content"],
    score: Float[Tensor, " width"],
    position: Int[Tensor, "history query"],
) -> Float[Tensor, "history query content"]:
    """The values averaged with `additive_weights`: the twin that `additive_context` is held against."""
    return additive_weights(query, key, score, position) @ value


def additive_context(
    query: Float[Tensor, "history query width"],
    key: Float[Tensor, "history key width"],
    value: Float[Tensor, "history key content"],
    score: Float[Tensor, " width"],
    position: Int[Tensor, "history query"],
) -> Float[Tensor, "history query content"]:
    """The same numbers as `additive_context_plain`, in memory that does not grow with query × key × width."""
    context: Tensor = _ChunkedAdditive.apply(query, key, value, score, position)  # type: ignore[no-untyped-call]
    return context


def _chunks(query: Tensor, key: Tensor, position: Tensor) -> list[tuple[int, int, int]]:
    """Chunks of queries (first, last) and the number of keys that any of them sees."""
    num_queries, num_keys = query.shape[1], key.shape[1]
    size = max(1, CHUNK_NUMBERS // max(1, query.shape[0] * num_keys * query.shape[2]))
    visible = (position.amax(dim=0) + 1).tolist()
    return [
        (first, min(first + size, num_queries), max(visible[first : first + size]))
        for first in range(0, num_queries, size)
    ]


def _chunk_weights(query: Tensor, key: Tensor, score: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden layer tanh(query + key) of one chunk and its attention weights."""
    hidden = (query.unsqueeze(2) + key.unsqueeze(1)).tanh_()
    energy = hidden @ score
    future = torch.arange(key.shape[1], device=key.device) > position.unsqueeze(2)
    return hidden, torch.softmax(energy.masked_fill_(future, float("-inf")), dim=2)


class _ChunkedAdditive(torch.autograd.Function):
    """Forward and backward of `additive_context`, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, score: Tensor, position: Tensor) -> Tensor:
        context = value.new_empty(query.shape[0], query.shape[1], value.shape[2])
        for first, last, seen in _chunks(query, key, position):
            _, weights = _chunk_weights(query[:, first:last], key[:, :seen], score, position[:, first:last])
            context[:, first:last] = weights @ value[:, :seen]
        ctx.save_for_backward(query, key, value, score, position)
        return context

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        query, key, value, score, position = ctx.saved_tensors
        grad_context = grad_outputs[0].contiguous()
        grad_query = torch.empty_like(query)
        grad_key, grad_value, grad_score = torch.zeros_like(key), torch.zeros_like(value), torch.zeros_like(score)
        for first, last, seen in _chunks(query, key, position):
            hidden, weights = _chunk_weights(query[:, first:last], key[:, :seen], score, position[:, first:last])
            grad = grad_context[:, first:last]
            grad_value[:, :seen] += weights.transpose(1, 2) @ grad
            grad_weights = grad @ value[:, :seen].transpose(1, 2)
            grad_energy = weights * (grad_weights - (weights * grad_weights).sum(dim=2, keepdim=True))
            grad_score += grad_energy.flatten() @ hidden.flatten(0, 2)
            # d tanh(x)/dx = 1 - tanh(x)², written over the hidden layer, which is not needed any more.
            grad_hidden = hidden.square_().neg_().add_(1).mul_(grad_energy.unsqueeze(3)).mul_(score)
            grad_query[:, first:last] = grad_hidden.sum(dim=2)
            grad_key[:, :seen] += grad_hidden.sum(dim=1)
        return grad_query, grad_key, grad_value, grad_score, None
