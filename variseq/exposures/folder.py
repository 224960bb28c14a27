"""A folder of exposures: its segments, and its key, by which users are hashed."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import IO

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.privacy.erased_users import SECRET_BYTES, read_or_make_secret, user_hash
from variseq.sequences.given_history import EPOCH

KEY = "user_hash.key"
SEGMENTS = ("exposures-*.jsonl", "exposures-*.jsonl.gz")
GZIP_LEVEL = 1
USER_BYTES = 12
"""Of the hash of a user that stands in a record."""


def segments(folder: Path) -> list[Path]:
    """The segments of a folder, or the one that was named, in the order of their first records."""
    if folder.is_file():
        return [folder]
    return sorted(path for pattern in SEGMENTS for path in folder.glob(pattern))


def segment_lines(path: Path) -> Iterator[bytes]:
    """The lines of a segment; none of one that was deleted meanwhile, as it was too old.

    Raises InputError where it cannot be read to its end.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield from stream
    except FileNotFoundError:
        return
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}). Restore it from a copy, or remove it.") from error


@contextmanager
def written_anew(path: Path) -> Iterator[gzip.GzipFile | IO[bytes]]:
    """A segment to write, which takes the place of `path` at the end; it is on the disk then."""
    with atomic_write(path) as unfinished, open(unfinished, "wb", opener=_private) as plain:
        is_packed = path.suffix == ".gz"
        with gzip.GzipFile("", "wb", GZIP_LEVEL, plain) if is_packed else nullcontext(plain) as stream:
            yield stream
        plain.flush()
        os.fsync(plain.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def make_key(folder: Path) -> bytes:
    """The key of a folder; it and the folder are made where they are not there.

    Raises:
        InputError: The folder cannot be written, or it has segments and no key.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / KEY).exists() and segments(folder):
            raise InputError(_without_key(folder))
        read_or_make_secret(folder / KEY)
    except OSError as error:
        raise InputError(f"Exposures cannot be kept in {folder}: {error.strerror or error}.") from error
    return read_key(folder)


def read_key(folder: Path) -> bytes:
    """The key of a folder. Raises InputError where it is missing or damaged."""
    try:
        key = (folder / KEY).read_bytes()
    except OSError as error:
        raise InputError(_without_key(folder)) from error
    if len(key) != SECRET_BYTES:
        raise InputError(f"{folder / KEY} has {len(key)} bytes, and a key has {SECRET_BYTES}. Restore it from a copy.")
    return key


def _without_key(folder: Path) -> str:
    return (
        f"{folder / KEY} cannot be read. Without this key nobody can be found in the exposures. Restore it from a "
        "copy, or choose another folder."
    )


def hashed_user(key: bytes, user_id: Id) -> str:
    """What stands for a user in records: 24 hexadecimal digits of `user_hash`.

    >>> len(hashed_user(b"key", "ann")), hashed_user(b"key", 12) == hashed_user(b"key", "12")
    (24, False)
    """
    return user_hash(key, user_id)[:USER_BYTES].hex()


def iso_time(microseconds: int) -> str:
    """UTC microseconds as text.

    >>> iso_time(1_764_504_000_000_001)
    '2025-11-30T12:00:00.000001Z'
    """
    return (EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
