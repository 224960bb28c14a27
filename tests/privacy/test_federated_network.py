"""A network over several logs: what is summed, the same network everywhere, a party that starts again, refusals."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
import typer
from safetensors.numpy import load_file

import variseq as vs
from variseq.artifacts.folder import TABLES
from variseq.cli import app
from variseq.errors import InputError, TrainingDivergedError
from variseq.evaluation.splits import leave_one_out
from variseq.events.vocabulary import Vocabulary, catalog_digest
from variseq.model.network import seeded
from variseq.privacy.noise import GRID
from variseq.private_model import PrivateModel
from variseq.sequences.histories import Histories
from variseq.training.defaults import LogProperties, network_config, training_config
from variseq.training.trainer import Trainer, Validation

pytest.importorskip("cryptography")
from concurrent.futures import ThreadPoolExecutor

from variseq.federation.connection import Connection
from variseq.federation.coordinator import Coordinator
from variseq.federation.keys import PartyKey, create_keys, read_party_key, read_public_keys
from variseq.federation.local_training import trained_sums
from variseq.federation.log_properties import property_sums, summed_properties
from variseq.federation.messages import NetworkTerms, Terms
from variseq.federation.party import refuse_terms, take_part
from variseq.federation.rounds import LENGTHS, OwnSums, Rounds
from variseq.federation.server import Address, serve
from variseq.federation.shared_network import (
    NUM_LAST,
    SharedNetwork,
    parameters_of,
    set_parameters,
)

pytestmark = pytest.mark.unchecked
"""Whole fits; their parts are tested with checks of types beside them."""
NUM_ITEMS, PARTIES, ROUNDS = 30, 3, 2
CATALOG = catalog_digest(pa.array(range(NUM_ITEMS)))
VOCABULARY = Vocabulary(pa.array([], pa.string()), pa.array(range(NUM_ITEMS)), ("event",))


def log_of(seed: int, num_users: int) -> Histories:
    """Items follow each other in a ring, with some noise; times are known."""
    random = np.random.default_rng(seed)
    rows = [
        ((random.integers(NUM_ITEMS) + np.cumsum(random.choice([1, 1, 1, 5], length))) % NUM_ITEMS).tolist()
        for length in random.integers(1, 25, num_users)
    ]
    histories = Histories.of_items(rows)
    return replace(histories, timestamp=np.cumsum(random.integers(1, 10**9, histories.num_events)))


LOGS = [log_of(seed, num_users) for seed, num_users in enumerate((30, 20, 40))]
PARTS = [leave_one_out(log, NUM_ITEMS, with_test=False)[1] for log in LOGS]
POOLED = leave_one_out(LOGS[0].joined(LOGS[1]).joined(LOGS[2]), NUM_ITEMS, with_test=False)[1]


def terms_of(**changed: object) -> Terms:
    network = NetworkTerms("tiny", ROUNDS, 3)
    terms = Terms(secrets.token_bytes(16), PARTIES, CATALOG, NUM_ITEMS, 90, None, None, 1000, True, "near", network)
    return msgspec.structs.replace(terms, **changed)


def parties_of() -> list[OwnSums]:
    return [OwnSums(part, party) for party, part in enumerate(PARTS, 1)]


def add_up(rounds: Rounds, until: int, parties: list[OwnSums] | None = None) -> Rounds:
    """Rounds with plain sums, without masks and messages."""
    parties = parties or parties_of()
    while len(rounds.sums) < until:
        total = np.sum([party.of(rounds) for party in parties], axis=0)
        rounds.add(total.astype("<i8").tobytes())
    return rounds


@pytest.fixture(scope="module")
def undisturbed() -> Rounds:
    rounds = Rounds(terms_of())
    return add_up(rounds, rounds.number)


@pytest.fixture
def begun() -> Rounds:
    """Before the first round of training."""
    return add_up(Rounds(terms_of()), 3)


def shared_of(rounds: Rounds) -> SharedNetwork:
    assert rounds.network is not None
    return rounds.network


def test_settings_are_those_of_the_joined_log(begun: Rounds) -> None:
    properties = LogProperties.of(POOLED.history(), VOCABULARY)
    summed = summed_properties(np.sum([property_sums(one.history()) for one in PARTS], axis=0), NUM_ITEMS, 3, 90, 1000)
    assert summed == replace(properties, has_values=False)
    shape = network_config("tiny", replace(properties, has_values=False), {})
    config = training_config(properties, shape, 3, {"max_epochs": ROUNDS, "exclude_seen": True})
    assert shared_of(begun).network.config == shape
    of_party = shared_of(begun).config
    assert of_party.batch_tokens == config.batch_tokens // PARTIES
    kept = {name: getattr(config, name) for name in ("batch_tokens", "learning_rate")}
    assert of_party.model_copy(update=kept) == config


def test_next_network_is_the_weighted_mean_of_what_each_log_trains_with_its_moments_kept(begun: Rounds) -> None:
    shared, parties, trainers = shared_of(begun), parties_of(), {}
    for number in range(ROUNDS):
        parameters, weights = [], []
        for party, part in enumerate(PARTS, 1):
            seed = int(np.random.SeedSequence([3, party, number]).generate_state(1)[0])
            with seeded(seed):
                if number == 0:
                    config = shared.config.model_copy(update={"seed": seed})
                    trainers[party] = Trainer(shared.copy(), part.history(), None, config)
                set_parameters(trainers[party].network, parameters_of(shared.network))
                trainers[party].progress.beta = shared.beta
                torch.manual_seed(seed)
                weights.append(trainers[party].run_epoch(number)["targets"])
            parameters.append(parameters_of(trainers[party].network))
        add_up(begun, LENGTHS + number + 2, parties)
        mean = np.average(parameters, axis=0, weights=weights)
        assert parameters_of(shared.network) == pytest.approx(mean, abs=1e-6)
        total = begun.sums[-1][:-NUM_LAST] * GRID
        assert np.abs(total - mean * sum(weights)).max() <= PARTIES * GRID / 2 * (1 + 1e-9)


def test_validation_of_the_parties_is_that_of_the_joined_log(undisturbed: Rounds) -> None:
    shared = shared_of(undisturbed)
    best = max(shared.scores, key=lambda one: one["ndcg"])
    of_joined = Validation(POOLED, shared.config).score(shared.network)
    assert of_joined["validation_ndcg"] == pytest.approx(best["ndcg"], abs=1e-4)


def test_network_and_share_are_chosen(undisturbed: Rounds) -> None:
    trained = undisturbed.trained()
    assert trained is not None
    assert 0 < trained[1].weight < 1
    assert undisturbed.is_complete


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PartyKey]]:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    create_keys(folder, PARTIES)
    return folder / "coordinator.json", [read_party_key(folder / f"party-{party}.json") for party in range(1, 4)]


def test_party_that_is_killed_in_training_goes_on_without_moments_and_all_have_one_network(
    keys: tuple[Path, list[PartyKey]],
) -> None:
    parties = parties_of()
    expected = add_up(Rounds(terms_of()), 4, parties)
    add_up(expected, expected.number, [*parties[:2], OwnSums(PARTS[2], 3)])
    lines: list[str] = []
    coordinator = Coordinator(terms_of(), read_public_keys(keys[0]), lines.append)
    address = Address("127.0.0.1", 0)
    with address.bind() as listener, ThreadPoolExecutor(PARTIES + 2) as threads:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended = threads.submit(serve, coordinator, address, listener, 60.0, lambda: None)

        def party(number: int, killed_after: int | None = None) -> Rounds:
            def report(text: str) -> None:
                if killed_after is not None and text.startswith(f"Round {killed_after} of"):
                    raise KeyboardInterrupt

            connection = Connection(url, 10.0, 0.01)
            return take_part(connection, keys[1][number - 1], CATALOG, PARTS[number - 1], None, report)

        futures = [threads.submit(party, number) for number in (1, 2)]
        with pytest.raises(KeyboardInterrupt):
            party(3, killed_after=5)
        while coordinator.awaited != [3]:
            time.sleep(0.01)
        assert coordinator.num_sums == 4
        futures.append(threads.submit(party, 3))
        found = [future.result() for future in futures]
        ended.result()
    for one in [coordinator.rounds, *found]:
        assert all(np.array_equal(*pair) for pair in zip(one.sums, expected.sums, strict=True))
        assert np.array_equal(parameters_of(shared_of(one).network), parameters_of(shared_of(expected).network))
        assert shared_of(one).share == shared_of(expected).share
    assert any("left" in line for line in lines)


@pytest.mark.parametrize("kind", ["random", "nothing", "too large", "too heavy", "size"])
def test_sum_that_no_networks_make_ends_the_federation(kind: str, begun: Rounds) -> None:
    total = np.zeros(begun.size, dtype=np.int64)
    total[-NUM_LAST] = 100 / GRID
    if kind == "random":
        total = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, begun.size)
    elif kind == "too large":
        total[5] = 100_001 / GRID
    elif kind == "too heavy":
        total[-NUM_LAST] = 90 * 1000 / GRID + 1
    elif kind == "size":
        total = total[1:]
    else:
        total[-NUM_LAST] = 0
    before = parameters_of(shared_of(begun).network)
    with pytest.raises(InputError, match="sum"):
        begun.add(total.astype("<i8").tobytes())
    assert np.array_equal(parameters_of(shared_of(begun).network), before)
    assert len(begun.sums) == 3


def test_party_sends_no_network_that_is_not_finite_or_too_large(begun: Rounds) -> None:
    shared = shared_of(begun)
    for parameter in (2_000.0, np.nan):
        shared.network.embedding.item.data[3, 3] = parameter
        with pytest.raises((InputError, TrainingDivergedError)):
            trained_sums(shared, PARTS[0], 1)


def test_behaviors_of_a_log_count_as_one() -> None:
    histories = replace(PARTS[0].histories, behavior=np.full_like(PARTS[0].histories.behavior, 3))
    rounds = add_up(Rounds(terms_of()), 3)
    found = [OwnSums(one, 1).of(rounds) for one in (PARTS[0], replace(PARTS[0], histories=histories))]
    assert np.array_equal(found[0], found[1])


def test_log_without_an_event_to_train_on_adds_nothing(begun: Rounds) -> None:
    histories = Histories.of_items([[1], [2], []])
    part = replace(PARTS[0], histories=histories, history_end=histories.offsets[1:], target_end=histories.offsets[1:])
    assert not trained_sums(shared_of(begun), part, 1)[0].any()


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"epsilon": 3.0}, "without privacy"),
        ({"network": None, "private_network": True}, "budget"),
        ({"network": NetworkTerms("huge", 5, 0)}, "huge"),
        ({"num_items": 10**8}, "items"),
    ],
)
def test_networks_that_cannot_be_federated_are_refused(
    changed: dict[str, object], word: str, keys: tuple[Path, list[PartyKey]]
) -> None:
    with pytest.raises(InputError, match=word):
        refuse_terms(terms_of(**changed), keys[1][0], 30, None)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["--rounds", "3"], "--network"),
        (["--network", "--private", "8", "--size", "tiny"], "privacy"),
        (["--network", "--private", "8", "--content"], "--content"),
        (["--network", "--server-optimizer", "yogi"], "sgd, adam"),
    ],
)
def test_settings_that_nothing_takes_are_refused(
    given: list[str], word: str, keys: tuple[Path, list[PartyKey]], tmp_path: Path
) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id\na\nb\n")
    words = ["serve", "--parties", "3", "--users", "9", "--keys", str(keys[0]), "--out", str(tmp_path / "run")]
    with pytest.raises(InputError, match=word):
        typer.main.get_command(app).main(["federate", *words, "--items", str(items), *given], standalone_mode=False)


def test_commands_write_a_run_with_the_network(keys: tuple[Path, list[PartyKey]], tmp_path: Path) -> None:
    shop = vs.simulate(vs.SimulationOptions(num_users=60, num_items=30, mean_events=8, seed=5))
    events, items = shop.events().to_pandas(), tmp_path / "items.csv"
    shop.items().to_pandas().to_csv(items, index=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    coordinate = ["serve", "--parties", 3, "--users", 60, "--keys", keys[0], "--out", tmp_path / "run", "--port", port]
    options = ["--size", "tiny", "--rounds", 2, "--server-momentum", 0.5, "--proximal", 0.01, "--content"]
    commands = [[*coordinate, "--network", *options]]
    for party in range(1, PARTIES + 1):
        log = tmp_path / f"log{party}.csv"
        events[events["user_id"].astype("category").cat.codes % PARTIES == party - 1].to_csv(log, index=False)
        key = keys[0].with_name(f"party-{party}.json")
        commands.append(["join", log, "--server", f"http://127.0.0.1:{port}", "--key", key])

    def command(words: list[object]) -> None:
        given = ["federate", *words, "--items", items, "--timeout", 30]
        typer.main.get_command(app).main([str(word) for word in given], standalone_mode=False)

    with ThreadPoolExecutor(len(commands)) as threads:
        for future in [threads.submit(command, one) for one in commands]:
            future.result()
    listed = PrivateModel(tmp_path / "run").recommend(history=["i01", "i02"], k=3)
    assert len(listed.to_dicts()) == 3
    assert {"start_vector", "distance_biases"} <= load_file(tmp_path / "run" / TABLES).keys()
