"""A real PostgreSQL server on a socket in a folder of its own, to be killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

LONGEST_START_SECONDS = 30
SERVER, INITDB = shutil.which("pg_ctl"), shutil.which("initdb")
IS_THERE = SERVER is not None and INITDB is not None and find_spec("psycopg") is not None
needs_postgresql = pytest.mark.skipif(not IS_THERE, reason="PostgreSQL or psycopg is not installed")
OPTIONS = "-c listen_addresses='' -c shared_buffers=16MB -c max_connections=60"


class PostgresqlServer:
    """Refuses to be root, so it is another user where the tests are."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vs-"))
        self.user = "nobody" if os.getuid() == 0 else None
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.schemas = count()
        self._run(
            str(INITDB), "--no-sync", "--username=ann", "--auth=trust", "--encoding=UTF8", "--locale=C", self.data
        )

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, user=self.user)

    def start(self, *options: str) -> None:
        """Returns when it answers."""
        chosen = " ".join([OPTIONS, "-k", str(self.folder), *options])
        self._run(str(SERVER), "-w", "-t", str(LONGEST_START_SECONDS), "-D", self.data, "-o", chosen, "-l",
                  str(self.folder / "log"), "start")  # fmt: skip

    def kill(self) -> None:
        """As a crash does: without a checkpoint."""
        self._run(str(SERVER), "-w", "-m", "immediate", "-D", self.data, "stop")

    def connect(self) -> Any:
        """A connection of the client itself."""
        import psycopg

        return psycopg.connect(f"postgresql://ann@/postgres?host={self.folder}", autocommit=True)

    def address(self, options: str = "") -> str:
        """The address of an empty store."""
        schema = f"store{next(self.schemas)}"
        with self.connect() as connection:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
        return f"postgresql://ann@/postgres?host={self.folder}&options=-csearch_path%3D{schema}{options}"

    def remove(self) -> None:
        if (Path(self.data) / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.folder)
