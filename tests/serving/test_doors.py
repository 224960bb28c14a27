"""Who is let in: hosts and origins without keys, keys and their roles with them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.raw_http import answer_to, head, status_of
from tests.serving.server_process import COMMAND, ServerProcess, event, serving
from variseq.serving.keys import ROLES, create_key

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
CALLS = [
    ("POST", "/v1/recommend", {"history": []}, "read"),
    ("POST", "/v1/events", {"events": [event("door-1", "door", "i00")]}, "write"),
    ("GET", "/v1/users/door", None, "read"),
    ("GET", "/v1/users", None, "read"),
    ("GET", "/v1/items?search=toys", None, "read"),
    ("GET", "/v1/items/map", None, "read"),
    ("GET", "/v1/items/i00/similar", None, "read"),
    ("GET", "/v1/model", None, "read"),
    ("GET", "/metrics", None, "read"),
    ("GET", "/docs", None, "read"),
    ("GET", "/openapi.json", None, "read"),
    ("GET", "/v1/admin/models", None, "admin"),
    ("POST", "/v1/admin/model", {"model_name": "nothing"}, "admin"),
    ("DELETE", "/v1/users/door", None, "erase"),
]


class Shop:
    """A server with one key for each role."""

    def __init__(self, server: ServerProcess, keys: dict[str, str], folder: Path) -> None:
        self.server, self.keys, self.folder = server, keys, folder

    def bearer(self, role: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[role]}"}

    def audit(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = {role: create_key(folder / "keys.yaml", f"{role}-key", [role]) for role in ROLES}
    with serving(folder, bundle_folder, "--keys", "keys.yaml", "--audit-log", "audit.jsonl") as server:
        yield Shop(server, keys, folder)


@pytest.mark.parametrize(("method", "path", "body", "needed"), CALLS)
def test_each_call_takes_its_role_and_no_other(
    guarded: Shop, method: str, path: str, body: object, needed: str
) -> None:
    content = None if body is None else json.dumps(body)
    kind = {"content-type": "application/json"}
    for role in ROLES:
        headers = kind | guarded.bearer(role)
        status = guarded.server.client.request(method, path, content=content, headers=headers).status_code
        allowed = (200, 404, 409)
        assert (status in allowed) if role == needed else (status == 403), (role, status)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/users/u1", "/nothing", "/", "/health/", "/v1/admin/model"])
def test_without_a_key_nothing_is_answered_whatever_the_method(guarded: Shop, method: str, path: str) -> None:
    """Deny by default for all methods and unknown paths, as in CVE-2026-27482, where DELETE was left out."""
    answer = answer_to(guarded.server.port, [head(method, path, "Connection: close")])
    assert status_of(answer) in (400, 401, 429)


@pytest.mark.parametrize("path", ["/health", "/ready", "/explore"])
def test_open_paths_take_get_and_head_without_a_key_and_nothing_else(guarded: Shop, path: str) -> None:
    assert guarded.server.client.get(path).status_code == 200
    assert guarded.server.client.head(path).status_code == 200
    for method in ("POST", "OPTIONS", "DELETE"):
        assert guarded.server.client.request(method, path).status_code in (401, 429)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer vsk_wrong", "Basic dXNlcjpwYXNz", "Bearer vsk_\xff", "bearer\t", "Bearer a b"],
)
def test_wrong_key_is_refused(guarded: Shop, header: str) -> None:
    parts = [head("GET", "/v1/model", f"Authorization: {header}")]
    assert status_of(answer_to(guarded.server.port, parts)) in (400, 401, 429)


def test_key_is_in_no_file_and_no_log(guarded: Shop) -> None:
    guarded.server.client.get("/v1/model", headers=guarded.bearer("read"))
    guarded.server.client.get("/v1/model?key=" + guarded.keys["read"], headers=guarded.bearer("read"))
    for file in guarded.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(key.encode() in content for key in guarded.keys.values()), file


def test_admin_and_erasure_and_refused_keys_are_on_record_without_the_user(guarded: Shop) -> None:
    client = guarded.server.client
    client.post("/v1/events", json={"events": [event("a-1", "audited-user", "i00")]}, headers=guarded.bearer("write"))
    assert client.delete("/v1/users/audited-user", headers=guarded.bearer("erase")).status_code == 200
    client.get("/v1/admin/models", headers=guarded.bearer("admin"))
    client.delete("/v1/users/audited-user", headers=guarded.bearer("read"))
    records = guarded.audit()
    erased = [one for one in records if one["act"] == "erase user"][-1]
    assert (erased["key"], erased["outcome"]) == ("erase-key", "erased and verified")
    assert len(erased["user"]) == 32
    assert any(one["act"] == "list models" and one["key"] == "admin-key" for one in records)
    assert any(one["outcome"] == "refused" for one in records)
    assert any(one["key"] == "read-key" and one["outcome"] == "refused: no such role" for one in records)
    assert "audited-user" not in (guarded.folder / "audit.jsonl").read_text()
    assert stat.S_IMODE((guarded.folder / "audit.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((guarded.folder / "audit.jsonl.key").stat().st_mode) == 0o600


def test_no_user_id_and_no_query_is_in_the_log(guarded: Shop) -> None:
    client = guarded.server.client
    client.post("/v1/events", json={"events": [event("s-1", "secret-user", "i00")]}, headers=guarded.bearer("write"))
    client.get("/v1/users/secret-user", headers=guarded.bearer("read"))
    client.get("/v1/users?prefix=secret-user", headers=guarded.bearer("read"))
    client.get("/v1/users/secret-user/secret-user", headers=guarded.bearer("read"))
    client.get("/v1/users/secret-user?x=secret-user", headers=guarded.bearer("read"))
    client.get("/health", headers={"x-request-id": "last-one"})
    while not any(one.get("request_id") == "last-one" for one in guarded.server.log()):
        pass
    assert "secret-user" not in guarded.server.errors()
    assert {"route": "/v1/users/{user_id}", "status": 200}.items() <= next(
        one for one in guarded.server.log() if one.get("route") == "/v1/users/{user_id}" and one["status"] == 200
    ).items()
    assert "secret-user" not in client.get("/metrics", headers=guarded.bearer("read")).text


def test_key_taken_out_of_the_file_ends_at_once(bundle_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    first, second = create_key(keys, "first", ["read"]), create_key(keys, "second", ["read"])
    with serving(tmp_path, bundle_folder, "--keys", "keys.yaml") as server:
        bearer = {"authorization": f"Bearer {first}"}
        assert server.client.get("/v1/model", headers=bearer).status_code == 200
        keys.write_text("keys: nonsense")
        while "not read again" not in server.errors():
            assert server.client.get("/v1/model", headers=bearer).status_code == 200
        keys.unlink()
        create_key(keys, "third", ["read"])
        while server.client.get("/v1/model", headers=bearer).status_code != 401:
            pass
        assert server.client.get("/v1/model", headers={"authorization": f"Bearer {second}"}).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:9", 200), ("LOCALHOST", 200), ("evil.example", 403),
        ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("evil@localhost", 403), ("", 403),
        ("10.0.0.1", 403), ("localhost:80:80", 403),
    ],
)  # fmt: skip
def test_without_keys_only_this_machine_is_answered_as_host(server: ServerProcess, host: str, status: int) -> None:
    """A page of another site whose name leads to 127.0.0.1 reaches nothing (DNS rebinding)."""
    assert status_of(answer_to(server.port, [head("GET", "/v1/model", host=host)])) == status


def test_without_keys_a_page_of_another_site_is_refused(server: ServerProcess) -> None:
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:1234", 200)):
        assert server.client.get("/v1/model", headers={"origin": origin}).status_code == status


def test_no_answer_allows_another_site_to_read_it(server: ServerProcess) -> None:
    response = server.client.options(
        "/v1/recommend", headers={"origin": "http://localhost:1", "access-control-request-method": "POST"}
    )
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_listening_beyond_this_machine_without_keys_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        command = [*COMMAND, str(bundle_folder), "--host", host, "--port", "0"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Without keys" in done.stderr
        assert "Traceback" not in done.stderr


def test_key_command_shows_the_key_once_and_keeps_its_hash(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from variseq.cli import main; main()", "keys", "create", "--name", "shop"]
    command += ["--role", "read", "--role", "write", "--file", "keys.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    key = done.stdout.strip()
    assert key.startswith("vsk_")
    assert len(key) == 47
    assert key not in (tmp_path / "keys.yaml").read_text()
    assert stat.S_IMODE((tmp_path / "keys.yaml").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["keys.yaml"]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert "already" in again.stderr
