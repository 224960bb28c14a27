"""The server killed (`kill -9`) while shops send it events, started again, and asked for each event it acknowledged.

    python benchmarks/faults/kill_server.py [--times 100] [--clients 8] [--folder .peers]

Everything goes over HTTP: what counts as acknowledged is an answer 200, and what counts as there is what the server
tells of its users after the restart. Each batch that was not answered is sent again, as a client would.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from process import LiveServer, model_of  # noqa: E402

NUM_ITEMS, NUM_USERS, FIRST_TIME = 300, 30, 1_700_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    model = model_of(arguments.folder / "serving", NUM_ITEMS)
    acknowledged: set[str] = set()
    outcome = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        # No history is cut, so that each acknowledged event has to be found.
        flags = ["--store", f"sqlite:///{folder}/events.db?history_limit=1000000", "--no-log-requests"]
        server = LiveServer(model, Path(folder), flags)
        for number in range(arguments.times):
            acknowledged |= killed_under_load(server, number, arguments.clients)
            server = LiveServer(model, Path(folder), flags)
            found = told(server)
            outcome["lost"] += len(acknowledged - set(found))
            outcome["doubled"] += sum(count - 1 for count in found.values())
            if number % 10 == 9:
                print(f"{number + 1} kills: {len(acknowledged):,} acknowledged, {dict(outcome)}", flush=True)
        server.stop()
    record = {"kills": arguments.times, "clients": arguments.clients, "acknowledged": len(acknowledged)}
    is_good = not outcome["lost"] and not outcome["doubled"] and len(acknowledged) > 10 * arguments.times
    finish(__file__, arguments.out, record | {"lost": outcome["lost"], "doubled": outcome["doubled"]}, is_good)


def killed_under_load(server: LiveServer, number: int, num_clients: int) -> set[str]:
    """The ids that were acknowledged before the server was killed at a random moment."""
    found: set[str] = set()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=send, args=(server.address, f"{number}-{client}", found, lock))
        for client in range(num_clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(random.Random(number).uniform(0.2, 1.2))
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    for thread in threads:
        thread.join()
    return found


def send(address: str, name: str, found: set[str], lock: threading.Lock) -> None:
    """Batches until the server is gone; one in five is sent a second time."""
    chance = random.Random(name)
    with httpx.Client(base_url=address, timeout=10) as client:
        for batch in range(1_000_000):
            user = f"u{chance.randrange(NUM_USERS)}"
            events = [
                {
                    "event_id": f"{name}-{batch}-{place}",
                    "user_id": user,
                    "item_id": f"i{chance.randrange(NUM_ITEMS)}",
                    "timestamp": FIRST_TIME + chance.randrange(10**6),
                }
                for place in range(chance.randint(1, 5))
            ]
            try:
                for _ in range(1 + (chance.random() < 0.2)):
                    client.post("/v1/events", json={"events": events}).raise_for_status()
            except httpx.TransportError:
                return
            with lock:
                found.update(str(event["event_id"]) for event in events)


def told(server: LiveServer) -> Counter[str]:
    """How often each event is there, by what the server says; events are told apart by what only one batch has."""
    from variseq.serving.stores.opening import open_store

    store = open_store(f"sqlite:///{server.errors_file.parent}/events.db?history_limit=1000000")
    try:
        ids = Counter(event.event_id for user in store.users("", NUM_USERS) for event in store.history(user))
        with httpx.Client(base_url=server.address, timeout=60) as client:
            served = sum(client.get(f"/v1/users/{user}").json()["num_events"] for user in store.users("", NUM_USERS))
        assert served == sum(ids.values()), "the server tells of other events than its file holds"
        return ids
    finally:
        store.close()


if __name__ == "__main__":
    main()
