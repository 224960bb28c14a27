"""How the benchmark of networks across silos divides users, and what it calls a difference."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cryptography")

from benchmarks.federated_network import SHARES, by_taste, difference
from variseq.sequences.histories import Histories

NUM_ITEMS, NUM_USERS = 20, 100


def test_silos_by_taste_hold_every_user_once_and_people_who_had_the_same_together() -> None:
    random = np.random.default_rng(0)
    first = random.permutation(NUM_USERS) < NUM_USERS / 2
    rows = [(random.integers(0, 10, 8) + 10 * one).tolist() for one in first]
    silos = by_taste(Histories.of_items(rows), NUM_ITEMS)
    assert [len(one) for one in silos] == [round(share * NUM_USERS) for share in SHARES]
    assert np.array_equal(np.sort(np.concatenate(silos)), np.arange(NUM_USERS))
    assert len(set(first[silos[0]].tolist())) == 1


def test_difference_is_in_percent_of_the_joined_log_and_paired_over_users() -> None:
    joined = np.random.default_rng(1).random((3, 50))
    found = difference(list(joined * 0.9), list(joined))
    assert found["difference"] == pytest.approx(-10)
    of_user = joined.mean(axis=0)
    assert found["standard error"] == pytest.approx(10 * of_user.std(ddof=1) / 50**0.5 / of_user.mean())
