"""Redis killed behind two servers that take events over HTTP, and back with nothing: is an acknowledged event missing?

    python benchmarks/faults/server_redis_gone.py [--times 30] [--clients 6] [--folder .peers]

Two replicas of `variseq serve`, each with a record of its own, share one Redis that keeps nothing on disk. Each client
has a user; it sends a batch until it is answered 200, and the very next answer about the user has to hold exactly what
was acknowledged, or be a refusal (503). In the end both replicas are asked for every event of every user.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import httpx
from redis_server import SERVER, RedisServer
from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from process import LiveServer, model_of  # noqa: E402

NUM_ITEMS, FIRST_TIME, MOST_BATCH = 300, 1_700_000_000, 5
LIMIT = "history_limit=1000000"
LONGEST_RETURN_SECONDS = 60.0


class Client(threading.Thread):
    """A shop's events of one user, to one replica, until it is told to stop."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__()
        self.address, self.name = address, name
        self.is_over = threading.Event()
        self.num_acknowledged = 0
        self.seen: Counter[str] = Counter()
        self._random = random.Random(name)

    def run(self) -> None:
        with httpx.Client(base_url=self.address, timeout=30) as http:
            while not self.is_over.is_set():
                self._send(http, self._random.randint(1, MOST_BATCH))
                told = http.get(f"/v1/users/{self.name}")
                if told.status_code == 200:
                    self.seen["wrong_next_answers"] += times_of(told) != self.expected()
                else:
                    self._refused(told)

    def expected(self) -> list[int]:
        """The times of all acknowledged events; each has its own."""
        return [FIRST_TIME + place for place in range(self.num_acknowledged)]

    def _send(self, http: httpx.Client, num_events: int) -> None:
        events = [
            {
                "event_id": f"{self.name}-{place}",
                "user_id": self.name,
                "item_id": f"i{self._random.randrange(NUM_ITEMS)}",
                "timestamp": FIRST_TIME + place,
            }
            for place in range(self.num_acknowledged, self.num_acknowledged + num_events)
        ]
        while (answer := http.post("/v1/events", json={"events": events})).status_code != 200:
            self._refused(answer)
            time.sleep(0.01)
        self.num_acknowledged += num_events

    def _refused(self, answer: httpx.Response) -> None:
        self.seen["refused" if answer.status_code == 503 else "failed"] += 1


def times_of(told: httpx.Response) -> list[int]:
    return sorted(round(datetime.fromisoformat(one["timestamp"]).timestamp()) for one in told.json()["events"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if SERVER is None:
        sys.exit("Neither redis-server nor valkey-server is installed.")
    model = model_of(arguments.folder / "serving", NUM_ITEMS)
    redis = RedisServer()
    redis.start()
    try:
        with tempfile.TemporaryDirectory(prefix="variseq-redis-") as folder:
            replicas = [replica(model, redis, Path(folder) / name) for name in "ab"]
            try:
                outcome = lose_redis(redis, replicas, arguments)
            finally:
                codes = [one.stop() for one in replicas]
    finally:
        redis.remove()
    broken = ("lost", "doubled", "wrong_next_answers", "failed", "stack_traces")
    is_good = not any(outcome[name] for name in broken) and codes == [0, 0]
    finish(__file__, arguments.out, outcome, is_good and outcome["acknowledged"] > 10 * arguments.times)


def replica(model: Path, redis: RedisServer, folder: Path) -> LiveServer:
    folder.mkdir()
    store = redis.address(folder / "record.db", f"durability=durable&{LIMIT}", f"&{LIMIT}")
    return LiveServer(model, folder, ["--store", store, "--no-log-requests"])


def lose_redis(redis: RedisServer, replicas: list[LiveServer], arguments: argparse.Namespace) -> dict[str, float]:
    """Kill Redis so many times under load; what became of the events."""
    chance = random.Random(1)
    clients = [Client(replicas[n % len(replicas)].address, f"shop-{n}") for n in range(arguments.clients)]
    for client in clients:
        client.start()
    slowest = 0.0
    for _ in range(arguments.times):
        time.sleep(chance.uniform(0.1, 0.6))
        redis.kill()
        time.sleep(chance.uniform(0.0, 0.5))
        redis.start()
        slowest = max(slowest, seconds_until_back(replicas))
    for client in clients:
        client.is_over.set()
    for client in clients:
        client.join()
    seconds_until_back(replicas)
    found: Counter[str] = sum((client.seen for client in clients), Counter())
    for one in replicas:
        for client in clients:
            there, expected = Counter(times_of(httpx.get(f"{one.address}/v1/users/{client.name}"))), client.expected()
            found["lost"] += len(set(expected) - there.keys())
            found["doubled"] += there.total() - len(there)
    return {
        "kills": arguments.times,
        "replicas": len(replicas),
        "clients": arguments.clients,
        "acknowledged": sum(client.num_acknowledged for client in clients),
        **{name: found[name] for name in ("lost", "doubled", "wrong_next_answers", "refused", "failed")},
        "stack_traces": sum(one.errors().count("Traceback") for one in replicas),
        "slowest_return_seconds": round(slowest, 2),
    }


def seconds_until_back(replicas: list[LiveServer]) -> float:
    """How long until every replica answers about a user again."""
    begin = time.monotonic()
    for one in replicas:
        while httpx.get(f"{one.address}/v1/users/shop-0", timeout=30).status_code not in (200, 404):
            if time.monotonic() - begin > LONGEST_RETURN_SECONDS:
                raise TimeoutError("a replica did not come back")
            time.sleep(0.02)
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
