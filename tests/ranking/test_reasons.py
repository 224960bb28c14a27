from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.model.some_networks import NUM_ITEMS, full_histories, small_network
from variseq.model.network import Network
from variseq.ranking.calibration import LENGTH_EDGES, Calibration, GatingNetwork
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.reasons import LEAST_FALL, NUM_CANDIDATES, Reasons, log_probability, reasons
from variseq.recommend.network_model import count_events, mixture_model
from variseq.sequences.histories import Histories, latest_items, without_items

LENGTHS = [5, 0, 12, 1, 30]
EVERY_ITEM = np.arange(NUM_ITEMS)
EVERY_COMPONENT = GatingNetwork(transitions=(0.5, 0.1, 0.1), trend=(-1.0, 0.1, 0.0), uniform=(-3.0, 0.0, 0.0))
TRANSITIONS_ALONE = GatingNetwork(transitions=(50.0, 0.0, 0.0))


def model_of(network: Network, gate: GatingNetwork = EVERY_COMPONENT) -> MixtureModel:
    """At the posterior mean, with some counted transitions."""
    counts = count_events(NUM_ITEMS, full_histories([40, 60, 80], seed=1))
    return mixture_model(network, counts, Calibration(0, (1.5,) * len(LENGTH_EDGES), gate))


def reasons_of(model: MixtureModel, histories: Histories, items: np.ndarray) -> Reasons:
    return reasons(partial(log_probability, model, model.everything), histories, items)


def found_reasons(network: Network, histories: Histories, items: np.ndarray) -> Reasons:
    return reasons_of(model_of(network), histories, items)


def every_item_for(histories: Histories) -> np.ndarray:
    return np.tile(EVERY_ITEM, (len(histories), 1))


def fall_without(model: MixtureModel, history: Histories, dropped: int) -> np.ndarray:
    """By how much log p of every item of the catalog falls, from the model itself."""
    fewer = without_items(history, np.array([0]), np.array([[dropped]]))
    before, after = (np.log(model.distribution(model.encode(one), one).probabilities()[0]) for one in (history, fewer))
    return before - after


def network_of_the_last_event() -> Network:
    """Neither the encoder nor the decoder looks back."""
    network = small_network()
    for block in network.encoder.blocks:
        nn.init.zeros_(block.attention.output.weight)
    nn.init.zeros_(network.decoder.context.weight)
    return network


@given(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=30), st.integers(0, 20))
@settings(max_examples=25)
def test_exactly_those_items_are_reasons_without_which_the_item_is_less_probable(items: list[int], seed: int) -> None:
    model, history = model_of(small_network(seed)), Histories.of_items([items])
    (of_items,) = reasons_of(model, history, EVERY_ITEM[None])
    candidates = [item for item in latest_items(history, NUM_CANDIDATES)[0] if item >= 0]
    falls = {int(dropped): fall_without(model, history, dropped) for dropped in candidates}
    for item, named in enumerate(of_items):
        strength = [falls[reason][item] for reason in named]
        assert all(fall >= LEAST_FALL - 1e-4 for fall in strength)
        assert strength == pytest.approx(sorted(strength, reverse=True), abs=1e-4)
        weakest = strength[2] if len(named) == 3 else LEAST_FALL
        assert all(fall[item] <= weakest + 1e-4 for reason, fall in falls.items() if reason not in named)


def test_reasons_are_few_of_the_latest_items_of_the_own_history_and_each_once() -> None:
    histories = full_histories(LENGTHS)
    found = found_reasons(small_network(), histories, every_item_for(histories))
    latest = latest_items(histories, NUM_CANDIDATES)
    assert len(found) == len(LENGTHS)
    for row, of_items in enumerate(found):
        assert len(of_items) == NUM_ITEMS
        for named in of_items:
            assert len(named) <= 3
            assert len(set(named)) == len(named)
            assert set(named) <= set(latest[row].tolist()) - {-1}
    assert sum(len(named) for named in found[4]) > NUM_ITEMS
    assert len({tuple(named) for named in found[4]}) > 3, "items have reasons of their own"
    assert not any(found[1])


def test_only_the_last_item_is_a_reason_where_nothing_else_is_looked_at() -> None:
    model = model_of(network_of_the_last_event())
    (of_items,) = reasons_of(model, Histories.of_items([[3, 8, 1, 9, 5]]), EVERY_ITEM[None])
    assert {reason for of_item in of_items for reason in of_item} == {5}
    assert 0 < sum(bool(of_item) for of_item in of_items) < NUM_ITEMS
    # An item that was seen twice in a row still counts as a reason.
    assert reasons_of(model, Histories.of_items([[3, 8, 1, 9, 5, 5]]), EVERY_ITEM[None]) == [of_items]


def test_reasons_come_from_counted_transitions_too() -> None:
    counts = count_events(NUM_ITEMS, Histories.of_items([[5, 2]] * 300 + [EVERY_ITEM.tolist()]))
    model = mixture_model(small_network(), counts, Calibration(0, gate=TRANSITIONS_ALONE))
    assert reasons_of(model, Histories.of_items([[3, 8, 1, 9, 5]]), np.array([[2, 7]])) == [[[5], []]]


def test_reasons_of_a_long_list_are_those_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, histories = small_network(), full_histories(LENGTHS)
    whole = found_reasons(network, histories, every_item_for(histories))
    monkeypatch.setattr("variseq.ranking.reasons.PAIRS_AT_ONCE", 2 * NUM_ITEMS)
    assert found_reasons(network, histories, every_item_for(histories)) == whole


def test_a_missing_item_has_no_reasons_and_changes_none() -> None:
    network, histories = small_network(), full_histories([12])
    with_gap = np.array([[4, -1, 6]])
    found = found_reasons(network, histories, with_gap)[0]
    whole = found_reasons(network, histories, EVERY_ITEM[None])[0]
    assert found == [whole[4], [], whole[6]]


def test_reasons_do_not_depend_on_who_else_is_asked() -> None:
    network, histories = small_network(), full_histories(LENGTHS)
    together = found_reasons(network, histories, every_item_for(histories))
    assert together == [
        found_reasons(network, histories.history(row), EVERY_ITEM[None])[0] for row in range(len(LENGTHS))
    ]
