"""Clients that send a byte now and then: the others do not notice, and the slow ones are sent away in time.

    python benchmarks/faults/slow_client.py [--clients 200] [--seconds 20] [--folder .peers]

Half of the slow clients trickle the head of a request, half its body. Meanwhile a plain client asks; its slowest
answer is compared with its slowest before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from pathlib import Path

from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from load import answer, encoded  # noqa: E402
from process import live_server, model_of  # noqa: E402

NUM_ITEMS, BODY_SECONDS = 300, 3.0
BODY = {"history": ["i1", "i2"], "k": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    model = model_of(arguments.folder / "serving", NUM_ITEMS)
    with live_server(model, ["--no-log-requests", "--body-seconds", str(BODY_SECONDS)]) as server:
        outcome = asyncio.run(beset(server.port, arguments.clients, arguments.seconds))
        outcome["stack_traces"] = server.errors().count("Traceback")
    is_good = (
        outcome["still_connected"] == 0
        and outcome["plain_failures"] == 0
        and outcome["stack_traces"] == 0
        and outcome["plain_median_ms"] < 5 * outcome["plain_median_ms_before"] + 20
    )
    finish(__file__, arguments.out, outcome, bool(is_good))


async def beset(port: int, num_clients: int, seconds: float) -> dict[str, float]:
    """What a plain client meets before and meanwhile, and what becomes of the slow ones."""
    before, failures_before = await plain(port, 3.0)
    slow = [asyncio.create_task(trickle(port, number % 2 == 0, seconds + 30)) for number in range(num_clients)]
    meanwhile, failures = await plain(port, seconds)
    done = await asyncio.gather(*slow)
    ends = [after for after in done if after is not None]
    return {
        "slow_clients": num_clients,
        "sent_away": len(ends),
        "still_connected": num_clients - len(ends),
        "longest_seconds_of_a_slow_client": round(max(ends, default=float("nan")), 1),
        "plain_requests": len(meanwhile),
        "plain_failures": failures + failures_before,
        "plain_median_ms_before": round(sorted(before)[len(before) // 2], 2),
        "plain_median_ms": round(sorted(meanwhile)[len(meanwhile) // 2], 2),
        "plain_worst_ms": round(max(meanwhile), 2),
    }


async def plain(port: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each answer, and how many were none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request, took, failures = encoded("/v1/recommend", BODY, port), [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        writer.write(request)
        failures += await answer(reader) != 200
        took.append(1000 * (time.monotonic() - begin))
        await asyncio.sleep(0.01)
    writer.close()
    return took, failures


async def trickle(port: int, of_head: bool, most_seconds: float) -> float | None:
    """After how many seconds the server closed a connection on which a byte comes every quarter of a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = encoded("/v1/recommend", BODY, port)
    head = request.index(b"\r\n\r\n") + 4
    begin = time.monotonic()
    closed = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        if not of_head:
            writer.write(request[:head])
        rest = request[:head] if of_head else request[head:]
        for place in range(len(rest) - 1):
            if closed.done() or time.monotonic() - begin > most_seconds:
                break
            writer.write(rest[place : place + 1])
            await asyncio.wait([closed], timeout=0.25)
    with contextlib.suppress(ConnectionError, TimeoutError):
        await asyncio.wait_for(closed, max(0.1, begin + most_seconds - time.monotonic()))
        return time.monotonic() - begin
    return None if not closed.done() or closed.cancelled() else time.monotonic() - begin


if __name__ == "__main__":
    main()
