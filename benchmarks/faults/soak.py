"""A server under steady load for half an hour: does its memory stay flat, and is every answer an answer?

    python benchmarks/faults/soak.py [--minutes 30] [--rate 60] [--folder .peers]

Of ten requests seven ask for recommendations (of 3,000 users, and of histories that are sent along), two bring events
and one looks a user up or, now and then, erases one. Memory is looked at every five seconds; the slope is that of a
straight line through the second half, after caches have filled.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from process import LiveServer, live_server, model_of  # noqa: E402

NUM_ITEMS, NUM_USERS, CONNECTIONS = 5000, 3000, 8
LOOK_SECONDS = 5.0
MOST_GROWTH = 0.02
"""Memory may grow by this share of itself an hour."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second")
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    model = model_of(arguments.folder / "serving", NUM_ITEMS)
    with live_server(model, ["--no-log-requests", "--cache-megabytes", "1"]) as server:
        statuses, memory = asyncio.run(soaked(server, 60 * arguments.minutes, arguments.rate))
        traces = server.errors().count("Traceback")
    seconds, megabytes = np.array(memory).T
    late = seconds >= seconds[-1] / 2
    slope = float(np.polyfit(seconds[late] / 3600, megabytes[late], 1)[0])
    failed = sum(count for status, count in statuses.items() if status >= 400)
    outcome = {
        "minutes": arguments.minutes,
        "requests": sum(statuses.values()),
        "failed": failed,
        "stack_traces": traces,
        "memory_at_half_time_megabytes": round(float(megabytes[late][:12].mean()), 1),
        "memory_at_the_end_megabytes": round(float(megabytes[-12:].mean()), 1),
        "slope_megabytes_an_hour": round(slope, 2),
        "by_status": {str(status): count for status, count in sorted(statuses.items())},
        "memory": [[round(when, 1), round(one, 1)] for when, one in memory],
    }
    is_flat = slope <= MOST_GROWTH * float(megabytes[-1])
    finish(__file__, arguments.out, outcome, is_flat and not failed and not traces)


async def soaked(server: LiveServer, seconds: float, rate: float) -> tuple[Counter[int], list[tuple[float, float]]]:
    """Statuses, and (seconds, megabytes) of every look."""
    statuses: Counter[int] = Counter()
    memory: list[tuple[float, float]] = []
    begin = time.monotonic()
    async with httpx.AsyncClient(base_url=server.address, timeout=30) as client:
        workers = [
            one_client(client, number, begin + seconds, rate / CONNECTIONS, statuses) for number in range(CONNECTIONS)
        ]
        running = asyncio.gather(*workers)
        while not running.done():
            memory.append((time.monotonic() - begin, server.memory_megabytes()))
            if len(memory) % 60 == 0:
                print(f"{memory[-1][0] / 60:.0f} minutes: {memory[-1][1]:.1f} MB, {dict(statuses)}", flush=True)
            await asyncio.wait([running], timeout=LOOK_SECONDS)
        await running
    return statuses, memory


async def one_client(client: httpx.AsyncClient, number: int, end: float, rate: float, statuses: Counter[int]) -> None:
    """Requests at a rate, until the end; one that is late is not made up for."""
    chance = random.Random(number)
    sent = 0
    while (now := time.monotonic()) < end:
        method, path, body = some_request(chance, f"{number}-{sent}")
        response = await client.request(method, path, json=body)
        # A user whom nobody has heard of is no failure.
        statuses[200 if response.status_code == 404 and path.startswith("/v1/users/") else response.status_code] += 1
        sent += 1
        await asyncio.sleep(max(0.0, now + 1 / rate - time.monotonic()))


def some_request(chance: random.Random, name: str) -> tuple[str, str, Any]:
    user, item = f"u{chance.randrange(NUM_USERS)}", f"i{chance.randrange(NUM_ITEMS)}"
    which = chance.random()
    if which < 0.5:
        return "POST", "/v1/recommend", {"user_id": user, "k": 10}
    if which < 0.7:
        return (
            "POST",
            "/v1/recommend",
            {"history": [f"i{chance.randrange(NUM_ITEMS)}" for _ in range(20)], "because": False},
        )
    if which < 0.9:
        event = {"event_id": name, "user_id": user, "item_id": item, "timestamp": time.time()}
        return "POST", "/v1/events", {"events": [event]}
    if which < 0.99:
        return "GET", f"/v1/users/{user}", None
    return "DELETE", f"/v1/users/{user}", None


if __name__ == "__main__":
    main()
