"""A network into the part of it that a server runs: tokens in, the last preference under each sample out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.model.attention import AdditiveAttention, DotProductAttention
from variseq.model.encoder import EncoderBlock, distance_bucket
from variseq.model.latent import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE
from variseq.model.network import Network

Tokens = tuple[
    Int[Tensor, "tree token"],
    Int[Tensor, "tree token"],
    Int[Tensor, "tree token"],
    Float[Tensor, "tree token"],
    Bool[Tensor, "tree token"],
]
"""Item, behavior, gap bucket, value, and whether there is a value."""
UNSEEN = -80.0
"""The energy of what is not seen: its weight, e⁻⁸⁰, is lost in rounding. After lower ones a softmax works with numbers
below the smallest normal one, which is seven times slower."""


def distance_biases(network: Network) -> Float[Tensor, "block head distance_plus_one"]:
    """What each block and head adds to the energy of a token 0, 1, ... places before; the last is for one unseen."""
    bucket = distance_bucket(torch.arange(network.config.max_seq_len))
    seen = torch.stack([block.attention.distance_bias[:, bucket] for block in _blocks(network)]).detach()
    return torch.cat([seen, torch.full_like(seen[..., :1], UNSEEN)], dim=2)


class LastPreference(nn.Module):
    """The same numbers as `sample_preferences`, over trees of tokens, in operations that export.

    A row holds one history, or several that share their beginning (`variseq.inference.tree`). What a token sees, and
    how far before it, comes from outside: `bias` is `distance_biases` of each pair of tokens. All positions of the last
    encoder block are computed, because the decoder attends over the posteriors at all of them.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        config = network.config
        self.network = network.folded().eval()
        self.mean_shift: Tensor
        self.mean_factor: Tensor
        mean, variance = network.latent.norm.running_mean, network.latent.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = torch.rsqrt(variance + network.latent.norm.eps) * (config.bn_gamma or 0.0)
        has_norm = config.bn_gamma is not None
        self.register_buffer("mean_shift", mean if has_norm else torch.zeros_like(mean))
        self.register_buffer("mean_factor", scale if has_norm else torch.ones_like(scale))

    def forward(
        self,
        tokens: Tokens,
        bias: Float[Tensor, "block head tree token token"],
        query: Int[Tensor, "tree branch"],
        place: Int[Tensor, "tree branch token"],
        noise: Float[Tensor, "sample place latent"],
    ) -> tuple[
        Float[Tensor, "sample tree branch hidden"], Float[Tensor, "tree branch"], Float[Tensor, "tree branch token"]
    ]:
        """At the token where each branch ends: the preferences, the mean log σ², the weights of the attention.

        Branches end at the tokens `query`; `place` is how far before its end each token stands, −1 where it is not
        seen. Noise is given by that place.
        """
        hidden = self._embedded(tokens)
        for number, block in enumerate(_blocks(self.network)):
            hidden = self._block(block, hidden, bias[number])
        hidden = self.network.encoder.norm(hidden)
        latent = self.network.latent
        mean = (latent.mean(hidden) - self.mean_shift) * self.mean_factor
        log_variance = latent.log_variance(hidden).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        sigma = torch.exp(0.5 * log_variance)
        posteriors = mean[:, None] + sigma[:, None] * noise[:, place.clamp(min=0)]
        at_end = query[:, :, None].expand(-1, -1, mean.shape[2])
        asking = mean.gather(1, at_end)
        weights = self._weights(asking, mean, place >= 0)
        own = asking + sigma.gather(1, at_end) * noise[:, :1, None]
        preference = self._decode(own, (weights.unsqueeze(2) @ posteriors).squeeze(3))
        return preference, log_variance.gather(1, at_end).mean(dim=2), weights

    def _embedded(self, tokens: Tokens) -> Float[Tensor, "tree token hidden"]:
        """The sum of `EventEmbedding`; the value is standardised here."""
        item, behavior, gap, value, has_value = tokens
        embedding = self.network.embedding
        embedded = functional.embedding(item, embedding.item) * embedding.scale
        if embedding.behavior is not None:
            embedded = embedded + functional.embedding(behavior, embedding.behavior)
        if embedding.gap is not None:
            embedded = embedded + functional.embedding(gap, embedding.gap)
        if embedding.value is not None:
            known = has_value.to(value.dtype).unsqueeze(2)
            embedded = embedded + known * embedding.standardise(value).unsqueeze(2) * embedding.value[0]
            embedded = embedded + known * embedding.value[1]
        return embedded

    def _block(self, block: EncoderBlock, hidden: Tensor, bias: Float[Tensor, "head tree token token"]) -> Tensor:
        attention, normed = block.attention, block.attention_norm(hidden)
        head_width = hidden.shape[2] // attention.num_heads
        projected = attention.query_key_value(normed).reshape(*hidden.shape[:2], 3, attention.num_heads, head_width)
        query, key, value = projected.permute(2, 3, 0, 1, 4).unbind(0)
        energy = query @ key.transpose(2, 3) * (1 / math.sqrt(head_width)) + bias
        context = (torch.softmax(energy, dim=3) @ value).permute(1, 2, 0, 3).flatten(2)
        hidden = hidden + attention.output(context)
        feed_forward = block.feed_forward
        gate, passed = feed_forward.gate_and_value(block.feed_forward_norm(hidden)).chunk(2, dim=2)
        return hidden + feed_forward.output(functional.silu(gate) * passed)

    def _weights(self, query: Tensor, memory: Tensor, is_seen: Tensor) -> Float[Tensor, "tree branch token"]:
        """`Decoder.last_weights` for all branches at once."""
        attention = self.network.decoder.attention
        if isinstance(attention, AdditiveAttention):
            hidden = torch.tanh(attention.query(query).unsqueeze(2) + attention.key(memory).unsqueeze(1))
            # As a product of a matrix and a vector this is six times slower in ONNX Runtime.
            energy = (hidden * attention.score).sum(dim=3)
        else:
            assert isinstance(attention, DotProductAttention)
            energy = attention.query(query) @ attention.key(memory).transpose(1, 2) * attention.scale
        return torch.softmax(energy.masked_fill(~is_seen, UNSEEN), dim=2)

    def _decode(self, posterior: Tensor, context: Tensor) -> Float[Tensor, "sample tree branch hidden"]:
        """`Decoder.last` without its dropout."""
        decoder = self.network.decoder
        state = decoder.posterior(posterior) + decoder.context(context)
        gate, passed = decoder.feed_forward.gate_and_value(decoder.feed_forward_norm(state)).chunk(2, dim=3)
        preference: Tensor = decoder.norm(state + decoder.feed_forward.output(functional.silu(gate) * passed))
        return preference


def _blocks(network: Network) -> list[EncoderBlock]:
    return [block for block in network.encoder.blocks if isinstance(block, EncoderBlock)]
