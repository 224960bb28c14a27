"""Counts over several logs: exact sums, hidden updates, a declared noise, and what a coordinator and a party refuse."""

from __future__ import annotations

import datetime
import ipaddress
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from typer.testing import CliRunner

import variseq as vs
from variseq.artifacts.folder import TABLES
from variseq.cli import app
from variseq.errors import InputError
from variseq.evaluation.splits import Part, leave_one_out
from variseq.events.vocabulary import catalog_digest
from variseq.privacy.contributions import Pairs, pair_sums, popularity_sums
from variseq.privacy.guarantee import faults_of
from variseq.privacy.noise import GRID
from variseq.privacy.release import NoisySums, PrivacyOptions, private_ledger
from variseq.sequences.histories import Histories

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from variseq.federation.connection import Connection
from variseq.federation.coordinator import HEAD_BYTES, Coordinator
from variseq.federation.federated_run import read_public_catalog
from variseq.federation.keys import PartyKey, PublicKeys, create_keys, read_party_key, read_public_keys
from variseq.federation.messages import (
    Envelope,
    EphemeralKey,
    Join,
    Message,
    Poll,
    State,
    Terms,
    Update,
    encode,
    sealed,
)
from variseq.federation.party import refuse_terms, take_part
from variseq.federation.rounds import Rounds
from variseq.federation.server import Address, serve
from variseq.privacy.secure_sum import masked, sum_of_masked

pytestmark = pytest.mark.unchecked
"""Whole fits; their parts are tested with checks of types beside them."""
NUM_ITEMS, PARTIES = 40, 3
CATALOG = catalog_digest(pa.array(range(NUM_ITEMS)))
PROCESS = b"first process of it"


def rows_of(seed: int, num_users: int = 60) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, NUM_ITEMS, length).tolist() for length in random.integers(1, 30, num_users)]


def part_of(histories: Histories) -> Part:
    """The validation part of a log without a test part."""
    return leave_one_out(histories, NUM_ITEMS, with_test=False)[1]


ROWS = [rows_of(seed) for seed in range(PARTIES)]
LOGS = [Histories.of_items(rows) for rows in ROWS]
POOLED = Histories.of_items([row for rows in ROWS for row in rows])


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    create_keys(folder, PARTIES)
    return folder


@pytest.fixture(scope="module")
def public(key_files: Path) -> PublicKeys:
    return read_public_keys(key_files / "coordinator.json")


@pytest.fixture(scope="module")
def keys(key_files: Path) -> list[PartyKey]:
    return [read_party_key(key_files / f"party-{party}.json") for party in range(1, PARTIES + 1)]


def terms_of(**changed: object) -> Terms:
    terms = Terms(secrets.token_bytes(16), PARTIES, CATALOG, NUM_ITEMS, 300, None, None, 1000, True, "near")
    return msgspec.structs.replace(terms, **changed)


@contextmanager
def served(
    coordinator: Coordinator, timeout_seconds: float = 60.0, tls: Sequence[Path] = ()
) -> Iterator[tuple[str, ThreadPoolExecutor, Future[None]]]:
    """The URL of a server on this machine, threads for parties, and the end of the server."""
    address = Address("localhost", 0, *tls)
    with address.bind() as listener, ThreadPoolExecutor(PARTIES + 1) as threads:
        ended = threads.submit(serve, coordinator, address, listener, timeout_seconds, lambda: None)
        try:
            yield f"http{'s' if tls else ''}://localhost:{listener.getsockname()[1]}", threads, ended
        finally:
            coordinator.failure = coordinator.failure or InputError("The test is over.")


def begin(url: str, threads: ThreadPoolExecutor, keys: Sequence[PartyKey]) -> list[Future[Rounds]]:
    """Parties that take part, each in a thread."""
    return [
        threads.submit(
            take_part, Connection(url, 10.0, 0.01), key, CATALOG, part_of(LOGS[key.party - 1]), None, lambda text: None
        )
        for key in keys
    ]


