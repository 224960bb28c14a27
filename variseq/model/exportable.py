"""A network into the part of it that a server runs: tokens in, the last preference under each sample out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.model.attention import AdditiveAttention, DotProductAttention
from variseq.model.encoder import EncoderBlock, distance_bucket
from variseq.model.network import Network


class LastPreference(nn.Module):
    """The same numbers as `sample_preferences`, over trees of tokens, in operations that export.

    A row holds one history, or several that share their beginning (`variseq.inference.tree`); what a token sees, and
    how far before it, is told by `distance`. All positions of the last encoder block are computed, because the decoder
    attends over the beliefs at all of them.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        config = network.config
        self.network = network.folded().eval()
        distance = torch.arange(config.max_length)
        biases = [block.attention.distance_bias[:, distance_bucket(distance)] for block in self._blocks()]
        self.distance_biases: Tensor
        self.mean_shift: Tensor
        self.mean_factor: Tensor
        self.register_buffer("distance_biases", torch.stack(biases).detach())
        mean, variance = network.latent.norm.running_mean, network.latent.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = torch.rsqrt(variance + network.latent.norm.eps) * (config.mean_scale or 0.0)
        has_norm = config.mean_scale is not None
        self.register_buffer("mean_shift", mean if has_norm else torch.zeros_like(mean))
        self.register_buffer("mean_factor", scale if has_norm else torch.ones_like(scale))

    def forward(
        self,
        item: Int[Tensor, "tree token"],
        behaviour: Int[Tensor, "tree token"],
        gap: Int[Tensor, "tree token"],
        value: Float[Tensor, "tree token"],
        has_value: Bool[Tensor, "tree token"],
        distance: Int[Tensor, "tree token token"],
        query: Int[Tensor, "tree branch"],
        noise: Float[Tensor, "sample place latent"],
    ) -> tuple[
        Float[Tensor, "sample tree branch width"], Float[Tensor, "tree branch"], Float[Tensor, "tree branch token"]
    ]:
        """At the token where each branch ends: the preferences, the mean log σ², the attention under the first sample.

        Noise is given by how far before the end of a branch a belief stands.
        """
        hidden = self._embedded(item, behaviour, gap, value, has_value)
        for number, block in enumerate(self._blocks()):
            hidden = self._block(block, hidden, self.distance_biases[number], distance)
        hidden = self.network.encoder.norm(hidden)
        latent = self.network.latent
        mean = (latent.mean(hidden) - self.mean_shift) * self.mean_factor
        log_variance = latent.log_variance(hidden).clamp(-10.0, 2.0)
        place = distance.gather(1, query[:, :, None].expand(-1, -1, distance.shape[2]))
        spread = torch.exp(0.5 * log_variance)[:, None] * noise[:, place.clamp(min=0)]
        beliefs = mean[:, None] + spread
        at_end = query[:, :, None].expand(-1, -1, mean.shape[2])
        asking = mean.gather(1, at_end) + torch.exp(0.5 * log_variance).gather(1, at_end) * noise[:, :1, None]
        preference, weights = self._decode(asking, beliefs, place >= 0)
        return preference, log_variance.gather(1, at_end).mean(dim=2), weights[0]

    def _blocks(self) -> list[EncoderBlock]:
        return [block for block in self.network.encoder.blocks if isinstance(block, EncoderBlock)]

    def _embedded(self, item: Tensor, behaviour: Tensor, gap: Tensor, value: Tensor, has_value: Tensor) -> Tensor:
        """The sum of `EventEmbedding`; the value is standardised here."""
        embedding = self.network.embedding
        embedded = functional.embedding(item, embedding.item) * embedding.scale
        if embedding.behaviour is not None:
            embedded = embedded + functional.embedding(behaviour, embedding.behaviour)
        if embedding.gap is not None:
            embedded = embedded + functional.embedding(gap, embedding.gap)
        if embedding.value is not None:
            known = has_value.to(value.dtype).unsqueeze(2)
            embedded = embedded + known * embedding.standardise(value).unsqueeze(2) * embedding.value[0]
            embedded = embedded + known * embedding.value[1]
        return embedded

    def _block(self, block: EncoderBlock, hidden: Tensor, distance_bias: Tensor, distance: Tensor) -> Tensor:
        attention, normed = block.attention, block.attention_norm(hidden)
        width = hidden.shape[2]
        head_width = width // attention.num_heads
        projected = attention.query_key_value(normed).reshape(*hidden.shape[:2], 3, attention.num_heads, head_width)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        # A distance of −1 finds the first one, which nobody sees.
        unseen = torch.full_like(distance_bias[:, :1], float("-inf"))
        bias = torch.cat([unseen, distance_bias], dim=1)[:, distance + 1].transpose(0, 1)
        energy = query @ key.transpose(2, 3) * (1 / math.sqrt(head_width)) + bias
        context = (torch.softmax(energy, dim=3) @ value).transpose(1, 2).flatten(2)
        hidden = hidden + attention.output(context)
        feed_forward = block.feed_forward
        gate, passed = feed_forward.gate_and_value(block.feed_forward_norm(hidden)).chunk(2, dim=2)
        return hidden + feed_forward.output(functional.silu(gate) * passed)

    def _decode(self, query: Tensor, beliefs: Tensor, is_seen: Tensor) -> tuple[Tensor, Tensor]:
        """`Decoder.last` for all samples and branches at once, and the attention weights."""
        decoder = self.network.decoder
        attention = decoder.attention
        if isinstance(attention, AdditiveAttention):
            hidden = torch.tanh(attention.query(query).unsqueeze(3) + attention.key(beliefs))
            energy = hidden @ attention.score
        else:
            assert isinstance(attention, DotProductAttention)
            energy = (attention.query(query).unsqueeze(3) * attention.key(beliefs)).sum(dim=4) * attention.scale
        weights = torch.softmax(energy.masked_fill(~is_seen, float("-inf")), dim=3)
        context = (weights.unsqueeze(3) @ beliefs).squeeze(3)
        state = decoder.belief(query) + decoder.context(context)
        gate, passed = decoder.feed_forward.gate_and_value(decoder.feed_forward_norm(state)).chunk(2, dim=3)
        return decoder.norm(state + decoder.feed_forward.output(functional.silu(gate) * passed)), weights
