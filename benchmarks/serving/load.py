"""A bounded client: some connections that each send one request after the other for some seconds, on loopback only.

    python benchmarks/serving/load.py PORT CONNECTIONS SECONDS < requests.jsonl

Each line of the input is {"path": ..., "body": ...}; they are sent in turns. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator

HOST = "127.0.0.1"
MOST_SECONDS = 120


async def main(port: int, connections: int, seconds: float, requests: list[bytes]) -> dict[str, object]:
    """Latencies in milliseconds and counts of statuses."""
    turns = itertools.cycle(requests)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    begin = time.perf_counter()
    end = begin + min(seconds, MOST_SECONDS)
    await asyncio.gather(*(one_connection(port, turns, end, latencies, statuses) for _ in range(connections)))
    took = time.perf_counter() - begin
    latencies.sort()
    return {
        "connections": connections,
        "seconds": round(took, 3),
        "requests": len(latencies),
        "requests_per_second": round(len(latencies) / took, 2),
        "p50_ms": round(quantile(latencies, 0.5), 3),
        "p99_ms": round(quantile(latencies, 0.99), 3),
        "worst_ms": round(latencies[-1], 3) if latencies else None,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
    }


async def one_connection(
    port: int, turns: Iterator[bytes], end: float, latencies: list[float], statuses: Counter[int]
) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    while time.perf_counter() < end:
        begin = time.perf_counter()
        writer.write(next(turns))
        statuses[await answer(reader)] += 1
        latencies.append(1000 * (time.perf_counter() - begin))
    writer.close()


async def answer(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, whose body is read and dropped."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))
    return int(lines[0].split()[1])


def encoded(path: str, body: object, port: int) -> bytes:
    """A whole POST request."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    given_port = int(sys.argv[1])
    given = [json.loads(line) for line in sys.stdin]
    prepared = [encoded(one["path"], one["body"], given_port) for one in given]
    print(json.dumps(asyncio.run(main(given_port, int(sys.argv[2]), float(sys.argv[3]), prepared))))
