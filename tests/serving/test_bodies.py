"""Bodies and heads that are too large, too slow, too deep or of the wrong kind are refused, and cost nothing."""

from __future__ import annotations

import socket
import time

import pytest

from tests.serving.raw_http import answer_to, head, read_all, status_of
from tests.serving.server_process import LocalServer, event
from variseq.serving.server import HEAD_BYTES

JSON = "Content-Type: application/json"
KIB = 1024


@pytest.mark.parametrize(("path", "kib"), [("/v1/recommend", 512), ("/v1/events", 512), ("/v1/admin/model", 64)])
def test_larger_body_than_its_route_takes_is_refused_by_its_announced_length(
    server: LocalServer, path: str, kib: int
) -> None:
    padded = b"{" + b" " * (kib * KIB) + b"}"
    response = server.client.post(path, content=padded, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


def test_body_of_512_kib_is_taken(server: LocalServer) -> None:
    padded = b'{"history":[]' + b" " * (512 * KIB - 14) + b"}"
    response = server.client.post("/v1/recommend", content=padded, headers={"content-type": "application/json"})
    assert response.status_code == 200


def test_body_without_a_length_is_counted_as_it_is_received(server: LocalServer) -> None:
    """The chunked bodies of CVE-2025-23310: no announced length, no end."""
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    parts = [head("POST", "/v1/recommend", JSON, "Transfer-Encoding: chunked"), *[chunk] * 200]
    answer = answer_to(server.port, parts)
    assert status_of(answer) == 413
    assert b"connection: close" in answer


def test_events_may_be_512_kib_and_no_more(server: LocalServer) -> None:
    events = [event(f"large-{number}", "large", "i00", number, event="v" * 200) for number in range(1000)]
    response = server.client.post("/v1/events", json={"events": events})
    assert len(response.request.content) > 64 * KIB
    assert response.status_code == 200
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = answer_to(server.port, [head("POST", "/v1/events", JSON, "Transfer-Encoding: chunked"), *[chunk] * 9])
    assert status_of(answer) == 413


def test_slow_body_is_given_up(server: LocalServer) -> None:
    parts = [head("POST", "/v1/recommend", JSON, "Content-Length: 100"), *[b" "] * 12]
    answer = answer_to(server.port, parts, pause_seconds=0.1)
    assert status_of(answer) == 408
    assert b"body_timeout" in answer


def test_slow_head_is_given_up(server: LocalServer) -> None:
    """The server waits half a second here for the whole head, however many bytes trickle in."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for number in range(150):
            try:
                connection.sendall(b"GET /health HTTP/1.1\r\n" if number == 0 else b"x-a: b\r\n")
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the connection was never ended")


def test_head_of_more_than_32_kib_ends_the_connection(server: LocalServer) -> None:
    line = b"x-long: " + b"a" * 4096
    answer = answer_to(
        server.port, [b"GET /health HTTP/1.1\r\nHost: localhost\r\n", *[line] * (HEAD_BYTES // 4096 + 20)]
    )
    assert answer == b""
    assert server.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        *({"content-type": kind} for kind in ("text/plain", "application/x-www-form-urlencoded", "")),
        {"content-type": "multipart/form-data"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_only_json_is_read_and_nothing_compressed(server: LocalServer, headers: dict[str, str]) -> None:
    """No form, no multipart, no pickle by content type: CVE-2024-9056, CVE-2024-47874, CVE-2025-27520."""
    assert server.client.post("/v1/recommend", content=b'{"history":[]}', headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nul", b"[]", b'"text"', b"{}x", b"\xff\xfe", b'{"history":[1e999]}', b'{"history":["\\ud800"]}',
        b'{"history":[NaN]}', b'{"history":' + b"[" * 30_000, b'{"x":' * 10_000, b'{"k":' + b"9" * 4000 + b"}",
    ],
)  # fmt: skip
def test_broken_json_and_depth_bombs_are_one_clear_error(server: LocalServer, body: bytes) -> None:
    response = server.client.post("/v1/recommend", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"code", "message", "request_id"}


def test_body_where_none_is_taken_is_refused(server: LocalServer) -> None:
    for method in ("GET", "DELETE"):
        answer = answer_to(server.port, [head(method, "/v1/users/nobody", JSON, "Content-Length: 2"), b"{}"])
        assert status_of(answer) == 400


def test_large_upload_still_gets_its_answer(server: LocalServer) -> None:
    """A connection closed with unread data would be reset, and the answer lost."""
    for _ in range(5):
        parts = [head("POST", "/v1/recommend", JSON, f"Content-Length: {2 << 20}"), *[b" " * (1 << 16)] * 32]
        assert status_of(answer_to(server.port, parts)) == 413


def test_no_request_is_smuggled_by_two_lengths(server: LocalServer) -> None:
    both = head("POST", "/v1/recommend", JSON, "Content-Length: 4", "Transfer-Encoding: chunked")
    assert status_of(answer_to(server.port, [both + b"0\r\n\r\nGET /health HTTP/1.1\r\n\r\n"])) == 400
    twice = head("POST", "/v1/recommend", JSON, "Content-Length: 2", "Content-Length: 4")
    assert status_of(answer_to(server.port, [twice + b"{}"])) == 400


def test_pipelined_requests_are_answered_in_order(server: LocalServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            head("GET", "/health", "X-Request-Id: first")
            + head("GET", "/health", "X-Request-Id: second", "Connection: close")
        )
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.index(b"first") < received.index(b"second")
    assert received.count(b"200 OK") == 2


def test_many_idle_connections_do_not_keep_others_out(server: LocalServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    try:
        assert server.client.get("/health").status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_client_that_goes_away_leaves_the_server_well(server: LocalServer) -> None:
    for part in (b"GET /hea", head("POST", "/v1/recommend", JSON, "Content-Length: 50") + b'{"his'):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(part)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head("GET", "/health"))
        assert status_of(read_all(connection)) == 200
