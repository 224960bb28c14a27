"""A network into the part of it that a server runs: tokens in, the last preference under each sample out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from variseq.model.additive import additive_weights
from variseq.model.attention import AdditiveAttention
from variseq.model.encoder import EncoderBlock, distance_bucket
from variseq.model.network import Network


class LastPreference(nn.Module):
    """The same numbers as `sample_preferences`, over a rectangle of tokens from the left, in operations that export.

    Cells at or after the length of a row may hold anything: what comes later is seen by nobody before it, and the
    decoder is asked at the last token only. All positions of the last encoder block are computed, because the decoder
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
        item: Int[Tensor, "history token"],
        behaviour: Int[Tensor, "history token"],
        gap: Int[Tensor, "history token"],
        value: Float[Tensor, "history token"],
        has_value: Bool[Tensor, "history token"],
        length: Int[Tensor, " history"],
        noise: Float[Tensor, "sample place latent"],
    ) -> tuple[Float[Tensor, "sample history width"], Float[Tensor, " history"], Float[Tensor, "history token"]]:
        """Preferences, mean log σ² at the last token, and the attention weights there under the first sample."""
        hidden = self._embedded(item, behaviour, gap, value, has_value)
        for number, block in enumerate(self._blocks()):
            hidden = self._block(block, hidden, self.distance_biases[number])
        hidden = self.network.encoder.norm(hidden)
        latent = self.network.latent
        mean = (latent.mean(hidden) - self.mean_shift) * self.mean_factor
        log_variance = latent.log_variance(hidden).clamp(-10.0, 2.0)
        last = (length - 1)[:, None]
        position = torch.arange(item.shape[1], device=item.device)[None, :]
        place = (last - position).clamp(min=0)
        beliefs = mean + torch.exp(0.5 * log_variance) * noise[:, place]
        at_last = last[:, :, None].expand(-1, 1, mean.shape[2])
        query = beliefs.gather(2, at_last.expand(beliefs.shape[0], -1, -1, -1))
        preference, weights = self._decode(query, beliefs, last)
        return preference, log_variance.gather(1, at_last).mean(dim=(1, 2)), weights

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

    def _block(self, block: EncoderBlock, hidden: Tensor, distance_bias: Tensor) -> Tensor:
        attention, normed = block.attention, block.attention_norm(hidden)
        width = hidden.shape[2]
        head_width = width // attention.num_heads
        projected = attention.query_key_value(normed).reshape(*hidden.shape[:2], 3, attention.num_heads, head_width)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        position = torch.arange(hidden.shape[1], device=hidden.device)
        distance = position[:, None] - position[None, :]
        bias = distance_bias[:, distance.clamp(min=0)].masked_fill(distance < 0, float("-inf"))
        energy = query @ key.transpose(2, 3) * (1 / math.sqrt(head_width)) + bias
        context = (torch.softmax(energy, dim=3) @ value).transpose(1, 2).flatten(2)
        hidden = hidden + attention.output(context)
        feed_forward = block.feed_forward
        gate, passed = feed_forward.gate_and_value(block.feed_forward_norm(hidden)).chunk(2, dim=2)
        return hidden + feed_forward.output(functional.silu(gate) * passed)

    def _decode(self, query: Tensor, beliefs: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """`Decoder.last` for all samples at once, and the weights of the first."""
        decoder, samples = self.network.decoder, beliefs.shape[0]
        flat_query, memory = query.flatten(0, 1), beliefs.flatten(0, 1)
        position = last.repeat(samples, 1)
        attention = decoder.attention
        if isinstance(attention, AdditiveAttention):
            weights = additive_weights(attention.query(flat_query), attention.key(memory), attention.score, position)
        else:
            weights = attention.weights(flat_query, memory, position)  # type: ignore[operator]
        context = (weights @ memory).squeeze(1)
        state = decoder.belief(flat_query.squeeze(1)) + decoder.context(context)
        gate, passed = decoder.feed_forward.gate_and_value(decoder.feed_forward_norm(state)).chunk(2, dim=1)
        preference = decoder.norm(state + decoder.feed_forward.output(functional.silu(gate) * passed))
        of_samples = (samples, -1)
        return preference.reshape(*of_samples, preference.shape[1]), weights.reshape(*of_samples, weights.shape[2])[0]
