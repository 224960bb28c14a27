"""The server on one core, its client on another: requests a second and latencies beside the limit, and beside a peer.

    python benchmarks/serving/server_speed.py [--items 100000] [--seconds 8] [--rounds 3] [--peer] [--folder FOLDER]

The limit (the bare model and its top k in a loop, on the core of the server) is measured before and after each round,
so that what else the machine does falls on both. Writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
from limit import some_items  # noqa: E402
from process import live_server, model_of, on_core, run_of  # noqa: E402
from provenance import provenance  # noqa: E402
from record_file import write_record  # noqa: E402

from variseq.inference.engine import Engine  # noqa: E402

SERVER_CORE, CLIENT_CORE = 0, 1
CONNECTIONS = (1, 16, 64)
NUM_USERS = 512
TORCH_PEER = "litserve with torch"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="also the same model behind LitServe, in two ways")
    parser.add_argument("--folder", type=Path, default=ROOT / ".peers" / "serving")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "serving.json")
    arguments = parser.parse_args()
    model = model_of(arguments.folder, arguments.items)
    rows: list[Row] = []
    for number in range(arguments.rounds):
        for because in (True, False):
            rows += one_round(model, number, because, arguments.seconds)
        if arguments.peer:
            rows += peer_round(model, number, arguments)
        write(arguments.out, arguments.items, rows)
    print(json.dumps(summary(rows), indent=2))


def one_round(model: Path, number: int, because: bool, seconds: float) -> list[Row]:
    """Rows of the limit, of the server at each number of connections, and of the limit again."""
    about = {"round": number, "because": because}
    rows = [about | {"system": "limit"} | one for one in limits(model, because, seconds / 2)]
    with filled_server(model) as port:
        requests = [
            {"path": "/v1/recommend", "body": {"user_id": f"u{u}", "k": 10, "because": because}} for u in users()
        ]
        load(port, 16, 2.0, requests)
        for connections in CONNECTIONS:
            rows.append(about | {"system": "variseq serve"} | load(port, connections, seconds, requests))
            print(json.dumps(rows[-1]), flush=True)
    return rows + [about | {"system": "limit"} | one for one in limits(model, because, seconds / 2)]


def peer_round(model: Path, number: int, arguments: argparse.Namespace) -> list[Row]:
    """Rows of the engine and of the torch model behind LitServe; histories are sent along, since it keeps none."""
    from litserve_peer import litserve

    engine = Engine.load(model)
    run = run_of(arguments.folder, arguments.items)
    rows = []
    # The torch model's `recommend` always gives reasons.
    ways = (("litserve", "engine", model, True), ("litserve", "engine", model, False), (TORCH_PEER, "torch", run, True))
    for system, way, served, because in ways:
        requests = [{"path": "/predict", "body": {"history": h, "because": because}} for h in some_items(engine, 64)]
        with litserve(served, arguments.folder, SERVER_CORE, way) as port:
            load(port, 16, 2.0, requests)
            for connections in CONNECTIONS:
                found = load(port, connections, arguments.seconds, requests)
                rows.append({"round": number, "because": because, "system": system} | found)
                print(json.dumps(rows[-1]), flush=True)
    return rows


def users() -> Sequence[int]:
    return np.random.default_rng(1).permutation(NUM_USERS).tolist()


def limits(model: Path, because: bool, seconds: float) -> list[Row]:
    """One call at a time, and sixteen histories a call."""
    flags = [] if because else ["--no-because"]
    return [
        json.loads(on_core(SERVER_CORE, [str(HERE / "limit.py"), str(model), str(at_once), str(seconds), *flags]))
        for at_once in (1, 16)
    ]


def load(port: int, connections: int, seconds: float, requests: list[Row]) -> Row:
    given = "".join(json.dumps(one) + "\n" for one in requests)
    found: Row = json.loads(
        on_core(CLIENT_CORE, [str(HERE / "load.py"), str(port), str(connections), str(seconds)], given)
    )
    return found


@contextmanager
def filled_server(model: Path) -> Iterator[int]:
    """`variseq serve` on its core, with 50 events of each of the users in its store; its port."""
    histories = some_items(Engine.load(model))
    with live_server(model, ["--no-log-requests"], SERVER_CORE) as server:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            for user, items in enumerate(histories):
                who = {"user_id": f"u{user}"}
                events = [
                    who | {"event_id": f"{user}-{place}", "item_id": item, "timestamp": 1.7e9 + place}
                    for place, item in enumerate(items)
                ]
                client.post("/v1/events", json={"events": events}).raise_for_status()
        yield server.port


def summary(rows: list[Row]) -> Row:
    """The medians over rounds that the targets are about."""
    found: Row = {}
    for because in (True, False):
        mine = [row for row in rows if row["because"] == because]
        bare = [row for row in mine if row["system"] == "limit" and row["at_once"] == 1]
        limit = float(np.median([row["calls_per_second"] for row in bare]))
        bare_p50 = float(np.median([row["p50_ms"] for row in bare]))
        of_system: Row = {"limit_calls_per_second": limit, "limit_p50_ms": bare_p50}
        for system in sorted({row["system"] for row in mine} - {"limit"}):
            for connections in CONNECTIONS:
                chosen = [row for row in mine if row["system"] == system and row["connections"] == connections]
                middle = {
                    name: float(np.median([row[name] for row in chosen]))
                    for name in ("requests_per_second", "p50_ms", "p99_ms")
                }
                middle["share_of_limit"] = round(middle["requests_per_second"] / limit, 3)
                middle["p99_over_bare_call"] = round(middle["p99_ms"] / bare_p50, 2)
                of_system[f"{system}, {connections}"] = middle
        found["with reasons" if because else "without reasons"] = of_system
    return found


def write(path: Path, num_items: int, rows: list[Row]) -> None:
    facts = {"items": num_items, "events_of_a_history": 50, "hidden_size": 64, "cores_of_server": 1}
    write_record(path, {**provenance(), **facts, "summary": summary(rows), "rows": rows})


if __name__ == "__main__":
    main()
