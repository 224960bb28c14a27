"""A server under steady load for half an hour: does its memory stay flat, and is every answer an answer?

    python benchmarks/faults/soak.py [--minutes 30] [--rate 200] [--warm-up 100000] [--folder .peers]

Of a hundred requests seventy ask for recommendations (of 3,000 users, and of histories that are sent along), twenty
bring an event, nine look a user up, and one erases one. The store is steady: it begins with 20 events a user, as many
as are there when users are erased at random, so that as many events are erased as come.

First come 100,000 such requests as fast as they are answered, which do not count: then every user has been met, every
thread runs, each cache, all of which are bounded, is full, and the allocator holds what it holds. After that memory is
looked at every five seconds, all of it (RSS) and what is not of a file (anonymous); the slopes are those of straight
lines through all of this part. Memory may grow by two per cent of itself an hour.

How memory follows a store that grows is told apart, from a last part: new users with 300,000 events come, and are
asked for. Memory may grow by two per cent of itself with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from load import answer  # noqa: E402
from process import LiveServer, live_server, model_of  # noqa: E402

NUM_ITEMS, NUM_USERS, CONNECTIONS = 5000, 3000, 8
EVENTS_A_USER, MOST_EVENTS_A_USER, USERS_A_BATCH = 20, 200, 5
FIRST_TIME = 1_700_000_000
LOOK_SECONDS = 5.0
FASTEST = 1e9
MOST_GROWTH = 0.02
"""Memory may grow by this share of itself an hour, and by this share while the store grows by so many events."""
NEW_EVENTS = 300_000
Look = tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--warm-up", type=int, default=100_000, help="requests before memory is looked at")
    parser.add_argument("--new-events", type=int, default=NEW_EVENTS, help="by which the store grows afterwards")
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    model = model_of(arguments.folder / "serving", NUM_ITEMS)
    with live_server(model, ["--no-log-requests", "--cache-megabytes", "1"]) as server:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            filled(client, [f"u{number}" for number in range(NUM_USERS)])
        warm, _ = asyncio.run(soaked(server, FASTEST, num_requests=arguments.warm_up))
        statuses, looks = asyncio.run(soaked(server, arguments.rate, seconds=60 * arguments.minutes))
        before, after = grown(server, arguments.new_events)
        traces = server.errors().count("Traceback")
    failed = sum(count for status, count in (warm + statuses).items() if status >= 400)
    steady = slopes(looks, sum(statuses.values()))
    outcome = {
        "minutes": arguments.minutes,
        "warm_up_requests": sum(warm.values()),
        "requests": sum(statuses.values()),
        "failed": failed,
        "stack_traces": traces,
        **steady,
        "new_events": arguments.new_events,
        "growth_with_new_events_megabytes": round(after - before, 1),
        "by_status": {str(status): count for status, count in sorted(statuses.items())},
        "memory": [[round(one, 1) for one in look] for look in looks],
    }
    most = MOST_GROWTH * looks[-1][1]
    is_flat = max(steady["slope_megabytes_an_hour"], steady["slope_anonymous_megabytes_an_hour"]) <= most
    finish(__file__, arguments.out, outcome, is_flat and after - before <= most and not failed and not traces)


def slopes(looks: list[Look], num_requests: int) -> dict[str, float]:
    """Where memory is at the begin and the end, and how fast it grows."""
    seconds, resident, anonymous = np.array(looks).T
    of_all, of_anonymous = (float(np.polyfit(seconds / 3600, one, 1)[0]) for one in (resident, anonymous))
    requests_an_hour = num_requests / (seconds[-1] / 3600)
    return {
        "memory_at_the_begin_megabytes": round(float(resident[:12].mean()), 1),
        "memory_at_the_end_megabytes": round(float(resident[-12:].mean()), 1),
        "slope_megabytes_an_hour": round(of_all, 2),
        "slope_anonymous_megabytes_an_hour": round(of_anonymous, 2),
        "slope_bytes_a_request": round(of_all * 2**20 / requests_an_hour, 1),
    }


def filled(client: httpx.Client, users: list[str]) -> int:
    """Histories of users as they are when users are erased at random: of any length, 20 events in the mean."""
    chance = random.Random(users[0])
    num_events = 0
    for first in range(0, len(users), USERS_A_BATCH):
        events = [
            {
                "event_id": f"{user}-first-{place}",
                "user_id": user,
                "item_id": f"i{chance.randrange(NUM_ITEMS)}",
                "timestamp": FIRST_TIME + place,
            }
            for user in users[first : first + USERS_A_BATCH]
            for place in range(1 + min(MOST_EVENTS_A_USER - 1, int(chance.expovariate(1 / EVENTS_A_USER))))
        ]
        client.post("/v1/events", json={"events": events}).raise_for_status()
        num_events += len(events)
    return num_events


def grown(server: LiveServer, new_events: int) -> tuple[float, float]:
    """Memory in megabytes before and after new users came, and some of each batch were asked for."""
    before = server.memory().resident
    num_events = number = 0
    with httpx.Client(base_url=server.address, timeout=60) as client:
        while num_events < new_events:
            users = [f"new-{number}-{place}" for place in range(USERS_A_BATCH)]
            num_events += filled(client, users)
            client.post("/v1/recommend", json={"user_id": users[0], "k": 10}).raise_for_status()
            client.get(f"/v1/users/{users[1]}").raise_for_status()
            number += 1
    return before, server.memory().resident


async def soaked(
    server: LiveServer, rate: float, seconds: float = np.inf, num_requests: int = sys.maxsize
) -> tuple[Counter[int], list[Look]]:
    """Statuses, and (seconds, megabytes, megabytes that are not of a file) of every look, until either end."""
    statuses: Counter[int] = Counter()
    looks: list[Look] = []
    begin = time.monotonic()
    names = iter(range(num_requests))
    workers = [
        one_client(server.port, names, begin + seconds, rate / CONNECTIONS, statuses) for _ in range(CONNECTIONS)
    ]
    running = asyncio.gather(*workers)
    while not running.done():
        memory = server.memory()
        looks.append((time.monotonic() - begin, memory.resident, memory.anonymous))
        if len(looks) % 12 == 0:
            print(f"{looks[-1][0] / 60:.0f} minutes: {looks[-1][1]:.1f} MB, {dict(statuses)}", flush=True)
        await asyncio.wait([running], timeout=LOOK_SECONDS)
    await running
    return statuses, looks


async def one_client(port: int, names: Iterator[int], end: float, rate: float, statuses: Counter[int]) -> None:
    """Requests at a rate, until the end or the last name; one that is late is not made up for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for name in names:
        if (now := time.monotonic()) >= end:
            break
        method, path, body = some_request(random.Random(f"{rate} {name}"), f"{rate:g}-{name}")
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        status = await answer(reader)
        # A user whom nobody has heard of is no failure.
        statuses[200 if status == 404 and path.startswith("/v1/users/") else status] += 1
        await asyncio.sleep(max(0.0, now + 1 / rate - time.monotonic()))
    writer.close()


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
