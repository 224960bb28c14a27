"""Load test of `variseq serve`: requests a second and latencies by connections, memory and size by catalog.

    python -m benchmarks.serving load --items 100000 --seconds 8 --rounds 3
    python -m benchmarks.serving sizes --items 1000 10000 100000
    python -m benchmarks.serving load --model EXPORT         # a model of your own
    python -m benchmarks.serving cpu --items 1000 10000 100000

The server runs on core 0, the client on core 1. The limit (`recommend` of the same model in a loop in one process, on
core 0, without HTTP and store) is measured before and after each round. Without --model, a model of width 64 is fitted
for one epoch on simulated events of so many items; to answer costs the same as with a trained one. `cpu` counts the CPU
seconds of the server, which other work on the machine hardly changes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from measurement.records import (
    ONE_THREAD,
    ROOT,
    append_records,
    child,
    command_parser,
    cpu_seconds_of,
    exit_code,
    peak_megabytes,
    record_of,
)

CONNECTIONS = (1, 16, 64)
SERVER_CORE, CLIENT_CORE = 0, 1
NUM_USERS, NUM_EVENTS = 512, 50
FIRST_USER = 1_000_000_000
"""Users that no model knows."""
START_SECONDS = 120
CLI = "from variseq.cli import main; main()"
HOST = "127.0.0.1"
Row = dict[str, Any]


def model_of(num_items: int, folder: Path) -> Path:
    """An exported model with so many items, made the first time."""
    run, export = folder / f"run-{num_items}", folder / f"export-{num_items}"
    if not run.exists():
        import pyarrow as pa

        from variseq import ReadOptions, VariationalAttention, read

        # Users of 16 events; each item is among the first eight of one, so that it has training events.
        generator = np.random.default_rng(0)
        each, often = generator.permutation(num_items), generator.zipf(1.3, num_items) % num_items
        item = np.concatenate([part[: num_items // 8 * 8].reshape(-1, 8) for part in (each, often)], axis=1).ravel()
        columns = {"user": np.arange(len(item)) // 16, "item": item, "timestamp": np.arange(len(item)) + 1_600_000_000}
        log = read(pa.table(columns), options=ReadOptions(time_unit="seconds"))
        train, valid, _ = log.split("leave-one-out")
        training = {"max_epochs": 1, "batch_tokens": 16_384, "refit_fraction": 0.0, "validation_users": 100}
        model = VariationalAttention("small", 0, "cpu", {"max_seq_len": 200}, training)
        model.fit(train, valid, run, verbose=0)
    if not export.exists():
        subprocess.run([sys.executable, "-c", CLI, "export", str(run), "--out", str(export)], check=True, cwd=ROOT)
    return export


@contextmanager
def server(
    model: Path, core: int | None = SERVER_CORE, start_seconds: float = START_SECONDS, options: Sequence[str] = ()
) -> Iterator[int]:
    """`variseq serve` with one thread and an SQLite store, on a core of its own unless `core` is None; its port.

    More options may name another store.
    """
    with server_process(model, core, start_seconds, options) as (port, _):
        yield port


@contextmanager
def server_process(
    model: Path, core: int | None, start_seconds: float = START_SECONDS, options: Sequence[str] = ()
) -> Iterator[tuple[int, int]]:
    """`server`; its port and the number of its process."""
    pinned = ["taskset", "-c", str(core)] if core is not None and sys.platform == "linux" else []
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+") as errors:
        words = ["serve", str(model.resolve()), "--port", "0", "--store", f"sqlite:///{folder}/events.db"]
        process = subprocess.Popen(
            [*pinned, sys.executable, "-c", CLI, *words, "--no-log-requests", *options],
            stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        timer = threading.Timer(start_seconds, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            address = next((line.split(" at ")[1].split()[0] for line in process.stdout if " at http://" in line), None)
            timer.cancel()
            if address is None:
                errors.seek(0)
                raise RuntimeError(f"the server did not start: {errors.read()[-2000:]}")
            yield int(address.rstrip("/").rsplit(":", 1)[1]), process.pid
        finally:
            timer.cancel()
            process.terminate()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


def histories(items: Sequence[Any]) -> list[list[Any]]:
    """Random histories of 50 events, the same in every process."""
    chosen = np.random.default_rng(7).integers(0, len(items), (NUM_USERS, NUM_EVENTS))
    return [[items[item] for item in row] for row in chosen.tolist()]


def item_ids(model: Path) -> list[Any]:
    """The ids of `model_of`'s items that it knows, from the run beside the export."""
    from variseq import load

    vocabulary = load(model.with_name(model.name.replace("export-", "run-"))).vocabulary
    return vocabulary.item_ids(range(vocabulary.num_items))


