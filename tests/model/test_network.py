from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from tests.model.reference import softmax_loss_plain
from tests.model.some_networks import NUM_ITEMS, full_histories, query_batch, small_network
from variseq.model.losses import ItemFrequency, value_loss
from variseq.model.network import NetworkConfig, Weights
from variseq.sequences.batches import make_batch, query_windows, training_windows
from variseq.sequences.histories import Histories

RICH = {"num_behaviors": 3, "has_gaps": True, "has_values": True}
LENGTHS = [5, 0, 9, 1, 5]


def changed_from(histories: Histories, place: int) -> Histories:
    """The same history with other items, behaviors, times and values from a position on."""
    later = np.arange(histories.num_events) >= place
    return replace(
        histories,
        item=np.where(later, (histories.item + 1) % NUM_ITEMS, histories.item).astype(np.int32),
        behavior=np.where(later, (histories.behavior + 1) % 3, histories.behavior).astype(np.uint8),
        timestamp=histories.timestamp + later * 10**10,
        value=np.where(later, np.float32(9.0), histories.value).astype(np.float32),
    )


@pytest.mark.parametrize("attention", ["additive", "dot"])
@pytest.mark.parametrize("place", [0, 3, 8])
def test_later_event_never_changes_an_earlier_posterior_or_preference(attention: str, place: int) -> None:
    network = small_network(attention=attention, **RICH)
    histories = full_histories([9])
    before = network(query_batch(histories))
    after = network(query_batch(changed_from(histories, place)))
    # Token t + 1 is event t, so the tokens up to `place` know nothing of the change.
    for first, second in [(before.posterior.mean, after.posterior.mean), (before.preference, after.preference)]:
        assert torch.equal(first[: place + 1], second[: place + 1])
        assert not torch.allclose(first[place + 1 :], second[place + 1 :])
    assert torch.equal(before.posterior.log_variance[: place + 1], after.posterior.log_variance[: place + 1])


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_histories_of_a_batch_never_mix(attention: str) -> None:
    network = small_network(attention=attention, **RICH)
    histories = full_histories(LENGTHS)
    together = network(query_batch(histories))
    alone = [network(query_batch(histories.history(place))) for place in range(len(histories))]
    torch.testing.assert_close(together.preference, torch.cat([one.preference for one in alone]), atol=1e-5, rtol=1e-5)
    means = torch.cat([one.posterior.mean for one in alone])
    torch.testing.assert_close(together.posterior.mean, means, atol=1e-5, rtol=1e-5)


@given(st.permutations(range(len(LENGTHS))))
@settings(max_examples=10)
def test_order_of_histories_in_a_batch_does_not_matter(order: list[int]) -> None:
    network = small_network(**RICH)
    histories = full_histories(LENGTHS)
    windows = query_windows(histories, 50)
    straight = network(make_batch(histories, windows, np.arange(len(LENGTHS)), NUM_ITEMS))
    turned = network(make_batch(histories, windows, np.array(order), NUM_ITEMS))
    by_history = straight.preference.split(windows.lengths.tolist())
    expected = torch.cat([by_history[place] for place in order])
    torch.testing.assert_close(turned.preference, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_last_preference_is_that_of_the_last_position(attention: str) -> None:
    network = small_network(attention=attention)
    batch = query_batch(full_histories(LENGTHS))
    mean = network.encode(batch).mean
    samples = torch.stack([mean, mean + 1.0])
    last = network.decoder.last(mean, samples, batch.layout)
    everywhere = network.decoder(mean, samples, batch.layout)
    torch.testing.assert_close(last, everywhere[:, batch.layout.last_tokens()])


def test_hidden_state_never_reaches_the_decoder() -> None:
    network = small_network(**RICH)
    first, second = query_batch(full_histories(LENGTHS)), query_batch(full_histories(LENGTHS, seed=7))
    assert not torch.allclose(network(second).preference, network(first).preference)
    # A posterior that says nothing, on two batches whose events all differ: then the preferences say nothing either.
    torch.nn.init.zeros_(network.latent.mean.weight)
    assert not torch.allclose(network.encode(first).log_variance, network.encode(second).log_variance)
    assert torch.equal(network(second).preference, network(first).preference)


def test_gradient_of_the_preference_reaches_the_encoder_only_through_the_posterior() -> None:
    network = small_network()
    batch = query_batch(full_histories(LENGTHS))
    latent = network.encode(batch).mean.detach().requires_grad_()
    network.decoder(latent, latent.unsqueeze(0), batch.layout).sum().backward()
    assert latent.grad is not None
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is None for parameter in network.embedding.parameters())


