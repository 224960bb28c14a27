"""Preferences and what happened next into losses: pure functions on packed tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from variseq.model.decoder import ValueEstimate

CHUNK_NUMBERS = 1 << 21
"""How many scores (token × item) a chunk of the full softmax holds: 8 MB."""


def softmax_loss_plain(
    preference: Float[Tensor, "token width"],
    item_vectors: Float[Tensor, "item width"],
    item_bias: Float[Tensor, " item"],
    target: Int[Tensor, " token"],
) -> Float[Tensor, ""]:
    """Mean of −log softmax(P E ᵀ + b) at the target: the twin that `softmax_loss` is held against."""
    return functional.cross_entropy(preference @ item_vectors.T + item_bias, target)


def softmax_loss(
    preference: Float[Tensor, "token width"],
    item_vectors: Float[Tensor, "item width"],
    item_bias: Float[Tensor, " item"],
    target: Int[Tensor, " token"],
) -> Float[Tensor, ""]:
    """The same number as `softmax_loss_plain`; token × item is never held as a whole.

    The gradients are formed chunk by chunk in the forward pass, while the scores are in cache; the backward pass only
    scales them. At 12,101 items and width 64 this ran 3.7 times as fast as the plain form
    (`benchmarks/kernels.py`).

    >>> softmax_loss(torch.zeros(2, 3), torch.ones(5, 3), torch.zeros(5), torch.tensor([0, 4])).exp()
    tensor(5.)
    """
    loss: Tensor = _ChunkedSoftmax.apply(preference, item_vectors, item_bias, target)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    """Forward of the mean cross-entropy together with its gradients."""

    @staticmethod
    def forward(ctx: Any, preference: Tensor, item_vectors: Tensor, item_bias: Tensor, target: Tensor) -> Tensor:
        num_tokens, num_items = len(preference), len(item_vectors)
        size = min(num_tokens, max(32, CHUNK_NUMBERS // num_items))
        grad_preference = torch.empty_like(preference)
        grad_vectors, grad_bias = torch.zeros_like(item_vectors), torch.zeros_like(item_bias)
        scores_buffer = preference.new_empty(size, num_items)
        total = preference.new_zeros((), dtype=torch.float64)
        for first in range(0, num_tokens, size):
            chunk = preference[first : first + size]
            scores = torch.addmm(item_bias, chunk, item_vectors.T, out=scores_buffer[: len(chunk)])
            at_target = scores.gather(1, target[first : first + size].unsqueeze(1))
            highest = scores.amax(dim=1, keepdim=True)
            mass = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
            total += (highest + mass.log() - at_target).sum(dtype=torch.float64)
            # The softmax is scores / mass; dividing the narrow side of each product saves a pass over the wide one.
            inverse = mass.reciprocal_()
            torch.mm(scores, item_vectors, out=grad_preference[first : first + size]).mul_(inverse)
            grad_vectors.addmm_(scores.T, chunk * inverse)
            grad_bias.addmv_(scores.T, inverse.squeeze(1))
        grad_preference.sub_(item_vectors[target])
        grad_vectors.index_add_(0, target, preference, alpha=-1)
        grad_bias.index_add_(0, target, torch.ones_like(preference[:, 0]), alpha=-1)
        ctx.save_for_backward(grad_preference, grad_vectors, grad_bias)
        ctx.num_tokens = num_tokens
        return (total / num_tokens).to(preference.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scale = grad_outputs[0] / ctx.num_tokens
        grad_preference, grad_vectors, grad_bias = ctx.saved_tensors
        return grad_preference * scale, grad_vectors * scale, grad_bias * scale, None


@dataclass(frozen=True)
class Negatives:
    """Shared negatives of one batch, drawn with replacement from exp(log_probability)."""

    items: Int[Tensor, " negative"]
    log_probability: Float[Tensor, " item"]

    @classmethod
    def draw(cls, log_probability: Float[Tensor, " item"], num_negatives: int) -> Negatives:
        """Negatives by the given log-probabilities."""
        items = torch.multinomial(log_probability.exp(), num_negatives, replacement=True)
        return cls(items, log_probability)

    def loss(
        self,
        preference: Float[Tensor, "token width"],
        item_vectors: Float[Tensor, "item width"],
        item_bias: Float[Tensor, " item"],
        target: Int[Tensor, " token"],
    ) -> Float[Tensor, ""]:
        """Softmax over the target and the negatives, corrected for how often each item is drawn (log-Q).

        The scores of negatives are lowered by log(negatives × probability), so that their sum estimates the full
        partition function; a negative that is the target is left out (Bengio and Senécal 2008; Yi et al. 2019,
        equation 5). For catalogues too large for the full softmax.
        """
        items = self.items
        at_target = (preference * functional.embedding(target, item_vectors)).sum(dim=1) + item_bias[target]
        correction = math.log(len(items)) + self.log_probability[items]
        scores = preference @ functional.embedding(items, item_vectors).T + (item_bias[items] - correction)
        scores = scores.masked_fill(items.unsqueeze(0) == target.unsqueeze(1), float("-inf"))
        return (torch.logsumexp(torch.cat([at_target.unsqueeze(1), scores], dim=1), dim=1) - at_target).mean()


def gaussian_value_loss(estimate: ValueEstimate, value: Float[Tensor, " token"]) -> Float[Tensor, ""]:
    """Mean Gaussian negative log-likelihood of the values that are known (not NaN), in nats; 0 when none is.

    >>> gaussian_value_loss(ValueEstimate(torch.zeros(2), torch.zeros(2)), torch.tensor([1.0, float("nan")]))
    tensor(1.4189)
    """
    known = value.isfinite()
    error = torch.where(known, value, estimate.mean) - estimate.mean
    each = 0.5 * (math.log(2 * math.pi) + estimate.log_variance + error.square() * torch.exp(-estimate.log_variance))
    return (each * known).sum() / known.sum().clamp(min=1)


def squared_value_loss(estimate: ValueEstimate, value: Float[Tensor, " token"]) -> Float[Tensor, ""]:
    """Mean squared error of the values that are known (not NaN); 0 when none is.

    >>> squared_value_loss(ValueEstimate(torch.zeros(2), torch.zeros(2)), torch.tensor([2.0, float("nan")]))
    tensor(4.)
    """
    known = value.isfinite()
    error = torch.where(known, value, estimate.mean) - estimate.mean
    return error.square().sum() / known.sum().clamp(min=1)
