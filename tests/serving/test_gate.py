"""What nobody foresaw is a 500 without internals; the log has where it came from, but not its words."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from variseq.serving.auth import AuditLog, AuthMiddleware, AuthState
from variseq.serving.http import RequestContext
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.telemetry import JsonHandler, LogWriter


class Notes:
    """Takes note of what the middleware records."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.store_errors = 0

    def record(self, context: RequestContext, method: str, seconds: float) -> None:
        self.requests.append((context.template, context.status))

    def store_failed(self, error: StoreUnavailable) -> None:
        self.store_errors += 1


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("the secret user u42 in /srv/secret/file")


async def without_store(scope: Scope, receive: Receive, send: Send) -> None:
    raise StoreUnavailable("The store /srv/secret/file is locked.")


def answer_of(inside: ASGIApp, notes: Notes) -> httpx.Response:
    async def ask() -> httpx.Response:
        middleware = AuthMiddleware(inside, AuthState(None, None, AuditLog(None)), [], notes)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://localhost") as client:
            return await client.get("/x", headers={"x-request-id": "odd-1"})

    return asyncio.run(ask())


def test_unexpected_error_is_500_without_internals_and_the_log_has_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = LogWriter()
    handler = JsonHandler(lines)
    logging.getLogger("variseq.serving").addHandler(handler)
    notes = Notes()
    try:
        response = answer_of(broken, notes)
    finally:
        logging.getLogger("variseq.serving").removeHandler(handler)
        lines.close()
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]["request_id"] == "odd-1"
    assert notes.requests == [("unmatched", 500)]
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["request_id"] == "odd-1"
    assert Path(__file__).name in line["trace"]
    assert "KeyError" in line["trace"]
    assert "u42" not in line["trace"].replace('raise KeyError("the secret user u42 in /srv/secret/file")', "")


def test_store_that_fails_is_503_without_its_place_and_is_counted() -> None:
    notes = Notes()
    response = answer_of(without_store, notes)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "secret" not in response.text
    assert notes.store_errors == 1


def test_log_that_nobody_reads_drops_lines_and_holds_no_more() -> None:
    lines = LogWriter()
    lines.close()  # From here on nothing is written.
    for number in range(30_000):
        lines.put(f"{number}\n")
    assert lines._queue.qsize() <= 20_000
    assert lines._num_dropped >= 10_000
