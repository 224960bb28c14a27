"""The layers of the network: event embedding, encoder, posterior, decoder and skip-gram task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.events.items import CategoryLinks
from variseq.model.attention import DotProductAttention
from variseq.sequences.batches import Layout, ragged
from variseq.sequences.histories import GAP_BUCKETS

LEVELS = 256
EXACT_DISTANCES = 16
NUM_DISTANCE_BUCKETS = 48
INITIAL_SCALE = 0.02
"""Standard deviation of vectors and weights before training."""
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -10.0, 2.0
Tokens = tuple[
    Int[Tensor, "*event"], Int[Tensor, "*event"], Int[Tensor, "*token"], Float[Tensor, "*event"], Bool[Tensor, "*event"]
]
"""Item, behavior, gap bucket, value, and whether there is a value; all but the gap bucket are those of events."""
Pooling = Callable[[Tensor], Tensor]
"""From one vector an event to one a token."""


def pooling(token: Int[Tensor, " event"], num_tokens: int) -> Pooling:
    """The sum over the events of each token, divided by the root of their number; their order means nothing.

    >>> pooling(torch.tensor([0, 1, 1]), 2)(torch.tensor([[3.0], [1.0], [1.0]]))
    tensor([[3.0000],
            [1.4142]])
    """
    number = torch.zeros(num_tokens, device=token.device).index_add(
        0, token, torch.ones(len(token), device=token.device)
    )
    scale = number.rsqrt().unsqueeze(1)
    return lambda vectors: vectors.new_zeros(num_tokens, vectors.shape[1]).index_add(0, token, vectors) * scale


def kept_levels(dropout: float) -> int:
    """How many of the 256 levels of a byte keep a number, so that the share dropped is exact to 1/512.

    >>> kept_levels(0.5), kept_levels(0.2), kept_levels(0.999)
    (128, 205, 1)
    """
    return max(1, LEVELS - round(LEVELS * dropout))


def drop(values: Float[Tensor, "*shape"], dropout: float, training: bool) -> Float[Tensor, "*shape"]:
    """Dropout with one random byte per number; `torch.nn.functional.dropout` takes four times as long on a CPU.

    >>> drop(torch.ones(2), dropout=0.5, training=False)
    tensor([1., 1.])
    """
    if not training or dropout == 0:
        return values
    kept = kept_levels(dropout)
    # random_ fills 63 of the 64 bits of a long, and all 32 of an int.
    number = values.numel()
    draws = torch.empty((number + 3) // 4, dtype=torch.int32, device=values.device).random_(-(2**31), 2**31)
    mask = (draws.view(torch.uint8)[:number].view(values.shape) < kept).to(values.dtype).mul_(LEVELS / kept)
    return values * mask


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


class EventEmbedding(nn.Module):
    """e_t = √hidden_size · V[i_t] + B[b_t] + G[gap bucket] + a value's own direction, scaled by the standardised value.

    Row `num_items` of V is the start token: what stands before the first event. Parts that the log does not have
    (one behavior, no times, no values) are not built.

    While training, a row of V can be a sum: the item's own vector, the sum of the vectors of its nodes in a tree, the
    mean of those of its other categories, and a linear map of its content vector. So similar items share what they
    learn. An item without training events has no vector of its own then.
    """

    def __init__(self, num_items: int, hidden_size: int, num_behaviors: int, has_gaps: bool, has_values: bool) -> None:
        super().__init__()
        self.item = embedding_vectors(num_items + 1, hidden_size)
        self.category: nn.Parameter | None = None
        self.content_map: nn.Parameter | None = None
        self.scale = math.sqrt(hidden_size)
        self.behavior = embedding_vectors(num_behaviors, hidden_size) if num_behaviors > 1 else None
        self.gap = embedding_vectors(GAP_BUCKETS, hidden_size) if has_gaps else None
        self.value = embedding_vectors(2, hidden_size) if has_values else None
        self.link_offsets: Int[Tensor, " item_plus_one"]
        self.link_category: Int[Tensor, " link"]
        self.link_weight: Float[Tensor, " link"]
        self.has_own: Bool[Tensor, "item_and_start one"]
        self.content: Float[Tensor, "item content"]
        self.value_mean: Tensor
        self.value_scale: Tensor
        self.register_buffer("has_own", torch.ones(num_items + 1, 1, dtype=torch.bool), persistent=False)
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_scale", torch.ones(()))

    def use_categories(self, links: CategoryLinks) -> None:
        """Add the vectors of categories to those of the items; only while training, see `fold`."""
        self.category = embedding_vectors(links.num_categories, self.item.shape[1])
        self.register_buffer("link_offsets", torch.from_numpy(links.offsets.astype(np.int64)), persistent=False)
        self.register_buffer("link_category", torch.from_numpy(links.category.astype(np.int64)), persistent=False)
        self.register_buffer("link_weight", torch.from_numpy(links.weight), persistent=False)

    def use_content(self, content: Float[np.ndarray, "item content"]) -> None:
        """Add a map of content vectors to those of the items; only while training, see `fold`."""
        self.content_map = embedding_vectors(content.shape[1], self.item.shape[1])
        self.register_buffer("content", torch.from_numpy(content), persistent=False)

    @torch.no_grad()
    def fold(self) -> None:
        """Write the sums into the items' own vectors; the outputs stay the same, and nothing else is left."""
        self.item.copy_(self.vectors())
        self.category = self.content_map = None

    @property
    def is_sum(self) -> bool:
        """Whether a row of V is a sum; not so in a folded network."""
        return self.category is not None or self.content_map is not None

    def shared_vectors(self) -> Float[Tensor, "item hidden"]:
        """What categories and content add to the items' own vectors."""
        return self._with_shared(torch.zeros_like(self.item))[:-1]

    def vectors(self) -> Float[Tensor, "item_and_start hidden"]:
        """V: one row an item, and last the start token."""
        return self._with_shared(self.item * self.has_own) if self.is_sum else self.item

    def _with_shared(self, vectors: Float[Tensor, "item_and_start hidden"]) -> Float[Tensor, "item_and_start hidden"]:
        """The vectors with what categories and content add, in place."""
        if self.category is not None:
            vectors[:-1] += self.of_categories(self.category)
        if self.content_map is not None:
            vectors[:-1] += self.content @ self.content_map
        return vectors

    def of_categories(self, category: Float[Tensor, "category hidden"]) -> Float[Tensor, "item hidden"]:
        """The weighted sums of the vectors of each item's categories."""
        links = (self.link_category, category, self.link_offsets)
        return functional.embedding_bag(
            *links, mode="sum", per_sample_weights=self.link_weight, include_last_offset=True
        )

    def of_rows(self, rows: Int[Tensor, " row"]) -> dict[str, Tensor]:
        """Buffers for `rows` alone, by their names; see `Network.of_rows`."""
        found, items = {"has_own": self.has_own[rows]}, rows[:-1]
        if self.category is not None:
            first = self.link_offsets[items]
            number = self.link_offsets[items + 1] - first
            found["link_offsets"] = torch.cat([number.new_zeros(1), number.cumsum(0)])
            link = ragged(first, number)[1]
            found |= {"link_category": self.link_category[link], "link_weight": self.link_weight[link]}
        if self.content_map is not None:
            found["content"] = self.content[items]
        return found

    def forward(
        self, tokens: Tokens, vectors: Float[Tensor, "item_and_start hidden"], pool: Pooling | None = None
    ) -> Float[Tensor, "*token hidden"]:
        """The embedded tokens; `vectors` is V, which one step needs at both ends of the network.

        `pool` makes one vector a token of those of its events, where a token is a visit; all but the gap is pooled.
        """
        item, behavior, gap, value, has_value = tokens
        embedded = functional.embedding(item, vectors) * self.scale
        if self.behavior is not None:
            embedded = embedded + functional.embedding(behavior, self.behavior)
        if pool is not None:
            embedded = pool(embedded)
        if self.gap is not None:
            embedded = embedded + functional.embedding(gap, self.gap)
        if self.value is not None:
            standard = torch.where(has_value, self.standardise(value), 0.0)
            of_value, of_presence = standard.unsqueeze(-1) * self.value[0], has_value.unsqueeze(-1) * self.value[1]
            if pool is not None:
                of_value, of_presence = pool(of_value), pool(of_presence)
            embedded = embedded + of_value + of_presence
        return embedded

    def set_value_scale(self, mean: float, standard_deviation: float) -> None:
        """Set the mean and standard deviation that standardise values."""
        self.value_mean.fill_(mean)
        self.value_scale.fill_(max(standard_deviation, 1e-6))

    def standardise(self, value: Float[Tensor, "*token"]) -> Float[Tensor, "*token"]:
        """(value − mean) / standard deviation, both of the training log."""
        return (value - self.value_mean) / self.value_scale


