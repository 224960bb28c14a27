"""A private network over several logs: each step is a sum over them, and each party adds its share of the noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from variseq.privacy.noise import Noise, no_noise
from variseq.privacy.private_network import network_of_release, private_training
from variseq.privacy.release import PrivacyOptions, pair_counts, release
from variseq.privacy.schedule import StepSchedule

pytest.importorskip("cryptography")

from tests.privacy.test_federated_network import NUM_ITEMS, PARTIES, PARTS, add_up, terms_of
from variseq.federation.noisy_steps import NoisySteps
from variseq.federation.rounds import OwnSums, Rounds


def private_rounds(noise: Noise) -> Rounds:
    """All rounds of a private network, by plain sums."""
    rounds = Rounds(terms_of(epsilon=8.0, network=None, private_network=True))
    return add_up(rounds, rounds.number, [OwnSums(part, party, noise) for party, part in enumerate(PARTS, 1)])


def test_each_party_adds_its_share_of_the_noise_to_each_step_and_to_the_choice() -> None:
    drawn: list[float] = []

    def noise(deviation: float, number: int) -> np.ndarray:
        drawn.append(deviation)
        return np.zeros(number, dtype=np.int64)

    rounds = private_rounds(noise)
    popularity, pairs, choice, steps = rounds.ledger.mechanisms
    wanted = [popularity, pairs, *([steps] * steps.num_steps), choice]
    shares = [one.noise_multiplier / np.sqrt(PARTIES) for one in wanted for _ in PARTS]
    np.testing.assert_allclose(drawn, shares)
    assert rounds.ledger.epsilon() <= 8
    assert isinstance(rounds.network, NoisySteps)
    start, found = network_of_release(pair_counts(rounds.release())), rounds.network.network
    assert not torch.equal(start.decoder.context.weight, found.decoder.context.weight)
    assert torch.equal(start.item_vectors, found.item_vectors)


def test_sums_over_parties_are_those_of_the_joined_log_where_everybody_is_in_a_step() -> None:
    histories = [part.history() for part in PARTS]
    joined = histories[0].joined(histories[1]).joined(histories[2])
    counts = pair_counts(release(joined, NUM_ITEMS, PrivacyOptions(8.0, content=0.0), no_noise))
    schedule = replace(StepSchedule.of_users(90, mask_seen=True), sampling_rate=1.0, max_events=100)
    training, random = private_training(counts, schedule, 1.0), np.random.default_rng(0)
    sums = [training.sum_of(log, random) for log in histories]
    np.testing.assert_array_equal(np.sum(sums, axis=0), training.sum_of(joined, random))
