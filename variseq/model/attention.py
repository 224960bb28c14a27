"""The attention of the decoder over posteriors: additive, with an exact kernel in chunks, and scaled dot-product.

Queries and keys are posterior means, so the weights are computed once for all
samples; the values are the samples, concatenated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CHUNK_NUMBERS = 1 << 19
"""How many numbers (hidden_size × history × query × key) a chunk of the hidden layer holds: 2 MB, a core's cache."""
BLOCK_NUMBERS = 1 << 23
"""How many weights (history × query × key) are worked on at once: 32 MB."""


def additive_context(
    query: Float[Tensor, "history query hidden"],
    key: Float[Tensor, "history key hidden"],
    value: Float[Tensor, "history key content"],
    score: Float[Tensor, " hidden"],
    position: Int[Tensor, "history query"],
) -> Float[Tensor, "history query content"]:
    """The values averaged with the softmax over visible keys of scoreᵀ tanh(query + key), in exact chunks.

    The hidden layer is computed a chunk of queries at a time, against the keys that the chunk can see, and again for
    the gradient. Only the weights (query × key) are kept, as in the dot-product form.
    """
    context: Tensor = _ChunkedAdditive.apply(query, key, value, score, position)  # type: ignore[no-untyped-call]
    return context


def _slices(num_rows: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, num_rows)) for first in range(0, num_rows, size)]


