"""Preferences and what happened next into losses: pure functions on packed tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from variseq.model.chunked_softmax import Hits, chunked_softmax
from variseq.model.decoder import ValueEstimate


def softmax_loss_plain(
    preference: Float[Tensor, "sample token hidden"],
    item_vectors: Float[Tensor, "item hidden"],
    item_bias: Float[Tensor, " item"],
    target: Int[Tensor, " token"],
) -> Float[Tensor, ""]:
    """Mean over tokens of −log of the mean over samples of softmax(P E ᵀ + b) at the target: the twin that
    `softmax_loss` is held against."""
    log_probability = torch.log_softmax(preference @ item_vectors.T + item_bias, dim=2)
    at_target = log_probability.gather(2, target.expand(len(preference), -1).unsqueeze(2)).squeeze(2)
    return (math.log(len(preference)) - torch.logsumexp(at_target, dim=0)).mean()


def softmax_loss(
    preference: Float[Tensor, "sample token hidden"],
    item_vectors: Float[Tensor, "item hidden"],
    item_bias: Float[Tensor, " item"],
    target: Int[Tensor, " token"],
) -> Float[Tensor, ""]:
    """The same number as `softmax_loss_plain`; sample × token × item is never held as a whole.

    With one sample this is the cross-entropy. With several it is that of their mixture, which is what a forecast is
    made of (Burda et al. 2016, equation 8, with the prior predictive as proposal, so that all weights are alike).

    >>> softmax_loss(torch.zeros(1, 2, 3), torch.ones(5, 3), torch.zeros(5), torch.tensor([0, 4])).exp()
    tensor(5.)
    """
    of_target = functional.embedding(target, item_vectors), item_bias[target]
    return chunked_softmax(preference, item_vectors, item_bias, *of_target, None)


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

    def loss_plain(
        self,
        preference: Float[Tensor, "sample token hidden"],
        item_vectors: Float[Tensor, "item hidden"],
        item_bias: Float[Tensor, " item"],
        target: Int[Tensor, " token"],
    ) -> Float[Tensor, ""]:
        """The twin that `loss` is held against."""
        vectors, bias = self._corrected(item_vectors, item_bias)
        at_target = (preference * item_vectors[target]).sum(dim=2) + item_bias[target]
        scores = (preference @ vectors.T + bias).masked_fill(
            self.items.unsqueeze(0) == target.unsqueeze(1), float("-inf")
        )
        log_mass = torch.logsumexp(torch.cat([at_target.unsqueeze(2), scores], dim=2), dim=2)
        return (math.log(len(preference)) - torch.logsumexp(at_target - log_mass, dim=0)).mean()

    def loss(
        self,
        preference: Float[Tensor, "sample token hidden"],
        item_vectors: Float[Tensor, "item hidden"],
        item_bias: Float[Tensor, " item"],
        target: Int[Tensor, " token"],
    ) -> Float[Tensor, ""]:
        """Softmax over the target and the negatives, corrected for how often each item is drawn (log-Q).

        The scores of negatives are lowered by log(negatives × probability), so that their sum estimates the full
        partition function; a negative that is the target is left out (Bengio and Senécal 2008; Yi et al. 2019,
        equation 5). For all but small catalogs.
        """
        of_target = functional.embedding(target, item_vectors), item_bias[target]
        hits = Hits.of(self.items, target)
        return chunked_softmax(preference, *self._corrected(item_vectors, item_bias), *of_target, hits)

    def _corrected(self, item_vectors: Tensor, item_bias: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and biases of the negatives, the biases with the correction."""
        correction = math.log(len(self.items)) + self.log_probability[self.items]
        return functional.embedding(self.items, item_vectors), item_bias[self.items] - correction


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
