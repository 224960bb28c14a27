"""Attention between encoder and decoder: a posterior asks all posteriors up to its own, and gets their average back.

Two forms with one signature. `AdditiveAttention` is the method's own; `DotProductAttention` is the cheap one.
Both read posteriors only: no hidden state of the encoder passes here. `query` and `memory` decide who is heard, and
what is heard is `content`: the means decide once for all samples of the posteriors, which stand side by side.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from variseq.model.additive import additive_context, additive_weights


class PosteriorAttention(Protocol):
    """What the decoder needs of an attention; every implementation passes `tests/contracts/attention.py`."""

    def __call__(
        self,
        query: Float[Tensor, "history query latent"],
        memory: Float[Tensor, "history key latent"],
        content: Float[Tensor, "history key content"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query content"]:
        """The context c_t of each query: the content averaged with the weights of the memory."""
        ...

    def weights(
        self,
        query: Float[Tensor, "history query latent"],
        memory: Float[Tensor, "history key latent"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query key"]:
        """The weights a_ti; zero for keys after the query's position."""
        ...


class AdditiveAttention(nn.Module):
    """e_ti = vᵀ tanh(W μ_t + U μ_i + b), a_ti = softmax over i ≤ t, c_t = Σ_i a_ti z_i.

    Source: Bahdanau, Cho and Bengio 2015; here both sides are posteriors, and the hidden layer has `attention_dim`
    units. At 200 events and 32 units it costs about 3.5 times the dot-product form (`benchmarks/kernels.py`), and needs
    no T² · hidden_size memory.

    >>> attention = AdditiveAttention(latent_dim=8, attention_dim=4)
    >>> posteriors = torch.randn(2, 5, 8)
    >>> attention(posteriors, posteriors, posteriors, torch.arange(5).expand(2, 5)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, latent_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(latent_dim, attention_dim)
        self.key = nn.Linear(latent_dim, attention_dim, bias=False)
        self.score = nn.Parameter(torch.randn(attention_dim) / math.sqrt(attention_dim))

    def forward(
        self,
        query: Float[Tensor, "history query latent"],
        memory: Float[Tensor, "history key latent"],
        content: Float[Tensor, "history key content"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query content"]:
        return additive_context(self.query(query), self.key(memory), content, self.score, position)

    def weights(
        self,
        query: Float[Tensor, "history query latent"],
        memory: Float[Tensor, "history key latent"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query key"]:
        return additive_weights(self.query(query), self.key(memory), self.score, position)


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
        self.scale = 1 / math.sqrt(attention_dim)

    def forward(
        self,
        query: Float[Tensor, "history query latent"],
        memory: Float[Tensor, "history key latent"],
        content: Float[Tensor, "history key content"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query content"]:
        return self.weights(query, memory, position) @ content

    def weights(
        self,
        query: Float[Tensor, "history query latent"],
        memory: Float[Tensor, "history key latent"],
        position: Int[Tensor, "history query"],
    ) -> Float[Tensor, "history query key"]:
        energy = self.query(query) @ self.key(memory).transpose(1, 2) * self.scale
        future = torch.arange(memory.shape[1], device=memory.device) > position.unsqueeze(2)
        return torch.softmax(energy.masked_fill(future, float("-inf")), dim=2)
