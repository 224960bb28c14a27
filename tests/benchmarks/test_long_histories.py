"""Reading histories window by window: the same as ever where they fit, every token once where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.evaluation.splits import leave_one_out
from variseq.model.network import Network, NetworkConfig
from variseq.model.scorer import NetworkScorer
from variseq.sequences.batches import query_windows
from variseq.sequences.histories import Histories

from long_histories import LongHistoryScorer, Reading, chunked, quality, readings, table  # isort: skip

NUM_ITEMS, WINDOW = 20, 6
some_lengths = st.lists(st.integers(0, 30), min_size=1, max_size=6)


def histories(lengths: list[int]) -> Histories:
    random = np.random.default_rng(0)
    return Histories.of_items([random.integers(NUM_ITEMS, size=length).tolist() for length in lengths])


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(num_items=NUM_ITEMS, width=8, latent_dim=6, max_seq_len=WINDOW, attention_dim=4)
    made = Network(config)
    with torch.no_grad():
        made.decoder.context.weight.normal_()  # it starts at zero, and would hide what the decoder attends to
    return made.eval()


@pytest.mark.parametrize("reading", readings(WINDOW, 31)[2:], ids=lambda reading: reading.name)
def test_history_that_fits_one_window_is_read_as_ever(network: Network, reading: Reading) -> None:
    short = histories([0, 1, 4, WINDOW - 1])
    torch.testing.assert_close(LongHistoryScorer(network, reading).query(short), NetworkScorer(network).query(short))


def test_truncation_is_what_the_package_does(network: Network) -> None:
    long = histories([0, 3, 6, 17, 30])
    truncated = readings(WINDOW, 31)[0]
    torch.testing.assert_close(LongHistoryScorer(network, truncated).query(long), NetworkScorer(network).query(long))


def test_earlier_windows_are_heard(network: Network) -> None:
    history = histories([15])
    other = Histories.of_items([[int(history.item[0] + 1) % NUM_ITEMS, *history.item[1:].tolist()]])
    for reading in readings(WINDOW, 31)[2:4]:
        scorer = LongHistoryScorer(network, reading)
        assert not torch.allclose(scorer.query(history), scorer.query(other))


@given(some_lengths, st.integers(2, 9), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_every_token_is_new_once_and_in_order(lengths: list[int], window: int, overlap: int) -> None:
    asked = histories(lengths)
    found = chunked(asked, Reading("any", window, min(overlap, window - 1)))
    tokens = [
        np.arange(first, last)[new]
        for first, last, new in zip(found.windows.first, found.windows.last, found.is_new, strict=True)
    ]
    expected = [np.arange(a, b + 1) for a, b in zip(asked.offsets[:-1], asked.offsets[1:], strict=True)]
    np.testing.assert_array_equal(np.concatenate(tokens), np.concatenate(expected))
    latest = np.cumsum(found.num_of_history) - 1
    np.testing.assert_array_equal(found.windows.first[latest], query_windows(asked, window).first)
    assert found.windows.lengths.max() <= window


def test_quality_asks_only_those_whose_history_is_longer_than_the_window(network: Network) -> None:
    log = Histories.of_items([[(user + place) % NUM_ITEMS for place in range(3 + user)] for user in range(17)])
    _, _, test = leave_one_out(log, NUM_ITEMS)
    rows = quality(network, test)
    asked = {row["reading"]: row["num_users"] for row in rows if row["events"].startswith("all")}
    assert asked == dict.fromkeys(
        (reading.name for reading in readings(WINDOW, 31)), sum(2 + n >= 6 for n in range(17))
    )
    assert all(row["ndcg_difference"] == 0 for row in rows if row["reading"] == "truncated")
    record = {"test": {"rows": rows}, "hardware": {"cpu": "a", "threads": 1}, "commit": "b", "dirty": False}
    assert table(record | {"date": "2026-01-01"}).count("| truncated |") == 3
