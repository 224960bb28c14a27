"""A private network over several logs: each step is a sum over them, and each party adds its share of the noise."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from variseq.privacy.noise import Noise, no_noise
from variseq.privacy.private_network import network_of_release, private_training
from variseq.privacy.release import PrivacyOptions, pair_counts, release
from variseq.privacy.schedule import StepSchedule

pytest.importorskip("cryptography")

from tests.privacy.test_federated_network import CATALOG, NUM_ITEMS, PARTIES, PARTS, add_up, terms_of
from variseq.federation.connection import Connection
from variseq.federation.coordinator import Coordinator
from variseq.federation.keys import create_keys, read_party_key, read_public_keys
from variseq.federation.messages import Content, Envelope, State, Update
from variseq.federation.noisy_steps import NoisySteps
from variseq.federation.party import take_part
from variseq.federation.rounds import LENGTHS, OwnSums, Rounds
from variseq.federation.server import Address, serve

pytestmark = pytest.mark.unchecked
"""Whole fits; their parts are tested with checks of types beside them."""


def private_rounds(noise: Noise) -> Rounds:
    """All rounds of a private network, by plain sums."""
    rounds = Rounds(terms_of(epsilon=8.0, network=None, private_network=True))
    return add_up(rounds, rounds.number, [OwnSums(part, party, noise) for party, part in enumerate(PARTS, 1)])


@pytest.mark.usefixtures("few_steps")
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


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_step_of_a_party_that_was_killed_begins_again_with_new_noise_and_one_sum_of_it_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed_in, plain_of = LENGTHS + 1, OwnSums.of
    monkeypatch.setattr(Rounds, "number", LENGTHS + 3)
    added: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)

    def recorded(own: OwnSums, rounds: Rounds) -> np.ndarray:
        found = plain_of(own, rounds)
        added[own._party, len(rounds.sums)].append(found)
        return found

    class KilledConnection(Connection):
        """Of a party that is killed when all keys are there, before it sends its numbers of a step."""

        def send(self, envelope: Envelope) -> State:
            message = msgspec.msgpack.decode(envelope.content, type=Content).message
            if isinstance(message, Update) and message.round == killed_in:
                raise KeyboardInterrupt
            return super().send(envelope)

    monkeypatch.setattr(OwnSums, "of", recorded)
    create_keys(tmp_path / "keys", PARTIES)
    lines: list[str] = []
    terms = terms_of(epsilon=8.0, network=None, private_network=True)
    coordinator = Coordinator(terms, read_public_keys(tmp_path / "keys" / "coordinator.json"), lines.append)
    address = Address("127.0.0.1", 0)
    with address.bind() as listener, ThreadPoolExecutor(PARTIES + 2) as threads:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended = threads.submit(serve, coordinator, address, listener, 60.0, lambda: None)

        def party(of: int, kind: type[Connection] = Connection) -> Rounds:
            key = read_party_key(tmp_path / "keys" / f"party-{of}.json")
            return take_part(kind(url, 10.0, 0.01), key, CATALOG, PARTS[of - 1], 8.0, lambda text: None)

        futures = [threads.submit(party, of) for of in (1, 2)]
        with pytest.raises(KeyboardInterrupt):
            party(3, KilledConnection)
        futures.append(threads.submit(party, 3))
        found = [future.result() for future in futures]
        ended.result()
    assert f"Round {killed_in + 1} begins again with new keys, as party 3 had left it." in lines
    for (of, running), sums in added.items():
        assert len(sums) == (2 if (of, running) == (3, killed_in) else 1)
    before, after = added[3, killed_in]
    assert not np.array_equal(before, after)
    for running, total in enumerate(coordinator.rounds.sums):
        assert np.array_equal(total, np.sum([added[of, running][-1] for of in (1, 2, 3)], axis=0))
    tensors = [rounds.network.network.state_dict() for rounds in (coordinator.rounds, *found) if rounds.network]
    assert len(tensors) == PARTIES + 1
    assert all(torch.equal(tensors[0][name], one[name]) for one in tensors for name in one)
