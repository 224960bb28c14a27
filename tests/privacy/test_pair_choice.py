"""The kind of pairs is chosen by votes: one user changes one vote, and the better kind has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.terminal.invoke import succeed
from variseq.events.simulate import Simulation
from variseq.privacy.accounting import PAIR_CHOICE
from variseq.privacy.contributions import DECAY, WINDOW, Pairs
from variseq.privacy.pair_choice import votes_for_next
from variseq.privacy.release import PrivacyOptions, private_ledger, release
from variseq.private_model import PrivateModel
from variseq.ranking.counts import PRIOR_EVENTS
from variseq.sequences.histories import Histories

NUM_ITEMS = 5
HISTORY = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=12)


@given(st.lists(HISTORY, min_size=1, max_size=12), st.integers(0, 11), st.booleans(), st.integers(1, 6))
def test_one_user_changes_one_vote_at_most(
    histories: list[list[int]], row: int, exclude_seen: bool, num_groups: int
) -> None:
    row %= len(histories)
    others = Histories.of_items(histories[:row] + histories[row + 1 :])
    votes = [
        votes_for_next(one, NUM_ITEMS, exclude_seen, num_groups) for one in (Histories.of_items(histories), others)
    ]
    assert abs(votes[0] - votes[1]) <= 1


def plain_ndcg(histories: list[list[int]], kind: Pairs, exclude_seen: bool) -> float:
    """The sum over users, pair by pair."""
    counts: Counter[tuple[int, int]] = Counter()
    num_lags = WINDOW if kind == "near" else 1
    for history in histories:
        for end, last in enumerate(history[:-1]):
            for lag in range(1, min(num_lags, end) + 1):
                if (first := history[end - lag]) != last:
                    counts[first, last] += DECAY ** (lag - 1)
                    if kind == "near":
                        counts[last, first] += DECAY ** (lag - 1)
    total = [sum(counts[item, other] for other in range(NUM_ITEMS)) for item in range(NUM_ITEMS)]
    found = 0.0
    for *known, target in (one for one in histories if len(one) > 1):
        scores = np.zeros(NUM_ITEMS)
        for lag, item in enumerate(known[::-1][:num_lags]):
            row = np.array([counts[item, other] for other in range(NUM_ITEMS)])
            scores += DECAY**lag * row / (total[item] + PRIOR_EVENTS)
        if exclude_seen:
            scores[known] = 0
        if scores[target]:
            found += 1 / np.log2(1 + (scores >= scores[target] * (1 - 1e-9)).sum())
    return found


@given(st.lists(HISTORY, min_size=1, max_size=8), st.booleans())
def test_a_group_votes_for_the_kind_with_better_lists(histories: list[list[int]], exclude_seen: bool) -> None:
    near, in_a_row = (plain_ndcg(histories, kind, exclude_seen) for kind in ("near", "next"))
    if abs(near - in_a_row) > 1e-9 or near == in_a_row == 0:
        votes = votes_for_next(Histories.of_items(histories), NUM_ITEMS, exclude_seen, 1)
        assert votes == (in_a_row > near)


def log_of(kind: Pairs, num_users: int = 1500) -> Histories:
    """Six items in a row, the next number more often than not; or six of ten items of a group in any order."""
    random = np.random.default_rng(0)
    if kind == "near":
        rows = [10 * random.integers(0, 4) + random.permutation(10)[:6] for _ in range(num_users)]
        return Histories.of_items([row.tolist() for row in rows])
    items = random.integers(0, 40, (num_users, 6))
    for position in range(1, 6):
        goes_on = random.random(num_users) < 0.7
        items[goes_on, position] = (items[goes_on, position - 1] + 1) % 40
    return Histories.of_items(items.tolist())


@pytest.mark.parametrize(("kind", "epsilon"), [("near", 8.0), ("next", 8.0), ("next", 2.0)])
def test_better_kind_is_released_and_paid_for(kind: Pairs, epsilon: float) -> None:
    histories, options = log_of(kind), PrivacyOptions(epsilon, content=0.0, pairs="auto")
    without = private_ledger(PrivacyOptions(epsilon, content=0.0), len(histories))
    released = release(histories, 40, options)
    assert released.kind == kind
    assert [one.released for one in released.ledger.mechanisms[2:]] == [PAIR_CHOICE]
    assert released.ledger.epsilon() <= epsilon
    assert released.noise[1] > without.mechanisms[1].noise_multiplier


def test_command_writes_the_chosen_kind(shop: Simulation, tmp_path: Path) -> None:
    events, items, out = tmp_path / "events.csv", tmp_path / "items.csv", tmp_path / "run"
    shop.events().to_pandas().to_csv(events, index=False)
    shop.items().to_pandas().to_csv(items, index=False)
    fit = ("fit", events, "--items", items, "--private", 8, "--out", out)
    succeed(*fit, "--pairs", "auto", "--quiet")
    assert PAIR_CHOICE in succeed("privacy", out, "--files").out
    model = PrivateModel(out)
    assert model.engine.health["privacy"]["options"]["pairs"] in ("near", "next")
    assert model.ledger.epsilon() <= 8
