from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from variseq.model.encoder import NUM_DISTANCE_BUCKETS, CausalSelfAttention, distance_bucket


@given(st.lists(st.integers(0, 1_000_000), min_size=2, max_size=30))
def test_larger_distance_never_has_a_smaller_bucket(distances: list[int]) -> None:
    buckets = distance_bucket(torch.tensor(sorted(distances)))
    assert bool((buckets.diff() >= 0).all())
    assert int(buckets.min()) >= 0
    assert int(buckets.max()) < NUM_DISTANCE_BUCKETS


def test_small_distances_have_a_bucket_each() -> None:
    assert distance_bucket(torch.arange(17)).tolist() == list(range(17))


def test_bias_depends_on_the_distance_alone_and_forbids_the_future() -> None:
    attention = CausalSelfAttention(8, 2)
    torch.nn.init.normal_(attention.distance_bias)
    bias = attention.bias(20)
    assert bool((bias[:, torch.ones(20, 20).triu(1).bool()] == -torch.inf).all())
    torch.testing.assert_close(bias[:, 5, 2], bias[:, 19, 16])
    torch.testing.assert_close(bias[:, 7, 7], attention.distance_bias[:, 0])
