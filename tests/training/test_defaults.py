"""The default settings of network and training follow from the size and from the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.log import Log
from variseq.model.network import NetworkConfig
from variseq.sequences.histories import Histories
from variseq.training.config import TrainingConfig
from variseq.training.defaults import SIZES, LogProperties, Size, network_config, training_config
from variseq.training.schedule import noise_share

PROPERTIES = LogProperties(
    num_events=100_000,
    num_items=500,
    num_behaviors=1,
    mean_length=30.0,
    long_length=90.0,
    has_gaps=True,
    has_values=False,
    repeat_share=0.0,
)


def network(size: Size = "tiny", overrides: dict[str, Any] | None = None, **properties: Any) -> NetworkConfig:
    return network_config(size, LogProperties(**vars(PROPERTIES) | properties), overrides or {})


def training(overrides: dict[str, Any] | None = None, **properties: Any) -> TrainingConfig:
    changed = LogProperties(**vars(PROPERTIES) | properties)
    return training_config(changed, NetworkConfig(num_items=5), 3, overrides or {})


def test_larger_size_is_a_larger_network() -> None:
    assert list(SIZES) == ["tiny", "small", "medium", "large"]
    sizes = [network(size).hidden_size for size in ("tiny", "small", "medium", "large")]
    assert sizes == sorted(set(sizes))


def test_settings_of_the_user_replace_those_that_follow_from_the_log() -> None:
    chosen = network(overrides={"hidden_size": 48, "dropout": 0.05})
    assert (chosen.hidden_size, chosen.dropout) == (48, 0.05)
    assert (training().seed, training({"max_epochs": 2}).max_epochs) == (3, 2)
    # Seen items are ranked where users come back to them.
    assert [training(repeat_share=share).exclude_seen for share in (0.01, 0.4)] == [True, False]


def test_steps_of_a_run_do_not_grow_with_a_log_above_a_million_events() -> None:
    sizes = [1_000, 100_000, 1_000_000, 2_000_000, 5_000_000]
    epochs = [training(num_events=size).max_epochs for size in sizes]
    assert epochs == [40, 30, 25, 12, 5]
    assert training(num_events=10**9).max_epochs == 3
    assert [training(num_events=size, num_items=size).num_refits for size in sizes] == [2, 2, 2, 1, 1]


def test_longer_histories_get_less_dropout_and_a_longer_window() -> None:
    short, long = network(mean_length=8.0, long_length=25.0), network(mean_length=150.0, long_length=2000.0)
    assert short.dropout > long.dropout
    assert short.max_seq_len < long.max_seq_len <= 200


@pytest.mark.parametrize(
    ("num_events", "num_items", "decay", "in_refits"),
    [
        (110_000, 10_000, 0.2, 1.0),
        (220_000, 1_000, 0.01, 1.0),
        (119_999, 12_000, 0.22, 1.0),
        # From 120,000 events on, with fewer than 100 an item, it is twice as much, and again in the refit.
        (120_000, 12_000, 0.44, 2.0),
        (1_000_000, 10_001, 0.044, 2.0),
        (1_000_000, 10_000, 0.022, 1.0),
    ],
)
def test_vectors_of_items_with_fewer_events_decay_more(
    num_events: int, num_items: int, decay: float, in_refits: float
) -> None:
    found = training(num_events=num_events, num_items=num_items)
    assert found.item_weight_decay == pytest.approx(decay, abs=1e-4)
    assert found.refit_weight_decay_multiplier == in_refits
    overridden = training({"item_weight_decay": 0.1}, num_events=num_events, num_items=num_items)
    assert (overridden.item_weight_decay, overridden.refit_weight_decay_multiplier) == (0.1, in_refits)


def test_members_of_an_ensemble_decay_less_and_step_as_far_as_one_network() -> None:
    changed = LogProperties(**vars(PROPERTIES) | {"num_events": 120_000, "num_items": 12_000})
    one, several = (training_config(changed, network(size), 0, {}) for size in ("small", "medium"))
    assert several.item_weight_decay == one.item_weight_decay / 2
    assert several.learning_rate == one.learning_rate


def test_seen_items_are_masked_where_they_are_not_ranked_and_histories_are_long() -> None:
    assert training(mean_length=90.0).mask_seen
    assert not training(mean_length=30.0).mask_seen
    assert not training(mean_length=90.0, repeat_share=0.4).mask_seen


def test_last_item_forecasts_later_events_where_histories_are_short_and_without_repeats() -> None:
    assert network(mean_length=30.0).skip_gram_window > 0
    for changed in (
        {"mean_length": 90.0},
        {"mean_length": 8.0, "repeat_share": 0.4},
        {"mean_length": 8.0, "visit_gap": 1_000_000},
    ):
        assert network(**changed).skip_gram_window == 0


def test_skip_gram_task_is_refused_for_visits_which_have_no_order() -> None:
    with pytest.raises(InputError, match="skip_gram_window"):
        network(overrides={"skip_gram_window": 2}, visit_gap=1_000_000)


def test_noise_comes_late_and_as_a_mixture_on_a_large_log() -> None:
    large, small = training(num_events=150_000), training(num_events=98_000)
    assert (large.max_epochs, large.chooses_noise, large.num_samples) == (25, True, 4)
    # The first 20 epochs are wholly without noise, and the last four wholly with it.
    shares = [noise_share(large, epoch / 25) for epoch in range(26)]
    assert (shares[:21], shares[21:]) == ([0.0] * 21, [1.0] * 5)
    few = training({"max_epochs": 2}, num_events=150_000)
    assert [noise_share(few, epoch / 2) for epoch in (1, 2)] == [0.0, 1.0]
    assert (small.deterministic_fraction, small.num_samples) == (0.3, 1)
    assert training({"num_samples": 1}, num_events=150_000).num_samples == 1


def test_a_batch_is_a_128th_of_the_events_between_256_and_2048_tokens() -> None:
    assert [training(num_events=n).batch_tokens for n in (1_000, 131_072, 10**7)] == [256, 1024, 2048]


@pytest.mark.parametrize(
    ("num_events", "num_items", "kl_target", "num_refits"),
    [(1_000_000, 10_000, 80.0, 1), (1_000_000, 10_001, 40.0, 2), (5_000, 50, 40.0, 1), (5_000, 51, 40.0, 2)],
)
def test_many_events_an_item_mean_one_refit_and_in_a_large_log_twice_the_kl(
    num_events: int, num_items: int, kl_target: float, num_refits: int
) -> None:
    found = training(num_events=num_events, num_items=num_items)
    assert (found.kl_target, found.num_refits) == (kl_target, num_refits)


def test_properties_are_those_of_the_log(shop_log: Log) -> None:
    histories = shop_log.histories
    found = LogProperties.of(histories, shop_log.vocabulary)
    assert (found.num_items, found.num_behaviors) == (shop_log.vocabulary.num_items, 3)
    assert found.has_gaps
    assert found.has_values
    assert found.mean_length == pytest.approx(histories.num_events / len(histories))
    distinct = sum(len(set(histories.history(user).item.tolist())) for user in range(len(histories)))
    assert found.repeat_share == pytest.approx(1 - distinct / histories.num_events)


def test_order_without_times_has_no_gaps_and_constant_values_are_none() -> None:
    order = Histories.of_items([[0, 1, 0], [1, 0]])
    constant = Histories(order.offsets, order.item, order.behavior, order.timestamp, np.full(5, 3.0, np.float32))
    found = LogProperties.of(constant, Vocabulary(pa.array([1, 2]), pa.array(["a", "b"]), ("event",)))
    assert not found.has_gaps
    assert not found.has_values


def test_two_different_values_mean_the_logistic_loss_and_more_refuse_it() -> None:
    order = Histories.of_items([[0, 1, 0], [1, 0]])
    vocabulary = Vocabulary(pa.array([1, 2]), pa.array(["a", "b"]), ("event",))
    for values, expected in (
        ([0, 1, 1, 0, 1], "logistic"),
        ([1, 5, 5, np.nan, 1], "logistic"),
        ([0, 1, 2, 0, 1], "gaussian"),
    ):
        histories = replace(order, value=np.array(values, np.float32))
        properties = LogProperties.of(histories, vocabulary)
        assert network_config("tiny", properties, {}).value_loss == expected
        assert network_config("tiny", properties, {"value_loss": "squared"}).value_loss == "squared"
    with pytest.raises(InputError, match=r"model\.value_loss=logistic"):
        network_config("tiny", properties, {"value_loss": "logistic"})