def embedding_vectors(number: int, hidden_size: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(number, hidden_size) * INITIAL_SCALE)


@dataclass(frozen=True)
class Posterior:
    """q(z_t | x_≤t) = N(mean, diag exp(log_variance)) at every position."""

    mean: Float[Tensor, "token latent"]
    log_variance: Float[Tensor, "token latent"]

    def sample(self, noise: Float[Tensor, "*sample token latent"]) -> Float[Tensor, "*sample token latent"]:
        """z = μ + σ ⊙ noise (Kingma and Welling 2014, section 2.4)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl_to_prior(self) -> Float[Tensor, "token latent"]:
        """KL(q ‖ N(0, 1)) per dimension in nats: ½(μ² + σ² − 1 − log σ²).

        >>> Posterior(torch.zeros(1, 2), torch.zeros(1, 2)).kl_to_prior()
        tensor([[0., 0.]])
        """
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)


class LatentHead(nn.Module):
    """Mean and log-variance of the posterior.

    The mean is the hidden state itself, scaled to the root mean square γ (RMS norm; Zhang and Sennrich 2019). So the KL
    is at least ½ γ² nats per dimension on average, at each token: the posterior cannot collapse to the prior, as with
    the batch-norm of Zhu et al. (2020), but without mixing the people of a batch. With `mean_scale=None` the mean is
    not normalized, and can collapse. The log-variance is clamped between −10 and 2.

    Where the latent has another size than the hidden state, a linear map comes first. Between equal sizes it cost
    accuracy (docs/development/log.md).
    """

    def __init__(self, hidden_size: int, latent_dim: int, mean_scale: float | None) -> None:
        super().__init__()
        self.mean = nn.Identity() if latent_dim == hidden_size else nn.Linear(hidden_size, latent_dim)
        self.log_variance = nn.Linear(hidden_size, latent_dim)
        self.norm = nn.RMSNorm(latent_dim, elementwise_affine=False)
        self.mean_scale = mean_scale

    def forward(self, hidden: Float[Tensor, "token hidden"]) -> Posterior:
        mean = self.mean(hidden)
        if self.mean_scale is not None:
            mean = self.mean_scale * self.norm(mean)
        return Posterior(mean, self.log_variance(hidden).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE))


class Decoder(nn.Module):
    """P_t = norm(s_t + feed-forward(norm(s_t))), with s_t = z_t + dropout(W c_t) and c_t the attention over z_1..z_t.

    Where the latent has another size than the hidden state, s_t has M z_t in place of z_t. W starts at zero, so the
    network begins without the context. The attention weights are those of the means, once for all samples: weights of
    each sample were no better and cost more (docs/development/log.md).
    """

    def __init__(self, latent_dim: int, hidden_size: int, attention: DotProductAttention, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        is_same = latent_dim == hidden_size
        self.posterior = nn.Identity() if is_same else nn.Linear(latent_dim, hidden_size, bias=False)
        self.context = nn.Linear(latent_dim, hidden_size, bias=False)
        self.feed_forward_norm = nn.RMSNorm(hidden_size)
        self.feed_forward = FeedForward(hidden_size, 2 * hidden_size)
        self.norm = nn.RMSNorm(hidden_size)
        self.dropout = dropout
        nn.init.zeros_(self.context.weight)

    def forward(
        self, mean: Float[Tensor, "token latent"], samples: Float[Tensor, "sample token latent"], layout: Layout
    ) -> Float[Tensor, "sample token hidden"]:
        """The preference at every position under each sample."""
        key = layout.unpack(mean)
        position = torch.arange(layout.longest, device=mean.device).expand(layout.num_histories, layout.longest)
        context = layout.pack(self.attention(key, key, layout.unpack(_side_by_side(samples)), position))
        return self.preference(samples, _one_by_one(context, len(samples)))

    def last(
        self, mean: Float[Tensor, "token latent"], samples: Float[Tensor, "sample token latent"], layout: Layout
    ) -> Float[Tensor, "sample history hidden"]:
        """The preference at the last position of each history."""
        query, position = mean[layout.last_tokens()].unsqueeze(1), (layout.lengths - 1).unsqueeze(1)
        context = self.attention(query, layout.unpack(mean), layout.unpack(_side_by_side(samples)), position)
        return self.preference(samples[:, layout.last_tokens()], _one_by_one(context.squeeze(1), len(samples)))

    def preference(
        self, latent: Float[Tensor, "sample *row latent"], context: Float[Tensor, "sample *row latent"]
    ) -> Float[Tensor, "sample *row hidden"]:
        """The preference of samples, given the context of each."""
        state = self.posterior(latent) + drop(self.context(context), self.dropout, self.training)
        transformed = self.feed_forward(self.feed_forward_norm(state))
        preference: Tensor = self.norm(state + drop(transformed, self.dropout, self.training))
        return preference


def _side_by_side(samples: Float[Tensor, "sample token latent"]) -> Float[Tensor, "token content"]:
    return samples.transpose(0, 1).flatten(1)


def _one_by_one(content: Float[Tensor, "row content"], num_samples: int) -> Float[Tensor, "sample row latent"]:
    return content.view(len(content), num_samples, -1).transpose(0, 1)


class SkipGram(nn.Module):
    """W norm(dropout(E_i)): which items come some events after item i, as a second task of training.

    It gives the item vectors more evidence than the next event alone: what people do together stands close together,
    but seldom side by side. Source: Mikolov et al. 2013, with items for words as Barkan and Koenigstein 2016.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden_size, elementwise_affine=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        nn.init.eye_(self.output.weight)
        self.dropout = dropout

    def forward(self, item: Float[Tensor, "token hidden"]) -> Float[Tensor, "token hidden"]:
        expected: Tensor = self.output(self.norm(drop(item, self.dropout, self.training)))
        return expected
