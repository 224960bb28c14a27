from __future__ import annotations

import numpy as np
import torch

from tests.model.some_networks import NUM_ITEMS, full_histories, query_batch, small_network
from variseq.recommend.because import attention_over_events, strongest_events
from variseq.sequences.histories import Histories

LENGTHS = [5, 0, 12, 1, 30]


def test_weights_are_those_of_the_last_position_without_the_start_token() -> None:
    network = small_network()
    histories = full_histories(LENGTHS)
    weights = attention_over_events(network, histories)
    batch = query_batch(histories)
    with torch.no_grad():
        of_tokens = network.decoder.last_weights(network.encode(batch).mean, batch.layout).numpy()
    for row, length in enumerate(LENGTHS):
        assert len(weights[row]) == length
        np.testing.assert_allclose(weights[row], of_tokens[row, 1 : length + 1], rtol=1e-4, atol=1e-6)
        assert weights[row].sum() <= 1 + 1e-5


def test_events_before_the_window_have_no_weight_and_are_no_reason() -> None:
    network = small_network(max_length=4)
    histories = Histories.of_items([list(range(NUM_ITEMS))])
    (weight,) = attention_over_events(network, histories)
    assert (weight[:-4] == 0).all()
    assert weight[-4:].sum() == np.float32(1.0) or abs(weight.sum() - 1) < 1e-5
    (reasons,) = strongest_events(network, histories, num_events=10)
    assert sorted(reasons) == [8, 9, 10, 11]


def test_reasons_are_positions_of_the_own_history_strongest_first_and_each_item_once() -> None:
    network = small_network()
    histories = full_histories(LENGTHS)
    weights = attention_over_events(network, histories)
    for row, reasons in enumerate(strongest_events(network, histories)):
        start, end = int(histories.offsets[row]), int(histories.offsets[row + 1])
        assert all(start <= place < end for place in reasons)
        assert len(reasons) == min(3, len(set(histories.item[start:end].tolist())))
        assert len({int(histories.item[place]) for place in reasons}) == len(reasons)
        strength = [float(weights[row][place - start]) for place in reasons]
        assert strength == sorted(strength, reverse=True)
        if reasons:
            assert strength[0] == weights[row].max()


def test_later_event_of_another_history_gives_no_reason() -> None:
    network = small_network()
    together = strongest_events(network, full_histories(LENGTHS))
    assert together[1] == []