def limit(run: Path, seconds: float) -> Row:
    """Calls of `recommend` for one history in a loop: requests a second, median milliseconds, memory."""
    from variseq import load

    model = load(run, device="cpu")
    vocabulary = model.vocabulary
    given = itertools.cycle(histories(vocabulary.item_ids(range(vocabulary.num_items))))
    model.recommend(history=next(given), k=10)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        model.recommend(history=next(given), k=10)
        taken.append(time.perf_counter() - begun)
    return _latencies(taken, sum(taken)) | {"peak_megabytes": peak_megabytes()}


def _latencies(taken: list[float], seconds: float) -> Row:
    p50, p99 = (1e3 * float(np.quantile(taken, share)) for share in (0.5, 0.99))
    return {"requests_per_second": len(taken) / seconds, "p50_ms": p50, "p99_ms": p99}


async def load(port: int, connections: int, seconds: float, bodies: Sequence[bytes]) -> Row:
    """Connections that each send one request after the other: requests a second, latencies, share of failures."""
    turns = itertools.cycle(bodies)
    taken: list[float] = []
    statuses: Counter[int] = Counter()
    end = time.perf_counter() + seconds

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        while time.perf_counter() < end:
            begun = time.perf_counter()
            writer.write(next(turns))
            statuses[await _status(reader)] += 1
            taken.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    row = _latencies(taken, time.perf_counter() - begun)
    return row | {"requests": len(taken), "failed": sum(count for status, count in statuses.items() if status != 200)}


async def _status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length")), 0)
    await reader.readexactly(length)
    return int(head[0].split()[1])


