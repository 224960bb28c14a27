"""Hidden states into posteriors: a Gaussian at every position, its samples and its distance to the prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -10.0, 2.0


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

    The mean is batch-normalized over the tokens of a batch with a fixed scale γ (Zhu et al. 2020, equation 5): its
    aggregate cannot shrink to the prior, so that the expected KL is at least ½ γ² nats per dimension. With a scale of
    None the mean is left as it is, and can collapse. The log-variance is held between −10 and 2.
    """

    def __init__(self, hidden_size: int, latent_dim: int, bn_gamma: float | None) -> None:
        super().__init__()
        self.mean = nn.Linear(hidden_size, latent_dim)
        self.log_variance = nn.Linear(hidden_size, latent_dim)
        self.norm = nn.BatchNorm1d(latent_dim, affine=False)
        self.bn_gamma = bn_gamma

    def forward(self, hidden: Float[Tensor, "token hidden"]) -> Posterior:
        mean = self.mean(hidden)
        if self.bn_gamma is not None:
            mean = self.bn_gamma * self._normalized(mean)
        return Posterior(mean, self.log_variance(hidden).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE))

    def _normalized(self, mean: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        if len(mean) > 1:
            normalized: Tensor = self.norm(mean)
            return normalized
        # One token alone has no variance: it is normalized with what was seen before.
        return functional.batch_norm(mean, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
