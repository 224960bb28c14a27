"""The losses: softmax over items, exact and chunk by chunk, sampled softmax with log-Q correction, and value losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from variseq.model.value_head import ValueEstimate
from variseq.sequences.batches import ragged

CHUNK_NUMBERS = 3 << 18
"""How many scores (row × item) a chunk holds: 3 MB, so that they stay in the cache of a core."""
SAFE_SCORE = 70.0
"""exp of this, summed over a hundred million items, is finite in float32, and exp of minus this is not zero."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of a token and an item, by token."""

    token: Int[Tensor, " pair"]
    item: Int[Tensor, " pair"]

    def of_tokens(self, is_kept: Bool[Tensor, " token"]) -> Pairs:
        """The pairs of some tokens, which are numbered anew."""
        kept, number = is_kept[self.token], is_kept.cumsum(0) - 1
        return Pairs(number[self.token[kept]], self.item[kept])

    def between(self, first: int, last: int) -> Pairs:
        """The pairs of the tokens from `first` up to before `last`, which are numbered from 0.

        >>> pairs = Pairs(torch.tensor([0, 1, 1, 2]), torch.tensor([7, 6, 5, 4])).between(1, 2)
        >>> pairs.token.tolist(), pairs.item.tolist()
        ([0, 0], [6, 5])
        """
        begin, end = torch.searchsorted(self.token, torch.tensor([first, last], device=self.token.device)).tolist()
        return Pairs(self.token[begin:end] - first, self.item[begin:end])

    def among(self, items: Int[Tensor, " item"]) -> Pairs:
        """The same pairs with the positions of the item in `items`, where it may stand several times, in its place.

        >>> pairs = Pairs(torch.tensor([0, 1, 2]), torch.tensor([7, 6, 5])).among(torch.tensor([7, 5, 7]))
        >>> pairs.token.tolist(), pairs.item.tolist()
        ([0, 0, 2], [0, 2, 1])
        """
        ordered, index = items.sort(stable=True)
        first = torch.searchsorted(ordered, self.item)
        number = torch.searchsorted(ordered, self.item, right=True) - first
        pair, nth = ragged(first, number)
        return Pairs(self.token[pair], index[nth])

    def erase(self, powers: Float[Tensor, "sample token item"], tokens: slice) -> None:
        """Set the pairs of some tokens to zero; `powers` holds these tokens alone."""
        bounds = torch.tensor([tokens.start, tokens.stop], device=self.token.device)
        first, last = torch.searchsorted(self.token, bounds).tolist()
        powers[:, self.token[first:last] - tokens.start, self.item[first:last]] = 0.0


@dataclass(frozen=True)
class Targets:
    """The next events of each token, the nearest first, each with its weight in the loss; 0 where there is none."""

    item: Int[Tensor, "token future"]
    weight: Float[Tensor, "token future"]

    @classmethod
    def next(cls, item: Int[Tensor, " token"]) -> Targets:
        """The next event of each token alone."""
        return cls(item.unsqueeze(1), torch.ones(len(item), 1, device=item.device))

    @property
    def is_counted(self) -> Bool[Tensor, "token future"]:
        """Whether a target has a weight, and is not the same item as a nearer one."""
        has_weight = self.weight > 0
        is_same = (self.item.unsqueeze(2) == self.item.unsqueeze(1)) & has_weight.unsqueeze(1)
        return has_weight & ~is_same.tril(-1).any(dim=2)

    def pairs(self) -> Pairs:
        """Each token with each of its targets."""
        token, number = torch.nonzero(self.weight > 0).unbind(1)
        return Pairs(token, self.item[token, number])


@dataclass(frozen=True)
class _Items:
    """The items with exp(bias − shift) as a factor; `weighted` are the vectors times this factor."""

    vectors: Float[Tensor, "item hidden"]
    weighted: Float[Tensor, "item hidden"]
    factor: Float[Tensor, " item"]
    shift: Float[Tensor, ""]
    erased: Sequence[Pairs]
    is_bounded: bool

    @classmethod
    def of(cls, vectors: Tensor, bias: Tensor, erased: Sequence[Pairs], max_norm: float) -> _Items:
        shift = bias.max()
        factor = torch.exp(bias - shift)
        is_bounded = max_norm * _largest_norm(vectors) < SAFE_SCORE
        return cls(vectors, vectors * factor.unsqueeze(1), factor, shift, erased, is_bounded)

    def powers(self, rows: Tensor, tokens: slice, out: Tensor) -> tuple[Tensor, Tensor]:
        """exp(score without bias − highest) of the rows of some tokens, 0 where erased; and the highest score."""
        # Powers of two are faster than those of e.
        scores = torch.mm(rows / math.log(2), self.vectors.T, out=out)
        highest = rows.new_zeros(len(rows)) if self.is_bounded else scores.amax(dim=1)
        powers = (scores if self.is_bounded else scores.sub_(highest.unsqueeze(1))).exp2_()
        for pairs in self.erased:
            pairs.erase(powers.view(-1, tokens.stop - tokens.start, len(self.vectors)), tokens)
        return powers, math.log(2) * highest


