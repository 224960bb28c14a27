"""A server that stops answers what it has accepted; one that cannot start gives one message."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.serving.load import load
from tests.serving.raw_http import head, read_all, status_of
from tests.serving.server_process import LocalServer, event, serving, serving_here
from tests.terminal.invoke import refuse
from variseq.serving.server import accepted_at_the_end
from variseq.serving.stores.sqlite import SqliteStore

REQUEST = {"history": ["i00", "i01"], "k": 5}


def test_stop_of_one_process_under_load_loses_no_request(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, shutdown_grace_seconds=0.3) as server, load(server.address, 12, REQUEST) as found:
        found.wait_for(15)
        server.stop()
        found.wait_for_end()
    assert found.failed == []
    assert found.num_refused == 12


def test_stop_of_workers_under_load_loses_no_request(bundle_folder: Path, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--shutdown-grace-seconds", "0.3")
    with serving(tmp_path, bundle_folder, *flags) as server, load(server.address, 12, REQUEST) as found:
        found.wait_for(15)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert found.failed == []
    assert found.num_refused == 12


def test_interrupt_without_load_ends_with_0(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle_folder) as server:
        server.recommend(**REQUEST)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert [one["level"] for one in server.log()] == ["info"], "no trace, and no library reports what it has left"


def test_draining_server_is_not_ready_and_closes_connections_after_their_answer(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, shutdown_grace_seconds=1) as server:
        assert server.client.get("/ready").status_code == 200
        server.stop()
        response = server.client.get("/ready")
        assert response.status_code == 503
        assert "stopping" in response.json()["error"]["message"]
        assert response.headers["connection"] == "close"
        assert server.recommend(**REQUEST)["recommendations"]


def test_connections_that_wait_are_accepted_and_not_reset_when_listening_ends() -> None:
    """The system takes connections before the server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        waiting = [socket.create_connection(address, timeout=10) for _ in range(3)]
        accepted = accepted_at_the_end([listener])
    assert len(accepted) == 3
    for one in accepted:
        one.sendall(b"answer")
        one.close()
    assert [one.recv(10) for one in waiting] == [b"answer"] * 3
    for one in waiting:
        one.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)


def test_connections_until_listening_ends_are_answered(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, shutdown_grace_seconds=0.3) as server:
        server.stop()
        *before, last = answers_until_refused(server)
    assert before
    assert set(before) == {200}
    assert last in (200, None)  # one that is made while the socket closes may be reset


def answers_until_refused(server: LocalServer) -> list[int | None]:
    """The statuses of requests one after the other; None for a connection that was reset."""
    answers: list[int | None] = []
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        except ConnectionRefusedError:
            break
        with connection:
            try:
                connection.sendall(head("GET", "/health"))
                answer = read_all(connection)
            except (ConnectionResetError, BrokenPipeError):
                answer = b""
            answers.append(status_of(answer) if answer else None)
    return answers


def test_acknowledged_event_is_there_after_a_kill(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle_folder) as server:
        server.add(event("kill-1", "killed", "i00"))
        server.process.kill()
        server.process.wait(10)
    store = SqliteStore(tmp_path / "events.db")
    assert [one.event_id for one in store.history("killed")] == ["kill-1"]
    store.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "99999"], "port=99999"),
        (["--workers", "0"], "workers=0"),
        (["--workers", "2", "--store", "memory://"], "cannot share the store memory"),
        (["--keys", "missing.yaml"], "cannot be read"),
        (["--config", "missing.yaml"], "cannot be read"),
        (["--import-histories", "maybe"], "import_histories"),
        *((["--host", host], "Without keys") for host in ("0.0.0.0", "::", "192.0.2.1", "example.org")),
        (["--store", "mysql://x"], "There is no store"),
        (["--model-dir", "missing"], "does not exist"),
        (["--audit-log", "missing/audit.jsonl"], "cannot be written"),
    ],
)
def test_server_that_cannot_start_is_one_message(bundle_folder: Path, flags: list[str], words: str) -> None:
    refuse(words, "serve", bundle_folder, "--port", "0", *flags)


def test_port_that_is_taken_is_one_message(server: LocalServer, bundle_folder: Path) -> None:
    refuse(f"port {server.port}", "serve", bundle_folder, "--port", server.port, "--store", "memory://")
