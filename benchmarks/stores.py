"""What the stores of a server cost: CPU time of an event and of a history, bytes of an event.

    python -m benchmarks.stores --users 2000 20000

Users of 50 events, by this process alone. A store on Redis has its durable log beside it, as a replica of a server has.
redis-server, initdb and pg_ctl have to be installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measurement.records import append_records, command_parser, exit_code, record_of
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Event

EVENTS_OF_A_USER, BATCH, SINGLE, READS = 50, 100, 2000, 5000
STORES = ("sqlite", "redis", "postgresql")
START_SECONDS = 20


@dataclass(frozen=True)
class Running:
    """What a store uses.

    Args:
        url: Its address.
        state: CPU seconds and bytes of the server that is shared, if there is one.
        disk_bytes: Bytes on disk.
    """

    url: str
    state: Callable[[], tuple[float, float]]
    disk_bytes: Callable[[], int]


@contextmanager
def on_redis(folder: Path, file: Path) -> Iterator[Running]:
    """A store on a Redis that keeps nothing on disk, on a socket in a folder."""
    from redis import Redis, RedisError

    words = ["redis-server", "--port", "0", "--unixsocket", str(folder / "r.sock"), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)

    def state() -> tuple[float, float]:
        cpu: Any = client.info("cpu")
        memory: Any = client.info("memory")
        return cpu["used_cpu_user"] + cpu["used_cpu_sys"], memory["used_memory"]

    try:
        client, end = Redis(unix_socket_path=str(folder / "r.sock")), time.monotonic() + START_SECONDS
        while True:
            try:
                client.ping()
                break
            except RedisError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        url = f"unix://{folder / 'r.sock'}?durable_log=sqlite:///{file}"
        yield Running(url, state, lambda: _file_bytes(file))
        client.close()
    finally:
        process.kill()
        process.wait()


@contextmanager
def on_postgresql(folder: Path, file: Path) -> Iterator[Running]:
    """A store on a PostgreSQL with its default settings, on a socket in a folder."""
    import psycopg

    # PostgreSQL refuses to be root.
    user, data = "nobody" if os.getuid() == 0 else None, folder / "data"
    if user is not None:
        shutil.chown(folder, user)

    def run(*words: str) -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=folder, user=user)

    def state() -> tuple[float, float]:
        first = int((data / "postmaster.pid").read_text().split()[0])
        seconds = sum(_cpu_seconds(one) for one in [first, *_children(first)])
        return seconds, 0.0

    def disk_bytes() -> int:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            sizes = "SELECT sum(pg_total_relation_size(name)) FROM unnest(%s::regclass[]) AS tables (name)"
            row = connection.execute(sizes, (["variseq_users", "variseq_events"],)).fetchone()
        assert row is not None
        return int(row[0])

    run("initdb", "--username=ann", "--auth=trust", "--encoding=UTF8", "--locale=C", str(data))
    run(
        "pg_ctl", "-w", "-D", str(data), "-o", f"-c listen_addresses='' -k {folder}", "-l", str(folder / "log"), "start"
    )
    url = f"postgresql://ann@/postgres?host={folder}"
    try:
        yield Running(url, state, disk_bytes)
    finally:
        run("pg_ctl", "-w", "-m", "fast", "-D", str(data), "stop")


@contextmanager
def on_sqlite(folder: Path, file: Path) -> Iterator[Running]:
    """A store in a file."""
    yield Running(f"sqlite:///{file}", lambda: (0.0, 0.0), lambda: _file_bytes(file))


def _file_bytes(file: Path) -> int:
    return sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*"))


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(one) for one in text.split()]


def _cpu_seconds(process: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def events_of(first: int, number: int, num_users: int) -> list[Event]:
    """Events one after the other in time; each next one is of another user."""
    numbers, time_us = range(first, number), 1_700_000_000_000_000
    return [Event(f"{n:036d}", n % num_users, n * 7919 % 100_000, time_us + n) for n in numbers]


def measured(running: Running, num_users: int) -> dict[str, float]:
    """CPU microseconds of this process and of a shared server, and bytes, an event or a history."""
    store, before = open_store(running.url), running.state()
    total = num_users * EVENTS_OF_A_USER
    begun = time.process_time()
    for first in range(0, total, BATCH):
        store.append(events_of(first, min(first + BATCH, total), num_users))
    metrics = {"append_batch_cpu_us": 1e6 * (time.process_time() - begun) / total}
    after = running.state()
    metrics |= {"server_cpu_us": 1e6 * (after[0] - before[0]) / total, "redis_bytes": (after[1] - before[1]) / total}
    store.close()
    metrics["disk_bytes"] = running.disk_bytes() / total
    store = open_store(running.url)
    begun = time.process_time()
    for event in events_of(total, total + SINGLE, num_users):
        store.append([event])
    metrics["append_cpu_us"] = 1e6 * (time.process_time() - begun) / SINGLE
    users = np.random.default_rng(0).integers(0, num_users, READS).tolist()
    begun = time.process_time()
    num_read = sum(len(store.history(user)) for user in users)
    metrics["history_cpu_us"] = 1e6 * (time.process_time() - begun) / READS
    store.close()
    assert num_read >= EVENTS_OF_A_USER * READS
    return metrics


def measure(users: Sequence[int], stores: Sequence[str], out: Path) -> None:
    """A record for each store and number of users."""
    kinds = {"sqlite": on_sqlite, "redis": on_redis, "postgresql": on_postgresql}
    for num_users in users:
        for name in stores:
            with tempfile.TemporaryDirectory(prefix="vs-") as text:
                folder = Path(text)
                with kinds[name](folder, folder / "events.db") as running:
                    metrics = measured(running, num_users)
            case = {"store": name, "users": num_users}
            settings = {"events_of_a_user": EVENTS_OF_A_USER, "batch": BATCH}
            append_records(out, [record_of("stores", case, metrics, seed=0, settings=settings, threads=1)])
            print(case, {key: round(value, 1) for key, value in metrics.items()}, flush=True)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "stores")
    parser.add_argument("--users", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    given = parser.parse_args(words)
    return exit_code(lambda: measure(given.users, given.stores, given.out))


if __name__ == "__main__":
    sys.exit(main())
