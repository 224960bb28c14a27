"""An audit in one run stays below a true ε, and refutes releases with less noise than they claim."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from variseq.errors import InputError
from variseq.privacy.contributions import pair_index
from variseq.privacy.noise import GRID, Noise, no_noise
from variseq.privacy.one_run_audit import OneRunAudit, PairCanaries, audit_release, epsilon_lower_bound
from variseq.privacy.release import PrivacyOptions, Release, release
from variseq.sequences.histories import Histories
from variseq.terminal.audit import sentences_of

NUM_ITEMS, OPTIONS = 30, PrivacyOptions(2.0)
GROUPS = (np.arange(15), np.arange(15, 30))
"""Nobody in the log has items of both groups."""


def log() -> Histories:
    random = np.random.default_rng(0)
    return Histories.of_items([random.choice(GROUPS[user % 2], 5, replace=False).tolist() for user in range(1500)])


def seeded_noise() -> Noise:
    """The same noise each time, so that no test fails by chance."""
    random = np.random.default_rng(0)
    return lambda deviation, number: np.rint(random.normal(0, deviation / GRID, number)).astype(np.int64)


@pytest.fixture(scope="module")
def audited() -> OneRunAudit:
    return audit_release(log(), NUM_ITEMS, OPTIONS, noise=seeded_noise())


def test_bound_with_noise_is_below_the_claim_and_without_noise_above(audited: OneRunAudit) -> None:
    assert audited.epsilon <= OPTIONS.epsilon
    assert audited.holds
    assert audited.control_breaks
    assert audited.control.num_correct == audited.control.num_guesses == len(audited.control.attack.score)


def test_pairs_in_a_row_are_audited_alike() -> None:
    audited = audit_release(log(), NUM_ITEMS, PrivacyOptions(OPTIONS.epsilon, pairs="next"), noise=seeded_noise())
    assert audited.holds
    assert audited.control_breaks
    assert audited.found.attack.auc()[0] > 0.55


def test_few_canaries_cannot_refute_the_claim_and_say_so() -> None:
    audited = audit_release(log(), NUM_ITEMS, PrivacyOptions(4.0), 20, noise=seeded_noise())
    assert audited.holds
    assert not audited.control_breaks
    assert "cannot refute" in sentences_of(audited)[1]


def test_attack_is_about_as_good_as_the_claim_allows(audited: OneRunAudit) -> None:
    value, low, high = audited.found.attack.auc()
    assert low - 0.02 < audited.largest_auc < high + 0.02
    assert value > 0.55


def test_no_two_canaries_share_a_pair_and_a_short_log_gives_fewer(audited: OneRunAudit) -> None:
    assert len(audited.found.attack.score) == NUM_ITEMS * (NUM_ITEMS - 1) // 2
    canaries = PairCanaries.draw(np.arange(6), 10, seed=3)
    assert len({*zip(canaries.first.tolist(), canaries.second.tolist(), strict=True)}) == 10
    assert (canaries.first < canaries.second).all()
    assert len(canaries.histories()) == canaries.included.sum()


def test_half_of_the_noise_is_refuted() -> None:
    noise = seeded_noise()
    audited = audit_release(log(), NUM_ITEMS, OPTIONS, noise=lambda deviation, number: noise(deviation / 2, number))
    assert not audited.holds
    assert "refuted" in sentences_of(audited)[0]


def test_noise_on_observed_cells_alone_is_refuted() -> None:
    """A pair that nobody else has stands in such a release if and only if the canary is in the log."""
    options = PrivacyOptions(OPTIONS.epsilon, delta=1e-5)
    number = len(GROUPS[0]) * len(GROUPS[1])
    first, second = (one.ravel() for one in np.meshgrid(*GROUPS))
    canaries = PairCanaries(first, second, np.random.default_rng(0).random(number) < 0.5)
    histories = log().joined(canaries.histories())

    def bound(released: Release) -> float:
        position = np.searchsorted(released.chosen, np.stack([first, second]))
        stands = released.pairs[pair_index(*position, len(released.chosen))] != 0
        return epsilon_lower_bound(number, number, int((stands == canaries.included).sum()), 1e-5)

    right, exact = (release(histories, NUM_ITEMS, options, noise) for noise in (seeded_noise(), no_noise))
    assert len(right.chosen) == len(exact.chosen) == NUM_ITEMS
    observed = np.where(exact.pairs != 0, right.pairs, 0)
    wrong = replace(right, pairs=observed)
    assert bound(wrong) > options.epsilon
    assert bound(right) <= options.epsilon


@pytest.mark.parametrize("number", [10, 100, 1000])
def test_bound_of_correct_guesses_is_that_of_randomized_response(number: int) -> None:
    """Without δ all guesses are right with the probability q^n, where q is e^ε / (1 + e^ε)."""
    correct = 0.05 ** (1 / number)
    expected = math.log(correct / (1 - correct))
    assert epsilon_lower_bound(number, number, number, 0.0) == pytest.approx(expected, abs=1e-3)
    assert epsilon_lower_bound(number, number, number // 2, 0.0) == 0.0


def test_larger_delta_explains_more() -> None:
    bounds = [epsilon_lower_bound(1000, 500, 480, delta) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2] > 0


def test_bound_exceeds_the_true_epsilon_in_at_most_5_of_100_runs() -> None:
    epsilon, number = 1.5, 400
    right = binom(number, 1 / (1 + math.exp(-epsilon))).rvs(300, random_state=np.random.default_rng(0))
    too_high = np.mean([epsilon_lower_bound(number, number, int(one), 0.0) > epsilon for one in right])
    assert too_high <= 0.08


@pytest.mark.parametrize(
    ("num_items", "num_canaries", "message"), [(NUM_ITEMS, 3, "canaries"), (NUM_ITEMS, 10**7, "canaries")]
)
def test_impossible_numbers_of_canaries_are_refused(num_items: int, num_canaries: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        audit_release(log(), num_items, OPTIONS, num_canaries)


def test_log_without_popular_items_is_refused() -> None:
    with pytest.raises(InputError, match="longer log"):
        audit_release(Histories.of_items([[0, 1, 2]] * 5), 3, OPTIONS)
