from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from variseq.errors import InputError
from variseq.recommend.faithfulness import Deletions, deletion_test, deletions
from variseq.sequences.histories import Histories

NUM_ITEMS, NUM_USERS, RECOMMENDED = 20, 60, 19


class WantsOneItem:
    """Item 19 has the logit 2 where the history holds the item `supporter`; all other logits are 0."""

    name = "wants one item"
    gives_probabilities = True

    def __init__(self, supporter: int) -> None:
        self.supporter = supporter

    def query(self, histories: Histories) -> Tensor:
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        return torch.from_numpy(np.bincount(row[histories.item == self.supporter], minlength=len(histories)) > 0)

    def scores(self, query: Tensor, first: int, last: int) -> Tensor:
        scores = torch.zeros(len(query), NUM_ITEMS)
        scores[query, RECOMMENDED] = 2.0
        return scores[:, first:last]


SUPPORTER = 7
FALL = np.log(np.exp(2) / (NUM_ITEMS - 1 + np.exp(2))) - np.log(1 / NUM_ITEMS)


def shuffled_histories(seed: int = 0) -> Histories:
    """Histories of 12 different items, the supporter among them."""
    generator = np.random.default_rng(seed)
    others = [item for item in range(NUM_ITEMS - 1) if item != SUPPORTER]
    drawn = [[SUPPORTER, *generator.choice(others, 11, replace=False)] for _ in range(NUM_USERS)]
    return Histories.of_items([generator.permutation(items).tolist() for items in drawn])


def name_supporter(histories: Histories, items: np.ndarray) -> list[list[list[int]]]:
    return [[[SUPPORTER] for _ in of_history] for of_history in items]


def name_at_random(histories: Histories, items: np.ndarray) -> list[list[list[int]]]:
    generator = np.random.default_rng(5)
    own = [histories.history(row).item for row in range(len(histories))]
    return [[[int(generator.choice(own[row]))] for _ in of_history] for row, of_history in enumerate(items)]


def everybody_gets(items: list[int]) -> np.ndarray:
    return np.tile(items, (NUM_USERS, 1))


def test_naming_the_item_that_decides_is_found_faithful() -> None:
    found = deletions(
        WantsOneItem(SUPPORTER), NUM_ITEMS, shuffled_histories(), everybody_gets([RECOMMENDED]), name_supporter
    )
    np.testing.assert_allclose(found.named, FALL, rtol=1e-5)
    tested = deletion_test(found)
    assert tested.named == pytest.approx(FALL, rel=1e-5)
    assert tested.share_named == tested.share_lowered == tested.mean_named == 1
    for control in (tested.over_random, tested.over_latest):
        assert control.p_value < 0.001
        assert 0.5 * FALL < control.interval[0] <= control.difference <= control.interval[1] <= FALL * 1.001
    # The supporter is one of 12, so a random item is it now and then.
    assert 0 < tested.random < 0.3 * FALL


def test_decorative_naming_is_not_found_faithful() -> None:
    found = deletions(
        WantsOneItem(SUPPORTER), NUM_ITEMS, shuffled_histories(), everybody_gets([RECOMMENDED]), name_at_random
    )
    tested = deletion_test(found)
    assert tested.over_random.p_value > 0.05
    assert tested.over_random.interval[0] < 0 < tested.over_random.interval[1]
    assert tested.share_lowered < 0.3


def test_item_that_loses_nothing_lowers_the_mean() -> None:
    found = deletions(
        WantsOneItem(SUPPORTER), NUM_ITEMS, shuffled_histories(), everybody_gets([RECOMMENDED, 3]), name_supporter
    )
    np.testing.assert_allclose(found.named[0::2], FALL, rtol=1e-5)
    assert (found.named[1::2] < 0).all()  # what item 19 loses goes to the others
    assert deletion_test(found).share_lowered == 0.5


def test_controls_drop_as_many_items_and_the_latest_are_the_latest() -> None:
    histories = Histories.of_items([[SUPPORTER, 1, 2, 3], [1, 2, 3, SUPPORTER, 3]])

    def name_two(histories: Histories, items: np.ndarray) -> list[list[list[int]]]:
        return [[[1, 2], []], [[1, 2], [1, 2, SUPPORTER]]]

    found = deletions(WantsOneItem(SUPPORTER), NUM_ITEMS, histories, np.array([[19, 3], [19, 19]]), name_two)
    assert found.user.tolist() == [0, 1, 1]
    assert found.num_named.tolist() == [2, 2, 3]
    assert found.num_pairs == 4
    np.testing.assert_allclose(found.latest, [0, FALL, FALL], atol=1e-6)
    np.testing.assert_allclose(found.named, [0, 0, FALL], atol=1e-6)


def test_an_item_is_dropped_with_all_its_events() -> None:
    histories = Histories.of_items([[SUPPORTER, 1, SUPPORTER, 2, SUPPORTER]])
    found = deletions(WantsOneItem(SUPPORTER), NUM_ITEMS, histories, np.array([[RECOMMENDED]]), name_supporter)
    np.testing.assert_allclose(found.named, [FALL], rtol=1e-5)


def test_same_seed_draws_the_same_items_and_another_others() -> None:
    def falls(seed: int) -> np.ndarray:
        items = everybody_gets([RECOMMENDED])
        return deletions(WantsOneItem(SUPPORTER), NUM_ITEMS, shuffled_histories(), items, name_supporter, seed).random

    np.testing.assert_array_equal(falls(3), falls(3))
    assert not np.array_equal(falls(3), falls(4))


def test_missing_recommendations_are_left_out() -> None:
    items = everybody_gets([RECOMMENDED, -1])
    found = deletions(WantsOneItem(SUPPORTER), NUM_ITEMS, shuffled_histories(), items, name_supporter)
    assert found.num_pairs == len(found.user) == NUM_USERS
    assert deletion_test(found).share_named == 1


def test_pairs_of_a_user_are_averaged_before_users_are() -> None:
    falls = np.array([1.0, 3.0, 8.0])
    zeros = np.zeros(3)
    tested = deletion_test(Deletions(np.array([0, 0, 4]), np.array([1, 2, 3]), falls, zeros, falls, num_pairs=6))
    assert (tested.named, tested.mean_named, tested.share_named) == (5.0, 2.0, 0.5)
    assert tested.over_random.num_users == 2
    assert (tested.over_latest.difference, tested.over_latest.p_value) == (0.0, 1.0)


def test_nothing_named_is_an_input_error() -> None:
    def name_nothing(histories: Histories, items: np.ndarray) -> list[list[list[int]]]:
        return [[[] for _ in of_history] for of_history in items]

    items = everybody_gets([RECOMMENDED])
    found = deletions(WantsOneItem(SUPPORTER), NUM_ITEMS, shuffled_histories(), items, name_nothing)
    with pytest.raises(InputError, match="Nothing was named"):
        deletion_test(found)
