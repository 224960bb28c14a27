"""The losses: softmax over items, exact and chunk by chunk, sampled softmax with log-Q correction, and value losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from variseq.model.layers import ValueEstimate

CHUNK_NUMBERS = 3 << 18
"""How many scores (row × item) a chunk holds: 3 MB, so that they stay in the cache of a core."""
SAFE_SCORE = 70.0
"""exp of this, summed over a hundred million items, is finite in float32, and exp of minus this is not zero."""


@dataclass(frozen=True)
class Hits:
    """Pairs of a token and an item that is its target, by token."""

    token: Int[Tensor, " pair"]
    item: Int[Tensor, " pair"]

    @classmethod
    def of(cls, items: Int[Tensor, " item"], target: Int[Tensor, " token"]) -> Hits:
        """The pairs with items[item] = target[token].

        >>> hits = Hits.of(torch.tensor([7, 5, 7]), torch.tensor([7, 6, 5]))
        >>> hits.token.tolist(), hits.item.tolist()
        ([0, 0, 2], [0, 2, 1])
        """
        ordered, index = items.sort(stable=True)
        first = torch.searchsorted(ordered, target)
        number = torch.searchsorted(ordered, target, right=True) - first
        token = torch.repeat_interleave(torch.arange(len(target), device=target.device), number)
        nth = torch.arange(len(token), device=target.device) - (number.cumsum(0) - number)[token]
        return cls(token, index[first[token] + nth])

    def erase(self, powers: Float[Tensor, "sample token item"], tokens: slice) -> None:
        """Set the pairs of some tokens to zero; `powers` holds these tokens alone."""
        bounds = torch.tensor([tokens.start, tokens.stop], device=self.token.device)
        first, last = torch.searchsorted(self.token, bounds).tolist()
        powers[:, self.token[first:last] - tokens.start, self.item[first:last]] = 0.0


@dataclass(frozen=True)
class _Items:
    """The items with exp(bias − shift) as a factor; `weighted` are the vectors times this factor."""

    vectors: Float[Tensor, "item hidden"]
    weighted: Float[Tensor, "item hidden"]
    factor: Float[Tensor, " item"]
    shift: Float[Tensor, ""]
    hits: Hits | None
    is_bounded: bool

    @classmethod
    def of(cls, vectors: Tensor, bias: Tensor, hits: Hits | None, largest_preference: float) -> _Items:
        shift = bias.max()
        factor = torch.exp(bias - shift)
        is_bounded = largest_preference * _largest_norm(vectors) < SAFE_SCORE
        return cls(vectors, vectors * factor.unsqueeze(1), factor, shift, hits, is_bounded)

    def powers(self, rows: Tensor, tokens: slice, out: Tensor) -> tuple[Tensor, Tensor]:
        """exp(score without bias − highest) of the rows of some tokens, 0 at hits; and the highest score."""
        # Powers of two are faster than those of e.
        scores = torch.mm(rows / math.log(2), self.vectors.T, out=out)
        highest = rows.new_zeros(len(rows)) if self.is_bounded else scores.amax(dim=1)
        powers = (scores if self.is_bounded else scores.sub_(highest.unsqueeze(1))).exp2_()
        if self.hits is not None:
            self.hits.erase(powers.view(-1, tokens.stop - tokens.start, len(self.vectors)), tokens)
        return powers, math.log(2) * highest


class _ChunkedSoftmax(torch.autograd.Function):
    """Mean over tokens of −log of the mean over samples of p(target).

    Without `hits` each target is one of the items. With `hits` the target is added to the items, and items equal to the
    target do not count. The gradients are computed in the forward pass, while the scores are in cache; the backward
    pass only scales them. Two passes over the scores are saved: the bias is a factor outside the exponent, and the
    largest score is subtracted only where a bound on the scores does not rule out overflow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        preference: Tensor,
        item_vectors: Tensor,
        item_bias: Tensor,
        target_vectors: Tensor,
        target_bias: Tensor,
        hits: Hits | None,
    ) -> Tensor:
        num_samples, num_tokens, hidden_size = preference.shape
        items = _Items.of(item_vectors, item_bias, hits, _largest_norm(preference))
        at_target = (preference * target_vectors).sum(dim=2) + (target_bias - items.shift)
        size = max(1, min(num_tokens, max(32, CHUNK_NUMBERS // len(item_vectors)) // num_samples))
        buffer = preference.new_empty(num_samples * size, len(item_vectors))
        grad_preference, share = torch.empty_like(preference), torch.empty_like(at_target)
        grad_vectors, grad_bias = torch.zeros_like(item_vectors), torch.zeros_like(item_bias)
        total = preference.new_zeros((), dtype=torch.float64)
        for first in range(0, num_tokens, size):
            tokens = slice(first, min(first + size, num_tokens))
            rows, of_target = preference[:, tokens].reshape(-1, hidden_size), at_target[:, tokens].reshape(-1)
            powers, highest = items.powers(rows, tokens, buffer[: len(rows)])
            log_mass = torch.mv(powers, items.factor).log_().add_(highest)
            log_mass = log_mass if hits is None else torch.logaddexp(log_mass, of_target)
            log_probability = (of_target - log_mass).view(num_samples, -1)
            total += (math.log(num_samples) - torch.logsumexp(log_probability, dim=0)).sum(dtype=torch.float64)
            # The gradient of a sample is weighted by its share of p(target).
            of_sample = torch.softmax(log_probability, dim=0)
            share[:, tokens] = of_sample if hits is None else of_sample * -torch.expm1(log_probability)
            scale = (of_sample.view(-1) * torch.exp(highest - log_mass)).unsqueeze(1)
            expected = torch.mm(powers, items.weighted).mul_(scale)
            grad_preference[:, tokens] = expected.view(num_samples, -1, hidden_size)
            grad_vectors.addmm_(powers.T, rows * scale)
            grad_bias.addmv_(powers.T, scale.squeeze(1))
        share = share.unsqueeze(2)
        ctx.save_for_backward(
            grad_preference.addcmul_(share, target_vectors, value=-1),
            grad_vectors.mul_(items.factor.unsqueeze(1)),
            grad_bias.mul_(items.factor),
            (share * preference).sum(dim=0).neg_(),
            share.sum(dim=(0, 2)).neg_(),
        )
        ctx.num_tokens = num_tokens
        return (total / num_tokens).to(preference.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0] / ctx.num_tokens
        return (*(gradient * scale for gradient in ctx.saved_tensors), None)


def _largest_norm(rows: Float[Tensor, "*rows hidden"]) -> float:
    return float(torch.linalg.vector_norm(rows, dim=-1).max())


@dataclass(frozen=True)
class Negatives:
    """Shared negatives of one batch, drawn with replacement from exp(log_probability)."""

    items: Int[Tensor, " negative"]
    log_probability: Float[Tensor, " item"]

    @classmethod
    def draw(cls, log_probability: Float[Tensor, " item"], num_negatives: int) -> Negatives:
        """Draw `num_negatives` items by their log-probabilities."""
        return cls(torch.multinomial(log_probability.exp(), num_negatives, replacement=True), log_probability)


def softmax_loss(
    preference: Float[Tensor, "sample token hidden"],
    item_vectors: Float[Tensor, "item hidden"],
    item_bias: Float[Tensor, " item"],
    target: Int[Tensor, " token"],
    negatives: Negatives | None = None,
) -> Float[Tensor, ""]:
    """Mean over tokens of −log of the mean over samples of softmax(P Eᵀ + b) at the target.

    With one sample this is the cross-entropy; with several it is that of their mixture (Burda et al. 2016, equation 8,
    with the prior predictive as proposal, so that all importance weights are equal).

    With negatives the softmax is over the target and these alone. Their scores are lowered by log(negatives ×
    probability), so that their sum estimates the full partition function; negatives equal to the target are left out
    (Bengio and Senécal 2008; Yi et al. 2019, equation 5).

    >>> softmax_loss(torch.zeros(1, 2, 3), torch.ones(5, 3), torch.zeros(5), torch.tensor([0, 4])).exp()
    tensor(5.)
    """
    of_target, hits = (functional.embedding(target, item_vectors), item_bias[target]), None
    if negatives is not None:
        correction = math.log(len(negatives.items)) + negatives.log_probability[negatives.items]
        item_vectors, item_bias = functional.embedding(negatives.items, item_vectors), item_bias[negatives.items]
        item_bias, hits = item_bias - correction, Hits.of(negatives.items, target)
    loss: Tensor = _ChunkedSoftmax.apply(preference, item_vectors, item_bias, *of_target, hits)  # type: ignore[no-untyped-call]
    return loss


def value_loss(
    estimate: ValueEstimate, value: Float[Tensor, " token"], kind: Literal["gaussian", "squared"]
) -> Float[Tensor, ""]:
    """The mean over the values that are known (not NaN), 0 when none is: Gaussian NLL in nats, or squared error.

    >>> value_loss(ValueEstimate(torch.zeros(2), torch.zeros(2)), torch.tensor([1.0, float("nan")]), "gaussian")
    tensor(1.4189)
    """
    known = value.isfinite()
    squared = (torch.where(known, value, estimate.mean) - estimate.mean).square()
    if kind == "squared":
        return squared.sum() / known.sum().clamp(min=1)
    each = 0.5 * (math.log(2 * math.pi) + estimate.log_variance + squared * torch.exp(-estimate.log_variance))
    return (each * known).sum() / known.sum().clamp(min=1)
