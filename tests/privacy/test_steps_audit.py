"""An audit of private steps stays below a true ε, and refutes steps with less noise or more of a user than claimed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from variseq.errors import InputError
from variseq.privacy import steps_audit
from variseq.privacy.accounting import NETWORK_STEPS, Ledger, Mechanism
from variseq.privacy.best_attack import BestAttack
from variseq.privacy.noise import GRID, Noise
from variseq.privacy.one_run_audit import Finding, OneRunAudit
from variseq.privacy.private_network import private_training
from variseq.privacy.private_steps import PrivateTraining, random_windows
from variseq.privacy.release import NoisySums, PrivacyOptions, exact_ledger, pair_counts
from variseq.privacy.schedule import StepSchedule
from variseq.privacy.steps_audit import StepCanaries, audit_steps, log_likelihood_ratios
from variseq.privacy.user_gradients import UserGradients
from variseq.sequences.histories import Histories

NUM_ITEMS, NUM_USERS, NUM_CANARIES = 40, 1500, 500
OF_USERS = StepSchedule.of_users


def log() -> Histories:
    return Histories.of_items([[(user + step) % NUM_ITEMS for step in range(5)] for user in range(NUM_USERS)])


def seeded_noise(scale: float = 1.0) -> Noise:
    """The same noise each time, so that no test fails by chance."""
    random = np.random.default_rng(0)
    return lambda deviation, number: np.rint(random.normal(0, scale * deviation / GRID, number)).astype(np.int64)


@pytest.mark.unchecked
def test_bound_with_noise_is_below_the_claim_and_without_noise_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_audit, "MOST_OTHERS", 10)
    monkeypatch.setattr(StepSchedule, "of_users", lambda *given: replace(OF_USERS(*given), num_steps=8))
    audited = audit_steps(log(), NUM_ITEMS, PrivacyOptions(4.0), 120, noise=seeded_noise())
    assert [one.released for one in audited.ledger.mechanisms] == [NETWORK_STEPS]
    assert audited.epsilon < 4
    assert audited.holds
    assert audited.control_breaks
    assert audited.to_json()["attacked"] == [NETWORK_STEPS]


@pytest.fixture(scope="module")
def claim() -> OneRunAudit:
    """A claim of eight steps, and an attack on them as they should be."""
    ledger = Ledger((Mechanism(NETWORK_STEPS, 1.5, 0.5, 8),), 1e-4)
    finding = found_with(seeded_noise())
    return OneRunAudit(ledger, BestAttack.of(ledger), finding, finding)


def found_with(noise: Noise) -> Finding:
    """What an attack finds on these eight steps, with all canaries guessed."""
    options = PrivacyOptions(8.0, delta=1e-4)
    counts = pair_counts(NoisySums(log(), NUM_ITEMS, options, exact_ledger(options)).release())
    training = private_training(counts, StepSchedule(NUM_USERS, 0.5, num_steps=8), 1.5)
    canaries = StepCanaries.draw(training.size, NUM_CANARIES, seed=0)
    others, random = log().rows(np.arange(10)), np.random.default_rng(0)
    return Finding.of(canaries.attack(training, others, noise, random, "steps"), NUM_CANARIES, 1e-4)


def test_attack_is_about_as_good_as_the_claim_allows(claim: OneRunAudit) -> None:
    value, low, high = claim.found.attack.auc()
    assert claim.holds
    assert low < claim.largest_auc < high + 0.05
    assert value > 0.65


def test_half_of_the_noise_is_refuted(claim: OneRunAudit) -> None:
    assert not replace(claim, found=found_with(seeded_noise(0.5))).holds


def test_gradients_that_are_not_clipped_are_refuted(claim: OneRunAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UserGradients, "factors", lambda self, max_norm: torch.ones_like(self.norms()))
    assert not replace(claim, found=found_with(seeded_noise())).holds


def test_users_of_all_steps_in_place_of_some_are_refuted(claim: OneRunAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        PrivateTraining,
        "sampled",
        lambda self, histories, generator: random_windows(histories, np.arange(len(histories)), 50, generator),
    )
    assert not replace(claim, found=found_with(seeded_noise())).holds


@pytest.mark.parametrize("amount", [-2.5, 0.0, 1.2, 40.0])
@pytest.mark.parametrize("noise", [0.4, 2.0])
def test_ratios_are_those_of_two_densities(amount: float, noise: float) -> None:
    rate, out, in_step = 0.3, norm(0, noise), norm(1, noise)
    expected = np.logaddexp(np.log(1 - rate) + out.logpdf(amount), np.log(rate) + in_step.logpdf(amount))
    found = log_likelihood_ratios(np.array([amount]), noise, rate)
    assert found[0] == pytest.approx(expected - out.logpdf(amount), abs=1e-9)


def test_canaries_have_orthogonal_directions_of_norm_one_and_are_measured_alone() -> None:
    canaries = StepCanaries.draw(500, 60, seed=3)
    directions = np.where(canaries.owner == np.arange(60)[:, None], canaries.direction, 0.0)
    np.testing.assert_allclose(directions @ directions.T, np.eye(60), atol=1e-12)
    excess = np.random.default_rng(0).normal(size=500)
    np.testing.assert_allclose(canaries.amounts(excess), directions @ excess)


@pytest.mark.parametrize("number", [3, 10**5])
def test_impossible_numbers_of_canaries_are_refused(number: int) -> None:
    with pytest.raises(InputError, match="canaries"):
        audit_steps(log(), NUM_ITEMS, PrivacyOptions(4.0), number)
