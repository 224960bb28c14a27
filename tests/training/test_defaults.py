from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from variseq.events.vocabulary import Vocabulary
from variseq.log import Log
from variseq.model.network import NetworkConfig
from variseq.sequences.histories import Histories
from variseq.training.defaults import SIZES, LogProperties, network_config, training_config
from variseq.training.settings import TrainingConfig

NETWORK = NetworkConfig(num_items=5)


def properties(**changes: object) -> LogProperties:
    told = {
        "num_events": 100_000,
        "num_items": 500,
        "num_behaviors": 1,
        "mean_length": 30.0,
        "long_length": 90.0,
        "has_gaps": True,
        "has_values": False,
        "repeat_share": 0.0,
    }
    return LogProperties(**{**told, **changes})


def test_larger_size_is_a_larger_network() -> None:
    assert list(SIZES) == ["tiny", "small", "medium", "large"]
    widths = [network_config(size, properties(), {}).hidden_size for size in SIZES]
    assert widths == sorted(set(widths))


def test_what_is_set_by_hand_wins_over_what_follows_from_the_log() -> None:
    network = network_config("tiny", properties(), {"hidden_size": 48, "dropout": 0.05})
    assert (network.hidden_size, network.dropout) == (48, 0.05)
    training = training_config(properties(), NETWORK, 3, {"max_epochs": 2})
    assert (training.seed, training.max_epochs) == (3, 2)


def test_longer_histories_get_less_dropout_and_a_longer_window() -> None:
    short = network_config("tiny", properties(mean_length=8.0, long_length=25.0), {})
    long = network_config("tiny", properties(mean_length=150.0, long_length=2000.0), {})
    assert short.dropout > long.dropout
    assert short.max_seq_len < long.max_seq_len <= 200


def test_vectors_of_items_with_fewer_events_decay_more() -> None:
    def decay(num_events: int, num_items: int) -> list[float]:
        training = training_config(properties(num_events=num_events, num_items=num_items), NETWORK, 0, {})
        return [training.item_weight_decay, training.refit_weight_decay_multiplier]

    assert decay(110_000, 10_000) == pytest.approx([0.2, 1.0])
    assert decay(220_000, 1_000) == pytest.approx([0.01, 1.0])


def test_vectors_of_little_known_items_decay_more_in_a_large_log_and_more_again_in_the_refit() -> None:
    def decay(num_events: int, num_items: int, **overrides: float) -> list[float]:
        asked = properties(num_events=num_events, num_items=num_items)
        training = training_config(asked, NETWORK, 0, overrides)
        return [training.item_weight_decay, training.refit_weight_decay_multiplier]

    assert decay(120_000, 12_000) == pytest.approx([0.44, 2.0])
    assert decay(119_999, 12_000) == pytest.approx([0.22, 1.0], abs=1e-4)
    assert decay(1_000_000, 10_001) == pytest.approx([0.044, 2.0])
    assert decay(1_000_000, 10_000) == pytest.approx([0.022, 1.0])
    assert decay(120_000, 12_000, item_weight_decay=0.1) == pytest.approx([0.1, 2.0])


def test_noise_comes_late_and_as_a_mixture_on_a_large_log() -> None:
    large = training_config(properties(num_events=150_000), NETWORK, 0, {})
    small = training_config(properties(num_events=98_000), NETWORK, 0, {})
    assert (large.deterministic_fraction, large.num_samples) == (0.75, 4)
    assert (small.deterministic_fraction, small.num_samples) == (0.3, 1)
    assert training_config(properties(num_events=150_000), NETWORK, 0, {"num_samples": 1}).num_samples == 1


def test_a_batch_is_a_128th_of_the_events_between_256_and_2048_positions() -> None:
    sizes = [training_config(properties(num_events=n), NETWORK, 0, {}).batch_tokens for n in (1_000, 131_072, 10**7)]
    assert sizes == [256, 1024, 2048]


def test_posteriors_are_narrower_where_a_large_log_knows_its_items_well() -> None:
    def kl(num_events: int, num_items: int) -> float | None:
        return training_config(properties(num_events=num_events, num_items=num_items), NETWORK, 0, {}).kl_target

    assert kl(1_000_000, 10_000) == 2 * 40.0
    assert kl(1_000_000, 10_001) == kl(100_000, 500) == 40.0


def test_a_log_that_knows_its_items_well_is_refitted_once_and_others_twice() -> None:
    def refits(num_events: int, num_items: int) -> int:
        return training_config(properties(num_events=num_events, num_items=num_items), NETWORK, 0, {}).num_refits

    assert [refits(1_000_000, 10_000), refits(1_000_000, 10_001), refits(5_000, 50), refits(5_000, 51)] == [1, 2, 1, 2]


def test_properties_are_those_of_the_log(shop_log: Log) -> None:
    found = LogProperties.of(shop_log.histories, shop_log.vocabulary)
    assert found.num_items == shop_log.vocabulary.num_items
    assert found.num_behaviors == 3
    assert found.has_gaps
    assert found.has_values
    assert found.mean_length == pytest.approx(shop_log.histories.num_events / len(shop_log.histories))


def test_people_who_come_back_to_the_same_items_are_judged_with_them(shop_log: Log) -> None:
    assert training_config(properties(repeat_share=0.01), NETWORK, 0, {}).exclude_seen
    assert not training_config(properties(repeat_share=0.4), NETWORK, 0, {}).exclude_seen
    found = LogProperties.of(shop_log.histories, shop_log.vocabulary)
    users = range(len(shop_log.histories))
    distinct = sum(len(set(shop_log.histories.history(user).item.tolist())) for user in users)
    assert found.repeat_share == pytest.approx(1 - distinct / shop_log.histories.num_events)


def test_order_without_times_has_no_gaps_and_constant_values_are_none() -> None:
    histories = Histories.of_items([[0, 1, 0], [1, 0]])
    constant = Histories(
        histories.offsets,
        histories.item,
        histories.behavior,
        histories.timestamp,
        np.full(5, 3.0, dtype=np.float32),
    )
    vocabulary = Vocabulary(pa.array([1, 2]), pa.array(["a", "b"]), ("event",))
    found = LogProperties.of(constant, vocabulary)
    assert not found.has_gaps
    assert not found.has_values


@pytest.mark.parametrize("wrong", [{"max_epochs": 0}, {"learning_rate": -1.0}, {"learnig_rate": 0.1}, {"beta": "x"}])
def test_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig(**wrong)
