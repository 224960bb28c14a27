"""Posteriors into preferences, and preferences into scores and values. Nothing else of the encoder arrives here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from variseq.model.attention import AdditiveAttention, DotProductAttention
from variseq.model.dropout import drop
from variseq.model.encoder import FeedForward
from variseq.sequences.batches import Layout


class Decoder(nn.Module):
    """P_t = norm(s_t + feed-forward(norm(s_t))), with s_t = M z_t + dropout(W c_t) and c_t the attention over z_1..z_t.

    W starts at zero: the network begins without the context and takes as much of it as pays. The attention weighs by
    the means, once for all samples: weights of each sample were no better and the dearest part (docs/ablations.md).
    """

    def __init__(self, latent_dim: int, hidden_size: int, attention: nn.Module, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.posterior = nn.Linear(latent_dim, hidden_size, bias=False)
        self.context = nn.Linear(latent_dim, hidden_size, bias=False)
        self.feed_forward_norm = nn.RMSNorm(hidden_size)
        self.feed_forward = FeedForward(hidden_size, 2 * hidden_size)
        self.norm = nn.RMSNorm(hidden_size)
        self.dropout = dropout
        nn.init.zeros_(self.context.weight)

    def forward(
        self, mean: Float[Tensor, "token latent"], samples: Float[Tensor, "sample token latent"], layout: Layout
    ) -> Float[Tensor, "sample token hidden"]:
        """The preference at every position under each sample; the mean itself may be the only one."""
        memory = layout.unpack(mean)
        position = torch.arange(layout.longest, device=mean.device).expand(layout.num_histories, layout.longest)
        context = layout.pack(self.attention(memory, memory, layout.unpack(_side_by_side(samples)), position))
        return self._preference(samples, _one_by_one(context, len(samples)))

    def last(
        self, mean: Float[Tensor, "token latent"], samples: Float[Tensor, "sample token latent"], layout: Layout
    ) -> Float[Tensor, "sample history hidden"]:
        """The preference at the last position of each history only: what a recommendation needs."""
        query, position = self._last_query(mean, layout)
        context = self.attention(query, layout.unpack(mean), layout.unpack(_side_by_side(samples)), position)
        return self._preference(samples[:, layout.last_tokens()], _one_by_one(context.squeeze(1), len(samples)))

    def last_at_mean(self, mean: Float[Tensor, "token latent"], layout: Layout) -> Float[Tensor, "history hidden"]:
        """The same of the mean alone."""
        return self.last(mean, mean.unsqueeze(0), layout).squeeze(0)

    def last_weights(self, mean: Float[Tensor, "token latent"], layout: Layout) -> Float[Tensor, "history longest"]:
        """The attention weights of the last position of each history."""
        query, position = self._last_query(mean, layout)
        weights: Tensor = self.attention.weights(query, layout.unpack(mean), position)  # type: ignore[operator]
        return weights.squeeze(1)

    def _last_query(self, mean: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        return mean[layout.last_tokens()].unsqueeze(1), (layout.lengths - 1).unsqueeze(1)

    def _preference(
        self, latent: Float[Tensor, "sample row latent"], context: Float[Tensor, "sample row latent"]
    ) -> Float[Tensor, "sample row hidden"]:
        state = self.posterior(latent) + drop(self.context(context), self.dropout, self.training)
        transformed = self.feed_forward(self.feed_forward_norm(state))
        preference: Tensor = self.norm(state + drop(transformed, self.dropout, self.training))
        return preference


def _side_by_side(samples: Float[Tensor, "sample token latent"]) -> Float[Tensor, "token content"]:
    return samples.transpose(0, 1).flatten(1)


def _one_by_one(content: Float[Tensor, "row content"], num_samples: int) -> Float[Tensor, "sample row latent"]:
    return content.view(len(content), num_samples, -1).transpose(0, 1)


def build_attention(form: str, latent_dim: int, attention_dim: int) -> AdditiveAttention | DotProductAttention:
    """The attention of a configuration: "additive" or "dot"."""
    kind = AdditiveAttention if form == "additive" else DotProductAttention
    return kind(latent_dim, attention_dim)


@dataclass(frozen=True)
class ValueEstimate:
    """A Gaussian for the value of an event, in standardised units."""

    mean: Float[Tensor, " token"]
    log_variance: Float[Tensor, " token"]


class ValueHead(nn.Module):
    """The value of the next event, given the preference and which item it is: the method's regression part.

    Mean and log-variance are linear in P_t ⊙ (V E_i), the agreement of preference and item, plus E_i itself.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.item = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(2 * hidden_size, 2)

    def forward(self, preference: Float[Tensor, "token hidden"], item: Float[Tensor, "token hidden"]) -> ValueEstimate:
        projected = self.item(item)
        mean, log_variance = self.output(torch.cat([preference * projected, projected], dim=1)).unbind(1)
        return ValueEstimate(mean, log_variance.clamp(-6.0, 4.0))
