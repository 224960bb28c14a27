from __future__ import annotations

import pytest
import torch

from variseq.model.dropout import LEVELS, drop, kept_levels


@pytest.mark.parametrize("dropout", [0.1, 0.2, 0.3, 0.5, 0.9])
def test_share_dropped_is_the_one_asked_for_and_the_expectation_stays(dropout: float) -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(400, 501), dropout, training=True)
    assert abs(float((dropped == 0).float().mean()) - dropout) < 1 / (2 * LEVELS) + 0.004
    assert abs(float(dropped.mean()) - 1) < 0.01
    kept = dropped[dropped > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, LEVELS / kept_levels(dropout)))


def test_draws_of_neighbors_are_independent() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(1_000_000), 0.5, training=True) > 0
    for distance in range(1, 9):
        both = (dropped[distance:] & dropped[:-distance]).float().mean()
        assert abs(float(both) - 0.25) < 0.003


def test_gradient_goes_where_the_number_was_kept() -> None:
    values = torch.randn(7, 3, requires_grad=True)
    dropped = drop(values, 0.4, training=True)
    dropped.sum().backward()
    torch.testing.assert_close(dropped.detach(), values.detach() * values.grad)


def test_nothing_is_dropped_outside_training_or_at_zero() -> None:
    values = torch.randn(5, 2)
    assert drop(values, 0.5, training=False) is values
    assert drop(values, 0.0, training=True) is values


def test_dropout_is_that_of_the_random_seed() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(drop(torch.ones(64), 0.5, training=True))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_even_the_largest_share_keeps_something() -> None:
    assert kept_levels(0.9999) == 1