def send(coordinator: Coordinator, key: PartyKey, message: Message, process: bytes = PROCESS) -> State:
    body = coordinator.answer(encode(sealed(key, coordinator.terms.federation, process, message)))
    return msgspec.msgpack.decode(body, type=State)


def coordinator_of(public: PublicKeys, keys: Sequence[PartyKey]) -> tuple[Coordinator, list[str]]:
    """A coordinator that all parties have joined, and what it reports."""
    lines: list[str] = []
    coordinator = Coordinator(terms_of(), public, lines.append)
    for key in keys:
        send(coordinator, key, Join(CATALOG))
    return coordinator, lines


@settings(max_examples=20)
@given(st.sampled_from([3, 5]), st.lists(st.integers(-(2**60), 2**60), min_size=1, max_size=20), st.integers(0, 99))
def test_sum_of_masked_numbers_is_the_plain_sum(parties: int, numbers: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    values = [random.permutation(np.array(numbers, dtype=np.int64)) for _ in range(parties)]
    own = {party: X25519PrivateKey.generate() for party in range(1, parties + 1)}
    public_keys = {party: key.public_key() for party, key in own.items()}
    hidden = [masked(values[party - 1], key, party, public_keys, b"transcript") for party, key in own.items()]
    assert np.array_equal(sum_of_masked(hidden), np.sum(values, axis=0))
    assert all(np.any(one.view(np.int64) != plain) for one, plain in zip(hidden, values, strict=True))


def test_masked_update_is_uncorrelated_with_its_numbers_and_uniform() -> None:
    values = np.random.default_rng(0).integers(0, 2**20, 40_000)
    own = {party: X25519PrivateKey.generate() for party in (1, 2, 3)}
    hidden = masked(values, own[2], 2, {party: key.public_key() for party, key in own.items()}, b"")
    assert abs(np.corrcoef(values, hidden.astype(np.float64))[0, 1]) < 0.02
    assert np.histogram(hidden, 16, (0.0, 2.0**64))[0].std() < 0.05 * 40_000 / 16


def test_parties_that_saw_something_else_get_a_random_sum() -> None:
    own = {party: X25519PrivateKey.generate() for party in (1, 2, 3)}
    public_keys = {party: key.public_key() for party, key in own.items()}
    zeros = np.zeros(100, dtype=np.int64)
    hidden = [masked(zeros, key, party, public_keys, bytes([party == 3])) for party, key in own.items()]
    assert np.abs(sum_of_masked(hidden).astype(np.float64)).min() > 2.0**40


@pytest.mark.parametrize("pairs", ["near", "next"])
def test_sums_of_three_parties_are_those_of_the_joined_log_bit_for_bit(
    pairs: Pairs, public: PublicKeys, keys: list[PartyKey]
) -> None:
    coordinator = Coordinator(terms_of(pairs=pairs), public, lambda text: None)
    with served(coordinator) as (url, threads, ended):
        releases = [future.result().release() for future in begin(url, threads, keys)]
        ended.result()
    popularity, chosen = popularity_sums(POOLED, NUM_ITEMS), coordinator.rounds.release().chosen
    assert np.array_equal(coordinator.rounds.sums[0], popularity)
    assert np.array_equal(coordinator.rounds.sums[1], pair_sums(POOLED, chosen, NUM_ITEMS, pairs))
    for released in releases:
        assert np.array_equal(released.popularity, popularity * GRID)
        assert np.array_equal(released.pairs, coordinator.rounds.release().pairs)


def test_noise_of_the_sum_has_the_declared_standard_deviation() -> None:
    items = 20_000
    options = PrivacyOptions(3.0)
    ledger = private_ledger(options, 180)
    sums = [NoisySums(log, items, options, ledger, PARTIES).popularity() for log in LOGS]
    noise = (np.sum(sums, axis=0) - popularity_sums(POOLED, items)) * GRID
    declared = ledger.mechanisms[0].noise_multiplier
    assert noise.std() == pytest.approx(declared, rel=0.03)
    alone = (sums[0] - popularity_sums(LOGS[0], items)) * GRID
    assert alone.std() == pytest.approx(declared / PARTIES**0.5, rel=0.03)


def test_party_that_was_killed_comes_back_and_the_round_begins_again(public: PublicKeys, keys: list[PartyKey]) -> None:
    lines: list[str] = []
    coordinator = Coordinator(terms_of(), public, lines.append)
    with served(coordinator) as (url, threads, ended):
        others = begin(url, threads, keys[:2])
        killed = Connection(url, 10.0, 0.01)
        for message in (Join(CATALOG), EphemeralKey(0, 0, secrets.token_bytes(32))):
            killed.send(sealed(keys[2], coordinator.terms.federation, PROCESS, message))
        while coordinator.awaited != [3]:
            time.sleep(0.01)
        assert "party 3" in coordinator.progress()
        futures = others + begin(url, threads, keys[2:])
        releases = [future.result().release() for future in futures]
        ended.result()
    assert any("begins again" in line for line in lines)
    assert all(np.array_equal(one.popularity, popularity_sums(POOLED, NUM_ITEMS) * GRID) for one in releases)


def test_missing_party_is_named_when_time_is_over(public: PublicKeys, keys: list[PartyKey]) -> None:
    coordinator, _ = coordinator_of(public, keys[:2])
    with served(coordinator, 0.1) as (_, _, ended), pytest.raises(InputError, match="party 3"):
        ended.result()


@pytest.mark.parametrize("parties", [1, 2])
def test_fewer_than_three_parties_are_refused(parties: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3"):
        create_keys(tmp_path / "keys", parties)
    assert not (tmp_path / "keys").exists()


def test_key_files_are_closed_to_others_and_open_ones_are_refused(key_files: Path, tmp_path: Path) -> None:
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in key_files.iterdir())
    copied = tmp_path / "copied.json"
    copied.write_bytes((key_files / "party-1.json").read_bytes())
    copied.chmod(0o644)
    with pytest.raises(InputError, match="chmod"):
        read_party_key(copied)
    copied.write_text("{}")
    with pytest.raises(InputError, match="copied"):
        read_party_key(copied)


def test_other_catalog_is_refused_and_named(public: PublicKeys, keys: list[PartyKey]) -> None:
    coordinator, lines = coordinator_of(public, keys[:1])
    other = catalog_digest(pa.array([*range(NUM_ITEMS), 99]))
    with pytest.raises(InputError, match=f"Party 2.*{other[:16]}"):
        send(coordinator, keys[1], Join(other))
    assert lines[-1].startswith("Refused: Party 2")


def test_wrong_signature_and_other_federation_are_refused(public: PublicKeys, keys: list[PartyKey]) -> None:
    coordinator, _ = coordinator_of(public, keys)
    other = sealed(keys[0], coordinator.terms.federation, PROCESS, Poll(0))
    forged = Envelope(2, other.content, other.signature)
    with pytest.raises(InputError, match="party 2 has a wrong signature"):
        coordinator.answer(encode(forged))
    elsewhere = sealed(keys[1], b"another", PROCESS, Poll(0))
    with pytest.raises(InputError, match="party 2 is of another federation"):
        coordinator.answer(encode(elsewhere))
    with pytest.raises(InputError, match="no party 9"):
        coordinator.answer(encode(Envelope(9, other.content, other.signature)))


def test_message_of_an_earlier_attempt_or_process_is_refused(public: PublicKeys, keys: list[PartyKey]) -> None:
    coordinator, _ = coordinator_of(public, keys)
    old = EphemeralKey(0, 0, secrets.token_bytes(32))
    send(coordinator, keys[0], old)
    with pytest.raises(InputError, match="party 1 is not awaited"):
        send(coordinator, keys[0], old)
    send(coordinator, keys[0], Join(CATALOG), b"second")
    assert coordinator.attempt == 1
    with pytest.raises(InputError, match="party 1 is for round 1, attempt 1"):
        send(coordinator, keys[0], old, b"second")
    for message in (Poll(0), Join(CATALOG)):
        with pytest.raises(InputError, match="arty 1"):
            send(coordinator, keys[0], message)


@pytest.mark.parametrize("values", [b"", bytes(8 * NUM_ITEMS - 8), bytes(8 * NUM_ITEMS + 1)])
def test_update_of_another_size_is_refused(values: bytes, public: PublicKeys, keys: list[PartyKey]) -> None:
    coordinator, _ = coordinator_of(public, keys)
    for key in keys:
        send(coordinator, key, EphemeralKey(0, 0, secrets.token_bytes(32)))
    with pytest.raises(InputError, match="update of party 2"):
        send(coordinator, keys[1], Update(0, 0, b"", values))
    with pytest.raises(InputError, match="Party 2 has seen other"):
        send(coordinator, keys[1], Update(0, 0, b"", bytes(8 * NUM_ITEMS)))
    assert coordinator.awaited == [1, 2, 3]


@pytest.mark.parametrize("values", [[1.5], [None], "text"])
def test_update_that_is_no_array_of_integers_is_refused(
    values: object, public: PublicKeys, keys: list[PartyKey]
) -> None:
    coordinator, _ = coordinator_of(public, keys)
    message = {"type": "Update", "round": 0, "attempt": 0, "transcript": b"", "values": values}
    content = encode({"federation": coordinator.terms.federation, "process": PROCESS, "message": message})
    signature = keys[2].signing_key.sign(b"variseq federation 1\0" + content)
    with pytest.raises(InputError, match="party 3"):
        coordinator.answer(encode(Envelope(3, content, signature)))
    with pytest.raises(InputError, match="form"):
        coordinator.answer(b"\xc1 no MessagePack")


def test_body_that_is_too_large_is_refused(public: PublicKeys) -> None:
    coordinator = Coordinator(terms_of(), public, lambda text: None)
    with served(coordinator) as (url, _, _):
        connection = HTTPConnection(url.removeprefix("http://"))
        connection.request("POST", "/v1/messages", bytes(8 * NUM_ITEMS + HEAD_BYTES + 1))
        assert connection.getresponse().status == 413
        connection.close()


def test_sum_that_the_declared_users_cannot_make_ends_the_federation(public: PublicKeys, keys: list[PartyKey]) -> None:
    coordinator = Coordinator(terms_of(num_users=61), public, lambda text: None)
    broken = Histories.of_items([[0] * 3] * 61)
    with served(coordinator) as (url, threads, ended):
        for key in keys:
            connection = Connection(url, 0.1, 0.01)
            threads.submit(take_part, connection, key, CATALOG, part_of(broken), None, lambda text: None)
        assert "61 users" in str(ended.exception())


class SwappingCoordinator(Coordinator):
    """An attacker: it relays its own key in place of that of party 1."""

    def answer(self, body: bytes) -> bytes:
        state: State = msgspec.msgpack.decode(super().answer(body), type=State)
        if not state.keys:
            return encode(state)
        content = msgspec.msgpack.decode(state.keys[0].content)
        content["message"]["key"] = X25519PrivateKey.generate().public_key().public_bytes_raw()
        swapped = Envelope(1, encode(content), state.keys[0].signature)
        return encode(msgspec.structs.replace(state, keys=[swapped, *state.keys[1:]]))


def test_keys_that_a_coordinator_swaps_are_found_before_anything_is_sent(
    public: PublicKeys, keys: list[PartyKey]
) -> None:
    coordinator = SwappingCoordinator(terms_of(), public, lambda text: None)
    with served(coordinator) as (url, threads, _):
        for future in begin(url, threads, keys):
            assert "party 1 has a wrong signature" in str(future.exception())
    assert coordinator.awaited == [1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "most", "word"),
    [
        ({"parties": 4}, None, "4 parties"),
        ({"num_users": 59}, None, "users"),
        ({}, 3.0, "without privacy"),
        ({"epsilon": 1.5}, 1.0, "ε = 1.5"),
        ({"epsilon": 1.0, "delta": 0.5}, 1.0, "δ"),
    ],
)
def test_party_refuses_terms_that_protect_less(
    changed: dict[str, object], most: float | None, word: str, keys: list[PartyKey]
) -> None:
    with pytest.raises(InputError, match=word):
        refuse_terms(terms_of(**changed), keys[0], len(LOGS[0]), most)