def test_without_noise_the_network_is_its_deterministic_ablation() -> None:
    network = small_network()
    batch = query_batch(full_histories(LENGTHS))
    silent = network(batch, noise=0.0)
    mean = network.encode(batch).mean
    assert torch.equal(silent.preference, network.decoder(mean, mean.unsqueeze(0), batch.layout)[0])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(network(batch, noise=1.0).preference)
    assert torch.equal(drawn[0], drawn[1]), "noise is that of the random seed"
    assert not torch.allclose(drawn[0], drawn[2])
    assert not torch.allclose(drawn[0], silent.preference)


def test_longer_history_than_in_training_is_read() -> None:
    network = small_network(max_seq_len=5)
    batch = query_batch(full_histories([49]))
    assert bool(network(batch).preference.isfinite().all())


def training_batch(**changes: object) -> tuple[object, object]:
    histories = full_histories(LENGTHS)
    windows = training_windows(histories, 50, np.random.default_rng(0))
    batch = make_batch(histories, windows, np.arange(len(windows.first)), NUM_ITEMS)
    return small_network(**{**RICH, **changes}), batch


def test_objective_is_the_sum_of_its_parts() -> None:
    network, batch = training_batch()
    output = network(batch)
    nll = softmax_loss_plain(output.preference.unsqueeze(0), network.item_vectors, network.item_bias, batch.target_item)
    kl = output.posterior.kl_to_prior().sum(dim=1).mean()
    regression = value_loss(network.values(batch), batch.target_value, "gaussian")
    objective = network.objective(batch, Weights(beta=0.3, regression=0.2, noise=0.0))
    torch.testing.assert_close(objective.nll, nll)
    torch.testing.assert_close(objective.kl, kl)
    torch.testing.assert_close(objective.regression, regression)
    item = torch.nn.functional.embedding(batch.target_item, network.embedding.vectors())
    second = value_loss(network.value_task(output.preference, item), batch.target_value, "gaussian")
    torch.testing.assert_close(objective.loss, nll + 0.3 * kl + 0.2 * (regression + second))


def test_last_item_alone_forecasts_what_comes_after_the_next_event() -> None:
    network, batch = training_batch(skip_gram_window=2)
    without, found = (network.objective(batch, Weights(noise=0.0, skip_gram=weight)) for weight in (0.0, 0.5))
    item, weight = batch.later(0.5, 2)
    vectors = network.embedding.vectors()[batch.item]
    preference = vectors * torch.rsqrt(vectors.square().mean(dim=1, keepdim=True) + torch.finfo(torch.float32).eps)
    preference = preference @ network.skip_gram.output.weight.T
    log_p = torch.log_softmax(preference @ network.item_vectors.T + network.item_bias, dim=1)
    expected = -(log_p.gather(1, item) * weight).sum() / len(item)
    torch.testing.assert_close(found.loss - without.loss, expected)
    assert torch.equal(found.nll, without.nll)
    (found.loss - without.loss).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.encoder.parameters())


def test_seen_items_have_no_part_in_the_softmax_where_they_are_masked() -> None:
    network, batch = training_batch()
    objective = network.objective(batch, Weights(noise=0.0, mask_seen=True))
    scores = network.scores(network(batch).preference, 0, NUM_ITEMS)
    at_target = scores.gather(1, batch.target_item[:, None])
    target, item = batch.seen(NUM_ITEMS)
    scores[target, item] = -torch.inf
    scores.scatter_(1, batch.target_item[:, None], at_target)
    torch.testing.assert_close(objective.nll, torch.nn.functional.cross_entropy(scores, batch.target_item))


