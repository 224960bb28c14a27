"""Acts that someone may have to answer for into lines of a file that are on the disk before the act is answered."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.serving.refusals import unavailable

SECRET_BYTES = 32


class AuditLog:
    """Appends one JSON line an act; `write` raises Refusal (503) where the disk does not take it.

    A user is a keyed hash: the same user gives the same hash, the hash no user.

    Lines are written whole by one call, so several processes may share the file. `path` None keeps no log.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._secret = b""
        self._descriptor = -1
        self._pool = ThreadPoolExecutor(1, "audit")
        if path is None:
            return
        try:
            self._secret = _secret(path.with_name(path.name + ".key"))
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise InputError(f"The audit log {path} cannot be written: {error.strerror}.") from error

    async def write(self, act: str, key: str, outcome: str, request_id: str, user_id: Id | None = None) -> None:
        """Returns when the line is on the disk. `key` is the name of the caller's key."""
        if self._descriptor < 0:
            return
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "act": act,
            "key": key,
            "outcome": outcome,
            "request_id": request_id,
        }
        if user_id is not None:
            record["user"] = self.hash_of(user_id)
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._append, line)
        except OSError as error:
            raise unavailable(f"The audit log cannot be written ({error.strerror}). Tell the operator.") from error

    def hash_of(self, user_id: Id) -> str:
        """What stands for a user in the log."""
        return hmac.new(self._secret, f"{type(user_id).__name__}:{user_id}".encode(), hashlib.sha256).hexdigest()[:32]

    def close(self) -> None:
        self._pool.shutdown()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: bytes) -> None:
        if os.write(self._descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)


def _secret(path: Path) -> bytes:
    """The key of the hashes, made at the first start; of several processes that start at once, one makes it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if not path.exists():
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(SECRET_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path.read_bytes()
