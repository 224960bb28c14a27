"""A store that is in use into a consistent copy of it in one file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import connect, readable


def back_up(store: SqliteStore, target: Path) -> None:
    """Copy the store as it is at one moment, while it is read and written; whole or not at all.

    To restore: stop the server, move the file and its -wal and -shm files away, put the copy in the file's place,
    start the server. A backup holds users who are erased later: keep it only as long as your promise to them allows,
    or open it once and erase them there too.

    Raises InputError when the target cannot be written, StoreUnavailable.
    """
    if target.resolve() == store.path.resolve():
        raise InputError(f"{target} is the store itself. Name another file for the backup.")
    try:
        with atomic_write(target) as unfinished:
            unfinished.unlink(missing_ok=True)
            os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _copy(store, unfinished)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}. Nothing was left there.") from error


def _copy(store: SqliteStore, partial: Path) -> None:
    try:
        source = connect(store.path, store.options, writes=False)
        try:
            copy = sqlite3.connect(partial, isolation_level=None)
            try:
                # In one step: one moment of the store, which others go on writing meanwhile.
                source.backup(copy)
            finally:
                copy.close()
        finally:
            source.close()
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            raise InputError(
                f"The backup cannot be written ({error}). Is there room? Nothing was left there."
            ) from error
        raise readable(error, store.path) from error
