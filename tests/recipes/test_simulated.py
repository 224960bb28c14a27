"""The simulated logs of accounts and drives: what their oracle states is how often things happen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

import variseq
from measurement.simulated import (
    ACCOUNT_ITEMS,
    GAP_SHARE,
    MANOEUVRES,
    SPREAD,
    STEP_SECONDS,
    Account,
    AccountOracle,
    DriveOracle,
    accounts,
    drives,
    first_drives,
    manoeuvre_probability,
    next_drives,
)
from variseq.sequences.histories import Histories

Forecasts = Iterator[tuple[np.ndarray, int]]


def users_of(table: pa.Table) -> list[list[dict[str, object]]]:
    users: dict[int, list[dict[str, object]]] = {}
    for row in table.to_pylist():
        users.setdefault(row["user_id"], []).append(row)
    return list(users.values())


def of_transactions(table: pa.Table) -> Forecasts:
    for rows in users_of(table):
        account, begin = Account(), 1_704_067_200
        for row in rows:
            item = ACCOUNT_ITEMS.index(row["item_id"])
            yield account.next_item(), item
            account.add(item, (row["timestamp"] - begin) // STEP_SECONDS, row["value"])


def of_gaps(table: pa.Table) -> Forecasts:
    for rows in users_of(table):
        account, begin = Account(), 1_704_067_200
        for row in rows:
            step = (row["timestamp"] - begin) // STEP_SECONDS
            yield GAP_SHARE[account.mood], step - account.step - 1
            account.add(ACCOUNT_ITEMS.index(row["item_id"]), step, row["value"])


def of_manoeuvres(table: pa.Table) -> Forecasts:
    for rows in users_of(table):
        known = first_drives()
        for row in rows:
            item = MANOEUVRES.index(row["item_id"])
            yield manoeuvre_probability(known), item
            known = next_drives(known, item)


LOGS = {"transactions": (accounts, of_transactions), "gaps": (accounts, of_gaps), "manoeuvres": (drives, of_manoeuvres)}


@pytest.mark.parametrize("name", LOGS)
def test_events_are_as_often_and_as_surprising_as_their_probabilities_say(name: str) -> None:
    log, forecasts_of = LOGS[name]
    found = list(forecasts_of(log(60, 60, seed=3)))
    probability, came = np.array([one for one, _ in found]), np.array([item for _, item in found])
    assert np.allclose(probability.sum(axis=1), 1)
    # Sums of independent differences from their expectation, in standard deviations: above 6 is one in 10⁹.
    variance = (probability * (1 - probability)).sum(axis=0)
    often = variance > 5
    differences = np.bincount(came, minlength=probability.shape[1]) - probability.sum(axis=0)
    assert np.abs(differences[often] / np.sqrt(variance[often])).max() < 6
    log_probability = np.log(np.maximum(probability, 1e-300))
    entropy = -(probability * log_probability).sum(axis=1)
    spread = np.sqrt((probability * log_probability**2).sum() - np.square(entropy).sum())
    surprise = -log_probability[np.arange(len(came)), came] - entropy
    assert abs(surprise.sum()) < 6 * spread


def test_amounts_are_as_far_from_their_expectation_as_stated() -> None:
    errors: dict[int, list[float]] = {}
    for rows in users_of(accounts(60, 60, seed=3)):
        account = Account()
        for row in rows:
            item = ACCOUNT_ITEMS.index(row["item_id"])
            # The level of an account is not known before its first salary.
            if item >= 2 or account.count[item] >= 1:
                errors.setdefault(min(item, 2), []).append((row["value"] - account.log_amount(item)) / SPREAD[item])
            account.add(item, (row["timestamp"] - 1_704_067_200) // STEP_SECONDS, row["value"])
    assert np.std(errors[2]) == pytest.approx(1.0, abs=0.1)
    # After one salary the level is known as well as one salary says it: between 1 and √2 standard deviations.
    assert 0.95 < np.std(errors[0]) < 1.5


def test_street_follows_from_two_manoeuvres_and_not_from_one() -> None:
    of_first, of_second = [], []
    for rows in users_of(drives(50, 3, seed=1)):
        items = [MANOEUVRES.index(row["item_id"]) for row in rows]
        after_one = next_drives(first_drives(), items[0])
        of_first.append(len({junction for junction, _, _ in after_one}))
        of_second.append(len({junction for junction, _, _ in next_drives(after_one, items[1])}))
    assert max(of_first) == 4
    assert max(of_second) == 1


@pytest.mark.parametrize(("table", "kind"), [(accounts(5, 12), AccountOracle), (drives(5, 12), DriveOracle)])
def test_oracle_knows_the_numbers_of_the_log(table: pa.Table, kind: type[AccountOracle | DriveOracle]) -> None:
    log = variseq.read(table)
    oracle = kind(log.vocabulary)
    scores = oracle.scores(log.histories)
    names = log.vocabulary.item_ids(range(log.vocabulary.num_items))
    expected = of_transactions(table) if kind is AccountOracle else of_manoeuvres(table)
    all_names = ACCOUNT_ITEMS if kind is AccountOracle else MANOEUVRES
    before_each = [one for one, _ in expected]
    first = oracle.scores(Histories.of_items([[]]))[0]
    for row, name in enumerate(names):
        assert first[row].exp() == pytest.approx(before_each[0][all_names.index(name)], rel=1e-4, abs=1e-9)
    assert torch.all(scores.exp().sum(dim=1) <= 1 + 1e-5)
