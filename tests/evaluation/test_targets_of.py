"""Only some behaviors are learned and asked for: where splits put their targets, and what is counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.errors import InputError
from variseq.evaluation.baselines import LastItemTransitions, Popular
from variseq.evaluation.splits import by_time, leave_one_out, marked_targets
from variseq.model.network import Weights
from variseq.ranking.calibration import repeat_share
from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.histories import Histories

BEHAVIORS = ("purchase", "view")
Marked = list[list[tuple[int, bool]]]
marked_lists = st.lists(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=9), min_size=1, max_size=8)


def of_marked(lists: Marked) -> Histories:
    """Histories of (item, whether it is a purchase)."""
    plain = Histories.of_items([[item for item, _ in history] for history in lists])
    behavior = np.array([0 if bought else 1 for history in lists for _, bought in history], dtype=np.uint8)
    return marked_targets(dataclasses.replace(plain, behavior=behavior), BEHAVIORS, ["purchase"])


SHOPPERS = of_marked(
    [
        [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True), (4, False)],
        [(5, True), (6, False), (6, True), (7, False)],
        [(4, False), (5, False), (5, True)],
        [(1, True), (2, True)],
    ]
)


@given(marked_lists)
@settings(max_examples=40)
def test_last_target_of_a_user_is_test_and_the_one_before_it_validation(lists: Marked) -> None:
    histories = of_marked(lists)
    places = [np.flatnonzero([bought for _, bought in history]) for history in lists]
    wanted = [user for user, place in enumerate(places) if len(place) >= 2 and place[-2] > 0]
    try:
        train, valid, test = leave_one_out(histories, 9)
    except InputError:
        assert not wanted or not sum(train_targets(lists, wanted))
        return
    start = histories.offsets[:-1]
    for part, back in ((test, 1), (valid, 2)):
        for targets in ("last", "first", "all"):
            queries = part.queries(targets)
            assert queries.user.tolist() == wanted
            assert queries.position.tolist() == [start[user] + places[user][-back] for user in wanted]
    assert train.protocol["num_test_targets"] == len(wanted)
    learned = train.history()
    assert learned.num_targets == sum(train_targets(lists, wanted))


def train_targets(lists: Marked, held_out: list[int]) -> list[int]:
    return [sum(bought for _, bought in history) - 2 * (user in held_out) for user, history in enumerate(lists)]


def test_without_marks_the_split_is_the_usual_one() -> None:
    usual = leave_one_out(dataclasses.replace(SHOPPERS, is_target=None), 9)
    everything = leave_one_out(dataclasses.replace(SHOPPERS, is_target=np.ones(SHOPPERS.num_events, dtype=bool)), 9)
    for first, second in zip(usual, everything, strict=True):
        np.testing.assert_array_equal(first.history_end, second.history_end)
        np.testing.assert_array_equal(first.queries().position, second.queries().position)
    assert "num_test_targets" not in usual[0].protocol


@pytest.mark.parametrize("targets", ["last", "first", "all"])
def test_time_split_asks_for_targets_only_and_shows_all_events_before_them(targets: str) -> None:
    histories = dataclasses.replace(SHOPPERS, timestamp=np.arange(SHOPPERS.num_events))
    _, _, test = by_time(histories, test=0.5, valid=0.25, num_items=9)
    queries = test.queries(targets)
    assert histories.is_target[queries.position].all()
    before = test.histories_before(queries)
    np.testing.assert_array_equal(before.lengths, queries.position - histories.offsets[queries.user])
    assert (before.behavior == 1).any(), "views are shown"


def test_part_without_any_target_is_refused() -> None:
    histories = of_marked([[(1, True), (2, True), (3, True), (4, False), (5, False), (6, False)]])
    with pytest.raises(InputError):
        by_time(histories, test="1s", valid="1s", num_items=9)


def test_baselines_and_repeats_count_targets_alone() -> None:
    bought = SHOPPERS.of_targets(SHOPPERS.item)
    popular = Popular(9).fit(SHOPPERS)
    expected = np.log((np.bincount(bought, minlength=9) + 1) / (len(bought) + 9))
    np.testing.assert_allclose(popular.log_share.numpy(), expected, rtol=1e-6)
    transitions = LastItemTransitions(9).fit(SHOPPERS)
    assert int(transitions.count.sum()) == SHOPPERS.num_targets - 2, "two purchases come first"
    # 1, 2, 3; 6; 5 are bought after they were seen.
    assert SHOPPERS.num_repeats() == 5
    assert repeat_share(SHOPPERS) == (5 + 0.5) / (SHOPPERS.num_targets - 2 + 1)


def test_loss_and_its_gradient_know_only_targets() -> None:
    network = small_network()
    items = [[0, 1, 2, 3], [4, 5, 0]]
    plain = Histories.of_items(items)
    marked = dataclasses.replace(plain, is_target=np.array([False, True, False, True, True, False, False]))
    loss = {}
    for name, histories in {"all": plain, "some": marked}.items():
        windows = training_windows(histories, 10, np.random.default_rng(0))
        batch = make_batch(histories, windows, np.arange(len(windows.first)), NUM_ITEMS)
        loss[name] = network.objective(batch, Weights(noise=0.0))
        if name == "some":
            preference = network(batch).preference[batch.is_target]
            scores = network.scores(preference, 0, NUM_ITEMS).log_softmax(dim=1)
            expected = -scores.gather(1, batch.target_item[batch.is_target][:, None]).mean()
            torch.testing.assert_close(loss[name].nll, expected.detach())
    assert not torch.equal(loss["all"].nll, loss["some"].nll)
    torch.testing.assert_close(loss["all"].kl, loss["some"].kl)


@given(marked_lists, st.integers(1, 4))
@settings(max_examples=40)
def test_windows_cover_every_target_once_and_none_is_without_one(lists: Marked, max_seq_len: int) -> None:
    histories = of_marked(lists)
    windows = training_windows(histories, max_seq_len, np.random.default_rng(0))
    positions = [np.arange(first, last) for first, last in zip(windows.first, windows.last, strict=True)]
    for inside in positions:
        assert histories.is_target[inside].any()
    covered = np.concatenate([*positions, np.zeros(0, dtype=np.int64)])
    assert len(np.unique(covered)) == len(covered)
    assert histories.is_target[covered].sum() == histories.num_targets
