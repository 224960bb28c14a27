"""Authentication: hosts and origins without keys, keys and their roles, the key file, the audit log."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serving.raw_http import answer_to, head, status_of
from tests.serving.server_process import LocalServer, event, serving_here
from tests.terminal.invoke import refuse, succeed
from variseq.errors import InputError
from variseq.serving.auth import AuditLog
from variseq.serving.http import HTTPError
from variseq.serving.keys import MAX_KEYS, ROLES, Key, create_key, find_key, read_keys

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

    def __init__(self, server: LocalServer, keys: dict[str, str], folder: Path) -> None:
        self.server, self.keys, self.folder = server, keys, folder

    def bearer(self, role: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[role]}"}

    def audit(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = {role: create_key(folder / "keys.yaml", f"{role}-key", [role]) for role in ROLES}
    with serving_here(bundle_folder, keys=folder / "keys.yaml", audit_log=folder / "audit.jsonl") as server:
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


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/users/u1", "/nothing", "/health/", "/v1/admin/model"])
def test_without_a_key_nothing_is_answered_whatever_the_method(guarded: Shop, path: str) -> None:
    """Deny by default for all methods and unknown paths, as in CVE-2026-27482, where DELETE was left out."""
    for method in METHODS:
        answer = answer_to(guarded.server.port, [head(method, path, "Connection: close")])
        assert status_of(answer) in (400, 401, 429), method


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/explore"])
def test_open_paths_take_get_and_head_without_a_key_and_nothing_else(guarded: Shop, path: str) -> None:
    assert guarded.server.client.get(path).status_code == 200
    assert guarded.server.client.head(path).status_code == 200
    for method in ("POST", "OPTIONS", "DELETE"):
        assert guarded.server.client.request(method, path).status_code in (401, 429)


def test_wrong_key_is_refused(guarded: Shop) -> None:
    wrong = ["", "Bearer", "Bearer ", "Bearer vsk_wrong", "Basic dXNlcjpwYXNz", "Bearer vsk_\xff", "bearer\t"]
    for header in [*wrong, "Bearer a b"]:
        parts = [head("GET", "/v1/model", f"Authorization: {header}")]
        assert status_of(answer_to(guarded.server.port, parts)) in (400, 401, 429), header


def test_key_is_in_no_file_and_no_log(guarded: Shop) -> None:
    guarded.server.client.get("/v1/model", headers=guarded.bearer("read"))
    guarded.server.client.get("/v1/model?key=" + guarded.keys["read"], headers=guarded.bearer("read"))
    written = [guarded.server.errors().encode(), *(file.read_bytes() for file in guarded.folder.iterdir())]
    assert not any(key.encode() in content for key in guarded.keys.values() for content in written)


def test_admin_and_erasure_and_refused_keys_are_on_record_without_the_user(guarded: Shop) -> None:
    client = guarded.server.client
    client.post("/v1/events", json={"events": [event("a-1", "audited-user", "i00")]}, headers=guarded.bearer("write"))
    assert client.delete("/v1/users/audited-user", headers=guarded.bearer("erase")).status_code == 200
    client.get("/v1/admin/models", headers=guarded.bearer("admin"))
    client.delete("/v1/users/audited-user", headers=guarded.bearer("read"))
    client.get("/v1/model", headers={"authorization": "Bearer vsk_wrong"})
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
    with serving_here(bundle_folder, keys=keys) as server:
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


def test_without_keys_only_this_machine_is_answered_as_host(server: LocalServer) -> None:
    """A page of another site whose name leads to 127.0.0.1 reaches nothing (DNS rebinding)."""
    local = ["localhost", "127.0.0.1:8000", "[::1]:9", "LOCALHOST"]
    other = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost", "", "10.0.0.1"]
    for host in [*local, *other, "localhost:80:80"]:
        status = status_of(answer_to(server.port, [head("GET", "/v1/model", host=host)]))
        assert status == (200 if host in local else 403), host


def test_without_keys_a_page_of_another_site_is_refused(server: LocalServer) -> None:
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:1234", 200)):
        assert server.client.get("/v1/model", headers={"origin": origin}).status_code == status


def test_no_answer_allows_another_site_to_read_it(server: LocalServer) -> None:
    response = server.client.options(
        "/v1/recommend", headers={"origin": "http://localhost:1", "access-control-request-method": "POST"}
    )
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_key_command_shows_the_key_once_and_keeps_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    words = ("keys", "create", "--name", "shop", "--role", "read", "--role", "write", "--file", file)
    key = succeed(*words).out.strip()
    assert key.startswith("vsk_")
    assert len(key) == 47
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["keys.yaml"]
    assert refuse("already", *words).out == ""


def test_key_finds_its_owner_and_no_other_text_does(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys = {name: create_key(file, name, [role]) for name, role in (("shop", "read"), ("boss", "admin"))}
    known = read_keys(file)
    for name, key in keys.items():
        caller = find_key(known, key)
        assert caller is not None
        assert caller.name == name
        assert find_key(known, key[:-1]) is None
        assert find_key(known, key + " ") is None
    assert find_key(known, "") is None
    assert len(set(keys.values())) == 2


@given(st.text(max_size=100))
def test_no_text_is_a_key_by_chance_and_none_breaks_the_search(text: str) -> None:
    assert find_key([Key(name="a", roles=["read"], sha256="0" * 64)], text) is None


@pytest.mark.parametrize(
    "text",
    [
        "keys: []", "keys: 3", "[]", "", "keys: [{name: a}]", "keys: [{name: a, roles: [], sha256: " + "0" * 64 + "}]",
        "keys: [{name: a, roles: [king], sha256: " + "0" * 64 + "}]", "keys: [{name: a, roles: [read], sha256: x}]",
        "keys: [{name: a, roles: [read], sha256: " + "0" * 64 + ", key: vsk_x}]", "keys: [", "\x00",
        "!!python/object/apply:os.system ['true']",
    ],
)  # fmt: skip
def test_file_that_is_not_one_of_keys_is_one_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InputError, match="key file"):
        read_keys(file)


def test_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    create_key(file, "shop", ["read"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o620)
    with pytest.raises(InputError, match="written by others"):
        read_keys(file)


@pytest.mark.parametrize(
    ("name", "roles"), [("", ["read"]), ("a b", ["read"]), ("a", []), ("a", ["king"]), ("a\n", ["read"])]
)
def test_key_that_is_not_possible_leaves_the_file_as_it_was(tmp_path: Path, name: str, roles: list[str]) -> None:
    with pytest.raises(InputError):
        create_key(tmp_path / "keys.yaml", name, roles)
    assert not list(tmp_path.iterdir())


def test_number_of_keys_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    entries = [f"- {{name: k{n}, roles: [read], sha256: '{n:064x}'}}" for n in range(MAX_KEYS)]
    file.write_text("keys:\n" + "\n".join(entries) + "\n")
    with pytest.raises(InputError, match="the most"):
        create_key(file, "one-more", ["read"])


def test_same_user_gives_the_same_hash_after_a_restart_and_other_ids_give_others(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    hashes = []
    for user in ("ann", "ann", "bob", "12", 12):
        log = AuditLog(file)
        asyncio.run(log.write("erase user", "boss", "done", "r-1", user))
        log.close()
        hashes.append(json.loads(file.read_text().splitlines()[-1])["user"])
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    assert "ann" not in file.read_text()


def test_hash_cannot_be_guessed_without_its_key(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path / "one"), AuditLog(tmp_path / "other")
    assert one.hash_of("ann") != other.hash_of("ann")
    one.close()
    other.close()


def test_log_on_a_full_disk_refuses_the_act() -> None:
    log = AuditLog(None)
    log._descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(HTTPError, match="cannot be written") as refused:
        asyncio.run(log.write("erase user", "boss", "done", "r-1"))
    assert refused.value.status == 503
    log.close()


def test_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        AuditLog(tmp_path / "missing" / "audit.jsonl")