def test_plain_addresses_of_other_machines_are_refused() -> None:
    for url in ("http://10.0.0.1:8100", "http://example.org", "ftp://localhost", "localhost:8100"):
        with pytest.raises(InputError):
            Connection(url, 1.0)
    with pytest.raises(InputError, match="TLS"):
        Address("0.0.0.0", 8100)
    with pytest.raises(InputError, match="tls-key"):
        Address("0.0.0.0", 8100, Path("certificate.pem"))


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of this machine that it signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return files


def test_certificate_that_is_trusted_serves_and_another_is_refused(
    public: PublicKeys, keys: list[PartyKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certificate(tmp_path)
    coordinator = Coordinator(terms_of(), public, lambda text: None)
    with served(coordinator, tls=files) as (url, threads, ended):
        with pytest.raises(InputError, match="SSL_CERT_FILE"):
            Connection(url, 1.0).terms()
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
        for future in begin(url, threads, keys):
            future.result()
        ended.result()
    assert np.array_equal(coordinator.rounds.sums[0], popularity_sums(POOLED, NUM_ITEMS))


@pytest.mark.parametrize(("ids", "kind"), [([3, 1, 2], pa.int64()), (["b", "7"], pa.string())])
def test_catalog_of_ids_alone_is_sorted_and_has_the_type_of_the_log(
    ids: list[int | str], kind: pa.DataType, tmp_path: Path
) -> None:
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ids}), file)
    vocabulary, _ = read_public_catalog(str(file), vs.ReadOptions())
    assert vocabulary.items.equals(pa.array(sorted(ids), kind))
    events = pa.table({"user_id": [1, 1], "item_id": ids[:2], "timestamp": [1, 2]})
    log = vs.read(events).on_catalog(str(file))
    assert catalog_digest(log.vocabulary.items) == catalog_digest(vocabulary.items)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def command(*words: object) -> Callable[[], object]:
    return lambda: typer.main.get_command(app).main([str(word) for word in words], standalone_mode=False)


