from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from variseq.model.latent import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, LatentHead, Posterior


def some_posterior(num_tokens: int = 5, latent_dim: int = 3, seed: int = 0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_tokens, latent_dim)
    return Posterior(2 * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


def test_rate_equals_the_closed_form_of_two_gaussians() -> None:
    posterior = some_posterior()
    gaussian = Normal(posterior.mean, torch.exp(0.5 * posterior.log_variance))
    prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
    torch.testing.assert_close(posterior.kl_to_prior(), kl_divergence(gaussian, prior))


def test_rate_equals_its_monte_carlo_estimate() -> None:
    posterior = some_posterior()
    num_samples = 200_000
    noise = torch.randn(num_samples, *posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    scale = torch.exp(0.5 * posterior.log_variance)
    sample = torch.stack([posterior.sample(one) for one in noise[:1000]])
    torch.testing.assert_close(sample, posterior.mean + scale * noise[:1000])
    drawn = posterior.mean + scale * noise
    ratio = Normal(posterior.mean, scale).log_prob(drawn) - Normal(0.0, 1.0).log_prob(drawn)
    error = 5 * ratio.std(dim=0) / num_samples**0.5
    assert bool(((ratio.mean(dim=0) - posterior.kl_to_prior()).abs() < error).all())


def test_rate_is_zero_only_where_posterior_and_prior_are_equal() -> None:
    assert bool((Posterior(torch.zeros(4, 2), torch.zeros(4, 2)).kl_to_prior() == 0).all())
    assert bool((Posterior(torch.full((4, 2), 0.1), torch.zeros(4, 2)).kl_to_prior() > 0).all())
    assert bool((Posterior(torch.zeros(4, 2), torch.full((4, 2), -0.1)).kl_to_prior() > 0).all())


def test_sample_without_noise_is_the_mean() -> None:
    posterior = some_posterior()
    assert torch.equal(posterior.sample(torch.zeros_like(posterior.mean)), posterior.mean)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_batch_norm_keeps_the_rate_above_half_gamma_squared_per_dimension(scale: float) -> None:
    torch.manual_seed(0)
    head = LatentHead(hidden_size=6, latent_dim=4, bn_gamma=scale).train()
    # Weights that nearly collapse the means, and a variance that is the prior's.
    torch.nn.init.normal_(head.mean.weight, std=0.05)
    torch.nn.init.zeros_(head.log_variance.weight)
    torch.nn.init.zeros_(head.log_variance.bias)
    kl = head(torch.randn(500, 6)).kl_to_prior().mean(dim=0)
    assert bool((kl >= 0.99 * scale**2 / 2).all())


def test_mean_of_one_token_alone_is_finite_in_training() -> None:
    head = LatentHead(hidden_size=6, latent_dim=4, bn_gamma=1.0).train()
    posterior = head(torch.randn(1, 6))
    assert bool(posterior.mean.isfinite().all())


def test_log_variance_stays_inside_its_bounds() -> None:
    head = LatentHead(hidden_size=6, latent_dim=4, bn_gamma=1.0).eval()
    log_variance = head(1e4 * torch.randn(50, 6)).log_variance.detach()
    assert float(log_variance.min()) == MIN_LOG_VARIANCE
    assert float(log_variance.max()) == MAX_LOG_VARIANCE
