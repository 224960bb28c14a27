"""A real redis-server or valkey-server on a socket in a folder of its own, to be killed and started again."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from redis import Redis, RedisError

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
LONGEST_START_SECONDS = 20.0
needs_redis = pytest.mark.skipif(SERVER is None, reason="neither redis-server nor valkey-server is installed")


class RedisServer:
    """Keeps nothing on disk unless it is told to save; further options are those of its command line."""

    def __init__(self, *options: str) -> None:
        # A folder with a short name: the path of a socket has about a hundred characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="vs-"))
        self.socket = self.folder / "r.sock"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        words = [str(SERVER), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen([*words, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LONGEST_START_SECONDS
        client = self.client()
        while True:
            try:
                client.ping()
                break
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        client.close()

    def kill(self) -> None:
        """With SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket))

    def address(self, record: Path, record_options: str, options: str = "") -> str:
        """The address of a store with its record; options of the record are quoted into it."""
        return f"unix://{self.socket}?durable_log=sqlite:///{record}%3F{record_options.replace('&', '%26')}{options}"

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)