class _ChunkedSoftmax(torch.autograd.Function):
    """The sum over tokens of −log of the mean over samples of Π_j p(target j)^w_j.

    Without `erased` the targets are among the items. With it they are added to the items, of which those that are
    erased for a token do not count. The gradients are computed in the forward pass, while the scores are in cache; the
    backward pass only scales them. Two passes over the scores are saved: the bias is a factor outside the exponent, and
    the largest score is subtracted only where a bound on the scores does not rule out overflow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        preference: Tensor,
        item_vectors: Tensor,
        item_bias: Tensor,
        target_vectors: Tensor,
        target_bias: Tensor,
        targets: Targets,
        erased: Sequence[Pairs],
        max_norm: float | None,
    ) -> Tensor:
        num_samples, num_tokens, hidden_size = preference.shape
        items = _Items.of(item_vectors, item_bias, erased, _largest_norm(preference) if max_norm is None else max_norm)
        at_target = torch.einsum("sth,tjh->stj", preference, target_vectors) + (target_bias - items.shift)
        weight, is_counted = targets.weight.to(preference.dtype), targets.is_counted
        total_weight = weight.sum(dim=1)
        added = at_target.masked_fill(~is_counted, -math.inf).logsumexp(dim=2)
        size = max(1, min(num_tokens, max(32, CHUNK_NUMBERS // len(item_vectors)) // num_samples))
        buffer = preference.new_empty(num_samples * size, len(item_vectors))
        grad_preference, pull = torch.empty_like(preference), torch.empty_like(at_target)
        grad_vectors, grad_bias = torch.zeros_like(item_vectors), torch.zeros_like(item_bias)
        total = preference.new_zeros((), dtype=torch.float64)
        for first in range(0, num_tokens, size):
            tokens = slice(first, min(first + size, num_tokens))
            rows, of_target = preference[:, tokens].reshape(-1, hidden_size), at_target[:, tokens]
            powers, highest = items.powers(rows, tokens, buffer[: len(rows)])
            log_mass = torch.mv(powers, items.factor).log_().add_(highest)
            log_mass = log_mass if not erased else torch.logaddexp(log_mass, added[:, tokens].reshape(-1))
            log_probability = of_target - log_mass.view(num_samples, -1, 1)
            joint = (weight[tokens] * log_probability).sum(dim=2)
            total += (math.log(num_samples) - torch.logsumexp(joint, dim=0)).sum(dtype=torch.float64)
            # The gradient of a sample is weighted by its share of the likelihood.
            share, of_tokens = torch.softmax(joint, dim=0), total_weight[tokens]
            pull[:, tokens] = share.unsqueeze(2) * weight[tokens]
            if erased:
                probability = torch.exp(log_probability) * is_counted[tokens]
                pull[:, tokens] -= (share * of_tokens).unsqueeze(2) * probability
            scale = ((share * of_tokens).view(-1) * torch.exp(highest - log_mass)).unsqueeze(1)
            expected = torch.mm(powers, items.weighted).mul_(scale)
            grad_preference[:, tokens] = expected.view(num_samples, -1, hidden_size)
            grad_vectors.addmm_(powers.T, rows * scale)
            grad_bias.addmv_(powers.T, scale.squeeze(1))
        ctx.save_for_backward(
            grad_preference.sub_(torch.einsum("stj,tjh->sth", pull, target_vectors)),
            grad_vectors.mul_(items.factor.unsqueeze(1)),
            grad_bias.mul_(items.factor),
            torch.einsum("stj,sth->tjh", pull, preference).neg_(),
            pull.sum(dim=0).neg_(),
        )
        return total.to(preference.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient * grad_outputs[0] for gradient in ctx.saved_tensors), None, None, None)


def _largest_norm(rows: Float[Tensor, "*rows hidden"]) -> float:
    return float(torch.linalg.vector_norm(rows, dim=-1).max())


@dataclass(frozen=True)
class Negatives:
    """Shared negatives of one batch, drawn with replacement from exp(log_probability)."""

    items: Int[Tensor, " negative"]
    log_probability: Float[Tensor, " item"]

    def among(self, rows: Int[Tensor, " row"]) -> Negatives:
        """The same negatives by their indices in `rows`, ascending, which ends with the start token."""
        return Negatives(torch.searchsorted(rows, self.items), self.log_probability[rows[:-1]])


@dataclass(frozen=True)
class ItemFrequency:
    """How often each item is drawn as a negative.

    `cumulative` is a sum in float64: `torch.multinomial` ends at 2²⁴ items, and takes four times as long.
    """

    log_probability: Float[Tensor, " item"]
    cumulative: Float[Tensor, " item"]

    @classmethod
    def of(cls, log_probability: Float[Tensor, " item"]) -> ItemFrequency:
        """By the logarithm of the probability of each item."""
        return cls(log_probability, log_probability.double().exp().cumsum(0))

    def draw(self, num_negatives: int, seed: int) -> Negatives:
        """Draw negatives with replacement, by bisection of the cumulative sum; the same for a seed."""
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(num_negatives, dtype=torch.float64, generator=generator).to(self.cumulative.device)
        items = torch.searchsorted(self.cumulative, uniform * self.cumulative[-1], right=True)
        return Negatives(items.clamp(max=len(self.cumulative) - 1), self.log_probability)


def softmax_loss(
    preference: Float[Tensor, "sample token hidden"],
    item_vectors: Float[Tensor, "item hidden"],
    item_bias: Float[Tensor, " item"],
    targets: Targets,
    negatives: Negatives | None = None,
    unranked: Pairs | None = None,
    max_norm: float | None = None,
) -> Float[Tensor, ""]:
    """−log of the mean over samples of softmax(P Eᵀ + b) at the targets, per target.

    With one sample this is the cross-entropy; with several it is that of their mixture (Burda et al. 2016, equation 8,
    with the prior predictive as proposal, so that all importance weights are equal). Several targets of a token are
    independent given the sample: Π_j p(target j)^w_j. The sum over tokens is divided by the sum of all weights.

    Args:
        preference: P, of each token under each sample.
        item_vectors: E.
        item_bias: b.
        targets: What each token is to forecast.
        negatives: The softmax is over the targets and these alone; None: over all items. Their scores are lowered by
            log(negatives × probability), so that their sum estimates the full partition function; negatives equal to a
            target are left out (Bengio and Senécal 2008; Yi et al. 2019, equation 5).
        unranked: Items that are left out of the softmax of a token, unless they are its target.
        max_norm: No preference has a larger norm. None: the largest norm is looked up. With a bound, the way that a
            token is computed does not depend on the other tokens.

    >>> softmax_loss(torch.zeros(1, 2, 3), torch.ones(5, 3), torch.zeros(5), Targets.next(torch.tensor([0, 4]))).exp()
    tensor(5.)
    """
    of_target = functional.embedding(targets.item, item_vectors), item_bias[targets.item]
    # Where anything is erased, targets are too, and added on their own.
    erased = [] if unranked is None and negatives is None else [targets.pairs()]
    erased += [] if unranked is None else [unranked]
    if negatives is not None:
        correction = math.log(len(negatives.items)) + negatives.log_probability[negatives.items]
        item_vectors, item_bias = functional.embedding(negatives.items, item_vectors), item_bias[negatives.items]
        item_bias, erased = item_bias - correction, [pairs.among(negatives.items) for pairs in erased]
    items = item_vectors, item_bias
    loss: Tensor = _ChunkedSoftmax.apply(preference, *items, *of_target, targets, erased, max_norm)  # type: ignore[no-untyped-call]
    return loss / targets.weight.sum()


def value_loss(
    estimate: ValueEstimate, value: Float[Tensor, " token"], kind: Literal["gaussian", "squared", "logistic"]
) -> Float[Tensor, ""]:
    """The mean over the values that are known (not NaN), 0 when none is: Gaussian NLL in nats, or squared error.

    "logistic" is the NLL of two values, 0 and 1; a value outside counts as the nearer one.

    >>> value_loss(ValueEstimate(torch.zeros(2), torch.zeros(2)), torch.tensor([1.0, float("nan")]), "gaussian")
    tensor(1.4189)
    """
    known = value.isfinite()
    if kind == "logistic":
        of_known = functional.binary_cross_entropy_with_logits(
            estimate.mean, value.clamp(0, 1).nan_to_num(), known.to(value.dtype), reduction="sum"
        )
        return of_known / known.sum().clamp(min=1)
    squared = (torch.where(known, value, estimate.mean) - estimate.mean).square()
    if kind == "squared":
        return squared.sum() / known.sum().clamp(min=1)
    each = 0.5 * (math.log(2 * math.pi) + estimate.log_variance + squared * torch.exp(-estimate.log_variance))
    return (each * known).sum() / known.sum().clamp(min=1)
