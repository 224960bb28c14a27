"""Faults under load: a killed process, a full disk and a locked database lose and double no acknowledged event."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Event, HistoryStore, StoreUnavailable

pytestmark = pytest.mark.slow
NUM_USERS, NUM_THREADS = 40, 6
LIMIT = "history_limit=1000000"
"""No history is cut, so each acknowledged event has to be found."""
ROOT = Path(__file__).parents[3]
WRITE_UNTIL_KILLED = """
import os, sys
from tests.serving.stores.test_faults import Load
from variseq.serving.stores import open_store
address, name = sys.argv[1:]
store = open_store(address)
os.write(1, b"ready\\n")
Load(store, name, lambda ids: os.write(1, (" ".join(ids) + "\\n").encode())).start()
"""
FILL_THE_DISK = """
import sys
from tests.serving.stores.test_faults import fill_and_free
print(fill_and_free(sys.argv[1]))
"""
HOLD_THE_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
while not connection.in_transaction:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        time.sleep(0.0005)
print("held", flush=True)
time.sleep(1.0)
connection.execute("ROLLBACK")
"""


@dataclass
class Load:
    """Threads that append random batches, and again what was refused; `acknowledge` gets the ids of each batch."""

    store: HistoryStore
    name: str
    acknowledge: Callable[[list[str]], object]
    acknowledged: set[str] = field(default_factory=set)
    num_refused: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(NUM_THREADS):
            self.threads.append(threading.Thread(target=self._write, args=(f"{self.name}-{number}",)))
            self.threads[-1].start()

    def stop(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def _write(self, name: str) -> None:
        random, number = Random(name), 0
        while not self.is_over.is_set():
            ids = [f"{name}-{number}-{place}" for place in range(random.randint(1, 8))]
            batch = [
                Event(one, f"user-{random.randrange(NUM_USERS)}", random.randrange(1000), random.randrange(10**9))
                for one in ids
            ]
            for _ in range(random.choice((1, 1, 1, 2))):  # A client that did not get the response sends again.
                self._append(batch, ids)
            number += 1

    def _append(self, batch: list[Event], ids: list[str]) -> None:
        while True:
            try:
                self.store.append(batch)
                break
            except StoreUnavailable:
                self.num_refused += 1
                time.sleep(0.01)
        self.acknowledged.update(ids)
        self.acknowledge(ids)


def lost_and_doubled(acknowledged: set[str], store: HistoryStore) -> tuple[int, int]:
    found = [event.event_id for user in store.users("", NUM_USERS + 1) for event in store.history(user)]
    return len(acknowledged - set(found)), len(found) - len(set(found))


def is_sound(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def child(code: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})


def killed(address: str, name: str, seconds: float) -> set[str]:
    """The ids that a process acknowledged before it was killed."""
    with child(WRITE_UNTIL_KILLED, address, name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.set_blocking(process.stdout.fileno(), False)
        written, deadline = b"", time.monotonic() + seconds
        while time.monotonic() < deadline:  # A full pipe would stop the writer.
            written += process.stdout.read(1 << 20) or b""
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.set_blocking(process.stdout.fileno(), True)
        return set((written + (process.stdout.read() or b"")).decode().split())


@pytest.mark.parametrize("durability", ["durable", "fast"])
def test_killed_process_loses_and_doubles_nothing(tmp_path: Path, durability: str) -> None:
    path, acknowledged = tmp_path / "events.db", set[str]()
    address = f"sqlite:///{path}?durability={durability}&{LIMIT}"
    for number in range(2):
        acknowledged |= killed(address, f"life-{number}", 0.1 + 0.2 * number)
        store = open_store(address)
        assert lost_and_doubled(acknowledged, store) == (0, 0)
        store.close()
        assert is_sound(path)
    assert acknowledged


def is_writable(store: HistoryStore) -> bool:
    try:
        store.check()
    except StoreUnavailable:
        return False
    return True


def fill_and_free(folder: str) -> tuple[int, tuple[int, int], bool]:
    """In a process of its own: a limit on the size of files is the full disk. Refusals, losses, and soundness."""
    path = Path(folder) / "events.db"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    num_bytes = 512 << 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
    store = open_store(f"sqlite:///{path}?{LIMIT}&durability=fast")
    load = Load(store, "load", lambda ids: None)
    load.start()
    for _ in range(2):
        before = load.num_refused
        while load.num_refused == before:
            time.sleep(0.005)
        store.history("user-1")  # A full disk can still be read.
        while is_writable(store):  # A smaller batch may still find room.
            pass
        num_acknowledged, num_bytes = len(load.acknowledged), num_bytes + (512 << 10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
        while len(load.acknowledged) == num_acknowledged:
            time.sleep(0.005)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    load.stop()
    found = lost_and_doubled(load.acknowledged, store)
    store.close()
    return load.num_refused, found, is_sound(path)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_full_disk_is_reported_and_recovered_from(tmp_path: Path) -> None:
    with child(FILL_THE_DISK, str(tmp_path)) as process:
        output, _ = process.communicate(timeout=120)
    num_refused, found, sound = eval(output.decode())
    assert num_refused > 0
    assert (found, sound) == ((0, 0), True)


def test_locked_database_is_reported_in_time_and_recovered_from(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = open_store(f"sqlite:///{path}?{LIMIT}&lock_seconds=0.3")
    load = Load(store, "load", lambda ids: None)
    load.start()
    with child(HOLD_THE_LOCK, str(path)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        while holder.poll() is None:
            store.history("user-1")  # Reading goes on while another process writes.
    num_acknowledged = len(load.acknowledged)
    while len(load.acknowledged) == num_acknowledged:
        time.sleep(0.005)
    load.stop()
    assert load.num_refused > 0
    assert lost_and_doubled(load.acknowledged, store) == (0, 0)
    store.close()
