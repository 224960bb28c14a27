"""The nginx and systemd configurations of the documentation work as they are written."""

from __future__ import annotations

import configparser
import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.serving.server_process import LocalServer, event, serving_here
from variseq.serving.keys import create_key

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def block(language: str, changes: Mapping[str, str]) -> str:
    """The one block of a language, with some of its words (ports, paths) changed; each has to be there once."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for word, other in changes.items():
        assert text.count(word) == 1, (word, text)
        text = text.replace(word, other)
    return str(text)


ANALYZE = shutil.which("systemd-analyze")
PROGRAM = "/opt/variseq/bin/variseq"


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(block("ini", {}))
    return found


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "variseq"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "variseq-documented.service"
    file.write_text(block("ini", {PROGRAM: str(program)}))
    done = subprocess.run([str(ANALYZE), "verify", str(file)], check=False, capture_output=True, text=True)
    # It tells of other units of this machine too.
    assert file.name not in done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_does_find_a_wrong_word(tmp_path: Path) -> None:
    file = tmp_path / "variseq-documented.service"
    file.write_text(block("ini", {"KillMode=mixed": "KillMode=gently"}))
    done = subprocess.run([str(ANALYZE), "verify", str(file)], check=False, capture_output=True, text=True)
    assert "gently" in done.stdout + done.stderr


@pytest.mark.slow
def test_its_command_starts_and_its_signal_drains(bundle_folder: Path, tmp_path: Path) -> None:
    """The command as it is written, in a folder as it is written, with the signal of KillMode=mixed."""
    service = unit()["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[0] == PROGRAM
    (tmp_path / "runs").mkdir()
    shutil.copytree(bundle_folder, tmp_path / "runs" / "first")
    ours = [sys.executable, "-c", "from variseq.cli import main; main()"]
    own = {**os.environ, "OMP_NUM_THREADS": "1", "VARISEQ_SERVE_PORT": "0", "VARISEQ_SERVE_SHUTDOWN_GRACE_SECONDS": "0"}
    key = create_key(tmp_path / "keys.yaml", "shop", ["read"])
    with subprocess.Popen([*ours, *words[1:]], cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(90, process.kill)
        timer.start()
        assert process.stdout is not None
        address = next(line.split(" at ")[1].split()[0] for line in process.stdout if " at http://" in line)
        assert httpx.get(f"{address}/ready", timeout=30).status_code == 200
        allowed = httpx.get(f"{address}/v1/model", headers={"Authorization": f"Bearer {key}"}, timeout=30)
        assert allowed.status_code == 200
        assert httpx.get(f"{address}/v1/model", timeout=30).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(int(service["TimeoutStopSec"])) == 0
        timer.cancel()
    assert (tmp_path / "events.db").exists()


NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
OPENSSL = shutil.which("openssl")
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
def behind(bundle_folder: Path) -> Iterator[LocalServer]:
    with serving_here(bundle_folder) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(behind: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that reaches the proxy only, by TLS."""
    if NGINX is None or OPENSSL is None:
        pytest.skip("nginx or openssl is not installed")
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
    assert (answer.status_code, answer.json()["num_events_used"]) == (200, 1)


def test_pages_and_readiness_come_through_the_proxy(proxy: httpx.Client) -> None:
    for path in ("/explore", "/docs", "/openapi.json", "/ready", "/metrics"):
        assert proxy.get(path).status_code == 200, path


def test_request_id_of_the_proxy_is_that_of_the_log(proxy: httpx.Client, behind: LocalServer) -> None:
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


def test_many_at_once_all_get_an_answer_by_few_connections(proxy: httpx.Client, behind: LocalServer) -> None:
    """Connections to the server are kept and used again."""
    for _ in range(IDLE_UPSTREAM + 8):
        assert proxy.post("/v1/recommend", json={"history": ["i1", "i2"], "k": 3}).status_code == 200
    assert num_connections(behind.port) <= IDLE_UPSTREAM


def num_connections(port: int) -> int:
    """Connections to a port, alive or closed lately, as the system counts them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(int(line.split()[2].rsplit(":", 1)[1], 16) == port for line in lines)
