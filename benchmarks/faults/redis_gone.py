"""Redis is killed under load and comes back empty, many times: is an acknowledged event ever missing?

    python benchmarks/faults/redis_gone.py --times 50

Two replicas, each with a record of its own, write through one Redis that keeps nothing on disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from redis_server import SERVER, RedisServer
from report import finish
from write_load import HISTORY_LIMIT, WriteLoad, compare

from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import HistoryStore, StoreUnavailable

MOST_SECONDS_UNTIL_REFUSED = 3.0
LONGEST_RETURN_SECONDS = 60.0


def seconds_until_back(stores: list[HistoryStore]) -> float:
    """How long until every replica answers again."""
    start = time.monotonic()
    for store in stores:
        while True:
            try:
                store.version("user-1")
                break
            except StoreUnavailable:
                if time.monotonic() - start > LONGEST_RETURN_SECONDS:
                    raise
                time.sleep(0.01)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--threads", type=int, default=3, help="of each replica")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if SERVER is None:
        sys.exit("Neither redis-server nor valkey-server is installed.")
    random = Random(arguments.seed)
    server = RedisServer()
    server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="variseq-redis-") as folder:
            outcome, is_good = lose_redis(server, Path(folder), arguments, random)
    finally:
        server.remove()
    finish(__file__, arguments.out, outcome, is_good)


def lose_redis(
    server: RedisServer, folder: Path, arguments: argparse.Namespace, random: Random
) -> tuple[dict[str, object], bool]:
    """Kill it so many times; the outcome, and whether all is well."""
    limit = f"history_limit={HISTORY_LIMIT}"
    addresses = [server.address(folder / f"{name}.db", f"durability=durable&{limit}", f"&{limit}") for name in "ab"]
    stores = [open_store(address) for address in addresses]
    loads = [
        WriteLoad(store, name, arguments.threads, lambda batch: None) for store, name in zip(stores, "ab", strict=True)
    ]
    for load in loads:
        load.start()
    slowest_return = 0.0
    for _ in range(arguments.times):
        time.sleep(random.uniform(0.05, 0.4))
        server.kill()
        time.sleep(random.uniform(0.0, 0.3))
        server.start()
        slowest_return = max(slowest_return, seconds_until_back(stores))
    accounts = [load.stop() for load in loads]
    # Another replica's events are complete once it has pushed its record, which each has when it answers.
    seconds_until_back(stores)
    found = compare({event.event_id for account in accounts for event in account.acknowledged}, stores[0])
    wrong = [text for account in accounts for text in account.wrong]
    for store in stores:
        store.close()
    slowest = max(account.slowest_refusal_seconds for account in accounts)
    outcome: dict[str, object] = {
        "kills": arguments.times,
        "replicas": len(stores),
        "threads": arguments.threads * len(stores),
        **found,
        "calls_refused": sum(account.num_unavailable for account in accounts),
        "slowest_refusal_seconds": round(slowest, 2),
        "slowest_return_seconds": round(slowest_return, 2),
        "wrong": wrong,
    }
    is_good = not (found["lost"] or found["doubled"] or found["stored_without_acknowledgement"] or wrong)
    return outcome, is_good and slowest <= MOST_SECONDS_UNTIL_REFUSED


if __name__ == "__main__":
    main()