def test_commands_write_the_same_private_run_everywhere(key_files: Path, tmp_path: Path) -> None:
    shop = vs.simulate(vs.SimulationOptions(num_users=150, num_items=30, mean_events=12, seed=5))
    events, items, server = shop.events().to_pandas(), tmp_path / "items.csv", f"http://127.0.0.1:{free_port()}"
    shop.items().to_pandas().to_csv(items, index=False)
    silo = events["user_id"].astype("category").cat.codes % PARTIES
    shared = ["--items", items, "--timeout", 30]
    coordinate = ["--parties", PARTIES, "--users", 200, "--private", 1, "--keys", key_files / "coordinator.json"]
    commands = [
        command("federate", "serve", *shared, *coordinate, "--out", tmp_path / "run0", "--port", server.split(":")[-1])
    ]
    for party in range(1, PARTIES + 1):
        log = tmp_path / f"log{party}.csv"
        events[silo == party - 1].to_csv(log, index=False)
        of_party = ["--server", server, "--key", key_files / f"party-{party}.json", "--out", tmp_path / f"run{party}"]
        commands.append(command("federate", "join", log, *shared, *of_party, "--max-epsilon", 1))
    with ThreadPoolExecutor(len(commands)) as threads:
        for future in [threads.submit(one) for one in commands]:
            future.result()
    tables = [load_file(tmp_path / f"run{number}" / TABLES) for number in range(PARTIES + 1)]
    for other in tables[1:]:
        assert all(np.array_equal(tables[0][name], other[name]) for name in tables[0])
    assert faults_of(tmp_path / "run0") == faults_of(tmp_path / "run1") == []
    runner = CliRunner()
    shown = runner.invoke(app, ["privacy", str(tmp_path / "run0"), "--files"])
    assert shown.exit_code == 0
    assert "Federated: 3 parties" in shown.stdout
    listed = runner.invoke(app, ["recommend", str(tmp_path / "run2"), "--history", "i01,i02", "-k", "3", "--json"])
    assert len(json.loads(listed.stdout)) == 3
