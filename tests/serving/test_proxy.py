"""The server behind nginx, with the configuration of docs/serving.md as it stands there."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.documented import block
from tests.serving.server_process import ServerProcess, event, serving

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(NGINX is None or OPENSSL is None, reason="nginx or openssl is not installed")
IDLE_UPSTREAM = 32
# Started as root it would give its work to a user who may not enter the folder of a test.
AROUND = """
user {user};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {documented}
}}
"""


@pytest.fixture(scope="module")
def behind(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("behind"), bundle_folder) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(behind: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that knows the proxy only, by TLS."""
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = folder / "shop.pem", folder / "shop.key"
    words = [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*words, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    port = free_port()
    changes = {
        "127.0.0.1:8000": f"127.0.0.1:{behind.port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/shop.pem": str(certificate),
        "/etc/ssl/shop.key": str(key),
    }
    configuration = folder / "nginx.conf"
    configuration.write_text(AROUND.format(user=getpass.getuser(), folder=folder, documented=block("nginx", changes)))
    command = [str(NGINX), "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    process = subprocess.Popen(command)
    try:
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, timeout=30) as client:
            wait_until_open(port)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_open(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, "nginx did not start"
            time.sleep(0.02)


def test_event_through_the_proxy_changes_the_next_answer(proxy: httpx.Client) -> None:
    sent = proxy.post("/v1/events", json={"events": [event("p1", "proxied", "i01")]})
    assert (sent.status_code, sent.json()["accepted"]) == (200, 1)
    answer = proxy.post("/v1/recommend", json={"user_id": "proxied", "k": 3})
    assert (answer.status_code, answer.json()["events_used"]) == (200, 1)


def test_pages_and_readiness_come_through_the_proxy(proxy: httpx.Client) -> None:
    for path in ("/explore", "/docs", "/openapi.json", "/ready", "/metrics"):
        assert proxy.get(path).status_code == 200, path


def test_request_id_of_the_proxy_is_that_of_the_log(proxy: httpx.Client, behind: ServerProcess) -> None:
    answer = proxy.post("/v1/recommend", json={"history": ["i1"], "k": 1}).json()
    assert len(answer["request_id"]) == 32
    end = time.monotonic() + 10
    while answer["request_id"] not in behind.errors():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_body_that_is_too_large_is_refused_and_the_largest_allowed_is_not(proxy: httpx.Client) -> None:
    assert proxy.post("/v1/events", content=bytes(513 * 1024)).status_code == 413
    thousand = [event(f"large-{n}", f"large-{n}-{'x' * 80}", "i1") for n in range(1000)]
    assert proxy.post("/v1/events", json={"events": thousand}).status_code == 200


def test_wrong_method_and_path_are_answers_of_the_server(proxy: httpx.Client) -> None:
    assert proxy.get("/v1/nothing").json()["error"]["message"]
    assert proxy.put("/v1/recommend").status_code == 405


def test_many_at_once_all_get_an_answer_by_few_connections(proxy: httpx.Client, behind: ServerProcess) -> None:
    """Connections to the server are kept and used again."""
    for _ in range(300):
        assert proxy.post("/v1/recommend", json={"history": ["i1", "i2"], "k": 3}).status_code == 200
    assert num_connections(behind.port) <= IDLE_UPSTREAM


def num_connections(port: int) -> int:
    """Connections to a port, alive or closed lately, as the system counts them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(int(line.split()[2].rsplit(":", 1)[1], 16) == port for line in lines)
