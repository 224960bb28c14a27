from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.conftest import unchecked
from variseq.errors import InputError
from variseq.recommend.diversity import check_diversity, pool_size, spread_out

NUM_ITEMS, WIDTH = 30, 4
seeds = st.integers(0, 10_000)
diversities = st.floats(0, 1)
ks = st.integers(1, 15)


def some_pools(seed: int, num_histories: int = 3, pool: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Pools of items best first with their probabilities, and vectors of all items."""
    generator = torch.Generator().manual_seed(seed)
    item = torch.stack([torch.randperm(NUM_ITEMS, generator=generator)[:pool] for _ in range(num_histories)])
    probability = torch.rand(num_histories, pool, generator=generator).sort(dim=1, descending=True).values / pool
    return item, probability, torch.randn(NUM_ITEMS, WIDTH, generator=generator)


def mean_distance(item: Tensor, vectors: Tensor) -> Tensor:
    """The mean cosine distance between the items of each list."""
    direction = functional.normalize(vectors, dim=1)[item]
    cosine = direction @ direction.transpose(1, 2)
    left, right = torch.triu_indices(item.shape[1], item.shape[1], offset=1)
    return 1 - cosine[:, left, right].mean(dim=1)


def plain_choice(item: Tensor, probability: Tensor, vectors: Tensor, k: int, diversity: float) -> list[int]:
    """One list, by the formula and nothing else, in double precision."""
    relevance = (probability / probability[0]).double()
    direction = functional.normalize(vectors, dim=1)[item].double()
    chosen: list[int] = []
    while len(chosen) < min(k, len(item)):
        gain = {}
        for place in set(range(len(item))) - set(chosen):
            nearest = max((float(direction[place] @ direction[other]) for other in chosen), default=-1.0)
            gain[place] = (1 - diversity) * float(relevance[place]) - diversity * nearest
        chosen.append(max(gain, key=lambda place: (gain[place], -place)))
    return chosen


@given(seeds, ks)
def test_diversity_0_is_the_plain_top_k(seed: int, k: int) -> None:
    item, probability, vectors = some_pools(seed)
    place = spread_out(item, probability, vectors, k, 0.0)
    assert place.tolist() == [list(range(min(k, 12)))] * 3


@given(seeds, ks, st.floats(0, 0.99))
def test_best_item_always_comes_first(seed: int, k: int, diversity: float) -> None:
    item, probability, vectors = some_pools(seed)
    assert spread_out(item, probability, vectors, k, diversity)[:, 0].tolist() == [0, 0, 0]


@given(seeds, ks, diversities)
def test_no_item_is_chosen_twice_and_every_place_is_filled(seed: int, k: int, diversity: float) -> None:
    item, probability, vectors = some_pools(seed)
    for places in spread_out(item, probability, vectors, k, diversity).tolist():
        assert len(set(places)) == len(places) == min(k, 12)
        assert all(0 <= place < 12 for place in places)


@given(seeds, ks, st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_choice_is_that_of_the_formula(seed: int, k: int, diversity: float) -> None:
    item, probability, vectors = some_pools(seed)
    places = spread_out(item, probability, vectors, k, diversity)
    for row in range(3):
        assert places[row].tolist() == plain_choice(item[row], probability[row], vectors, k, diversity)


@given(seeds, ks, diversities)
def test_longer_list_begins_with_the_shorter_one(seed: int, k: int, diversity: float) -> None:
    pools = some_pools(seed)
    longer = spread_out(*pools, k + 1, diversity)
    assert torch.equal(spread_out(*pools, k, diversity), longer[:, :k])


@given(seeds, diversities)
def test_list_of_one_history_does_not_depend_on_the_others(seed: int, diversity: float) -> None:
    item, probability, vectors = some_pools(seed)
    together = spread_out(item, probability, vectors, 5, diversity)
    for row in range(3):
        alone = spread_out(item[row : row + 1], probability[row : row + 1], vectors, 5, diversity)
        assert torch.equal(alone[0], together[row])


@given(seeds)
def test_lengths_of_vectors_and_scale_of_probabilities_change_nothing(seed: int) -> None:
    item, probability, vectors = some_pools(seed)
    plain = spread_out(item, probability, vectors, 5, 0.4)
    stretched = vectors * (1 + torch.arange(NUM_ITEMS)[:, None])
    assert torch.equal(spread_out(item, probability / 2, stretched, 5, 0.4), plain)


def test_more_diversity_means_more_spread_and_less_relevance() -> None:
    item, probability, vectors = some_pools(seed=0, num_histories=500)
    spread, relevance = [], []
    for diversity in (0.0, 0.25, 0.5, 0.75, 1.0):
        place = spread_out(item, probability, vectors, 5, diversity)
        spread.append(float(mean_distance(item.gather(1, place), vectors).mean()))
        relevance.append(float(probability.gather(1, place).sum(dim=1).mean()))
    assert spread == sorted(spread)
    assert relevance == sorted(relevance, reverse=True)
    assert spread[-1] > spread[0] + 0.15


def test_twin_of_a_shown_item_comes_after_one_that_is_unlike() -> None:
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    pool, probability = torch.tensor([[0, 1, 2]]), torch.tensor([[0.5, 0.4, 0.3]])
    assert spread_out(pool, probability, vectors, 3, 0.5).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_pool_that_ran_out_leaves_empty_places_at_the_end(diversity: float) -> None:
    item, probability, vectors = some_pools(seed=1)
    item[0, 2:], probability[0, 2:] = -1, 0.0
    item[1], probability[1] = -1, 0.0
    places = spread_out(item, probability, vectors, 4, diversity).tolist()
    assert sorted(places[0][:2]) == [0, 1]
    assert places[0][2:] == [-1, -1]
    assert places[1] == [-1] * 4
    assert -1 not in places[2]


def test_pool_is_never_larger_than_the_catalogue() -> None:
    assert (pool_size(10, 1_000), pool_size(40, 1_000), pool_size(10, 7)) == (50, 200, 7)


@pytest.mark.parametrize("diversity", [-0.1, 1.1, float("nan"), "much", True, None])
def test_diversity_outside_its_range_is_refused_in_words(diversity: object) -> None:
    with pytest.raises(InputError, match="numbers from 0"):
        unchecked(check_diversity)(diversity)


def test_numpy_numbers_are_numbers() -> None:
    check_diversity(np.float64(0.3))