def request(path: str, body: Any, port: int) -> bytes:
    """A whole POST request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def fill(port: int, items: Sequence[Any]) -> None:
    """Fifty events of each user into the store of the server."""
    for user, history in enumerate(histories(items)):
        events = [
            {"user_id": FIRST_USER + user, "event_id": f"{user}-{n}", "item_id": item, "timestamp": 1.7e9 + n}
            for n, item in enumerate(history)
        ]
        message = urllib.request.Request(
            f"http://{HOST}:{port}/v1/events",
            json.dumps({"events": events}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(message, timeout=60).close()


def measure_load(model: Path, num_items: int, seconds: float, rounds: int, out: Path) -> None:
    """A record for each round and number of connections, and for the limit before and after each round."""
    items, run = item_ids(model), model.with_name(model.name.replace("export-", "run-"))
    pinned = [str(run), str(seconds / 2)]
    for number in range(rounds):
        for moment in ("before", "after"):
            metrics = child("benchmarks.serving", "limit", *pinned, variables=ONE_THREAD)
            _append(out, {"items": num_items, "system": "limit", "connections": 0}, metrics, number)
            if moment == "before":
                with server(model) as port:
                    fill(port, items)
                    for connections in CONNECTIONS:
                        words = ("client", str(port), str(connections), str(seconds))
                        metrics = child("benchmarks.serving", *words)
                        case = {"items": num_items, "system": "variseq serve", "connections": connections}
                        _append(out, case, metrics, number)


def _append(out: Path, case: Row, metrics: Row, number: int) -> None:
    settings = {"events_of_a_history": NUM_EVENTS, "round": number}
    append_records(out, [record_of("serving", case, metrics, seed=number, settings=settings, threads=1)])
    print(f"{case}: {metrics['requests_per_second']:,.1f} requests/s, p50 {metrics['p50_ms']:.2f} ms", flush=True)


def measure_sizes(sizes: Sequence[int], folder: Path, out: Path) -> None:
    """A record for each size of catalog: the exported folder, the memory of a process that answers, one call."""
    for num_items in sizes:
        model = model_of(num_items, folder)
        metrics = child("benchmarks.serving", "limit", str(folder / f"run-{num_items}"), "3", variables=ONE_THREAD)
        metrics["folder_megabytes"] = sum(path.stat().st_size for path in model.rglob("*")) / 1e6
        append_records(out, [record_of("serving_sizes", {"items": num_items}, metrics, seed=0, threads=1)])
        print(f"{num_items:,} items: {metrics['peak_megabytes']:.0f} MB, {metrics['p50_ms']:.2f} ms a call", flush=True)


def measure_cpu(sizes: Sequence[int], folder: Path, seconds: float, out: Path) -> None:
    """A record for each size of catalog and kind of request: CPU milliseconds of the server a request, its memory."""
    users = np.random.default_rng(1).permutation(NUM_USERS).tolist()
    for num_items in sizes:
        model = model_of(num_items, folder)
        items = item_ids(model)
        with server_process(model, None) as (port, process):
            fill(port, items)
            asked = [{"user_id": FIRST_USER + user, "k": 10} for user in users]
            taken_in = [
                {"events": [{"user_id": FIRST_USER + n % 100_000, "event_id": f"e{n}", "item_id": items[n % len(items)],
                             "timestamp": 1.71e9 + n}]}
                for n in range(100_000)
            ]  # fmt: skip
            for name, path, bodies in (
                ("list with reasons", "/v1/recommend", asked),
                ("list without reasons", "/v1/recommend", [{**one, "reasons": False} for one in asked]),
                ("one event", "/v1/events", taken_in),
            ):
                requests = [request(path, body, port) for body in bodies]
                for connections in (1, 16):
                    begun = cpu_seconds_of(process)
                    metrics = asyncio.run(load(port, connections, seconds, requests))
                    metrics["cpu_milliseconds"] = 1e3 * (cpu_seconds_of(process) - begun) / metrics["requests"]
                    metrics["peak_megabytes"] = peak_megabytes(process)
                    case = {"items": num_items, "request": name, "connections": connections}
                    append_records(out, [record_of("serving_cpu", case, metrics, seed=0, threads=1)])
                    print(f"{case}: {metrics['cpu_milliseconds']:.2f} CPU ms, {metrics['peak_megabytes']:.0f} MB")


def client(port: int, connections: int, seconds: float) -> Row:
    """The load of one process that asks for the users that `fill` has written."""
    _pin(CLIENT_CORE)
    users = np.random.default_rng(1).permutation(NUM_USERS).tolist()
    bodies = [request("/v1/recommend", {"user_id": FIRST_USER + user, "k": 10}, port) for user in users]
    asyncio.run(load(port, min(connections, 16), 1.0, bodies))
    return asyncio.run(load(port, connections, seconds, bodies))


def _pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "serving")
    parser.add_argument("what", choices=("load", "sizes", "cpu", "limit", "client"))
    parser.add_argument("arguments", nargs="*", help="of limit and client, which run in processes of their own")
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--model", type=Path, help="an export; the run folder has the same name with run- for export-")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / ".competitors" / "serving", help="for models")
    given = parser.parse_args(words)
    if given.what == "limit":
        _pin(SERVER_CORE)
        print(json.dumps(limit(Path(given.arguments[0]), float(given.arguments[1]))))
    elif given.what == "client":
        print(json.dumps(client(int(given.arguments[0]), int(given.arguments[1]), float(given.arguments[2]))))
    elif given.what == "cpu":
        return exit_code(lambda: measure_cpu(given.items, given.folder, given.seconds, given.out))
    elif given.what == "sizes":
        return exit_code(lambda: measure_sizes(given.items, given.folder, given.out))
    else:
        return exit_code(
            lambda: measure_load(
                given.model or model_of(given.items[0], given.folder), given.items[0], given.seconds, given.rounds,
                given.out,
            )
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
