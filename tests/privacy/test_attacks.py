"""Scores tell people in a log from others as often as a plain count of pairs and thresholds finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.privacy.attacks import Attack, found_transitions, likelihood_ratio_scores
from variseq.sequences.histories import Histories

SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=30)


def attack_of(inside: list[int], outside: list[int]) -> Attack:
    included = np.arange(len(inside) + len(outside)) < len(inside)
    return Attack("an attack", np.array([*inside, *outside], dtype=float), included)


@given(SCORES, SCORES)
def test_auc_is_the_share_of_pairs_in_the_right_order(inside: list[int], outside: list[int]) -> None:
    value, low, high = attack_of(inside, outside).auc()
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert value == pytest.approx(np.mean(pairs))
    assert low <= value <= high


@given(SCORES, SCORES)
def test_auc_is_the_area_under_the_curve(inside: list[int], outside: list[int]) -> None:
    attack = attack_of(inside, outside)
    across, up = attack.curve()
    assert (across[0], up[0], across[-1], up[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(up, across) == pytest.approx(attack.auc()[0])


@given(SCORES, SCORES, st.floats(0, 1))
def test_true_positive_rate_is_that_of_the_best_threshold(inside: list[int], outside: list[int], rate: float) -> None:
    value, low, high = attack_of(inside, outside).true_positive_rate(rate)
    allowed = [one for one in range(-1, 8) if np.mean(np.array(outside) > one) <= rate]
    assert value == max(np.mean(np.array(inside) > one) for one in allowed)
    assert low <= value <= high


def test_interval_of_a_rate_is_exact() -> None:
    """1 − 0.025^(1/n) is the upper end where none of n was found."""
    _, low, high = attack_of([0] * 20, [1] * 20).true_positive_rate(0.01)
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_interval_of_the_auc_holds_it_in_about_95_of_100_samples() -> None:
    random, true, held = np.random.default_rng(0), 0.7602, 0  # Φ(1 / √2) for N(1, 1) against N(0, 1)
    for _ in range(400):
        score, included = random.standard_normal(200), np.arange(200) < 100
        _, low, high = Attack("normal", score + included, included).auc()
        held += low <= true <= high
    assert 0.92 < held / 400 < 0.98


def test_coins_that_fall_on_one_side_are_refused() -> None:
    with pytest.raises(InputError, match="more canaries"):
        Attack("an attack", np.zeros(3), np.ones(3, dtype=bool))


def test_likelihood_ratio_finds_what_the_loss_alone_does_not() -> None:
    """The loss of each canary is different for reasons of its own, and a little lower where it was in the log."""
    random, num_canaries = np.random.default_rng(0), 300
    own = random.normal(0, 5, num_canaries)
    included = np.stack([half for _ in range(8) for one in [random.random(num_canaries) < 0.5] for half in (one, ~one)])
    losses = own - included + random.normal(0, 0.3, included.shape)
    score = likelihood_ratio_scores(losses[0], losses[2:], included[2:])
    assert Attack("LiRA", score, included[0]).auc()[0] > 0.95
    assert Attack("loss", -losses[0], included[0]).auc()[0] < 0.7


def test_look_up_is_the_share_of_stored_transitions() -> None:
    # 0 → 1, 0 → 2 and 2 → 0 are stored.
    offsets, follower = np.array([0, 2, 2, 3]), np.array([1, 2, 0], dtype=np.int32)
    histories = Histories.of_items([[0, 1], [0, 1, 0], [2, 0, 2, 1], [1, 2]])
    np.testing.assert_allclose(found_transitions(histories, offsets, follower), [1, 1 / 2, 2 / 3, 0])
