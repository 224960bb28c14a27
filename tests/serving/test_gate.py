"""What nobody foresaw is a 500 without internals; the log has where it came from, but not its words."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.server_process import LocalServer, serving_here
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.telemetry import MAX_WAITING, JsonLog


@pytest.fixture(scope="module")
def broken(bundle_folder: Path) -> Iterator[LocalServer]:
    """A server whose store cannot be used and whose catalog has a mistake."""

    def without_store(user_id: object) -> None:
        raise StoreUnavailable("The store /srv/secret/file is locked.")

    def mistaken(text: str, limit: int) -> None:
        raise KeyError("the secret user u42 in /srv/secret/file")

    with serving_here(bundle_folder) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.application.services.store, "history", without_store)
        patch.setattr(server.application.services.models.engine.catalog, "search", mistaken)
        yield server


def test_unexpected_error_is_500_without_internals_and_the_log_has_its_place(broken: LocalServer) -> None:
    response = broken.client.get("/v1/items", headers={"x-request-id": "odd-1"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]["request_id"] == "odd-1"
    while not (lines := [one for one in broken.log() if "trace" in one]):
        pass
    assert lines[0]["request_id"] == "odd-1"
    assert Path(__file__).name in lines[0]["trace"]
    assert "KeyError" in lines[0]["trace"]
    assert "u42" not in lines[0]["trace"].replace('raise KeyError("the secret user u42 in /srv/secret/file")', "")


def test_store_that_fails_is_503_without_its_place_and_is_counted(broken: LocalServer) -> None:
    response = broken.client.get("/v1/users/ann")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "secret" not in response.text
    assert "variseq_store_errors_total 1.0" in broken.client.get("/metrics").text


class Stuck(io.StringIO):
    """A pipe that nobody reads until it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.is_free = threading.Event()

    def write(self, text: str) -> int:
        self.is_free.wait(30)
        return super().write(text)


def test_log_that_nobody_reads_drops_lines_and_holds_no_more() -> None:
    stream = Stuck()
    log = JsonLog(stream)
    for _ in range(MAX_WAITING + 10_000):
        log.handle(logging.makeLogRecord({"msg": "x"}))
    assert log.lines.qsize() <= MAX_WAITING
    assert log.num_dropped >= 9_999
    stream.is_free.set()
    log.close()
    assert '"dropped":' in stream.getvalue()
