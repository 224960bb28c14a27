"""The layers: dropout, encoder, posterior and event embedding."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.estimator import VariationalAttention
from variseq.events.items import CategoryLinks, ItemTable
from variseq.log import LogPart
from variseq.model.layers import (
    LEVELS,
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    NUM_DISTANCE_BUCKETS,
    CausalSelfAttention,
    LatentHead,
    Posterior,
    distance_bucket,
    drop,
    kept_levels,
)
from variseq.model.network import Network, Weights
from variseq.model.posterior import NetworkScorer
from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.histories import Histories


@pytest.mark.parametrize("dropout", [0.1, 0.2, 0.3, 0.5, 0.9])
def test_dropped_share_is_that_of_the_setting_and_the_expectation_stays(dropout: float) -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(400, 501), dropout, training=True)
    assert abs(float((dropped == 0).float().mean()) - dropout) < 1 / (2 * LEVELS) + 0.004
    assert abs(float(dropped.mean()) - 1) < 0.01
    kept = dropped[dropped > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, LEVELS / kept_levels(dropout)))


def test_draws_of_neighbors_are_independent() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(1_000_000), 0.5, training=True) > 0
    for distance in range(1, 9):
        both = (dropped[distance:] & dropped[:-distance]).float().mean()
        assert abs(float(both) - 0.25) < 0.003


def test_gradient_goes_where_the_number_was_kept() -> None:
    values = torch.randn(7, 3, requires_grad=True)
    dropped = drop(values, 0.4, training=True)
    dropped.sum().backward()
    torch.testing.assert_close(dropped.detach(), values.detach() * values.grad)


def test_nothing_is_dropped_outside_training_or_at_zero() -> None:
    values = torch.randn(5, 2)
    assert drop(values, 0.5, training=False) is drop(values, 0.0, training=True) is values


@given(st.lists(st.integers(0, 1_000_000), min_size=2, max_size=30))
def test_larger_distance_never_has_a_smaller_bucket(distances: list[int]) -> None:
    buckets = distance_bucket(torch.tensor(sorted(distances)))
    assert bool((buckets.diff() >= 0).all())
    assert int(buckets.min()) >= 0
    assert int(buckets.max()) < NUM_DISTANCE_BUCKETS
    assert distance_bucket(torch.arange(17)).tolist() == list(range(17)), "small distances have a bucket each"


def test_bias_depends_on_the_distance_alone_and_forbids_the_future() -> None:
    attention = CausalSelfAttention(8, 2)
    torch.nn.init.normal_(attention.distance_bias)
    bias = attention.bias(20)
    assert bool((bias[:, torch.ones(20, 20).triu(1).bool()] == -torch.inf).all())
    torch.testing.assert_close(bias[:, 5, 2], bias[:, 19, 16])
    torch.testing.assert_close(bias[:, 7, 7], attention.distance_bias[:, 0])


def some_posterior(num_tokens: int = 5, latent_dim: int = 3, seed: int = 0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_tokens, latent_dim)
    return Posterior(2 * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


def test_kl_equals_the_closed_form_of_two_gaussians() -> None:
    posterior = some_posterior()
    gaussian = Normal(posterior.mean, torch.exp(0.5 * posterior.log_variance))
    prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
    torch.testing.assert_close(posterior.kl_to_prior(), kl_divergence(gaussian, prior))


def test_kl_equals_its_monte_carlo_estimate() -> None:
    posterior = some_posterior()
    num_samples = 50_000
    noise = torch.randn(num_samples, *posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    scale = torch.exp(0.5 * posterior.log_variance)
    sample = torch.stack([posterior.sample(one) for one in noise[:1000]])
    torch.testing.assert_close(sample, posterior.mean + scale * noise[:1000])
    drawn = posterior.mean + scale * noise
    ratio = Normal(posterior.mean, scale).log_prob(drawn) - Normal(0.0, 1.0).log_prob(drawn)
    error = 5 * ratio.std(dim=0) / num_samples**0.5
    assert bool(((ratio.mean(dim=0) - posterior.kl_to_prior()).abs() < error).all())


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("latent_dim", [4, 6])
def test_scale_of_the_mean_keeps_the_kl_of_each_token_above_half_its_square_per_dimension(
    latent_dim: int, scale: float
) -> None:
    torch.manual_seed(0)
    head = LatentHead(hidden_size=6, latent_dim=latent_dim, mean_scale=scale).train()
    # Hidden states that nearly vanish, and a variance that is the prior's.
    torch.nn.init.zeros_(head.log_variance.weight)
    torch.nn.init.zeros_(head.log_variance.bias)
    kl = head(0.05 * torch.randn(500, 6)).kl_to_prior().mean(dim=1)
    assert bool((kl >= 0.99 * scale**2 / 2).all())


def test_mean_between_equal_sizes_is_the_direction_of_the_hidden_state() -> None:
    hidden = torch.randn(20, 6)
    mean = LatentHead(hidden_size=6, latent_dim=6, mean_scale=0.7)(hidden).mean
    torch.testing.assert_close(mean, 0.7 * hidden / hidden.square().mean(dim=1, keepdim=True).sqrt())


def test_log_variance_stays_inside_its_bounds() -> None:
    head = LatentHead(hidden_size=6, latent_dim=4, mean_scale=1.0).eval()
    log_variance = head(1e4 * torch.randn(50, 6)).log_variance.detach()
    assert float(log_variance.min()) == MIN_LOG_VARIANCE
    assert float(log_variance.max()) == MAX_LOG_VARIANCE


HISTORIES = Histories.of_items([[0, 1, 2, 3], [4, 5, 6]])
LINKS = CategoryLinks(
    np.arange(0, 2 * NUM_ITEMS + 2, 2)[: NUM_ITEMS + 1], np.arange(2 * NUM_ITEMS) % 3, ("c0", "c1", "c2")
)


def with_categories() -> Network:
    network = small_network()
    network.embedding.use_categories(LINKS)
    torch.nn.init.normal_(network.embedding.category)
    return network.eval()


def test_vector_of_an_item_is_its_own_plus_the_mean_of_its_categories() -> None:
    network = with_categories()
    embedding = network.embedding
    for item in range(NUM_ITEMS):
        mean = embedding.category[LINKS.category[LINKS.offsets[item] : LINKS.offsets[item + 1]]].mean(dim=0)
        torch.testing.assert_close(embedding.vectors()[item], embedding.item[item] + mean)
    assert torch.equal(embedding.vectors()[NUM_ITEMS], embedding.item[NUM_ITEMS]), "the start token has none"


def test_folded_network_gives_the_same_scores_and_has_no_categories_left() -> None:
    network = with_categories()
    folded = network.folded()
    assert "embedding.category" in network.state_dict()
    assert folded.state_dict().keys() == small_network().state_dict().keys()
    one, other = (NetworkScorer(each) for each in (network, folded))
    expected = one.scores(HISTORIES)
    torch.testing.assert_close(other.scores(HISTORIES), expected)
    assert folded.folded() is folded


def test_gradient_of_an_item_reaches_the_others_of_its_category() -> None:
    network = with_categories().train()
    windows = training_windows(HISTORIES, 10, np.random.default_rng(0))
    batch = make_batch(HISTORIES, windows, np.arange(len(windows.first)), NUM_ITEMS)
    network.objective(batch, Weights(noise=0.0)).loss.backward()
    assert network.embedding.category.grad is not None
    assert (network.embedding.category.grad.abs().sum(dim=1) > 0).all()


def test_categories_of_one_item_or_of_most_items_are_left_out() -> None:
    categories = [["all", "rare"], ["all", "a", "a"], ["all", "a", "b"], ["all", "b"], []]
    table = pa.table({"title": pa.array([None] * 5, pa.string()), "category": categories})
    links = ItemTable(table).category_links()
    assert links.num_categories == 2
    assert np.diff(links.offsets).tolist() == [0, 1, 2, 1, 0]
    assert links.category.tolist() == [0, 0, 1, 1]


def test_nodes_of_a_tree_are_summed_and_other_categories_are_averaged() -> None:
    names = ("a", "a|b", "x", "y")
    links = CategoryLinks(np.array([0, 4, 5, 5]), np.array([0, 1, 2, 3, 2]), names)
    np.testing.assert_array_equal(links.weight, np.array([1, 1, 0.5, 0.5, 1], np.float32))


def test_categories_can_be_left_unused(shop_parts: tuple[LogPart, LogPart, LogPart]) -> None:
    train = shop_parts[0]
    assert VariationalAttention("tiny").settings(train).links is not None
    assert VariationalAttention("tiny", training={"use_categories": False}).settings(train).links is None
