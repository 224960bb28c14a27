"""The softmax over many items with its gradients, chunk by chunk: the most expensive part of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_NUMBERS = 3 << 18
"""How many scores (row × item) a chunk holds: 3 MB, about what a core keeps close."""

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
        ordered, place = items.sort(stable=True)
        first = torch.searchsorted(ordered, target)
        number = torch.searchsorted(ordered, target, right=True) - first
        token = torch.repeat_interleave(torch.arange(len(target), device=target.device), number)
        nth = torch.arange(len(token), device=target.device) - (number.cumsum(0) - number)[token]
        return cls(token, place[first[token] + nth])

    def erase(self, powers: Float[Tensor, "sample token item"], tokens: slice) -> None:
        """Set the pairs of some tokens to zero; `powers` holds these tokens alone."""
        bounds = torch.tensor([tokens.start, tokens.stop], device=self.token.device)
        first, last = torch.searchsorted(self.token, bounds).tolist()
        powers[:, self.token[first:last] - tokens.start, self.item[first:last]] = 0.0


def chunked_softmax(
    preference: Float[Tensor, "sample token hidden"],
    item_vectors: Float[Tensor, "item hidden"],
    item_bias: Float[Tensor, " item"],
    target_vectors: Float[Tensor, "token hidden"],
    target_bias: Float[Tensor, " token"],
    hits: Hits | None,
) -> Float[Tensor, ""]:
    """Mean over tokens of −log of the mean over samples of p(target).

    Without `hits` each target is one of the items. With them it stands beside the items, and those that are the target
    itself do not count. The gradients are formed in the forward pass, while the scores are in cache; the
    backward pass only scales them. The bias stands outside the exponent, as a factor of the narrow sides, and
    the largest score of a row is taken off only where a bound on all scores does not show that it need not be:
    each spares a pass over the wide matrix. Speed beside the plain form: `benchmarks/kernels.py`.

    >>> target = torch.tensor([0, 4])
    >>> chunked_softmax(torch.zeros(1, 2, 3), torch.ones(5, 3), torch.zeros(5), torch.ones(2, 3), torch.zeros(2), None)
    tensor(1.6094)
    """
    loss: Tensor = _ChunkedSoftmax.apply(  # type: ignore[no-untyped-call]
        preference, item_vectors, item_bias, target_vectors, target_bias, hits
    )
    return loss


@dataclass(frozen=True)
class _Items:
    """The items as the chunks need them: with exp(bias − shift) as a factor that the vectors are also weighted with."""

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
        """exp(score without bias − highest) of the rows of some tokens, 0 at hits; and what the highest was.

        The scores are those to base two, as powers of two are the cheaper ones.
        """
        scores = torch.mm(rows / math.log(2), self.vectors.T, out=out)
        highest = rows.new_zeros(len(rows)) if self.is_bounded else scores.amax(dim=1)
        powers = (scores if self.is_bounded else scores.sub_(highest.unsqueeze(1))).exp2_()
        if self.hits is not None:
            self.hits.erase(powers.view(-1, tokens.stop - tokens.start, len(self.vectors)), tokens)
        return powers, math.log(2) * highest


class _ChunkedSoftmax(torch.autograd.Function):
    """Forward of the mean loss together with its gradients."""

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
            # A sample answers for the target by its share of p(target).
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