class _HiddenLayer:
    """s = sigmoid(2 (query + key)), chunk by chunk in one buffer, laid out as hidden × history × query × key.

    tanh(query + key) is 2 s − 1, and takes several times as long on some processors (docs/development/log.md).
    """

    def __init__(self, query: Tensor, key: Tensor, position: Tensor) -> None:
        self.query = (2 * query).permute(2, 0, 1).contiguous().unsqueeze(3)
        self.key = (2 * key).permute(2, 0, 1).contiguous().unsqueeze(2)
        self.position = position
        self.visible = (position.amax(dim=0) + 1).tolist()
        hidden_size, histories, queries, _ = self.query.shape
        self.blocks = _slices(queries, max(1, BLOCK_NUMBERS // max(1, histories * key.shape[1])))
        self.row_numbers = hidden_size * histories
        # A chunk holds at least one query and at most all of them.
        of_one_query = self.row_numbers * max(self.visible, default=0)
        self.buffer = query.new_empty(min(max(CHUNK_NUMBERS, of_one_query), queries * of_one_query))

    def seen(self, first: int, last: int) -> int:
        """How many keys the queries first:last can see."""
        return max(self.visible[first:last])

    def future(self, first: int, last: int) -> Tensor:
        """Whether a key is later than the query, for the queries first:last."""
        keys = torch.arange(self.seen(first, last), device=self.position.device)
        return keys > self.position[:, first:last].unsqueeze(2)

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int, Tensor]]:
        """(first query, last query, hidden [size history query key]) that together cover the queries first:last."""
        while first < last:
            size = max(1, CHUNK_NUMBERS // (self.row_numbers * self.visible[first]))
            size = max(1, CHUNK_NUMBERS // (self.row_numbers * self.seen(first, min(first + size, last))))
            end = min(first + size, last)
            query, key = self.query[:, :, first:end], self.key[..., : self.seen(first, end)]
            shape = (*query.shape[:3], key.shape[3])
            hidden = self.buffer[: math.prod(shape)].view(shape)
            yield first, end, torch.add(query, key, out=hidden).sigmoid_()
            first = end


class _ChunkedAdditive(torch.autograd.Function):
    """Forward and backward of `additive_context`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, score: Tensor, position: Tensor) -> Tensor:
        layer = _HiddenLayer(query, key, position)
        context = value.new_empty(query.shape[0], query.shape[1], value.shape[2])
        weights = []
        for first, last in layer.blocks:
            future = layer.future(first, last)
            energy = value.new_empty(future.shape)
            for begin, end, hidden in layer.chunks(first, last):
                # −1 of 2 s − 1 is the same for every key, so the softmax does not depend on it.
                part = torch.mv(hidden.flatten(1).t(), 2 * score).view(hidden.shape[1:])
                energy[:, begin - first : end - first, : hidden.shape[3]] = part
            weights.append(torch.softmax(energy.masked_fill_(future, float("-inf")), dim=2))
            context[:, first:last] = weights[-1] @ value[:, : future.shape[2]]
        ctx.save_for_backward(query, key, value, score, position, *weights)
        return context

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        query, key, value, score, position, *weights = ctx.saved_tensors
        layer = _HiddenLayer(query, key, position)
        grad_query, grad_key = torch.empty_like(layer.query), torch.zeros_like(layer.key)
        grad_value, grad_score = torch.zeros_like(value), torch.zeros_like(score)
        for (first, last), block in zip(layer.blocks, weights, strict=True):
            seen, grad = block.shape[2], grad_outputs[0][:, first:last]
            grad_value[:, :seen] += block.transpose(1, 2) @ grad
            grad_weights = grad @ value[:, :seen].transpose(1, 2)
            grad_energy = block * (grad_weights - (block * grad_weights).sum(dim=2, keepdim=True))
            for begin, end, hidden in layer.chunks(first, last):
                pairs = grad_energy[:, begin - first : end - first, : hidden.shape[3]].contiguous()
                # The gradients of a query's energies sum to zero, so −1 of 2 s − 1 adds nothing.
                grad_score.addmv_(hidden.flatten(1), pairs.flatten(), alpha=2)
                # d tanh(x)/dx = 4 (s − s²).
                hidden.addcmul_(hidden, hidden, value=-1).mul_(pairs)
                grad_query[:, :, begin:end] = hidden.sum(dim=3, keepdim=True)
                grad_key[..., : hidden.shape[3]] += hidden.sum(dim=2, keepdim=True)
        scale = 4 * score[:, None, None]
        grad_query, grad_key = (grad_query.squeeze(3) * scale), (grad_key.squeeze(2) * scale)
        return grad_query.permute(1, 2, 0), grad_key.permute(1, 2, 0), grad_value, grad_score, None


class DotProductAttention(nn.Module):
    """e_ti = (W μ_t)ᵀ(U μ_i) / √a: the scaled dot-product form (Vaswani et al. 2017, equation 1), values untouched.

    >>> attention = DotProductAttention(latent_dim=8, attention_dim=4)
    >>> posteriors = torch.randn(2, 5, 8)
    >>> attention.weights(posteriors, posteriors, torch.arange(5).expand(2, 5)).sum(dim=2).allclose(torch.ones(2, 5))
    True
    """

    def __init__(self, latent_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(latent_dim, attention_dim)
        self.key = nn.Linear(latent_dim, attention_dim, bias=False)

    def forward(
        self,
        query: Float[Tensor, "history query latent"],
        key: Float[Tensor, "history key latent"],
        value: Float[Tensor, "history key content"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query content"]:
        """c_t = Σ_i a_ti z_i."""
        return self.weights(query, key, position) @ value

    def weights(
        self,
        query: Float[Tensor, "history query latent"],
        key: Float[Tensor, "history key latent"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query key"]:
        """a_ti = softmax of e_ti over the keys i at or before each query's position."""
        future = torch.arange(key.shape[1], device=key.device) > position.unsqueeze(2)
        return torch.softmax(self.energy(query, key).masked_fill(future, float("-inf")), dim=2)

    def energy(
        self, query: Float[Tensor, "history query latent"], key: Float[Tensor, "history key latent"]
    ) -> Float[Tensor, "history query key"]:
        """e_ti of every pair."""
        return self.query(query) @ self.key(key).transpose(1, 2) * (1 / math.sqrt(self.query.out_features))


class AdditiveAttention(DotProductAttention):
    """e_ti = vᵀ tanh(W μ_t + U μ_i + b), with a hidden layer of `attention_dim` units.

    Source: Bahdanau, Cho and Bengio 2015, section 3.1, limited to what has already happened; here both sides are
    posteriors. At 200 events and 32 units it takes about 3 times as long as the dot-product form.

    >>> attention = AdditiveAttention(latent_dim=8, attention_dim=4)
    >>> posteriors = torch.randn(2, 5, 8)
    >>> attention(posteriors, posteriors, posteriors, torch.arange(5).expand(2, 5)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, latent_dim: int, attention_dim: int) -> None:
        super().__init__(latent_dim, attention_dim)
        self.in_chunks = True
        self.score = nn.Parameter(torch.randn(attention_dim) / math.sqrt(attention_dim))

    def forward(
        self,
        query: Float[Tensor, "history query latent"],
        key: Float[Tensor, "history key latent"],
        value: Float[Tensor, "history key content"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query content"]:
        """c_t without the pairs of queries and keys in RAM."""
        if not self.in_chunks:
            return super().forward(query, key, value, position)
        return additive_context(self.query(query), self.key(key), value, self.score, position)

    def energy(
        self, query: Float[Tensor, "history query latent"], key: Float[Tensor, "history key latent"]
    ) -> Float[Tensor, "history query key"]:
        """e_ti of every pair."""
        hidden = torch.tanh(self.query(query).unsqueeze(2) + self.key(key).unsqueeze(1))
        # As a product of a matrix and a vector this is six times slower in ONNX Runtime.
        return (hidden * self.score).sum(dim=3)


ATTENTION_OF = {"additive": AdditiveAttention, "dot": DotProductAttention}