def test_objective_of_several_samples_is_that_of_their_mixture() -> None:
    network, batch = training_batch()
    torch.manual_seed(3)
    objective = network.objective(batch, Weights(regression=1.0, noise=0.5, num_samples=3))
    torch.manual_seed(3)
    posterior = network.encode(batch)
    first, second = (0.5 * torch.randn_like(posterior.mean) for _ in range(2))
    drawn = [
        network.decoder(posterior.mean, posterior.sample(noise).unsqueeze(0), batch.layout)[0]
        for noise in (first, -first, second)
    ]
    target = batch.target_item
    mixture = softmax_loss_plain(torch.stack(drawn), network.item_vectors, network.item_bias, target)
    torch.testing.assert_close(objective.nll, mixture)


def test_without_noise_one_sample_is_enough_however_many_are_set() -> None:
    network, batch = training_batch()
    alone, several = (network.objective(batch, Weights(noise=0.0, num_samples=number)) for number in (1, 4))
    assert torch.equal(alone.loss, several.loss)
    assert len(network._preferences(network.encode(batch), batch, noise=0.0, num_samples=4)) == 1


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 4.0)])
def test_squared_error_is_that_of_values_standardised_with_the_training_log(mean: float, deviation: float) -> None:
    network, batch = training_batch(value_loss="squared")
    network.embedding.set_value_scale(mean, deviation)
    estimate = network.values(batch)
    objective = network.objective(batch, Weights(regression=1.0, noise=0.0))
    expected = value_loss(estimate, (batch.target_value - mean) / deviation, "squared")
    torch.testing.assert_close(objective.regression, expected)


def test_value_head_is_built_and_trained_only_for_a_log_with_values() -> None:
    network, batch = training_batch()
    network.objective(batch, Weights(regression=1.0)).loss.backward()
    assert all(parameter.grad is not None for parameter in network.value_head.parameters())
    plain, batch = training_batch(has_values=False)
    assert plain.value_head is None
    assert float(plain.objective(batch, Weights(regression=1.0)).regression) == 0.0


def test_free_bits_cost_nothing_below_their_bound() -> None:
    network, batch = training_batch()
    per_dimension = network(batch).posterior.kl_to_prior().mean(dim=0).detach()
    bound = float(per_dimension.sort().values[1:3].mean())
    free = network.objective(batch, Weights(beta=1.0, free_nats=bound, noise=0.0))
    torch.testing.assert_close(free.loss - free.nll, per_dimension.clamp(min=bound).sum())
    # The KL that is recorded and controlled is the true one.
    torch.testing.assert_close(free.kl, per_dimension.sum())
    all_free = network.objective(batch, Weights(beta=1.0, free_nats=1e6, noise=0.0))
    all_free.loss.backward()
    assert bool((network.latent.log_variance.weight.grad == 0).all())


def test_sampled_negatives_replace_the_full_softmax() -> None:
    network, batch = training_batch()
    uniform = torch.full((NUM_ITEMS,), 1 / NUM_ITEMS).log()
    torch.manual_seed(0)
    sampled = network.objective(batch, Weights(noise=0.0), ItemFrequency.of(uniform).draw(50_000, 0))
    full = network.objective(batch, Weights(noise=0.0))
    assert float(sampled.nll) == pytest.approx(float(full.nll), abs=0.05)
    assert float(sampled.nll) != float(full.nll)


def test_every_parameter_gets_a_gradient() -> None:
    network, batch = training_batch()
    network.train().objective(batch, Weights(beta=0.1, regression=0.1)).loss.backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []


def test_scores_do_not_depend_on_the_cut_of_the_catalog() -> None:
    network = small_network()
    preference = torch.randn(3, 8)
    whole = network.scores(preference, 0, NUM_ITEMS)
    parts: list[Tensor] = [network.scores(preference, first, first + 4) for first in range(0, NUM_ITEMS, 4)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(ValidationError, match="hidden_size 10 is not a multiple of num_heads 4"):
        NetworkConfig(num_items=5, hidden_size=10, num_heads=4)
