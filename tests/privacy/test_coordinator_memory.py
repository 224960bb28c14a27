"""The memory of a coordinator that holds the updates of all parties has none of them without its masks."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from variseq.events.vocabulary import catalog_digest
from variseq.log import read
from variseq.privacy.contributions import popularity_sums
from variseq.sequences.histories import Histories

pytest.importorskip("cryptography")
from variseq.federation.connection import Connection
from variseq.federation.keys import create_keys, read_party_key
from variseq.federation.messages import Envelope
from variseq.federation.party import take_part
from variseq.federation.rounds import Rounds

NUM_ITEMS, PARTIES, NUM_USERS = 400, 3, 60
SECONDS = 60.0
CHUNK_BYTES, NUM_CHUNKS = 64, 5
"""Parts of a vector are looked for, of eight numbers each, so that a copy of a part is found, too."""
PAGE_BYTES = 4096

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no /proc to read the memory of a process"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def rows_of(party: int) -> list[list[int]]:
    random = np.random.default_rng(party)
    return [random.integers(0, NUM_ITEMS, 50).tolist() for _ in range(NUM_USERS)]


def join(url: str, folder: Path, party: int) -> Rounds:
    """Take part with the log of a party, which this process holds: the coordinator is another one."""
    rows = enumerate(rows_of(party))
    events = [(f"u{party}-{user}", f"i{item:03}", moment) for user, row in rows for moment, item in enumerate(row)]
    table = pa.table(dict(zip(("user_id", "item_id", "timestamp"), zip(*events, strict=True), strict=True)))
    log = read(table).on_catalog(str(folder / "items.csv"))
    _, valid, _ = log.split("leave-one-out", test="none")
    key, digest = read_party_key(folder / "keys" / f"party-{party}.json"), catalog_digest(log.vocabulary.items)
    return take_part(Connection(url, SECONDS), key, digest, valid.part, None, lambda _: None)


class Relay(ThreadingHTTPServer):
    """Passes the messages of parties on to a coordinator, but for the last byte of the last update of a round.

    Args:
        coordinator: The port of the coordinator.
    """

    daemon_threads = True

    def __init__(self, coordinator: int) -> None:
        super().__init__(("127.0.0.1", 0), RelayedMessage)
        self.coordinator = coordinator
        self.updates: list[bytes] = []
        self.counting = threading.Lock()
        self.all_are_there, self.go_on = threading.Event(), threading.Event()

    def add(self, body: bytes) -> bool:
        """Whether a body is the last update of the first round."""
        with self.counting:
            if len(body) < 8 * NUM_ITEMS or len(self.updates) == PARTIES:
                return False
            self.updates.append(body)
            return len(self.updates) == PARTIES

    def values(self) -> list[bytes]:
        """What the parties have sent."""
        envelopes = (msgspec.msgpack.decode(body, type=Envelope) for body in self.updates)
        return [msgspec.msgpack.decode(one.content)["message"]["values"] for one in envelopes]


class RelayedMessage(BaseHTTPRequestHandler):
    """One request, and the answer to it."""

    server: Relay

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_on(self, body: bytes) -> None:
        onward = HTTPConnection("127.0.0.1", self.server.coordinator, timeout=SECONDS)
        onward.putrequest(self.command, self.path)
        onward.putheader("Content-Length", str(len(body)))
        onward.endheaders()
        if self.server.add(body):
            onward.send(body[:-1])
            self.server.all_are_there.set()
            self.server.go_on.wait(SECONDS)
            body = body[-1:]
        onward.send(body)
        response = onward.getresponse()
        answer = response.read()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        onward.close()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    with Relay(port) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        try:
            yield relay
        finally:
            relay.go_on.set()
            relay.shutdown()
            thread.join()


def start(stack: ExitStack, *words: object) -> subprocess.Popen[bytes]:
    """A command of its own process, which is killed at the end."""
    process = subprocess.Popen([sys.executable, "-m", "variseq", *map(str, words)], stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def wait_for(port: int) -> None:
    """Return when something listens at a port of this machine."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


def memory_of(process: int) -> bytes:
    """All that a process can write to (heap, stacks, and what it has mapped for itself), without pages of zeros."""
    found = []
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if area is None:
                continue
            begin, end = (int(one, 16) for one in area.groups())
            memory.seek(begin)
            # Some areas of the kernel cannot be read.
            with suppress(OSError):
                while begin < end and (part := memory.read(end - begin)):
                    found.append(part)
                    begin += len(part)
    pages = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, PAGE_BYTES)
    return pages[pages.any(axis=1)].tobytes()


def chunks_in(memory: bytes, vector: bytes) -> int:
    """How many parts of a vector are somewhere in the memory."""
    begins = np.linspace(0, len(vector) - CHUNK_BYTES, NUM_CHUNKS).astype(int) // 8 * 8
    return sum(vector[begin : begin + CHUNK_BYTES] in memory for begin in begins)


def test_memory_of_the_coordinator_has_masked_updates_alone(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys", PARTIES)
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\n" + "".join(f"i{item:03},title {item}\n" for item in range(NUM_ITEMS)))
    port = free_port()
    shared = ("--items", items, "--timeout", SECONDS)
    with ExitStack() as stack:
        relay = stack.enter_context(relay_to(port))
        keys = ("--keys", tmp_path / "keys" / "coordinator.json", "--out", tmp_path / "run", "--port", port)
        coordinator = start(
            stack, "federate", "serve", *shared, *keys, "--parties", PARTIES, "--users", PARTIES * NUM_USERS
        )
        wait_for(port)
        threads = stack.enter_context(ThreadPoolExecutor())
        url = f"http://127.0.0.1:{relay.server_port}"
        parties = [threads.submit(join, url, tmp_path, party) for party in range(1, PARTIES + 1)]
        assert relay.all_are_there.wait(SECONDS)
        # The last update is there but for the last byte of its signature, which may still be on its way.
        deadline = time.monotonic() + SECONDS
        memory = b""
        while not all(values in memory for values in relay.values()) and time.monotonic() < deadline:
            memory = memory_of(coordinator.pid)
        relay.go_on.set()
        assert all(party.result(SECONDS).is_complete for party in parties)
        assert coordinator.wait(SECONDS) == 0
    sent = relay.values()
    plain = [popularity_sums(Histories.of_items(rows_of(party)), NUM_ITEMS) for party in range(1, PARTIES + 1)]
    masked = np.sum([np.frombuffer(one, dtype="<u8") for one in sent], axis=0, dtype=np.uint64)
    assert np.array_equal(masked.view(np.int64), np.sum(plain, axis=0)), "these are the vectors of the parties"
    assert [chunks_in(memory, values) for values in sent] == [NUM_CHUNKS] * PARTIES
    assert [chunks_in(memory, values.astype("<i8").tobytes()) for values in plain] == [0] * PARTIES
