"""The step of the coordinator: against the mean, against the formulas, and in the rounds of a federation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from variseq.errors import InputError

pytest.importorskip("cryptography")

from tests.privacy.test_federated_network import PARTIES, add_up, shared_of, terms_of
from variseq.federation.messages import NetworkTerms, network_terms
from variseq.federation.rounds import Rounds
from variseq.federation.server_optimizer import ADAPTIVITY, SECOND_MOMENT_DECAY, ServerOptimizer
from variseq.federation.shared_network import NUM_LAST, parameters_of
from variseq.privacy.noise import GRID

numbers = arrays(np.float64, (4, 3), elements=st.floats(-100, 100))


@given(numbers)
def test_rate_of_one_without_momentum_gives_the_mean(means: np.ndarray) -> None:
    optimizer, parameters = ServerOptimizer(NetworkTerms()), np.zeros(3)
    for mean in means:
        parameters = optimizer.step(parameters, mean)
        np.testing.assert_allclose(parameters, mean, atol=1e-12)


@given(numbers, st.floats(0.1, 2), st.floats(0, 0.9))
def test_steps_are_those_of_the_formulas(means: np.ndarray, rate: float, momentum: float) -> None:
    for kind in ("sgd", "adam"):
        optimizer = ServerOptimizer(NetworkTerms(server_optimizer=kind, server_rate=rate, server_momentum=momentum))
        found, wanted, first, second = np.zeros(3), [0.0] * 3, [0.0] * 3, [0.0] * 3
        for mean in means:
            found = optimizer.step(found, mean)
            for index in range(3):
                difference = mean[index] - wanted[index]
                if kind == "sgd":
                    first[index] = momentum * first[index] + difference
                    wanted[index] += rate * first[index]
                else:
                    first[index] += (1 - momentum) * (difference - first[index])
                    second[index] += (1 - SECOND_MOMENT_DECAY) * (difference**2 - second[index])
                    wanted[index] += rate * first[index] / (second[index] ** 0.5 + ADAPTIVITY)
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_rounds_move_by_the_server_optimizer_and_a_party_that_takes_the_sums_has_the_same_network() -> None:
    network = NetworkTerms("tiny", 2, 3, server_rate=0.8, server_momentum=0.5, proximal=0.1)
    terms = terms_of(network=network)
    rounds = add_up(Rounds(terms), 3)
    optimizer, expected = ServerOptimizer(network), parameters_of(shared_of(rounds).network)
    for number in (4, 5):
        add_up(rounds, number)
        *mean, weight = rounds.sums[-1][: -NUM_LAST + 1] * GRID
        expected = optimizer.step(expected, np.array(mean) / weight)
    assert parameters_of(shared_of(rounds).network) == pytest.approx(expected, abs=1e-6)
    again = Rounds(terms)
    for total in rounds.sums:
        again.add(total.astype("<i8").tobytes())
    assert np.array_equal(parameters_of(shared_of(again).network), parameters_of(shared_of(rounds).network))


def test_network_that_the_server_optimizer_throws_out_ends_the_federation() -> None:
    rounds = add_up(Rounds(terms_of(network=NetworkTerms("tiny", 2, 3, server_rate=10.0))), 3)
    total = np.full(rounds.size, 100 * PARTIES, dtype=np.int64)
    total[:-NUM_LAST] = 999 * PARTIES
    total[-NUM_LAST] = PARTIES
    total[-NUM_LAST + 1 :] = 0
    with pytest.raises(InputError, match="server-rate"):
        rounds.add(np.rint(total / GRID).astype("<i8").tobytes())


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"server_optimizer": "yogi"}, "sgd, adam"),
        ({"server_rate": 0.0}, "> 0"),
        ({"server_momentum": 1.0}, "< 1"),
        ({"proximal": -1.0}, ">= 0"),
        ({"rounds": 0}, ">= 1"),
    ],
)
def test_settings_that_are_not_possible_are_refused(given: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        network_terms(given)
