from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.ranking import selection
from variseq.ranking.selection import diverse, top_k

NUM_ITEMS, WIDTH = 30, 4
seeds = st.integers(0, 10_000)
diversities = st.floats(0, 1)
ks = st.integers(1, 15)


Pools = tuple[np.ndarray, np.ndarray, np.ndarray]


def directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some_pools(seed: int, num_histories: int = 3, pool: int = 12) -> Pools:
    """Pools of items best first with their probabilities, and vectors of all items."""
    generator = np.random.default_rng(seed)
    item = np.stack([generator.permutation(NUM_ITEMS)[:pool] for _ in range(num_histories)])
    probability = -np.sort(-generator.random((num_histories, pool)), axis=1) / pool
    return item, probability, generator.standard_normal((NUM_ITEMS, WIDTH))


def mean_distance(item: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The mean cosine distance between the items of each list."""
    direction = directions(vectors)[item]
    cosine = direction @ direction.transpose(0, 2, 1)
    left, right = np.triu_indices(item.shape[1], k=1)
    return 1 - cosine[:, left, right].mean(axis=1)


def plain_choice(item: np.ndarray, probability: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> list[int]:
    """One list, by the formula and nothing else, in double precision."""
    relevance, direction = probability / probability[0], directions(vectors)[item]
    chosen: list[int] = []
    while len(chosen) < min(k, len(item)):
        gain = {}
        for place in set(range(len(item))) - set(chosen):
            nearest = max((float(direction[place] @ direction[other]) for other in chosen), default=-1.0)
            gain[place] = (1 - diversity) * float(relevance[place]) - diversity * nearest
        chosen.append(max(gain, key=lambda place: (gain[place], -place)))
    return chosen


@given(seeds, ks, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]))
def test_choice_is_that_of_the_formula(seed: int, k: int, diversity: float) -> None:
    item, probability, vectors = some_pools(seed)
    places = diverse(item, probability, vectors, k, diversity)
    stretched = vectors * (1 + np.arange(NUM_ITEMS)[:, None])
    for row in range(3):
        assert places[row].tolist() == plain_choice(item[row], probability[row], vectors, k, diversity)
    # The length of a vector and the scale of the probabilities change nothing.
    assert np.array_equal(diverse(item, probability / 2, stretched, k, diversity), places)


@given(seeds, ks, diversities)
def test_longer_list_begins_with_the_shorter_one(seed: int, k: int, diversity: float) -> None:
    pools = some_pools(seed)
    longer = diverse(*pools, k + 1, diversity)
    assert np.array_equal(diverse(*pools, k, diversity), longer[:, :k])


@given(seeds, diversities)
def test_list_of_one_history_does_not_depend_on_the_others(seed: int, diversity: float) -> None:
    item, probability, vectors = some_pools(seed)
    together = diverse(item, probability, vectors, 5, diversity)
    for row in range(3):
        alone = diverse(item[row : row + 1], probability[row : row + 1], vectors, 5, diversity)
        assert np.array_equal(alone[0], together[row])


def test_more_diversity_means_more_spread_and_less_relevance() -> None:
    item, probability, vectors = some_pools(seed=0, num_histories=500)
    spread, relevance = [], []
    for diversity in (0.0, 0.25, 0.5, 0.75, 1.0):
        place = diverse(item, probability, vectors, 5, diversity)
        spread.append(float(mean_distance(np.take_along_axis(item, place, axis=1), vectors).mean()))
        relevance.append(float(np.take_along_axis(probability, place, axis=1).sum(axis=1).mean()))
    assert spread == sorted(spread)
    assert relevance == sorted(relevance, reverse=True)
    assert spread[-1] > spread[0] + 0.15


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_pool_that_ran_out_leaves_empty_places_at_the_end(diversity: float) -> None:
    item, probability, vectors = some_pools(seed=1)
    item[0, 2:], probability[0, 2:] = -1, 0.0
    item[1], probability[1] = -1, 0.0
    places = diverse(item, probability, vectors, 4, diversity).tolist()
    assert sorted(places[0][:2]) == [0, 1]
    assert places[0][2:] == [-1, -1]
    assert places[1] == [-1] * 4
    assert -1 not in places[2]


VALUES = st.sampled_from([-float("inf"), -1.5, -0.0, 0.0, 0.25, 3.0])


@given(st.data(), st.integers(1, 6), st.integers(1, 40), st.sampled_from([2, 16]))
def test_top_k_is_that_of_a_full_sort_whatever_the_ties(data: st.DataObject, k: int, width: int, group: int) -> None:
    rows = data.draw(st.lists(st.lists(VALUES, min_size=width, max_size=width), min_size=1, max_size=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "GROUP", group)
        column, value = top_k(np.array(rows, dtype=np.float32), k)
    for row, columns, values in zip(rows, column.tolist(), value.tolist(), strict=True):
        order = sorted(range(width), key=lambda one: (-row[one], one))[:k]
        assert values == [row[one] for one in order]
        finite = [one for one in order if row[one] > -float("inf")]
        assert columns[: len(finite)] == finite


def test_top_k_of_long_rows_is_that_of_a_full_sort() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 12_101)).astype(np.float32)
    column, value = top_k(scores, 11)
    assert np.array_equal(column, np.argsort(-scores, axis=1, kind="stable")[:, :11])
    assert np.array_equal(value, np.take_along_axis(scores, column, axis=1))
