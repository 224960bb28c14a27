"""The β-ELBO at β = 1 against brute force: integrals over the latent, worked out on grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.model.some_networks import full_histories, query_batch, small_network
from variseq.model.layers import Posterior
from variseq.model.network import Network
from variseq.sequences.batches import Layout

GRID_POINTS = 241
HERMITE_POINTS = 12
LATENT = 2


def grid_and_log_prior() -> tuple[Tensor, Tensor, float]:
    """Points of the plane, the log-density of N(0, 1) there, and the area that a point stands for."""
    line = torch.linspace(-9.0, 9.0, GRID_POINTS)
    points = torch.cartesian_prod(line, line)
    step = float(line[1] - line[0])
    return points, -0.5 * points.square().sum(dim=1) - np.log(2 * np.pi), step**2


def layout_of(num_histories: int, length: int) -> Layout:
    return Layout(num_histories, length, torch.arange(num_histories * length), torch.full((num_histories,), length))


@torch.no_grad()
def log_likelihood(network: Network, mean: Tensor, latent: Tensor, target: Tensor) -> Tensor:
    """log p(x_1 … x_T | z_1 … z_T) for each row of `latent` [row, T · latent], under the fixed decoder.

    The history is given, and with it the means [T, latent] that decide on the weights of the attention.
    """
    num_rows, length = len(latent), len(target)
    samples = latent.view(1, num_rows * length, LATENT)
    preference = network.decoder(mean.repeat(num_rows, 1), samples, layout_of(num_rows, length))[0]
    log_probability = torch.log_softmax(network.scores(preference, 0, network.config.num_items), dim=1)
    return log_probability[:, target.repeat(num_rows)].diagonal().view(num_rows, length).sum(dim=1)


@torch.no_grad()
def log_likelihood_by_rows(network: Network, mean: Tensor, latent: Tensor, target: Tensor) -> Tensor:
    return torch.cat([log_likelihood(network, mean, rows, target) for rows in latent.split(1000)])


@pytest.mark.parametrize("seed", range(2))
def test_bound_of_one_event_is_below_the_brute_force_integral(seed: int) -> None:
    network = small_network(seed, latent_dim=LATENT)
    points, log_prior, area = grid_and_log_prior()
    target = torch.tensor([seed])
    # With one event there is nothing to weigh, whatever the mean.
    each = log_likelihood_by_rows(network, torch.zeros(1, LATENT), points, target)
    evidence = float(torch.logsumexp(each + log_prior + np.log(area), dim=0))
    assert float(torch.logsumexp(log_prior + np.log(area), dim=0)) == pytest.approx(0.0, abs=1e-4)
    for posterior in posteriors_of_a_start_token(network):
        variance = posterior.log_variance.exp()
        log_posterior = (-0.5 * (points - posterior.mean).square() / variance - 0.5 * posterior.log_variance).sum(dim=1)
        log_posterior = log_posterior - np.log(2 * np.pi)
        weight = (log_posterior + np.log(area)).exp()
        assert float(weight.sum()) == pytest.approx(1.0, abs=1e-3)
        bound = float((weight * each).sum() - posterior.kl_to_prior().sum())
        assert bound <= evidence + 1e-3
        # With q put at the true posterior the bound would be the evidence: it is missed by KL(q ‖ posterior) exactly.
        log_true = each + log_prior - evidence
        missed = float((weight * (log_posterior - log_true)).sum())
        assert evidence - bound == pytest.approx(missed, abs=2e-3)


@torch.no_grad()
def posteriors_of_a_start_token(network: Network) -> list[Posterior]:
    """The posterior of the network itself, the prior, and a few between and beyond."""
    own = network.encode(query_batch(full_histories([0])))
    shapes = [(0.0, 0.0), (1.0, -1.0), (-2.0, 0.5)]
    return [own, *(Posterior(torch.full((1, LATENT), mean), torch.full((1, LATENT), lv)) for mean, lv in shapes)]


def test_bound_of_two_events_is_below_the_brute_force_integral() -> None:
    """Two positions, so that the attention over posteriors takes part: the integral has four dimensions."""
    network = small_network(0, latent_dim=LATENT)
    node, weight = np.polynomial.hermite_e.hermegauss(HERMITE_POINTS)
    nodes = torch.cartesian_prod(*[torch.from_numpy(node).float()] * 4)
    log_weight = torch.cartesian_prod(*[torch.from_numpy(np.log(weight / weight.sum())).float()] * 4).sum(dim=1)
    target = torch.tensor([3, 5])
    with torch.no_grad():
        posterior = network.encode(query_batch(full_histories([1])))
    evidence = float(
        torch.logsumexp(log_likelihood_by_rows(network, posterior.mean, nodes, target) + log_weight, dim=0)
    )
    sampled = posterior.mean.flatten() + torch.exp(0.5 * posterior.log_variance).flatten() * nodes
    expected = float((log_weight.exp() * log_likelihood_by_rows(network, posterior.mean, sampled, target)).sum())
    assert expected - float(posterior.kl_to_prior().sum()) < evidence
