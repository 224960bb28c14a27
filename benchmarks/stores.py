"""What the stores of a server cost: CPU time of an event and of a history, bytes of an event.

    python -m benchmarks.stores --users 2000 20000

Users of 50 events, by this process alone. A store on Redis has its durable log beside it, as a replica of a server has;
redis-server has to be installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from measurement.records import append_records, command_parser, exit_code, record_of
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Event

EVENTS_OF_A_USER, BATCH, SINGLE, READS = 50, 100, 2000, 5000
STORES = ("sqlite", "redis")


@contextmanager
def redis_server(folder: Path) -> Iterator[Any]:
    """A client of a Redis that keeps nothing on disk, on a socket in a folder."""
    from redis import Redis, RedisError

    words = ["redis-server", "--port", "0", "--unixsocket", str(folder / "r.sock"), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        client, end = Redis(unix_socket_path=str(folder / "r.sock")), time.monotonic() + 20
        while True:
            try:
                client.ping()
                break
            except RedisError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        yield client
        client.close()
    finally:
        process.kill()
        process.wait()


def events_of(first: int, number: int, num_users: int) -> list[Event]:
    """Events one after the other in time; each next one is of another user."""
    numbers, time_us = range(first, number), 1_700_000_000_000_000
    return [Event(f"{n:036d}", n % num_users, n * 7919 % 100_000, time_us + n) for n in numbers]


def measured(url: str, num_users: int, file: Path, redis: Any) -> dict[str, float]:
    """CPU microseconds of this process and of Redis, and bytes, an event or a history."""
    store, before = open_store(url), _redis_state(redis)
    total = num_users * EVENTS_OF_A_USER
    begun = time.process_time()
    for first in range(0, total, BATCH):
        store.append(events_of(first, min(first + BATCH, total), num_users))
    metrics = {"append_batch_cpu_us": 1e6 * (time.process_time() - begun) / total}
    after = _redis_state(redis)
    metrics |= {"redis_cpu_us": 1e6 * (after[0] - before[0]) / total, "redis_bytes": (after[1] - before[1]) / total}
    store.close()
    metrics["disk_bytes"] = sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*")) / total
    store = open_store(url)
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


def _redis_state(client: Any) -> tuple[float, float]:
    """CPU seconds and bytes of Redis."""
    if client is None:
        return 0.0, 0.0
    cpu = client.info("cpu")
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], client.info("memory")["used_memory"]


def measure(users: Sequence[int], out: Path) -> None:
    """A record for each store and number of users."""
    for num_users in users:
        for name in STORES:
            with tempfile.TemporaryDirectory(prefix="vs-") as text:
                folder = Path(text)
                file = folder / "events.db"
                if name == "sqlite":
                    metrics = measured(f"sqlite:///{file}", num_users, file, None)
                else:
                    with redis_server(folder) as client:
                        url = f"unix://{folder / 'r.sock'}?durable_log=sqlite:///{file}"
                        metrics = measured(url, num_users, file, client)
            case = {"store": name, "users": num_users}
            settings = {"events_of_a_user": EVENTS_OF_A_USER, "batch": BATCH}
            append_records(out, [record_of("stores", case, metrics, seed=0, settings=settings, threads=1)])
            print(case, {key: round(value, 1) for key, value in metrics.items()}, flush=True)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "stores")
    parser.add_argument("--users", type=int, nargs="+", default=[2000, 20_000])
    given = parser.parse_args(words)
    return exit_code(lambda: measure(given.users, given.out))


if __name__ == "__main__":
    sys.exit(main())
