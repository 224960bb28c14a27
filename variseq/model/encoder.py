"""Event vectors into hidden states: causal self-attention blocks over packed histories."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.model.dropout import drop
from variseq.sequences.batches import Layout

EXACT_DISTANCES = 16
NUM_DISTANCE_BUCKETS = 48


def distance_bucket(distance: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Buckets of the distance between two positions: exact below 16, then four per doubling.

    Any length has a bucket, so a model can read longer histories than it was trained on
    (Raffel et al. 2020, section 2.1, with another spacing).

    >>> distance_bucket(torch.tensor([0, 15, 16, 32, 200, 10_000])).tolist()
    [0, 15, 16, 20, 30, 47]
    """
    logarithm = EXACT_DISTANCES + torch.floor(4 * torch.log2(distance.clamp(min=1) / EXACT_DISTANCES)).long()
    return torch.where(distance < EXACT_DISTANCES, distance, logarithm.clamp(max=NUM_DISTANCE_BUCKETS - 1))


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention over what has happened so far, with a learned bias per head and distance."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.distance_bias = nn.Parameter(torch.zeros(num_heads, NUM_DISTANCE_BUCKETS))

    def forward(self, hidden: Float[Tensor, "token hidden"], layout: Layout) -> Float[Tensor, "token hidden"]:
        histories, longest, hidden_size = layout.num_histories, layout.longest, hidden.shape[1]
        head_width = hidden_size // self.num_heads
        projected = layout.unpack(self.query_key_value(hidden))
        heads = projected.view(histories, longest, 3, self.num_heads, head_width).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        energy = query @ key.transpose(2, 3) * (1 / math.sqrt(head_width)) + self.bias(longest)
        context = torch.softmax(energy, dim=3) @ value
        return self.output(layout.pack(context.transpose(1, 2).reshape(histories, longest, hidden_size)))

    def bias(self, longest: int) -> Float[Tensor, "head query key"]:
        """The bias of every pair of positions; −∞ where the key is later than the query."""
        position = torch.arange(longest, device=self.distance_bias.device)
        distance = position.unsqueeze(1) - position
        bias = self.distance_bias[:, distance_bucket(distance.clamp(min=0))]
        return bias.masked_fill(distance < 0, float("-inf"))


class FeedForward(nn.Module):
    """SwiGLU: (silu(x A) ⊙ x B) C (Shazeer 2020, equation 6), without biases."""

    def __init__(self, hidden_size: int, hidden_width: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(hidden_size, 2 * hidden_width, bias=False)
        self.output = nn.Linear(hidden_width, hidden_size, bias=False)

    def forward(self, hidden: Float[Tensor, "*token hidden"]) -> Float[Tensor, "*token hidden"]:
        gate, value = self.gate_and_value(hidden).chunk(2, dim=-1)
        return self.output(functional.silu(gate) * value)


class EncoderBlock(nn.Module):
    """Pre-norm attention and feed-forward, each added to the stream after dropout."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(hidden_size)
        self.attention = CausalSelfAttention(hidden_size, num_heads)
        self.feed_forward_norm = nn.RMSNorm(hidden_size)
        self.feed_forward = FeedForward(hidden_size, 2 * hidden_size)
        self.dropout = dropout

    def forward(self, hidden: Float[Tensor, "token hidden"], layout: Layout) -> Float[Tensor, "token hidden"]:
        attended = self.attention(self.attention_norm(hidden), layout)
        hidden = hidden + drop(attended, self.dropout, self.training)
        transformed = self.feed_forward(self.feed_forward_norm(hidden))
        return hidden + drop(transformed, self.dropout, self.training)


class Encoder(nn.Module):
    """A stack of blocks and a last norm."""

    def __init__(self, hidden_size: int, num_heads: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(hidden_size, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.RMSNorm(hidden_size)
        self.dropout = dropout

    def forward(self, embedded: Float[Tensor, "token hidden"], layout: Layout) -> Float[Tensor, "token hidden"]:
        hidden = drop(embedded, self.dropout, self.training)
        for block in self.blocks:
            hidden = block(hidden, layout)
        normed: Tensor = self.norm(hidden)
        return normed
