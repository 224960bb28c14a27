"""Vectors that were computed before, by the hash of what they were computed from."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from variseq.errors import InputError


class VectorCache:
    """A file of vectors; each batch that is put is on the disk before the next is computed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        with connection:
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")

    @staticmethod
    def key(encoder: str, content: bytes) -> bytes:
        """What a vector is found by."""
        return hashlib.sha256(encoder.encode() + b"\0" + content).digest()

    def get(self, key: bytes, dim: int) -> Float32[np.ndarray, " dim"] | None:
        """The vector of a key; None where there is none of this length."""
        row = self._connection.execute("SELECT vector FROM vectors WHERE key = ?", [key]).fetchone()
        return None if row is None or len(row[0]) != 4 * dim else np.frombuffer(row[0], "<f4").astype(np.float32)

    def put(self, vectors: Iterable[tuple[bytes, Float32[np.ndarray, " dim"]]]) -> None:
        """Keep vectors under their keys."""
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)


@contextmanager
def open_cache(path: Path) -> Iterator[VectorCache]:
    """The cache in a file, which is made if it is not there. Raises InputError when it is damaged or not writable."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            yield VectorCache(connection)
    except sqlite3.Error as error:
        raise InputError(
            f"The cache {path} cannot be used ({error}). Delete it; its vectors are computed again."
        ) from error
