"""How long an append, and an append with the reading of the history after it, take in each store.

    python benchmarks/history_store.py

One caller at a time, then many at once; half of the calls are of users with 200 events. Times are wall times: the
median, and what 99 % stay below.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from provenance import provenance
from record_file import write_record

from variseq.serving.stores.importing import Row, import_histories
from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import Event, HistoryStore
from variseq.serving.stores.sqlite import SqliteStore

RESULTS = Path(__file__).parent / "results"
START = 1_600_000_000_000_000
EVENTS_OF_HEAVY_USER = 200
NUM_HEAVY_USERS = 100


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_microseconds": round(1e6 * ordered[len(ordered) // 2], 1),
        "p99_microseconds": round(1e6 * ordered[int(len(ordered) * 0.99)], 1),
    }


def some_user(random: Random, num_users: int) -> int:
    return random.randrange(NUM_HEAVY_USERS) if random.random() < 0.5 else random.randrange(num_users)


def one_caller(store: HistoryStore, num_users: int, times: int, reads: bool) -> dict[str, float]:
    random, seconds = Random(1), []
    for number in range(times):
        event = Event(f"one-{reads}-{number}", some_user(random, num_users), number, START * 2 + number)
        begin = time.perf_counter()
        store.append([event])
        if reads:
            store.history(event.user_id)
        seconds.append(time.perf_counter() - begin)
    return percentiles(seconds)


def many_callers(store: HistoryStore, num_users: int, times: int, callers: int) -> dict[str, float]:
    def call(caller: int) -> list[float]:
        random, seconds = Random(caller), []
        for number in range(times // callers):
            event = Event(f"many-{caller}-{number}", some_user(random, num_users), number, START * 2 + number)
            begin = time.perf_counter()
            store.append([event])
            seconds.append(time.perf_counter() - begin)
        return seconds

    begin = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        seconds = [second for own in pool.map(call, range(callers)) for second in own]
    per_second = round(len(seconds) / (time.perf_counter() - begin))
    return {"callers": callers, "appends_per_second": per_second, **percentiles(seconds)}


def one_read(store: HistoryStore, times: int) -> dict[str, Any]:
    found = {}
    for name, ask in (("history", store.history), ("version", store.version)):
        seconds = []
        for number in range(times):
            begin = time.perf_counter()
            ask(number % NUM_HEAVY_USERS)
            seconds.append(time.perf_counter() - begin)
        found[name] = percentiles(seconds)
    return found


def rows_of(num_users: int) -> list[Row]:
    random = Random(7)
    return [
        (user, random.randrange(100_000), START + place * 1_000_000, None, None)
        for user in range(num_users)
        for place in range(EVENTS_OF_HEAVY_USER if user < NUM_HEAVY_USERS else 10)
    ]


def measure(address: str, arguments: argparse.Namespace) -> dict[str, Any]:
    store = open_store(address)
    rows = rows_of(arguments.users)
    begin = time.perf_counter()
    import_histories(store, rows)
    imported = round(len(rows) / (time.perf_counter() - begin))
    found: dict[str, Any] = {
        "store": f"{address.split('/')[0]} {address.partition('?')[2]}".strip(),
        "num_events": len(rows),
        "imported_events_per_second": imported,
        "append": one_caller(store, arguments.users, arguments.times, reads=False),
        "append_and_read": one_caller(store, arguments.users, arguments.times, reads=True),
        "append_by_many": [many_callers(store, arguments.users, arguments.times * 2, callers) for callers in (16, 64)],
        **one_read(store, arguments.times),
    }
    begin = time.perf_counter()
    store.erase(1)
    found["erase_milliseconds"] = round(1e3 * (time.perf_counter() - begin), 1)
    if isinstance(store, SqliteStore):
        found["megabytes"] = round(store.path.stat().st_size / 1e6, 1)
    store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "history_store.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="variseq-store-") as folder:
        addresses = ["memory:", *(f"sqlite:///{folder}/{name}.db?durability={name}" for name in ("durable", "fast"))]
        rows = [measure(address.replace("memory:", "memory://"), arguments) for address in addresses]
    write_record(arguments.out, {**provenance(), "stores": rows})
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
